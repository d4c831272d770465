"""Fetch many requests: from the cache if possible, and the missing ones from the network with pip's settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wheelcache import Cache, CachedWheel, OfflineError, Phase, ProgressEvent, WheelCacheError

from ._errors import CommandError
from ._progress import ProgressBars
from .resolve.credentials import Credentials
from .resolve.pip import pip_settings
from .resolve.requests import FetchRequest

EXPECTED_ERRORS = (CommandError, WheelCacheError, OSError, ValueError)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a request.

    Attributes:
        request: the request.
        seconds: the time between its first and its last progress event.
        result: the wheel, or the error.
    """

    request: FetchRequest
    seconds: float
    result: CachedWheel | Exception


def fetch_offline(
    cache: Cache, requests: Sequence[FetchRequest], *, jobs: int, bars: ProgressBars, final: bool
) -> list[Outcome]:
    """Fetch requests from an offline cache, which also adds local files.

    Args:
        cache: the cache.
        requests: the requests.
        jobs: the number of wheels in parallel.
        bars: show the progress.
        final: whether no other attempt follows for wheels that need the network.

    Returns:
        The outcomes, in the order of the requests.
    """
    outcomes = _fetch_all(
        cache,
        {position: _by_digest(cache, request) for position, request in enumerate(requests)},
        jobs,
        bars,
        final=final,
    )
    for position, outcome in outcomes.items():
        if not needs_network(outcome):
            bars.finish(position)
    return list(outcomes.values())


def fetch_missing(
    folder: Path, outcomes: Sequence[Outcome], texts: Callable[[], Iterable[str]], *, jobs: int, bars: ProgressBars
) -> list[Outcome]:
    """Fetch from the network the requests that failed offline.

    Args:
        folder: the cache folder.
        outcomes: the outcomes of :func:`fetch_offline`.
        texts: returns the user's texts that may contain credentials; see :class:`Credentials`.
        jobs: the number of parallel downloads.
        bars: show the progress.

    Returns:
        All outcomes, in the same order.

    Raises:
        CommandError: if one of pip's settings cannot be applied.
    """
    missing = {position: outcome.request for position, outcome in enumerate(outcomes) if needs_network(outcome)}
    if not missing:
        return list(outcomes)
    # httpx is imported only for downloads, so that a run of hits starts fast.
    from ._http_client import http_client

    settings = pip_settings()
    credentials = Credentials([*settings.values(), *texts()])
    with http_client(settings, credentials) as client, Cache(folder, client=client) as cache:
        fetched = _fetch_all(cache, missing, jobs, bars, final=True)
    return [fetched.get(position, outcome) for position, outcome in enumerate(outcomes)]


def needs_network(outcome: Outcome) -> bool:
    """Return whether a request failed because the cache is offline."""
    return isinstance(outcome.result, OfflineError)


def _by_digest(cache: Cache, request: FetchRequest) -> FetchRequest:
    """Request a local file by its digest if the cache has it, which makes it a hit."""
    if request.local_digest is not None and request.local_digest in cache:
        return replace(request, hashes=request.local_digest)
    return request


def _fetch_all(
    cache: Cache, requests: Mapping[int, FetchRequest], jobs: int, bars: ProgressBars, *, final: bool
) -> dict[int, Outcome]:
    """Fetch requests by position, and return the outcomes by position."""
    positions = list(requests)
    started: dict[int, float] = {}
    ended: dict[int, float] = {}

    def show(event: ProgressEvent) -> None:
        assert event.index is not None
        position = positions[event.index]
        ended[position] = time.monotonic()
        started.setdefault(position, ended[position])
        if event.phase is Phase.DONE or (event.phase is Phase.FAILED and final):
            bars.finish(position)
        elif event.phase is Phase.FAILED:
            bars.hide(position)
        else:
            bars.show(position, event)

    results = cache.fetch_all(requests.values(), jobs=jobs, progress=show, return_exceptions=True)
    outcomes: dict[int, Outcome] = {}
    for (position, request), result in zip(requests.items(), results, strict=True):
        if isinstance(result, Exception) and not isinstance(result, EXPECTED_ERRORS):
            raise result  # a bug, which keeps its traceback
        outcomes[position] = Outcome(request, ended.get(position, 0.0) - started.get(position, 0.0), result)
    return outcomes
