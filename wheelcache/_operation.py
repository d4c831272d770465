"""One public call on its way through the stations: its disk, with the call's patience, its listener, and its stop.

Waiting for what can pass: one budget for a public call, spent by all its refused operations together.

A tree of 5,000 held files does not wait 5,000 times: the seconds are those of the call, and operations that wait side
by side in several threads spend them once.

What is refused and can pass costs all the time that goes by with it, and not the sleep between two tries alone: a
server that is gone lets every call hang for 20 s before it refuses it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ._models import Phase, Progress, ProgressEvent
from ._os.system import System

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from ._fs.robustio import RobustIO


class OperationCancelledError(BaseException):
    """A call was told to stop. No ``Exception``, as with Ctrl-C: nothing on the way may take it for a failure."""


class ClosedError(ValueError):
    """What a call was using has been closed by another thread."""


class CancelToken:
    """Says to a call in another thread that nobody waits for it any more.

    Args:
        error: makes what ends the call.
    """

    def __init__(self, error: Callable[[], BaseException] = OperationCancelledError) -> None:
        self._error = error
        self._lock = threading.Lock()
        self._set = False
        self._wakers: dict[object, Callable[[], object]] = {}

    def set(self) -> None:
        """Stop the calls of this token at their next step, and wake those that wait for a socket.

        Whoever waits for them to end says it again now and then: one that was only about to wait was not woken.
        """
        with self._lock:
            self._set = True
            wakers = list(self._wakers.values())
        for wake in wakers:
            wake()

    @property
    def is_set(self) -> bool:
        """Whether it was said."""
        return self._set

    @property
    def is_waited_past(self) -> bool:
        """Whether somebody waits for a socket whom it should wake."""
        return bool(self._wakers)

    def check(self) -> None:
        """Raise :class:`StoppedError`, or what takes its place, once it was said."""
        if self._set:
            raise self._error()

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """While this lasts, call ``wake`` when it is said."""
        key = object()
        with self._lock:
            self._wakers[key] = wake
        try:
            self.check()
            yield
        finally:
            with self._lock:
                del self._wakers[key]


CURRENT_TOKEN: ContextVar[CancelToken | None] = ContextVar("wheelcache_stop", default=None)
"""The token of the public calls made in this context; whoever runs a call in a thread of its own sets it there."""


class Call(NamedTuple):
    """What the stations of one call share.

    Attributes:
        disk: the file layer with the seconds that this call may wait.
        wheel: the file name of the wheel that it is about; empty where there is none yet.
        progress: the caller's listener, or ``None``.
        stop: what ends it from another thread, or ``None``.
        closing: the stop of what it works for, or ``None``; it ends what waits.
    """

    disk: RobustIO
    wheel: str = ""
    progress: Progress | None = None
    stop: CancelToken | None = None
    closing: CancelToken | None = None

    def report(self, phase: Phase, done: int = 0, total: int | None = None, detail: str = "") -> None:
        """Tell the listener. What it raises goes through: that is how a caller stops a fetch."""
        if self.stop is not None:
            self.stop.check()
        if self.progress is not None:
            self.progress(ProgressEvent(self.wheel, phase, done, total, detail))

    def sleep(self, seconds: float) -> None:
        """Wait, but not past a stop."""
        self.disk.system.sleep(seconds, self._look_up)

    def _look_up(self) -> None:
        for stop in (self.stop, self.closing):
            if stop is not None:
                stop.check()


_T = TypeVar("_T")

# Full jitter, from 1 ms to 100 ms: most holders let go within milliseconds, and many waiters must not come in step.
_FIRST_WAIT = 0.001
_LONGEST_WAIT = 0.1
# What rounding leaves of the budget is less than any clock can show to have passed: waiting for it would never end.
_LEAST_WAIT = 1e-6


class RetryBudget:
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
