"""Fetch many requests from the cache if possible, and the missing wheels from the network with pip's settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wheelcache import AsyncCache, Cache, CachedWheel, OfflineError, Phase, ProgressEvent, WheelCacheError

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
        seconds: the time between the first and the last progress event.
        result: the wheel, or the error.
    """

    request: FetchRequest
    seconds: float
    result: CachedWheel | Exception


def fetch_offline(
    cache: Cache, requests: Sequence[FetchRequest], *, jobs: int, bars: ProgressBars, final: bool
) -> list[Outcome]:
    """Fetch requests from an offline cache. Local files are added to the cache.

    Args:
        cache: the cache.
        requests: the requests.
        jobs: the number of wheels in parallel.
        bars: the progress bars.
        final: whether no other attempt follows for wheels that need the network.

    Returns:
        The outcomes, in the order of the requests.
    """
    by_position = {position: _by_digest(cache, request) for position, request in enumerate(requests)}
    batch = _Batch(by_position, bars, final=final)
    results = cache.fetch_all(by_position.values(), jobs=jobs, progress=batch.show, return_exceptions=True)
    outcomes = batch.outcomes(results)
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
        texts: returns the user's texts that may contain credentials, as :class:`Credentials` expects.
        jobs: the number of parallel downloads.
        bars: the progress bars.

    Returns:
        The outcomes of all requests, in the same order.

    Raises:
        CommandError: if one of pip's settings cannot be applied.
    """
    missing = {position: outcome.request for position, outcome in enumerate(outcomes) if needs_network(outcome)}
    if not missing:
        return list(outcomes)
    # asyncio and httpx are imported only for downloads, so that a run of hits starts fast.
    import asyncio

    from ._http_client import create_http_client

    settings = pip_settings()
    credentials = Credentials([*settings.values(), *texts()])

    async def download() -> dict[int, Outcome]:
        batch = _Batch(missing, bars, final=True)
        # The client is asynchronous, because its waits can all be interrupted, even the wait for response headers on a
        # reused connection.
        async with (
            create_http_client(settings, credentials) as client,
            AsyncCache(folder, client=client) as cache,
        ):
            results = await cache.fetch_all(missing.values(), jobs=jobs, progress=batch.show, return_exceptions=True)
        return batch.outcomes(results)

    fetched = asyncio.run(download())
    return [fetched.get(position, outcome) for position, outcome in enumerate(outcomes)]


def needs_network(outcome: Outcome) -> bool:
    """Return whether a request failed because the cache is offline."""
    return isinstance(outcome.result, OfflineError)


def _by_digest(cache: Cache, request: FetchRequest) -> FetchRequest:
    """Request a local file by its digest if the cache contains this digest, so that the request is a hit."""
    if request.local_digest is not None and request.local_digest in cache:
        return replace(request, hashes=request.local_digest)
    return request


class _Batch:
    """The requests of one call of ``fetch_all``, with their progress and outcomes.

    Args:
        requests: the requests, by their position in the progress bars.
        bars: the progress bars.
        final: whether no other attempt follows for a request that fails.
    """

    def __init__(self, requests: Mapping[int, FetchRequest], bars: ProgressBars, *, final: bool) -> None:
        self._requests = requests
        self._positions = list(requests)
        self._bars = bars
        self._final = final
        self._started: dict[int, float] = {}
        self._ended: dict[int, float] = {}

    def show(self, event: ProgressEvent) -> None:
        """Show an event, and store its time. ``fetch_all`` calls this method in one thread at a time."""
        assert event.index is not None
        position = self._positions[event.index]
        self._ended[position] = time.monotonic()
        self._started.setdefault(position, self._ended[position])
        if event.phase is Phase.DONE or (event.phase is Phase.FAILED and self._final):
            self._bars.finish(position)
        elif event.phase is Phase.FAILED:
            self._bars.hide(position)
        else:
            self._bars.show(position, event)

    def outcomes(self, results: Iterable[CachedWheel | Exception]) -> dict[int, Outcome]:
        """Return the outcomes by position. An unexpected exception is a bug, and is raised with its traceback."""
        outcomes: dict[int, Outcome] = {}
        for (position, request), result in zip(self._requests.items(), results, strict=True):
            if isinstance(result, Exception) and not isinstance(result, EXPECTED_ERRORS):
                raise result
            seconds = self._ended.get(position, 0.0) - self._started.get(position, 0.0)
            outcomes[position] = Outcome(request, seconds, result)
        return outcomes
