// The contract of all clients: each situation of contract.json. Run it with `go test *_test.go`.
package campanile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

const deadline = 30 * time.Second

type situation struct {
	Name    string
	Options map[string]any
	Steps   []json.RawMessage
}

type step struct {
	verb, name, text, to, fails, as, answer, error, by string
	number                                             float64
	ledger                                             Event
}

type run struct {
	t       *testing.T
	server  *Server
	clients map[string]*net.TCPConn
	faults  map[string]Fault
}

func parse(t *testing.T, raw json.RawMessage) step {
	// The first key is the verb; a map does not keep the order.
	verb := strings.SplitN(string(raw), `"`, 3)[1]
	var all Event
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	take := func(key string) string {
		text, _ := all[key].(string)
		delete(all, key)
		return text
	}
	parsed := step{verb: verb}
	parsed.number, _ = all[verb].(float64)
	parsed.name = take(verb)
	parsed.text, parsed.to, parsed.fails, parsed.as = take("text"), take("to"), take("fails"), take("as")
	parsed.answer, parsed.error, parsed.by, parsed.ledger = take("answer"), take("error"), take("by"), all
	return parsed
}

func (r *run) peer(name string) string { return r.clients[name].LocalAddr().String() }

func agrees(row, ledger Event) bool {
	for key, value := range ledger {
		if !reflect.DeepEqual(row[key], value) {
			return false
		}
	}
	return true
}

func (r *run) take(s step) error {
	client := r.clients[s.name]
	switch s.verb {
	case "fault":
		fault, err := r.server.TryFault(s.name)
		if err != nil {
			return err
		}
		r.faults[s.as] = fault
		if s.answer == "" {
			s.answer = s.name
		}
		if fault.Text != s.answer {
			return errors.New(fault.Text)
		}
	case "wrong":
		if _, err := r.server.TryFault(s.name); err == nil || !strings.Contains(err.Error(), s.error) {
			return fmt.Errorf("answered with %v", err)
		}
	case "remove":
		r.faults[s.name].Remove()
	case "clear":
		if count := r.server.Clear(); count != int(s.number) {
			return fmt.Errorf("%d have ended", count)
		}
	case "advance":
		r.server.Advance(time.Duration(s.number*1e6+0.5) * time.Microsecond)
	case "connect":
		return r.connect(s)
	case "send":
		_, err := client.Write([]byte(s.text))
		return err
	case "finish":
		return client.CloseWrite()
	case "close":
		return client.Close()
	case "receive":
		bytes := make([]byte, len(s.text))
		count, err := io.ReadFull(client, bytes)
		if string(bytes) != s.text {
			return fmt.Errorf("received %q, %v", bytes[:count], err)
		}
	case "end":
		count, err := client.Read(make([]byte, 1024))
		by := map[bool]string{err == io.EOF: "eof", errors.Is(err, syscall.ECONNRESET): "reset"}[true]
		if count != 0 || by != s.by {
			return fmt.Errorf("received %d bytes, %v", count, err)
		}
	case "silent":
		return r.silent(client)
	case "open":
		return r.open(s)
	case "listed":
		if rows := r.server.Connections(); len(rows) != int(s.number) {
			return fmt.Errorf("%v are open", rows)
		}
	case "closed":
		event, err := r.server.TryEvent(deadline, "closed", Event{"peer": r.peer(s.name)})
		if err != nil || !agrees(event, s.ledger) {
			return fmt.Errorf("%v, %v", event, err)
		}
	default:
		return errors.New("unknown verb")
	}
	return nil
}

func (r *run) connect(s step) error {
	patience := deadline
	if s.fails == "timeout" {
		patience = 300 * time.Millisecond
	}
	addr := map[string]string{"echo": r.server.Echo, "daytime": r.server.Daytime}[s.to]
	client, err := net.DialTimeout("tcp", addr, patience)
	failure, found := net.Error(nil), ""
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		found = "refused"
	case errors.As(err, &failure) && failure.Timeout():
		found = "timeout"
	case err != nil:
		return err
	default:
		r.clients[s.name] = client.(*net.TCPConn)
		client.SetDeadline(time.Now().Add(deadline))
	}
	if found != s.fails {
		return fmt.Errorf("connecting ended with %q", found)
	}
	return nil
}

func (r *run) silent(client *net.TCPConn) error {
	raw, err := client.SyscallConn()
	if err != nil {
		return err
	}
	var outcome error
	err = raw.Read(func(fd uintptr) bool {
		_, _, outcome = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	if err == nil && outcome != syscall.EAGAIN {
		return fmt.Errorf("something is there: %v", outcome)
	}
	return err
}

func (r *run) open(s step) error {
	for began := time.Now(); ; {
		rows := r.server.Connections()
		for _, row := range rows {
			if row["peer"] == r.peer(s.name) && agrees(row, s.ledger) {
				return nil
			}
		}
		if time.Since(began) > deadline {
			return fmt.Errorf("%v", rows)
		}
	}
}

func TestContract(t *testing.T) {
	text, err := os.ReadFile("contract.json")
	if err != nil {
		t.Fatal(err)
	}
	var contract struct{ Situations []situation }
	if err := json.Unmarshal(text, &contract); err != nil {
		t.Fatal(err)
	}
	if len(contract.Situations) != 41 {
		t.Fatal(len(contract.Situations), "situations")
	}
	for _, situation := range contract.Situations {
		t.Run(situation.Name, func(t *testing.T) {
			args := []string{"--clock=2014-01-29T19:14:15Z", "--zone=utc"}
			for name, value := range situation.Options {
				flag := "--" + strings.ReplaceAll(name, "_", "-")
				switch value := value.(type) {
				case bool:
					args = append(args, flag)
				case []any:
					for _, fault := range value {
						args = append(args, fmt.Sprint("--fault=", fault))
					}
				default:
					args = append(args, fmt.Sprint(flag, "=", value))
				}
			}
			r := &run{t, Campanile(t, args...), map[string]*net.TCPConn{}, map[string]Fault{}}
			for _, raw := range situation.Steps {
				if err := r.take(parse(t, raw)); err != nil {
					t.Errorf("%s: %v", raw, err)
					break
				}
			}
			for _, client := range r.clients {
				client.Close()
			}
		})
	}
}
