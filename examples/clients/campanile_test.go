package campanile

import ("bufio"; "encoding/json"; "io"; "os/exec"; "testing")

func Campanile(t *testing.T) (event func() map[string]any, fault func(string)) {
	server := exec.Command("campanile", "serve", "--pipe", "-q")
	in, _ := server.StdinPipe()
	out, _ := server.StdoutPipe()
	if err := server.Start(); err != nil { t.Fatal(err) }
	t.Cleanup(func() { in.Close(); server.Wait() })
	lines := bufio.NewScanner(out)
	event = func() (e map[string]any) { lines.Scan(); json.Unmarshal(lines.Bytes(), &e); return }
	return event, func(spec string) { io.WriteString(in, spec+"\n"); for e := event(); e["fault"] == nil; e = event() {} }
}
