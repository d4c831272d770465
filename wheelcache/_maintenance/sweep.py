"""Sweep: finding leftovers: what was begun by somebody who is gone, was put aside long ago, or leads nowhere.

Who made an unfinished file and when is in its name. A process is known to be gone within its own boot and process space
only; a file that was made in another (in another container, or on another machine that shares the folder) is a leftover
when nobody has written to it for as long as it takes. What is there for a moment only does not say its process space.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable, Iterator

from .._exceptions import CommitError
from .._fs.lock import FileLock
from .._fs.tempnames import OwnerTag, boot_tag, space_tag
from .._store.index import target_of
from .._store.walk import EntryFolder, walk_files
from .removal import Remover

_HOUR = 3600.0
_DAY = 24 * _HOUR
TEMPORARY_AGE = _DAY
PARTIAL_AGE = 7 * _DAY
QUARANTINE_AGE = 30 * _DAY
LOCK_AGE = _HOUR
# What is asked for again after that comes again in one small request.
METADATA_AGE = 30 * _DAY


class Sweeper:
    """The leftovers of one cache folder.

    Args:
        removal: what takes them away, and is told what cannot be looked into.
        everything: whether all is a leftover, whatever its age, but what a process that lives may be using.
    """

    def __init__(self, removal: Remover, *, everything: bool = False) -> None:
        self._removal = removal
        self._fs = removal.fs
        self._layout = removal.layout
        self._everything = everything
        self._now = self._fs.system.now()
        boot = self._fs.system.boot()
        self._boot = None if boot is None else boot_tag(boot)
        self._space = space_tag(self._fs.system.pid_namespace())

    def run(self) -> None:
        """Take the leftovers away that are no part of an entry's folder."""
        for folder, age in ((self._layout.tmp, TEMPORARY_AGE), (self._layout.partial, PARTIAL_AGE)):
            for path, stat in self._files(folder):
                self._unfinished(path, stat, age)
        self._probes()
        self.unmarked()
        for path, stat in self._files(self._layout.quarantine):
            stamp = OwnerTag.of(os.path.basename(path))
            put_there = stat.st_mtime if stamp is None else stamp.time
            if self._everything or self._now - put_there > QUARANTINE_AGE:
                self._removal.leftover(path, stat.st_size)
        for path, stat in self._files(self._layout.descriptions):
            if self._everything or self._now - stat.st_mtime > METADATA_AGE:
                self._removal.leftover(path, stat.st_size)
        for path, stat in self._files(self._layout.locks):
            if self._everything or self._now - stat.st_mtime > LOCK_AGE:
                self._lock(path, stat.st_size)

    def unmarked(self) -> None:
        """Take away folders that were to become trees, unless somebody may be filling them."""
        try:
            for folder in self._removal.trees.debris(self._fs):
                stat = self._fs.stat(folder)
                if stat is None:
                    continue
                if self._now - stat.st_mtime > TEMPORARY_AGE:
                    self._removal.unmarked(folder, sum(stat.st_size for _, stat in self._files(folder)))
                elif self._everything:
                    self._removal.skip(folder, "somebody may be filling it")
        except CommitError as error:
            self._removal.skip(error.path or self._layout.trees, error)

    def pointers(self, is_there: Callable[[str], bool]) -> None:
        """Take away the pointers that lead to no entry, or nowhere at all."""
        for path, stat in self._files(self._layout.urls):
            try:
                # Who reads from a pipe waits for its writer.
                sha256 = target_of(self._fs.read(path)) if modes.S_ISREG(stat.st_mode) else None
                stays = not self._everything and sha256 is not None and is_there(sha256)
            except CommitError as error:
                self._removal.skip(path, error)
                continue
            if not stays:
                self._removal.leftover(path, stat.st_size)

    def remains(self, entry: EntryFolder) -> None:
        """Take away the folder of what is no entry, unless somebody may be about to make it one."""
        if self._everything or self._now - entry.changed > TEMPORARY_AGE:
            self._removal.remains(entry)

    def _unfinished(self, path: str, stat: os.stat_result, age: float) -> None:
        stamp = OwnerTag.of(os.path.basename(path))
        if stamp is None:
            return  # not ours: verify tells of it
        last = max(stamp.time, stat.st_mtime)
        if self._is_alive(stamp, last):
            if self._everything:
                self._removal.skip(path, f"in use by process {stamp.pid}")
        elif self._everything or self._now - last > age:
            self._removal.leftover(path, stat.st_size)

    def _probes(self) -> None:
        """Take away the folders that doctor made to see whether it can, and that were held when it was done."""
        try:
            entries = self._fs.scan(self._layout.tmp)
        except CommitError:
            return  # it is told already
        for entry in entries:
            stamp = OwnerTag.of(entry.name)
            if stamp is None or not entry.is_dir(follow_symlinks=False) or self._is_alive(stamp, stamp.time):
                continue
            if self._everything or self._now - stamp.time > TEMPORARY_AGE:
                self._removal.empty_folder(os.path.join(self._layout.tmp, entry.name))

    def _is_alive(self, stamp: OwnerTag, last: float) -> bool:
        if stamp.pid == 0:
            return False  # given up in order
        if stamp.boot == self._boot and stamp.space in {self._space, None}:
            is_alive = self._fs.system.process_alive(stamp.pid)
            if is_alive or stamp.space is not None:
                return is_alive
        return self._now - last <= TEMPORARY_AGE

    def _lock(self, path: str, size: int) -> None:
        """Take a lock away that nobody holds. Finding out would delete it, so a dry run takes it for free."""
        lock = FileLock(self._fs, path)
        try:
            is_free = self._removal.dry_run or lock.try_acquire()
        except OSError:
            is_free = True  # no locks can be had here, so this one is no use to anybody
        if is_free:
            self._removal.leftover(path, size)
        lock.release()

    def _files(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        return walk_files(self._fs, folder, self._removal.skip)
