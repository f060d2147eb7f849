import json, subprocess, threading, pytest

@pytest.fixture
def campanile():
    with subprocess.Popen(["campanile", "serve", "--pipe", "-q"], stdin=-1, stdout=-1, text=True) as server:
        def event(*kinds, within=30):  # the server is ended, and next() with it, if none comes
            (guard := threading.Timer(within, server.kill)).start()
            try: return next(e for e in map(json.loads, server.stdout) if e["event"] in kinds)
            finally: guard.cancel()
        def fault(spec):
            print(spec, file=server.stdin, flush=True)
            assert "error" not in (answer := event("fault", "wrong_fault")), answer
        (_, daytime), (_, echo) = (event("listening")["addr"].rsplit(":", 1) for _ in range(2))
        yield dict(daytime=("127.0.0.1", int(daytime)), echo=("127.0.0.1", int(echo)), fault=fault, event=event)
