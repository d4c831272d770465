"""Fetch many wheels. Check the requests, distribute them over threads, and collect the outcome of each.

Threads, or tasks of :mod:`wheelcache._async_cache`, take items from a :class:`Batch` until it is empty. If sizes are
known, the largest wheels are fetched first. The last wheel to finish is then small.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

from .._exceptions import InvalidWheelError
from .._filenames import check_wheel_name
from .._models import CachedWheel, Phase, Progress, ProgressEvent
from .._operation import CURRENT_TOKEN, CancelToken, ClosedError, OperationCancelledError
from .._request import ResolvedRequest, WheelRequest, parse_request
from .._threads import ThreadGroup, one_at_a_time

# Index servers accept this many connections from one client. On two cores, 12 or 16 connections do not fetch 80 wheels
# faster, even with a latency of 30 ms (benchmarks/fetch.py).
_JOBS = 8


@runtime_checkable
class WheelLike(Protocol):
    """Any object that describes a wheel: a :class:`WheelRequest`, a ``packaging.pylock.PackageWheel``, ...

    The attributes ``size``, ``filename`` and ``mirrors`` are used if they exist.
    """

    @property
    def url(self) -> str | None:
        """The URL of the wheel."""
        ...

    @property
    def hashes(self) -> Mapping[str, str] | Iterable[str] | str | None:
        """The hashes that the bytes of the wheel must have."""
        ...


Request: TypeAlias = str | WheelRequest | WheelLike
"""One request of ``fetch_all``."""


@dataclass(frozen=True)
class BatchItem:
    """One wheel of a batch.

    Attributes:
        index: the position of the request in the batch.
        request: the request, unchanged.
        resolved: the checked request.
        progress: the listener for the events of this wheel, or ``None``.
    """

    index: int
    request: Request
    resolved: ResolvedRequest
    progress: Progress | None


class Batch:
    """The requests of one ``fetch_all`` and their outcomes.

    Args:
        requests: the requests. All are checked before the first one is fetched.
        jobs: the number of parallel downloads, or ``None`` for a number that index servers accept.
        progress: the caller's listener. One thread at a time calls it.
        return_exceptions: whether an invalid request is an outcome instead of an error of the whole batch.

    Raises:
        TypeError: if ``requests`` is a single request, or contains an object that is not a request.
        ValueError: if ``jobs`` or a request is invalid.
        InvalidWheelError: if a request does not have the file name of a wheel.
    """

    def __init__(
        self,
        requests: Iterable[Request],
        jobs: int | None,
        progress: Progress | None,
        *,
        return_exceptions: bool = False,
    ) -> None:
        if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
            raise ValueError(f"jobs must be a positive number, not {jobs!r}")
        if isinstance(requests, str | WheelRequest):
            raise TypeError("requests must be a list of requests (use fetch for a single one)")
        listener = one_at_a_time(progress)
        self._lock = threading.Lock()
        self._outcomes: dict[int, CachedWheel | Exception] = {}
        items: list[BatchItem] = []
        for index, request in enumerate(requests):
            item_listener = _listener_for(listener, request, index)
            try:
                items.append(BatchItem(index, request, _resolve(request), item_listener))
            except (ValueError, InvalidWheelError) as error:
                if not return_exceptions:
                    raise
                self._fail(index, getattr(request, "filename", None) or "", item_listener, error)
        self._remaining = iter(sorted(items, key=lambda item: item.resolved.size or 0, reverse=True))
        self._count = len(items) + len(self._outcomes)
        self.jobs = min(jobs or _JOBS, len(items))

    def take(self) -> BatchItem | None:
        """Return the next item to fetch, or ``None`` if no item is left."""
        with self._lock:
            return next(self._remaining, None)

    def finish(self, item: BatchItem, outcome: CachedWheel | Exception) -> None:
        """Store the outcome of an item, and report a failure to the listener."""
        if isinstance(outcome, Exception):
            self._fail(item.index, item.resolved.filename, item.progress, outcome)
        else:
            with self._lock:
                self._outcomes[item.index] = outcome

    def _fail(self, index: int, filename: str, listener: Progress | None, error: Exception) -> None:
        if listener is not None:
            try:
                listener(ProgressEvent(filename, Phase.FAILED, detail=str(error)))
            except Exception as raised:
                error = raised
        with self._lock:
            self._outcomes[index] = error

    def outcomes(self) -> list[CachedWheel | Exception]:
        """Return the outcome of each request, in the order of the requests.

        Raises:
            ClosedError: if the cache was closed before all requests had finished.
        """
        outcomes = [self._outcomes[index] for index in range(self._count)]
        for outcome in outcomes:
            if isinstance(outcome, ClosedError):
                raise outcome
        return outcomes

    def wheels(self) -> list[CachedWheel]:
        """Return the wheels in the order of the requests.

        Raises:
            ExceptionGroup: if a request failed. The group contains all failures.
        """
        outcomes = self.outcomes()
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failures:
            raise ExceptionGroup(f"{len(failures)} of {self._count} wheels could not be fetched", failures)
        return [outcome for outcome in outcomes if isinstance(outcome, CachedWheel)]


def _resolve(request: Request) -> ResolvedRequest:
    if isinstance(request, str):
        request = WheelRequest(request)
    # WheelRequest is checked first, because checking a protocol takes half as long as the rest of this function.
    if not isinstance(request, WheelRequest | WheelLike):
        kind = type(request).__name__
        raise TypeError(
            f"a request must be a URL, a WheelRequest or an object with the attributes url and hashes, not {kind}"
        )
    if request.url is None:
        raise ValueError("a request has no URL (a wheel that a lock file names by its path can be added with put)")
    optional = (getattr(request, "size", None), getattr(request, "filename", None))
    resolved = parse_request(request.url, request.hashes, *optional, getattr(request, "mirrors", ()))
    check_wheel_name(resolved.filename, operation="fetch", url=resolved.display_url)
    return resolved


def _listener_for(progress: Progress | None, request: Request, index: int) -> Progress | None:
    """Return a listener that adds the request and its position to each event."""
    if progress is None:
        return None

    def report(event: ProgressEvent) -> object:
        return progress(replace(event, request=request, index=index))

    return report


def fetch_in_threads(
    batch: Batch, token: CancelToken, fetch: Callable[[BatchItem], CachedWheel], check: Callable[[], None]
) -> None:
    """Fetch a batch in new threads.

    A KeyboardInterrupt in any thread cancels all threads, and is raised after they have ended.

    Args:
        batch: the batch.
        token: the token of the operations that ``fetch`` performs.
        fetch: fetches one item.
        check: raises an error if another thread has cancelled the operation.
    """
    fatal: list[BaseException] = []

    def work() -> None:
        CURRENT_TOKEN.set(token)
        try:
            while not token.is_cancelled and (item := batch.take()) is not None:
                try:
                    batch.finish(item, fetch(item))
                except Exception as error:
                    batch.finish(item, error)
        except OperationCancelledError:
            pass  # the calling thread raises this error
        except BaseException as error:
            fatal.append(error)
            token.cancel()

    def cancel_again() -> None:
        check()
        if token.is_cancelled:
            token.cancel()

    context = copy_context()
    threads = ThreadGroup(lambda: context.copy().run(work), batch.jobs, "wheelcache-fetch")
    threads.run(lambda _: token.cancel(), poll=cancel_again)
    if fatal:
        raise fatal[0]
    check()
