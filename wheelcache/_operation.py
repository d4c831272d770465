"""One public call, with its cancellation, its retry budget and its progress.

Before every file operation and every request, a call checks its :class:`Operation`. Every wait uses
:meth:`Operation.sleep`. So cancellation, closing and Ctrl-C end the call at its next step. Cleanup uses
:meth:`Operation.for_cleanup`. Cleanup cannot be cancelled.

The whole call has one retry budget, so unpacking 5,000 held files does not wait 5,000 times. Seconds in which
several threads wait are counted once. The time from the first refusal of a file operation to its success is counted,
with the attempts. If a file server is down, each attempt hangs for 20 s before it fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from ._imports import third_party_import_lock
from ._models import Phase, Progress, ProgressEvent
from ._os.system import System

if TYPE_CHECKING:
    from tenacity import RetryCallState

_T = TypeVar("_T")

# Full jitter, up to 1 ms at first and 100 ms later. Most holders close the file within milliseconds. The jitter keeps
# many waiters from retrying at the same moment.
_FIRST_WAIT = 0.001
_LONGEST_WAIT = 0.1
# A smaller remainder counts as spent, since a wait below the clock's resolution might never use it up.
_SHORTEST_WAIT = 1e-6


class OperationCancelledError(BaseException):
    """The operation was cancelled.

    Like ``KeyboardInterrupt``, this class is not an ``Exception``, so that no handler mistakes a cancellation for a
    failure. If the token has an error, that error replaces this one at the end of the operation's ``with`` block.

    Attributes:
        token: the token that was cancelled.
    """

    def __init__(self, token: CancelToken) -> None:
        super().__init__()
        self.token = token


class ClosedError(ValueError):
    """The cache was closed before or during the call."""


class CancelToken:
    """Cancels operations from another thread.

    Args:
        error: creates the exception for the caller of a cancelled operation, or ``None`` for
            :class:`OperationCancelledError` itself.
    """

    def __init__(self, error: Callable[[], Exception] | None = None) -> None:
        self.error = error
        self.is_cancelled = False
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], object]] = {}

    def cancel(self) -> None:
        """Cancel the operations of this token, and interrupt those that are blocked in a read.

        A caller that waits for the operations to end must call this method repeatedly, because it does not interrupt an
        operation that is about to block.
        """
        with self._lock:
            self.is_cancelled = True
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise :class:`OperationCancelledError` if the token was cancelled."""
        if self.is_cancelled:
            raise OperationCancelledError(self)

    @contextmanager
    def on_cancel(self, callback: Callable[[], object]) -> Iterator[None]:
        """Within the block, call ``callback`` when the token is cancelled, from the thread that cancels it."""
        key = object()
        with self._lock:
            self._callbacks[key] = callback
        try:
            self.check()
            yield
        finally:
            with self._lock:
                del self._callbacks[key]


CURRENT_TOKEN: ContextVar[CancelToken | None] = ContextVar("wheelcache_token", default=None)
"""The token of the public calls that are made in this context.

Code that runs public calls in its own threads sets it.
"""


class RetryBudget:
    """The seconds that the contended file operations of one public call may wait in total."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._remaining = seconds
        self._lock = threading.Lock()
        self._spenders = 0
        self._since = 0.0
        self._until = monotonic()

    @property
    def remaining(self) -> float:
        """The seconds that may still be spent."""
        with self._lock:
            remaining = self._remaining - (self._monotonic() - self._since if self._spenders else 0.0)
        return remaining if remaining > _SHORTEST_WAIT else 0.0

    @contextmanager
    def spending(self, since: float) -> Iterator[None]:
        """Spend the time from ``since`` to the end of the block. ``since`` may lie in the past.

        Seconds that several threads spend at once are counted once.
        """
        with self._lock:
            since = max(since, self._until)
            self._since = min(self._since, since) if self._spenders else since
            self._spenders += 1
        try:
            yield
        finally:
            with self._lock:
                self._spenders -= 1
                if self._spenders == 0:
                    self._until = self._monotonic()
                    self._remaining -= self._until - self._since


class Operation:
    """One public call.

    As a context manager, it replaces :class:`OperationCancelledError` by the error of the token, such as the
    :class:`ClosedError` of a closed cache, and closes the folders that the file layer has kept open.

    Args:
        system: the operating system.
        io_timeout: the seconds that the contended file operations of the call may wait in total.
        tokens: the cancel tokens. Each of them can cancel the operation.
        wheel: the file name of the wheel that progress events name, or an empty string.
        progress: the caller's listener, or ``None``.
    """

    __slots__ = ("budget", "progress", "system", "tokens", "wheel")

    def __init__(
        self,
        system: System,
        *,
        io_timeout: float = 0.0,
        tokens: tuple[CancelToken, ...] = (),
        wheel: str = "",
        progress: Progress | None = None,
    ) -> None:
        self.system = system
        self.budget = RetryBudget(io_timeout, system.monotonic)
        self.tokens = tokens
        self.wheel = wheel
        self.progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.system.files.close_folders()
        if isinstance(error, OperationCancelledError) and error.token.error is not None:
            raise error.token.error() from None

    def check(self) -> None:
        """Raise :class:`OperationCancelledError` if one of the tokens was cancelled."""
        for token in self.tokens:
            if token.is_cancelled:
                raise OperationCancelledError(token)

    def sleep(self, seconds: float) -> None:
        """Wait for this many seconds. Cancelling the operation ends the wait."""
        self.system.sleep(seconds, self.check)

    def report(self, phase: Phase, done: int = 0, total: int | None = None, detail: str = "") -> None:
        """Report the progress of the operation to the listener.

        An exception of the listener propagates unchanged, so a listener can stop the operation by raising one.
        """
        self.check()
        if self.progress is not None:
            self.progress(ProgressEvent(self.wheel, phase, done, total, detail))

    def _copy(
        self,
        *,
        budget: RetryBudget | None = None,
        tokens: tuple[CancelToken, ...] | None = None,
        wheel: str | None = None,
    ) -> Operation:
        copy = object.__new__(Operation)
        copy.system = self.system
        copy.budget = budget or self.budget
        copy.tokens = self.tokens if tokens is None else tokens
        copy.wheel = self.wheel if wheel is None else wheel
        copy.progress = self.progress
        return copy

    def with_token(self, token: CancelToken) -> Operation:
        """Return a copy for work in several threads. This token cancels it too."""
        return self._copy(tokens=(*self.tokens, token))

    def about(self, wheel: str) -> Operation:
        """Return a copy that reports progress for this wheel."""
        return self._copy(wheel=wheel)

    def with_progress(self, progress: Progress | None) -> Operation:
        """Return a copy with another progress listener."""
        copy = self._copy()
        copy.progress = progress
        return copy

    def without_waiting(self) -> Operation:
        """Return a copy with an empty retry budget, for best-effort work."""
        return self.waiting_at_most(0.0)

    def waiting_at_most(self, seconds: float) -> Operation:
        """Return a copy with its own retry budget of this many seconds."""
        return self._copy(budget=RetryBudget(seconds, self.system.monotonic))

    def for_cleanup(self) -> Operation:
        """Return a copy for cleanup. It cannot be cancelled and reports no progress."""
        return self._copy(tokens=()).with_progress(None)

    def retry_within_budget(
        self,
        attempt: Callable[[], _T],
        *,
        is_transient: Callable[[BaseException], bool],
        while_waiting: Callable[[], None] | None = None,
        since: float | None = None,
    ) -> _T:
        """Repeat an attempt while its error is transient and the retry budget lasts. Then raise the last error.

        Args:
            attempt: the action.
            is_transient: returns whether another attempt may succeed after this error.
            while_waiting: called before each wait except the first, while the holder of the file can still be observed.
            since: the start of the first attempt, in seconds of the monotonic clock, if the caller has already made
                that attempt.
        """
        budget, monotonic = self.budget, self.system.monotonic
        begun = monotonic() if since is None else since
        try:
            return attempt()
        except BaseException as error:
            if not is_transient(error):
                raise
            with budget.spending(begun):
                if budget.remaining <= 0:
                    raise

        def wait(seconds: float) -> None:
            if while_waiting is not None:
                while_waiting()
            self.sleep(min(seconds, budget.remaining))

        with budget.spending(monotonic()):
            self.sleep(min(_FIRST_WAIT, budget.remaining))
            return retry(
                attempt,
                can_retry=is_transient,
                wait=_full_jitter,
                stop=lambda _: budget.remaining <= 0,
                sleep=wait,
            )


def _full_jitter(number: int) -> float:
    with third_party_import_lock:
        import random

    # The jitter need not be unpredictable.
    return random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(number - 1, 30)))  # noqa: S311


def retry(
    attempt: Callable[[], _T],
    *,
    can_retry: Callable[[BaseException], bool],
    wait: Callable[[int], float],
    stop: Callable[[int], bool],
    sleep: Callable[[float], None],
) -> _T:
    """Repeat an attempt until it succeeds, and return its result.

    The last error is raised if ``can_retry`` returns false for it, or if ``stop`` returns true.

    The retries of file operations, downloads and metadata requests all use this loop.

    Args:
        attempt: the action.
        can_retry: returns whether another attempt may follow this error.
        wait: returns the seconds to wait after the attempt of this number. The first attempt has the number 1.
        stop: returns whether the attempt of this number was the last.
        sleep: waits for a number of seconds.
    """
    with third_party_import_lock:
        # Most processes never retry. The import takes milliseconds.
        import tenacity

    def should_stop(state: RetryCallState) -> bool:
        return stop(state.attempt_number)

    def seconds(state: RetryCallState) -> float:
        return wait(state.attempt_number)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(can_retry), wait=seconds, stop=should_stop, sleep=sleep, reraise=True
    )
    return retrying(attempt)
