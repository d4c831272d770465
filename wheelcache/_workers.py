"""Workers: threads that share a piece of work, all of which have ended when it is over, also when it is interrupted.

They are waited for by a count of our own and not by ``Thread.join``: before Python 3.13, who is interrupted in it (by
Ctrl-C) takes a thread that runs for one that has ended, and then not even the end of the process waits for it to tidy
up (https://github.com/python/cpython/issues/90882).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

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
