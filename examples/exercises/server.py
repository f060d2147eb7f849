"""Daytime (RFC 867) and echo (RFC 862) in one thread: a solution of the exercises, in Python.

Run it with `python3 server.py`, or with two addresses: `python3 server.py 127.0.0.1:0 127.0.0.1:0`.
The exercises are in src/guide/exercises.md. A number in brackets is the rung that needs the line.
Left out: a pause in accepting while no descriptor is free, and limits for idle clients.
"""

import collections
import selectors
import socket
import sys
import time

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
HIGH_WATER = 64 * 1024  # Above this many unsent bytes, a client is not read.
LINGER = 2.0  # The seconds that a daytime client has to close its side.


class Connection:
    def __init__(self, stream, service):
        stream.setblocking(False)
        self.stream, self.is_echo = stream, service == "echo"
        self.unsent = bytearray() if self.is_echo else bytearray(f"{time.ctime()}\r\n".encode())
        self.eof_received = self.eof_sent = False
        self.deadline = time.monotonic() + LINGER

    def interest(self):
        """Returns the events that the connection needs next."""
        # A client that does not read is not read either, so the queue stays short. [echo 7]
        reads = not self.eof_received and len(self.unsent) < HIGH_WATER
        return (READ if reads else 0) | (WRITE if self.unsent else 0)

    def run(self, events):
        """Reads once and writes once; returns whether both directions have ended."""
        if events & READ:
            self.read()
        if self.unsent:
            self.write()
        # The last byte first, then EOF. [echo 6] A daytime server has nothing more to send.
        if not self.unsent and not self.eof_sent and (self.eof_received or not self.is_echo):
            self.stream.shutdown(socket.SHUT_WR)
            self.eof_sent = True
        # Closing before the client's EOF can destroy the line on its way. [daytime 3]
        return self.eof_received and self.eof_sent

    def read(self):
        try:
            data = self.stream.recv(HIGH_WATER)
        except BlockingIOError:
            return
        if not data:
            self.eof_received = True
        elif self.is_echo:
            self.unsent += data

    def write(self):
        try:
            # `send` takes as much as fits; the rest stays in the queue. [echo 5]
            del self.unsent[: self.stream.send(self.unsent)]
        except BlockingIOError:
            pass


class Server:
    def __init__(self, addresses):
        self.selector = selectors.DefaultSelector()
        self.lingering = collections.deque()  # Daytime connections; the oldest one is first.
        for service, address in addresses.items():
            host, port = address.rsplit(":", 1)
            listener = socket.create_server((host, int(port)), backlog=1024)
            listener.setblocking(False)
            self.selector.register(listener, READ, service)
            print(f"{service} is listening on", "%s:%d" % listener.getsockname(), flush=True)

    def turn(self):
        """Waits for events and handles each of them."""
        wait = None
        if self.lingering:
            wait = max(0, self.lingering[0].deadline - time.monotonic())
        for key, events in self.selector.select(wait):
            if isinstance(key.data, Connection):
                self.run(key.data, events)
            else:
                self.accept(key.fileobj, key.data)
        while self.lingering and self.lingering[0].deadline <= time.monotonic():
            self.close(self.lingering.popleft())

    def accept(self, listener, service):
        try:
            stream, _ = listener.accept()
        except OSError:
            return  # This client has gone. The next turn accepts the next one.
        connection = Connection(stream, service)
        self.selector.register(stream, connection.interest(), connection)
        if service == "daytime":
            self.lingering.append(connection)

    def run(self, connection, events):
        try:
            is_finished = connection.run(events)
        except OSError:
            is_finished = True  # A reset ends this connection and no other. [echo 8]
        if is_finished:
            self.close(connection)
        else:
            self.selector.modify(connection.stream, connection.interest(), connection)

    def close(self, connection):
        # A connection can have been closed before its deadline.
        if connection.stream.fileno() >= 0:
            self.selector.unregister(connection.stream)
            connection.stream.close()


def main():
    addresses = sys.argv[1:] or ["127.0.0.1:9999", "127.0.0.1:12345"]
    server = Server(dict(zip(["daytime", "echo"], addresses)))
    while True:
        server.turn()


if __name__ == "__main__":
    main()
