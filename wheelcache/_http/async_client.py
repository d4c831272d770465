"""Bridge: an ``httpx.AsyncClient`` of the caller's, used from the worker threads that do the work.

Requests and chunks go through the event loop that the client belongs to, by anyio; cancelling the task that waits for
the thread cancels what the thread waits for, and so does closing the cache.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from .._operation import CURRENT_TOKEN, CancelToken, ClosedError

if TYPE_CHECKING:
    import httpx


_R = TypeVar("_R")


class BlockingAsyncClient:
    """The names of an ``httpx.Client`` that :mod:`._wire` uses, over an ``AsyncClient``."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._closing = CancelToken(lambda: ClosedError("the cache is closed"))
        self._open: dict[CancelToken | None, set[httpx.Response]] = defaultdict(set)
        self._lock = threading.Lock()

    @property
    def auth(self) -> httpx.Auth | None:
        """The credentials that the caller gave the client."""
        return self._client.auth

    def build_request(self, method: str, url: str, *, headers: Mapping[str, str], **_: object) -> httpx.Request:
        """Make a request with what the client adds to every one; a trace is for clients that block."""
        return self._client.build_request(method, url, headers=headers)

    def send(self, request: httpx.Request, **options: object) -> httpx.Response:
        """Send it, and return the answer as a sync one."""
        import httpx

        theirs = self.wait_for(lambda: self._client.send(request, **options))  # type: ignore[arg-type]
        key = CURRENT_TOKEN.get()
        with self._lock:
            self._open[key].add(theirs)
        headers = [(name, text) for name, text in theirs.headers.raw if name.lower() != b"content-encoding"]
        kept: dict[str, Any] = {
            name: theirs.extensions[name] for name in ("http_version", "reason_phrase") if name in theirs.extensions
        }
        if theirs.is_stream_consumed:
            # A hook of the caller's has read it: it is here, and decoded.
            ours = httpx.Response(theirs.status_code, headers=headers, content=theirs.content, extensions=kept)
        else:
            body = _body(self, theirs, key)
            ours = httpx.Response(theirs.status_code, headers=theirs.headers, stream=body, extensions=kept)
        ours.request = request
        ours.next_request = theirs.next_request
        return ours

    def wait_for(self, action: Callable[[], Awaitable[_R]]) -> _R:
        """Await something in the event loop, from a worker thread, until nobody wants it any more.

        Raises:
            StoppedError, ClosedError: where that was said, before or meanwhile.
        """
        from anyio import CancelScope, from_thread

        stops = [self._closing, CURRENT_TOKEN.get()]

        async def awaited() -> _R:
            # anyio cancels what waits when the task is cancelled, and under asyncio nothing that begins to wait later.
            # Both stops are set in the event loop only, so a scope can be cancelled there and then.
            with CancelScope() as scope, ExitStack() as waking:
                for stop in filter(None, stops):
                    waking.enter_context(stop.on_cancel(scope.cancel))
                return await action()
            for stop in filter(None, stops):
                stop.check()
            raise AssertionError("who cancels it has said so")

        return from_thread.run(awaited)

    def close(self) -> None:
        """End what is waited for, and let nothing be waited for again. It is called in the event loop."""
        self._closing.cancel()

    def closed(self, response: httpx.Response, key: CancelToken | None) -> None:
        """It needs not be closed any more."""
        with self._lock:
            self._open[key].discard(response)
            if not self._open[key]:
                del self._open[key]

    async def close_left(self, key: CancelToken) -> None:
        """Close what a call that was cancelled could not close itself."""
        with self._lock:
            left = self._open.pop(key, set())
        for response in left:
            await response.aclose()


def _body(bridge: BlockingAsyncClient, response: httpx.Response, key: CancelToken | None) -> httpx.SyncByteStream:
    import httpx
    from anyio import from_thread

    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            chunks = response.aiter_raw().__aiter__()

            def following() -> Awaitable[bytes | None]:
                return anext(chunks, None)

            while (chunk := bridge.wait_for(following)) is not None:
                yield chunk

        def close(self) -> None:
            from_thread.run(response.aclose)
            bridge.closed(response, key)

    return Body()
