"""Every effect through `campanile serve --pipe`, seen with nothing but sockets."""
import errno, json, socket, subprocess, sys

server = subprocess.Popen(
    [sys.argv[1], "serve", "--pipe", "--clock", "2014-01-29T19:14:15Z", "--zone", "utc"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
LINE = b"Wed Jan 29 19:14:15 2014\r\n"
seen = set()


def event():
    return json.loads(server.stdout.readline())


def address():
    host, port = event()["addr"].rsplit(":", 1)
    return host, int(port)


daytime, echo = address(), address()


def fault(spec):
    print(spec, file=server.stdin, flush=True)
    while (answer := event())["event"] not in ("fault", "wrong_fault"):
        pass
    assert answer["event"] == "fault", answer
    seen.add(spec.split(": ")[1].split()[0])


def ledger(spec):
    """Of the connection that this was done to."""
    while (answer := event())["event"] != "closed" or spec not in answer["faults"]:
        pass
    return answer


def converse(addr, sent=b"", end=True):
    """What comes back, and how it ended: eof, reset or silence."""
    with socket.create_connection(addr, timeout=30) as client:
        if sent:
            client.sendall(sent)
        if end:
            client.shutdown(socket.SHUT_WR)
        back = b""
        while True:
            try:
                piece = client.recv(65536)
            except ConnectionResetError:
                return back, "reset"
            except TimeoutError:
                return back, "silence"
            if not piece:
                return back, "eof"
            back += piece
            if len(back) >= len(sent) and not end:
                client.settimeout(0.2)


def check(spec, sent, expected, addr=echo, **how):
    fault(spec)
    found = converse(addr, sent, **how)
    assert found == expected, (spec, found)


check("echo once: delay 20ms+-5ms", b"Hello", (b"Hello", "eof"))
check("echo once: slice 2/1ms", b"Hello", (b"Hello", "eof"))
assert ledger("echo once: slice 2")["write_sizes"] == [2, 2, 1]
check("daytime once: rate 1KiB/s", b"", (LINE, "eof"), addr=daytime)
check("daytime once: short 5", b"", (LINE, "eof"), addr=daytime)
assert ledger("daytime once: short 5")["write_sizes"] == [5, 5, 5, 5, 5, 1]
fault("echo once: corrupt after 2 bytes")
back, end = converse(echo, b"Hello")
assert end == "eof" and [a == b for a, b in zip(back, b"Hello")] == [True, True, False, True, True]
check("echo once: shut after 3 bytes", b"Hello", (b"Hel", "eof"))
check("echo once: close after 3 bytes", b"Hello", (b"Hel", "eof"))
check("echo once: close after 4 bytes in", b"Hello", (b"", "eof"))
check("echo once: close at write 1", b"Hello", (b"", "eof"))
check("echo once: close at eof", b"", (b"", "eof"))
check("echo once: close after 20ms", b"", (b"", "eof"), end=False)
check("echo once: reset after 3 bytes", b"Hello", (b"Hel", "reset"))
check("daytime once: reset after 10 bytes", b"", (LINE[:10], "reset"), addr=daytime)
check("echo once: hold-open", b"Hello", (b"Hello", "silence"), end=False)

fault("echo once: stall after 3 bytes")
with socket.create_connection(echo, timeout=30) as client:
    client.sendall(b"Hello")
    assert client.recv(3, socket.MSG_WAITALL) == b"Hel"
    client.settimeout(0.2)
    try:
        raise AssertionError(client.recv(1))
    except TimeoutError:
        pass

fault("echo once: deaf")
with socket.create_connection(echo) as client:
    client.settimeout(0.5)
    try:
        while True:
            client.sendall(bytes(1 << 20))
    except TimeoutError:
        pass

fault("daytime: never-accept")
with socket.create_connection(daytime) as client:
    client.settimeout(0.2)
    try:
        raise AssertionError(client.recv(1))
    except TimeoutError:
        pass

fault("echo: refuse")
assert socket.socket().connect_ex(echo) == errno.ECONNREFUSED

server.stdin.close()
assert server.wait(30) == 0
print(len(seen), "effects seen")
