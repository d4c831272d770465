"""The tally: how often wheels were found since the cache was made, and about how many bytes it holds.

Counting is done in memory and costs a hit nothing. What was counted is appended as one short line to a file when a
miss has done its much larger work, and on close. Appending needs no lock; a line that was torn is passed over. What is
removed is appended too, as less than nothing, so that the sum of all lines says about how large the cache is without a
walk; whoever does walk appends the difference.

A file that has grown long is given another name, counts on under it, and is summed up into one line an hour later, when
nobody can have it open any more. Only who deletes it writes the sum, so that nothing is counted twice.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from typing import NamedTuple

from ._disk import Disk, write_all
from ._errors import CommitError
from ._layout import Layout, Stamp

_LINE = re.compile(rb"(\d{1,20}) (\d{1,20}) (\d{1,20})(?: (-?\d{1,20}))?", re.ASCII)
_LONG = 1 << 16
_SETTLED = 3600.0


class Count(NamedTuple):
    """What was counted; ``growth`` is the bytes of wheels and trees that came, less those that went."""

    hits: int = 0
    misses: int = 0
    bytes_saved: int = 0
    growth: int = 0

    def plus(self, other: Count) -> Count:
        """The sum of both."""
        return Count(
            self.hits + other.hits,
            self.misses + other.misses,
            self.bytes_saved + other.bytes_saved,
            self.growth + other.growth,
        )

    def line(self) -> bytes:
        """It as a line, which begins anew: what a killed machine tore off before must not run into it."""
        return f"\n{self.hits} {self.misses} {self.bytes_saved} {self.growth}\n".encode("ascii")


class Tally:
    """The counters of one cache folder."""

    def __init__(self, layout: Layout, *, writable: bool) -> None:
        self._layout = layout
        self._writable = writable
        self._lock = threading.Lock()
        self._unwritten = Count()
        # What was read of the file last time: its inode, how far, and the sum. Only what was appended since is read.
        self._read = (0, 0, Count())

    def hit(self, size: int) -> None:
        """Count a wheel that was found."""
        self._count(Count(hits=1, bytes_saved=size))

    def miss(self) -> None:
        """Count a wheel that was not."""
        self._count(Count(misses=1))

    def grew(self, size: int) -> None:
        """Count bytes that came into the cache; below zero for those that went."""
        self._count(Count(growth=size))

    def _count(self, count: Count) -> None:
        with self._lock:
            self._unwritten = self._unwritten.plus(count)

    def write(self, disk: Disk) -> None:
        """Append what was counted since the last time. It is never worth an error, nor waiting."""
        with self._lock:
            count, self._unwritten = self._unwritten, Count()
        if count == Count() or not self._writable:
            return
        try:
            with disk.files.open_append(self._layout.tally) as file:
                write_all(file, count.line())
        except OSError:
            self._count(count)

    def read(self, disk: Disk) -> Count:
        """Return everything that was counted, by this object too."""
        total = self._unwritten.plus(_sum(disk.read(self._layout.tally)))
        for path in self._sealed(disk):
            total = total.plus(_sum(disk.read(path)))
        return total

    def size(self, disk: Disk) -> int:
        """Return about how many bytes of wheels and trees there are, without a walk. Never waits and never fails."""
        try:
            with self._lock:
                current = self._current(disk)
            sealed = sum(_sum(disk.read(path)).growth for path in self._sealed(disk))
        except (OSError, CommitError):
            return 0  # nothing can be read just now; the next commit asks again
        return current.plus(self._unwritten).growth + sealed

    def _current(self, disk: Disk) -> Count:
        stat = disk.stat(self._layout.tally)
        if stat is None:
            return Count()
        inode, offset, total = self._read
        if stat.st_ino != inode or stat.st_size < offset:
            offset, total = 0, Count()
        if stat.st_size > offset:
            with disk.files.open_read(self._layout.tally) as file:
                file.seek(offset)
                # A line that is being written is read whole the next time.
                data = file.read(stat.st_size - offset).rpartition(b"\n")
            offset, total = offset + len(data[0]) + len(data[1]), total.plus(_sum(data[0]))
        self._read = (stat.st_ino, offset, total)
        return total

    def tidy(self, disk: Disk) -> None:
        """Sum up files that have grown long. It is never worth an error, nor waiting."""
        now = disk.system.now()
        try:
            for path in list(self._sealed(disk)):
                stamp = Stamp.of(os.path.basename(path))
                if stamp is not None and now - stamp.time > _SETTLED:
                    total = _sum(disk.read(path))
                    disk.files.unlink(path)
                    self._count(total)
            stat = disk.stat(self._layout.tally)
            if stat is not None and stat.st_size > _LONG:
                disk.files.rename(self._layout.tally, self._layout.sealed_tally(Stamp.new(now, disk.system.boot())))
        except (OSError, CommitError):
            pass  # another process does the same, or the next prune does it
        self.write(disk)

    def _sealed(self, disk: Disk) -> Iterator[str]:
        for entry in disk.scan(self._layout.version):
            if self._layout.is_sealed_tally(entry.name):
                yield os.path.join(self._layout.version, entry.name)


def _sum(data: bytes | None) -> Count:
    total = Count()
    for line in (data or b"").splitlines():
        found = _LINE.fullmatch(line)
        if found is not None:
            total = total.plus(Count(*(int(number or 0) for number in found.groups())))
    return total
