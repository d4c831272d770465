"""Removal: taking entries and leftovers out of a cache folder, beside whoever uses it, without waiting for anybody.

The blob goes first and its record after it: where somebody holds the blob so that it cannot be deleted, nothing has
changed, and the entry stays whole. A record without its blob is no entry (rule 3), so whoever is killed in between
leaves a miss. Whoever commits the same wheel at this moment finds a folder that is gone, and makes it again.

What another removal is just taking away is refused for a moment on Windows: taken for what is in use, it would stay in
the sum, and a younger entry go for it. So a folder that is refused is looked into once more, a moment later.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from .._exceptions import CommitError
from .._fs.errors import cause_of, code_of, is_delete_pending
from .._fs.robustio import RobustIO, is_missing
from .._models import CachedWheel, Status
from .._reports import PruneReport, Skipped
from .._store import walk
from .._store.layout import SHARD_DIGITS, Layout
from .._store.records import decode_record
from .._store.walk import Blob, EntryFolder
from .._unpack.trees import Outcome, Trees, remove_folder

# Others take a few milliseconds for an entry; a scanner that holds folders is not waited for more often than this.
_MOMENT = 0.1
_VAIN_MOMENTS = 3
# As for hits: a file server has a clock of its own.
_DAY = 86_400.0


@dataclass
class Remover:
    """What goes in one call, as it goes.

    Attributes:
        disk: it never waits.
        layout: the paths of the cache folder.
        dry_run: whether everything stays.
        shrunk: the bytes of wheels and trees that this call deleted; of what several remove at once, one has its bytes.
        trees: its unpacked wheels.
        soon: seconds since the epoch, after which no clock that is right has marked anything as used.
    """

    fs: RobustIO
    layout: Layout
    dry_run: bool = False
    shrunk: int = 0
    _removed: list[CachedWheel] = field(default_factory=list)
    _skipped: list[Skipped] = field(default_factory=list)
    _swept: list[Path] = field(default_factory=list)
    _swept_bytes: int = 0
    _shards: AbstractSet[str] | None = None
    _moments: int = _VAIN_MOMENTS

    def __post_init__(self) -> None:
        self.trees = Trees(self.layout, writable=True)
        self.soon = self.fs.system.now() + _DAY

    def report(self) -> PruneReport:
        """What went."""
        return PruneReport(
            tuple(self._removed),
            tuple(self._skipped),
            self.shrunk + self._swept_bytes,
            tuple(self._swept),
            self.dry_run,
        )

    def skip(self, path: str, error: OSError | str, sha256: str | None = None) -> None:
        """Write down what stays, and why."""
        reason = f"{cause_of(error, path)} ({code_of(error)})" if isinstance(error, OSError) else error
        self._skipped.append(Skipped(Path(path), sha256 and f"sha256:{sha256}", reason))

    def entry(self, sha256: str, *, names: Collection[str] | None = None, unused_since: float | None = None) -> bool:
        """Take an entry away whole, or those of its wheels that have these file names; return whether it is gone.

        What another process has taken meanwhile is gone too, and is not among what this one removed. With
        ``unused_since`` an entry that was marked after that stays: somebody used it since it was chosen.
        """
        try:
            # Only who cuts to a limit takes a younger one for what stays.
            found = self._look(sha256, again=unused_since is not None)
        except CommitError as error:
            self.skip(self.layout.entry(sha256), error, sha256)
            return False
        if found is None or not found.names:
            if found is not None and names is None and unused_since is None:
                self.remains(found)
            return self._take_trees(sha256)
        if unused_since is not None and found.used > unused_since:
            self.skip(found.folder, "used meanwhile", sha256)
            return False
        going = [name for name in found.names if names is None or name in names]
        wheels = {name: blob for name in going if (blob := self._blob_of(found, name)) is not None}
        fates: dict[str, Outcome] = {}
        gone = [name for name in going if self._take_wheel(found, name, fates)]
        taken = [wheels[name] for name in gone if name in wheels and fates[wheels[name].path] is Outcome.REMOVED]
        self._removed += [_gone_wheel(sha256, blob) for blob in taken]
        is_gone = len(gone) == len(found.names)
        if is_gone:
            self._take_rest(found, fates)
        self.shrunk += _bytes_taken(found, fates)
        return self._take_trees(sha256) if is_gone else len(gone) == len(going)

    def mark(self, *paths: str) -> None:
        """Mark as used now what a wrong clock has marked as used in times to come: it would stay for ever."""
        for path in paths:
            if not self.dry_run:
                self.fs.touch(path, self.fs.system.now())

    def _blob_of(self, entry: EntryFolder, name: str) -> Blob | None:
        """Return the bytes of a wheel; where a damaged file that is held has its name too, its record says which."""
        blobs = [blob for blob in entry.blobs if blob.filename == name]
        if len(blobs) > 1:
            try:
                data = self.fs.read(self.layout.record(entry.sha256, name))
            except CommitError:
                data = None  # then nobody else can tell either
            record = None if data is None else decode_record(data, entry.sha256)
            path = record and self.layout.blob(entry.sha256, name, record.place)
            blobs.sort(key=lambda blob: blob.path == path)
        return blobs[-1] if blobs else None

    def _look(self, sha256: str, *, again: bool) -> EntryFolder | None:
        """Look into the folder of an entry, ``again`` where it is refused."""
        try:
            return walk.scan_entry(self.fs, self.layout, sha256)
        except CommitError:
            if not again or self._moments == 0:
                raise
        self._moments -= 1
        found = walk.scan_entry(RobustIO(self.fs.op.waiting_at_most(_MOMENT)), self.layout, sha256)
        self._moments += 1
        return found

    def _take_trees(self, sha256: str) -> bool:
        """Take away what a wheel was unpacked to; what is held of it stays without a marker, and is swept later."""
        gone = True
        try:
            if sha256[:SHARD_DIGITS] not in self._tree_shards():
                return True
            for tree in list(self.trees.recorded(self.fs, sha256)):
                fate = Outcome.REMOVED if self.dry_run else self.trees.remove(self.fs, tree)
                if fate is Outcome.REMOVED:
                    self.shrunk += tree.size
                elif fate is Outcome.KEPT:
                    self.skip(tree.folder, "files of it are in use", sha256)
                    gone = False
        except CommitError as error:
            self.skip(error.path or self.layout.trees, error, sha256)
            gone = False
        return gone

    def _take_wheel(self, entry: EntryFolder, name: str, fates: dict[str, Outcome]) -> bool:
        """Take a wheel away, and write down what became of its files; return whether it is gone."""
        blobs = [blob.path for blob in entry.blobs if blob.filename == name]
        for path in (*blobs, self.layout.record(entry.sha256, name)):
            fates[path] = self._take(path, entry.sha256)
            if not fates[path]:
                return False
        return True

    def _take_rest(self, entry: EntryFolder, fates: dict[str, Outcome]) -> None:
        """Take what is left in the folder of an entry that is none any more; what is held is swept later."""
        for path in (*(blob.path for blob in entry.blobs if blob.filename not in entry.names), *entry.others):
            fates[path] = Outcome.REMOVED if self.dry_run else _unlinked(self.fs, path)
        self._take_folders(entry)

    def _take_folders(self, entry: EntryFolder) -> None:
        if self.dry_run:
            return
        for folder in {os.path.dirname(blob.path) for blob in entry.blobs} - {entry.folder}:
            self.fs.remove_folder(folder)
        self.fs.remove_folder(entry.folder)

    def _take(self, path: str, sha256: str | None = None) -> Outcome:
        if self.dry_run:
            return Outcome.REMOVED
        try:
            return _unlink(self.fs, path)
        except OSError as error:
            self.skip(path, error, sha256)
            return Outcome.KEPT

    def leftover(self, path: str, size: int) -> None:
        """Take away a file that nobody needs any more."""
        if self._take(path) is Outcome.REMOVED:
            self._swept.append(Path(path))
            self._swept_bytes += size

    def empty_folder(self, path: str) -> None:
        """Take away a folder that nobody needs any more, if it is empty."""
        if self.dry_run or self.fs.remove_folder(path):
            self._swept.append(Path(path))

    def _tree_shards(self) -> AbstractSet[str]:
        """The shards with trees, asked for once: most caches have few trees, and many entries go."""
        if self._shards is None:
            self._shards = {entry.name for entry in self.fs.scan(self.layout.trees)}
        return self._shards

    def unmarked(self, folder: str, size: int) -> None:
        """Take away a folder that was to become a tree, or a marker that lost its folder."""
        if self.dry_run or remove_folder(self.fs, folder):
            self._swept.append(Path(folder))
            self._swept_bytes += size
        else:
            self.skip(folder, "files of it are in use")

    def remains(self, entry: EntryFolder) -> None:
        """Take away the folder of what is no entry, since it lacks its record or its blob, unless that has changed."""
        try:
            found = walk.scan_entry(self.fs, self.layout, entry.sha256)
        except CommitError as error:
            self.skip(entry.folder, error, entry.sha256)
            return
        if found is None or (found.names and found.blobs) or found.changed != entry.changed:
            return
        for blob in entry.blobs:
            self.leftover(blob.path, blob.size)
        for path in (*(self.layout.record(entry.sha256, name) for name in entry.names), *entry.others):
            self.leftover(path, 0)
        self._take_folders(entry)


def _unlink(fs: RobustIO, path: str) -> Outcome:
    """Delete a file.

    Raises:
        OSError: as it came, where it stays.
    """
    try:
        fs.files.unlink(path)
    except OSError as error:
        if is_missing(error, path) or is_delete_pending(error):
            return Outcome.GONE
        raise
    return Outcome.REMOVED


def _unlinked(fs: RobustIO, path: str) -> Outcome:
    try:
        return _unlink(fs, path)
    except OSError:
        return Outcome.KEPT


def _bytes_taken(entry: EntryFolder, fates: dict[str, Outcome]) -> int:
    """Return the bytes of the files that are gone under all their names, the first of them by this call."""
    files: dict[int, list[Blob]] = {}
    for blob in entry.blobs:
        files.setdefault(blob.inode, []).append(blob)
    return sum(
        blobs[0].size
        for blobs in files.values()
        if fates.get(blobs[0].path) is Outcome.REMOVED and all(fates.get(blob.path) for blob in blobs)
    )


def _gone_wheel(sha256: str, blob: Blob) -> CachedWheel:
    hashes = {"sha256": sha256}
    return CachedWheel(Path(blob.path), blob.filename, f"sha256:{sha256}", blob.size, hashes, None, Status.HIT)
