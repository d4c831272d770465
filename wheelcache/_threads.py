"""Workers: threads that share a piece of work, all of which have ended when it is over, also when it is interrupted.

They are waited for by a count of our own and not by ``Thread.join``: before Python 3.13, who is interrupted in it (by
Ctrl-C) takes a thread that runs for one that has ended, and then not even the end of the process waits for it to tidy
up (https://github.com/python/cpython/issues/90882).

Threads: blocking work of an event loop in worker threads, with tokens of its own.

anyio lends every library and the application the tokens of one limiter for each event loop
(https://anyio.readthedocs.io/en/stable/threads.html#adjusting-the-default-maximum-worker-thread-count). Work that waits
long leaves the others none; and if it waits for the event loop to do something that needs a token, all wait for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from anyio import CapacityLimiter


# Waiting without end cannot be interrupted on Windows.
_LOOK_UP_SECONDS = 0.2


class Workers:
    """Threads that do the same.

    Args:
        work: what each of them does. It raises nothing: who shares the work takes down what went wrong.
        count: how many there are.
        name: what each is called, with its number.
    """

    def __init__(self, work: Callable[[], object], count: int, name: str) -> None:
        self._work = work
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{number}") for number in range(count)]
        self._running = 0
        self._ended = threading.Condition()

    def run(
        self,
        stop: Callable[[BaseException], object],
        *,
        here: Callable[[], object] | None = None,
        again: Callable[[], object] | None = None,
    ) -> None:
        """Start them, do ``here`` beside them, and wait until all have ended; meanwhile call ``again`` now and then.

        What is raised here, an interrupt too, is given to ``stop``, which makes the others end; then it comes through.
        """
        try:
            self._start()
            if here is not None:
                here()
            self._wait(again)
        except BaseException as error:
            stop(error)
            self._wait(again)
            raise

    def _start(self) -> None:
        for thread in self._threads:
            with self._ended:
                self._running += 1
            try:
                thread.start()
            except BaseException:
                # One that was not even begun is not waited for; those before it are.
                if thread.ident is None:
                    self._end()
                raise

    def _wait(self, again: Callable[[], object] | None) -> None:
        while True:
            with self._ended:
                over = self._ended.wait_for(lambda: self._running == 0, _LOOK_UP_SECONDS)
            if over:
                break
            if again is not None:
                again()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()  # it has done its work, and is gone in a moment

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._end()

    def _end(self) -> None:
        with self._ended:
            self._running -= 1
            self._ended.notify_all()


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
