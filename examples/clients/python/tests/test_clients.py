"""Clients of every kind against the fixture: threads, asyncio, another process."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from campanile import Campanile

DEADLINE = 30.0


def round_trip(addr: tuple[str, int], message: bytes) -> bytes:
    with socket.create_connection(addr, DEADLINE) as client:
        client.sendall(message)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(1024), b""))


def test_threads_share_one_server_and_each_connection_has_its_ledger(campanile: Campanile) -> None:
    messages = [bytes([65 + number]) * (number + 1) for number in range(20)]
    with campanile.fault("echo: short 3"), ThreadPoolExecutor(20) as pool:
        answers = pool.map(lambda message: round_trip(campanile.echo.addr, message), messages)
        assert list(answers) == messages
        ledgers = [campanile.event("closed", service="echo", within=DEADLINE) for _ in messages]
    assert sorted(ledger["bytes_out"] for ledger in ledgers) == list(range(1, 21))
    assert all(ledger["faults"] == ["echo: short 3"] for ledger in ledgers)


def test_threads_add_and_end_faults_at_the_same_time(campanile: Campanile) -> None:
    def use(number: int) -> int:
        with campanile.fault(f"echo #{1000 + number}: reset") as fault:
            assert fault.text == f"echo #{1000 + number}: reset"
            campanile.connections()
        return fault.id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(use, range(40)))
    assert len(set(ids)) == 40
    assert campanile.clear() == 0


def test_an_asyncio_client_outlives_a_stall(campanile: Campanile) -> None:
    async def client() -> None:
        reader, writer = await asyncio.open_connection(*campanile.echo.addr)
        fault = campanile.fault("echo: stall")
        writer.write(b"hello")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(16), 0.2)
        fault.remove()
        assert await asyncio.wait_for(reader.read(16), DEADLINE) == b"hello"
        writer.close()
        await writer.wait_closed()
        ledger = await asyncio.to_thread(campanile.event, "closed", service="echo", within=DEADLINE)
        assert (ledger["bytes_in"], ledger["bytes_out"]) == (5, 5)

    asyncio.run(client())


@pytest.mark.campanile(clock="2014-01-29T19:14:15Z", zone="utc")
def test_a_client_in_another_process_reads_pieces(campanile: Campanile) -> None:
    script = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); "
    script += "print([len(piece) for piece in iter(lambda: s.recv(99), b'')])"
    host, port = campanile.daytime.addr
    with campanile.fault("daytime: slice 10/100ms"):
        command = [sys.executable, "-c", script, host, str(port)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert ran.stdout == "[10, 10, 6]\n", ran.stderr
    assert campanile.event("closed", service="daytime")["write_sizes"] == [10, 10, 6]
