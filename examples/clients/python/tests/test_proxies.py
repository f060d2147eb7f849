"""Proxies in front of a server of the test's own."""

from __future__ import annotations

import socket
from typing import Iterator

import pytest

from campanile import Campanile, FaultError, ServerError

DEADLINE = 30.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        yield listener


@pytest.fixture
def server(listener: socket.socket) -> Iterator[Campanile]:
    with Campanile(proxies={"db": "127.0.0.1:%d" % listener.getsockname()[1]}) as server:
        yield server


def conversation(server: Campanile, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """A client of the proxy, and the server's end, after a byte each way."""
    client = socket.create_connection(server.proxy("db").addr, DEADLINE)
    behind = listener.accept()[0]
    behind.settimeout(DEADLINE)
    client.sendall(b"?")
    assert behind.recv(1) == b"?"
    behind.sendall(b"!")
    assert client.recv(1) == b"!"
    return client, behind


def test_a_fault_of_a_proxy_is_what_the_client_experiences(
    server: Campanile, listener: socket.socket
) -> None:
    db = server.proxy("db")
    assert db.addr == (db.host, db.port) and db.port != listener.getsockname()[1]
    assert db.fault("close after 3 bytes").text == "db: close after 3 bytes"
    client, behind = conversation(server, listener)
    with client, behind:
        behind.sendall(b"answer")
        assert b"".join(iter(lambda: client.recv(16), b"")) == b"an"
    assert server.event("closed", service="db", within=DEADLINE)["faults"] == ["db: close after 3 bytes"]


def test_a_fault_upstream_is_what_the_server_experiences(
    server: Campanile, listener: socket.socket
) -> None:
    client, behind = conversation(server, listener)
    other_client, other_behind = conversation(server, listener)
    with client, behind, other_client, other_behind:
        fault = server.proxy("db").upstream.fault("#2: reset after 2 bytes")
        assert fault.text == "db upstream #2: reset after 2 bytes"
        for end in (client, other_client):
            end.sendall(b"query")
        assert other_behind.recv(16) == b"qu"
        for end in (other_behind, other_client):
            with pytest.raises(ConnectionResetError):
                end.recv(16)
        assert behind.recv(16) == b"query"
        assert [row["service"] for row in server.connections()] == ["db", "db upstream"]
    closed = server.event("closed", service="db upstream", within=DEADLINE)
    assert (closed["id"], closed["bytes_out"], closed["reset_by"]) == (2, 3, "we")


def test_both_sides_of_a_conversation_have_events_and_a_row_of_the_table(
    server: Campanile, listener: socket.socket
) -> None:
    client, behind = conversation(server, listener)
    with client, behind:
        peer = "127.0.0.1:%d" % listener.getsockname()[1]
        assert server.event("connecting", service="db upstream", within=DEADLINE)["peer"] == peer
        lines = server.table().splitlines()
        from_client = "db #1 from 127.0.0.1:%d: " % client.getsockname()[1]
        to_server = f"db upstream #1 to {peer}: "
        rows = [line.split(" s  ")[1] for line in lines if " s  " in line]
        assert rows == [from_client + "accepted", to_server + "connecting"]
        assert lines[-2:] == [
            f"  open now:  {from_client}1 bytes in, 1 out",
            f"  open now:  {to_server}1 bytes in, 1 out",
        ]


def test_echo_and_daytime_take_faults_in_the_same_way(server: Campanile) -> None:
    assert server.echo.fault("stall").text == "echo: stall"
    assert server.daytime.fault("once: reset").text == "daytime once: reset"


def test_a_wrong_proxy_is_reported_with_the_next_step(server: Campanile) -> None:
    with pytest.raises(ValueError, match=r"no proxy is named 'web': .*proxies=\{'web': "):
        server.proxy("web")
    with pytest.raises(FaultError, match="a proxy has no listener upstream"):
        server.proxy("db").upstream.fault("refuse")
    with pytest.raises(ServerError, match=r"exit code 1:\n(.|\n)*cannot resolve the upstream"):
        Campanile(proxies={"db": "nowhere.invalid:1"})
    with pytest.raises(ServerError, match="exit code 2:\n(.|\n)*is not usable in a fault"):
        Campanile(proxies={"The Database": "127.0.0.1:1"})
