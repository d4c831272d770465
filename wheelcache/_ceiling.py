"""Ceiling: the size that a cache keeps to by itself."""

from __future__ import annotations

import threading

from ._disk import Disk
from ._layout import Layout
from ._limits import Limits
from ._tally import Tally

# What is cut down to, so that the next wheel does not walk the whole cache again.
_ROOM = 0.9


class Ceiling:
    """The size of one cache folder: pruned after a commit, when the running estimate is over it."""

    def __init__(self, layout: Layout, tally: Tally, max_size: int | None) -> None:
        self._layout = layout
        self._tally = tally
        self._max_size = max_size
        self._pruning = threading.Lock()
        # Where all that is over the limit is in use, walking again for each wheel would not help.
        self._next = 0

    def keep(self, disk: Disk, sha256: str) -> None:
        """Prune if the cache has grown over its limit; the wheel that has just come stays."""
        if self._max_size is None or self._tally.size(disk) <= max(self._max_size, self._next):
            return
        if not self._pruning.acquire(blocking=False):
            return  # another thread is at it
        # Most processes never get here.
        from ._prune import Prune

        try:
            Prune(self._layout, self._tally).run(
                disk, Limits(max_size=int(self._max_size * _ROOM), keep=frozenset([sha256]))
            )
            left = self._tally.size(disk)
            self._next = 0 if left <= self._max_size else left + int(self._max_size * (1 - _ROOM))
        finally:
            self._pruning.release()
