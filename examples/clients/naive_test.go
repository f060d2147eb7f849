// The tutorial's client reads once. Run it with `go test *_test.go`.
package campanile

import (
	"io"
	"net"
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
