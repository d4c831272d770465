"""Run a group of threads for one piece of work, and the worker threads of an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from ._imports import third_party_import_lock

if TYPE_CHECKING:
    from anyio import CapacityLimiter

_R = TypeVar("_R")
_T = TypeVar("_T")

# Seconds. On Windows, Ctrl-C does not interrupt a wait without a timeout.
_POLL_INTERVAL = 0.2


def one_at_a_time(listener: Callable[[_T], object] | None) -> Callable[[_T], object] | None:
    """Return a listener that several threads may call, and that passes on one event at a time."""
    if listener is None:
        return None
    lock = threading.Lock()

    def locked(event: _T) -> object:
        with lock:
            return listener(event)

    return locked


class ThreadGroup:
    """A fixed number of threads that run the same function. All of them have ended when :meth:`run` returns.

    The group counts its running threads and does not rely on ``Thread.join``. Before Python 3.13, an interrupted
    ``join`` marks a running thread as ended. Even the interpreter does not wait for such a thread at exit
    (https://github.com/python/cpython/issues/90882).

    Args:
        work: the function that each thread runs. The function must record its errors and never raise them.
        count: the number of threads.
        name: the prefix of the threads' names. Each name ends in a number.
    """

    def __init__(self, work: Callable[[], object], count: int, name: str) -> None:
        self._work = work
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{number}") for number in range(count)]
        self._started = self._admitted = self._finished = 0
        self._is_stopped = False
        self._changed = threading.Condition()

    def run(
        self,
        stop: Callable[[BaseException], object],
        *,
        in_caller: Callable[[], object] | None = None,
        poll: Callable[[], object] | None = None,
    ) -> None:
        """Start the threads, and wait until all of them have ended.

        Args:
            stop: makes the threads end early. Its argument is the exception that was raised in the calling thread, such
                as KeyboardInterrupt. That exception is raised again when the threads have ended.
            in_caller: a share of the work that the calling thread does first.
            poll: called every 0.2 s during the wait.
        """
        try:
            self._start()
            if in_caller is not None:
                in_caller()
            self._wait(lambda: self._finished == self._started, poll)
        except BaseException as error:
            with self._changed:
                self._is_stopped = True
            stop(error)
            self._wait(lambda: self._finished == self._admitted, poll)
            raise

    def _start(self) -> None:
        for thread in self._threads:
            # After an interrupt here, it is unknown whether the thread will run. _run() admits it only before the stop.
            thread.start()
            self._started += 1

    def _wait(self, is_over: Callable[[], bool], poll: Callable[[], object] | None) -> None:
        while True:
            with self._changed:
                ended = self._changed.wait_for(is_over, _POLL_INTERVAL)
            if ended:
                break
            if poll is not None:
                poll()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()  # returns at once, since the thread's work has ended

    def _run(self) -> None:
        with self._changed:
            if self._is_stopped:
                return
            self._admitted += 1
        try:
            self._work()
        finally:
            with self._changed:
                self._finished += 1
                self._changed.notify_all()


class ThreadLimiter:
    """Runs blocking functions in the worker threads of an event loop (asyncio or trio).

    Each kind of work needs its own limit. By default, anyio shares one limit per event loop among all libraries and the
    application (https://anyio.readthedocs.io/en/stable/threads.html#adjusting-the-default-maximum-worker-thread-count).
    Long waits would use that limit up for all of them. Work that waits for the event loop would deadlock if the event
    loop waits for a thread.

    Args:
        limit: the number of threads per event loop that may run at once, or ``math.inf`` for no limit.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._limiters: MutableMapping[CapacityLimiter, CapacityLimiter] = WeakKeyDictionary()

    async def run(self, work: Callable[[], _R]) -> _R:
        """Run a function in a worker thread, and return its result.

        Cancellation before the function starts returns at once. Later cancellation waits for the function to return.
        """
        with third_party_import_lock:
            from anyio import to_thread

        return await to_thread.run_sync(work, limiter=self._limiter())

    def _limiter(self) -> CapacityLimiter:
        """Return the limiter of the running event loop. Two loops must not share one."""
        with third_party_import_lock:
            from anyio import CapacityLimiter, to_thread

        # anyio's default limiter identifies the event loop. Each loop has its own limiter. That limiter is freed with
        # the loop.
        loop = to_thread.current_default_thread_limiter()
        limiter = self._limiters.get(loop)
        if limiter is None:
            limiter = self._limiters[loop] = CapacityLimiter(self._limit)
        return limiter
