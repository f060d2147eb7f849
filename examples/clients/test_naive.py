"""The tutorial's client reads once. Run it with `python3 -m pytest`."""
import socket
from campanile_fixture import campanile


def naive(addr):
    with socket.create_connection(addr, timeout=10) as client:
        return client.recv(1024)


def repaired(addr):
    with socket.create_connection(addr, timeout=10) as client:
        return b"".join(iter(lambda: client.recv(1024), b""))


def test_one_recv_is_not_a_message(campanile):
    assert len(naive(campanile["daytime"])) == 26
    campanile["fault"]("daytime: slice 5/20ms")
    assert len(naive(campanile["daytime"])) == 5
    assert len(repaired(campanile["daytime"])) == 26
