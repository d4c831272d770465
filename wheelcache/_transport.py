"""Serve wheels from the cache to clients of httpx and httpx2, and add the wheels that they download.

Only plain GET requests for a wheel file name are handled. A wheel that is in the cache and still valid is served from
its file. Otherwise, the request is passed to the next transport. The body is written to the cache while the client
reads it. The body becomes an entry once the client has read it completely. All other requests and responses pass
through unchanged. The client's redirects, authentication and retries therefore work as usual. A request that follows a
redirect carries the first request with it. If the cache fails, the request is passed on, unless the cache is offline.

:meth:`CacheTransport._exchange` decides which requests to send. Synchronous clients run it directly. For asynchronous
clients, each step runs in a worker thread, since it uses files.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias, overload

from ._async_cache import AsyncCache, sync_cache_of
from ._cache import Cache, core_of
from ._exceptions import WheelCacheError
from ._fetch.passthrough import BodyWriter, Passthrough
from ._fetch.redirect_chain import Redirect, RedirectChain, chain_of
from ._http.adapters.library import Library, default_library, library_of
from ._http.adapters.transport_bases import (
    AnyRequest,
    AnyResponse,
    AsyncTransport,
    ByteStreamBase,
    SyncTransport,
    TransportBase,
)
from ._http.headers import confirms
from ._models import Status
from ._operation import OperationCancelledError
from ._request import redact
from ._threads import ThreadLimiter

if TYPE_CHECKING:
    import httpx
    import httpx2

_CHUNK = 1 << 18
# This is anyio's default number of threads. These threads only use the disk. They never wait for the event loop or for
# each other.
_THREADS = ThreadLimiter(40)
# A request with one of these fields is not for the whole file, or its client validates a file of its own.
_EXCLUDED_HEADERS = ("Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")
# Both libraries copy the extensions of a request to the redirected one.
_REDIRECT = "wheelcache_redirect"

_Exchange: TypeAlias = Generator[AnyRequest, AnyResponse, AnyResponse]


class _Kind(NamedTuple):
    """The names that the libraries use for one kind of client."""

    client: str
    base: str
    default: str
    method: str
    adjective: str


_SYNC = _Kind("Client", "BaseTransport", "HTTPTransport", "handle_request", "a synchronous")
_ASYNC = _Kind("AsyncClient", "AsyncBaseTransport", "AsyncHTTPTransport", "handle_async_request", "an asynchronous")


class CacheTransport(TransportBase):
    """A transport for clients of httpx and httpx2 that serves wheels from a cache, and adds downloaded wheels to it.

    A transport serves one kind of client: a ``Client`` or an ``AsyncClient`` (on asyncio or trio) of one library.

    With a ``#sha256=...`` fragment in the URL, a cached wheel is used without a request. Bytes with another hash are
    never stored. Without a fragment, the rules of HTTP decide, as in :meth:`Cache.fetch`. A response with ``no-store``
    is not stored. If the client follows redirects, the name and the hash in the first URL are used. A
    response from the cache has the extension ``"wheelcache"``. It contains a :class:`Status`. If the cache is
    ``offline``, a request for a wheel that is not in the cache raises the ``ConnectError`` of the client's library. All
    other requests are still passed to the next transport.

    Args:
        cache: a :class:`Cache` or an :class:`AsyncCache`, for either kind of client. The caller closes the cache.
            After that, all requests are passed on. The cache's own client is not used here.
        next: the transport that sends the requests, of the client's kind and library, or ``None`` for a new one. It is
            closed together with this transport.

    A client with a custom transport ignores its own ``verify``, ``cert``, ``http1``, ``http2`` and ``limits``, and
    the proxies of the environment. With ``proxy``, such a client bypasses the transport
    (https://www.python-httpx.org/advanced/transports/). Pass these options to ``next``::

        next=httpx.HTTPTransport(verify=context, proxy="http://proxy.example.org:3128")

    Raises:
        TypeError: if ``cache`` is neither a :class:`Cache` nor an :class:`AsyncCache`. The first request raises this
            error if ``next`` is a transport of another kind or library than the client.

    Example::

        with Cache() as cache, httpx2.Client(transport=CacheTransport(cache)) as client:
            client.get("https://example.org/six-1.17.0-py2.py3-none-any.whl")
    """

    def __init__(
        self,
        cache: Cache | AsyncCache,
        next: SyncTransport | AsyncTransport | None = None,  # noqa: A002 - the API's name
    ) -> None:
        if isinstance(cache, AsyncCache):
            # This transport has worker threads of its own for file operations.
            cache = sync_cache_of(cache)
        if not isinstance(cache, Cache):
            raise TypeError(f"CacheTransport needs a Cache or an AsyncCache, not {type(cache).__name__}")
        self._core = core_of(cache)
        self._next: Any = next
        self._lock = threading.Lock()

    @overload
    def handle_request(self, request: httpx.Request) -> httpx.Response: ...

    @overload
    def handle_request(self, request: httpx2.Request) -> httpx2.Response: ...

    def handle_request(self, request: AnyRequest) -> AnyResponse:
        """Return the response of the cache or of the next transport."""
        library = library_of(request) or default_library()
        behind = self._next_transport(library, _SYNC)
        if not _is_for_cache(request):
            passed_on: AnyResponse = behind.handle_request(request)
            return passed_on
        exchange = self._exchange(request, library)
        next_request, result = _advance(exchange, None)
        while next_request is not None:
            response = behind.handle_request(next_request)
            try:
                next_request, result = _advance(exchange, response)
            except BaseException:
                response.close()
                raise
            if result is not response:
                response.close()
        assert result is not None
        return result

    @overload
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response: ...

    @overload
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response: ...

    async def handle_async_request(self, request: AnyRequest) -> AnyResponse:
        """Return the response of the cache or of the next transport, for an ``AsyncClient``."""
        library = library_of(request) or default_library()
        behind = self._next_transport(library, _ASYNC)
        if not _is_for_cache(request):
            passed_on: AnyResponse = await behind.handle_async_request(request)
            return passed_on
        exchange = self._exchange(request, library)
        next_request, result = await _THREADS.run(lambda: _advance(exchange, None))
        while next_request is not None:
            response = await behind.handle_async_request(next_request)
            try:
                next_request, result = await _THREADS.run(lambda: _advance(exchange, response))  # noqa: B023 - run at once
            except BaseException:
                await response.aclose()
                raise
            if result is not response:
                await response.aclose()
        assert result is not None
        return result

    def _next_transport(self, library: Library, kind: _Kind) -> Any:
        """Return the next transport, and create it for the first request.

        Raises:
            TypeError: if the next transport cannot serve this kind of client of this library.
        """
        with self._lock:
            if self._next is None:
                self._next = getattr(library.httpx, kind.default)()
        if isinstance(self._next, getattr(library.httpx, kind.base)):
            return self._next
        owner = library_of(self._next)
        if owner is None and hasattr(self._next, kind.method):
            return self._next
        if owner is not None and owner.httpx is not library.httpx:
            raise TypeError(
                f"an {library.name}.{kind.client} needs a transport of {library.name},"
                f" not {self._next!r}, which is a transport of {owner.name}"
            )
        raise TypeError(f"an {library.name}.{kind.client} needs {kind.adjective} transport, not {self._next!r}")

    def _exchange(self, request: AnyRequest, library: Library) -> _Exchange:
        """Yield requests for the next transport, receive its responses, and return the response for the client."""
        carried = request.extensions.get(_REDIRECT)
        chain = chain_of(str(request.url), request.headers, carried, self._core.system.now())
        if chain is None and not _has_wheel_suffix(request):
            return (yield request)
        passthrough = None if chain is None else self._begin(request, chain)
        if passthrough is not None and passthrough.is_fresh:
            file = _open_wheel(passthrough)
            if file is not None:
                return _file_response(library, file, passthrough, Status.HIT)
        self._require_network(request, library)
        conditions = {} if passthrough is None else passthrough.conditional_headers()
        response = yield _with_headers(library, request, conditions) if conditions else request
        if passthrough is not None and conditions and response.status_code == HTTPStatus.NOT_MODIFIED:
            file = None
            if confirms(response.headers, conditions):
                passthrough.record_revalidation(_lowercase_headers(response))
                file = _open_wheel(passthrough)
            if file is not None:
                return _file_response(library, file, passthrough, Status.REVALIDATED)
            # The wheel was removed meanwhile, or another file was confirmed. The client itself sent no conditions.
            response = yield request
        if chain is not None and response.has_redirect_location:
            _carry_redirect(library, request, response, chain)
        elif passthrough is not None and passthrough.is_whole_wheel(response.status_code):
            _tee(response, passthrough)
        return response

    def _begin(self, request: AnyRequest, chain: RedirectChain) -> Passthrough | None:
        directives = request.headers.get("Cache-Control", "").replace(" ", "").lower().split(",")
        refresh = "no-cache" in directives or "max-age=0" in directives
        try:
            with self._core.begin(chain.request.filename) as op:
                max_bytes = self._core.limits.max_bytes
                return Passthrough(self._core.store, op, chain, refresh=refresh, max_bytes=max_bytes)
        except (WheelCacheError, ValueError):
            return None  # The file name is not a wheel's, or the cache failed. A failure must not affect the client.

    def _require_network(self, request: AnyRequest, library: Library) -> None:
        """Raise ``ConnectError`` if the cache is offline, even if the lookup in the cache failed."""
        if self._core.offline:
            root, url = self._core.layout.root, redact(str(request.url))
            raise library.httpx.ConnectError(f"the cache {root} is offline and does not have {url}", request=request)

    def close(self) -> None:
        """Close the next transport."""
        # An asynchronous transport, or an object that only has the methods of a transport, may lack this method.
        close = getattr(self._next, "close", None)
        if close is not None:
            close()

    async def aclose(self) -> None:
        """Close the next transport."""
        close = getattr(self._next, "aclose", None)
        if close is not None:
            await close()


def _is_for_cache(request: AnyRequest) -> bool:
    is_excluded = any(name in request.headers for name in _EXCLUDED_HEADERS)
    no_store = "no-store" in request.headers.get("Cache-Control", "").lower()
    may_be_wheel = _has_wheel_suffix(request) or _REDIRECT in request.extensions
    return request.method == "GET" and may_be_wheel and not is_excluded and not no_store


def _has_wheel_suffix(request: AnyRequest) -> bool:
    return request.url.path.endswith(".whl")


def _advance(exchange: _Exchange, response: AnyResponse | None) -> tuple[AnyRequest | None, AnyResponse | None]:
    """Return the request for the next transport, or the response for the client."""
    try:
        return next(exchange) if response is None else exchange.send(response), None
    except StopIteration as end:
        return None, end.value


def _carry_redirect(library: Library, request: AnyRequest, response: AnyResponse, chain: RedirectChain) -> None:
    """Attach a redirect to its request. The client copies it to the request that follows the redirect."""
    try:
        target = library.httpx.URL(response.headers["Location"])
        if target.is_relative_url:
            target = request.url.join(target)
        redirect = Redirect.of(chain, str(request.url), str(target), _lowercase_headers(response))
    except (library.httpx.InvalidURL, ValueError):
        return  # the client refuses this redirect, too
    # The dictionary is replaced and not changed, because it may be the caller's own.
    request.extensions = {**request.extensions, _REDIRECT: redirect}


def _with_headers(library: Library, request: AnyRequest, conditions: dict[str, str]) -> AnyRequest:
    """Return a copy of a request with more header fields. The client builds redirects from the original one."""
    headers = library.httpx.Headers(request.headers)
    headers.update(conditions)
    copy: AnyRequest = library.httpx.Request(
        request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
    )
    return copy


def _open_wheel(passthrough: Passthrough) -> BinaryIO | None:
    try:
        return passthrough.open()
    except (WheelCacheError, OperationCancelledError):
        return None  # the file cannot be read, or the cache was closed


def _tee(response: AnyResponse, passthrough: Passthrough) -> None:
    """Write a body to the cache while the client reads it, or at once if a transport has already read the body."""
    if "Content-Encoding" in response.headers:
        return
    if not response.is_stream_consumed:
        response.stream = _TeeStream(response.stream, passthrough, _lowercase_headers(response))
        return
    writer = passthrough.begin_body(_lowercase_headers(response))
    writer.write(response.content)
    writer.finish()


class _TeeStream(ByteStreamBase):
    """A body that is written to the cache while the client reads it.

    Args:
        body: the body that the next transport returned.
        passthrough: the request.
        headers: the header fields of the response, with lowercase names.
    """

    def __init__(self, body: Any, passthrough: Passthrough, headers: dict[str, str]) -> None:
        self._body = body
        self._passthrough = passthrough
        self._headers = headers
        self._writer: BodyWriter | None = None

    def __iter__(self) -> Iterator[bytes]:
        writer = self._begin()
        try:
            for chunk in self._body:
                writer.write(chunk)
                yield chunk
            writer.finish()
        finally:
            writer.discard()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        writer = await _THREADS.run(self._begin)
        chunks = aiter(self._body)
        try:
            async for chunk in chunks:
                await _THREADS.run(lambda: writer.write(chunk))  # noqa: B023 - run at once
                yield chunk
            await _THREADS.run(writer.finish)
        finally:
            # This runs in the event loop, because a cancelled task cannot await a thread. Deleting a file is fast.
            writer.discard()
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    def _begin(self) -> BodyWriter:
        self._writer = self._passthrough.begin_body(self._headers)
        return self._writer

    def close(self) -> None:
        # After an early close, the iterator may still exist, with its "finally" not yet run.
        if self._writer is not None:
            self._writer.discard()
        self._body.close()

    async def aclose(self) -> None:
        if self._writer is not None:
            self._writer.discard()
        await self._body.aclose()


class _FileStream(ByteStreamBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._file.read(_CHUNK):
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await _THREADS.run(lambda: self._file.read(_CHUNK)):
            yield chunk

    def close(self) -> None:
        self._file.close()

    async def aclose(self) -> None:
        self._file.close()


def _file_response(library: Library, file: BinaryIO, passthrough: Passthrough, status: Status) -> AnyResponse:
    size = 0 if passthrough.wheel is None else passthrough.wheel.size
    response: AnyResponse = library.httpx.Response(
        200,
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
        stream=_FileStream(file),
        extensions={"http_version": b"HTTP/1.1", "wheelcache": status},
    )
    return response


def _lowercase_headers(response: AnyResponse) -> dict[str, str]:
    return {name.lower(): text for name, text in response.headers.items()}
