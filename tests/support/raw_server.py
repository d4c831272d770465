"""A server of raw bytes, for responses that a correct HTTP server cannot send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Self, TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.05
Answer = Callable[[bytes], bytes | None]


def response(body: bytes = b"", status: str = "200 OK", *fields: str) -> bytes:
    """Return a correct response with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunked(body: bytes, *fields: str) -> bytes:
    """Return a correct response with a body of one chunk."""
    lines = ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *fields, "", f"{len(body):x}", ""]
    return "\r\n".join(lines).encode("latin-1") + body + b"\r\n0\r\n\r\n"


class RawServer:
    """Listens on the loopback address, and sends the bytes that ``answer`` returns for the head of each request.

    Args:
        answer: returns the bytes; ``None`` closes the connection.
        keeps: returns whether the connection is kept after a response.

    Attributes:
        heads: the heads of the requests.
        connections: the number of connections that were accepted.
    """

    def __init__(self, answer: Answer, keeps: Callable[[], bool] = lambda: True) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self._answer = answer
        self._keeps = keeps
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_POLL_SECONDS)
        self._is_closing = False
        self._threads = [threading.Thread(target=self._accept)]

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}{path}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closing = True
        for thread in self._threads:
            thread.join(60)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._retry(self._listener.accept)
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _retry(self, wait: Callable[[], T]) -> T:
        """Repeat a short wait until it succeeds, or until the server is closed. Windows cannot interrupt a long one."""
        while True:
            try:
                return wait()
            except TimeoutError:
                if self._is_closing:
                    raise

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        with suppress(OSError), connection:
            while True:
                connection.settimeout(_POLL_SECONDS)
                while b"\r\n\r\n" not in received:
                    if not (data := self._retry(partial(connection.recv, 1 << 16))):
                        return
                    received += data
                head, _, received = received.partition(b"\r\n\r\n")
                self.heads.append(head)
                if (sent := self._answer(head)) is None:
                    return
                connection.settimeout(None)
                connection.sendall(sent)
                if not self._keeps():
                    return
