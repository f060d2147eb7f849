"""The recipes of the page "Faults in front of your own server", src/guide/own_server.md, against Redis."""

from __future__ import annotations

import queue
import socket
import threading
from typing import Iterator

import pytest

from campanile import Campanile

DEADLINE = 30.0
SHORT = 0.05


class Redis:
    """A client over the protocol RESP. A reply is text; an array is joined with spaces."""

    def __init__(self, addr: tuple[str, int], timeout: float = DEADLINE) -> None:
        self.socket = socket.create_connection(addr, timeout)
        self.buffer = b""

    def send(self, *words: str) -> None:
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self.socket.sendall(f"*{len(words)}\r\n{parts}".encode())

    def more(self) -> None:
        received = self.socket.recv(1 << 16)
        if not received:
            raise EOFError(f"the reply ends after {len(self.buffer)} bytes")
        self.buffer += received

    def receive(self) -> str:
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        kind, rest = line[:1], line[1:].decode()
        if kind == b"*":
            return " ".join(self.receive() for _ in range(int(rest)))
        if kind != b"$" or rest == "-1":
            return rest
        while len(self.buffer) < int(rest) + 2:
            self.more()
        body, self.buffer = self.buffer[: int(rest)], self.buffer[int(rest) + 2 :]
        return body.decode()

    def ask(self, *words: str) -> str:
        self.send(*words)
        return self.receive()

    def close(self) -> None:
        self.socket.close()


def through(server: Campanile, timeout: float = DEADLINE) -> Redis:
    """A client of the proxy, after an answer of the server."""
    client = Redis(server.proxy("db").addr, timeout)
    assert client.ask("PING") == "PONG"
    return client


@pytest.fixture
def direct(redis: tuple[str, int]) -> Iterator[Redis]:
    """A client that connects without the proxy."""
    client = Redis(redis)
    yield client
    client.close()


@pytest.fixture
def server(redis: tuple[str, int]) -> Iterator[Campanile]:
    with Campanile(proxies={"db": "%s:%d" % redis}) as server:
        yield server


def test_a_query_that_never_returns_times_out_and_the_next_connection_works(
    server: Campanile, direct: Redis
) -> None:
    direct.ask("MSET", "a", "1", "b", "2")
    first = through(server, SHORT)
    server.fault("db #1: stall")
    with pytest.raises(TimeoutError):
        first.ask("GET", "a")
    first.close()
    second = through(server)
    assert second.ask("GET", "a") == "1"
    second.close()
    # A client that keeps the connection takes the late answer for that of its next query.
    kept = through(server, SHORT)
    with server.fault("db #3: stall"):
        with pytest.raises(TimeoutError):
            kept.ask("GET", "a")
    kept.socket.settimeout(DEADLINE)
    assert kept.ask("GET", "b") == "1"
    assert kept.receive() == "2"
    kept.close()


def test_a_pool_whose_connections_die_while_idle_recovers_with_one_new_connection(
    server: Campanile,
) -> None:
    pool = [through(server) for _ in range(3)]
    server.fault("db: reset")
    assert server.clear() == 1
    for client in pool:
        with pytest.raises(ConnectionResetError):
            client.receive()
        client.close()
    through(server).close()
    # A firewall forgets the connections that are idle, and lets new ones through.
    pool = [through(server, SHORT) for _ in range(3)]
    server.fault("db #5..7: stall")
    server.fault("db #5..7: deaf")
    for client in pool:
        with pytest.raises(TimeoutError):
            client.ask("PING")
        client.close()
    through(server).close()


def test_a_retry_repeats_a_write_whose_answer_breaks_off_unless_the_write_has_a_key(
    server: Campanile, direct: Redis
) -> None:
    def breaks_off(when: str, *words: str) -> int:
        """Asks on a connection that breaks, and returns its number."""
        client = through(server)
        number = int(server.event("connecting", within=DEADLINE)["id"])
        server.fault(f"db #{number}: reset after 1 bytes {when}")
        with pytest.raises(ConnectionResetError):
            client.ask(*words)
        client.close()
        return number

    def retry(*words: str) -> str:
        client = through(server)
        server.event("connecting", within=DEADLINE)
        answer = client.ask(*words)
        client.close()
        return answer

    breaks_off("", "INCR", "rows")
    assert direct.ask("GET", "rows") == "1"
    assert retry("INCR", "rows") == "2"
    payment = ("SET", "payment-7", "1", "NX")
    breaks_off("", *payment)
    assert retry(*payment) == "-1"
    # Before the server has the statement, a retry is right.
    number = breaks_off("in", "INCR", "rows")
    server.event("closed", service="db upstream", id=number, within=DEADLINE)
    assert direct.ask("GET", "rows") == "2"
    assert retry("INCR", "rows") == "3"


def publish_until_queued(direct: Redis) -> int:
    """Publishes until Redis holds more than a mebibyte for its subscriber, or has disconnected it."""
    for count in range(1, 1000):
        direct.ask("PUBLISH", "news", "x" * (64 << 10))
        clients = direct.ask("CLIENT", "LIST").splitlines()
        rows = [dict(word.split("=", 1) for word in row.split()) for row in clients]
        queued = [int(row["omem"]) for row in rows if row["sub"] == "1"]
        if not queued or queued[0] > 1 << 20:
            return count
    raise AssertionError("the queue of the server for its subscriber stays small")


def test_a_slow_consumer_fills_the_queue_of_the_server_and_then_receives_everything(
    server: Campanile, direct: Redis
) -> None:
    feed = server.proxy("db")
    subscriber = through(server)
    assert subscriber.ask("SUBSCRIBE", "news") == "subscribe news 1"
    received: queue.Queue[int] = queue.Queue()

    def read() -> None:
        """Reads all the time."""
        try:
            while True:
                received.put(len(subscriber.receive()))
        except EOFError:
            received.put(-1)

    reading = threading.Thread(target=read)
    reading.start()
    for side, effect in ((feed, "rate 1KiB/s"), (feed.upstream, "deaf")):
        with side.fault(effect):
            count = publish_until_queued(direct)
            client_side, server_side = server.connections()
            # The proxy holds a little, and the clients without the proxy are served.
            assert server_side["bytes_in"] - client_side["bytes_out"] <= 128 << 10
            assert direct.ask("PING") == "PONG"
        for _ in range(count):
            assert received.get(timeout=DEADLINE) == len("message news ") + (64 << 10)
    # A server that disconnects a slow consumer.
    direct.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 512kb 0 0")
    with feed.upstream.fault("deaf"):
        publish_until_queued(direct)
    while received.get(timeout=DEADLINE) != -1:
        pass
    reading.join()
    subscriber.close()
    closed = server.event("closed", service="db upstream", within=DEADLINE)
    assert closed["first_end"] == "peer"


def test_a_server_that_restarts_in_the_middle_of_a_reply_cuts_it_and_refuses_for_a_while(
    redis: tuple[str, int], direct: Redis
) -> None:
    direct.ask("SET", "long", "x" * 4000)
    with Campanile(proxies={"db": "%s:%d" % redis}, manual_time=True) as server:
        client = through(server)
        server.fault("db #1: close after 1000 bytes")
        server.fault("db: refuse for 2s")
        with pytest.raises(EOFError):
            client.ask("GET", "long")
        client.close()
        addr = server.proxy("db").addr
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(addr, DEADLINE)
        server.advance(1.999)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(addr, DEADLINE)
        server.advance(0.001)
        client = through(server)
        assert len(client.ask("GET", "long")) == 4000
        client.close()
        accepted = [row for row in server.events() if row["event"] == "accepted"]
        assert len(accepted) == 2
