"""A junction in place of a folder of the cache leads no call out of the cache, on Windows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from junctions import plant_junction
from machines import Machine
from marks import on_windows
from server import Server
from wheels import Wheel

from wheelcache import Cache, WheelCacheError

pytestmark = on_windows

AREAS = ["wheels", "trees", "urls", "metadata", "partial", "tmp", "locks", "quarantine"]
AREAS += ["wheels/??", "trees/??", "partial/??"]
DAY = 86_400


def state(folder: Path) -> list[tuple[str, bytes | None, float]]:
    """Return the names, contents and time stamps below a folder."""
    return [
        (str(path.relative_to(folder)), path.read_bytes() if path.is_file() else None, path.stat().st_mtime)
        for path in sorted(folder.rglob("*"))
    ]


def fill(cache: Cache, server: Server, wheel: Wheel) -> None:
    """Give every area of a cache some content."""
    cache.unpack(cache.fetch(wheel.on(server)))
    cache.metadata(server.url(wheel.path))
    v1 = Path(cache.path) / "v1"
    for area in ("urls", "metadata", "partial", "tmp", "locks", "quarantine"):
        (v1 / area / "ab").mkdir(parents=True, exist_ok=True)
    for folder in (v1 / "quarantine", v1 / "tmp", v1 / "locks", v1 / "partial" / "ab"):
        (folder / "1600000000-12345678-1-00000000.e3b0c442.tmp").write_bytes(b"left over")
        os.utime(folder / "1600000000-12345678-1-00000000.e3b0c442.tmp", (1.6e9, 1.6e9))


def calls(cache: Cache, server: Server, wheel: Wheel, other: Wheel, source: Path) -> dict[str, Callable[[], object]]:
    """Return each call that reads, writes or deletes files of the cache."""
    return {
        "get": lambda: cache.get(wheel.digest),
        "put": lambda: cache.put(source),
        "fetch": lambda: cache.fetch(wheel.on(server)),
        "fetch another": lambda: cache.fetch(server.url(other.path), hashes=other.digest),
        "unpack": lambda: cache.unpack(cache.fetch(wheel.on(server))),
        "metadata": lambda: cache.metadata(server.url(wheel.path)),
        "entries": lambda: list(cache.entries()),
        "stats": cache.stats,
        "verify": lambda: cache.verify(repair=True),
        "prune": cache.prune,
        "prune to a size": lambda: cache.prune(max_size=0),
        "remove": lambda: cache.remove(wheel.digest),
        "clear": cache.clear,
    }


def attempt(call: Callable[[], object]) -> None:
    """Make a call that may be refused."""
    with suppress(WheelCacheError, OSError, ValueError):
        call()


@pytest.mark.parametrize("area", AREAS)
def test_no_call_leaves_the_cache(
    machine: Machine, server: Server, wheel: Wheel, other_wheel: Wheel, tmp_path: Path, area: str
) -> None:
    """Every call works without this folder or reports it. Nothing behind the junction is changed or returned."""
    source = tmp_path / other_wheel.filename
    source.write_bytes(other_wheel.data)
    other_wheel.on(server)
    with machine.cache(tmp_path / "cache") as cache:
        fill(cache, server, wheel)
    folder = next((tmp_path / "cache" / "v1").glob(area))
    # The content is that of the cache itself, which every call would accept.
    victim = tmp_path / "victim"
    shutil.move(folder, victim)
    plant_junction(folder, victim)
    before = state(victim)
    machine.clock.advance(400 * DAY)
    with machine.cache(tmp_path / "cache") as cache:
        for name, call in calls(cache, server, wheel, other_wheel, source).items():
            if name in {"remove", "clear"}:  # the calls before have deleted everything
                attempt(lambda: cache.unpack(cache.fetch(wheel.on(server))))
            attempt(call)
            assert state(victim) == before, name
