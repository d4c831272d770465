"""Ceiling: the size that a cache keeps to by itself.

One process at a time prunes for it, while the others go on adding: a walk of each would find the same. The lock only
saves that work: who cannot have it and finds the cache well over the limit does not wait for who has it.
"""

from __future__ import annotations

import threading

from .._fs.lock import FileLock
from .._fs.robustio import RobustIO
from .._options import PruneLimits
from .._store.counters import Counters
from .._store.layout import Layout

# What is cut down to, so that the next wheel does not walk the whole cache again.
_ROOM = 0.9
# So much over it, whoever has the lock does not get on.
_TOO_MUCH = 1.1
_KEY = "prune"


class SizeLimit:
    """The size of one cache folder: pruned after a commit, when the running estimate is over it."""

    def __init__(self, layout: Layout, tally: Counters, max_size: int | None) -> None:
        self._layout = layout
        self._tally = tally
        self._max_size = max_size
        self._pruning = threading.Lock()
        # Where all that is over the limit is in use, walking again for each wheel would not help.
        self._next = 0

    def keep(self, fs: RobustIO, sha256: str) -> None:
        """Prune if the cache has grown over its limit; the wheel that has just come stays."""
        if self._max_size is None:
            return
        size = self._tally.size(fs)
        # Less than nothing is no size: only a walk can tell what there is.
        if 0 <= size <= max(self._max_size, self._next):
            return
        if not self._pruning.acquire(blocking=False):
            return  # another thread is at it
        lock = FileLock(fs.without_waiting(), self._layout.lock(_KEY))
        try:
            if _is_had(lock) or size > self._max_size * _TOO_MUCH:
                self._prune(fs, self._max_size, sha256)
        finally:
            lock.release()
            self._pruning.release()

    def _prune(self, fs: RobustIO, max_size: int, sha256: str) -> None:
        # Most processes never get here.
        from .prune import Pruner

        prune = Pruner(self._layout, self._tally)
        prune.run(fs, PruneLimits(max_size=int(max_size * _ROOM), keep=frozenset([sha256])))
        self._next = 0 if prune.left <= max_size else prune.left + int(max_size * (1 - _ROOM))


def _is_had(lock: FileLock) -> bool:
    try:
        return lock.try_acquire()
    except OSError:
        return True  # no lock can be had here: the work is done without
