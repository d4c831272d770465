"""Send the requests of a cache with the caller's HTTP client, or with our own.

This module is on the path of a hit and does not import the HTTP library. The first request imports the library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from .._imports import third_party_import_lock
from .._operation import CancelToken, ClosedError, Operation
from .._options import DownloadLimits
from .._request import Source
from .interrupt import ReadInterrupter

if TYPE_CHECKING:
    import socket

    from .adapters.interface import AdaptedClient, Adapter
    from .response import Response


# Each request of our own client ends within one wait of its connection (see :mod:`.default_client.network`).
_CLOSE_ATTEMPTS, _CLOSE_WAIT_SECONDS = 50, 0.02


class ReceivedResponse(Protocol):
    """A response of a synchronous client, for type checkers. An asynchronous client returns a coroutine instead."""

    def iter_raw(self) -> Iterator[bytes]:
        """Yield the bytes of the body as the server sent them."""
        ...


class RequestBuilder(Protocol):
    """The methods that synchronous and asynchronous clients of httpx and httpx2 have in common."""

    @property
    def auth(self) -> Any:
        """The credentials that the caller gave the client, or ``None``."""
        ...

    def build_request(self, method: str, url: str, *, headers: Mapping[str, str]) -> Any:
        """Return a request with the client's defaults."""
        ...


class Client(RequestBuilder, Protocol):
    """The methods of a synchronous httpx or httpx2 client that wheelcache calls. Any object with them is accepted."""

    def send(
        self, request: Any, *, stream: bool = ..., auth: Any = ..., follow_redirects: bool = ...
    ) -> ReceivedResponse:
        """Send a request, and return the response."""
        ...


class AsyncClient(RequestBuilder, Protocol):
    """The methods of an asynchronous httpx or httpx2 client that wheelcache calls."""

    def send(
        self, request: Any, *, stream: bool = ..., auth: Any = ..., follow_redirects: bool = ...
    ) -> Coroutine[Any, Any, Any]:
        """Send a request, and return the response."""
        ...


class HttpClient:
    """Sends the requests of a cache.

    Attributes:
        closing: the token that cancels all requests. Each operation must have it among its tokens.

    Args:
        client: the caller's client, or ``None`` for our own client. Our own client is created at the first request
            and closed by :meth:`close`.
        interrupt_read: ends a read from a socket that blocks another thread.
        limits: the limits of each request. Only the rate is used here.
    """

    def __init__(
        self,
        client: Client | AdaptedClient | None,
        interrupt_read: Callable[[socket.socket], None],
        limits: DownloadLimits,
    ) -> None:
        self._client = client
        self._limits = limits
        self._interrupt_read = interrupt_read
        self._own: Any = None
        self._adapter: Adapter | None = None
        self._active = 0
        self._lock = threading.Lock()
        self._process = os.getpid()
        self.closing = _closing_token()

    def after_fork(self) -> None:
        """Forget the connections. They belong to the parent of this process.

        The next request creates a new client of our own. A caller's client is refused from now on.
        """
        self._own = None
        self._adapter = None
        self._active = 0
        # A thread of the parent may have held the lock when the process was forked.
        self._lock = threading.Lock()
        self.closing = _closing_token()

    @contextmanager
    def get(self, op: Operation, source: Source, headers: Mapping[str, str]) -> Iterator[Response]:
        """Send a GET request, follow its redirects, and keep the last response open within the block.

        Errors of the block itself are not translated. Read the body with :func:`.body.iter_body`.

        Raises:
            FailedRequestError: if there is no response, or our own client cannot be created.
            OperationCancelledError: if the operation is cancelled.
            ValueError: if the caller's client was passed to the cache before this process was forked.
        """
        with third_party_import_lock:
            from .rate import RateWatch
            from .redirects import RequestSender

        watch = RateWatch(self._limits.min_rate, self._limits.window, op.system.monotonic)
        with self._borrow() as adapter, watch.watching(), RequestSender(adapter).get(op, source, headers) as response:
            yield response

    def describe(self) -> str:
        """Return the owner of the client, and the name and version of its library."""
        with third_party_import_lock:
            from .adapters.library import default_library, library_of

        client = getattr(self._client, "wrapped", self._client)
        library = default_library() if client is None else library_of(client)
        if library is None:
            return f"the caller's, of {type(client).__module__.partition('.')[0]}"
        owner = "its own" if client is None else "the caller's"
        return f"{owner}, of {library.name} {library.httpx.__version__}"

    @contextmanager
    def _borrow(self) -> Iterator[Adapter]:
        """Keep our own client open within the block."""
        with self._lock:
            self.closing.check()
            adapter = self._require_adapter()
            self._active += 1
            closing = self.closing
        try:
            yield adapter
        finally:
            with self._lock:
                # A listener may fork. In the child, after_fork() has reset the count.
                if self.closing is closing:
                    self._active -= 1
                self._close_if_unused()

    def _require_adapter(self) -> Adapter:
        if self._client is not None and self._process != os.getpid():
            # Two processes on one connection receive each other's responses.
            raise ValueError(
                "this process was forked after the HTTP client was passed to the cache. The client's "
                "connections belong to the parent. Create a new client after the fork, and a new cache with it"
            )
        if self._adapter is None:
            self._adapter = self._create_adapter()
        return self._adapter

    def _create_adapter(self) -> Adapter:
        client = self._client
        if client is not None and hasattr(client, "create_adapter"):
            adapter: Adapter = client.create_adapter(self._interrupt_read)
            return adapter
        with third_party_import_lock:
            from .adapters.httpx_adapter import HttpxAdapter

        if client is not None:
            return HttpxAdapter(client, ReadInterrupter(self._interrupt_read))
        with third_party_import_lock:
            from .default_client.create import create_client

        self._own = create_client()
        return HttpxAdapter(self._own, None, is_own=True)

    def close(self, sleep: Callable[[float], None]) -> None:
        """Cancel the requests, wait up to a second for them to end, and close our own client.

        If a request has not ended by then, for example because a listener blocks, our own client is closed when the
        request ends. The caller's client remains open.

        Args:
            sleep: waits for a number of seconds.
        """
        self.closing.cancel()
        for _ in range(_CLOSE_ATTEMPTS):
            if not self._active:
                break
            sleep(_CLOSE_WAIT_SECONDS)
            # The first cancellation does not interrupt a thread that is just about to read.
            self.closing.cancel()
        with self._lock:
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._own is not None and self._active == 0 and self.closing.is_cancelled:
            self._own.close()
            self._own = None
            self._adapter = None


def _closing_token() -> CancelToken:
    return CancelToken(lambda: ClosedError("the cache is closed"))
