"""Remove entries and leftovers from a cache that other processes are using.

The blob is deleted before its record. If another process holds the blob open, the deletion fails and the entry is still
complete. If this process is killed between the two deletions, a record without a blob remains. Such a record counts as
a miss. If another process commits the same wheel at this moment, it finds its folder missing and creates the folder
again.

Cancellation takes effect between two entries, so no entry is removed halfway.

On Windows, a file that another pruner is deleting right now also reports a sharing violation. Such a file must not
count as in use, or a newer entry would be removed in its place. A refused folder is therefore read again for up to 0.1
s. After three such waits without success, the call assumes that a scanner holds the folders, and skips refused ones at
once.

Only names that the layout forms are deleted. A link or special file with such a name is deleted like a file, without
following it. A file or folder with any other name, and a folder in the place of a file, is kept and reported. So is a
link in the place of an area folder such as ``v1/urls``, because a user may have moved the folder to another volume.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from .._exceptions import Cause, CommitError
from .._fs.errors import cause_of, code_of, is_delete_pending
from .._fs.robustio import RobustIO, is_missing
from .._fs.small import read_small
from .._models import CachedWheel, Phase, Status
from .._os.confined.entries import UnsafePathError
from .._reports import PruneReport, Skipped
from .._store.layout import SHARD_DIGITS, Layout
from .._store.records import MAX_RECORD, decode_record
from .._store.walk import Blob, EntryFolder, scan_entry, scan_folder
from .._unpack.trees import Outcome, TreeStore, remove_recursively
from .foreign import find_foreign, is_plain_folder

# Another pruner needs a few milliseconds for an entry.
_SECONDS_PER_WAIT = 0.1
_MAX_FAILED_WAITS = 3
# The clock of a file server may be ahead.
_DAY = 86_400.0
FOREIGN = "not a file or folder of wheelcache"


@dataclass
class Remover:
    """Removes the entries and leftovers that one public call chooses, and collects its report.

    Attributes:
        fs: the file system, without waiting.
        layout: the paths of the cache folder.
        dry_run: whether nothing is deleted.
        shrunk: the bytes of wheels and trees that this call deleted. If several processes delete a file at once, only
            one of them counts it.
        trees: the unpacked wheels of the cache.
        future: a time in seconds since the epoch. Only a wrong clock records a later use.
    """

    fs: RobustIO
    layout: Layout
    dry_run: bool = False
    shrunk: int = 0
    _removed: list[CachedWheel] = field(default_factory=list)
    _skipped: dict[str, Skipped] = field(default_factory=dict)
    _swept: dict[str, None] = field(default_factory=dict)
    _swept_bytes: int = 0
    _tree_shards: AbstractSet[str] | None = None
    _waits_left: int = _MAX_FAILED_WAITS

    def __post_init__(self) -> None:
        self.trees = TreeStore(self.layout)
        self.future = self.fs.system.now() + _DAY
        self._cleanup = self.fs.for_cleanup()

    @property
    def freed(self) -> int:
        """The bytes that this call has deleted so far, including leftovers."""
        return self.shrunk + self._swept_bytes

    def report(self) -> PruneReport:
        """Return the report of the call."""
        skipped = tuple(self._skipped.values())
        return PruneReport(tuple(self._removed), skipped, self.freed, tuple(map(Path, self._swept)), self.dry_run)

    def skip(self, path: str, error: OSError | str, sha256: str | None = None) -> None:
        """Record a file or folder that could not be removed, and the reason. Only the first reason counts."""
        if isinstance(error, OSError):
            path = unsafe_path(error) or path
            reason = f"{_cause_of(error, path)} ({code_of(error)})"
        else:
            reason = error
        if path not in self._skipped:
            self._skipped[path] = Skipped(Path(path), sha256 and f"sha256:{sha256}", reason)

    def skip_foreign(self, *paths: str, sha256: str | None = None) -> None:
        """Record files and folders that are kept because wheelcache did not create them."""
        for path in paths:
            self.skip(path, FOREIGN, sha256)

    def skip_remaining_foreign(self) -> None:
        """Record all foreign files and folders of the cache, except those that the call has already reported."""
        foreign = find_foreign(self.fs, self.layout, self.skip)
        self.skip_foreign(*(stray.path for stray in foreign if stray.path not in self._swept))

    def handle_error(self, path: str, error: CommitError) -> bool:
        """Record a folder that cannot be read, and return whether it may have contents that the walk has missed.

        A link or special file in the place of a folder is deleted, except in the place of an area folder.
        """
        is_unsafe = error.cause is Cause.UNSAFE and path == (unsafe_path(error) or path)
        if is_unsafe and path not in self.layout.folders():
            self.remove_leftover(path, 0)
            return False
        self.skip(path, error)
        return True

    # Entries

    def remove_entry(
        self, sha256: str, *, filenames: Collection[str] | None = None, unused_since: float | None = None
    ) -> bool:
        """Delete an entry with its trees, or only its wheels with these file names.

        Return whether it no longer exists. An entry that another process deleted counts, but is not reported as ours.
        With ``unused_since``, an entry that was used after that time is kept. One progress event is reported for each
        wheel that was deleted.
        """
        self.fs.op.check()
        try:
            # The scan waits only when pruning to a limit, because otherwise a newer entry would be removed instead of
            # this one.
            entry = self._scan_entry(sha256, wait=unused_since is not None)
        except CommitError as error:
            if error.cause not in {Cause.UNSAFE, Cause.IN_THE_WAY}:
                self.skip(self.layout.entry(sha256), error, sha256)
                return False
            # There is no such entry, because a link or a file is in the place of a folder.
            self.skip(self._find_obstacle(sha256), error, sha256)
            entry = None
        if entry is None or not entry.names:
            if entry is not None and filenames is None and unused_since is None:
                self.remove_incomplete_entry(entry)
            return self._remove_trees(sha256)
        if unused_since is not None and entry.used > unused_since:
            self.skip(entry.folder, "used meanwhile", sha256)
            return False
        to_remove = [name for name in entry.names if filenames is None or name in filenames]
        already_removed = len(self._removed)
        try:
            return self._remove_wheels(entry, to_remove)
        finally:
            self._report_progress(self._removed[already_removed:])

    def _find_obstacle(self, sha256: str) -> str:
        """Return the path of the file that is in the place of the folder of an entry, or of a folder above it."""
        entry = self.layout.entry(sha256)
        folders = (self.layout.wheels, os.path.dirname(entry))
        return next((folder for folder in folders if not is_plain_folder(self.fs, folder)), entry)

    def _remove_wheels(self, entry: EntryFolder, to_remove: list[str]) -> bool:
        """Delete wheels of an entry, and the whole folder with the last wheel. Return whether none of them exists."""
        blobs = {name: blob for name in to_remove if (blob := self._find_blob(entry, name)) is not None}
        outcomes: dict[str, Outcome] = {}
        gone: list[str] = []
        try:
            for name in to_remove:
                gone += [name] if self._remove_wheel(entry, name, outcomes) else []
            is_gone = len(gone) == len(entry.names)
            if is_gone:
                self._remove_remaining_files(entry, outcomes)
        finally:
            self.shrunk += _bytes_removed(entry, outcomes)
            ours = [blobs[name] for name in gone if name in blobs and outcomes[blobs[name].path] is Outcome.REMOVED]
            self._removed += [_to_wheel(entry.sha256, blob) for blob in ours]
        return self._remove_trees(entry.sha256) if is_gone else len(gone) == len(to_remove)

    def _remove_wheel(self, entry: EntryFolder, name: str, outcomes: dict[str, Outcome]) -> bool:
        """Delete the blobs and then the record of a wheel. Return whether the wheel no longer exists."""
        blobs = [blob.path for blob in entry.blobs if blob.filename == name]
        for path in (*blobs, self.layout.record(entry.sha256, name)):
            outcomes[path] = self._remove_file(path, entry.sha256)
            if outcomes[path] is Outcome.KEPT:
                return False
        return True

    def _remove_remaining_files(self, entry: EntryFolder, outcomes: dict[str, Outcome]) -> None:
        """Delete the other files of a removed entry. Files that are held open are swept later."""
        blobs = (blob.path for blob in entry.blobs if blob.filename not in entry.names)
        for path in (*blobs, *entry.temporary, *entry.unsafe):
            try:
                outcomes[path] = Outcome.REMOVED if self.dry_run else _unlink(self._cleanup, path)
            except OSError:
                outcomes[path] = Outcome.KEPT
        self._remove_entry_folders(entry)

    def _remove_entry_folders(self, entry: EntryFolder) -> None:
        self.skip_foreign(*entry.foreign, *entry.folders, sha256=entry.sha256)
        if self.dry_run:
            return
        for folder in {os.path.dirname(blob.path) for blob in entry.blobs} - {entry.folder}:
            self._cleanup.remove_folder(folder)
        self._cleanup.remove_folder(entry.folder)

    def _report_progress(self, wheels: Iterable[CachedWheel]) -> None:
        progress = None if self.dry_run else self.fs.op.progress
        if progress is None:
            return
        # The reports must not be cancelled, because the event of an entry that was deleted must not be lost.
        op = self.fs.op.for_cleanup().with_progress(progress)
        for wheel in wheels:
            op.about(wheel.filename).report(Phase.REMOVING, self.freed, detail=wheel.digest)

    def _scan_entry(self, sha256: str, *, wait: bool) -> EntryFolder | None:
        """Read the folder of an entry. If this is refused and ``wait`` is set, retry for up to 0.1 s."""
        try:
            return scan_entry(self.fs, self.layout, sha256)
        except CommitError:
            if not wait or self._waits_left == 0:
                raise
        self._waits_left -= 1
        entry = scan_entry(RobustIO(self.fs.op.waiting_at_most(_SECONDS_PER_WAIT)), self.layout, sha256)
        self._waits_left += 1
        return entry

    def _find_blob(self, entry: EntryFolder, name: str) -> Blob | None:
        """Return the blob of a wheel. If a damaged blob has the same name, the record identifies the right blob."""
        blobs = [blob for blob in entry.blobs if blob.filename == name]
        if len(blobs) > 1:
            try:
                data = read_small(self.fs, self.layout.record(entry.sha256, name), MAX_RECORD)
            except CommitError:
                data = None  # no other process can distinguish the two blobs either
            record = None if data is None else decode_record(data, entry.sha256)
            path = record and self.layout.blob(entry.sha256, name, record.place)
            blobs.sort(key=lambda blob: blob.path == path)
        return blobs[-1] if blobs else None

    def remove_incomplete_entry(self, entry: EntryFolder) -> None:
        """Delete the folder of an entry that lacks its record or its blob, unless it has changed since it was read."""
        try:
            current = scan_entry(self.fs, self.layout, entry.sha256)
        except CommitError as error:
            self.skip(entry.folder, error, entry.sha256)
            return
        if current is None or (current.names and current.blobs) or current.changed != entry.changed:
            return
        for blob in entry.blobs:
            self.remove_leftover(blob.path, blob.size)
        records = (self.layout.record(entry.sha256, name) for name in entry.names)
        for path in (*records, *entry.temporary, *entry.unsafe):
            self.remove_leftover(path, 0)
        self._remove_entry_folders(entry)

    def reset_use(self, *paths: str) -> None:
        """Set the last use of a record or marker to now. An entry that was used in the future would never be pruned."""
        for path in paths:
            if not self.dry_run:
                self.fs.touch(path, self.fs.system.now())

    # Trees

    def _remove_trees(self, sha256: str) -> bool:
        """Delete the trees of a wheel. Files that are held open are kept without a marker, and swept later."""
        is_gone = True
        try:
            if sha256[:SHARD_DIGITS] not in self._shards_with_trees():
                return True
            for tree in list(self.trees.iter_marked(self._cleanup, sha256, skip_unreadable=False)):
                outcome = Outcome.REMOVED if self.dry_run else self.trees.remove_tree(self._cleanup, tree)
                if outcome is Outcome.REMOVED:
                    self.shrunk += tree.size
                elif outcome is Outcome.KEPT:
                    self.skip(tree.folder, "some of its files are in use", sha256)
                    is_gone = False
        except CommitError as error:
            self.skip(error.path or self.layout.trees, error, sha256)
            is_gone = False
        return is_gone

    def _shards_with_trees(self) -> AbstractSet[str]:
        """Return the names of the shards that contain trees.

        They are read once per call, since most caches have few.
        """
        if self._tree_shards is None:
            # If the trees cannot be read, their wheels are removed without them, since the walk has not counted them.
            shards = scan_folder(self._cleanup, self.layout.trees, self.skip)
            self._tree_shards = {entry.name for entry in shards}
        return self._tree_shards

    def remove_unmarked_tree(self, path: str, size: int) -> None:
        """Delete a tree folder without a marker, with its contents."""
        if self.dry_run or remove_recursively(self.fs, path):
            self._swept[path] = None
            self._swept_bytes += size
        else:
            self.skip(path, "some of its files are in use")

    # Leftovers

    def remove_leftover(self, path: str, size: int) -> None:
        """Delete a file that is no longer needed."""
        self.fs.op.check()
        if path not in self._swept and self._remove_file(path) is Outcome.REMOVED:
            self._swept[path] = None
            self._swept_bytes += size

    def remove_empty_folder(self, path: str) -> None:
        """Delete a folder that is no longer needed, if it is empty."""
        if self.dry_run or self.fs.remove_folder(path):
            self._swept[path] = None

    def _remove_file(self, path: str, sha256: str | None = None) -> Outcome:
        if self.dry_run:
            return Outcome.REMOVED
        try:
            return _unlink(self._cleanup, path)
        except OSError as error:
            self.skip(path, error, sha256)
            return Outcome.KEPT


def unsafe_path(error: OSError) -> str | None:
    """Return the path of the link or special file that an operation refused to follow, or ``None``."""
    unsafe = error.__cause__ if isinstance(error, CommitError) else error
    return unsafe.filename if isinstance(unsafe, UnsafePathError) else None


def _cause_of(error: OSError, path: str) -> Cause:
    return error.cause if isinstance(error, CommitError) else cause_of(error, path)


def _unlink(fs: RobustIO, path: str) -> Outcome:
    """Delete a file.

    Raises:
        OSError: unchanged, if the deletion is refused.
    """
    try:
        fs.files.unlink(path)
    except OSError as error:
        if is_missing(error, path) or is_delete_pending(error):
            return Outcome.GONE
        raise
    return Outcome.REMOVED


def _bytes_removed(entry: EntryFolder, outcomes: dict[str, Outcome]) -> int:
    """Return the size of the files that no longer have any name, and whose first name this call deleted."""
    files: dict[int, list[Blob]] = {}
    for blob in entry.blobs:
        files.setdefault(blob.inode, []).append(blob)
    return sum(
        blobs[0].size
        for blobs in files.values()
        if outcomes.get(blobs[0].path) is Outcome.REMOVED and all(outcomes.get(blob.path) for blob in blobs)
    )


def _to_wheel(sha256: str, blob: Blob) -> CachedWheel:
    hashes = {"sha256": sha256}
    return CachedWheel(Path(blob.path), blob.filename, f"sha256:{sha256}", blob.size, hashes, None, Status.HIT)
