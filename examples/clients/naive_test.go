// The tutorial's client reads once. Run it with `go test *_test.go`.
package campanile

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	client, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// recorder keeps the message of a failure.
type recorder struct {
	testing.TB
	text string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.text = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestAMissingProgramIsReportedWithTheWaysToGetIt(t *testing.T) {
	t.Setenv("PATH", "")
	t.Setenv("CAMPANILE_PROGRAM", "")
	recorded, done := &recorder{TB: t}, make(chan struct{})
	go func() {
		defer close(done)
		Campanile(recorded)
	}()
	<-done
	if !strings.Contains(recorded.text, "not found in $PATH.\nRun `cargo install --path .`") {
		t.Fatal(recorded.text)
	}
}

func TestOneReadIsNotAMessage(t *testing.T) {
	server := Campanile(t)
	fault := server.Fault("daytime: slice 5/100ms")
	if count, _ := dial(t, server.Daytime).Read(make([]byte, 1024)); count != 5 {
		t.Fatal("one read gave", count)
	}
	if all, _ := io.ReadAll(dial(t, server.Daytime)); len(all) != 26 {
		t.Fatal("reading to the end gave", len(all))
	}
	fault.Remove()
	if count, _ := dial(t, server.Daytime).Read(make([]byte, 1024)); count != 26 {
		t.Fatal("one read gave", count)
	}
}

func TestAProxyHasAnAddressAndFaultsOnBothSides(t *testing.T) {
	behind := Campanile(t)
	server := Campanile(t, "--proxy=time=0>"+behind.Daytime)
	if server.Proxies["time"] == behind.Daytime {
		t.Fatal("the proxy has the address of the server")
	}
	server.Fault("time #2: close after 3 bytes")
	server.Fault("time upstream #3: stall")
	for _, expected := range []int{26, 3} {
		if all, _ := io.ReadAll(dial(t, server.Proxies["time"])); len(all) != expected {
			t.Fatal("reading to the end gave", len(all))
		}
	}
	if peer := server.Event("connecting", Event{"service": "time upstream"})["peer"]; peer != behind.Daytime {
		t.Fatal("the server's side has the peer", peer)
	}
}

func TestAnEventThatDoesNotMatchStaysForALaterCall(t *testing.T) {
	server := Campanile(t)
	client := dial(t, server.Daytime)
	io.ReadAll(client)
	client.Close()
	if closed := server.Event("closed", Event{"service": "daytime"}); closed["bytes_out"] != 26.0 {
		t.Fatal(closed)
	}
	if accepted := server.Event("accepted"); accepted["id"] != 1.0 {
		t.Fatal(accepted)
	}
	_, err := server.TryEvent(10*time.Millisecond, "accepted")
	if err == nil || !strings.Contains(err.Error(), "what happened:\n") || !strings.Contains(err.Error(), `"event":"closed"`) {
		t.Fatal(err)
	}
}
