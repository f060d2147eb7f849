// A server for a test in Go: `server := Campanile(t, "--idle=1s")`. It ends with the test.
// Copy this file; it needs the program only.
package campanile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

const howToGetIt = "cannot start the program `campanile`: %v.\n" +
	"Run `cargo install --path .` in a checkout of campanile, or set CAMPANILE_PROGRAM to its path."

// Event has the key "event" and the keys of that kind. Its numbers are of type float64.
type Event = map[string]any

// Server has the addresses of its services. Its methods may be called from any goroutine.
type Server struct {
	Daytime, Echo string
	// Proxies has the addresses of the proxies by name: Campanile(t, "--proxy=db=0>127.0.0.1:6379").
	// Faults name it `db`, or `db upstream` on the server's side.
	Proxies     map[string]string
	t           testing.TB
	stdin       io.WriteCloser
	commands    sync.Mutex
	mutex       sync.Mutex
	changed     chan struct{}
	log, unread []Event
	ended       bool
}

// Fault is in force until Remove, Clear, or the end of the test.
type Fault struct {
	ID     int
	Text   string
	server *Server
}

// Campanile starts `campanile serve` with these arguments.
func Campanile(t testing.TB, args ...string) *Server {
	t.Helper()
	program := os.Getenv("CAMPANILE_PROGRAM")
	if program == "" {
		program = "campanile"
	}
	command := exec.Command(program, append([]string{"serve", "--pipe", "--quiet"}, args...)...)
	command.Stderr = os.Stderr
	stdin, _ := command.StdinPipe()
	stdout, _ := command.StdoutPipe()
	if err := command.Start(); err != nil {
		t.Fatalf(howToGetIt, err)
	}
	server := &Server{t: t, stdin: stdin, changed: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		server.read(stdout)
	}()
	t.Cleanup(func() {
		stdin.Close()
		timer := time.AfterFunc(10*time.Second, func() { command.Process.Kill() })
		<-read
		err := command.Wait()
		timer.Stop()
		if err != nil {
			t.Errorf("the server has ended with an error: %v", err)
		}
	})
	server.Daytime = server.Event("listening", Event{"service": "daytime"})["addr"].(string)
	server.Echo = server.Event("listening", Event{"service": "echo"})["addr"].(string)
	server.Proxies = map[string]string{}
	for _, arg := range args {
		if strings.HasPrefix(arg, "--proxy=") {
			name := strings.Split(arg, "=")[1]
			server.Proxies[name] = server.Event("listening", Event{"service": name})["addr"].(string)
		}
	}
	return server
}

// Fault adds a fault such as `echo: stall`, which is in force when this returns.
func (s *Server) Fault(spec string) Fault {
	s.t.Helper()
	fault, err := s.TryFault(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return fault
}

// TryFault returns the error of the server instead of failing the test.
func (s *Server) TryFault(spec string) (Fault, error) {
	answers, err := s.ask(spec, "fault")
	if err != nil {
		return Fault{}, err
	}
	return Fault{int(answers[0]["id"].(float64)), answers[0]["fault"].(string), s}, nil
}

// Remove ends the fault. A connection that it slowed or silenced goes on.
func (f Fault) Remove() {
	f.server.t.Helper()
	isEnd := func(e Event) bool { return e["event"] == "fault_ended" && int(e["id"].(float64)) == f.ID }
	f.server.mutex.Lock()
	for _, event := range f.server.log {
		if isEnd(event) { // By Clear, or by its `for T`.
			f.server.mutex.Unlock()
			return
		}
	}
	f.server.mutex.Unlock()
	f.server.must(fmt.Sprintf("remove %d", f.ID), "fault_ended")
}

// Clear ends all faults and returns their number.
func (s *Server) Clear() int {
	s.t.Helper()
	return int(s.must("clear", "cleared")[0]["count"].(float64))
}

// Advance lets time pass, with `--manual-time`.
func (s *Server) Advance(by time.Duration) {
	s.t.Helper()
	s.must(fmt.Sprintf("advance %dns", by.Nanoseconds()), "advanced")
}

// Connections returns the ledgers of the open connections.
func (s *Server) Connections() []Event {
	s.t.Helper()
	return s.must("connections", "listed")[1:]
}

// Event returns the next event of this kind with these values, and waits for it up to 5 seconds.
// Events that do not match stay for later calls.
func (s *Server) Event(kind string, where ...Event) Event {
	s.t.Helper()
	event, err := s.TryEvent(5*time.Second, kind, where...)
	if err != nil {
		s.t.Fatal(err)
	}
	return event
}

// TryEvent returns an error with what did happen if no such event comes in time.
func (s *Server) TryEvent(within time.Duration, kind string, where ...Event) (Event, error) {
	return s.next(fmt.Sprint(kind, where), within, func(event Event) bool {
		for _, fields := range where {
			for name, value := range fields {
				if !reflect.DeepEqual(event[name], value) {
					return false
				}
			}
		}
		return event["event"] == kind
	})
}

func (s *Server) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for more := true; more; {
		more = lines.Scan()
		var event Event
		s.mutex.Lock()
		if more && json.Unmarshal(lines.Bytes(), &event) == nil {
			s.log, s.unread = append(s.log, event), append(s.unread, event)
		}
		s.ended = !more
		close(s.changed)
		s.changed = make(chan struct{})
		s.mutex.Unlock()
	}
}

func (s *Server) next(wanted string, within time.Duration, matches func(Event) bool) (Event, error) {
	deadline := time.After(within)
	for {
		s.mutex.Lock()
		for at, event := range s.unread {
			if matches(event) {
				s.unread = append(s.unread[:at:at], s.unread[at+1:]...)
				s.mutex.Unlock()
				return event, nil
			}
		}
		changed, ended := s.changed, s.ended
		s.mutex.Unlock()
		if ended {
			return nil, fmt.Errorf("waited for %s, but the server has ended\n%s", wanted, s.table())
		}
		select {
		case <-changed:
		case <-deadline:
			return nil, fmt.Errorf("no %s within %v; what happened:\n%s", wanted, within, s.table())
		}
	}
}

// One command at a time, so that each answer is that of its command.
func (s *Server) ask(command, kind string) ([]Event, error) {
	s.commands.Lock()
	defer s.commands.Unlock()
	io.WriteString(s.stdin, command+"\n")
	answer := func(kind string) (Event, error) {
		event, err := s.next("answer to `"+command+"`", 10*time.Second, func(event Event) bool {
			return event["event"] == kind || event["event"] == "wrong_fault"
		})
		if err == nil && event["event"] == "wrong_fault" {
			err = fmt.Errorf("`%v`: %v", event["fault"], event["error"])
		}
		return event, err
	}
	first, err := answer(kind)
	answers := []Event{first}
	if kind == "listed" && err == nil {
		for len(answers) <= int(first["count"].(float64)) && err == nil {
			var row Event
			row, err = answer("open")
			answers = append(answers, row)
		}
	}
	return answers, err
}

func (s *Server) must(command, kind string) []Event {
	s.t.Helper()
	answers, err := s.ask(command, kind)
	if err != nil {
		s.t.Fatal(err)
	}
	return answers
}

func (s *Server) table() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var rows strings.Builder
	for _, event := range s.log {
		if event["event"] != "open" && event["event"] != "listed" {
			row, _ := json.Marshal(event)
			fmt.Fprintf(&rows, "  %s\n", row)
		}
	}
	return rows.String()
}
