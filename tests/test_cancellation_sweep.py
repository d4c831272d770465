"""A call that is cancelled during any of its file operations loses no count or download, and leaves no partial tree."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty import FaultyFiles, FileCall, Plan
from folders import unfinished
from machines import Machine
from marks import any_system, under_windows
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, Phase, ProgressEvent
from wheelcache._fs.robustio import RobustIO
from wheelcache._operation import CURRENT_TOKEN, CancelToken, Operation, OperationCancelledError
from wheelcache._os.system import System
from wheelcache._store.counters import Count, Counters
from wheelcache._store.layout import Layout

SIZE = 600_000
MOST_CALLS = 200


class CancelDuring(Plan):
    """Cancels during the file operation of this number."""

    def __init__(self, token: CancelToken, number: int) -> None:
        self.token = token
        self.number = number
        self.seen = 0

    def before(self, call: FileCall) -> None:
        self.seen += 1
        if self.seen == self.number:
            self.token.cancel()


class EnoughError(Exception):
    """Stops a download halfway."""


def stop_halfway(event: ProgressEvent) -> None:
    if event.phase is Phase.DOWNLOADING and event.done >= SIZE // 2:
        raise EnoughError


def each_cancellation(
    folder: Path, prepare: Callable[[Cache], Callable[[], object]], check: Callable[[Cache, Callable[[], object]], None]
) -> None:
    """Cancel a call during each of its file operations in turn, each time in a new cache, and check that cache."""
    for number in range(1, MOST_CALLS):
        files = FaultyFiles()
        with Machine(files).cache(folder / str(number)) as cache:
            call = prepare(cache)
            token = CancelToken()
            files.plan = plan = CancelDuring(token, number)
            current = CURRENT_TOKEN.set(token)
            try:
                call()
            except OperationCancelledError:
                pass
            finally:
                CURRENT_TOKEN.reset(current)
            files.plan = Plan()
            check(cache, call)
        if plan.seen < number:
            assert number > 5
            return
    raise AssertionError("the call has more file operations than expected")


def counted(cache: Cache) -> Count:
    return Counters(Layout(str(cache.path)), writable=False).read(RobustIO(Operation(System())))


@pytest.mark.parametrize("algorithm", under_windows(["sha256", "sha512"], ["sha256"]))
def test_a_cancelled_fetch_counts_its_miss_and_its_bytes(
    algorithm: str, server: Server, wheel: Wheel, tmp_path: Path
) -> None:
    """The counters and the size of the cache agree with its wheels, and a later call adopts a blob without a record."""
    url = wheel.on(server)

    def check(cache: Cache, call: Callable[[], object]) -> None:
        assert unfinished(cache) == []
        # A cancelled call may have ended before it counted its miss.
        missed = cache.stats().misses
        call()
        after = counted(cache)
        assert after.growth == wheel.size
        assert (after.misses, after.hits) in {(missed, 1), (missed + 1, 0), (missed, 0)}

    each_cancellation(
        tmp_path, lambda cache: lambda: cache.fetch(url, hashes=f"{algorithm}:{wheel.hex(algorithm)}"), check
    )


@pytest.mark.parametrize("hashed", [pytest.param(True, marks=any_system), False])
def test_a_cancelled_resumption_keeps_the_partial_download(hashed: bool, server: Server, tmp_path: Path) -> None:
    """The bytes of an interrupted download and their origin are kept for the next call, in an abandoned file."""
    wheel = Wheel(wheel_filename("big"), make_wheel("big", size=SIZE))
    url = wheel.on(server)

    def prepare(cache: Cache) -> Callable[[], object]:
        hashes = wheel.digest if hashed else None
        with pytest.raises(EnoughError):
            cache.fetch(url, hashes=hashes, progress=stop_halfway)
        return lambda: cache.fetch(url, hashes=hashes)

    def check(cache: Cache, _: Callable[[], object]) -> None:
        blobs = list(cache.path.glob("v1/wheels/*/*/*.whl"))
        kept = list(cache.path.glob("v1/partial/*/*.part"))
        assert len(blobs) + len(kept) == 1
        assert all(file.stat().st_size >= SIZE // 2 for file in kept)
        assert all(file.name.split(".")[1].split("-")[2] == "0" for file in kept)
        assert len(list(cache.path.glob("v1/partial/*/*.json"))) == len(kept)

    each_cancellation(tmp_path, prepare, check)


def test_a_cancelled_call_removes_a_damaged_tree_as_a_whole(wheel: Wheel, tmp_path: Path) -> None:
    """No folder without a marker is left of a damaged tree, or of the one that replaces it."""
    (tmp_path / wheel.filename).write_bytes(wheel.data)

    def prepare(cache: Cache) -> Callable[[], object]:
        stored = cache.put(tmp_path / wheel.filename)
        damaged = next(cache.unpack(stored).path.rglob("*.py"))
        os.chmod(damaged, 0o644)
        damaged.write_bytes(b"damaged")
        return lambda: cache.unpack(stored)

    def check(cache: Cache, _: Callable[[], object]) -> None:
        for tree in cache.path.glob("v1/trees/*/*-?"):
            assert tree.with_name(f"{tree.name}.json").exists()

    each_cancellation(tmp_path / "caches", prepare, check)
