"""The façade: a cache folder and its operations. ``fetch`` reads as the way a wheel takes; nothing here does I/O.

What a hit does not need is imported when it is called for: a download, what keeps a cache. The start of a process
counts.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal

from . import _hashes, _options
from ._archive.dist_info import check_project
from ._exceptions import (
    Cause,
    CommitError,
    HashMismatchError,
    OfflineError,
    ReadOnlyError,
    SizeMismatchError,
    WheelCacheError,
)
from ._filenames import check_filename, check_wheel_name
from ._fs.link import LinkStrategy
from ._fs.robustio import RobustIO
from ._fs.tempnames import OwnerTag
from ._hashes import Hashes
from ._http.client import HttpClient, leave_connections
from ._maintenance.size_limit import SizeLimit
from ._models import CachedWheel, Keep, LinkMode, Phase, Progress, Status, Unpacked, require_wheel
from ._operation import CURRENT_TOKEN, Operation
from ._options import PruneLimits
from ._os.system import System
from ._request import ResolvedRequest, parse_request
from ._store import create
from ._store.commit import Commit
from ._store.counters import Counters
from ._store.index import Pointers, UrlEntry, Urls
from ._store.layout import Layout
from ._store.lookup import Entry, Lookup
from ._store.single_flight import SingleFlight
from ._threads import one_at_a_time
from ._unpack.export import WheelLinker
from ._unpack.link_tree import TreeLinker
from ._unpack.trees import TreeEntry
from ._unpack.unpacker import Unpacker

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Self

    import httpx

    from ._fetch.batch import Request
    from ._fetch.passthrough import Passthrough
    from ._reports import DoctorReport, PruneReport, Stats, VerifyReport
    from ._store.staging import StagedFile


# How often a file that security software takes away between writing and committing is downloaded: it may have been an
# accident once, and it is said the second time.
_COMMIT_TRIES = 2
# How often a tree that is pruned between making and using it is made.
_TREE_TRIES = 3
# By these, the files of a wheel can go out although there is no tree and none may be made.
_WITHOUT_TREE = {LinkMode.AUTO, LinkMode.COPY}


class Cache:
    """A cache of wheels in one folder.

    Any number of ``Cache`` objects, in any number of threads, processes and machines, may use one folder at once, and
    one object may be used from many threads and after a fork. Nothing is left running or locked when it is closed.

    Args:
        path: the cache folder; ``None`` for that of ``WHEELCACHE_DIR`` in the environment, else the user's cache
            folder of this platform. A relative path is made absolute now, and links in it are not resolved. The folder
            is made where it is missing.
        client: the :class:`httpx.Client` to download with. It is used as it is, with its authentication, proxies and
            transport, and never closed. Without one, the cache makes one of its own at the first download, which
            follows the proxies, the netrc file and the certificate settings of the environment. With one of yours,
            Ctrl-C and :meth:`close` end what waits for a server at once only on connections that the cache made over
            HTTP/1.1; else when its read time-out is over, so give it one.
        layers: folders of further caches to look into, in this order, when a wheel is not in this one: baked into an
            image, or on a share. They are never written to, not even for a lock or a time stamp.
        offline: never use the network; what is not there is :class:`OfflineError`. It asks for stale answers, too:
            what a URL gave is taken although it no longer holds, unless the server forbade that (``must-revalidate``,
            ``no-cache``). A network that is down is no reason to: then there is an error.
        read_only: never write to the cache folder; it must exist.
        verify: ``"auto"`` hashes a wheel again where it could have changed since it was hashed last (after a reboot,
            when it was restored from an archive or touched); ``"full"`` hashes it on every hit.
        max_size: bytes of wheels and trees to keep to. When a new wheel makes it more, those that were used least
            recently go, down to nine tenths of it; the new one stays. Give more than what is needed at a time: paths of
            wheels that go lead nowhere. ``None`` for no limit.
        io_timeout: seconds that the refused file operations of one call may wait in all for whoever holds the files.
        lock_timeout: seconds to bear with another process that downloads the same wheel and makes no progress.

    Raises:
        CommitError: where the folder cannot be made.
        ReadOnlyError: where ``read_only`` or a layer names a folder that does not exist.
        ValueError, TypeError: for an option that cannot be.

    Example::

        with Cache() as cache:
            wheel = cache.fetch(url, hashes={"sha256": digest})
            subprocess.run([sys.executable, "-m", "pip", "install", wheel.path])
    """

    # Of the class, for tests to lend another; an object has its own once it knows its folder.
    _system: System = System()

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        client: httpx.Client | None = None,
        layers: Iterable[str | os.PathLike[str]] = (),
        offline: bool = False,
        read_only: bool = False,
        verify: Literal["auto", "full"] = "auto",
        max_size: int | None = None,
        io_timeout: float = 60.0,
        lock_timeout: float = 60.0,
    ) -> None:
        _options.check_options(layers=layers, verify=verify, io_timeout=io_timeout, lock_timeout=lock_timeout)
        _options.check_client(client, awaited=False)
        self._max_size = _options.check_size("max_size", max_size)
        self.path: Path = Path(_options.cache_folder(path))
        self._closed = False
        self._process = os.getpid()
        self._offline = offline
        self._read_only = read_only
        self._io_timeout = float(io_timeout)
        self._client = client
        self._wire = HttpClient(client, self._system.interrupt_read)
        self._layout = Layout(str(self.path))
        below = [Layout(os.path.abspath(os.fspath(layer))) for layer in layers]
        fs = RobustIO(self._begin())
        for existing in [self._layout, *below] if read_only else below:
            create.require_folder(fs, existing.root)
        if not read_only:
            self._system = replace(self._system, files=create.with_modes_of(fs, self._layout))
            create.prepare(RobustIO(self._begin()), self._layout)
        full = verify == "full"
        self._lookup = Lookup(self._layout, writable=not read_only, full=full)
        self._layers = [Lookup(layer, writable=False, full=full) for layer in below]
        self._pointers = [Pointers(layout) for layout in (self._layout, *below)]
        self._urls = [Urls(pointers) for pointers in self._pointers]
        self._never_hardlink_from = [self._layout, *below] if read_only else below
        strategy = LinkStrategy(self._never_hardlink_from)
        self._commit = Commit(self._layout, strategy)
        self._deliver = WheelLinker(strategy)
        self._count()
        self._unpack = Unpacker([self._layout, *below], TreeLinker(strategy), writable=not read_only, full=full)
        self._flights = SingleFlight(self._layout, float(lock_timeout))
        self._lock_timeout = float(lock_timeout)

    # In

    def fetch(
        self,
        url: str,
        *,
        hashes: Hashes | None = None,
        size: int | None = None,
        filename: str | None = None,
        mirrors: Iterable[str] = (),
        refresh: bool = False,
        progress: Progress | None = None,
    ) -> CachedWheel:
        """Return a wheel: from the cache if it is there, else from its URL.

        With a strong hash (sha256 or better) the URL is only a place to get the bytes: a hit needs no network, wherever
        the wheel came from. Without one, what the URL gave before is taken for as long as the server said that it
        holds (RFC 9111), then the server is asked whether it still does. A wheel becomes an entry whole or not at all.

        A download that was cut goes on where it was, in this run, in the next one, and in that of another process.

        Args:
            url: an ``https:``, ``http:`` or ``file:`` URL. A ``#sha256=<hex>`` fragment counts as a hash; credentials
                in it go to its origin only, and into no error, log line, record or file name of wheelcache's.
            hashes: ``"sha256:<hex>"``, ``"sha256=<hex>"``, ``{"sha256": hex}``, or several of the strings. The bytes
                must have every one, and at least one must be strong.
            size: the bytes that it must measure.
            filename: the wheel's file name, where the URL does not end in it.
            mirrors: URLs of the same file elsewhere, asked in this order when the ones before bring nothing. Under a
                hash, what one has brought is gone on with at the next.
            refresh: without a hash, ask the server even though its last answer still holds. With one it means nothing:
                the bytes cannot change.
            progress: called with a :class:`ProgressEvent` now and then; what it raises stops this fetch cleanly.

        Raises:
            ValueError: for a URL, hash or size that cannot be one.
            InvalidWheelError: for a file name that is not a wheel's, or bytes that are no wheel where no hash is given.
            HashMismatchError, SizeMismatchError: where the bytes are not what was asked for.
            DownloadError: where they cannot be had.
            OfflineError, ReadOnlyError: where the wheel is not there and may not be fetched.
            CommitError: where the file system refuses.
        """
        wanted = parse_request(url, hashes, size, filename, mirrors)
        with self._begin(wanted.filename, progress) as op:
            fs = RobustIO(op)
            wheel = self._find(fs, wanted, refresh=refresh) or self._get_in(fs, wanted, refresh=refresh)
            op.report(Phase.DONE, wheel.size, wheel.size)
            return wheel

    def fetch_all(
        self, requests: Iterable[Request], *, jobs: int | None = None, progress: Progress | None = None
    ) -> list[CachedWheel]:
        """Fetch many wheels at a time, and return them in the order of the requests.

        The largest come first where sizes are known. All use one pool of connections, and the memory that is needed
        does not grow with the wheels. Ctrl-C stops all of them, and what was begun can be gone on with.

        Args:
            requests: each a URL, a :class:`WheelRequest`, or anything with the attributes ``url`` and ``hashes``, and
                maybe ``size`` and ``filename``: a ``packaging.pylock.PackageWheel`` works as it is.
            jobs: how many are fetched at a time; ``None`` for 8.
            progress: as for :meth:`fetch`, called by one thread at a time.

        Raises:
            TypeError, ValueError, InvalidWheelError: for a request that cannot be one, before any is made.
            ExceptionGroup: of the errors of :meth:`fetch`, when all others are there.

        Example::

            # A wheel that a lock file names by its path, and not by a URL, goes in by put.
            lock = packaging.pylock.Pylock.from_dict(tomllib.loads(text))
            wheels = cache.fetch_all(wheel for package in lock.packages for wheel in package.wheels or ())
        """
        from ._fetch.batch import Plan, fetch_in_threads

        plan = Plan(requests, jobs)
        self._begin()
        listener = one_at_a_time(progress)
        fetch_in_threads(
            plan,
            lambda one: self.fetch(one.url, hashes=one.hashes, size=one.size, filename=one.filename, progress=listener),
        )
        return plan.result()

    def _get_in(self, fs: RobustIO, wanted: ResolvedRequest, *, refresh: bool = False) -> CachedWheel:
        """Download a wheel that is not there, unless another thread or process has just done so."""
        self._may_get_in(wanted)
        check_wheel_name(wanted.filename, operation="fetch", url=wanted.shown)
        with self._flights.turn(fs, wanted.key, lambda: self._has_come(fs, wanted)):
            wheel = self._find(fs, wanted, refresh=refresh, adopt=True)
            if wheel is not None:
                return wheel
            known = None if wanted.hashes else self._urls[0].read(fs, wanted.url)
            self._tally.miss()
            return _again_if_removed(lambda: self._download(fs, wanted, known, refresh=refresh))

    def _download(self, fs: RobustIO, wanted: ResolvedRequest, known: UrlEntry | None, *, refresh: bool) -> CachedWheel:
        from ._fetch.download import Conditions, Downloader
        from ._fetch.partial import PartialDownloads

        if wanted.url.startswith("file:"):
            return self._copy(fs, wanted)
        there = known and self._lookup.find(fs, known.sha256, wanted.filename)
        conditions = Conditions(known.conditions(refresh=refresh), known.place) if known and there else None
        with PartialDownloads(self._layout).begin(fs, wanted) as partial:
            answer = Downloader(self._wire).fill(partial, wanted, fs, conditions)
            if not answer.modified:
                named = there and self._under_its_name(fs, there, wanted.filename)
                if named is None:
                    raise CommitError(
                        "the wheel was pruned while the server was asked for it",
                        cause=Cause.REMOVED,
                        operation="revalidate",
                        path=self.path,
                        url=wanted.shown,
                        advice="Fetch it again.",
                    )
                wheel = _wheel(named, Status.REVALIDATED)
            else:
                status = Status.RESUMED if partial.resumed else Status.DOWNLOADED
                wheel = self._add(fs, partial.stage, wanted.filename, wanted.shown, status)
        if not wanted.hashes:
            self._urls[0].write(fs, wanted.url, wheel.hashes["sha256"], answer, known)
        return wheel

    def _copy(self, fs: RobustIO, wanted: ResolvedRequest) -> CachedWheel:
        from ._fetch import local
        from ._store.staging import StagedFile

        temporary = self._temporary()
        with StagedFile(fs, temporary, expected=wanted.hashes, size=wanted.size, shown=wanted.shown) as stage:
            local.fill(stage, wanted, fs)
            # A record holds no path of this machine: the cache may be used on another one.
            return self._add(fs, stage, wanted.filename, None, Status.ADDED)

    def put(
        self, source: str | os.PathLike[str] | BinaryIO, *, filename: str | None = None, hashes: Hashes | None = None
    ) -> CachedWheel:
        """Copy a wheel in from a local file, which stays as it is. It becomes an entry whole or not at all.

        Args:
            source: a path, or a file open for reading in binary, which is read from where it stands to its end.
            filename: the wheel's file name, where ``source`` is not a path that ends in it.
            hashes: as for :meth:`fetch`.

        Raises:
            FileNotFoundError: where there is no such file; other reasons why it cannot be read come as they are.
            InvalidWheelError: where the file name is not a wheel's, or the bytes are none and no hash is given.
            HashMismatchError: where the bytes are not what was asked for.
            ReadOnlyError: where the cache is read-only.
            CommitError: where the file system refuses.
        """
        from ._fetch import local
        from ._store.staging import StagedFile

        expected = _hashes.parse_hashes(hashes)
        _hashes.require_strong(expected)
        if filename is None:
            filename = os.path.basename(os.fspath(source)) if isinstance(source, str | os.PathLike) else ""
        check_filename(filename, operation="put")
        check_wheel_name(filename, operation="put")
        self._writable("put")

        def copy() -> CachedWheel:
            temporary, origin = self._temporary(), local.path_of(source)
            with (
                local.opened(source) as (file, total),
                StagedFile(fs, temporary, expected=expected, source=origin) as stage,
            ):
                local.copy_in(stage, file, fs, total)
                return self._add(fs, stage, filename, None, Status.ADDED)

        with self._begin(filename) as op:
            fs = RobustIO(op)
            # An open file is read once.
            return _again_if_removed(copy) if isinstance(source, str | os.PathLike) else copy()

    def metadata(self, url: str, *, hashes: Hashes | None = None, metadata_hashes: Hashes | None = None) -> bytes:
        """Return the METADATA of a wheel, if possible without downloading the wheel.

        It comes from the wheel where that is in the cache; else from the index's ``.metadata`` file beside it
        (PEP 658), else from the wheel's end by range requests, else from the whole wheel, which is in the cache
        afterwards. What came under a strong hash is kept; it is checked against ``metadata_hashes``, while ``hashes``
        can be checked only when the whole wheel is here.

        Args:
            url: the wheel's, as for :meth:`fetch`.
            hashes: the wheel's.
            metadata_hashes: those that the index tells of the ``.metadata`` file.

        Raises:
            ValueError, InvalidWheelError: for what cannot be a wheel's URL or hash, or a file that is no wheel.
            HashMismatchError: where the metadata is not what the index tells of, wherever it comes from.
            DownloadError, OfflineError: where it cannot be had.
        """
        from ._fetch.metadata import Metadata, NoRangesError

        metadata = Metadata(self._layout, writable=not self._read_only)
        wanted = parse_request(url, hashes, None, None)
        expected = _hashes.parse_hashes(metadata_hashes)
        _hashes.require_strong(expected)
        with self._begin(wanted.filename) as op:
            fs = RobustIO(op)
            wheel = self._find(fs, wanted)
            if wheel is None:
                kept = metadata.kept(fs, wanted, expected)
                if kept is not None:
                    return kept
                self._may_ask(wanted)
                try:
                    if not wanted.url.startswith("file:"):
                        return metadata.fetch(fs, self._wire, wanted, expected)
                except NoRangesError:
                    pass  # then the whole wheel has to come
                wheel = self._get_in(fs, wanted)
            return metadata.of_wheel(fs, str(wheel.path), wanted, expected)

    def _add(self, fs: RobustIO, stage: StagedFile, filename: str, url: str | None, status: Status) -> CachedWheel:
        """Make a finished stage an entry."""
        sealed = stage.seal()
        found = self._commit.add(fs, sealed, filename, url)
        stage.moved()
        repaired = self._lookup.remember(found)
        for name, value in sealed.hashes.items():
            if name != "sha256" and _hashes.is_strong(name):
                self._pointers[0].write(fs, f"{name}:{value}", found.record.sha256)
        self._grown(fs, found.record.size if found.is_new else 0, found.record.sha256)
        return _wheel(found, Status.REPAIRED if repaired else status)

    # Look

    def get(self, digest: str, *, filename: str | None = None) -> CachedWheel | None:
        """Return the wheel of a digest if it is in the cache or a layer, else ``None``. Never uses the network.

        Args:
            digest: ``"sha256:<hex>"``, or another strong hash.
            filename: the file name that its path is to end in; without, that of any of its entries. A cache that is
                read-only has no other names than those under which the wheel came.

        Raises:
            ValueError: where the digest is not a strong hash.
        """
        name, value = _hashes.parse_hash(digest)
        _hashes.require_strong({name: value})
        if filename is not None:
            check_filename(filename, operation="get")
        with self._begin(filename or "") as op:
            found = self._look_up(RobustIO(op), {name: value}, filename)
            return None if found is None else _wheel(*found)

    def __contains__(self, digest: str) -> bool:
        """Whether :meth:`get` would return a wheel."""
        return self.get(digest) is not None

    def _find(
        self, fs: RobustIO, wanted: ResolvedRequest, *, refresh: bool = False, adopt: bool = False
    ) -> CachedWheel | None:
        """Return the wheel that is wanted, if it is there."""
        if wanted.hashes:
            found = self._look_up(fs, wanted.hashes, wanted.filename, adopt=adopt)
        else:
            found = None if refresh else self._look_up_url(fs, wanted)
        if found is None:
            return None
        entry, status = found
        known = entry.record.all_hashes()
        if any(known.get(name, value) != value for name, value in wanted.hashes.items()):
            raise HashMismatchError(
                "the cached wheel has one of the hashes asked for, and not the others",
                operation="look up",
                path=entry.path,
                expected=wanted.hashes,
                actual=known,
                advice="The hashes that were given belong to different files: check them.",
            )
        if wanted.size not in {None, entry.record.size}:
            raise SizeMismatchError(
                "the cached wheel has the hash asked for, and not the size",
                operation="look up",
                path=entry.path,
                expected=wanted.size or 0,
                actual=entry.record.size,
                advice="The hash and the size that were given belong to different files: check them.",
            )
        wheel = _wheel(entry, status)
        self._tally.hit(wheel.size)
        return wheel

    def _has_come(self, fs: RobustIO, wanted: ResolvedRequest) -> bool:
        """Whether a wheel that is waited for is there."""
        try:
            return self._look_up(fs.without_waiting(), wanted.hashes, wanted.filename) is not None
        except WheelCacheError:
            return False  # it is looked at again, with patience, when it is this caller's turn

    def _look_up(
        self, fs: RobustIO, hashes: Mapping[str, str], filename: str | None, *, adopt: bool = False
    ) -> tuple[Entry, Status] | None:
        """Look into this cache, then into its layers."""
        key = _hashes.naming_hash(hashes)
        if key is None:
            return None
        for number, lookup in enumerate([self._lookup, *self._layers]):
            sha256 = hashes.get("sha256") or self._pointers[number].read(fs, key)
            found = sha256 and lookup.find(fs, sha256, filename, tuple(hashes), adopt=adopt and number == 0)
            if found and found.is_new:
                self._grown(fs, found.record.size, found.record.sha256)
            # A pointer that strayed under another name leads to a wheel without this hash: that is a miss.
            if found and key in {f"{name}:{value}" for name, value in found.record.all_hashes().items()}:
                named = self._under_its_name(fs, found, filename)
                return None if named is None else (named, Status.LAYER if number else Status.HIT)
        return None

    def _look_up_url(self, fs: RobustIO, wanted: ResolvedRequest) -> tuple[Entry, Status] | None:
        """Look for what this URL gave, where the server said that it still holds."""
        for number, lookup in enumerate([self._lookup, *self._layers]):
            known = self._urls[number].read(fs, wanted.url)
            if known is not None and known.holds(self._system.now(), offline=self._offline):
                found = lookup.find(fs, known.sha256, wanted.filename)
                found = found and self._under_its_name(fs, found, wanted.filename)
                if found is not None:
                    return found, Status.LAYER if number else Status.HIT
        return None

    def _under_its_name(self, fs: RobustIO, found: Entry, filename: str | None) -> Entry | None:
        """Return the same bytes under the file name that was asked for: two names of one digest are two entries.

        ``None`` where they were pruned meanwhile.
        """
        if filename is None or filename.lower() == found.record.filename.lower() or self._read_only:
            return found
        check_wheel_name(filename, operation="look up")
        try:
            found = self._commit.alias(fs, found, filename)
        except CommitError as error:
            if error.cause is not Cause.REMOVED:
                raise
            return None
        self._lookup.remember(found)
        if found.is_new:
            self._grown(fs, found.record.size, found.record.sha256)
        return found

    def entries(self) -> Iterator[CachedWheel]:
        """Yield every wheel of this cache, layers not included, in no order that means anything.

        A damaged one is never yielded. Wheels that come or go meanwhile may be yielded or not.
        """
        with self._begin() as op:
            fs = RobustIO(op)
            for record in self._lookup.records(fs):
                found = self._lookup.find(fs, record.sha256, record.filename, use=False)
                if found is not None and found.record.filename == record.filename:
                    yield _wheel(found, Status.HIT)

    def stats(self) -> Stats:
        """Return what this cache holds, layers not included, and what it has been good for. Walks the whole cache."""
        from ._maintenance import stats

        with self._begin() as op:
            fs = RobustIO(op)
            return stats.survey(fs, self._layout, self._tally.read(fs))

    # Out

    def link(
        self, wheel: CachedWheel, dest: str | os.PathLike[str], *, mode: LinkMode | str = LinkMode.AUTO
    ) -> LinkMode:
        """Put a wheel where the caller wants it, and return how: by clone, hard link or copy.

        The target appears whole or not at all, and folders above it are made. Where it exists with the same bytes, that
        is a success.

        Args:
            wheel: one that this cache gave.
            dest: a folder that exists, or a path that ends in a separator: the wheel goes there under its own name.
                Else the path of the file to make.
            mode: ``"auto"`` takes the first that works of clone (shares blocks, independent), hard link (shares the
                file: whoever edits one edits both) and copy; out of a layer or a read-only cache no hard link, since
                that is written to the file. A mode that is named is taken or fails.

        Raises:
            FileExistsError: where the target exists with other bytes.
            FileNotFoundError: where the wheel is no longer in the cache.
            CommitError: where the file system refuses.
        """
        mode = LinkMode(mode)
        require_wheel(wheel)
        with self._begin(wheel.filename) as op:
            return self._deliver.link(RobustIO(op), wheel, dest, mode)

    def export(
        self,
        dest: str | os.PathLike[str],
        wheels: Iterable[CachedWheel] | None = None,
        *,
        mode: LinkMode | str = LinkMode.AUTO,
    ) -> list[Path]:
        """Put wheels into one folder under their true names, as ``--find-links`` of pip and uv takes it.

        Each wheel appears whole or not at all, as by :meth:`link`; the folder is made, and may hold other files.

        Args:
            dest: the folder.
            wheels: those that go out; ``None`` for all of this cache, layers not included, but those that another
                process prunes meanwhile.
            mode: as for :meth:`link`.

        Returns:
            The paths of the wheels in the folder, each once.

        Raises:
            ValueError: where two different wheels have one file name; nothing is written then.
            FileExistsError: where a file with other bytes has the name of a wheel.
            FileNotFoundError: where one of those that were given is no longer in the cache.
            CommitError: where the file system refuses.
        """
        from ._unpack import export

        mode = LinkMode(mode)
        chosen = self.entries() if wheels is None else wheels
        with self._begin() as op:
            return export.export(RobustIO(op), self._deliver, chosen, dest, mode, require_all=wheels is not None)

    def unpack(
        self,
        wheel: CachedWheel,
        dest: str | os.PathLike[str] | None = None,
        *,
        mode: LinkMode | str = LinkMode.AUTO,
    ) -> Unpacked:
        """Unpack a wheel: once into the cache, and from there into a folder at the speed of links.

        Every file is checked on the way, against the archive and against ``RECORD``. The tree that the cache keeps is
        looked at before it is used, and made again where a file of it is missing or damaged.

        Nothing of a wheel that is refused, or that does not go with what the folder holds, is written there. A call
        that was killed or refused in the middle leaves whole files only, and a second one adds the rest.

        Args:
            wheel: one that this cache gave.
            dest: the folder for the files, which may hold other packages; it is made where it is missing, and a link to
                a folder in it is followed. ``None`` for the tree in the cache: read it, never write to it. ``.data``
                folders stay as they are: to install them where they belong, see :class:`TreeSource`. Files get the
                permissions that the umask leaves, and programs the right to be executed by whoever may read them.
            mode: ``"auto"`` takes the first that works of clone (shares blocks, independent), hard link (shares the
                file: on POSIX it is read-only, and who edits it all the same edits the cache's, which is noticed) and
                copy; out of a layer or a read-only cache no hard link, as for :meth:`link`. On Windows it copies
                programs and libraries instead of linking them, since a loaded one cannot be deleted under any of its
                names. A mode that is named is taken for every file or fails.

        Raises:
            UnsafeWheelError: where the archive would write outside, or two readers could read it differently.
            InvalidWheelError: where it is broken, or a file does not have the hash in ``RECORD``.
            FileExistsError: where a file is in the way, with other bytes; the error names it.
            FileNotFoundError: where neither the wheel nor its tree is in the cache any more.
            ReadOnlyError: where the cache is read-only, has no tree of this wheel, and one is needed: for ``dest`` of
                ``None``, and to clone or hard-link from.
            CommitError: where the file system refuses.

        Example::

            for wheel in cache.fetch_all(requests):
                cache.unpack(wheel, site_packages)
        """
        mode = LinkMode(mode)
        require_wheel(wheel)
        target = None if dest is None else os.path.abspath(dest)
        with self._begin(wheel.filename) as op:
            fs = RobustIO(op)
            for number in range(_TREE_TRIES):
                # A tree that goes out is looked at folder by folder on its way, where that is enough; else before.
                tree = None if number or target is None else self._unpack.promising(fs, _sha256(wheel))
                check = tree is not None
                tree = tree or self._tree(fs, wheel, needed=target is None or mode not in _WITHOUT_TREE)
                if tree is not None:
                    # It may have been made of the same bytes under another file name.
                    check_project(tree.listing.dist_info(), wheel.filename, str(wheel.path))
                if target is None and tree is not None:
                    return Unpacked(Path(tree.folder), None, tuple(tree.listing.files()))
                if target is not None and tree is None:
                    listing = self._unpack.past_the_cache(fs, self._still_there(fs, wheel), target)
                    return Unpacked(Path(target), LinkMode.COPY, tuple(listing.files()))
                if target is not None and tree is not None:
                    used = self._unpack.out(fs, tree, target, mode, check=check)
                    if used is not None:
                        return Unpacked(Path(target), used, tuple(tree.listing.files()))
            raise CommitError(
                "the unpacked wheel goes as often as it is made",
                operation="unpack",
                path=self._layout.trees,
                attempts=_TREE_TRIES,
                advice="Another process prunes this cache with limits that are too low, or clears it.",
            )

    def _tree(self, fs: RobustIO, wheel: CachedWheel, *, needed: bool) -> TreeEntry | None:
        """Return the tree of a wheel, made where there is none; ``None`` where none may be made and none is needed."""
        sha256 = _sha256(wheel)
        found = self._unpack.find(fs, sha256)
        if found is not None:
            return found
        if self._read_only and not needed:
            return None
        self._writable("unpack")
        try:
            with self._flights.turn(fs, f"tree {sha256}", lambda: self._unpack.is_there(fs, sha256)):
                found = self._unpack.find(fs, sha256)
                if found is None:
                    found = self._unpack.make(fs, self._still_there(fs, wheel))
                    self._grown(fs, found.size, sha256)
                return found
        except CommitError as error:
            if needed or error.cause is not Cause.DENIED:
                raise
            # A user who may only read a cache that others fill is served as by one that was opened read-only.
            return None

    def _still_there(self, fs: RobustIO, wheel: CachedWheel) -> Entry:
        found = self._look_up(fs, {"sha256": _sha256(wheel)}, wheel.filename)
        if found is None:
            raise FileNotFoundError(
                errno.ENOENT, "the wheel is no longer in the cache: fetch it again", str(wheel.path)
            )
        return found[0]

    def _visit(self, url: str, *, refresh: bool) -> Passthrough:
        """Say what is known of a URL to a client that passes by: see :class:`CacheTransport`."""
        from ._fetch.passthrough import Passthrough

        wanted = parse_request(url, None, None, None)
        op = self._begin(wanted.filename)
        fs = RobustIO(op)
        check_wheel_name(wanted.filename, operation="fetch", url=wanted.shown)
        wheel = self._find(fs, wanted, refresh=refresh)
        known = None if wanted.hashes else self._urls[0].read(fs, wanted.url)
        there = known and self._lookup.find(fs, known.sha256, wanted.filename)
        return Passthrough(
            fs=fs,
            wanted=wanted,
            wheel=wheel or (_wheel(there, Status.REVALIDATED) if there else None),
            holds=wheel is not None,
            known=known,
            urls=self._urls[0],
            temporary=None if self._read_only else self._temporary(),
            add=lambda fs, stage, wanted: self._add(fs, stage, wanted.filename, wanted.shown, Status.DOWNLOADED),
            asked=self._system.now(),
        )

    # Keep

    def prune(
        self,
        *,
        max_size: int | None = None,
        max_age: float | timedelta | None = None,
        keep: Keep | Iterable[Keep] | None = None,
        dry_run: bool = False,
    ) -> PruneReport:
        """Cut this cache to a size or an age, least recently used first, and sweep leftovers.

        Entries go whole: wheel, unpacked tree and pointers. What is in use stays, is reported, and is not waited for; a
        third of a second at most, in all, goes to what another prune may just be taking away. It may run beside
        anything else, any number of times at once. With no limit and no ``keep``, leftovers go only: temporary files
        over a day old whose owner is gone, partial downloads over a week, quarantine and kept METADATA over a month,
        locks that nobody holds, pointers to nothing.

        Args:
            max_size: bytes of wheels and trees that may stay.
            max_age: seconds, or a :class:`~datetime.timedelta`, since the last use, which is to fetch, put or get it;
                it is known to the day.
            keep: what stays whatever its age: digests, wheels, paths of ``pylock.toml`` files. Without a limit, all
                else goes: ``cache.prune(keep="pylock.toml")`` leaves a CI job what its next run needs.
            dry_run: only say what would go.

        Raises:
            ValueError: for a limit or digest that cannot be one, or a lock file that does not parse. Nothing goes then.
            OSError: where a lock file cannot be read. Nothing goes then.
            ReadOnlyError: where the cache is read-only, and it is no dry run.
        """
        from ._maintenance import prune, select

        limits = PruneLimits(_options.check_size("max_size", max_size), _options.check_age(max_age))
        with self._begin() as op:
            fs = RobustIO(op)
            kept = select.kept(fs, self._layout, self._finding(fs), keep)
            if not dry_run:
                self._writable("prune")
            return prune.Pruner(self._layout, self._tally).prune(fs, limits._replace(keep=kept), dry_run=dry_run)

    def remove(self, *names: str | CachedWheel, dry_run: bool = False) -> PruneReport:
        """Take wheels out of this cache, with their trees and pointers. Layers keep theirs.

        It never waits: what is in use stays and is reported.

        Args:
            names: digests ``"sha256:<hex>"`` or wheels, which go under all of their file names, or names of projects,
                of which every wheel goes.
            dry_run: only say what would go.

        Raises:
            ValueError: for a name that cannot be one, or that nothing in this cache has. Nothing goes then.
            ReadOnlyError: where the cache is read-only, and it is no dry run.
        """
        from ._maintenance import prune, select

        if not dry_run:
            self._writable("remove")
        with self._begin() as op:
            fs = RobustIO(op)
            chosen = select.chosen(fs.without_waiting(), self._layout, self._finding(fs), names)
            return prune.Pruner(self._layout, self._tally).remove(fs, chosen, dry_run=dry_run)

    def clear(self, *, dry_run: bool = False) -> PruneReport:
        """Take everything out of this cache but what :meth:`stats` has counted.

        It never waits: what is in use stays and is reported, downloads under way too.

        Args:
            dry_run: only say what would go.

        Raises:
            ReadOnlyError: where the cache is read-only, and it is no dry run.
        """
        from ._maintenance import prune

        if not dry_run:
            self._writable("clear")
        with self._begin() as op:
            return prune.Pruner(self._layout, self._tally).clear(RobustIO(op), dry_run=dry_run)

    def verify(self, *, repair: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Hash everything in this cache again, whatever is trusted, and say what is wrong.

        Args:
            repair: put aside what is damaged or foreign, so that the next fetch gets it again, give wheels that lost
                their record a new one, and remove damaged trees, second copies, and records and pointers that lead
                nowhere.
            progress: called with a :class:`ProgressEvent` now and then, never by two threads at once; what it raises
                stops the verification.

        Raises:
            ReadOnlyError: where it is to repair and the cache is read-only.
            CommitError: where the cache folder cannot be looked into.
        """
        from ._maintenance.verify import Verifier

        if repair:
            self._writable("verify")
        with self._begin(progress=progress) as op:
            return Verifier(self._layout, repair=repair).run(RobustIO(op))

    def doctor(self) -> DoctorReport:
        r"""Try in this cache's folder what the cache does there, and report each probe with result, code and time.

        It makes files of its own, a few hundred kilobytes in all, and deletes them again; with ``read_only`` it makes
        none. It waits a few seconds at most for those who hold them. What is wrong is in the report and never raised.

        Example::

            report = cache.doctor()
            for check in report.checks:
                print("ok " if check.ok else "BAD", check.name, check.detail, check.code, f"{check.seconds:.3f} s")
            print(*report.advice, sep="\n")
        """
        # Nobody else needs it, and a hit must not pay for its import.
        from ._maintenance.doctor import examine

        with self._begin() as op:
            return examine(op, self._layout, writable=not self._read_only)

    def close(self) -> None:
        """Write down what was counted, and close the connections; twice is fine. Paths that were given stay good.

        What waits for a server in another thread, or for another download, ends with the ``ValueError`` of a closed
        cache.
        """
        if not self._closed:
            self._tally.write(RobustIO(self._begin().without_waiting().for_cleanup()))
            self._closed = True
            self._wire.close(self._system.sleep)

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r})"

    def _begin(self, wheel: str = "", progress: Progress | None = None) -> Operation:
        """Begin a public call."""
        if self._closed:
            raise ValueError(f"the cache {self.path} is closed")
        if self._process != os.getpid():
            self._after_fork()
        token = CURRENT_TOKEN.get()
        tokens = (self._wire.closing,) if token is None else (self._wire.closing, token)
        return Operation(self._system, io_timeout=self._io_timeout, tokens=tokens, wheel=wheel, progress=progress)

    def _after_fork(self) -> None:
        """Leave the parent what is the parent's: locks of its threads, and sockets that two must not talk through."""
        self._process = os.getpid()
        self._flights = SingleFlight(self._layout, self._lock_timeout)
        leave_connections(self._client)
        self._wire = HttpClient(self._client, self._system.interrupt_read)
        self._count()

    def _count(self) -> None:
        """Begin to count, and to keep to the limit."""
        self._tally = Counters(self._layout, writable=not self._read_only)
        self._ceiling = SizeLimit(self._layout, self._tally, self._max_size)

    def _grown(self, fs: RobustIO, size: int, sha256: str) -> None:
        """Count what has come into the cache, and keep to the limit."""
        self._tally.add_growth(size)
        self._tally.write(fs)
        self._ceiling.enforce(fs, sha256)

    def _finding(self, fs: RobustIO) -> Callable[[str], str | None]:
        """What leads from another hash to a sha256."""
        return lambda key: self._pointers[0].read(fs.without_waiting(), key)

    def _temporary(self) -> str:
        system = self._system
        return self._layout.new_temporary(OwnerTag.new(system.now(), system.boot()), system.pid_namespace())

    def _writable(self, operation: str) -> None:
        if self._read_only:
            raise ReadOnlyError(
                "the cache was opened read-only",
                operation=operation,
                path=self.path,
                advice="Open it without read_only=True, or another one that has it as a layer.",
            )

    def _may_get_in(self, wanted: ResolvedRequest) -> None:
        self._may_ask(wanted)
        self._writable("fetch")

    def _may_ask(self, wanted: ResolvedRequest) -> None:
        if self._offline and not wanted.url.startswith("file:"):
            raise OfflineError(
                f"{wanted.filename} is not in the cache",
                operation="fetch",
                url=wanted.shown,
                path=self.path,
                advice="Fetch it once with the network on, or put the file in.",
            )


def _again_if_removed(get_in: Callable[[], CachedWheel]) -> CachedWheel:
    """Get a wheel in, once more where somebody took the file away before it was an entry."""
    for _ in range(_COMMIT_TRIES - 1):
        try:
            return get_in()
        except CommitError as error:
            if error.cause is not Cause.REMOVED:
                raise
    return get_in()


def _sha256(wheel: CachedWheel) -> str:
    return wheel.digest.removeprefix("sha256:")


def _wheel(found: Entry, status: Status) -> CachedWheel:
    record = found.record
    return CachedWheel(
        path=Path(found.path),
        filename=record.filename,
        digest=f"sha256:{record.sha256}",
        size=record.size,
        hashes=record.all_hashes(),
        url=record.url,
        status=status,
    )
