"""Runs `campanile serve --pipe` for one test: commands go to its stdin, events come from its stdout."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, Mapping, Sequence

__tracebackhide__ = True

Event = Dict[str, Any]
"""One event of the server: a dictionary with the key ``event`` and the keys of that kind."""

#: Names the program, if it is neither beside this Python nor on PATH.
VARIABLE = "CAMPANILE_PROGRAM"
#: Seconds for the program to start, to answer a command, and to end.
PATIENCE = 10.0
#: Rows of the table in a failure message.
ROWS = 50


class ServerError(RuntimeError):
    """The server could not be started, or it ended too early."""


class FaultError(ValueError):
    """The server has refused a command. The message names the column and the nearest known word."""


class NoEvent(AssertionError):
    """An expected event did not happen in time. The message lists what did happen."""


class Side:
    """The connections that one fault can name: those of a service, or the server's side of a proxy."""

    def __init__(self, server: Campanile, name: str) -> None:
        self.name = name
        self._server = server

    def fault(self, text: str) -> Fault:
        """Adds a fault for this side: ``reset after 5 bytes``, or ``#3: stall``.

        Like ``Campanile.fault``, which takes the name of the service as well.
        """
        return self._server.fault(f"{self.name}{'' if ':' in text else ':'} {text}")


class Service(Side):
    """A service and its address."""

    def __init__(self, server: Campanile, name: str, host: str, port: int) -> None:
        super().__init__(server, name)
        self.host = host
        self.port = port

    @property
    def addr(self) -> tuple[str, int]:
        """The address as the functions of ``socket`` take it."""
        return (self.host, self.port)


class Proxy(Service):
    """A proxy in front of a server of your own. Its faults are what the client experiences."""

    @property
    def upstream(self) -> Side:
        """The server's side. Its faults are what the server experiences."""
        return Side(self._server, f"{self.name} upstream")


class Fault:
    """A fault in force. It ends at the end of its ``with`` block, on ``remove()``, or with the test."""

    def __init__(self, server: Campanile, id: int, text: str) -> None:
        self.id = id
        self.text = text
        self._server = server

    def remove(self) -> None:
        """Ends the fault. A connection that it slowed or silenced goes on."""
        self._server._remove(self)

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server._is_running():
            self.remove()

    def __repr__(self) -> str:
        return f"<Fault {self.id} `{self.text}`>"


def find_program() -> str:
    """Returns the path of the program: $CAMPANILE_PROGRAM, or beside this Python, or on PATH."""
    explicit = os.environ.get(VARIABLE)
    if explicit:
        if shutil.which(explicit):
            return explicit
        raise ServerError(
            f"cannot run {explicit!r}, which ${VARIABLE} names: set it to the path of the program"
        )
    beside = Path(sysconfig.get_path("scripts"), "campanile" + (sysconfig.get_config_var("EXE") or ""))
    found = str(beside) if beside.is_file() else shutil.which("campanile")
    if found:
        return found
    raise ServerError(
        f"cannot find the program `campanile`: it is neither {beside} nor on PATH.\n"
        "The wheel of this package carries it: run `pip install ./examples/clients/python` in a\n"
        "checkout of campanile. Or run `cargo install --path .` there, or set\n"
        f"${VARIABLE} to the path of the program."
    )


class Campanile:
    """A server with the services echo and daytime, on free ports of 127.0.0.1.

    Each keyword is a flag of ``campanile serve``: ``idle="1s"`` is ``--idle 1s``, and
    ``manual_time=True`` is ``--manual-time``. ``proxies={"db": "127.0.0.1:6379"}`` puts a proxy
    in front of each of these servers. ``faults``, one text or several, are in force from the start;
    ``args`` are passed as they are. All methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        proxies: Mapping[str, str] = {},
        faults: str | Sequence[str] = (),
        args: Sequence[str] = (),
        **options: object,
    ) -> None:
        command = [find_program(), "serve", "--pipe", "--quiet"]
        for name, value in options.items():
            flag = "--" + name.replace("_", "-")
            if value is True:
                command.append(flag)
            elif value is not None and value is not False:
                command.append(f"{flag}={value}")
        command += [f"--proxy={name}=0>{upstream}" for name, upstream in proxies.items()]
        texts = [faults] if isinstance(faults, str) else faults
        command += [f"--fault={fault}" for fault in texts]
        command += args
        self._began = time.monotonic()
        self._stderr = tempfile.TemporaryFile()
        self._said = ""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
        )
        self._commands = threading.Lock()
        self._changed = threading.Condition()
        # Guarded by `_changed`: what happened and when, the places in that list of what no call has
        # taken yet, in order, and whether stdout has ended.
        self._log: list[tuple[float, Event]] = []
        self._unread: dict[int, None] = {}
        self._is_over = False
        self._proxies = tuple(proxies)
        self._addrs: dict[str, tuple[str, int]] = {}
        self._reader = threading.Thread(target=self._read, name="campanile events", daemon=True)
        self._reader.start()
        try:
            first = self._next("an address", lambda event: event["event"] == "listening", PATIENCE)
        except NoEvent as error:
            self._process.kill()
            self._close()
            raise ServerError(f"the server does not start: {error}") from None
        except ServerError:
            self._close()
            raise
        self.seed = int(first["seed"])
        """The seed of chances and jitter. The option ``seed`` repeats a run."""
        self._add_addr(first)

    @property
    def echo(self) -> Service:
        """The echo service (RFC 862): it sends back what it receives."""
        return Service(self, "echo", *self._addr("echo"))

    @property
    def daytime(self) -> Service:
        """The daytime service (RFC 867): it sends one line and closes."""
        return Service(self, "daytime", *self._addr("daytime"))

    def proxy(self, name: str) -> Proxy:
        """The proxy with this name, of the option ``proxies``."""
        if name not in self._proxies:
            raise ValueError(
                f"no proxy is named {name!r}: start the server with the option "
                f'proxies={{{name!r}: "127.0.0.1:6379"}}'
            )
        return Proxy(self, name, *self._addr(name))

    def fault(self, spec: str) -> Fault:
        """Adds a fault such as ``echo #3: reset after 5 bytes``. It is in force when this returns.

        As a context manager, it ends with the ``with`` block. Otherwise it ends with the test, or on
        ``remove()``.
        """
        answer = self._ask(spec, "fault")
        return Fault(self, int(answer["id"]), str(answer["fault"]))

    def clear(self) -> int:
        """Ends all faults. Returns their number."""
        return int(self._ask("clear", "cleared")["count"])

    def advance(self, seconds: float) -> None:
        """Lets time pass, with ``manual_time=True``. Everything due on the way has happened then."""
        self._ask(f"advance {_duration(seconds)}", "advanced")

    def connections(self) -> list[Event]:
        """Returns the ledgers of the open connections, as they are now."""
        with self._commands:
            self._send("connections")
            count = int(self._answer("connections", "listed")["count"])
            # The rows come before their number.
            return [self._answer("connections", "open") for _ in range(count)]

    def event(self, *kinds: str, within: float = 5.0, **fields: object) -> Event:
        """Returns the next event of one of these kinds, and waits for it up to ``within`` seconds.

        ``fields`` must have these values: ``event("closed", service="echo")``. Each event is returned
        once. Events that do not match stay for later calls; none is lost.
        """

        def matches(event: Event) -> bool:
            is_kind = not kinds or event["event"] in kinds
            return is_kind and all(event.get(name) == value for name, value in fields.items())

        wanted = " or ".join(kinds) or "event"
        if fields:
            wanted += " with " + ", ".join(f"{name}={value!r}" for name, value in fields.items())
        return self._next(wanted, matches, within)

    def events(self) -> list[Event]:
        """Returns every event so far, taken by a call or not."""
        with self._changed:
            return [event for _, event in self._log]

    def table(self) -> str:
        """Returns what happened, and what is open now, as text."""
        # The answer comes after everything that has happened before it.
        open_now = self._open_now()
        with self._changed:
            log = list(self._log)
        rows = [f"{at:9.3f} s  {row}" for at, event in log if (row := _row(event))]
        lines = [f"campanile, seed {getattr(self, 'seed', 'unknown')}"]
        if len(rows) > ROWS:
            lines.append(f"  ({len(rows) - ROWS} earlier events)")
        lines += rows[-ROWS:] or ["  (no connection so far)"]
        lines += [f"  open now:  {_ledger(event)}" for event in open_now]
        return "\n".join(lines)

    def stop(self) -> None:
        """Ends the server. The fixture calls this at the end of the test.

        :raises ServerError: If the server had ended before, or ends with an error.
        """
        self._close()
        if self._process.returncode != 0:
            raise ServerError(self._ended())

    def __enter__(self) -> Campanile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        else:
            self._close()

    def _close(self) -> None:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._read_stderr()
        self._stderr.close()

    def _read(self) -> None:
        """Keeps every event, on a thread of its own, until stdout ends."""
        assert self._process.stdout
        for line in self._process.stdout:
            event: Event = json.loads(line)
            with self._changed:
                self._unread[len(self._log)] = None
                self._log.append((time.monotonic() - self._began, event))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _next(self, wanted: str, matches: Callable[[Event], bool], within: float) -> Event:
        deadline = time.monotonic() + within
        with self._changed:
            places: Iterable[int] = list(self._unread)
            while True:
                for at in places:
                    if at in self._unread and matches(self._log[at][1]):
                        del self._unread[at]
                        return self._log[at][1]
                seen, is_over = len(self._log), self._is_over
                if is_over or not self._changed.wait_for(
                    lambda: len(self._log) > seen or self._is_over, deadline - time.monotonic()
                ):
                    break
                places = range(seen, len(self._log))
        if is_over:
            raise ServerError(f"waited for {wanted}, but {self._ended()}\n{self.table()}")
        raise NoEvent(f"no {wanted} within {within:g} s{_hint()}\n{self.table()}")

    def _ask(self, command: str, answer: str) -> Event:
        with self._commands:
            self._send(command)
            return self._answer(command, answer)

    def _send(self, command: str) -> None:
        if "\n" in command:
            raise FaultError(f"{command!r} has more than one line: send one command at a time")
        assert self._process.stdin
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise ServerError(f"cannot send `{command}`: {self._ended()}") from error

    def _answer(self, command: str, *kinds: str, id: int | None = None) -> Event:
        def matches(event: Event) -> bool:
            if event["event"] in kinds:
                return id is None or bool(event["id"] == id)
            return bool(event["event"] == "wrong_fault")

        event = self._next(f"answer to `{command}`", matches, PATIENCE)
        if event["event"] == "wrong_fault":
            raise FaultError(f"`{event['fault']}`: {event['error']}")
        return event

    def _remove(self, fault: Fault) -> None:
        def is_end(event: Event) -> bool:
            return bool(event["event"] == "fault_ended" and event["id"] == fault.id)

        with self._commands:
            # It ends once: by this call, by `clear`, or by its `for T`.
            with self._changed:
                if any(is_end(event) for _, event in self._log):
                    return
            self._send(f"remove {fault.id}")
            self._answer(f"remove {fault.id}", "fault_ended", id=fault.id)

    def _addr(self, name: str) -> tuple[str, int]:
        while name not in self._addrs:
            self._add_addr(self.event("listening", within=PATIENCE, service=name))
        return self._addrs[name]

    def _add_addr(self, event: Event) -> None:
        host, _, port = event["addr"].rpartition(":")
        self._addrs[event["service"]] = (host.strip("[]"), int(port))

    def _is_running(self) -> bool:
        with self._changed:
            return not self._is_over

    def _open_now(self) -> list[Event]:
        # A command that waits for its answer holds the lock, and asks for the table if none comes.
        if not self._commands.acquire(blocking=False):
            return []
        self._commands.release()
        try:
            return self.connections() if self._is_running() else []
        except (AssertionError, RuntimeError, ValueError):
            return []

    def _ended(self) -> str:
        code = self._process.wait(PATIENCE)
        self._read_stderr()
        return f"the server has ended with exit code {code}" + (self._said and f":\n{self._said}")

    def _read_stderr(self) -> None:
        if not self._stderr.closed:
            self._stderr.seek(0)
            self._said = self._stderr.read().decode(errors="replace").strip()


def _hint() -> str:
    """Returns advice for a call that blocks the event loop, on which the client may run."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return ""
    return (
        "; this call has blocked the running event loop: "
        "use `await asyncio.to_thread(campanile.event, ...)`"
    )


def _duration(seconds: float) -> str:
    nanoseconds = round(seconds * 1_000_000_000)
    for unit, length in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if nanoseconds % length == 0:
            return f"{nanoseconds // length}{unit}"
    return f"{nanoseconds}ns"


def _row(event: Event) -> str:
    """Returns one line of the table; empty for answers that repeat earlier events."""
    kind = event["event"]
    if kind in ("listening", "open", "listed", "cleared"):
        return ""
    if kind in ("accepted", "connecting"):
        return f"{_title(event)}: {kind}"
    if kind == "closed":
        return f"{_ledger(event)}, {event['reason']}"
    if kind in ("fault", "fault_ended"):
        return f"{kind.replace('_', ' ')}: {event['fault']}"
    if kind == "advanced":
        return f"advanced by {event['by_us'] / 1e6:g} s"
    rest = {name: value for name, value in event.items() if name not in ("v", "event")}
    return str(kind) + "".join(f", {name} {value}" for name, value in rest.items())


def _ledger(event: Event) -> str:
    amounts = f"{event['bytes_in']} bytes in, {event['bytes_out']} out"
    healed, faults = list(event["healed"]), ""
    for fault in event["faults"]:
        if fault in healed:
            healed.remove(fault)
            fault += ", ended"
        faults += f" [{fault}]"
    return f"{_title(event)}: {amounts}{faults}"


def _title(event: Event) -> str:
    # The server's side of a proxy connects, and has the id of the client's connection.
    word = "to" if event["service"].endswith(" upstream") else "from"
    return f"{event['service']} #{event['id']} {word} {event['peer']}"
