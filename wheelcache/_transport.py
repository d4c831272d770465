"""CacheTransport: an HTTP transport that serves any httpx client's wheels from the cache and adds new ones to it.

Only plain GET requests for a wheel file name are handled. A wheel that is in the cache and still valid is served from
its file. Otherwise the request is passed to the next transport, and the body is written to the cache while the client
reads it. It becomes an entry once it was read completely. All other requests and responses pass through unchanged, so
the client's redirects, authentication and retries work as usual. If the cache fails, the request is passed on, unless
the cache is offline.

:meth:`CacheTransport._exchange` decides which requests to send. Synchronous clients run it directly. For asynchronous
ones, each step runs in a worker thread, since it uses files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from http import HTTPStatus
from typing import BinaryIO, TypeAlias

import httpx

from ._async_cache import AsyncCache, sync_cache_of
from ._cache import Cache, core_of
from ._exceptions import WheelCacheError
from ._fetch.passthrough import BodyWriter, Passthrough
from ._fetch.redirect_chain import Redirect, RedirectChain, chain_of
from ._models import Status
from ._operation import OperationCancelledError
from ._request import redact
from ._threads import ThreadLimiter

_CHUNK = 1 << 18
# This is anyio's default number of threads. They only use the disk, and never wait for the event loop or each other.
_THREADS = ThreadLimiter(40)
# A request with one of these does not ask for the whole file, or its client validates a file of its own.
_EXCLUDED_HEADERS = ("Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")
# httpx copies the extensions of a request to the redirected one.
_REDIRECT = "wheelcache_redirect"

_Exchange: TypeAlias = Generator[httpx.Request, httpx.Response, httpx.Response]


class CacheTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for httpx clients that serves wheels from a cache, and adds downloaded wheels to it.

    It serves an :class:`httpx.Client` or an :class:`httpx.AsyncClient` (on asyncio or trio), not both at once.

    With a ``#sha256=...`` fragment in the URL, a cached wheel is used without a request, and bytes with another hash
    are never stored. Without one, the rules of HTTP decide, as in :meth:`Cache.fetch`, and a response with ``no-store``
    is not stored. A response from the cache has the extension ``"wheelcache"``, which contains a :class:`Status`. If
    the cache is ``offline``, requesting a wheel that it does not have raises :class:`httpx.ConnectError`. All other
    requests are still passed to the next transport.

    Args:
        cache: a :class:`Cache` or an :class:`AsyncCache`, for either kind of client. The caller closes it; after that,
            all requests are passed on. Its own client is not used here.
        next: the transport that sends the requests, of the client's kind; ``None`` for a new one. It is closed together
            with this transport.

    A client that is given a transport ignores its own ``verify``, ``cert``, ``http1``, ``http2`` and ``limits``, and
    the proxies of the environment. With ``proxy``, it bypasses the transport
    (https://www.python-httpx.org/advanced/transports/). Pass these options to ``next``::

        next=httpx.HTTPTransport(verify=context, proxy="http://proxy.example.org:3128")

    Raises:
        TypeError: if ``cache`` is neither a :class:`Cache` nor an :class:`AsyncCache`.

    Example::

        with Cache() as cache, httpx.Client(transport=CacheTransport(cache)) as client:
            client.get("https://example.org/six-1.17.0-py2.py3-none-any.whl")
    """

    def __init__(
        self,
        cache: Cache | AsyncCache,
        next: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,  # noqa: A002 - the API's name
    ) -> None:
        if isinstance(cache, AsyncCache):
            # This transport has worker threads of its own for file operations.
            cache = sync_cache_of(cache)
        if not isinstance(cache, Cache):
            raise TypeError(f"CacheTransport needs a Cache or an AsyncCache, not {type(cache).__name__}")
        self._core = core_of(cache)
        self._next = next

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response of the cache or of the next transport."""
        if self._next is None:
            self._next = httpx.HTTPTransport()
        if not isinstance(self._next, httpx.BaseTransport):
            raise TypeError(f"an httpx.Client needs a synchronous transport, not {self._next!r}")
        if not _is_for_cache(request):
            return self._next.handle_request(request)
        exchange = self._exchange(request)
        next_request, result = _advance(exchange, None)
        while next_request is not None:
            response = self._next.handle_request(next_request)
            next_request, result = _advance(exchange, response)
            if result is not response:
                response.close()
        assert result is not None
        return result

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Like :meth:`handle_request`, for an :class:`httpx.AsyncClient`."""
        if self._next is None:
            self._next = httpx.AsyncHTTPTransport()
        if not isinstance(self._next, httpx.AsyncBaseTransport):
            raise TypeError(f"an httpx.AsyncClient needs an asynchronous transport, not {self._next!r}")
        if not _is_for_cache(request):
            return await self._next.handle_async_request(request)
        exchange = self._exchange(request)
        next_request, result = await _THREADS.run(lambda: _advance(exchange, None))
        while next_request is not None:
            response = await self._next.handle_async_request(next_request)
            try:
                next_request, result = await _THREADS.run(lambda: _advance(exchange, response))  # noqa: B023 - run at once
            except BaseException:
                await response.aclose()
                raise
            if result is not response:
                await response.aclose()
        assert result is not None
        return result

    def _exchange(self, request: httpx.Request) -> _Exchange:
        """Yield requests for the next transport, receive its responses, and return the response for the client."""
        chain = chain_of(str(request.url), request.extensions.get(_REDIRECT), self._core.system.now())
        if chain is None and not request.url.path.endswith(".whl"):
            return (yield request)
        passthrough = self._begin(request, chain)
        file = _open_wheel(passthrough) if passthrough is not None and passthrough.is_fresh else None
        if passthrough is not None and file is not None:
            return _file_response(file, passthrough, Status.HIT)
        self._require_network(request)
        conditions = {} if passthrough is None else passthrough.conditional_headers()
        response = yield _with_headers(request, conditions) if conditions else request
        if passthrough is None:
            _carry_redirect(request, response, chain)
            return response
        if response.status_code == HTTPStatus.NOT_MODIFIED and conditions:
            passthrough.record_revalidation(_lowercase_headers(response))
            file = _open_wheel(passthrough)
            if file is not None:
                return _file_response(file, passthrough, Status.REVALIDATED)
            # The wheel was removed meanwhile, and the client did not send a conditional request itself.
            response = yield request
        _carry_redirect(request, response, chain)
        if passthrough.is_whole_wheel(response.status_code) and "Content-Encoding" not in response.headers:
            _tee(response, passthrough)
        return response

    def _begin(self, request: httpx.Request, chain: RedirectChain | None) -> Passthrough | None:
        if chain is None:
            return None
        directives = request.headers.get("Cache-Control", "").replace(" ", "").lower().split(",")
        refresh = "no-cache" in directives or "max-age=0" in directives
        try:
            with self._core.begin(chain.request.filename) as op:
                return Passthrough(self._core.store, op, chain, refresh=refresh)
        except (WheelCacheError, ValueError):
            return None  # not a wheel file name, or the cache failed, which must not affect the client

    def _require_network(self, request: httpx.Request) -> None:
        """Raise ``httpx.ConnectError`` if the cache is offline, also if the cache failed to look the wheel up."""
        if self._core.offline:
            url = redact(str(request.url))
            raise httpx.ConnectError(
                f"the cache {self._core.layout.root} is offline and does not have {url}", request=request
            )

    def close(self) -> None:
        """Close the next transport."""
        if isinstance(self._next, httpx.BaseTransport):
            self._next.close()

    async def aclose(self) -> None:
        """Close the next transport."""
        if isinstance(self._next, httpx.AsyncBaseTransport):
            await self._next.aclose()


def _is_for_cache(request: httpx.Request) -> bool:
    is_excluded = any(name in request.headers for name in _EXCLUDED_HEADERS)
    no_store = "no-store" in request.headers.get("Cache-Control", "").lower()
    is_wheel = request.url.path.endswith(".whl") or _REDIRECT in request.extensions
    return request.method == "GET" and is_wheel and not is_excluded and not no_store


def _advance(
    exchange: _Exchange, response: httpx.Response | None
) -> tuple[httpx.Request | None, httpx.Response | None]:
    """Return the request for the next transport, or the response for the client."""
    try:
        return next(exchange) if response is None else exchange.send(response), None
    except StopIteration as end:
        return None, end.value


def _carry_redirect(request: httpx.Request, response: httpx.Response, chain: RedirectChain | None) -> None:
    """Let the client's next request carry the redirect of a response, if it is one."""
    if chain is None or not response.has_redirect_location:
        return
    try:
        target = httpx.URL(response.headers["Location"])
        if target.is_relative_url:
            target = request.url.join(target)
        redirect = Redirect.of(chain, str(request.url), str(target), _lowercase_headers(response))
    except (httpx.InvalidURL, ValueError):
        return  # the client will refuse it, too
    # The dictionary is replaced, since it may be the caller's own.
    request.extensions = {**request.extensions, _REDIRECT: redirect}


def _with_headers(request: httpx.Request, conditions: dict[str, str]) -> httpx.Request:
    """Return a copy of a request with more header fields. httpx builds redirects from the original one."""
    headers = httpx.Headers(request.headers)
    headers.update(conditions)
    return httpx.Request(
        request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
    )


def _open_wheel(passthrough: Passthrough) -> BinaryIO | None:
    try:
        return passthrough.open()
    except (WheelCacheError, OperationCancelledError):
        return None  # unreadable, or the cache was closed


def _tee(response: httpx.Response, passthrough: Passthrough) -> None:
    """Write a body to the cache while the client reads it, or now if a transport has already read it."""
    if not response.is_stream_consumed:
        response.stream = _TeeStream(response.stream, passthrough, _lowercase_headers(response))
        return
    writer = passthrough.begin_body(_lowercase_headers(response))
    writer.write(response.content)
    writer.finish()


class _TeeStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that is written to the cache while the client reads it."""

    def __init__(
        self, body: httpx.SyncByteStream | httpx.AsyncByteStream, passthrough: Passthrough, headers: dict[str, str]
    ) -> None:
        self._body = body
        self._passthrough = passthrough
        self._headers = headers
        self._writer: BodyWriter | None = None

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._body, httpx.SyncByteStream)
        writer = self._begin()
        try:
            for chunk in self._body:
                writer.write(chunk)
                yield chunk
            writer.finish()
        finally:
            writer.discard()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._body, httpx.AsyncByteStream)
        writer = await _THREADS.run(self._begin)
        try:
            async for chunk in self._body:
                await _THREADS.run(lambda: writer.write(chunk))  # noqa: B023 - run at once
                yield chunk
            await _THREADS.run(writer.finish)
        finally:
            # Not in a thread: a cancelled task cannot await one, and deleting a file is short.
            writer.discard()

    def _begin(self) -> BodyWriter:
        self._writer = self._passthrough.begin_body(self._headers)
        return self._writer

    def close(self) -> None:
        # After an early close, the iterator may still exist, and has not run its "finally".
        if self._writer is not None:
            self._writer.discard()
        if isinstance(self._body, httpx.SyncByteStream):
            self._body.close()

    async def aclose(self) -> None:
        if self._writer is not None:
            self._writer.discard()
        if isinstance(self._body, httpx.AsyncByteStream):
            await self._body.aclose()


class _FileStream(httpx.SyncByteStream, httpx.AsyncByteStream):
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


def _file_response(file: BinaryIO, passthrough: Passthrough, status: Status) -> httpx.Response:
    size = 0 if passthrough.wheel is None else passthrough.wheel.size
    return httpx.Response(
        200,
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
        stream=_FileStream(file),
        extensions={"http_version": b"HTTP/1.1", "wheelcache": status},
    )


def _lowercase_headers(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): text for name, text in response.headers.items()}
