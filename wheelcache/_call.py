"""One public call on its way through the stations: its disk, with the call's patience, its listener, and its stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from ._disk import Disk
from ._progress import Phase, Progress, ProgressEvent


class StoppedError(BaseException):
    """A call was told to stop. No ``Exception``, as with Ctrl-C: nothing on the way may take it for a failure."""


class ClosedError(ValueError):
    """What a call was using has been closed by another thread."""


class Stop:
    """Says to a call in another thread that nobody waits for it any more.

    Args:
        error: makes what ends the call.
    """

    def __init__(self, error: Callable[[], BaseException] = StoppedError) -> None:
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


CURRENT_STOP: ContextVar[Stop | None] = ContextVar("wheelcache_stop", default=None)
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

    disk: Disk
    wheel: str = ""
    progress: Progress | None = None
    stop: Stop | None = None
    closing: Stop | None = None

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
