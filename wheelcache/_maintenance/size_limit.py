"""Keep a cache below its maximum size.

Only one process prunes at a time, because the walks of several would find the same entries. The others continue to add
wheels. The lock only saves work. A process that cannot acquire the lock but finds the cache well over its limit also
prunes.
"""

from __future__ import annotations

import threading

from .._fs.lock import FileLock
from .._fs.robustio import RobustIO
from .._imports import import_lock
from .._options import PruneLimits
from .._store.counters import Counters
from .._store.layout import Layout

# The cache is pruned to this fraction of the limit, so that the next new wheel does not cause another walk.
_TARGET = 0.9
# Above this multiple of the limit, the process that holds the lock is not fast enough.
_FAR_OVER = 1.1
_KEY = "prune"


class SizeLimit:
    """The maximum size of one cache folder.

    Args:
        layout: the paths of the folder.
        counters: estimate the size of the cache.
        max_size: the limit in bytes, or ``None``.
    """

    def __init__(self, layout: Layout, counters: Counters, max_size: int | None) -> None:
        self._layout = layout
        self._counters = counters
        self._max_size = max_size
        # The size that causes the next prune. If all files over the limit are in use, a walk for each new wheel would
        # not help.
        self._next_prune = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock, since a thread of the parent may hold it."""
        self._pruning = threading.Lock()

    def on_growth(self, fs: RobustIO, size: int, sha256: str) -> None:
        """Count bytes that were added for a digest, and prune if the cache exceeds its limit."""
        self._counters.add_growth(size)
        self._counters.write(fs)
        self.enforce(fs, sha256)

    def enforce(self, fs: RobustIO, sha256: str) -> None:
        """Prune if the cache exceeds its limit, but keep the entry of this digest."""
        if self._max_size is None:
            return
        size = self._counters.size(fs)
        # If the estimate is negative, only a walk can determine the size.
        if 0 <= size <= max(self._max_size, self._next_prune):
            return
        if not self._pruning.acquire(blocking=False):
            return  # another thread is pruning
        lock = FileLock(fs.without_waiting(), self._layout.lock(_KEY))
        try:
            if _can_prune(lock) or size > self._max_size * _FAR_OVER:
                self._prune(fs, self._max_size, sha256)
        finally:
            lock.release()
            self._pruning.release()

    def _prune(self, fs: RobustIO, max_size: int, sha256: str) -> None:
        with import_lock:
            # Most processes never prune, so opening a cache must not import this module.
            from .prune import Pruner

        pruner = Pruner(self._layout, self._counters)
        # This prune reports no progress events, because the caller's listener expects only events about the fetched
        # wheel.
        fs = RobustIO(fs.op.with_progress(None))
        pruner.prune(fs, PruneLimits(max_size=int(max_size * _TARGET), keep=frozenset([sha256])))
        remaining = pruner.remaining
        self._next_prune = 0 if remaining <= max_size else remaining + int(max_size * (1 - _TARGET))


def _can_prune(lock: FileLock) -> bool:
    try:
        return lock.try_acquire()
    except OSError:
        return True  # no process can acquire a lock here, so prune without it
