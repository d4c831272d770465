"""Interrupt requests when their operation is cancelled.

Our own client has a transport that checks the running operation between short waits
(:mod:`.default_client.network`), and finds that operation in a context variable.

A caller's client blocks in its own reads, up to its own timeouts. Its public API allows two interruptions, both over
HTTP/1.1 only, by shutting the socket down from the cancelling thread:

- The body: a response names its socket (https://www.encode.io/httpcore/extensions/#network_stream).
- The response headers, on a connection that was created for this request: the ``trace`` extension names it
  (https://www.encode.io/httpcore/extensions/#trace). The extension does not identify a connection that is reused, so
  the wait for its response headers ends with the client's read timeout.

A helper thread for the client's ``send`` would let the call return earlier. It would also keep using the client after
the cache was closed, when the caller may close the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from .._imports import import_lock
from .._operation import Operation

if TYPE_CHECKING:
    import socket

    from .rate import RateWatch


_CREATED = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")
_SENDING = "http11.send_request_headers.started"

_RUNNING: ContextVar[Operation | None] = ContextVar("wheelcache_http_operation", default=None)
RATE_WATCH: ContextVar[RateWatch | None] = ContextVar("wheelcache_rate_watch", default=None)
"""Watches the rate of the requests in this context."""


@contextmanager
def running(op: Operation) -> Iterator[None]:
    """Within the block, requests in this context belong to the operation."""
    token = _RUNNING.set(op)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def running_operation() -> Operation | None:
    """Return the operation that requests in this context belong to."""
    return _RUNNING.get()


def check_running() -> None:
    """Check the operation and the rate of this context. Call it between short waits for the network.

    Raises:
        OperationCancelledError: if the operation was cancelled.
        TooSlowError: if the request has received too few bytes while it waited.
    """
    op = _RUNNING.get()
    if op is not None:
        op.check()
    watch = RATE_WATCH.get()
    if watch is not None:
        watch.check()


class ReadInterrupter:
    """Interrupts the reads of a caller's client.

    Args:
        interrupt_read: ends a read from a socket that blocks another thread.
    """

    def __init__(self, interrupt_read: Callable[[socket.socket], None]) -> None:
        self._interrupt_read = interrupt_read

    @contextmanager
    def waiting(self, op: Operation, request: Any) -> Iterator[None]:
        """Within the block, cancelling the operation interrupts the wait for the response headers of httpx."""
        with ExitStack() as interruptions:
            created: list[Any] = []

            def trace(event: str, info: Mapping[str, Any]) -> None:
                if event.endswith(_CREATED):
                    created.append(info.get("return_value"))
                elif event == _SENDING and created:
                    interruptions.enter_context(self._interrupting_stream(op, created.pop()))
                    created.clear()

            request.extensions["trace"] = trace
            yield

    @contextmanager
    def reading(self, op: Operation, response: Any) -> Iterator[None]:
        """Within the block, cancelling the operation interrupts reads of the body of httpx."""
        stream = response.extensions.get("network_stream") if response.http_version == "HTTP/1.1" else None
        with self._interrupting_stream(op, stream):
            yield

    def _interrupting_stream(self, op: Operation, stream: Any) -> AbstractContextManager[None]:
        return self.interrupting(op, None if stream is None else stream.get_extra_info("socket"))

    @contextmanager
    def interrupting(self, op: Operation, connection: object) -> Iterator[None]:
        """Within the block, end a blocked read from a socket if the operation is cancelled or the request is too slow.

        Other objects than sockets are ignored.
        """
        with import_lock:
            import socket

        with ExitStack() as interruptions:
            if isinstance(connection, socket.socket):
                interrupt = partial(self._interrupt_read, connection)
                if (watch := RATE_WATCH.get()) is not None:
                    interruptions.enter_context(watch.interrupting(interrupt))
                for token in op.tokens:
                    interruptions.enter_context(token.on_cancel(interrupt))
            yield
