"""A server that means harm, for tests only: raw HTTP on a free loopback port, with an answer of any kind and length.

It speaks no protocol of a storage: whatever object is asked for, by s3fs, google-cloud-storage or aiohttp, the answer is the
same, but for HEAD and for objects called ``warm-up``, which are not there. It counts the bytes that it could send, and notes
whether the client hung up or it had to give up itself.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OBJECT_BYTES = 10  # what HEAD announces
MOST_BYTES = 64_000_000  # then it gives up, so that a client without a bound fails a test and does not fill the machine
MOST_S = 20.0
_HEAD = b'HTTP/1.1 200 OK\r\nETag: "%s"\r\nContent-Length: %d\r\n\r\n' % (b"0" * 32, OBJECT_BYTES)


class Connection:
    """One request and what is sent for it."""

    def __init__(self, server: HostileServer, client: socket.socket, request: bytes) -> None:
        self._server, self._client = server, client
        self.path = request.split(b" ", 2)[1].decode()
        self.request = request.decode("latin-1")

    def send(self, data: bytes) -> None:
        """Raises OSError when the client hung up."""
        self._client.sendall(data)
        self._server.sent += len(data)

    def send_slowly(self, piece: bytes, pause_s: float) -> None:
        """Again and again. Raises OSError when the client hung up."""
        for _ in range(int(MOST_S / pause_s)):
            self.send(piece)
            self.wait(pause_s)
        self._server.gave_up = True

    def wait(self, seconds: float = MOST_S) -> None:
        """Says nothing. Raises ConnectionError when the client hung up."""
        self._client.settimeout(seconds)
        try:
            if not self._client.recv(1):
                raise ConnectionResetError
        except TimeoutError:
            self._server.gave_up = self._server.gave_up or seconds == MOST_S
        finally:
            self._client.settimeout(None)


class HostileServer:
    def __init__(self, answer: Callable[[Connection], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent, self.gave_up = 0, False
        self.requests: list[str] = []
        self.hung_up = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                while request := self._read_request(client):
                    self.requests.append(request.decode("latin-1"))
                    if request.startswith(b"HEAD"):
                        client.sendall(
                            b'HTTP/1.1 200 OK\r\nETag: "%s"\r\nContent-Length: %d\r\n\r\n' % (b"0" * 32, OBJECT_BYTES)
                        )
                        continue
                    if b"/warm-up" in request:
                        client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                        continue
                    self._answer(Connection(self, client, request))
                    return
            except OSError:
                self.hung_up.set()

    def _read_request(self, client: socket.socket) -> bytes:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            piece = client.recv(65536)
            if not piece:
                return b""
            request += piece
        return request

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def run_hostile(answer: Callable[[Connection], None]) -> Iterator[HostileServer]:
    server = HostileServer(answer)
    try:
        yield server
    finally:
        server.stop()


def send_without_end(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    for _ in range(MOST_BYTES // 0x10000):
        connection.send(chunk)
    connection.send(b"0\r\n\r\n")


def say_nothing(connection: Connection) -> None:
    connection.wait()


def say_nothing_after_the_headers(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    connection.wait()


def drip_the_headers(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    connection.send_slowly(b"x", 0.05)


def drip_the_body(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    connection.send_slowly(b"x", 0.05)
