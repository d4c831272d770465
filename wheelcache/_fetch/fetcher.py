"""Add a wheel that is not in the store.

:meth:`Fetcher.fetch` first waits for its turn, since only one thread or process at a time downloads a wheel. It then
looks the wheel up again, because another thread or process may have added it. If the wheel is still missing, a
download is begun or resumed. The sources are tried in order. The bytes are hashed while they are received. The
complete file is committed. For a request without a hash, the response is stored in the index. If security software
removes the file before it is committed, the wheel is fetched once more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import BinaryIO

from .._exceptions import Cause, CommitError, OfflineError
from .._filenames import check_wheel_name
from .._fs.robustio import RobustIO
from .._http.client import HttpClient
from .._models import CachedWheel, Status
from .._operation import Operation
from .._options import DownloadLimits
from .._request import ResolvedRequest
from .._store.counters import Counters
from .._store.index import UrlEntry
from .._store.layers import LayeredStore
from .._store.single_flight import SingleFlight
from .._store.staging import StagedFile
from . import local
from .download import Conditions, Downloader
from .metadata import Metadata
from .partial import PartialDownloads
from .remote_wheel import NoRangesError
from .revalidate import conditional_headers, remember_response

# The first removal of a file may be an accident. The second one is an error.
_COMMIT_ATTEMPTS = 2


class Fetcher:
    """Adds wheels to a store.

    Args:
        store: the store.
        http: sends the requests.
        single_flight: lets only one caller at a time download a wheel.
        counters: the hits and misses of the cache.
        offline: whether the network must not be used.
        limits: the limits of downloads.
    """

    def __init__(
        self,
        store: LayeredStore,
        http: HttpClient,
        single_flight: SingleFlight,
        counters: Counters,
        *,
        offline: bool,
        limits: DownloadLimits,
    ) -> None:
        self._store = store
        self._http = http
        self._single_flight = single_flight
        self._counters = counters
        self._offline = offline
        self._limits = limits

    def fetch(self, op: Operation, request: ResolvedRequest, *, refresh: bool = False) -> CachedWheel:
        """Add a requested wheel that is not in the store, and return it: see ``Cache.fetch``."""
        self._require_network(request)
        self._store.require_writable("fetch")
        check_wheel_name(request.filename, operation="fetch", url=request.display_url)
        fs = RobustIO(op)
        with self._single_flight.turn(fs, request.key, lambda: self._store.contains(fs, request)):
            if (found := self._store.find(fs, request, refresh=refresh, adopt=True)) is not None:
                return found
            self._counters.miss()
            if request.url.startswith("file:"):
                return retry_if_removed(lambda: self._copy(fs, request))
            return retry_if_removed(lambda: self._download(fs, request, refresh=refresh))

    def _download(self, fs: RobustIO, request: ResolvedRequest, *, refresh: bool) -> CachedWheel:
        known = None if request.hashes else self._store.index.find_url(fs, request.url)
        with PartialDownloads(self._store.layout).begin(fs, request) as partial:
            conditions = self._conditions_for(fs, request, known, refresh=refresh)
            response = Downloader(self._http, self._limits.max_bytes).fill(partial, request, fs, conditions)
            if known is not None and not response.modified:
                wheel = self._find_revalidated(fs, request, known)
            else:
                status = Status.RESUMED if partial.resumed else Status.DOWNLOADED
                wheel = self._store.commit(fs, partial.stage, request.filename, request.display_url, status)
        if not request.hashes:
            sha256 = wheel.hashes["sha256"]
            remember_response(self._store.index, fs, request.url, sha256=sha256, response=response, previous=known)
        return wheel

    def _conditions_for(
        self, fs: RobustIO, request: ResolvedRequest, known: UrlEntry | None, *, refresh: bool
    ) -> Conditions | None:
        """Return the conditions of the request, or ``None`` if the store lacks the wheel of the last response."""
        if known is None or self._store.find_known(fs, known, request.filename) is None:
            return None
        return Conditions(conditional_headers(known, refresh=refresh), known.place)

    def _find_revalidated(self, fs: RobustIO, request: ResolvedRequest, known: UrlEntry) -> CachedWheel:
        wheel = self._store.find_revalidated(fs, known, request.filename)
        if wheel is None:
            raise CommitError(
                "another process removed the wheel while the server confirmed it",
                cause=Cause.REMOVED,
                operation="revalidate",
                path=self._store.layout.root,
                url=request.display_url,
                advice="Fetch the wheel again.",
            )
        return wheel

    def _copy(self, fs: RobustIO, request: ResolvedRequest) -> CachedWheel:
        with StagedFile(
            fs, self._temporary(fs), expected=request.hashes, size=request.size, display_url=request.display_url
        ) as stage:
            local.fetch_file_url(stage, request, fs, self._limits.max_bytes)
            # No URL is recorded, because a path of this machine is useless if the cache is used on another machine.
            return self._store.commit(fs, stage, request.filename, None, Status.ADDED)

    def put(
        self,
        op: Operation,
        source: str | os.PathLike[str] | BinaryIO,
        filename: str,
        expected: Mapping[str, str],
    ) -> CachedWheel:
        """Add a wheel from a local file: see ``Cache.put``."""
        fs = RobustIO(op)
        path = local.absolute_path(source)

        def copy() -> CachedWheel:
            with (
                local.open_source(op, source) as (file, total),
                StagedFile(fs, self._temporary(fs), expected=expected, source=path) as stage,
            ):
                local.copy_to_stage(stage, file, fs, total, max_bytes=self._limits.max_bytes, path=path)
                return self._store.commit(fs, stage, filename, None, Status.ADDED)

        # A file object can be read only once.
        return retry_if_removed(copy) if isinstance(source, str | os.PathLike) else copy()

    def metadata(self, op: Operation, request: ResolvedRequest, expected: Mapping[str, str]) -> bytes:
        """Return the METADATA of a wheel: see ``Cache.metadata``."""
        fs = RobustIO(op)
        metadata = Metadata(self._store.layout, self._store.trust, writable=not self._store.read_only)
        wheel = self._store.find(fs, request)
        if wheel is None:
            kept = metadata.read_kept(fs, request, expected)
            if kept is not None:
                return kept
            self._require_network(request)
            try:
                if not request.url.startswith("file:"):
                    return metadata.fetch(fs, self._http, request, expected)
            except NoRangesError:
                pass  # without range requests, the whole wheel is downloaded
            wheel = self.fetch(op, request)
        return metadata.read_from_wheel(fs, str(wheel.path), request, expected)

    def _temporary(self, fs: RobustIO) -> str:
        return self._store.layout.new_temporary(fs.temporary_tag(), fs.system.pid_namespace())

    def _require_network(self, request: ResolvedRequest) -> None:
        if self._offline and not request.url.startswith("file:"):
            raise OfflineError(
                f"{request.filename} is not in the cache",
                operation="fetch",
                url=request.display_url,
                path=self._store.layout.root,
                advice="Fetch the wheel once without offline=True, or add the file with Cache.put().",
            )


def retry_if_removed(add: Callable[[], CachedWheel]) -> CachedWheel:
    """Call a function that adds a wheel. Call it again if the file was removed before it became an entry."""
    for _ in range(_COMMIT_ATTEMPTS - 1):
        try:
            return add()
        except CommitError as error:
            if error.cause is not Cause.REMOVED:
                raise
    return add()
