"""Use the caller's asynchronous client of httpx or httpx2 from worker threads.

anyio awaits requests and chunks in the event loop that the client belongs to. Cancelling the task that waits for the
thread, or closing the cache, cancels the scope in which the thread's request is awaited.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from ..._imports import third_party_import_lock
from ..._operation import CancelToken, ClosedError
from ..interrupt import running_operation
from ..rate import current_watch

if TYPE_CHECKING:
    import socket


_R = TypeVar("_R")


class EventLoopToken(CancelToken):
    """A token that is cancelled in the event loop only. Its callbacks may therefore cancel scopes there."""


class BlockingAsyncClient:
    """Lets worker threads wait for the requests of an ``AsyncClient``.

    Args:
        client: the client of httpx or httpx2.
    """

    def __init__(self, client: Any) -> None:
        self.wrapped = client
        self._closing = EventLoopToken(lambda: ClosedError("the cache is closed"))
        self._open: dict[Any, list[CancelToken]] = {}
        self._lock = threading.Lock()

    def create_adapter(self, interrupt_read: Callable[[socket.socket], None]) -> Any:  # noqa: ARG002 - the protocol
        """Return an adapter that sends its requests with this client. Cancelling its tokens interrupts its waits."""
        with third_party_import_lock:
            from .async_adapter import AsyncHttpxAdapter

        return AsyncHttpxAdapter(self)

    def send(self, request: Any, **options: Any) -> Any:
        """Send a request, and return the response. The caller must close it with :meth:`close_response`."""
        response = self.wait_for(lambda: self.wrapped.send(request, **options))
        with self._lock:
            self._open[response] = self._tokens()
        return response

    def close_response(self, response: Any) -> None:
        """Close a response, even after a cancellation."""
        with third_party_import_lock:
            from anyio import from_thread

        from_thread.run(response.aclose)
        with self._lock:
            self._open.pop(response, None)

    def wait_for(self, action: Callable[[], Awaitable[_R]]) -> _R:
        """Call ``action`` in the event loop, and wait for its result in a worker thread.

        Raises:
            OperationCancelledError: if the operation is cancelled before or during the wait.
            TooSlowError: if the request has received too few bytes during its wait.
        """
        with third_party_import_lock:
            from anyio import CancelScope, current_time, from_thread

        tokens, watch = self._tokens(), current_watch()

        async def wait() -> _R:
            # anyio cancels a wait that is under way when the task is cancelled. Under asyncio, it does not cancel a
            # wait that begins later. Therefore, on_cancel() checks the tokens first.
            with CancelScope(deadline=current_time() + watch.seconds_left) as scope, ExitStack() as callbacks:
                for token in tokens:
                    callbacks.enter_context(token.on_cancel(scope.cancel))
                return await action()
            for token in tokens:
                token.check()
            raise watch.too_slow()  # the deadline cancelled the scope

        return from_thread.run(wait)

    def _tokens(self) -> list[CancelToken]:
        op = running_operation()
        return [self._closing, *(token for token in (op.tokens if op else ()) if isinstance(token, EventLoopToken))]

    def close(self) -> None:
        """Cancel the requests under way and all later ones. Call this method in the event loop."""
        self._closing.cancel()

    async def close_remaining(self, token: CancelToken) -> None:
        """Close the responses that a cancelled call could not close itself."""
        with self._lock:
            remaining = [response for response, tokens in self._open.items() if token in tokens]
            for response in remaining:
                del self._open[response]
        for response in remaining:
            await response.aclose()
