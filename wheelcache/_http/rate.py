"""Measure how long one request waits for the network, and how many bytes of its body it receives in that time.

A timeout of the HTTP library ends a single read that receives nothing. It does not end a body that is sent at one byte
per minute, or an endless series of 1xx responses.

The time outside :meth:`RateWatch.waiting` is not counted, because a slow progress listener or a slow disk must not fail
a download.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .errors import FailedRequestError
from .interrupt import RATE_WATCH

_ADVICE = (
    "The server or a proxy sends almost nothing. Try later, or use another network. Cache(limits=...) sets the limit."
)
# Seconds between two interruptions. They are repeated because a thread that is just about to read is not interrupted.
_REPEAT_SECONDS = 0.25


class TooSlowError(FailedRequestError):
    """The request received too few bytes while it waited for the network.

    The failure is transient, because another source may be faster. The received bytes do not count as progress.
    """

    def __init__(self, received: int, window: float) -> None:
        amount = f"{received} byte{'s' * (received != 1)}"
        problem = f"received only {amount} of the body in {window:g} s of waiting for the network"
        super().__init__(problem, is_transient=True, hint=_ADVICE)


def current_watch() -> RateWatch:
    """Return the object that measures the requests of this context, or one without a limit."""
    return RATE_WATCH.get() or RateWatch(0.0, 1.0, lambda: 0.0)


class RateWatch:
    """Compares the bytes and the waits of one request with a minimum rate.

    The waits are divided into windows. A window with too few bytes ends the request.

    Args:
        min_rate: bytes per second, or 0 for no limit.
        window: seconds of waiting over which the rate is averaged.
        monotonic: the clock, in seconds.
    """

    def __init__(self, min_rate: float, window: float, monotonic: Callable[[], float]) -> None:
        self._required = min_rate * window
        self._window = window
        self._monotonic = monotonic
        self._waited = 0.0
        self._received = 0
        self._begun: float | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block, measure the requests of this context with this object."""
        token = RATE_WATCH.set(self)
        try:
            yield
        finally:
            RATE_WATCH.reset(token)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within the block.

        Raises:
            TooSlowError: if a window has ended with too few bytes, in place of the failure that the block raised.
        """
        self._begun = self._monotonic()
        try:
            yield
        except FailedRequestError:
            # An interrupted read looks like a broken connection.
            self.check()
            raise
        finally:
            self._waited = self._seconds_waited()
            self._begun = None

    def restart_wait(self) -> None:
        """Exclude the current wait so far. It was for a free connection of the client, not for the network."""
        self._begun = self._monotonic()

    def receive(self, count: int) -> None:
        """Count the bytes of a chunk.

        Raises:
            TooSlowError: if a window has ended with too few bytes.
        """
        self._received += count
        if self._waited >= self._window and self._received >= self._required:
            # A chunk that arrives late counts for all windows before it.
            self._waited %= self._window
            self._received = 0
        self.check()

    def check(self) -> None:
        """Begin a new window after each window with enough bytes. This method may be called during a wait.

        Raises:
            TooSlowError: if a window has ended with too few bytes.
        """
        while self._seconds_waited() >= self._window and self._required > 0:
            if self._received < self._required:
                raise self.too_slow()
            self._waited -= self._window
            self._received = 0

    def too_slow(self) -> TooSlowError:
        """Return the error for a window with too few bytes."""
        return TooSlowError(self._received, self._window)

    @property
    def seconds_left(self) -> float:
        """The seconds after which the request fails if it receives no more bytes, or infinity without a limit.

        Another thread than the waiting one may read this property.
        """
        if self._required <= 0:
            return math.inf
        # If the current window has enough bytes, the request fails at the end of the next one.
        windows = 1 if self._received < self._required else 2
        return windows * self._window - self._seconds_waited()

    def _seconds_waited(self) -> float:
        begun = self._begun
        return self._waited + (0.0 if begun is None else self._monotonic() - begun)

    @contextmanager
    def interrupting(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Within the block, call ``interrupt`` repeatedly from another thread once no seconds are left.

        Clients that block in their own reads need this. If no thread can be started, a slow request is noticed when its
        read returns.
        """
        if math.isinf(self.seconds_left):
            yield
            return
        # This is a lock and not an Event, because releasing a lock cannot block in the child of a fork.
        done = threading.Lock()
        done.acquire()

        def watch() -> None:
            seconds = self.seconds_left
            while not done.acquire(timeout=min(max(seconds, _REPEAT_SECONDS), threading.TIMEOUT_MAX)):
                seconds = self.seconds_left
                if seconds <= 0:
                    interrupt()

        thread = threading.Thread(target=watch, name="wheelcache-rate", daemon=True)
        try:
            with suppress(RuntimeError):
                thread.start()
            yield
        finally:
            # After Ctrl-C, the thread may have been started only in part. The release still ends it.
            done.release()
            if thread.ident is not None:
                thread.join()
