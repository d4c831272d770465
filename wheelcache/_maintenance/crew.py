"""Crew: the threads of a verification, each drawing the next entry or tree from the same walk.

A small entry is a few calls of microseconds, and threads that make such calls side by side hand the interpreter to and
fro for each of them: together they take longer than one alone. So the thread whose turn it is goes on until something
is worth a thread: a large file, a tree, or an entry that is not plainly sound. Where the calls themselves take long (a
file server, a cold disk), everything is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._hashes import sha256_of
from .._models import Phase
from .._store import walk
from .._store.layout import Layout
from .._store.records import Record
from .._unpack.trees import Trees

_T = TypeVar("_T")

_MOST_THREADS = 8
# Hashing so many bytes takes about as long as giving them to another thread.
_SMALL = 1 << 16
# Seconds for a small entry after which waiting, and not working, is what takes them; entries that are measured
# together, so that a pause of the machine does not count; and entries until it is measured again.
_LONG = 0.0005
_ROUND = 32
_SLOW_ROUND = 1024


class TreeFolder(NamedTuple):
    """The folder of an unpacked wheel, or of what is to become one."""

    path: str


def about(fs: RobustIO, wheel: str) -> RobustIO:
    """Return the same call, telling of this wheel."""
    return fs.about(wheel)


class Crew(Generic[_T]):
    """The threads of one verification.

    Args:
        call: the call.
        layout: the paths of the cache folder.
        check: returns what is wrong with an entry, by its sha256, or with a tree.
        unreadable: makes something wrong of a folder that cannot be looked into.

    Attributes:
        checked: the entries and trees so far.
    """

    def __init__(
        self,
        fs: RobustIO,
        layout: Layout,
        check: Callable[[RobustIO, str | TreeFolder], list[_T]],
        unreadable: Callable[[str], _T],
    ) -> None:
        self.checked = 0
        self._fs = fs
        self._layout = layout
        self._check = check
        self._unreadable = unreadable
        self._found: list[_T] = []
        self._turn = threading.Lock()
        self._over = False
        self._pace = _Pace()
        fs = fs.without_waiting()
        trees = (TreeFolder(path) for path, _ in Trees(layout, writable=False).folders(fs, self._refused))
        self._walk: Iterator[str | TreeFolder] = chain(walk.walk_digests(fs, layout, self._refused), trees)

    def run(self) -> list[_T]:
        """Check everything, and return what is wrong; an exception of one thread ends them all and comes out."""
        threads = min(_MOST_THREADS, (os.cpu_count() or 1) + 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="wheelcache-verify") as pool:
            try:
                for future in [pool.submit(self._work) for _ in range(threads)]:
                    future.result()
            finally:
                self._over = True
        return self._found

    def _work(self) -> None:
        try:
            while (what := self._next()) is not None:
                self._found += self._check(self._fs, what)
                self._fs.op.report(Phase.CHECKING, detail=f"{self.checked} checked")
        except BaseException:
            self._over = True
            raise

    def _next(self) -> str | TreeFolder | None:
        """Return what is worth a thread, ``None`` when all is done."""
        with self._turn:
            for what in self._walk:
                if self._over:
                    break
                self.checked += 1
                if not (isinstance(what, str) and self._pace.is_quick() and self._is_sound(what)):
                    return what
        return None

    def _is_sound(self, sha256: str) -> bool:
        """Whether an entry is small and plainly sound. Whatever else it is, the check tells."""
        clock = self._fs.system.monotonic
        began = clock()
        try:
            record = walk.read_plain_record(self._fs.files, self._layout, sha256)
            data = None if record is None else self._small_blob(record)
        except OSError:
            return False
        finally:
            self._pace.took(clock() - began)
        if record is None or data is None or sha256_of(data) != sha256:
            return False
        fs = self._fs if self._fs.op.progress is None else about(self._fs, record.filename)
        fs.op.report(Phase.CHECKING, record.size, record.size, f"{self.checked} checked")
        return True

    def _small_blob(self, record: Record) -> bytes | None:
        if record.size > _SMALL:
            return None
        with self._fs.files.open_read(self._layout.blob(record.sha256, record.filename, 0)) as file:
            # One byte more than there should be, and never more than that: nobody knows what it has grown to.
            data = file.read(record.size + 1)
        return data if len(data) == record.size else None

    def _refused(self, folder: str, _: CommitError) -> None:
        self._found.append(self._unreadable(folder))


class _Pace:
    """Whether one thread reads small files sooner than several do: it is measured, and now and then again."""

    def __init__(self) -> None:
        self._quick = True
        self._left = _ROUND
        self._spent = 0.0

    def is_quick(self) -> bool:
        """Return whether the next entry is to be looked at on the spot."""
        if self._left == 0:
            self._quick = not self._quick or self._spent < _ROUND * _LONG
            self._left = _ROUND if self._quick else _SLOW_ROUND
            self._spent = 0.0
        self._left -= 1
        return self._quick

    def took(self, seconds: float) -> None:
        """Count what that one has taken."""
        self._spent += seconds
