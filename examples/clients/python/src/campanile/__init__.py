"""A TCP server for tests that misbehaves exactly as you ask, and reports what happened.

With pytest, use the fixture ``campanile``. Elsewhere, use ``with Campanile() as server:``.
"""

from .server import (
    Campanile,
    Event,
    Fault,
    FaultError,
    NoEvent,
    Proxy,
    ServerError,
    Service,
    Side,
    find_program,
)

__all__ = [
    "Campanile",
    "Event",
    "Fault",
    "FaultError",
    "NoEvent",
    "Proxy",
    "ServerError",
    "Service",
    "Side",
    "find_program",
]
