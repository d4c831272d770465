"""The public :class:`Cache`: checks arguments, delegates to the parts of :mod:`._core`, and documents the contract."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, overload

from . import _hashes, _options
from ._core import Core
from ._filenames import check_filename, check_wheel_name
from ._fs.robustio import RobustIO
from ._hashes import Hashes
from ._imports import import_lock
from ._models import CachedWheel, Keep, LinkMode, Progress, Unpacked, require_wheel
from ._operation import CancelToken
from ._options import DownloadLimits, PruneLimits, Verify
from ._os.system import System
from ._request import parse_request

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Self

    from ._fetch.batch import Request
    from ._http.adapters.interface import AdaptedClient
    from ._http.client import Client
    from ._reports import DoctorReport, PruneReport, Stats, VerifyReport


class Cache:
    """A cache of wheels in one folder.

    Any number of ``Cache`` objects, in any number of threads, processes and machines, may use one folder at once. One
    object may be used from many threads, and after a fork. Closing it leaves nothing running or locked.

    A :meth:`close` in another thread or Ctrl-C ends every call at its next file operation, and every wait within a
    second. Neither can end a read from your own file object, or a name lookup or file operation that is blocked in the
    operating system. A request through your own ``client`` may last until the timeouts of that client.

    Args:
        path: the cache folder. It is created if it is missing. ``None`` for the one in the environment variable
            ``WHEELCACHE_DIR``, else the user's cache folder on this platform. A relative path is made absolute at once.
            Links in the path are not resolved.
        client: the ``Client`` of httpx or httpx2, or :func:`requests_client` of a session, to download with. It is not
            closed. A forked child cannot download with it, because the parent owns its connections. Without one, the
            cache creates its own, with the proxies, the netrc file and the certificate settings of the environment.
        layers: folders of further caches, such as one in an image or on a share. If a wheel is not in this cache, the
            layers are searched in this order. The cache never writes to a layer, not even a lock or a time stamp.
        offline: never use the network, and raise :class:`OfflineError` for a missing wheel. The last response of a URL
            is used even if it is stale, unless the server forbade that (``must-revalidate``, ``no-cache``).
        read_only: never write to the cache folder. The folder must exist.
        verify: ``"auto"`` hashes a wheel again if it may have changed: after a reboot, a restore or a touch. If others
            can write to the folder or layer, it also hashes it at its first use by this object, since they can forge
            records. ``"records"`` trusts their records. ``"full"`` hashes on every hit.
        max_size: the limit in bytes for all wheels and trees, or ``None``. When a new wheel exceeds it, the least
            recently used wheels are removed until nine tenths of it are in use. Allow for more than you use at a time.
        io_timeout: the seconds that the contended file operations of one call may wait in total for other processes to
            close the files. Each request of :meth:`fetch_all` counts as a call.
        lock_timeout: the seconds to wait for another process that downloads the same wheel and makes no progress.
        limits: the largest download without a requested size and the slowest download. ``None`` for the default values.

    Raises:
        CommitError: if the folder cannot be created.
        ReadOnlyError: if ``read_only`` or a layer names a folder that does not exist.
        ValueError, TypeError: if an option is invalid.

    Example::

        with Cache() as cache:
            wheel = cache.fetch(url, hashes={"sha256": digest})
            subprocess.run([sys.executable, "-m", "pip", "install", wheel.path])
    """

    _system: System = System()
    """The operating system. A test may replace it in a subclass. There is no other test hook."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        client: Client | AdaptedClient | None = None,
        layers: Iterable[str | os.PathLike[str]] = (),
        offline: bool = False,
        read_only: bool = False,
        verify: Verify = "auto",
        max_size: int | None = None,
        io_timeout: float = 60.0,
        lock_timeout: float = 60.0,
        limits: DownloadLimits | None = None,
    ) -> None:
        _options.check_options(layers, verify, io_timeout, lock_timeout, limits)
        _options.check_client(client, is_async=False)
        self.path: Path = Path(_options.choose_cache_folder(path))
        self._core = Core(
            self._system,
            str(self.path),
            [os.path.abspath(os.fspath(layer)) for layer in layers],
            client=client,
            offline=offline,
            read_only=read_only,
            verify=verify,
            max_size=_options.check_size("max_size", max_size),
            io_timeout=float(io_timeout),
            lock_timeout=float(lock_timeout),
            limits=limits,
        )

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
        """Return a wheel from the cache, or fetch it from its URL if it is missing.

        With a strong hash (sha256 or better), the URL is only a source of the bytes. A hit needs no network, even if
        the wheel was fetched from another URL. Without a strong hash, the last response of the URL is used while it is
        fresh (RFC 9111), else revalidated with the server. A user who can write to the cache folder can then make the
        URL lead to another wheel. A wheel becomes an entry as a whole or not at all. A partial download is resumed.

        Args:
            url: an ``https:``, ``http:`` or ``file:`` URL. A ``#sha256=<hex>`` fragment counts as a hash. Credentials
                in it are sent to its origin only, and never written to errors, logs, records or file names.
            hashes: ``"sha256:<hex>"``, ``"sha256=<hex>"``, ``{"sha256": hex}``, or several of the strings. At least one
                hash must be strong. The bytes must match all of them.
            size: the size in bytes that the wheel must have.
            filename: the wheel's file name, if the URL does not end in it.
            mirrors: other URLs of the same file, tried in this order if the URLs before them fail.
            refresh: revalidate with the server even if its last response is fresh. Has no effect if a hash is given.
            progress: called with each :class:`ProgressEvent`. An exception that it raises ends the call.

        Raises:
            ValueError: if the URL, a hash or the size is invalid, or the cache is closed.
            InvalidWheelError: if the file name is invalid, or if no hash is given and the bytes are not a wheel.
            HashMismatchError, SizeMismatchError: if the bytes do not match the request.
            DownloadError: if every URL fails.
            OfflineError, ReadOnlyError: if the wheel is missing and may not be fetched.
            CommitError: if the file system refuses an operation.
        """
        request = parse_request(url, hashes, size, filename, mirrors)
        with self._core.begin(request.filename, progress) as op:
            return self._core.fetch(op, request, refresh=refresh)

    @overload
    def fetch_all(
        self,
        requests: Iterable[Request],
        *,
        jobs: int | None = None,
        progress: Progress | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[CachedWheel]: ...

    @overload
    def fetch_all(
        self,
        requests: Iterable[Request],
        *,
        jobs: int | None = None,
        progress: Progress | None = None,
        return_exceptions: bool,
    ) -> list[CachedWheel | Exception]: ...

    def fetch_all(
        self,
        requests: Iterable[Request],
        *,
        jobs: int | None = None,
        progress: Progress | None = None,
        return_exceptions: bool = False,
    ) -> list[CachedWheel] | list[CachedWheel | Exception]:
        """Fetch many wheels in parallel, and return them in the order of the requests.

        The largest wheels are fetched first if sizes are known. All downloads share one pool of connections. The memory
        use does not depend on the size of the wheels. A later call resumes interrupted downloads.

        Args:
            requests: each is a URL, a :class:`WheelRequest`, or any object with the attributes ``url`` and ``hashes``
                and optionally ``size``, ``filename`` and ``mirrors``, such as a ``packaging.pylock.PackageWheel``.
            jobs: the number of parallel downloads, or ``None`` for 8.
            progress: as for :meth:`fetch`, called by one thread at a time. ``event.request`` and ``event.index``
                identify the request of an event. The last event of a request is ``done`` or ``failed``.
            return_exceptions: return the outcome of each request in its position, a wheel or an :class:`Exception`, as
                :func:`asyncio.gather` does. The error of an invalid URL, hash or file name is an outcome too.

        Raises:
            TypeError: if an object is not a request. Nothing is fetched then.
            ValueError, InvalidWheelError: if a request is invalid, without ``return_exceptions``. Fetches nothing then.
            ExceptionGroup: of the errors of :meth:`fetch`, if any request fails, after all others have finished.

        Example::

            # If a lock file gives the path of a wheel instead of a URL, add that wheel with put.
            lock = packaging.pylock.Pylock.from_dict(tomllib.loads(text))
            wheels = cache.fetch_all(wheel for package in lock.packages for wheel in package.wheels or ())
        """
        with import_lock:
            from ._fetch.batch import Batch, fetch_in_threads

        batch = Batch(requests, jobs, progress, return_exceptions=return_exceptions)
        with self._core.begin() as op:
            token = CancelToken()
            each = op.with_token(token)
            fetch_in_threads(batch, token, lambda item: self._core.fetch_item(each, item), op.check)
        return batch.outcomes() if return_exceptions else batch.wheels()

    def put(
        self, source: str | os.PathLike[str] | BinaryIO, *, filename: str | None = None, hashes: Hashes | None = None
    ) -> CachedWheel:
        """Copy a wheel from a local file into the cache. The wheel becomes an entry as a whole or not at all.

        Args:
            source: a path, or a file open for reading in binary mode. An open file is read from its current position.
            filename: the wheel's file name, if ``source`` is not a path that ends in it.
            hashes: as for :meth:`fetch`.

        Raises:
            FileNotFoundError: if the file does not exist.
            InvalidWheelError: if the file name is invalid, or if no hash is given and the bytes are not a wheel.
            HashMismatchError: if the bytes do not have the requested hashes.
            ReadOnlyError: if the cache is read-only.
            CommitError: if the file system refuses an operation.
        """
        expected = _hashes.parse_hashes(hashes)
        _hashes.require_strong(expected)
        if filename is None:
            filename = os.path.basename(os.fspath(source)) if isinstance(source, str | os.PathLike) else ""
        check_filename(filename, operation="put")
        check_wheel_name(filename, operation="put")
        self._core.store.require_writable("put")
        with self._core.begin(filename) as op:
            return self._core.fetcher().put(op, source, filename, expected)

    def metadata(self, url: str, *, hashes: Hashes | None = None, metadata_hashes: Hashes | None = None) -> bytes:
        """Return the METADATA of a wheel, without downloading the wheel if possible.

        METADATA is read from the wheel if the wheel is in the cache. Otherwise, three downloads are tried in this
        order: the ``.metadata`` file of the index (PEP 658), the part of the wheel that contains METADATA (by range
        requests), and the whole wheel. METADATA that was requested with a strong hash is kept. Only a whole wheel is
        checked against ``hashes``. If others can write to the cache, kept METADATA needs ``metadata_hashes``.

        Args:
            url: the URL of the wheel, as for :meth:`fetch`.
            hashes: the hashes of the wheel.
            metadata_hashes: the hashes of the ``.metadata`` file, from the index.

        Raises:
            ValueError: if the URL or a hash is invalid.
            HashMismatchError: if METADATA, from any of these sources, does not have the hashes from the index.
            DownloadError, OfflineError: if METADATA cannot be downloaded.
        """
        request = parse_request(url, hashes, None, None)
        expected = _hashes.parse_hashes(metadata_hashes)
        _hashes.require_strong(expected)
        with self._core.begin(request.filename) as op:
            return self._core.fetcher().metadata(op, request, expected)

    def get(self, digest: str, *, filename: str | None = None) -> CachedWheel | None:
        """Return the wheel of a digest if it is in the cache or a layer, else ``None``. Never uses the network.

        Args:
            digest: ``"sha256:<hex>"``, or another strong hash.
            filename: the file name that the wheel's path must end in, or ``None`` for any of its file names.

        Raises:
            ValueError: if the digest is not a strong hash.
        """
        name, value = _hashes.parse_hash(digest)
        _hashes.require_strong({name: value})
        if filename is not None:
            check_filename(filename, operation="get")
        with self._core.begin(filename or "") as op:
            return self._core.store.get(RobustIO(op), {name: value}, filename)

    def __contains__(self, digest: str) -> bool:
        """Return whether :meth:`get` would return a wheel."""
        return self.get(digest) is not None

    def entries(self) -> Iterator[CachedWheel]:
        """Yield every wheel of this cache, without its layers, in no particular order.

        A damaged wheel is never yielded. A wheel that is added or removed meanwhile may or may not be yielded.
        """
        with self._core.begin() as op:
            yield from self._core.store.entries(RobustIO(op))

    def stats(self) -> Stats:
        """Return the size of this cache, without its layers, and its hit rate. Walks the whole cache."""
        with self._core.begin() as op:
            return self._core.stats(op)

    def link(
        self, wheel: CachedWheel, dest: str | os.PathLike[str], *, mode: LinkMode | str = LinkMode.AUTO
    ) -> LinkMode:
        """Put a wheel into a folder by clone, hard link or copy, and return the mode that was used.

        The target appears as a whole or not at all. An existing target with the same bytes is accepted.

        Args:
            wheel: a wheel that this cache returned.
            dest: the path of the file, or the folder for a file with the wheel's own name. A path means a folder if
                that folder exists or if the path ends in a separator.
            mode: ``"auto"`` uses the first of these that works: clone, hard link, copy. A clone is a separate file that
                shares its blocks with the wheel in the cache. A hard link is the same file, so an edit changes both.
                ``"auto"`` never hard-links files of a layer or a read-only cache, since that changes their link count.
                Any other mode is used, or the call fails. A file that others own or can write to is not hard-linked.

        Raises:
            FileExistsError: if the target exists with other bytes.
            FileNotFoundError: if the wheel is no longer in the cache.
            CommitError: if the file system refuses an operation.
        """
        mode = LinkMode(mode)
        require_wheel(wheel)
        with self._core.begin(wheel.filename) as op:
            return self._core.exporter.link(RobustIO(op), wheel, dest, mode)

    def export(
        self,
        dest: str | os.PathLike[str],
        wheels: Iterable[CachedWheel] | None = None,
        *,
        mode: LinkMode | str = LinkMode.AUTO,
    ) -> list[Path]:
        """Put wheels into one folder, for the option ``--find-links`` of pip and uv, and return their paths there.

        Each wheel appears as a whole or not at all, under its own name. The folder may contain other files.

        Args:
            dest: the folder.
            wheels: the wheels to export, or ``None`` for all wheels of this cache, without its layers.
            mode: as for :meth:`link`.

        Raises:
            ValueError: if two different wheels have the same file name. Nothing is written then.
            FileExistsError: if a file with other bytes has the name of a wheel.
            FileNotFoundError: if a given wheel is no longer in the cache.
            CommitError: if the file system refuses an operation.
        """
        mode = LinkMode(mode)
        chosen = self.entries() if wheels is None else wheels
        with self._core.begin() as op:
            return self._core.export(op, chosen, dest, mode, require_all=wheels is not None)

    def unpack(
        self, wheel: CachedWheel, dest: str | os.PathLike[str] | None = None, *, mode: LinkMode | str = LinkMode.AUTO
    ) -> Unpacked:
        """Unpack a wheel once into the cache, and link or copy its files from there into a folder.

        Every file is checked against the archive and against ``RECORD`` when it is unpacked. The tree in the cache is
        checked before it is used. If a file is missing or damaged, the wheel is unpacked again. A refused wheel leaves
        no files in the folder. A killed call leaves only complete files there. Another call adds the rest.

        Args:
            wheel: a wheel that this cache returned.
            dest: the folder for the files. It may contain other packages, and is created if it is missing. Links to
                folders inside it are followed. ``None`` for the tree in the cache. That tree must not be written to.
                ``.data`` folders are unpacked as they are. To install them, see :class:`TreeSource`. Files have the
                permissions that the umask allows. Programs are executable for every user who can read them.
            mode: ``"auto"`` clones, hard-links or copies as in :meth:`link`. A hard link is read-only on POSIX. An edit
                of it would also change the tree in the cache. The change would be detected. On Windows, ``"auto"``
                copies programs and libraries, since a loaded one cannot be deleted under any of its names. Any other
                mode is used for every file, or the call fails.

        Raises:
            UnsafeWheelError: if the archive would write outside the folder, or two readers could read it differently.
            InvalidWheelError: if the archive is damaged, or a file does not have the hash in ``RECORD``.
            FileExistsError: if a file with other bytes exists at a path of the wheel. The error names that file.
            FileNotFoundError: if neither the wheel nor its tree is in the cache any more.
            ReadOnlyError: if the cache is read-only, and lacks the tree that ``dest=None``, clones or hard links need.
            CommitError: if the file system refuses an operation.
        """
        mode = LinkMode(mode)
        require_wheel(wheel)
        target = None if dest is None else os.path.abspath(dest)
        with self._core.begin(wheel.filename) as op:
            return self._core.unpacker.unpack(op, wheel, target, mode)

    def prune(
        self,
        *,
        max_size: int | None = None,
        max_age: float | timedelta | None = None,
        keep: Keep | Iterable[Keep] | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> PruneReport:
        """Remove old wheels by size or age, least recently used first, and sweep leftovers.

        Entries are removed as a whole: wheel, tree and pointers. Entries in use are kept and reported.
        Any number of prunes and other calls may run at once. Without a limit and ``keep``, only leftovers are removed:
        temporary files older than a day whose owner has ended, partial downloads older than a week, quarantine and kept
        METADATA older than a month, locks that nobody holds, and pointers to missing entries.

        Args:
            max_size: the bytes of wheels and trees to keep.
            max_age: seconds, or a :class:`~datetime.timedelta`, since the last fetch, put or get. Accurate to a day.
            keep: the wheels to keep at any age: digests, wheels, paths of ``pylock.toml`` files. Without a limit, all
                others are removed. With ``cache.prune(keep="pylock.toml")``, a CI job keeps the wheels for its next
                run.
            dry_run: only report the files that would be removed.
            progress: called with one event for each removed wheel. An exception that it raises ends the prune at once.

        Raises:
            ValueError: if a limit or a digest is invalid, or a lock file cannot be parsed. Nothing is removed then.
            OSError: if a lock file cannot be read. Nothing is removed then.
            ReadOnlyError: if the cache is read-only, and this is not a dry run.
        """
        limits = PruneLimits(_options.check_size("max_size", max_size), _options.check_age(max_age))
        with self._core.begin(progress=progress) as op:
            return self._core.prune(op, limits, keep, dry_run=dry_run)

    def remove(self, *names: str | CachedWheel, dry_run: bool = False, progress: Progress | None = None) -> PruneReport:
        """Remove wheels from this cache, with their trees and pointers. Layers are not changed.

        Wheels in use are kept and reported. The call does not wait for them.

        Args:
            names: digests ``"sha256:<hex>"``, wheels or names of projects. A digest or a wheel is removed under all of
                its file names. A project is removed with all of its wheels.
            dry_run: only report the files that would be removed.
            progress: as for :meth:`prune`.

        Raises:
            ValueError: if a name is invalid, or this cache has no wheel of that name. Nothing is removed then.
            ReadOnlyError: if the cache is read-only, and this is not a dry run.
        """
        with self._core.begin(progress=progress) as op:
            return self._core.remove(op, names, dry_run=dry_run)

    def clear(self, *, dry_run: bool = False, progress: Progress | None = None) -> PruneReport:
        """Remove everything from this cache except the counters of :meth:`stats`.

        Wheels in use, running downloads and foreign files are kept and reported. The call does not wait for them.

        Args:
            dry_run: only report the files that would be removed.
            progress: as for :meth:`prune`.

        Raises:
            ReadOnlyError: if the cache is read-only, and this is not a dry run.
        """
        with self._core.begin(progress=progress) as op:
            return self._core.clear(op, dry_run=dry_run)

    def verify(self, *, repair: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Hash every wheel and tree in this cache again, even if it is trusted, and report every problem.

        Args:
            repair: quarantine damaged and foreign files, write the missing records of intact wheels, and remove damaged
                trees, duplicates, and records and pointers without a target.
            progress: as for :meth:`fetch`, called by one thread at a time.

        Raises:
            ReadOnlyError: if ``repair`` is given and the cache is read-only.
            CommitError: if the cache folder cannot be scanned.
        """
        with self._core.begin(progress=progress) as op:
            return self._core.verify(op, repair=repair)

    def doctor(self) -> DoctorReport:
        """Try the file operations of a cache in this cache's folder, and report each result with its code and time.

        Unless the cache is read-only, the probes create and delete their own files, a few hundred kilobytes in total.
        The probes wait a few seconds at most for processes that hold these files. Problems are reported, never raised.
        """
        with self._core.begin() as op:
            return self._core.doctor(op)

    def close(self) -> None:
        """End running calls, write the counters, and close the connections. A second call does nothing.

        Calls in other threads end with the ``ValueError`` of a closed cache. Paths that were returned remain valid.
        """
        self._core.close()

    def __enter__(self) -> Self:
        self._core.require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r})"


def core_of(cache: Cache) -> Core:
    """Return the parts of a cache, for the other public entry points of the library."""
    return cache._core  # noqa: SLF001 - the one place that reaches into a Cache
