"""Threads: blocking work of an event loop in worker threads, with tokens of its own.

anyio lends every library and the application the tokens of one limiter for each event loop
(https://anyio.readthedocs.io/en/stable/threads.html#adjusting-the-default-maximum-worker-thread-count). Work that waits
long leaves the others none; and if it waits for the event loop to do something that needs a token, all wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from anyio import CapacityLimiter

_R = TypeVar("_R")


class Threads:
    """Worker threads for one kind of work, in any event loop.

    Args:
        at_a_time: how many there are in each event loop; ``math.inf`` for as many as are asked for.
    """

    def __init__(self, at_a_time: float) -> None:
        self._at_a_time = at_a_time
        self._limiters: MutableMapping[CapacityLimiter, CapacityLimiter] = WeakKeyDictionary()

    async def run(self, work: Callable[[], _R]) -> _R:
        """Do some work in a thread, as soon as there is one, and return what it returns.

        Who is cancelled before waits no longer; once it has begun, it is waited for.
        """
        from anyio import to_thread

        return await to_thread.run_sync(work, limiter=self._limiter())

    def _limiter(self) -> CapacityLimiter:
        """The limiter for this event loop: it must not be used in two."""
        from anyio import CapacityLimiter, to_thread

        # That of anyio stands for the event loop: there is one for each, and it goes with it.
        loop = to_thread.current_default_thread_limiter()
        limiter = self._limiters.get(loop)
        if limiter is None:
            limiter = self._limiters[loop] = CapacityLimiter(self._at_a_time)
        return limiter
