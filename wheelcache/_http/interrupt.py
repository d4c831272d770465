"""Waking: whoever waits for a server is told when nobody wants the answer any more.

A thread that reads a socket sees nothing else, up to its time-out. So for as long as it reads, its socket is known to
the stops that may end it (:class:`~._call.Stop`), and they shut it. That is all for a body, whose socket comes with the
answer. For the head there is no answer yet, and httpx does not say which connection of its pool it took. But it says
when it has made one, by its ``trace`` extension (https://www.encode.io/httpcore/extensions/#trace): from then on each
read of that connection is such a read while a request of ours waits for its head, and is what it was else.

What cannot be woken: the making of a connection, which has no socket to be had yet and ends by the connect time-out; a
connection that the caller made with their own client before; HTTP/2, where one connection is many requests'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .._operation import CURRENT_TOKEN, CancelToken

if TYPE_CHECKING:
    import socket


_MADE = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")
_USED = "http11.send_request_headers.started"


class ReadInterrupter:
    """What ends the reading of sockets: the stop of the call that reads, and the closing of the whole.

    Args:
        wake: ends the reading of a socket in another thread.
        closing: the stop of all that is read.
    """

    def __init__(self, wake: Callable[[socket.socket], None], closing: CancelToken) -> None:
        self._wake = wake
        self._closing = closing

    @contextmanager
    def reading(self, connection: socket.socket | None) -> Iterator[None]:
        """While this lasts, a stop ends the reading of a socket.

        Raises:
            StoppedError, ClosedError: where it did, or where there was one before.
        """
        with ExitStack() as stops:
            if connection is not None:
                for stop in (self._closing, CURRENT_TOKEN.get()):
                    if stop is not None:
                        stops.enter_context(stop.on_cancel(lambda: self._wake(connection)))
            yield
        # What a shut socket gives looks like the end of a body that has no length.
        self.check()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While this lasts, this thread waits for the head of an answer."""
        token = _WAITING.set(self)
        try:
            yield
        finally:
            _WAITING.reset(token)

    def check(self) -> None:
        """Raise what a stop raises, where there was one."""
        for stop in (self._closing, CURRENT_TOKEN.get()):
            if stop is not None:
                stop.check()

    def trace(self) -> Callable[[str, Mapping[str, Any]], None]:
        """Return the ``trace`` of one request: the connection that is made for it can be woken for ever after."""
        made: list[Any] = []

        def note(event: str, fields: Mapping[str, Any]) -> None:
            if event.endswith(_MADE):
                made.append(fields.get("return_value"))
            elif event == _USED and made:
                _make_wakeable(made.pop())
                made.clear()

        return note


_WAITING: ContextVar[ReadInterrupter | None] = ContextVar("wheelcache_waiting", default=None)


def _make_wakeable(stream: Any) -> None:
    connection = socket_of(stream)
    if connection is None:
        return
    read = stream.read

    def wakeable(max_bytes: int, timeout: float | None = None) -> bytes:
        waker = _WAITING.get()
        if waker is None:
            data: bytes = read(max_bytes, timeout)
        else:
            with waker.reading(connection):
                data = read(max_bytes, timeout)
        return data

    stream.read = wakeable


def socket_of(stream: Any) -> socket.socket | None:
    """Return the socket below a stream of httpx's, ``None`` where there is none such."""
    import socket

    connection = None if stream is None else stream.get_extra_info("socket")
    return connection if isinstance(connection, socket.socket) else None
