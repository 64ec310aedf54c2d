"""A proxy before an HTTP server that counts the bytes of answers and cuts some of them off."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_DENIED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"
    b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
)


class BreakingProxy:
    """Forwards connections to a port on loopback, one request each, as long as `with` lasts.

    The next `break_next` answers to requests of which `when` is true are cut off after `cut_after` bytes. With `deny`
    every request is answered as a store answers those who may not.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[str] = []
        self.bytes_down = 0
        self.break_next = 0
        self.cut_after = 2000
        self.when: Callable[[str], bool] = lambda request: request.startswith("GET")
        self.broken = 0
        self.deny = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.close()

    def forget(self) -> None:
        """Counts from here."""
        self.requests, self.bytes_down, self.broken = [], 0, 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            request = _head(client)
            if not request:
                return
            line = request.split(b"\r\n", 1)[0].decode("latin-1")
            with self._lock:
                self.requests.append(line)
                cut = self.break_next > 0 and self.when(line)
                self.break_next -= cut
                self.broken += cut
            if self.deny:
                client.sendall(_DENIED)
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                server.sendall(_closing(request))
                threading.Thread(target=_pump, args=(client, server), daemon=True).start()
                self._answer(server, client, self.cut_after if cut else None)

    def _answer(self, server: socket.socket, client: socket.socket, at_most: int | None) -> None:
        sent = 0
        try:
            while data := server.recv(65536):
                data = data if at_most is None else data[: at_most - sent]
                sent += len(data)
                with self._lock:
                    self.bytes_down += len(data)
                client.sendall(data)
                if at_most is not None and sent >= at_most:
                    return
        except OSError:
            return
        finally:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)  # `close` alone says nothing while `_pump` still reads


def _head(client: socket.socket) -> bytes:
    """The request as far as its head, and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            return b""
        data += more
    return data


def _closing(request: bytes) -> bytes:
    """The request with one that ends the connection: every request then comes over one of its own."""
    head, rest = request.split(b"\r\n\r\n", 1)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + rest


def _pump(client: socket.socket, server: socket.socket) -> None:
    try:
        while data := client.recv(65536):
            server.sendall(data)
    except OSError:
        return
