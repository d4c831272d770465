"""Maintenance under the fault sweep: whichever call is refused, no entry is lost that should be kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from marks import under_windows
from scenarios import (
    NEW,
    NEW_TOO,
    OLD,
    OLD_DATA,
    Scenario,
    World,
    damaged,
    seen,
    with_new,
    with_torn_record,
    without_record,
)
from test_fault_sweep import COMMON, LASTING, by_turns, client, quick_path, sweep, url
from wheels import sha256

from wheelcache import Cache

__all__ = ["client", "quick_path", "url"]


@contextmanager
def nobody_waits(world: World, *, but: float = 0.0) -> Iterator[None]:
    """Check that the block waits for at most ``but`` seconds, not counting waits before it."""
    before = sum(world.machine.clock.slept)
    yield
    assert sum(world.machine.clock.slept) - before <= but


def prune_to_the_old(cache: Cache, world: World) -> None:
    with nobody_waits(world, but=0.31):  # the three waits for folders that another prune may be removing
        report = cache.prune(keep=[sha256(OLD_DATA)])
    assert [wheel.filename for wheel in report.removed] in ([], [NEW])


def remove_new(cache: Cache, world: World) -> None:
    if any((world.root / "v1" / "wheels").rglob(f"{NEW.removesuffix('.whl')}.json")):
        with nobody_waits(world):
            cache.remove("new")


def clear(cache: Cache, world: World) -> None:
    with nobody_waits(world):
        cache.clear()


def repair(cache: Cache, world: World) -> None:
    cache.verify(repair=True)


def export_new(cache: Cache, world: World) -> None:
    assert world.wheel is not None
    cache.export(world.out, [world.wheel])
    seen(world.out / NEW)


def put_over_the_limit(cache: Cache, world: World) -> None:
    seen(cache.put(world.source))


SCENARIOS = {
    "prune": Scenario(prune_to_the_old, with_new, gained={}),
    "prune with a torn record": Scenario(prune_to_the_old, with_torn_record, gained={}),
    "put over the limit": Scenario(put_over_the_limit, options={"max_size": 6000}, kept={}),
    "put over the limit, others there": Scenario(
        put_over_the_limit, lambda world: world.put(OLD_DATA, OLD), options={"max_size": 6000}, kept={}
    ),
    "remove": Scenario(remove_new, with_new, gained={}),
    "clear": Scenario(clear, with_new, kept={}, gained={}),
    "verify and repair": Scenario(repair, damaged, gained={}),
    "verify and adopt": Scenario(repair, without_record, sure=False),
    "verify a sound cache": Scenario(repair, with_new, kept=NEW_TOO),
    "export": Scenario(export_new, with_new, kept=NEW_TOO, documented=(FileNotFoundError,)),
}
UNDER_WINDOWS = ("prune", "put over the limit", "clear", "verify and repair", "export")


@pytest.mark.parametrize("name", under_windows(SCENARIOS, UNDER_WINDOWS))
def test_one_refusal(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """Whichever call is refused once, no entry is lost, no wrong byte is returned, and a second call succeeds."""
    for codes in by_turns(COMMON, 1 if sys.platform == "win32" else 3):
        assert sweep(quick_path, url, client, SCENARIOS[name], codes) >= 3


@pytest.mark.parametrize("name", under_windows(SCENARIOS, UNDER_WINDOWS))
def test_refused_from_then_on(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """Whenever the file system begins to refuse everything, no entry is lost once it works again."""
    for codes in by_turns(LASTING, 1 if sys.platform == "win32" else 2):
        assert sweep(quick_path, url, client, SCENARIOS[name], codes, forever=True) >= 3
