"""The verbs of the fixture: faults, events, time, connections."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from campanile import Campanile, FaultError, NoEvent, ServerError

DEADLINE = 30.0


def connect(server: Campanile) -> socket.socket:
    return socket.create_connection(server.echo.addr, DEADLINE)


def test_a_service_has_an_address(campanile: Campanile) -> None:
    for service in (campanile.echo, campanile.daytime):
        assert service.addr == (service.host, service.port)
        assert service.host == "127.0.0.1" and service.port > 0
    assert campanile.echo.port != campanile.daytime.port


def test_an_event_that_does_not_match_stays_for_a_later_call(campanile: Campanile) -> None:
    with connect(campanile):
        pass
    assert campanile.event("closed", within=DEADLINE)["id"] == 1
    with connect(campanile):
        pass
    assert campanile.event("closed", within=DEADLINE)["id"] == 2
    # These two came before the others.
    assert campanile.event("accepted")["id"] == 1
    assert campanile.event("accepted")["id"] == 2
    with pytest.raises(NoEvent):
        campanile.event("accepted", within=0)


def test_fields_choose_among_events_in_order(campanile: Campanile) -> None:
    with connect(campanile), socket.create_connection(campanile.daytime.addr, DEADLINE), connect(campanile):
        second = campanile.event("accepted", id=2, service="echo", within=DEADLINE)
        assert second["service"] == "echo"
        rest = [campanile.event("accepted", within=DEADLINE) for _ in range(2)]
        assert {(event["service"], event["id"]) for event in rest} == {("echo", 1), ("daytime", 1)}


def test_a_missing_event_fails_with_the_table_of_what_happened(campanile: Campanile) -> None:
    campanile.fault("echo: stall")
    with connect(campanile) as client:
        client.sendall(b"hello")
        peer = "127.0.0.1:%d" % client.getsockname()[1]
        while not any(open["bytes_in"] == 5 for open in campanile.connections()):
            pass
        with pytest.raises(AssertionError) as failure:
            campanile.event("closed", service="echo", within=0.05)
    lines = str(failure.value).splitlines()
    assert lines[0] == "no closed with service='echo' within 0.05 s"
    assert lines[1] == f"campanile, seed {campanile.seed}"
    assert lines[2].endswith(" s  fault: echo: stall")
    assert lines[3].endswith(f" s  echo #1 from {peer}: accepted")
    assert lines[4] == f"  open now:  echo #1 from {peer}: 5 bytes in, 0 out [echo: stall]"
    assert len(lines) == 5


def test_a_wait_that_blocks_the_event_loop_names_the_way_out(campanile: Campanile) -> None:
    async def wait() -> None:
        campanile.event("closed", within=0)

    with pytest.raises(NoEvent, match=r"asyncio\.to_thread\(campanile\.event"):
        asyncio.run(wait())


def test_a_fault_ends_with_its_block_and_the_open_connection_goes_on(campanile: Campanile) -> None:
    with connect(campanile) as client:
        with campanile.fault("echo: stall") as fault:
            client.sendall(b"hello")
            while not any(open["bytes_in"] == 5 for open in campanile.connections()):
                pass
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(16)
            client.settimeout(DEADLINE)
        assert client.recv(16) == b"hello"
    # It has ended: a second time changes nothing.
    fault.remove()
    assert campanile.clear() == 0


def test_a_fault_that_is_called_plainly_ends_on_remove_or_clear(campanile: Campanile) -> None:
    refused = campanile.fault("echo: refuse")
    with pytest.raises(ConnectionRefusedError):
        connect(campanile)
    refused.remove()
    connect(campanile).close()
    campanile.fault("echo: refuse")
    campanile.fault("daytime: refuse")
    assert campanile.clear() == 2
    connect(campanile).close()


def test_a_wrong_fault_is_refused_with_its_column(campanile: Campanile) -> None:
    with pytest.raises(FaultError, match="column 7: unknown effect `rest`: did you mean `reset`"):
        campanile.fault("echo: rest")
    with pytest.raises(FaultError, match="more than one line"):
        campanile.fault("echo: stall\nclear")
    assert campanile.clear() == 0


@pytest.mark.campanile(manual_time=True)
def test_manual_time_passes_only_by_advance(campanile: Campanile) -> None:
    with connect(campanile) as client, campanile.fault("echo: delay 1h"):
        client.sendall(b"late")
        while not any(open["bytes_in"] == 4 for open in campanile.connections()):
            pass
        campanile.advance(3599.5)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(16)
        client.settimeout(DEADLINE)
        campanile.advance(0.5)
        assert client.recv(16) == b"late"
    rows = [row.split(" s  ", 1)[1] for row in campanile.table().splitlines() if "advanced" in row]
    assert rows == ["advanced by 3599.5 s", "advanced by 0.5 s"]


def test_advance_needs_manual_time(campanile: Campanile) -> None:
    with pytest.raises(FaultError, match="--manual-time"):
        campanile.advance(1)


def test_connections_lists_what_is_open(campanile: Campanile) -> None:
    assert campanile.connections() == []
    with connect(campanile) as first, connect(campanile) as second:
        for client, message in ((first, b"one"), (second, b"three")):
            client.sendall(message)
            assert client.recv(16) == message
        rows = campanile.connections()
        assert [(row["service"], row["bytes_out"]) for row in rows] == [("echo", 3), ("echo", 5)]


def test_a_test_that_leaves_a_connection_open_ends_at_once() -> None:
    with Campanile() as server:
        server.fault("echo: stall")
        client = connect(server)
        client.sendall(b"x")
        while not any(open["bytes_in"] == 1 for open in server.connections()):
            pass
        began = time.monotonic()
    assert time.monotonic() - began < 4, "`--grace` is 5 s"
    client.close()


def test_a_server_that_ends_early_is_reported() -> None:
    server = Campanile()
    server._process.kill()
    with pytest.raises(ServerError, match="waited for closed, but the server has ended"):
        server.event("closed", within=DEADLINE)
    with pytest.raises(ServerError, match="cannot send `echo: stall`: the server has ended"):
        server.fault("echo: stall")
    with pytest.raises(ServerError, match="exit code -9"):
        server.stop()


def test_a_wrong_option_is_reported_with_the_words_of_the_program() -> None:
    with pytest.raises(ServerError, match="exit code 2:\n(.|\n)*--ilde"):
        Campanile(ilde="1s")


@pytest.mark.campanile(faults="daytime: close after 3 bytes")
def test_a_text_is_one_fault(campanile: Campanile) -> None:
    with socket.create_connection(campanile.daytime.addr, 30) as client:
        assert len(client.recv(1024)) == 3


def test_the_table_marks_each_fault_that_has_ended(campanile: Campanile) -> None:
    with campanile.fault("echo: slice 1"), socket.create_connection(campanile.echo.addr, 30) as client:
        with campanile.fault("echo: stall"):
            client.sendall(b"x")
            while not any(len(row["faults"]) == 2 for row in campanile.connections()):
                pass
        assert client.recv(1) == b"x"
        assert campanile.table().endswith("1 bytes in, 1 out [echo: slice 1] [echo: stall, ended]")
