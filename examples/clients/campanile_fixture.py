import json, subprocess, pytest

@pytest.fixture
def campanile():
    command = ["campanile", "serve", "--pipe"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        def event(*kinds):
            return next(e for e in map(json.loads, server.stdout) if e["event"] in kinds)
        def fault(spec):
            print(spec, file=server.stdin, flush=True)
            answer = event("fault", "wrong_fault")
            assert "error" not in answer, answer
        address = lambda text: (text.rsplit(":", 1)[0], int(text.rsplit(":", 1)[1]))
        addresses = [address(event("listening")["addr"]) for _ in range(2)]
        yield dict(zip(["daytime", "echo"], addresses), fault=fault, event=event)
