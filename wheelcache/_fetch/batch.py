"""Many wheels: what is asked for, in which order it is fetched, and what comes of it.

The work itself is done by threads here and by tasks in :mod:`._async`; both take from one :class:`Plan`, which knows
nothing of either. The largest come first where sizes are known, so that the last one to end is a small one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from .._filenames import check_wheel_name
from .._models import CachedWheel
from .._operation import CURRENT_TOKEN, CancelToken, OperationCancelledError
from .._request import WheelRequest, parse_request
from .._threads import ThreadGroup

# Servers of indexes bear with this many connections of one client. More bring nothing: 12 and 16 take as long, at 30 ms
# a request too (benchmarks/fetch.py, 80 wheels, two cores).
_JOBS = 8


@runtime_checkable
class WheelLike(Protocol):
    """Anything that says where a wheel is: a :class:`WheelRequest`, a ``packaging.pylock.PackageWheel``, ...

    ``size`` and ``filename`` are looked for as well.
    """

    @property
    def url(self) -> str | None:
        """Where its bytes are."""
        ...

    @property
    def hashes(self) -> Mapping[str, str] | Iterable[str] | str | None:
        """What its bytes must have."""
        ...


Request: TypeAlias = str | WheelRequest | WheelLike
"""What ``fetch_all`` takes a list of."""


def _checked(request: Request) -> WheelRequest:
    """Check a request of any kind.

    Raises:
        TypeError, ValueError, InvalidWheelError: where it is none.
    """
    if isinstance(request, str):
        request = WheelRequest(request)
    # Asked for first, since asking a protocol takes as long as half of all that follows.
    if not isinstance(request, WheelRequest | WheelLike):
        kind = type(request).__name__
        raise TypeError(f"a request is a URL, a WheelRequest or has the attributes url and hashes, not {kind}")
    if request.url is None:
        raise ValueError("a request without a URL: a wheel that a lock file names by its path goes in by put")
    size, filename = getattr(request, "size", None), getattr(request, "filename", None)
    wanted = parse_request(request.url, request.hashes, size, filename)
    check_wheel_name(wanted.filename, operation="fetch", url=wanted.shown)
    return WheelRequest(request.url, wanted.hashes, size, wanted.filename)


@dataclass(frozen=True)
class Task:
    """One wheel of many."""

    number: int
    request: WheelRequest


class Plan:
    """Many requests, what is left of them, and what came of the others.

    Args:
        requests: they are all checked before the first is made.
        jobs: how many are fetched at a time, ``None`` for a number that servers bear.
    """

    def __init__(self, requests: Iterable[Request], jobs: int | None) -> None:
        if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
            raise ValueError(f"jobs is a number from 1 on, not {jobs!r}")
        if isinstance(requests, str | WheelRequest):
            raise TypeError("requests is a list of requests, not one of them: that is for fetch")
        tasks = [Task(number, _checked(request)) for number, request in enumerate(requests)]
        self._left = iter(sorted(tasks, key=lambda task: task.request.size or 0, reverse=True))
        self._lock = threading.Lock()
        self._wheels: dict[int, CachedWheel] = {}
        self._errors: dict[int, Exception] = {}
        self._count = len(tasks)
        self.jobs = min(jobs or _JOBS, self._count)

    def take(self) -> Task | None:
        """Return what is to be fetched next."""
        with self._lock:
            return next(self._left, None)

    def done(self, task: Task, outcome: CachedWheel | Exception) -> None:
        """Take down what came of it."""
        with self._lock:
            if isinstance(outcome, Exception):
                self._errors[task.number] = outcome
            else:
                self._wheels[task.number] = outcome

    def result(self) -> list[CachedWheel]:
        """Return the wheels in the order of the requests.

        Raises:
            ExceptionGroup: with every failure.
        """
        if self._errors:
            failures = [self._errors[number] for number in sorted(self._errors)]
            raise ExceptionGroup(f"{len(failures)} of {self._count} wheels could not be fetched", failures)
        return [self._wheels[number] for number in range(self._count)]


def fetch_in_threads(plan: Plan, fetch: Callable[[WheelRequest], CachedWheel]) -> None:
    """Work a plan off in threads of its own. Ctrl-C stops all of them, and comes through when they have ended."""
    stop = CURRENT_TOKEN.get() or CancelToken()
    fatal: list[BaseException] = []

    def work() -> None:
        CURRENT_TOKEN.set(stop)
        try:
            while not stop.is_cancelled and (task := plan.take()) is not None:
                try:
                    plan.done(task, fetch(task.request))
                except Exception as error:
                    plan.done(task, error)
        except OperationCancelledError:
            pass  # whoever stopped it knows
        except BaseException as error:
            fatal.append(error)
            stop.cancel()

    def say_again() -> None:
        if stop.is_cancelled:
            stop.cancel()

    context = copy_context()
    workers = ThreadGroup(lambda: context.copy().run(work), plan.jobs, "wheelcache-fetch")
    workers.run(lambda _: stop.cancel(), poll=say_again)
    if fatal:
        raise fatal[0]
