"""The rate of a body: windows of waiting time, and nothing but waiting time."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import FakeClock

from wheelcache._http.errors import FailedRequestError
from wheelcache._http.interrupt import check_running
from wheelcache._http.rate import RateWatch, TooSlowError, current_watch


class Request:
    """A request with a clock of its own: each step waits for the network or does something else."""

    def __init__(self, min_rate: float = 10.0, window: float = 100.0) -> None:
        self.clock = FakeClock()
        self.watch = RateWatch(min_rate, window, self.clock.monotonic)

    def receive(self, count: int, after: float) -> None:
        with self.watch.waiting():
            self.clock.advance(after)
        self.watch.receive(count)


def test_enough_bytes_never_fail() -> None:
    """A body with the minimum rate continues for as long as it likes."""
    request = Request()
    for _ in range(1000):
        request.receive(10, after=1.0)


def test_too_few_bytes_fail_at_the_end_of_the_window() -> None:
    """One byte now and then fails once the window ends, and not before."""
    request = Request()
    for _ in range(99):
        request.receive(1, after=1.0)
    with pytest.raises(TooSlowError, match="only 100 bytes of the body in 100 s") as caught:
        request.receive(1, after=1.0)
    assert caught.value.is_transient
    assert caught.value.can_retry
    assert "limits=" in caught.value.advice


def test_a_gateway_may_deliver_everything_at_last() -> None:
    """A few bytes for almost a window, and then all the rest, are enough."""
    request = Request()
    for _ in range(9):
        request.receive(1, after=11.0)
    request.receive(10_000, after=0.5)
    request.receive(10_000, after=60.0)
    request.watch.check()


def test_bytes_of_an_earlier_window_do_not_count() -> None:
    """After a fast beginning, the rate of the next window decides."""
    request = Request()
    request.receive(10**9, after=1.0)
    request.receive(1, after=100.0)
    with pytest.raises(TooSlowError, match="only 1 byte of"):
        request.receive(1, after=100.0)


def test_a_late_chunk_makes_up_for_the_time_before() -> None:
    """A wait of several windows that could not be ended is forgiven if its chunk has enough bytes."""
    request = Request()
    request.receive(1000, after=250.0)
    assert request.watch.seconds_left == pytest.approx(50.0)


def test_other_time_is_not_counted() -> None:
    """Hours of hashing, listening or sleeping between two chunks do not change the rate."""
    request = Request()
    for _ in range(50):
        request.receive(1, after=1.9)
        request.clock.advance(10_000)
    request.watch.check()


def test_a_wait_for_a_free_connection_is_not_counted() -> None:
    """A wait that turned out to be one for the client's pool is forgotten."""
    request = Request()
    with request.watch.waiting():
        for _ in range(10):
            request.clock.advance(99.0)
            request.watch.restart_wait()
        request.clock.advance(1.0)
    request.watch.check()
    assert request.watch.seconds_left == 99.0


def test_a_wait_can_be_checked_while_it_lasts() -> None:
    """Our own connections check the rate during the wait, before any byte of the response was received."""
    request = Request()
    with request.watch.waiting():
        request.clock.advance(99.0)
        request.watch.check()
        assert request.watch.seconds_left == pytest.approx(1.0)
        request.clock.advance(1.0)
        assert request.watch.seconds_left == pytest.approx(0.0)
        with pytest.raises(TooSlowError):
            request.watch.check()


def test_a_wait_counts_even_if_it_fails() -> None:
    """A wait that ends with an error was a wait."""
    request = Request()
    with suppress(LookupError), request.watch.waiting():
        request.clock.advance(60.0)
        raise LookupError
    assert request.watch.seconds_left == pytest.approx(40.0)


@pytest.mark.parametrize("window", [0.5, 900.0])
def test_no_minimum_is_no_limit(window: float) -> None:
    """With a minimum rate of 0, a request may wait forever."""
    request = Request(0.0, window)
    request.receive(0, after=10_000_000)
    assert request.watch.seconds_left == math.inf


@given(
    steps=st.lists(st.tuples(st.integers(0, 50), st.floats(0, 30)), max_size=60), min_rate=st.sampled_from([0.5, 1, 5])
)
def test_seconds_left_are_when_it_fails(steps: list[tuple[int, float]], min_rate: float) -> None:
    """After any chunks and waits, a request without more bytes fails when ``seconds_left`` are over, and not before."""
    request = Request(min_rate, 60.0)
    try:
        for count, after in steps:
            request.receive(count, after)
    except TooSlowError:
        return
    left = request.watch.seconds_left
    assert 0 < left <= 120.0
    with request.watch.waiting():
        request.clock.advance(left * 0.999 - 1e-6)
        request.watch.check()
        request.clock.advance(left * 0.001 + 2e-6)
        with pytest.raises(TooSlowError):
            request.watch.check()


def test_a_failure_after_the_window_is_a_slow_request() -> None:
    """A read that was interrupted at the end of the window fails because of the rate, and not of the connection."""
    request = Request()
    broken = FailedRequestError("broken", is_transient=True)
    with pytest.raises(FailedRequestError) as caught:
        fail_within(request, broken, 99.0)
    assert caught.value is broken
    with pytest.raises(TooSlowError):
        fail_within(request, broken, 1.0)


def fail_within(request: Request, error: Exception, seconds: float) -> None:
    with request.watch.waiting():
        request.clock.advance(seconds)
        raise error


def test_a_blocked_read_is_interrupted_again_and_again() -> None:
    """From the end of the window on, another thread interrupts the read, and ends with the block."""
    watch = RateWatch(1.0, 0.05, time.monotonic)
    interrupted = threading.Semaphore(0)
    with watch.waiting(), watch.interrupting(interrupted.release):
        assert interrupted.acquire(timeout=60)
        assert interrupted.acquire(timeout=60)
        assert any(thread.name == "wheelcache-rate" for thread in threading.enumerate())
    assert not any(thread.name == "wheelcache-rate" for thread in threading.enumerate())
    with pytest.raises(TooSlowError):
        watch.check()


def test_time_outside_of_a_wait_interrupts_nothing() -> None:
    """A listener that takes longer than the window is not interrupted."""
    watch = RateWatch(1.0, 0.01, time.monotonic)
    interrupted = threading.Event()
    with watch.interrupting(interrupted.set):
        assert not interrupted.wait(0.6)
    watch.check()


@pytest.mark.parametrize("min_rate", [0.0, 1.0])
def test_without_a_limit_or_a_thread_there_is_no_interruption(min_rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit no thread is started, and without threads the request continues."""
    started: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        started.append(thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with RateWatch(min_rate, 10.0, time.monotonic).interrupting(pytest.fail):
        assert len(started) == (1 if min_rate else 0)


def test_the_watch_of_this_context() -> None:
    """Within a block, the connections of this context find its watch; otherwise, there is no limit."""
    request = Request()
    with request.watch.watching():
        assert current_watch() is request.watch
        with request.watch.waiting():
            request.clock.advance(100.0)
            with pytest.raises(TooSlowError):
                check_running()
    assert current_watch().seconds_left == math.inf
    check_running()
