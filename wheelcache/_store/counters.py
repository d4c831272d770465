"""The tally: how often wheels were found since the cache was made, and about how many bytes it holds.

Counting is done in memory and costs a hit nothing. What was counted is appended as one short line to a file when a
miss has done its much larger work, and on close. Appending needs no lock; a line that was torn is passed over. What is
removed is appended too, as less than nothing, so that the lines say about how large the cache is without a walk.

Whoever does walk appends how much there is, in the place of all that the lines before say of it, and no difference: of
two who found the same difference, each would count it.

A file that has grown long is given another name, counts on under it, and is summed up into one line an hour later, when
nobody can have it open any more. Only who deletes it writes the sum, so that nothing is counted twice.
"""

from __future__ import annotations

import os
import re
import threading
from typing import NamedTuple

from .._exceptions import CommitError
from .._fs.robustio import RobustIO, write_all
from .._fs.tempnames import OwnerTag
from .layout import Layout

_LINE = re.compile(rb"(\d{1,20}) (\d{1,20}) (\d{1,20})(?: (=?)(-?\d{1,20}))?", re.ASCII)
_LONG = 1 << 16
_SETTLED = 3600.0


class Count(NamedTuple):
    """What was counted.

    Attributes:
        hits: wheels that were found.
        misses: wheels that were not.
        bytes_saved: the bytes of those that were found.
        growth: the bytes of wheels and trees that came, less those that went.
        is_total: whether ``growth`` is all that there was, as a walk has found it.
        came: the bytes that came, whatever went and whatever a walk has found.
    """

    hits: int = 0
    misses: int = 0
    bytes_saved: int = 0
    growth: int = 0
    is_total: bool = False
    came: int = 0

    def plus(self, later: Count) -> Count:
        """Both, one after the other."""
        return Count(
            self.hits + later.hits,
            self.misses + later.misses,
            self.bytes_saved + later.bytes_saved,
            later.growth if later.is_total else self.growth + later.growth,
            self.is_total or later.is_total,
            self.came + later.came,
        )

    def without_sizes(self) -> Count:
        """What has nothing to do with the size of the cache."""
        return Count(self.hits, self.misses, self.bytes_saved)

    def line(self) -> bytes:
        """It as a line, which begins anew: what a killed machine tore off before must not run into it."""
        size = f"={self.growth}" if self.is_total else f"{self.growth}"
        return f"\n{self.hits} {self.misses} {self.bytes_saved} {size}\n".encode("ascii")


_NOTHING = Count()


class Counters:
    """The counters of one cache folder."""

    def __init__(self, layout: Layout, *, writable: bool) -> None:
        self._layout = layout
        self._writable = writable
        self.after_fork()
        # What was read of the file last time: its inode, how far, and the sum. Only what was appended since is read.
        self._read = (0, 0, Count())

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may hold, and leave to the parent what it counted."""
        self._lock = threading.Lock()
        self._unwritten = Count()

    def hit(self, size: int) -> None:
        """Count a wheel that was found."""
        self._count(Count(hits=1, bytes_saved=size))

    def miss(self) -> None:
        """Count a wheel that was not."""
        self._count(Count(misses=1))

    def add_growth(self, size: int) -> None:
        """Count bytes that came into the cache; below zero for those that went."""
        self._count(Count(growth=size, came=max(size, 0)))

    def _count(self, count: Count) -> None:
        with self._lock:
            self._unwritten = self._unwritten.plus(count)

    def write(self, fs: RobustIO) -> None:
        """Append what was counted since the last time. It is never worth an error, nor waiting."""
        with self._lock:
            count, self._unwritten = self._unwritten, Count()
        if count == _NOTHING or not self._writable:
            return
        try:
            with fs.files.open_append(self._layout.tally) as file:
                write_all(file, count.line())
        except OSError:
            # How much there is was true of this moment only.
            kept = count.without_sizes() if count.is_total else count
            with self._lock:
                self._unwritten = kept.plus(self._unwritten)

    def read(self, fs: RobustIO) -> Count:
        """Return everything that was counted, by this object too."""
        return self._sum_of_sealed(fs).plus(_sum(fs.read(self._layout.tally))).plus(self._unwritten)

    def size(self, fs: RobustIO) -> int:
        """Return about how many bytes of wheels and trees there are, without a walk. Never waits and never fails.

        Less than nothing says that something went which was never counted.
        """
        return self._sizes(fs).growth

    def added(self, fs: RobustIO) -> int:
        """Return how many bytes came since some moment that does not change. Never waits and never fails."""
        return self._sizes(fs).came

    def _sizes(self, fs: RobustIO) -> Count:
        try:
            with self._lock:
                current = self._current(fs).plus(self._unwritten)
            return self._sum_of_sealed(fs).plus(current)
        except (OSError, CommitError):
            return _NOTHING  # nothing can be read just now; the next commit asks again

    def _current(self, fs: RobustIO) -> Count:
        stat = fs.stat(self._layout.tally)
        if stat is None:
            return Count()
        inode, offset, total = self._read
        if stat.st_ino != inode or stat.st_size < offset:
            offset, total = 0, Count()
        if stat.st_size > offset:
            with fs.files.open_read(self._layout.tally) as file:
                file.seek(offset)
                # A line that is being written is read whole the next time.
                data = file.read(stat.st_size - offset).rpartition(b"\n")
            offset, total = offset + len(data[0]) + len(data[1]), _sum(data[0], total)
        self._read = (stat.st_ino, offset, total)
        return total

    def record_size(self, fs: RobustIO, size: int) -> None:
        """Write down how many bytes a walk has found. It is never worth an error, nor waiting.

        Files that have grown long are summed up: what they say of the size counts no more.
        """
        self._merge_sealed(fs)
        if self._sizes(fs).growth != size:
            self._count(Count(growth=size, is_total=True))
        self.write(fs)

    def _merge_sealed(self, fs: RobustIO) -> None:
        now = fs.system.now()
        try:
            for path in self._sealed(fs):
                stamp = OwnerTag.of(os.path.basename(path))
                if stamp is not None and now - stamp.time > _SETTLED:
                    total = _sum(fs.read(path))
                    fs.files.unlink(path)
                    self._count(total.without_sizes())
            stat = fs.stat(self._layout.tally)
            if stat is not None and stat.st_size > _LONG:
                fs.files.rename(self._layout.tally, self._layout.sealed_tally(OwnerTag.new(now, fs.system.boot())))
        except (OSError, CommitError):
            pass  # another process does the same, or the next prune does it

    def _sum_of_sealed(self, fs: RobustIO) -> Count:
        total = Count()
        for path in self._sealed(fs):
            total = _sum(fs.read(path), total)
        return total

    def _sealed(self, fs: RobustIO) -> list[str]:
        """The files that nobody appends to any more, oldest first: their names begin with when they were put aside."""
        names = sorted(entry.name for entry in fs.scan(self._layout.version))
        return [os.path.join(self._layout.version, name) for name in names if self._layout.is_sealed_tally(name)]


def _sum(data: bytes | None, total: Count = _NOTHING) -> Count:
    for line in (data or b"").splitlines():
        found = _LINE.fullmatch(line)
        if found is not None:
            hits, misses, saved, is_total, growth = found.groups()
            size = int(growth or 0)
            came = 0 if is_total else max(size, 0)
            total = total.plus(Count(int(hits), int(misses), int(saved), size, bool(is_total), came))
    return total
