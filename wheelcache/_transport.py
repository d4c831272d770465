"""CacheTransport: wheels of any httpx client come from the cache and go to it.

Only a plain GET of a URL whose path ends in a wheel's file name is looked at. What is in the cache and still holds is
answered from its file; what has to be asked for goes to the next transport, and its body is kept while the client reads
it, once it was read whole. Everything else, every other answer to such a request too, passes through untouched: the
client's own redirects, authentication and retries see what they always saw. A cache that fails is passed by.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import httpx

from ._errors import WheelCacheError
from ._wheel import Status

if TYPE_CHECKING:
    from ._cache import Cache
    from ._visit import Visit

_CHUNK = 1 << 18
_OK, _NOT_MODIFIED = 200, 304
# A request with one of these wants something else than the whole file, or knows better than the cache.
_SPECIAL = ("Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")


class CacheTransport(httpx.BaseTransport):
    """A transport for an :class:`httpx.Client` that has the wheels of a cache, and puts those that it brings there.

    A ``#sha256=...`` fragment of a URL is checked: what is in the cache is taken without asking, and other bytes are
    never kept. Without one the rules of HTTP decide, as for :meth:`Cache.fetch`. An answer from the cache has the
    extension ``"wheelcache"`` with a :class:`Status`.

    Args:
        cache: stays the caller's to close.
        next: the transport that makes the requests; ``None`` for one of its own. It is closed with this one.

    Example::

        with httpx.Client(transport=CacheTransport(cache)) as client:
            client.get("https://example.org/six-1.17.0-py2.py3-none-any.whl")
    """

    def __init__(self, cache: Cache, next: httpx.BaseTransport | None = None) -> None:  # noqa: A002 - the API's name
        self._cache = cache
        self._next = httpx.HTTPTransport() if next is None else next

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request from the cache, or from the next transport."""
        visit = self._visit(request)
        if visit is None:
            return self._next.handle_request(request)
        file = visit.open() if visit.holds else None
        if file is not None:
            return _from_file(file, visit, Status.HIT)
        conditions = visit.conditions()
        request.headers.update(conditions)
        response = self._next.handle_request(request)
        if response.status_code == _NOT_MODIFIED and conditions:
            response.close()
            visit.revalidated(_fields(response))
            file = visit.open()
            if file is not None:
                return _from_file(file, visit, Status.REVALIDATED)
            # It was removed meanwhile, and the client never asked whether it changed.
            for name in conditions:
                del request.headers[name]
            return self._next.handle_request(request)
        if response.status_code == _OK and "Content-Encoding" not in response.headers:
            assert isinstance(response.stream, httpx.SyncByteStream)
            response.stream = _Kept(response.stream, visit, _fields(response))
        return response

    def _visit(self, request: httpx.Request) -> Visit | None:
        name = request.url.path.rpartition("/")[2]
        special = any(field in request.headers for field in _SPECIAL)
        told = request.headers.get("Cache-Control", "")
        if request.method != "GET" or not name.endswith(".whl") or special or "no-store" in told:
            return None
        try:
            return self._cache._visit(str(request.url), refresh="no-cache" in told)  # noqa: SLF001 - one package
        except (WheelCacheError, ValueError):
            return None  # no wheel's name, or a cache that cannot be used: that is not the client's concern

    def close(self) -> None:
        """Close the next transport."""
        self._next.close()


class _Kept(httpx.SyncByteStream):
    """A body that is written down while it is read."""

    def __init__(self, body: httpx.SyncByteStream, visit: Visit, fields: dict[str, str]) -> None:
        self._body = body
        self._visit = visit
        self._fields = fields

    def __iter__(self) -> Iterator[bytes]:
        with self._visit.keeping(self._fields) as keep:
            for chunk in self._body:
                keep.write(chunk)
                yield chunk
            keep.finish()

    def close(self) -> None:
        self._body.close()


class _FileStream(httpx.SyncByteStream):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._file.read(_CHUNK):
            yield chunk

    def close(self) -> None:
        self._file.close()


def _from_file(file: BinaryIO, visit: Visit, status: Status) -> httpx.Response:
    size = 0 if visit.wheel is None else visit.wheel.size
    return httpx.Response(
        200,
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
        stream=_FileStream(file),
        extensions={"http_version": b"HTTP/1.1", "wheelcache": status},
    )


def _fields(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): text for name, text in response.headers.items()}
