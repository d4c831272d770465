"""Interrupt requests when their operation is cancelled.

The transport of our own client checks the running operation between short waits (:mod:`.default_client.network`). A
context variable contains that operation.

A caller's client blocks in its own reads, up to its own timeouts. The cancelling thread interrupts a read by shutting
down the socket. Over HTTP/1.1, the client's public API names the socket in two cases:

- While the body is read, the response names its socket
  (https://www.encode.io/httpcore/extensions/#network_stream).
- During the wait for the response headers, the ``trace`` extension names the connection if it was created for this
  request (https://www.encode.io/httpcore/extensions/#trace). On a reused connection, the wait ends only with the
  client's read timeout.

With a helper thread for the client's ``send``, the call could return earlier. But the thread would still use the client
after the cache was closed, when the caller may close the client.
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
"""The object that measures the rate of the requests in this context."""


@contextmanager
def running(op: Operation) -> Iterator[None]:
    """Within the block, assign the requests of this context to the operation."""
    token = _RUNNING.set(op)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def running_operation() -> Operation | None:
    """Return the operation that requests in this context belong to."""
    return _RUNNING.get()


def check_running() -> None:
    """Check the operation and the rate of this context. Call this function between short waits for the network.

    Raises:
        OperationCancelledError: if the operation was cancelled.
        TooSlowError: if the request has received too few bytes during its wait.
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
        """Within the block, interrupt the wait for the response headers of httpx if the operation is cancelled."""
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
        """Within the block, interrupt reads from the body of httpx if the operation is cancelled."""
        stream = response.extensions.get("network_stream") if response.http_version == "HTTP/1.1" else None
        with self._interrupting_stream(op, stream):
            yield

    def _interrupting_stream(self, op: Operation, stream: Any) -> AbstractContextManager[None]:
        return self.interrupting(op, None if stream is None else stream.get_extra_info("socket"))

    @contextmanager
    def interrupting(self, op: Operation, connection: object) -> Iterator[None]:
        """Within the block, end a blocked read from a socket if the operation is cancelled or the request is too slow.

        Objects other than sockets are ignored.
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
