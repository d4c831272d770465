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
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import httpx

from ._async_cache import AsyncCache
from ._cache import Cache
from ._exceptions import WheelCacheError
from ._models import Status
from ._request import redact
from ._threads import ThreadLimiter

if TYPE_CHECKING:
    from ._fetch.passthrough import KeptBody, Passthrough


_CHUNK = 1 << 18
_OK, _NOT_MODIFIED = 200, 304
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
            # What must not block an event loop is done in threads here, too.
            cache = cache._cache  # noqa: SLF001 - one package
        if not isinstance(cache, Cache):
            raise TypeError(f"CacheTransport needs a Cache or an AsyncCache, not {type(cache).__name__}")
        self._cache = cache
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
        """Yield what to ask the next transport, are sent its answers, and return what the client gets."""
        visit = self._visit(request)
        file = _opened(visit) if visit is not None and visit.holds else None
        if visit is not None and file is not None:
            return _from_file(file, visit, Status.HIT)
        self._may_ask(request)
        if visit is None:
            return (yield request)
        conditions = visit.conditions()
        response = yield _with(request, conditions) if conditions else request
        if response.status_code == _NOT_MODIFIED and conditions:
            visit.revalidated(_fields(response))
            file = _opened(visit)
            if file is not None:
                return _from_file(file, visit, Status.REVALIDATED)
            # It was removed meanwhile, and the client never asked whether it changed.
            response = yield request
        if response.status_code == _OK and "Content-Encoding" not in response.headers:
            _keep(response, visit)
        return response

    def _visit(self, request: httpx.Request) -> Passthrough | None:
        told = request.headers.get("Cache-Control", "").replace(" ", "").lower().split(",")
        refresh = "no-cache" in told or "max-age=0" in told
        try:
            return self._cache._visit(str(request.url), refresh=refresh)  # noqa: SLF001 - one package
        except (WheelCacheError, ValueError):
            return None  # no wheel's name, or a cache that cannot be used: that is not the client's concern

    def _may_ask(self, request: httpx.Request) -> None:
        """Refuse what would go to the network past a cache that must not use it, whatever kept the cache from it."""
        if self._cache._offline:  # noqa: SLF001 - one package
            shown = redact(str(request.url))
            raise httpx.ConnectError(
                f"the cache {self._cache.path} is offline, and {shown} cannot be had from it", request=request
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


def _opened(visit: Passthrough) -> BinaryIO | None:
    try:
        return visit.open()
    except WheelCacheError:
        return None


def _keep(response: httpx.Response, visit: Passthrough) -> None:
    """Let a body be written down while it is read, or now if a transport has read it already."""
    if not response.is_stream_consumed:
        response.stream = _Kept(response.stream, visit, _fields(response))
        return
    keep = visit.keep(_fields(response))
    keep.write(response.content)
    keep.finish()


class _Kept(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that is written down while it is read."""

    def __init__(
        self, body: httpx.SyncByteStream | httpx.AsyncByteStream, visit: Passthrough, fields: dict[str, str]
    ) -> None:
        self._body = body
        self._visit = visit
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
            keep.drop()

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
            keep.drop()

    def _begin(self) -> KeptBody:
        self._keep = self._visit.keep(self._fields)
        return self._keep

    def close(self) -> None:
        # Who closes it early may still hold the iterator.
        if self._keep is not None:
            self._keep.drop()
        if isinstance(self._body, httpx.SyncByteStream):
            self._body.close()

    async def aclose(self) -> None:
        if self._keep is not None:
            self._keep.drop()
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


def _from_file(file: BinaryIO, visit: Passthrough, status: Status) -> httpx.Response:
    size = 0 if visit.wheel is None else visit.wheel.size
    return httpx.Response(
        200,
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
        stream=_FileStream(file),
        extensions={"http_version": b"HTTP/1.1", "wheelcache": status},
    )


def _fields(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): text for name, text in response.headers.items()}
