"""Progress of prune, remove and clear: one event per removed wheel, and an end between two entries when cancelled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty import Doing, FaultyFiles, FileCall, Plan
from many import TINY_SIZE, Tiny, build

from wheelcache import Cache, Phase, ProgressEvent, PruneReport
from wheelcache._fs.robustio import RobustIO
from wheelcache._maintenance.prune import Pruner
from wheelcache._operation import CancelToken, Operation, OperationCancelledError
from wheelcache._options import PruneLimits
from wheelcache._os.system import System
from wheelcache._store.counters import Counters
from wheelcache._store.layout import Layout

COUNT = 1000
AFTER = 3

Removal = Callable[[Pruner, RobustIO], PruneReport]
REMOVALS: dict[str, Removal] = {
    "prune": lambda pruner, fs: pruner.prune(fs, PruneLimits(max_size=0)),
    "remove": lambda pruner, fs: pruner.remove(fs, {Tiny(number).sha256: None for number in range(COUNT)}),
    "clear": lambda pruner, fs: pruner.clear(fs),
}


class StopError(Exception):
    """Raised by a listener."""


def make_cache(root: Path, count: int = COUNT) -> tuple[Layout, Counters]:
    """Make a cache of tiny entries whose size is counted."""
    Cache(root).close()
    build(root, count, System().boot())
    layout = Layout(str(root))
    counters = Counters(layout, writable=True)
    counters.add_growth(count * TINY_SIZE)
    counters.write(RobustIO(Operation(System())))
    return layout, counters


def entries_left(layout: Layout, count: int = COUNT) -> set[str]:
    """Return the digests of the entries that exist. Each is complete."""
    left = {tiny.sha256 for tiny in map(Tiny, range(count)) if os.path.exists(layout.entry(tiny.sha256))}
    for sha256 in left:
        assert len(os.listdir(layout.entry(sha256))) == 2
    return left


@pytest.mark.parametrize("stop", ["cancelled", "listener"])
@pytest.mark.parametrize("name", REMOVALS)
def test_a_stop_leaves_whole_entries_and_events_name_what_was_removed(name: str, stop: str, tmp_path: Path) -> None:
    """After the third event nothing else is removed, the events name what is gone, and the counted size follows."""
    layout, counters = make_cache(tmp_path / "cache")
    token = CancelToken()
    events: list[ProgressEvent] = []

    def listen(event: ProgressEvent) -> None:
        events.append(event)
        if len(events) == AFTER:
            if stop == "listener":
                raise StopError
            token.cancel()

    fs = RobustIO(Operation(System(), tokens=(token,), progress=listen))
    with pytest.raises(StopError if stop == "listener" else OperationCancelledError):
        REMOVALS[name](Pruner(layout, counters), fs)
    assert {event.phase for event in events} == {Phase.REMOVING}
    assert [event.done for event in events] == [TINY_SIZE * number for number in range(1, AFTER + 1)]
    gone = {tiny.sha256: tiny.filename for tiny in map(Tiny, range(COUNT))}
    for sha256 in entries_left(layout):
        del gone[sha256]
    assert {event.detail.removeprefix("sha256:"): event.wheel for event in events} == gone
    size = Counters(layout, writable=True).size(RobustIO(Operation(System())))
    assert size == (COUNT - AFTER) * TINY_SIZE


@pytest.mark.parametrize("operation", ["unlink *.whl", "unlink *.json", "rmdir *"])
@pytest.mark.parametrize("name", REMOVALS)
def test_an_entry_is_removed_whole_or_not_at_all(name: str, operation: str, tmp_path: Path) -> None:
    """A cancellation between the blob and the record of an entry takes effect after the entry, which is reported."""
    files = FaultyFiles()
    layout, counters = make_cache(tmp_path / "cache", 5)
    token = CancelToken()
    kind, pattern = operation.split()
    files.plan = Doing(kind, lambda call: token.cancel(), path=pattern)
    events: list[ProgressEvent] = []
    fs = RobustIO(Operation(System(files=files), tokens=(token,), progress=events.append))
    with pytest.raises(OperationCancelledError):
        REMOVALS[name](Pruner(layout, counters), fs)
    assert len(events) == 1
    assert len(entries_left(layout, 5)) == 4
    assert Counters(layout, writable=True).size(RobustIO(Operation(System()))) == 4 * TINY_SIZE


class CancelAtScan(Plan):
    """Cancels when the folder of the third entry is read."""

    def __init__(self, token: CancelToken) -> None:
        self.token = token
        self.scans = 0

    def before(self, call: FileCall) -> None:
        if call.operation == "scan":
            self.scans += 1
            if self.scans == 30:
                self.token.cancel()


@pytest.mark.parametrize("name", ["prune", "clear"])
def test_a_cancelled_walk_removes_nothing_and_keeps_the_counted_size(name: str, tmp_path: Path) -> None:
    """The size that a walk had found when it was cancelled is not taken for that of the cache."""
    files = FaultyFiles()
    layout, counters = make_cache(tmp_path / "cache", 50)
    token = CancelToken()
    files.plan = CancelAtScan(token)
    with pytest.raises(OperationCancelledError):
        REMOVALS[name](Pruner(layout, counters), RobustIO(Operation(System(files=files), tokens=(token,))))
    assert files.plan.scans == 30
    assert len(entries_left(layout, 50)) == 50
    assert Counters(layout, writable=True).size(RobustIO(Operation(System()))) == 50 * TINY_SIZE


@pytest.mark.parametrize("name", REMOVALS)
def test_an_event_for_each_wheel_of_the_report(name: str, tmp_path: Path) -> None:
    """A call that is not stopped reports one event for each removed wheel, in the order of the report."""
    layout, counters = make_cache(tmp_path / "cache", 20)
    events: list[ProgressEvent] = []
    fs = RobustIO(Operation(System(), progress=events.append))
    report = REMOVALS[name](Pruner(layout, counters), fs)
    assert [(event.wheel, event.detail) for event in events] == [
        (wheel.filename, wheel.digest) for wheel in report.removed
    ]
    assert len(events) == 20
    assert events[-1].done == report.freed


def test_a_dry_run_reports_no_progress(tmp_path: Path) -> None:
    """Nothing is removed, so no event says that anything was."""
    layout, counters = make_cache(tmp_path / "cache", 5)
    events: list[ProgressEvent] = []
    Pruner(layout, counters).clear(RobustIO(Operation(System(), progress=events.append)), dry_run=True)
    assert events == []


@pytest.mark.parametrize("name", REMOVALS)
def test_a_cache_that_is_closed_meanwhile(name: str, tmp_path: Path) -> None:
    """The public methods take a listener. Closing the cache ends them with the error of a closed cache."""
    make_cache(tmp_path / "cache", 20)
    cache = Cache(tmp_path / "cache")
    events: list[ProgressEvent] = []

    def listen(event: ProgressEvent) -> None:
        events.append(event)
        cache.close()

    digests = [f"sha256:{Tiny(number).sha256}" for number in range(20)]
    removals: dict[str, Callable[[], PruneReport]] = {
        "prune": lambda: cache.prune(max_size=0, progress=listen),
        "remove": lambda: cache.remove(*digests, progress=listen),
        "clear": lambda: cache.clear(progress=listen),
    }
    with pytest.raises(ValueError, match="closed"):
        removals[name]()
    assert len(events) == 1
    with Cache(tmp_path / "cache") as reopened:
        assert events[0].detail not in {wheel.digest for wheel in reopened.entries()}
        assert reopened.stats().wheels == 19
