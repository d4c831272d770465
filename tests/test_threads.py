"""Thread groups, which always wait for their threads, and listeners that several threads share."""

from __future__ import annotations

import signal
import threading

import pytest
from marks import not_on_windows

from wheelcache._threads import ThreadGroup, one_at_a_time


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("workers-test")]


def test_all_of_them_work_and_have_ended() -> None:
    """Three threads and the caller work at the same time, and all threads have ended afterwards."""
    together = threading.Barrier(4)
    ThreadGroup(lambda: together.wait(60), 3, "workers-test").run(
        lambda _: together.abort(), in_caller=lambda: together.wait(60)
    )
    assert not together.broken
    assert running() == []


@not_on_windows("a thread cannot send another one Ctrl-C there")
def test_an_interrupt_comes_through_when_all_have_ended() -> None:
    """Ctrl-C during the wait stops the running thread and waits for its end before it is raised."""
    here, waited_for, go_on = threading.get_ident(), threading.Event(), threading.Event()
    told: list[tuple[type[BaseException], list[str]]] = []

    def work() -> None:
        waited_for.wait(60)
        signal.pthread_kill(here, signal.SIGINT)
        go_on.wait(60)

    def poll() -> None:
        (go_on if told else waited_for).set()

    with pytest.raises(KeyboardInterrupt):
        ThreadGroup(work, 1, "workers-test").run(lambda error: told.append((type(error), running())), poll=poll)
    assert told == [(KeyboardInterrupt, ["workers-test-0"])]
    assert go_on.is_set()
    assert running() == []


def test_what_is_raised_here_ends_the_others_first() -> None:
    """An error in the caller stops the threads, and is raised once they have ended."""
    go_on = threading.Event()

    def fail() -> None:
        raise OSError("here")

    with pytest.raises(OSError, match="here"):
        ThreadGroup(lambda: go_on.wait(60), 2, "workers-test").run(lambda _: go_on.set(), in_caller=fail)
    assert running() == []


def test_a_thread_that_cannot_be_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no more threads can be started, that error is raised once the running ones have been stopped."""
    start, started = threading.Thread.start, []

    def few(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    go_on = threading.Event()
    monkeypatch.setattr(threading.Thread, "start", few)
    with pytest.raises(RuntimeError):
        ThreadGroup(lambda: go_on.wait(60), 2, "workers-test").run(lambda _: go_on.set())
    assert running() == []


def test_a_shared_listener_is_called_by_one_thread_at_a_time() -> None:
    """If two threads report at once, the second event is passed on after the listener has returned for the first."""
    entered, release, calls = threading.Event(), threading.Event(), []

    def listener(event: str) -> None:
        calls.append(("begin", event))
        if event == "first":
            entered.set()
            release.wait(60)
        calls.append(("end", event))

    shared = one_at_a_time(listener)
    assert shared is not None
    waiting = threading.Event()

    def report_second() -> None:
        waiting.set()
        shared("second")

    threads = [threading.Thread(target=shared, args=("first",)), threading.Thread(target=report_second)]
    threads[0].start()
    entered.wait(60)
    threads[1].start()
    waiting.wait(60)
    release.set()
    for thread in threads:
        thread.join(60)
    assert calls == [("begin", "first"), ("end", "first"), ("begin", "second"), ("end", "second")]


def test_no_listener_stays_none() -> None:
    """Without a listener the result is ``None``, so that no events are created."""
    assert one_at_a_time(None) is None


def test_a_thread_that_starts_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Ctrl-C interrupts the start of a thread that later runs nevertheless, the thread does no work."""
    start, late, done = threading.Thread.start, [], []

    def interrupted(thread: threading.Thread) -> None:
        late.append(thread)
        raise KeyboardInterrupt

    def start_late(_: BaseException) -> None:
        monkeypatch.undo()
        start(late[0])
        late[0].join()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ThreadGroup(lambda: done.append(1), 2, "late").run(start_late)
    assert done == []
