from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Iterator, NoReturn

import pytest

pytest_plugins = ["pytester"]
DEADLINE = 30.0


def skip(reason: str) -> NoReturn:
    """Skips the test, and records that for .ci/run."""
    if path := os.environ.get("CAMPANILE_SKIPS"):
        with open(path, "a") as file:
            file.write(f"{__file__}: {reason}\n")
    pytest.skip(reason)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address of a Redis that runs for this test."""
    program = shutil.which("redis-server")
    if not program:
        skip("redis-server is not installed")
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            addr: tuple[str, int] = listener.getsockname()
        words = ["--bind", addr[0], "--port", str(addr[1]), "--save", "", "--dir", str(tmp_path)]
        child = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
        began = time.monotonic()
        # It ends if another process has taken the port meanwhile.
        while child.poll() is None and time.monotonic() - began < DEADLINE:
            try:
                socket.create_connection(addr, DEADLINE).close()
            except ConnectionRefusedError:
                continue
            yield addr
            child.kill()
            child.wait()
            return
