"""Count hits and misses of a cache, and estimate its size without a walk.

A process counts in memory, so a hit writes nothing. After a miss and when the cache is closed, the process appends its
counts to a file, as one short line. Appending needs no lock, since readers skip an incomplete line. The bytes of
removed files are appended as a negative number, so that the sum of the lines estimates the size.

A full walk appends the absolute size, not a difference. If two walks found the same difference, it would be applied
twice.

A file that has grown long is sealed by renaming it. An hour later, when no process has the sealed file open any more,
one line in the current file replaces it. The process that deletes the sealed file writes that line, so that no count is
added twice.
"""

from __future__ import annotations

import os
import re
import stat as modes
import threading
from typing import NamedTuple

from .._exceptions import CommitError
from .._fs.robustio import RobustIO, write_all
from .._fs.small import read_optional, read_small
from .._fs.tempnames import OwnerTag
from .layout import Layout, is_sealed_counters

_LINE = re.compile(rb"(\d{1,20}) (\d{1,20}) (\d{1,20})(?: (=?)(-?\d{1,20}))?", re.ASCII)
# The size in bytes from which a file is sealed, and the age in seconds at which a sealed file is merged.
_LONG = 1 << 16
_SETTLED = 3600.0
# Bytes. A process appends about 30 bytes. Prune seals a file that has grown long, and merges sealed files.
_LARGEST = 64 << 20


class Count(NamedTuple):
    """Counts, or a sum of counts.

    Attributes:
        hits: the number of requested wheels that were in the cache.
        misses: the number of requested wheels that were not in the cache.
        bytes_saved: the bytes of the wheels that were in the cache.
        growth: the bytes of wheels and trees that were added, minus those that were removed.
        is_total: whether ``growth`` is the absolute size that a walk found.
        added: the bytes that were added, regardless of removals and walks.
    """

    hits: int = 0
    misses: int = 0
    bytes_saved: int = 0
    growth: int = 0
    is_total: bool = False
    added: int = 0

    def plus(self, later: Count) -> Count:
        """Return the sum of these counts and later ones."""
        return Count(
            self.hits + later.hits,
            self.misses + later.misses,
            self.bytes_saved + later.bytes_saved,
            later.growth if later.is_total else self.growth + later.growth,
            self.is_total or later.is_total,
            self.added + later.added,
        )

    def without_sizes(self) -> Count:
        """Return the counts without the size of the cache."""
        return Count(self.hits, self.misses, self.bytes_saved)

    def line(self) -> bytes:
        """Return the counts as a line. It begins with a line break in case the previous line is incomplete."""
        size = f"={self.growth}" if self.is_total else f"{self.growth}"
        return f"\n{self.hits} {self.misses} {self.bytes_saved} {size}\n".encode("ascii")


_NOTHING = Count()


class Counters:
    """The counters of one cache folder."""

    def __init__(self, layout: Layout, *, writable: bool) -> None:
        self._layout = layout
        self._writable = writable
        self.after_fork()
        # The inode, the offset and the sum of the last read. The next read starts at the offset.
        self._read = (0, 0, _NOTHING)

    def after_fork(self) -> None:
        """Replace the lock, since a thread of the parent may hold it. Discard counts that the parent will write."""
        self._lock = threading.Lock()
        self._unwritten = _NOTHING

    def hit(self, size: int) -> None:
        """Count a requested wheel that was in the cache, with its size in bytes."""
        self._count(Count(hits=1, bytes_saved=size))

    def miss(self) -> None:
        """Count a requested wheel that was not in the cache."""
        self._count(Count(misses=1))

    def add_growth(self, size: int) -> None:
        """Count bytes that were added or, as a negative number, removed."""
        self._count(Count(growth=size, added=max(size, 0)))

    def _count(self, count: Count) -> None:
        with self._lock:
            self._unwritten = self._unwritten.plus(count)

    def write(self, fs: RobustIO) -> None:
        """Append the counts since the last call, best effort, without waiting or raising. Cannot be cancelled."""
        with self._lock:
            count, self._unwritten = self._unwritten, _NOTHING
        if count == _NOTHING or not self._writable:
            return
        try:
            # The write must not be cancelled, because the counts would be lost.
            with fs.system.files.open_append(self._layout.counters) as file:
                write_all(file, count.line())
        except OSError:
            # An absolute size is dropped, because it will be outdated at the next attempt.
            retained = count.without_sizes() if count.is_total else count
            with self._lock:
                self._unwritten = retained.plus(self._unwritten)

    def read(self, fs: RobustIO) -> Count:
        """Return all counts, including those that this object has not written yet. Unreadable files are skipped.

        Raises:
            CommitError: if the folder of the files cannot be read.
        """
        current = _sum(read_optional(fs, self._layout.counters, _LARGEST))
        return self._sum_of_sealed(fs).plus(current).plus(self._unwritten)

    def size(self, fs: RobustIO) -> int:
        """Return the estimated bytes of wheels and trees, without a walk. Never waits or raises.

        The estimate is negative if bytes were removed that had never been counted.
        """
        return self._sizes(fs).growth

    def added(self, fs: RobustIO) -> int:
        """Return the bytes added since a fixed moment, to compare with a later call. Never waits or raises."""
        return self._sizes(fs).added

    def _sizes(self, fs: RobustIO) -> Count:
        try:
            with self._lock:
                current = self._current(fs).plus(self._unwritten)
            return self._sum_of_sealed(fs).plus(current)
        except (OSError, CommitError):
            return _NOTHING  # the next commit reads the files again

    def _current(self, fs: RobustIO) -> Count:
        stat = fs.stat(self._layout.counters)
        if stat is None or not modes.S_ISREG(stat.st_mode) or stat.st_size > _LARGEST:
            return Count()
        inode, offset, total = self._read
        if stat.st_ino != inode or stat.st_size < offset:
            offset, total = 0, Count()
        if stat.st_size > offset:
            with fs.files.open_read(self._layout.counters) as file:
                file.seek(offset)
                # The next read repeats an incomplete last line.
                data = file.read(stat.st_size - offset).rpartition(b"\n")
            offset, total = offset + len(data[0]) + len(data[1]), _sum(data[0], total)
        self._read = (stat.st_ino, offset, total)
        return total

    def record_size(self, fs: RobustIO, size: int) -> None:
        """Append the absolute size that a walk found, best effort, without waiting or raising.

        Long files are sealed and old sealed files are merged, since the sizes in them no longer count.
        """
        self._merge_sealed(fs)
        if self._sizes(fs).growth != size:
            self._count(Count(growth=size, is_total=True))
        self.write(fs)

    def _merge_sealed(self, fs: RobustIO) -> None:
        now = fs.system.now()
        try:
            for path in self._sealed(fs):
                owner = OwnerTag.of(os.path.basename(path))
                if owner is not None and now - owner.time > _SETTLED:
                    total = _sum(read_small(fs, path, _LARGEST))
                    fs.files.unlink(path)
                    self._count(total.without_sizes())
            stat = fs.stat(self._layout.counters)
            if stat is not None and stat.st_size > _LONG:
                fs.files.rename(
                    self._layout.counters, self._layout.sealed_counters(OwnerTag.new(now, fs.system.boot()))
                )
        except (OSError, CommitError):
            pass  # another process merges the file now, or the next prune will

    def _sum_of_sealed(self, fs: RobustIO) -> Count:
        total = Count()
        for path in self._sealed(fs):
            total = _sum(read_optional(fs, path, _LARGEST), total)
        return total

    def _sealed(self, fs: RobustIO) -> list[str]:
        """Return the paths of the sealed files, oldest first, since their names begin with the time of sealing."""
        names = sorted(entry.name for entry in fs.scan(self._layout.version))
        return [os.path.join(self._layout.version, name) for name in names if is_sealed_counters(name)]


def _sum(data: bytes | None, total: Count = _NOTHING) -> Count:
    for line in (data or b"").splitlines():
        found = _LINE.fullmatch(line)
        if found is not None:
            hits, misses, saved, is_total, growth = found.groups()
            size = int(growth or 0)
            added = 0 if is_total else max(size, 0)
            total = total.plus(Count(int(hits), int(misses), int(saved), size, bool(is_total), added))
    return total
