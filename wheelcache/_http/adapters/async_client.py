"""Use the caller's ``httpx.AsyncClient`` from the worker threads that do the work.

anyio awaits requests and chunks in the event loop that the client belongs to. Cancelling the task that waits for the
thread, or closing the cache, cancels the scope in which the thread's request is awaited.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from ..._imports import third_party_import_lock
from ..._operation import CancelToken, ClosedError
from ..interrupt import running_operation

if TYPE_CHECKING:
    from .library import httpx


_R = TypeVar("_R")


class EventLoopToken(CancelToken):
    """A token that is cancelled in the event loop only, so its callbacks may cancel scopes there."""


class BlockingAsyncClient:
    """The methods of an ``httpx.Client`` that wheelcache uses, over an ``AsyncClient``."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._closing = EventLoopToken(lambda: ClosedError("the cache is closed"))
        self._open: dict[httpx.Response, list[CancelToken]] = {}
        self._lock = threading.Lock()

    @property
    def auth(self) -> httpx.Auth | None:
        """The credentials that the caller gave the client."""
        return self._client.auth

    def build_request(self, method: str, url: str, *, headers: Mapping[str, str]) -> httpx.Request:
        """Return a request with the client's defaults."""
        return self._client.build_request(method, url, headers=headers)

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, and return a synchronous response."""
        with third_party_import_lock:
            from .library import httpx

        # This callback interrupts synchronous clients. An asynchronous client would await its result.
        request.extensions.pop("trace", None)
        received = self.wait_for(lambda: self._client.send(request, **options))
        with self._lock:
            self._open[received] = self._tokens()
        headers = [(name, text) for name, text in received.headers.raw if name.lower() != b"content-encoding"]
        extensions: dict[str, Any] = {
            name: received.extensions[name] for name in ("http_version", "reason_phrase") if name in received.extensions
        }
        if received.is_stream_consumed:
            # An event hook of the caller's client has read the body, which is now in memory, decoded.
            response = httpx.Response(
                received.status_code, headers=headers, content=received.content, extensions=extensions
            )
        else:
            body = _create_body(self, received)
            response = httpx.Response(
                received.status_code, headers=received.headers, stream=body, extensions=extensions
            )
        response.request = request
        response.next_request = received.next_request
        return response

    def wait_for(self, action: Callable[[], Awaitable[_R]]) -> _R:
        """Call ``action`` in the event loop, and wait for its result in a worker thread.

        Raises:
            OperationCancelledError: if the operation is cancelled before or during the wait.
        """
        with third_party_import_lock:
            from anyio import CancelScope, from_thread

        tokens = self._tokens()

        async def wait() -> _R:
            # anyio cancels a wait that is under way when the task is cancelled. Under asyncio, it does not cancel a
            # wait that begins later, so on_cancel() checks the tokens first.
            with CancelScope() as scope, ExitStack() as callbacks:
                for token in tokens:
                    callbacks.enter_context(token.on_cancel(scope.cancel))
                return await action()
            for token in tokens:
                token.check()
            raise AssertionError("only a token cancels the scope")

        return from_thread.run(wait)

    def _tokens(self) -> list[CancelToken]:
        op = running_operation()
        return [self._closing, *(token for token in (op.tokens if op else ()) if isinstance(token, EventLoopToken))]

    def close(self) -> None:
        """Cancel the requests under way and all later ones. Call it in the event loop."""
        self._closing.cancel()

    def forget(self, response: httpx.Response) -> None:
        """Stop tracking a response that was closed."""
        with self._lock:
            self._open.pop(response, None)

    async def close_remaining(self, token: CancelToken) -> None:
        """Close the responses that a cancelled call could not close itself."""
        with self._lock:
            remaining = [response for response, tokens in self._open.items() if token in tokens]
            for response in remaining:
                del self._open[response]
        for response in remaining:
            await response.aclose()


def _create_body(client: BlockingAsyncClient, response: httpx.Response) -> httpx.SyncByteStream:
    with third_party_import_lock:
        from anyio import from_thread

        from .library import httpx

    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            chunks = response.aiter_raw().__aiter__()

            def read_next() -> Awaitable[bytes | None]:
                return anext(chunks, None)

            while (chunk := client.wait_for(read_next)) is not None:
                yield chunk

        def close(self) -> None:
            from_thread.run(response.aclose)
            client.forget(response)

    return Body()
