"""CacheTransport: wheels of any httpx client come from the cache and go to it.

Only a plain GET of a URL whose path ends in a wheel's file name is looked at. What is in the cache and still holds is
answered from its file; what has to be asked for goes to the next transport, and its body is kept while the client reads
it, once it was read whole. Everything else, every other answer to such a request too, passes through untouched: the
client's own redirects, authentication and retries see what they always saw. A cache that fails is passed by, unless it
is offline.

What is to be asked is decided in one place, :meth:`CacheTransport._answers`; who asks is a blocking client or an event
loop, for which everything that touches a file is done in a worker thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from http import HTTPStatus
from typing import BinaryIO, TypeAlias

import httpx

from ._async_cache import AsyncCache, sync_cache_of
from ._cache import Cache, core_of
from ._exceptions import WheelCacheError
from ._fetch.passthrough import KeptBody, Passthrough
from ._models import Status
from ._operation import OperationCancelledError
from ._request import parse_request, redact
from ._threads import ThreadLimiter

_CHUNK = 1 << 18
# As many at a time as anyio lets work. They need the disk alone: none waits for the event loop, nor for another.
_THREADS = ThreadLimiter(40)
# A request with one of these wants something else than the whole file, or knows better than the cache.
_SPECIAL = ("Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")

_Answers: TypeAlias = Generator[httpx.Request, httpx.Response, httpx.Response]


class CacheTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for httpx clients that has the wheels of a cache, and puts those that it brings there.

    It serves an :class:`httpx.Client` or an :class:`httpx.AsyncClient` (under asyncio or trio), not both at once.

    A ``#sha256=...`` fragment of a URL is checked: what is in the cache is taken without asking, and other bytes are
    never kept. Without one the rules of HTTP decide, as for :meth:`Cache.fetch`, and of an answer with ``no-store``
    nothing is kept. An answer from the cache has the extension ``"wheelcache"`` with a :class:`Status`. With a cache
    that is ``offline``, a wheel that it does not have is an :class:`httpx.ConnectError`; all else still goes to the
    next transport.

    Args:
        cache: a :class:`Cache` or an :class:`AsyncCache`, for either kind of client. It stays the caller's to close;
            once it is closed, it is passed by. What it was given to download with is not used here.
        next: the transport that makes the requests, of the client's kind; ``None`` for one of its own. It is closed
            with this one.

    A client that is given a transport leaves the network to it: the client's own ``verify``, ``cert``, ``http1``,
    ``http2`` and ``limits``, and the proxies of the environment, mean nothing then, and with ``proxy`` it goes past the
    transport (https://www.python-httpx.org/advanced/transports/). Give them to ``next``::

        next=httpx.HTTPTransport(verify=context, proxy="http://proxy.example.org:3128")

    Raises:
        TypeError: where ``cache`` is none.

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
            # File operations are done in worker threads here too, so that the event loop is not blocked.
            cache = sync_cache_of(cache)
        if not isinstance(cache, Cache):
            raise TypeError(f"CacheTransport needs a Cache or an AsyncCache, not {type(cache).__name__}")
        self._core = core_of(cache)
        self._next = next

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request from the cache, or from the next transport."""
        if self._next is None:
            self._next = httpx.HTTPTransport()
        if not isinstance(self._next, httpx.BaseTransport):
            raise TypeError(f"an httpx.Client needs a transport that blocks, not {self._next!r}")
        if not _is_of_interest(request):
            return self._next.handle_request(request)
        answers = self._answers(request)
        asked, answer = _step(answers, None)
        while asked is not None:
            response = self._next.handle_request(asked)
            asked, answer = _step(answers, response)
            if answer is not response:
                response.close()
        assert answer is not None
        return answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As :meth:`handle_request`, for an :class:`httpx.AsyncClient`."""
        if self._next is None:
            self._next = httpx.AsyncHTTPTransport()
        if not isinstance(self._next, httpx.AsyncBaseTransport):
            raise TypeError(f"an httpx.AsyncClient needs a transport that is awaited, not {self._next!r}")
        if not _is_of_interest(request):
            return await self._next.handle_async_request(request)
        answers = self._answers(request)
        asked, answer = await _THREADS.run(lambda: _step(answers, None))
        while asked is not None:
            response = await self._next.handle_async_request(asked)
            try:
                asked, answer = await _THREADS.run(lambda: _step(answers, response))  # noqa: B023 - run at once
            except BaseException:
                await response.aclose()
                raise
            if answer is not response:
                await response.aclose()
        assert answer is not None
        return answer

    def _answers(self, request: httpx.Request) -> _Answers:
        """Yield requests for the next transport, receive its responses, and return the response for the client."""
        passthrough = self._begin(request)
        file = _open(passthrough) if passthrough is not None and passthrough.is_fresh else None
        if passthrough is not None and file is not None:
            return _from_file(file, passthrough, Status.HIT)
        self._require_network(request)
        if passthrough is None:
            return (yield request)
        conditions = passthrough.conditional_headers()
        response = yield _with(request, conditions) if conditions else request
        if response.status_code == HTTPStatus.NOT_MODIFIED and conditions:
            passthrough.revalidated(_fields(response))
            file = _open(passthrough)
            if file is not None:
                return _from_file(file, passthrough, Status.REVALIDATED)
            # The wheel was removed meanwhile, and the client did not send a conditional request itself.
            response = yield request
        if response.status_code == HTTPStatus.OK and "Content-Encoding" not in response.headers:
            _keep(response, passthrough)
        return response

    def _begin(self, request: httpx.Request) -> Passthrough | None:
        directives = request.headers.get("Cache-Control", "").replace(" ", "").lower().split(",")
        refresh = "no-cache" in directives or "max-age=0" in directives
        try:
            resolved = parse_request(str(request.url), None, None, None)
            with self._core.begin(resolved.filename) as op:
                return Passthrough(self._core.store, op, resolved, refresh=refresh)
        except (WheelCacheError, ValueError):
            return None  # the file name is not a wheel's, or the cache cannot be used: the client need not know

    def _require_network(self, request: httpx.Request) -> None:
        """Refuse to pass a request of an offline cache to the network, whatever kept the cache from answering it."""
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


def _is_of_interest(request: httpx.Request) -> bool:
    special = any(field in request.headers for field in _SPECIAL)
    no_store = "no-store" in request.headers.get("Cache-Control", "").lower()
    return request.method == "GET" and request.url.path.endswith(".whl") and not special and not no_store


def _step(answers: _Answers, response: httpx.Response | None) -> tuple[httpx.Request | None, httpx.Response | None]:
    """Return what to ask next, or what the client gets."""
    try:
        return next(answers) if response is None else answers.send(response), None
    except StopIteration as end:
        return None, end.value


def _with(request: httpx.Request, conditions: dict[str, str]) -> httpx.Request:
    """Return a request with more header fields; the client's own stays as it is, since redirects are made from it."""
    headers = httpx.Headers(request.headers)
    headers.update(conditions)
    return httpx.Request(
        request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
    )


def _open(passthrough: Passthrough) -> BinaryIO | None:
    try:
        return passthrough.open()
    except (WheelCacheError, OperationCancelledError):
        return None  # unreadable, or the cache was closed: the next transport delivers it


def _keep(response: httpx.Response, passthrough: Passthrough) -> None:
    """Let a body be written down while it is read, or now if a transport has read it already."""
    if not response.is_stream_consumed:
        response.stream = _Kept(response.stream, passthrough, _fields(response))
        return
    keep = passthrough.keep(_fields(response))
    keep.write(response.content)
    keep.finish()


class _Kept(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that is written down while it is read."""

    def __init__(
        self, body: httpx.SyncByteStream | httpx.AsyncByteStream, passthrough: Passthrough, fields: dict[str, str]
    ) -> None:
        self._body = body
        self._passthrough = passthrough
        self._fields = fields
        self._keep: KeptBody | None = None

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._body, httpx.SyncByteStream)
        keep = self._begin()
        try:
            for chunk in self._body:
                keep.write(chunk)
                yield chunk
            keep.finish()
        finally:
            keep.discard()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._body, httpx.AsyncByteStream)
        keep = await _THREADS.run(self._begin)
        try:
            async for chunk in self._body:
                await _THREADS.run(lambda: keep.write(chunk))  # noqa: B023 - run at once
                yield chunk
            await _THREADS.run(keep.finish)
        finally:
            # As short as it must be where a task is cancelled.
            keep.discard()

    def _begin(self) -> KeptBody:
        self._keep = self._passthrough.keep(self._fields)
        return self._keep

    def close(self) -> None:
        # Who closes it early may still hold the iterator.
        if self._keep is not None:
            self._keep.discard()
        if isinstance(self._body, httpx.SyncByteStream):
            self._body.close()

    async def aclose(self) -> None:
        if self._keep is not None:
            self._keep.discard()
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


def _from_file(file: BinaryIO, passthrough: Passthrough, status: Status) -> httpx.Response:
    size = 0 if passthrough.wheel is None else passthrough.wheel.size
    return httpx.Response(
        200,
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
        stream=_FileStream(file),
        extensions={"http_version": b"HTTP/1.1", "wheelcache": status},
    )


def _fields(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): text for name, text in response.headers.items()}
