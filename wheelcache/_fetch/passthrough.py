"""Look up a request of another HTTP client, and add the response to the store while that client reads it.

:class:`~wheelcache.CacheTransport` uses this module for each request that it handles. If the cache fails, the body is
not stored. The other client is not affected.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import BinaryIO

from .._exceptions import WheelCacheError
from .._filenames import check_wheel_name
from .._fs.robustio import RobustIO
from .._http.cache_control import freshness, is_private
from .._http.headers import declared_length
from .._models import CachedWheel, Status
from .._operation import Operation, OperationCancelledError
from .._store.layers import LayeredStore, to_wheel
from .._store.staging import StagedFile
from .download import ResponseHead
from .redirect_chain import RedirectChain
from .revalidate import conditional_headers, remember_response


class Passthrough:
    """One request of another client.

    Args:
        store: the store in which the wheel is looked up, and to which it is added.
        op: the operation. It lasts until the body has been read.
        chain: the request, and the redirects that led to it.
        refresh: whether the client requested a revalidation.
        max_bytes: the maximum size in bytes of a body that is stored, or ``None`` for no limit.

    Attributes:
        wheel: the wheel in the store, or ``None``.
        is_fresh: whether the wheel may be used without revalidation.

    Raises:
        WheelCacheError: if the store cannot be used, or the file name is not a wheel file name.
    """

    def __init__(
        self, store: LayeredStore, op: Operation, chain: RedirectChain, *, refresh: bool, max_bytes: int | None
    ) -> None:
        request = chain.request
        check_wheel_name(request.filename, operation="fetch", url=request.display_url)
        self._store = store
        self._fs = RobustIO(op)
        self._request = request
        requests = [request._replace(url=url) for url in chain.stored_urls]
        found = (store.find(self._fs, each, refresh=refresh) for each in requests)
        self.wheel = next(filter(None, found), None)
        self.is_fresh = self.wheel is not None
        self._known = None if request.hashes else store.index.find_url(self._fs, request.url)
        if self.wheel is None and self._known is not None:
            entry = store.find_known(self._fs, self._known, request.filename)
            self.wheel = None if entry is None else to_wheel(entry, Status.REVALIDATED)
        self._chain = chain
        self._max_bytes = max_bytes

    def conditional_headers(self) -> dict[str, str]:
        """Return the header fields that ask the server whether the wheel in the store is still current."""
        # The client follows redirects itself. A validator is valid only at the server that sent it.
        if self.wheel is None or self._known is None or self._known.place != self._chain.place:
            return {}
        return conditional_headers(self._known, refresh=False)

    def open(self) -> BinaryIO | None:
        """Open the wheel, or return ``None`` if the wheel is not in the store any more."""
        return None if self.wheel is None else self._fs.open_read(str(self.wheel.path))

    def record_revalidation(self, headers: Mapping[str, str]) -> None:
        """Record in the index that the server has confirmed the wheel, with these headers."""
        if self.wheel is not None and not self._store.read_only:
            try:
                self._remember(self.wheel, headers, modified=False)
            except OperationCancelledError:
                pass  # closing the cache must not affect the client

    def is_whole_wheel(self, status: int) -> bool:
        """Return whether the body of a response with this status can be a whole wheel."""
        return status == HTTPStatus.OK or (
            status == HTTPStatus.NON_AUTHORITATIVE_INFORMATION and self._request.is_pinned
        )

    def begin_body(self, headers: Mapping[str, str]) -> BodyWriter:
        """Return a writer for the body of a response with these headers."""
        is_small = self._max_bytes is None or (declared_length(headers) or 0) <= self._max_bytes
        stage = self._stage() if self._may_store(headers) and is_small else None
        return BodyWriter(self, stage, headers, self._max_bytes)

    def _may_store(self, headers: Mapping[str, str]) -> bool:
        """Return whether the body may be stored. Without a requested hash, the header fields decide."""
        chain, now = self._chain, self._fs.system.now()
        if chain.request.hashes or freshness(headers, chain.requested_at, now, chain.hops).storable:
            return True
        if self._known is not None and not self._store.read_only:
            # A response that was stored earlier must not be used any more, either.
            self._store.index.remove_url(self._fs, self._request.url)
        return False

    def _stage(self) -> StagedFile | None:
        if self._store.read_only:
            return None
        temporary = self._store.layout.new_temporary(self._fs.temporary_tag(), self._fs.system.pid_namespace())
        try:
            return StagedFile(self._fs, temporary, expected=self._request.hashes, display_url=self._request.display_url)
        except (WheelCacheError, OperationCancelledError):
            return None

    def commit(self, stage: StagedFile, headers: Mapping[str, str]) -> None:
        """Turn a body that was read completely into an entry."""
        request = self._request
        wheel = self._store.commit(self._fs, stage, request.filename, request.display_url, Status.DOWNLOADED)
        if not request.hashes:
            self._remember(wheel, headers, modified=True)

    def _remember(self, wheel: CachedWheel, headers: Mapping[str, str], *, modified: bool) -> None:
        chain, sha256 = self._chain, wheel.hashes["sha256"]
        # Redirects that need credentials lead to URLs that other users cannot learn. The entries of these URLs are also
        # private.
        by_redirects = chain.with_credentials or any(map(is_private, chain.hops))
        for url in chain.stored_urls:
            is_first = url == chain.request.url
            hops, place = (chain.hops, chain.place) if is_first else ((), "")
            response = ResponseHead(modified, headers, chain.requested_at, url, hops, place, by_redirects)
            remember_response(self._store.index, self._fs, url, sha256=sha256, response=response, previous=self._known)


class BodyWriter:
    """Writes a body to the store while another client reads it.

    No method raises an error. The body is discarded instead.

    Args:
        passthrough: the request.
        stage: the file, or ``None`` if the body is not stored.
        headers: the headers of the response, with lowercase names.
        max_bytes: the maximum number of bytes that are stored, or ``None`` for no limit.
    """

    def __init__(
        self, passthrough: Passthrough, stage: StagedFile | None, headers: Mapping[str, str], max_bytes: int | None
    ) -> None:
        self._passthrough = passthrough
        self._stage = stage
        self._headers = headers
        self._max_bytes = max_bytes

    def write(self, data: bytes) -> None:
        """Write the next bytes, or discard the body if it is too large."""
        if self._stage is not None:
            if self._max_bytes is not None and self._stage.written + len(data) > self._max_bytes:
                self.discard()
                return
            try:
                self._stage.write(data)
            except (WheelCacheError, OperationCancelledError):
                self.discard()

    def finish(self) -> None:
        """Turn the body into an entry. The client has read the body completely."""
        # Not every transport detects a body that is shorter than declared.
        declared = declared_length(self._headers)
        if self._stage is not None and declared in {None, self._stage.written}:
            try:
                self._passthrough.commit(self._stage, self._headers)
            except (WheelCacheError, OperationCancelledError):
                pass  # the hash does not match, the disk has refused the file, or the cache was closed
        self.discard()

    def discard(self) -> None:
        """Delete the temporary file, unless the file has become an entry."""
        if self._stage is not None:
            self._stage.__exit__(None, None, None)
            self._stage = None
