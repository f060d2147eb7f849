// The tutorial's client reads once. Run it with `go test campanile_test.go naive_test.go`.
package campanile

import (
	"io"
	"net"
	"testing"
)

func TestOneReadIsNotAMessage(t *testing.T) {
	event, fault := Campanile(t)
	daytime := event()["addr"].(string)
	event()
	dial := func() net.Conn {
		client, err := net.Dial("tcp", daytime)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	fault("daytime: slice 5/20ms")
	if count, _ := dial().Read(make([]byte, 1024)); count != 5 {
		t.Fatal("one read gave", count)
	}
	if all, _ := io.ReadAll(dial()); len(all) != 26 {
		t.Fatal("reading to the end gave", len(all))
	}
}
