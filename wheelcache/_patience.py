"""Waiting for what can pass: one budget for a public call, spent by all its refused operations together.

A tree of 5,000 held files does not wait 5,000 times: the seconds are those of the call, and operations that wait side
by side in several threads spend them once.

What is refused and can pass costs all the time that goes by with it, and not the sleep between two tries alone: a
server that is gone lets every call hang for 20 s before it refuses it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ._system import System

if TYPE_CHECKING:
    from tenacity import RetryCallState

_T = TypeVar("_T")

# Full jitter, from 1 ms to 100 ms: most holders let go within milliseconds, and many waiters must not come in step.
_FIRST_WAIT = 0.001
_LONGEST_WAIT = 0.1
# What rounding leaves of the budget is less than any clock can show to have passed: waiting for it would never end.
_LEAST_WAIT = 1e-6


class Patience:
    """The seconds that the contended file operations of one public call may wait in all."""

    def __init__(self, seconds: float, system: System) -> None:
        self._system = system
        self._left = seconds
        self._lock = threading.Lock()
        self._waiting = 0
        self._since = 0.0
        self._until = system.monotonic()

    @property
    def left(self) -> float:
        """The seconds that may still be waited."""
        with self._lock:
            left = self._left - (self._system.monotonic() - self._since if self._waiting else 0.0)
        return left if left > _LEAST_WAIT else 0.0

    @contextmanager
    def _spending(self, since: float) -> Iterator[None]:
        """Spend what goes by, from a moment that may have passed; what several threads spend at once is spent once."""
        with self._lock:
            since = max(since, self._until)
            self._since = min(self._since, since) if self._waiting else since
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if self._waiting == 0:
                    self._until = self._system.monotonic()
                    self._left -= self._until - self._since

    def retry(
        self,
        operation: Callable[[], _T],
        *,
        passing: Callable[[BaseException], bool],
        waiting: Callable[[], None] | None = None,
        since: float | None = None,
    ) -> _T:
        """Do an operation again while its error can pass and seconds are left; then the last error is raised.

        ``waiting`` is called now and then meanwhile, while what is waited for is still to be seen. Where the first try
        was made before, it began at ``since``.
        """
        begun = self._system.monotonic() if since is None else since
        try:
            return operation()
        except BaseException as error:
            if not passing(error):
                raise
            with self._spending(begun):
                if self.left <= 0:
                    raise
        with self._spending(self._system.monotonic()):
            return self._again(operation, passing, waiting)

    def _again(
        self,
        operation: Callable[[], _T],
        passing: Callable[[BaseException], bool],
        waiting: Callable[[], None] | None,
    ) -> _T:
        # It is imported when something was refused, not before: most processes never need it.
        import tenacity

        def spent(_: RetryCallState) -> bool:
            return self.left <= 0

        def pause(seconds: float) -> None:
            if waiting is not None:
                waiting()
            self._sleep(seconds)

        self._sleep(_FIRST_WAIT)
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(passing),
            wait=tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT),
            stop=spent,
            sleep=pause,
            reraise=True,
        )
        return again(operation)

    def _sleep(self, seconds: float) -> None:
        self._system.sleep(min(seconds, self.left))
