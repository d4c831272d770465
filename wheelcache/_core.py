"""The parts of an open cache, put together.

:class:`~wheelcache.Cache` checks arguments and delegates to these parts. The other entrances to the library
(``AsyncCache``, ``CacheTransport``, ``TreeSource``) reach them through :func:`wheelcache._cache.core_of`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ._fs.link import LinkStrategy
from ._fs.robustio import RobustIO
from ._http.client import HttpClient
from ._imports import import_lock
from ._maintenance.size_limit import SizeLimit
from ._models import CachedWheel, Phase, Progress
from ._operation import CURRENT_TOKEN, Operation
from ._os.system import System
from ._request import ResolvedRequest
from ._store import create
from ._store.counters import Counters
from ._store.layers import LayeredStore
from ._store.layout import Layout
from ._store.lookup import Entry
from ._store.single_flight import SingleFlight
from ._unpack.export import WheelLinker
from ._unpack.link_tree import TreeLinker
from ._unpack.unpacker import Unpacker

if TYPE_CHECKING:
    import httpx

    from ._fetch.batch import BatchItem
    from ._fetch.fetcher import Fetcher


class Core:
    """The parts of one open cache.

    Args:
        system: the machine.
        root: the absolute path of the cache folder.
        layers: the absolute paths of the layers.

    The others are those of :class:`~wheelcache.Cache`.
    """

    def __init__(
        self,
        system: System,
        root: str,
        layers: Iterable[str],
        *,
        client: httpx.Client | None,
        offline: bool,
        read_only: bool,
        verify_full: bool,
        max_size: int | None,
        io_timeout: float,
        lock_timeout: float,
    ) -> None:
        self.system = system
        self.layout = Layout(root)
        self.offline = offline
        self.io_timeout = io_timeout
        self._process = os.getpid()
        self._is_closed = False
        self._fetcher: Fetcher | None = None
        self.http = HttpClient(client, system.interrupt_read)
        below = [Layout(layer) for layer in layers]
        self._open(below, read_only=read_only)
        self.never_hardlink_from = [self.layout, *below] if read_only else below
        self.counters = Counters(self.layout, writable=not read_only)
        self._size_limit = SizeLimit(self.layout, self.counters, max_size)
        self.single_flight = SingleFlight(self.layout, lock_timeout)
        strategy = LinkStrategy(self.never_hardlink_from)
        self.store = LayeredStore(
            self.layout,
            below,
            read_only=read_only,
            offline=offline,
            verify_full=verify_full,
            strategy=strategy,
            counters=self.counters,
            on_growth=self._size_limit.on_growth,
        )
        self.exporter = WheelLinker(strategy)
        self.unpacker = Unpacker(
            [self.layout, *below],
            TreeLinker(strategy),
            writable=not read_only,
            full=verify_full,
            find_wheel=self._find_entry,
            turn=self.single_flight.turn,
            on_growth=self._size_limit.on_growth,
        )

    def _open(self, layers: list[Layout], *, read_only: bool) -> None:
        """Create the cache folder if it is missing; raise if a folder that is only read is missing."""
        fs = RobustIO(self.begin())
        for layout in [self.layout, *layers] if read_only else layers:
            create.require_folder(fs, layout.root)
        if not read_only:
            self.system = replace(self.system, files=create.with_modes_of(fs, self.layout))
            create.prepare(RobustIO(self.begin()), self.layout)

    def begin(self, wheel: str = "", progress: Progress | None = None) -> Operation:
        """Return the operation of a public call that begins now.

        Raises:
            ValueError: if the cache is closed.
        """
        if self._is_closed:
            raise ValueError(f"the cache {self.layout.root} is closed")
        if self._process != os.getpid():
            self._after_fork()
        token = CURRENT_TOKEN.get()
        tokens = (self.http.closing,) if token is None else (self.http.closing, token)
        return Operation(self.system, io_timeout=self.io_timeout, tokens=tokens, wheel=wheel, progress=progress)

    def fetch(self, op: Operation, request: ResolvedRequest, *, refresh: bool = False) -> CachedWheel:
        """Return a requested wheel: from the store, else through the pipeline."""
        wheel = self.store.find(RobustIO(op), request, refresh=refresh)
        if wheel is None:
            wheel = self.fetcher().fetch(op, request, refresh=refresh)
        op.report(Phase.DONE, done=wheel.size, total=wheel.size)
        return wheel

    def fetch_item(self, op: Operation, item: BatchItem) -> CachedWheel:
        """Return the wheel of one request of many. Each has a retry budget of its own."""
        own = op.waiting_at_most(self.io_timeout).about(item.resolved.filename).with_progress(item.progress)
        return self.fetch(own, item.resolved)

    def fetcher(self) -> Fetcher:
        """Return the pipeline, which is imported on the first miss: a hit does not need it."""
        if self._fetcher is None:
            with import_lock:
                from ._fetch.fetcher import Fetcher

            self._fetcher = Fetcher(self.store, self.http, self.single_flight, self.counters, offline=self.offline)
        return self._fetcher

    def close(self) -> None:
        """Cancel what runs, write the counters, and close the connections; a second time nothing happens."""
        if not self._is_closed:
            fs = RobustIO(self.begin().without_waiting().for_cleanup())
            self._is_closed = True
            self.http.close(self.system.sleep)
            self.counters.write(fs)

    def _find_entry(self, fs: RobustIO, wheel: CachedWheel) -> Entry | None:
        return self.store.find_entry(fs, wheel.digest.removeprefix("sha256:"), wheel.filename)

    def _after_fork(self) -> None:
        """Leave to the parent what is the parent's: the locks of its threads, and its connections."""
        self._process = os.getpid()
        self.single_flight.after_fork()
        self.counters.after_fork()
        self._size_limit.after_fork()
        self.http.after_fork()
