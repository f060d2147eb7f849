"""The contract of all clients: each situation of ../../contract.json."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from campanile import Campanile, Event, Fault, FaultError

DEADLINE = 30.0
PATH = Path(__file__).parents[2] / "contract.json"
CONTRACT = json.loads(PATH.read_text())


class Situation:
    def __init__(self, server: Campanile) -> None:
        self.server = server
        self.clients: dict[str, socket.socket] = {}
        self.peers: dict[str, str] = {}
        self.faults: dict[str, Fault] = {}

    def take(self, step: dict[str, Any]) -> None:
        verb, value = next(iter(step.items()))
        rest = {key: step[key] for key in list(step)[1:]}
        verbs: dict[str, Callable[..., None]] = {
            "fault": self.fault,
            "wrong": self.wrong,
            "remove": lambda name: self.faults[name].remove(),
            "clear": self.clear,
            "advance": self.server.advance,
            "connect": self.connect,
            "send": lambda name, text: self.clients[name].sendall(text.encode()),
            "finish": lambda name: self.clients[name].shutdown(socket.SHUT_WR),
            "close": lambda name: self.clients[name].close(),
            "receive": self.receive,
            "end": self.end,
            "silent": self.silent,
            "open": self.open,
            "listed": self.listed,
            "closed": self.closed,
        }
        if "as" in rest:
            rest["name"] = rest.pop("as")
        verbs[verb](value, **rest)

    def fault(self, spec: str, name: str = "", answer: str = "") -> None:
        self.faults[name] = self.server.fault(spec)
        assert self.faults[name].text == (answer or spec)

    def wrong(self, command: str, error: str) -> None:
        with pytest.raises(FaultError) as failure:
            self.server.fault(command)
        assert error in str(failure.value)

    def clear(self, count: int) -> None:
        assert self.server.clear() == count

    def connect(self, name: str, to: str, fails: str = "") -> None:
        addr = {"echo": self.server.echo, "daytime": self.server.daytime}[to].addr
        if fails:
            expected = {"refused": ConnectionRefusedError, "timeout": TimeoutError}[fails]
            with pytest.raises(expected):
                socket.create_connection(addr, 0.3 if fails == "timeout" else DEADLINE).close()
            return
        client = self.clients[name] = socket.create_connection(addr, DEADLINE)
        self.peers[name] = "%s:%d" % client.getsockname()

    def receive(self, name: str, text: str) -> None:
        received = b""
        while len(received) < len(text) and (piece := self.clients[name].recv(len(text) - len(received))):
            received += piece
        assert received == text.encode()

    def end(self, name: str, by: str) -> None:
        try:
            rest, found = self.clients[name].recv(1024), "eof"
        except ConnectionResetError:
            rest, found = b"", "reset"
        assert (rest, found) == (b"", by)

    def silent(self, name: str) -> None:
        self.clients[name].setblocking(False)
        with pytest.raises(BlockingIOError):
            self.clients[name].recv(1)
        self.clients[name].settimeout(DEADLINE)

    def open(self, name: str, **ledger: object) -> None:
        began = time.monotonic()
        while True:
            rows: list[Event] = self.server.connections()
            found = [row for row in rows if row["peer"] == self.peers[name]]
            if any(all(row[key] == value for key, value in ledger.items()) for row in found):
                return
            assert time.monotonic() - began < DEADLINE, f"{found} has no {ledger}"

    def listed(self, count: int) -> None:
        assert len(self.server.connections()) == count

    def closed(self, name: str, **ledger: object) -> None:
        event = self.server.event("closed", peer=self.peers[name], within=DEADLINE)
        assert {key: event[key] for key in ledger} == ledger


def test_the_contract_has_41_situations_and_uses_every_verb() -> None:
    situations = CONTRACT["situations"]
    assert len({situation["name"] for situation in situations}) == 41
    used = {next(iter(step)) for situation in situations for step in situation["steps"]}
    assert used == set(CONTRACT["verbs"])


@pytest.mark.parametrize("situation", CONTRACT["situations"], ids=lambda situation: situation["name"])
def test_contract(situation: dict[str, Any]) -> None:
    options = {"clock": "2014-01-29T19:14:15Z", "zone": "utc", **situation["options"]}
    with Campanile(**options) as server:
        run = Situation(server)
        try:
            for step in situation["steps"]:
                print(step)
                run.take(step)
        finally:
            for client in run.clients.values():
                client.close()
