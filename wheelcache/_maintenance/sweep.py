"""Remove leftovers, such as unfinished files of ended processes, old quarantine, and pointers to missing entries.

The name of an unfinished file contains the ID of the process that created it, and the time. Only processes in the same
boot and PID namespace can determine whether that process still runs. A file may be from another container, or from
another machine that shares the folder. Such a file becomes a leftover if nothing has been written to it for a day, or
for a week if it is a partial download. The names of short-lived files do not contain a PID namespace.

A link or special file that has the name of a leftover is one, and is removed at the same age. The cache contains no
links, so one in the place of a folder, record, marker or pointer is removed at once.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable, Iterator

from .._exceptions import CommitError
from .._fs.lock import FileLock
from .._fs.small import read_small
from .._fs.tempnames import OwnerTag, boot_tag, space_tag
from .._os.confined.entries import FolderEntry
from .._store.index import MAX_POINTER, digest_in_pointer
from .._store.layout import FolderPattern, is_temporary, marker_path
from .._store.walk import EntryFolder, scan_folder, walk_files, walk_shards
from .foreign import is_unsafe
from .removal import Remover

_HOUR = 3600.0
_DAY = 24 * _HOUR
TEMPORARY_AGE = _DAY
PARTIAL_AGE = 7 * _DAY
QUARANTINE_AGE = 30 * _DAY
LOCK_AGE = _HOUR
# METADATA can be fetched again by one small request.
METADATA_AGE = 30 * _DAY


class Sweeper:
    """Removes the leftovers of one cache folder.

    Args:
        remover: deletes the leftovers, and collects the report.
        everything: ignore the age of files, and keep only the files of running processes.
    """

    def __init__(self, remover: Remover, *, everything: bool = False) -> None:
        self._remover = remover
        self._fs = remover.fs
        self._layout = remover.layout
        self._everything = everything
        self._now = self._fs.system.now()
        boot = self._fs.system.boot()
        self._boot = None if boot is None else boot_tag(boot)
        self._space = space_tag(self._fs.system.pid_namespace())
        self._patterns = {pattern.folder: pattern for pattern in self._layout.patterns()}

    def sweep(self) -> None:
        """Remove all leftovers except pointers and incomplete entries."""
        self._sweep_version_folder()
        for path, stat in self._files(self._layout.tmp):
            self._sweep_unfinished(path, stat, TEMPORARY_AGE)
        for path, stat in self._files(self._layout.partial):
            self._sweep_unfinished(path, stat, PARTIAL_AGE)
        self._sweep_unmarked_trees()
        self._sweep_quarantine()
        self._sweep_metadata()
        self._sweep_locks()

    def sweep_index(self, exists: Callable[[str], bool]) -> None:
        """Remove pointers that cannot be parsed, and pointers to missing entries.

        Args:
            exists: returns whether the entry of a sha256 exists.
        """
        for path, stat in self._files_and_temporary(self._layout.urls):
            try:
                sha256 = digest_in_pointer(read_small(self._fs, path, MAX_POINTER))
                is_valid = not self._everything and sha256 is not None and exists(sha256)
            except CommitError as error:
                self._remover.skip(path, error)
                continue
            if not is_valid:
                self._remover.remove_leftover(path, stat.st_size)

    def sweep_entry(self, entry: EntryFolder) -> None:
        """Remove the links and special files of an entry."""
        for path in entry.unsafe:
            self._remover.remove_leftover(path, 0)

    def sweep_incomplete_entry(self, entry: EntryFolder) -> None:
        """Remove an entry that lacks its record or its blob, unless a process may be completing it."""
        if self._is_old(entry.changed, TEMPORARY_AGE):
            self._remover.remove_incomplete_entry(entry)

    def _sweep_version_folder(self) -> None:
        """Remove the links, special files and probes directly in the folder of this version."""
        for entry in scan_folder(self._fs, self._layout.version, self._remover.skip):
            path = os.path.join(self._layout.version, entry.name)
            if is_temporary(entry.name):
                self._sweep_temporary(path, entry)
            elif not (entry.is_dir or entry.is_file) and self._layout.is_own(entry.name, is_folder=False):
                self._remover.remove_leftover(path, 0)

    def _sweep_unfinished(self, path: str, stat: os.stat_result, max_age: float) -> None:
        owner = OwnerTag.of(os.path.basename(path))
        if owner is None:
            return  # no pattern matches such a name
        last_write = max(owner.time, stat.st_mtime)
        if self._is_alive(owner, last_write):
            if self._everything:
                self._remover.skip(path, f"in use by process {owner.pid}")
        elif self._is_old(last_write, max_age):
            self._remover.remove_leftover(path, stat.st_size)

    def _sweep_temporary(self, path: str, entry: FolderEntry) -> None:
        """Remove a temporary file, or a folder that was created as a probe and could not be deleted."""
        if not entry.is_dir:
            stat = self._stat(path)
            if stat is not None:
                self._sweep_unfinished(path, stat, TEMPORARY_AGE)
            return
        owner = OwnerTag.of(entry.name)
        if owner is not None and not self._is_alive(owner, owner.time) and self._is_old(owner.time, TEMPORARY_AGE):
            self._remover.remove_empty_folder(path)

    def _sweep_unmarked_trees(self) -> None:
        """Remove tree folders without a marker, unless a process may be filling them."""
        trees = self._remover.trees
        for folder, is_marked in trees.iter_folders(self._fs, self._remover.handle_error):
            try:
                if not (is_marked and trees.read_marker(self._fs, folder)):
                    self._sweep_unmarked_tree(folder)
            except CommitError as error:
                self._remover.skip(error.path or folder, error)

    def _sweep_unmarked_tree(self, folder: str) -> None:
        marker = marker_path(folder)
        folder_stat, marker_stat = self._fs.stat(folder), self._fs.stat(marker)
        # Windows gives a junction the mode of a folder.
        if folder_stat is not None and is_unsafe(self._fs, folder):
            self._remover.remove_leftover(folder, 0)
        elif folder_stat is not None and modes.S_ISDIR(folder_stat.st_mode):
            if self._is_unused_tree(folder, folder_stat):
                size = sum(stat.st_size for _, stat in walk_files(self._fs, folder, self._remover.skip))
                self._remover.remove_unmarked_tree(folder, size)
        elif folder_stat is not None:
            self._remover.skip_foreign(folder)
        if marker_stat is None:
            return
        if modes.S_ISDIR(marker_stat.st_mode):
            self._remover.skip_foreign(marker)
        elif not modes.S_ISREG(marker_stat.st_mode) or (
            folder_stat is None and self._is_unused_tree(marker, marker_stat)
        ):
            self._remover.remove_leftover(marker, marker_stat.st_size)

    def _is_unused_tree(self, path: str, stat: os.stat_result) -> bool:
        if self._now - stat.st_mtime > TEMPORARY_AGE:
            return True
        if self._everything:
            self._remover.skip(path, "another process may be filling the folder")
        return False

    def _sweep_quarantine(self) -> None:
        for path, stat in self._files(self._layout.quarantine):
            owner = OwnerTag.of(os.path.basename(path))
            if self._is_old(stat.st_mtime if owner is None else owner.time, QUARANTINE_AGE):
                self._remover.remove_leftover(path, stat.st_size)

    def _sweep_metadata(self) -> None:
        for path, stat in self._files_and_temporary(self._layout.metadata_files):
            if self._is_old(stat.st_mtime, METADATA_AGE):
                self._remover.remove_leftover(path, stat.st_size)

    def _sweep_locks(self) -> None:
        for path, stat in self._files_and_temporary(self._layout.locks):
            if not self._is_old(stat.st_mtime, LOCK_AGE):
                continue
            if modes.S_ISREG(stat.st_mode):
                self._remove_free_lock(path, stat.st_size)
            else:
                self._remover.remove_leftover(path, 0)

    def _remove_free_lock(self, path: str, size: int) -> None:
        """Remove a lock that no process holds."""
        if self._remover.dry_run:
            # A dry run assumes that the lock is free, because acquiring and releasing the lock would delete it.
            self._remover.remove_leftover(path, size)
            return
        lock = FileLock(self._fs, path)
        try:
            try:
                is_free = lock.try_acquire()
            except OSError:
                is_free = True  # no process can acquire a lock here, so the file is useless
            if is_free:
                self._remover.remove_leftover(path, size)
        finally:
            lock.release()

    def _is_old(self, since: float, max_age: float) -> bool:
        return self._everything or self._now - since > max_age

    def _is_alive(self, owner: OwnerTag, last_write: float) -> bool:
        """Return whether the process that created a file may still be using it."""
        if owner.pid == 0:
            return False  # its owner abandoned the file
        if owner.boot == self._boot and owner.space in {self._space, None}:
            is_alive = self._fs.system.process_alive(owner.pid)
            if is_alive or owner.space is not None:
                return is_alive
        return self._now - last_write <= TEMPORARY_AGE

    def _files_and_temporary(self, area: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the files of an area like :meth:`_files`, except for temporary files. Those are swept."""
        for path, stat in self._files(area):
            if is_temporary(os.path.basename(path)):
                self._sweep_unfinished(path, stat, TEMPORARY_AGE)
            else:
                yield path, stat

    def _files(self, area: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the path and status of every file, link and special file in an area that has the name of a file.

        Links and special files that have the name of a folder are removed. Foreign files and folders are reported.
        """
        pattern = self._patterns[area]
        yield from self._files_in(area, pattern.of_top())
        if pattern.in_shards:
            # Errors are ignored, because the line above has already reported them.
            for shard in walk_shards(self._fs, area, lambda *_: None):
                yield from self._files_in(shard, pattern)

    def _files_in(self, folder: str, pattern: FolderPattern) -> Iterator[tuple[str, os.stat_result]]:
        for entry in scan_folder(self._fs, folder, self._remover.skip):
            path = os.path.join(folder, entry.name)
            is_plain = entry.is_dir or entry.is_file
            if not (pattern.is_ours(entry.name, entry.is_dir) if is_plain else pattern.is_used(entry.name)):
                self._remover.skip_foreign(path)
            elif entry.is_dir:
                if is_temporary(entry.name):
                    self._sweep_temporary(path, entry)
            elif not pattern.is_ours(entry.name, is_folder=False):
                self._remover.remove_leftover(path, 0)
            elif (stat := self._stat(path)) is not None:
                yield path, stat

    def _stat(self, path: str) -> os.stat_result | None:
        try:
            return self._fs.stat(path)
        except CommitError as error:
            self._remover.skip(path, error)
            return None
