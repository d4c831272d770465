"""Workers: threads that share a piece of work are waited for, whatever comes in between."""

from __future__ import annotations

import signal
import threading

import pytest
from marks import not_on_windows

from wheelcache._workers import Workers


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("workers-test")]


def test_all_of_them_work_and_have_ended() -> None:
    """Each of three works beside the others, and none is left when they were waited for."""
    together = threading.Barrier(3)
    workers = Workers(lambda: together.wait(60), 3, "workers-test")
    workers.start()
    workers.wait()
    assert not together.broken
    assert running() == []


@not_on_windows("a thread cannot send another one Ctrl-C there")
def test_who_is_interrupted_can_still_wait_for_them() -> None:
    """After a Ctrl-C in the middle of waiting, who still works is waited for, and not taken for one that has ended."""
    here, go_on = threading.get_ident(), threading.Event()

    def work() -> None:
        signal.pthread_kill(here, signal.SIGINT)
        go_on.wait(60)

    workers = Workers(work, 1, "workers-test")

    def start_and_wait() -> None:
        workers.start()
        workers.wait()

    with pytest.raises(KeyboardInterrupt):
        start_and_wait()
    assert running() == ["workers-test-0"]
    looked = []
    workers.wait(lambda: (looked.append(running()), go_on.set()))
    assert looked == [["workers-test-0"]]
    assert running() == []


def test_a_thread_that_cannot_be_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more threads, that is the error, and those that run are waited for."""
    start, started = threading.Thread.start, []

    def few(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    go_on = threading.Event()
    workers = Workers(lambda: go_on.wait(60), 2, "workers-test")
    monkeypatch.setattr(threading.Thread, "start", few)
    with pytest.raises(RuntimeError):
        workers.start()
    go_on.set()
    workers.wait()
    assert running() == []
