"""Real servers behind `campanile proxy`: without a fault their clients notice nothing, and with one they
report what the row of its effect says.

Run it with `python3 tests/cli/servers.py PROGRAM redis|postgres|nginx...`, where PROGRAM is campanile.
Exit code 77: the server is not installed.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = sys.argv[1]
DEADLINE = 30


class Missing(Exception):
    """A program is not installed."""


def program(*names):
    for name in names:
        for found in [shutil.which(name), *Path("/usr/lib/postgresql").glob(f"*/bin/{name}")]:
            if found:
                return str(found)
    raise Missing(names[0])


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Running:
    """A server, which ends with the block."""

    def __init__(self, command, port, **options):
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)
        end = time.monotonic() + DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                assert self.child.poll() is None and time.monotonic() < end, f"{command[0]} does not start"
                time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGINT)
        self.child.wait(DEADLINE)


class Proxy:
    """A proxy in front of a port; `port` is its own."""

    def __init__(self, upstream, *faults):
        words = [word for fault in faults for word in ("--fault", f"proxy: {fault}")]
        command = [PROGRAM, "proxy", "0", str(upstream), "--pipe", "-q", *words]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        listening = json.loads(self.child.stdout.readline())
        self.port = int(listening["addr"].rpartition(":")[2])

    def __enter__(self):
        return self.port

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.stdout.read()
        assert self.child.wait(DEADLINE) == 0


class Redis:
    """The part of a client that the test needs, over the protocol RESP; the same errors as redis-py."""

    def __init__(self, port, timeout=DEADLINE):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))

    def receive(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("connection closed by server")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            body = self.file.read(int(rest) + 2)
            if len(body) < int(rest) + 2:
                raise EOFError("connection closed by server")
            return body[:-2]
        if kind in b"+:":
            return rest
        raise ValueError(line)

    def ask(self, *words):
        self.send(*words)
        return self.receive()


def raises(errors, action):
    try:
        value = action()
    except errors as error:
        return error
    raise AssertionError(f"{value!r} instead of one of {errors}")


def redis():
    server, port = program("redis-server"), free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [server, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder]
        with Running(command, port):
            with Proxy(port) as front:
                redis_unharmed(Redis(front))
                redis_py(front)
            for fault in ["slice 3", "short 7", "delay 1ms"]:
                with Proxy(port, fault) as front:
                    client = Redis(front)
                    assert client.ask("SET", "key", "value") == b"OK", fault
                    assert client.ask("GET", "key") == b"value", fault
            redis_faults(port)


def redis_unharmed(client):
    value = os.urandom(8 << 20)
    assert client.ask("SET", "large", value) == b"OK" and client.ask("GET", "large") == value
    for number in range(10_000):
        client.send("SET", number, number)
    assert [client.receive() for _ in range(10_000)] == [b"OK"] * 10_000
    assert all(client.ask("GET", number) == str(number).encode() for number in range(500))
    client.send("QUIT")
    assert client.receive() == b"OK" and client.file.read() == b""


def redis_py(port):
    """The client that most Python programs use, if it is installed."""
    try:
        import redis as module
    except ImportError:
        return
    client = module.Redis(port=port, socket_timeout=DEADLINE)
    value = os.urandom(1 << 20)
    assert client.set("key", value) and client.get("key") == value
    with client.pipeline() as pipeline:
        for number in range(1_000):
            pipeline.incr("count")
        assert pipeline.execute()[-1] == 1_000
    client.close()


def redis_faults(port):
    def ask(fault, timeout=DEADLINE):
        with Proxy(port, fault) as front:
            client = Redis(front, timeout)
            return client.ask("GET", "key")

    raises(ConnectionResetError, lambda: ask("reset after 5 bytes"))
    raises(EOFError, lambda: ask("close after 5 bytes"))
    raises(EOFError, lambda: ask("shut after 5 bytes"))
    raises(TimeoutError, lambda: ask("stall", 0.3))
    raises(TimeoutError, lambda: ask("never-accept", 0.3))
    raises(ConnectionRefusedError, lambda: ask("refuse"))
    assert bin(ask("corrupt after 5 bytes")[1] ^ b"value"[1]).count("1") == 1


def postgres():
    initdb, server, psql = program("initdb"), program("postgres"), program("psql")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        user = []
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
            user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = f"{folder}/data"
        command = [*user, initdb, "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        command = [*user, server, "-D", data, "-p", str(port), "-k", folder, "-F"]
        with Running(command, port, stderr=subprocess.DEVNULL, cwd=folder):
            with Proxy(port) as front:
                postgres_unharmed(psql, front)
            with Proxy(port, "slice 3") as front:
                assert query(psql, front, "select 6 * 7").stdout == "42\n"
            for fault in ["reset after 400 bytes", "close after 400 bytes"]:
                with Proxy(port, fault) as front:
                    done = query(psql, front, "select repeat('x', 1000)")
                    words = "server closed the connection unexpectedly"
                    assert done.returncode == 2 and words in done.stderr, (fault, done)


def query(psql, port, text, **options):
    command = [psql, "-X", "-A", "-t", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE * 2, **options)


def postgres_unharmed(psql, port):
    rows = "".join(f"{number}\t{hashlib.sha256(str(number).encode()).hexdigest()}\n" for number in range(300_000))
    assert query(psql, port, "create table big (a int, b text)").returncode == 0
    assert query(psql, port, "copy big from stdin", input=rows).stdout == "COPY 300000\n"
    assert query(psql, port, "copy (select * from big order by a) to stdout").stdout == rows
    # The cancel request comes on a connection of its own, through the proxy as well.
    command = [psql, "-X", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", "select pg_sleep(300)"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waiting = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    while query(psql, port, waiting).stdout != "1\n":
        pass
    child.send_signal(signal.SIGINT)
    assert "canceling statement due to user request" in child.communicate(timeout=DEADLINE)[1]


NGINX = """
daemon off; master_process off; error_log stderr crit; pid {folder}/pid;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_max_body_size 1k; root {folder}; lingering_timeout 2s;
  server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl;
    ssl_certificate {folder}/cert; ssl_certificate_key {folder}/key; }}
}}
"""


def nginx():
    server, curl, openssl = program("nginx", "/usr/sbin/nginx"), program("curl"), program("openssl")
    port, tls = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        body = os.urandom(4 << 20)
        Path(folder, "body").write_bytes(body)
        Path(folder, "conf").write_text(NGINX.format(folder=folder, port=port, tls=tls))
        command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
                   "-keyout", f"{folder}/key", "-out", f"{folder}/cert"]
        subprocess.run(command, check=True, capture_output=True)

        def get(url, *words):
            command = [curl, "-s", "-k", "--max-time", str(DEADLINE), *words, *[url] * (1 + words.count("-w"))]
            return subprocess.run(command, capture_output=True)

        with Running([server, "-c", f"{folder}/conf"], port, stderr=subprocess.DEVNULL):
            with Proxy(port) as front, Proxy(tls) as front_tls:
                url = f"http://127.0.0.1:{front}/body"
                assert get(url).stdout == body
                assert get(f"https://127.0.0.1:{front_tls}/body").stdout == body
                # Two requests and one connection.
                assert get(url, "-w", "%{num_connects}").stdout == body + b"1" + body + b"0"
                # The answer comes before the upload ends.
                early = get(url, "-T", f"{folder}/body", "-H", "Expect:", "-o", "/dev/null", "-D", "-")
                assert early.stdout.startswith(b"HTTP/1.1 413 "), early
            for fault, codes in [("slice 9000", [0]), ("close after 1000 bytes", [18]),
                                 ("reset after 1000 bytes", [56]), ("refuse", [7])]:
                with Proxy(port, fault) as front:
                    assert get(f"http://127.0.0.1:{front}/body").returncode in codes, fault


if __name__ == "__main__":
    for name in sys.argv[2:]:
        try:
            {"redis": redis, "postgres": postgres, "nginx": nginx}[name]()
        except Missing as missing:
            print(f"{missing} is not installed")
            sys.exit(77)
        print(f"{name}: well")
