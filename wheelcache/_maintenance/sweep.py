"""Remove leftovers, such as unfinished files of ended processes, old quarantine, and pointers to missing entries.

The name of an unfinished file contains the ID of the process that created it, and the time. Only processes in the same
boot and PID namespace can determine whether that process still runs. A file may be from another container, or from
another machine that shares the folder. Such a file becomes a leftover if nothing has been written to it for a day, or
for a week if it is a partial download. The names of short-lived files do not contain a PID namespace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from .._exceptions import CommitError
from .._fs.lock import FileLock
from .._fs.small import read_small
from .._fs.tempnames import OwnerTag, boot_tag, space_tag
from .._store.index import MAX_POINTER, digest_in_pointer
from .._store.walk import EntryFolder, scan_folder, walk_files
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

    def sweep(self) -> None:
        """Remove all leftovers except pointers and incomplete entries."""
        self._sweep_unfinished(self._layout.tmp, TEMPORARY_AGE)
        self._sweep_unfinished(self._layout.partial, PARTIAL_AGE)
        self._sweep_probe_folders()
        self._sweep_unmarked_trees()
        self._sweep_quarantine()
        self._sweep_metadata()
        self._sweep_locks()

    def sweep_index(self, exists: Callable[[str], bool]) -> None:
        """Remove pointers that cannot be parsed, and pointers to missing entries.

        Args:
            exists: returns whether the entry of a sha256 exists.
        """
        for path, stat in self._files(self._layout.urls):
            try:
                sha256 = digest_in_pointer(read_small(self._fs, path, MAX_POINTER))
                is_valid = not self._everything and sha256 is not None and exists(sha256)
            except CommitError as error:
                self._remover.skip(path, error)
                continue
            if not is_valid:
                self._remover.remove_leftover(path, stat.st_size)

    def sweep_incomplete_entry(self, entry: EntryFolder) -> None:
        """Remove an entry that lacks its record or its blob, unless a process may be completing it."""
        if self._is_old(entry.changed, TEMPORARY_AGE):
            self._remover.remove_incomplete_entry(entry)

    def _sweep_unfinished(self, folder: str, max_age: float) -> None:
        for path, stat in self._files(folder):
            owner = OwnerTag.of(os.path.basename(path))
            if owner is None:
                continue  # verify reports foreign files
            last_write = max(owner.time, stat.st_mtime)
            if self._is_alive(owner, last_write):
                if self._everything:
                    self._remover.skip(path, f"in use by process {owner.pid}")
            elif self._is_old(last_write, max_age):
                self._remover.remove_leftover(path, stat.st_size)

    def _sweep_probe_folders(self) -> None:
        """Remove the folders that ``doctor`` created as probes and could not delete because they were held open."""
        # Errors are ignored, because the sweep of unfinished files in the same folder has already reported them.
        for entry in scan_folder(self._fs, self._layout.tmp, lambda *_: None):
            owner = OwnerTag.of(entry.name)
            if owner is None or not entry.is_dir or self._is_alive(owner, owner.time):
                continue
            if self._is_old(owner.time, TEMPORARY_AGE):
                self._remover.remove_empty_folder(os.path.join(self._layout.tmp, entry.name))

    def _sweep_unmarked_trees(self) -> None:
        """Remove tree folders without a marker, unless a process may be filling them."""
        try:
            for folder in self._remover.trees.iter_unmarked(self._fs):
                stat = self._fs.stat(folder)
                if stat is None:
                    continue
                if self._now - stat.st_mtime > TEMPORARY_AGE:
                    size = sum(stat.st_size for _, stat in self._files(folder))
                    self._remover.remove_unmarked_tree(folder, size)
                elif self._everything:
                    self._remover.skip(folder, "another process may be filling the folder")
        except CommitError as error:
            self._remover.skip(error.path or self._layout.trees, error)

    def _sweep_quarantine(self) -> None:
        for path, stat in self._files(self._layout.quarantine):
            owner = OwnerTag.of(os.path.basename(path))
            if self._is_old(stat.st_mtime if owner is None else owner.time, QUARANTINE_AGE):
                self._remover.remove_leftover(path, stat.st_size)

    def _sweep_metadata(self) -> None:
        for path, stat in self._files(self._layout.metadata_files):
            if self._is_old(stat.st_mtime, METADATA_AGE):
                self._remover.remove_leftover(path, stat.st_size)

    def _sweep_locks(self) -> None:
        for path, stat in self._files(self._layout.locks):
            if self._is_old(stat.st_mtime, LOCK_AGE):
                self._remove_free_lock(path, stat.st_size)

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

    def _files(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        return walk_files(self._fs, folder, self._remover.skip)
