"""Look up wheels in the writable store and its layers.

The writable store is searched first, then each layer in order. Nothing is ever written to a layer. A wheel in a layer
is used in place. If a wheel of a layer is requested under another file name, it is copied to the writable store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from .. import _hashes
from .._exceptions import Cause, CommitError, HashMismatchError, ReadOnlyError, SizeMismatchError, WheelCacheError
from .._filenames import check_wheel_name
from .._fs.link import LinkStrategy
from .._fs.robustio import RobustIO
from .._models import CachedWheel, Status
from .._request import ResolvedRequest
from .commit import Commit
from .counters import Counters
from .index import Index, UrlEntry
from .layout import Layout
from .lookup import Entry, Lookup
from .staging import StagedFile
from .trust.policy import TrustPolicy


class LayeredStore:
    """The wheels of one cache folder and its layers.

    Args:
        layout: the paths of the writable store.
        layers: the paths of the layers, in the order in which they are searched.
        read_only: whether nothing may be written to the writable store either.
        offline: whether a stale response may be used, if its server allows that.
        trust: the worth of recorded digests in each of these folders, beginning with the writable store.
        strategy: gives a finished file its final name.
        counters: the hits and misses of the cache.
        on_growth: called after an entry was added, with its bytes and its sha256.
    """

    def __init__(
        self,
        layout: Layout,
        layers: Sequence[Layout],
        *,
        read_only: bool,
        offline: bool,
        trust: Sequence[TrustPolicy],
        strategy: LinkStrategy,
        counters: Counters,
        on_growth: Callable[[RobustIO, int, str], None],
    ) -> None:
        self.layout = layout
        self.index = Index(layout)
        self.read_only = read_only
        self._offline = offline
        self._lookup = Lookup(layout, trust[0], writable=not read_only)
        self.trust = trust[0]
        self._stores = [(self._lookup, self.index)]
        self._stores += [
            (Lookup(layer, policy, writable=False), Index(layer))
            for layer, policy in zip(layers, trust[1:], strict=True)
        ]
        self._commit = Commit(layout, self.trust, strategy)
        self._counters = counters
        self._on_growth = on_growth

    def find(
        self, fs: RobustIO, request: ResolvedRequest, *, refresh: bool = False, adopt: bool = False
    ) -> CachedWheel | None:
        """Return the requested wheel, or ``None`` if it is missing or must be revalidated first.

        Args:
            fs: the file system of the operation.
            request: the request. It identifies the wheel by its hashes or, without hashes, by its URL.
            refresh: whether a request without a hash must be revalidated even if its last response is fresh.
            adopt: whether to write the missing record of a blob. Only a caller inside :meth:`SingleFlight.turn`
                for this wheel may do that.

        Raises:
            HashMismatchError: if the wheel has one of the requested hashes but not all of them.
            SizeMismatchError: if the wheel has the requested hash but another size.
        """
        if request.hashes:
            found = self._find_by_hash(fs, request.hashes, request.filename, adopt=adopt)
        else:
            found = None if refresh else self._find_by_url(fs, request)
        if found is None:
            return None
        entry, status = found
        _check_entry(entry, request)
        self._counters.hit(entry.record.size)
        return to_wheel(entry, status)

    def get(self, fs: RobustIO, hashes: Mapping[str, str], filename: str | None) -> CachedWheel | None:
        """Return the wheel that has the preferred one of these hashes, or ``None``."""
        found = self._find_by_hash(fs, hashes, filename)
        return None if found is None else to_wheel(*found)

    def find_entry(self, fs: RobustIO, sha256: str, filename: str) -> Entry | None:
        """Return the entry of a digest, or ``None``."""
        found = self._find_by_hash(fs, {"sha256": sha256}, filename)
        return None if found is None else found[0]

    def contains(self, fs: RobustIO, request: ResolvedRequest) -> bool:
        """Return whether a requested wheel has been added. Never waits or raises."""
        quiet = RobustIO(fs.op.without_waiting().with_progress(None))
        try:
            return self._find_by_hash(quiet, request.hashes, request.filename) is not None
        except WheelCacheError:
            return False  # when the caller has its turn, it repeats the lookup with its retry budget

    def _find_by_hash(
        self, fs: RobustIO, hashes: Mapping[str, str], filename: str | None, *, adopt: bool = False
    ) -> tuple[Entry, Status] | None:
        key = _hashes.naming_hash(hashes)
        if key is None:
            return None
        for number, entry in self._entries_by_hash(fs, hashes, key, filename, adopt=adopt):
            if entry.is_new:
                self._on_growth(fs, entry.record.size, entry.record.sha256)
            if _has_key(entry.record.all_hashes(), key):
                named = self._with_filename(fs, entry, filename)
                return None if named is None else (named, Status.LAYER if number else Status.HIT)
            if number == 0 and not self.read_only:
                # The pointer was forged, or copied to the name of another key.
                self.index.remove_digest(fs, key)
        return None

    def _entries_by_hash(
        self, fs: RobustIO, hashes: Mapping[str, str], key: str, filename: str | None, *, adopt: bool
    ) -> Iterator[tuple[int, Entry]]:
        """Yield the entry of a hash in each store, after the number of that store. A layer that is unreadable has none.

        Raises:
            CommitError: if the writable store is unreadable. If its folder is unsafe, the layers are searched first.
        """
        unsafe: CommitError | None = None
        for number, (lookup, index) in enumerate(self._stores):
            try:
                sha256 = hashes.get("sha256") or index.find_digest(fs, key)
                entry = sha256 and lookup.find(fs, sha256, filename, tuple(hashes), adopt=adopt and number == 0)
            except CommitError as error:
                if number == 0 and error.cause is not Cause.UNSAFE:
                    raise
                unsafe = error if number == 0 else unsafe
            else:
                if entry:
                    yield number, entry
        if unsafe is not None:
            raise unsafe

    def find_digest(self, fs: RobustIO, key: str) -> str | None:
        """Return the sha256 of the wheel in the writable store that has another strong hash, or ``None``.

        Args:
            fs: the file system of the operation.
            key: the hash as ``"<algorithm>:<hex>"``.
        """
        sha256 = self.index.find_digest(fs, key)
        hashes = None if sha256 is None else self.find_hashes(fs, sha256, [key.partition(":")[0]])
        return sha256 if hashes is not None and _has_key(hashes, key) else None

    def find_hashes(self, fs: RobustIO, sha256: str, algorithms: Collection[str]) -> dict[str, str] | None:
        """Return the trusted hashes of a wheel in the writable store, by algorithm, or ``None`` if it is missing.

        The result contains a hash for each of ``algorithms``. The wheel is not marked as used.
        """
        entry = self._lookup.find(fs, sha256, None, algorithms, use=False)
        return None if entry is None else entry.record.all_hashes()

    def _find_by_url(self, fs: RobustIO, request: ResolvedRequest) -> tuple[Entry, Status] | None:
        for number, (lookup, index) in enumerate(self._stores):
            entry = None
            try:
                known = index.find_url(fs, request.url)
                if known is not None and known.is_usable(fs.system.now(), offline=self._offline):
                    entry = lookup.find(fs, known.sha256, request.filename)
            except CommitError:
                if number == 0:
                    raise
                # a layer that is unreadable has no wheels
            entry = entry and self._with_filename(fs, entry, request.filename)
            if entry is not None:
                return entry, Status.LAYER if number else Status.HIT
        return None

    def _with_filename(self, fs: RobustIO, entry: Entry, filename: str | None) -> Entry | None:
        """Return the entry with the requested file name, or ``None`` if another process removed it.

        A digest with two file names has two entries, so a missing entry is created.
        """
        if filename is None or filename.lower() == entry.record.filename.lower() or self.read_only:
            return entry
        check_wheel_name(filename, operation="look up")
        try:
            entry = self._commit.alias(fs, entry, filename)
        except CommitError as error:
            if error.cause is not Cause.REMOVED:
                raise
            return None
        self._lookup.remember(entry)
        if entry.is_new:
            self._on_growth(fs, entry.record.size, entry.record.sha256)
        return entry

    def find_revalidated(self, fs: RobustIO, known: UrlEntry, filename: str) -> CachedWheel | None:
        """Return a wheel that the server has confirmed, or ``None`` if another process removed it."""
        entry = self.find_known(fs, known, filename)
        entry = entry and self._with_filename(fs, entry, filename)
        return None if entry is None else to_wheel(entry, Status.REVALIDATED)

    def find_known(self, fs: RobustIO, known: UrlEntry, filename: str) -> Entry | None:
        """Return the entry of the last response for a URL in the writable store, or ``None``."""
        return self._lookup.find(fs, known.sha256, filename)

    def commit(self, fs: RobustIO, stage: StagedFile, filename: str, url: str | None, status: Status) -> CachedWheel:
        """Make a staged file an entry.

        Args:
            fs: the file system of the operation.
            stage: the staged file. Its bytes are checked first.
            filename: the wheel's file name.
            url: the redacted URL that the file was fetched from, or ``None``.
            status: the status of the returned wheel, unless the wheel replaces a damaged one.

        Raises:
            HashMismatchError: if the bytes do not have the expected hashes.
            SizeMismatchError: if the bytes do not have the expected size.
            InvalidWheelError: if no hash was expected, and the bytes are not a zip archive.
            CommitError: if the file cannot be committed.
        """
        finished = stage.seal()
        entry = self._commit.add(fs, finished, filename, url)
        stage.mark_moved()
        was_damaged = self._lookup.remember(entry)
        for name, value in finished.hashes.items():
            if name != "sha256" and _hashes.is_strong(name):
                # This step must not be cancelled, because the entry exists and its bytes must be counted.
                self.index.write_digest(fs.for_cleanup(), f"{name}:{value}", entry.record.sha256)
        self._on_growth(fs, entry.record.size if entry.is_new else 0, entry.record.sha256)
        return to_wheel(entry, Status.REPAIRED if was_damaged else status)

    def entries(self, fs: RobustIO) -> Iterator[CachedWheel]:
        """Yield every undamaged wheel of the writable store."""
        for record in self._lookup.records(fs):
            entry = self._lookup.find(fs, record.sha256, record.filename, use=False)
            if entry is not None and entry.record.filename == record.filename:
                fs.close_folders()  # the caller may continue in another thread, or never
                yield to_wheel(entry, Status.HIT)

    def require_writable(self, operation: str) -> None:
        """Raise :class:`ReadOnlyError` if the cache was opened read-only."""
        if self.read_only:
            raise ReadOnlyError(
                "the cache was opened read-only",
                operation=operation,
                path=self.layout.root,
                advice="Open it without read_only=True, or use it as a layer of another cache.",
            )


def _has_key(hashes: Mapping[str, str], key: str) -> bool:
    """Return whether hashes include a key, which has the form ``"<algorithm>:<hex>"``."""
    algorithm, _, value = key.partition(":")
    return hashes.get(algorithm) == value


def _check_entry(entry: Entry, request: ResolvedRequest) -> None:
    hashes = entry.record.all_hashes()
    if any(hashes.get(name, value) != value for name, value in request.hashes.items()):
        raise HashMismatchError(
            "the cached wheel has one of the requested hashes, but not all of them",
            operation="look up",
            path=entry.path,
            expected=request.hashes,
            actual=hashes,
            advice="Check the requested hashes. They belong to different files.",
        )
    if request.size not in {None, entry.record.size}:
        raise SizeMismatchError(
            "the cached wheel has the requested hash, but another size",
            operation="look up",
            path=entry.path,
            expected=request.size or 0,
            actual=entry.record.size,
            advice="Check the requested hash and size. They belong to different files.",
        )


def to_wheel(entry: Entry, status: Status) -> CachedWheel:
    """Return an entry as the wheel that callers receive."""
    record = entry.record
    return CachedWheel(
        path=Path(entry.path),
        filename=record.filename,
        digest=f"sha256:{record.sha256}",
        size=record.size,
        hashes=record.all_hashes(),
        url=record.url,
        status=status,
    )
