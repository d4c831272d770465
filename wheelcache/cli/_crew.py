"""Several wheels at once, and an end to all of it when the user says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

from wheelcache import Cache, CachedWheel, OfflineError, ProgressEvent, WheelCacheError

from ._progress import Bars
from .resolve.requests import FetchRequest

THREAD_NAME = "wheelcache-fetch"
# On Windows nothing that waits for another thread hears Ctrl-C, so it waits a little at a time.
_TICK = 0.2
# How long threads that were told to stop may take to clean up behind them.
_GRACE = 5.0


class _StopError(Exception):
    """The user has had enough."""


@dataclass(frozen=True)
class Outcome:
    """What became of an item: ``wheel`` or ``error``, and the seconds it took."""

    item: FetchRequest
    seconds: float
    wheel: CachedWheel | None = None
    error: Exception | None = None


def fetch_all(
    cache: Cache,
    items: Sequence[tuple[int, FetchRequest]],
    jobs: int,
    bars: Bars,
    *,
    cut: Callable[[], object] = lambda: None,
) -> list[Outcome]:
    """Fetch wheels, ``jobs`` at a time; the outcomes come in the order of the items.

    Args:
        cache: to fetch from.
        items: with the numbers that ``bars`` knows them by.
        jobs: how many at once.
        bars: to show it on.
        cut: ends what waits for the network, when this is interrupted.
    """
    stop = threading.Event()

    def fetch(number: int, item: FetchRequest) -> Outcome:
        def progress(event: ProgressEvent) -> None:
            if stop.is_set():
                raise _StopError
            bars.show(number, event)

        started = time.monotonic()
        try:
            hashes = item.local_digest if item.local_digest is not None and item.local_digest in cache else item.hashes
            wheel = cache.fetch(item.url, hashes=hashes, size=item.size, filename=item.filename, progress=progress)
        except OfflineError as error:
            return Outcome(item, time.monotonic() - started, error=error)  # another try may follow, with the network
        except (WheelCacheError, OSError, ValueError) as error:
            outcome = Outcome(item, time.monotonic() - started, error=error)
        else:
            outcome = Outcome(item, time.monotonic() - started, wheel)
        bars.finish(number)
        return outcome

    pool = ThreadPoolExecutor(jobs, THREAD_NAME)
    futures = [pool.submit(fetch, number, item) for number, item in items]
    try:
        pending = set(futures)
        while pending:
            done, pending = wait(pending, _TICK, FIRST_EXCEPTION)
            for future in done:
                future.result()  # which raises what is a bug, while the others are not yet done
        return [future.result() for future in futures]
    except BaseException:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        cut()
        wait(futures, _GRACE)
        raise
    finally:
        pool.shutdown(wait=False)
