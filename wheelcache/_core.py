"""The parts of an open cache.

:class:`~wheelcache.Cache` checks arguments and delegates to these parts. ``AsyncCache``, ``CacheTransport`` and
``TreeSource`` get them from :func:`wheelcache._cache.core_of`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ._fs.link import LinkStrategy
from ._fs.robustio import RobustIO
from ._http.client import Client, HttpClient
from ._imports import third_party_import_lock
from ._maintenance.size_limit import SizeLimit
from ._models import CachedWheel, Keep, LinkMode, Phase, Progress
from ._operation import CURRENT_TOKEN, Operation
from ._options import DownloadLimits, PruneLimits, Verify
from ._os.system import System
from ._request import ResolvedRequest
from ._store import create
from ._store.counters import Counters
from ._store.layers import LayeredStore
from ._store.layout import Layout
from ._store.lookup import Entry
from ._store.single_flight import SingleFlight
from ._store.trust.policy import TrustPolicy
from ._unpack.export import WheelLinker
from ._unpack.link_tree import TreeLinker
from ._unpack.unpacker import Unpacker

if TYPE_CHECKING:
    from pathlib import Path

    from ._fetch.batch import BatchItem
    from ._fetch.fetcher import Fetcher
    from ._http.adapters.interface import AdaptedClient
    from ._maintenance.prune import Pruner
    from ._maintenance.select import HashFinder
    from ._reports import DoctorReport, PruneReport, Stats, VerifyReport


_DEFAULT_LIMITS = DownloadLimits()


class Core:
    """The parts of one open cache.

    Args:
        system: the operating system.
        root: the absolute path of the cache folder.
        layers: the absolute paths of the layers.

    The other arguments are those of :class:`~wheelcache.Cache`.
    """

    def __init__(
        self,
        system: System,
        root: str,
        layers: Iterable[str],
        *,
        client: Client | AdaptedClient | None,
        offline: bool,
        read_only: bool,
        verify: Verify,
        max_size: int | None,
        io_timeout: float,
        lock_timeout: float,
        limits: DownloadLimits | None,
    ) -> None:
        self.system = system
        self.layout = Layout(root)
        self.offline = offline
        self.io_timeout = io_timeout
        self.limits = limits or _DEFAULT_LIMITS
        self._process = os.getpid()
        self._is_closed = False
        self._fetcher: Fetcher | None = None
        self.http = HttpClient(client, system.interrupt_read, self.limits)
        below = [Layout(layer) for layer in layers]
        self._open(below, read_only=read_only)
        self.never_hardlink_from = [self.layout, *below] if read_only else below
        self.counters = Counters(self.layout, writable=not read_only)
        self._size_limit = SizeLimit(self.layout, self.counters, max_size)
        self.single_flight = SingleFlight(self.layout, lock_timeout)
        self._strategy = LinkStrategy(self.never_hardlink_from)
        self._layouts = [self.layout, *below]
        self._trust = [TrustPolicy(layout, verify) for layout in self._layouts]
        self._unpacker: Unpacker | None = None
        self.store = LayeredStore(
            self.layout,
            below,
            read_only=read_only,
            offline=offline,
            trust=self._trust,
            strategy=self._strategy,
            counters=self.counters,
            on_growth=self._size_limit.on_growth,
        )
        self.exporter = WheelLinker(self._strategy, self._is_shared)

    def _is_shared(self, fs: RobustIO) -> bool:
        return self.unpacker.is_shared(fs)

    def _open(self, layers: list[Layout], *, read_only: bool) -> None:
        """Create a missing cache folder, and raise ReadOnlyError if a read-only folder is missing."""
        with self.begin() as op:
            fs = RobustIO(op)
            for layout in [self.layout, *layers] if read_only else layers:
                create.require_folder(fs, layout.root)
            self.system = self.system.with_files(create.confined_files(fs, self.layout, layers))
            op.system = self.system  # the same operation continues, because a second one would only take time
            if not read_only:
                create.prepare(RobustIO(op), self.layout)

    def require_open(self) -> None:
        """Raise ValueError if the cache is closed."""
        if self._is_closed:
            raise self._closed_error()

    def _closed_error(self) -> ValueError:
        return ValueError(f"the cache {self.layout.root} is closed")

    def begin(self, wheel: str = "", progress: Progress | None = None) -> Operation:
        """Begin the operation of a public call, and return it.

        Raises:
            ValueError: if the cache is closed.
        """
        if self._is_closed:
            raise self._closed_error()
        if self._process != os.getpid():
            self._after_fork()
        token = CURRENT_TOKEN.get()
        tokens = (self.http.closing,) if token is None else (self.http.closing, token)
        return Operation(self.system, io_timeout=self.io_timeout, tokens=tokens, wheel=wheel, progress=progress)

    def fetch(self, op: Operation, request: ResolvedRequest, *, refresh: bool = False) -> CachedWheel:
        """Return a requested wheel from the store, or fetch it."""
        wheel = self.store.find(RobustIO(op), request, refresh=refresh)
        if wheel is None:
            wheel = self.fetcher().fetch(op, request, refresh=refresh)
        op.report(Phase.DONE, done=wheel.size, total=wheel.size)
        return wheel

    def fetch_item(self, op: Operation, item: BatchItem) -> CachedWheel:
        """Return the wheel of one item of a batch. Each item has its own retry budget."""
        own = op.waiting_at_most(self.io_timeout).about(item.resolved.filename).with_progress(item.progress)
        try:
            return self.fetch(own, item.resolved)
        finally:
            self.system.files.close_folders()

    def fetcher(self) -> Fetcher:
        """Return the fetcher. Its module is imported on the first miss, since a hit does not need it."""
        if self._fetcher is None:
            with third_party_import_lock:
                from ._fetch.fetcher import Fetcher

            self._fetcher = Fetcher(
                self.store, self.http, self.single_flight, self.counters, offline=self.offline, limits=self.limits
            )
        return self._fetcher

    @property
    def unpacker(self) -> Unpacker:
        """The unpacked wheels.

        The object is created at its first use, since a hit does not need it. It refers to this core. Without it, the
        core is freed at once and does not wait for the garbage collector.
        """
        if self._unpacker is None:
            self._unpacker = Unpacker(
                self._layouts,
                TreeLinker(self._strategy),
                writable=not self.store.read_only,
                trust=self._trust,
                find_wheel=self._find_entry,
                turn=self.single_flight.turn,
                on_growth=self._size_limit.on_growth,
            )
        return self._unpacker

    def export(
        self,
        op: Operation,
        wheels: Iterable[CachedWheel],
        dest: str | os.PathLike[str],
        mode: LinkMode,
        *,
        require_all: bool,
    ) -> list[Path]:
        """Link or copy wheels to one folder. See ``Cache.export``."""
        with third_party_import_lock:
            from ._unpack import export

        return export.export(RobustIO(op), self.exporter, wheels, dest, mode, require_all=require_all)

    # The methods below import their modules locally, because most processes never call these methods.

    def stats(self, op: Operation) -> Stats:
        """Return the size of the cache. See ``Cache.stats``."""
        with third_party_import_lock:
            from ._maintenance import stats

        fs = RobustIO(op)
        return stats.collect_stats(fs, self.layout, self.counters.read(fs))

    def prune(
        self, op: Operation, limits: PruneLimits, keep: Keep | Iterable[Keep] | None, *, dry_run: bool
    ) -> PruneReport:
        """Remove old wheels and leftovers. See ``Cache.prune``."""
        with third_party_import_lock:
            from ._maintenance import select

        fs = RobustIO(op)
        kept = select.select_kept(fs, self.layout, self._hash_finder(fs), keep)
        if not dry_run:
            self.store.require_writable("prune")
        return self._pruner().prune(fs, limits._replace(keep=kept), dry_run=dry_run)

    def remove(self, op: Operation, names: Iterable[str | CachedWheel], *, dry_run: bool) -> PruneReport:
        """Remove wheels by name. See ``Cache.remove``."""
        with third_party_import_lock:
            from ._maintenance import select

        if not dry_run:
            self.store.require_writable("remove")
        fs = RobustIO(op)
        chosen = select.select_named(fs.without_waiting(), self.layout, self._hash_finder(fs), names)
        return self._pruner().remove(fs, chosen, dry_run=dry_run)

    def clear(self, op: Operation, *, dry_run: bool) -> PruneReport:
        """Remove everything. See ``Cache.clear``."""
        if not dry_run:
            self.store.require_writable("clear")
        return self._pruner().clear(RobustIO(op), dry_run=dry_run)

    def _pruner(self) -> Pruner:
        with third_party_import_lock:
            from ._maintenance.prune import Pruner

        return Pruner(self.layout, self.counters)

    def _hash_finder(self, fs: RobustIO) -> HashFinder:
        """Return the functions that find trusted hashes of wheels in this cache."""
        with third_party_import_lock:
            from ._maintenance.select import HashFinder

        quick = fs.without_waiting()
        return HashFinder(
            lambda key: self.store.find_digest(quick, key),
            lambda sha256, algorithms: self.store.find_hashes(quick, sha256, algorithms),
        )

    def verify(self, op: Operation, *, repair: bool) -> VerifyReport:
        """Hash every file in the cache. See ``Cache.verify``."""
        with third_party_import_lock:
            from ._maintenance.verify import Verifier

        if repair:
            self.store.require_writable("verify")
        return Verifier(self.layout, repair=repair).verify(RobustIO(op))

    def doctor(self, op: Operation) -> DoctorReport:
        """Test the operations of the cache in its folder. See ``Cache.doctor``."""
        with third_party_import_lock:
            from ._maintenance.doctor import examine

        return examine(op, self.layout, self.http, writable=not self.store.read_only)

    def close(self) -> None:
        """Cancel the running operations, close the connections, and write the counters. A second call does nothing."""
        if not self._is_closed:
            with self.begin() as op:
                self._is_closed = True
                self.http.close(self.system.sleep)
                self.counters.write(RobustIO(op))

    def _find_entry(self, fs: RobustIO, wheel: CachedWheel) -> Entry | None:
        return self.store.find_entry(fs, wheel.digest.removeprefix("sha256:"), wheel.filename)

    def _after_fork(self) -> None:
        """Replace the locks and connections. They belong to the threads of the parent process."""
        self._process = os.getpid()
        self.single_flight.after_fork()
        self.counters.after_fork()
        self._size_limit.after_fork()
        self.http.after_fork()
