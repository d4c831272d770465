"""Prune beside processes that fetch and read: no wrong bytes, no errors, and the order of last use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from many import TINY_SIZE, Tiny, build

from wheelcache import Cache
from wheelcache._cache import core_of
from wheelcache._fs.robustio import RobustIO
from wheelcache._os.system import System
from wheelcache._store.walk import walk_entries

CHILD = Path(__file__).parents[1] / "support" / "children" / "use_while_pruned.py"
PROCESSES = 4


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_cache_is_cut_in_half_while_others_use_it(tmp_path: Path, count: int) -> None:
    """Ten prunes halve the cache beside four processes, and remove whole entries in the order of their last use."""
    root, sources, stop = tmp_path / "cache", tmp_path / "sources", tmp_path / "stop"
    Cache(root).close()
    build(root, count, System().boot())
    sources.mkdir()
    for tiny in map(Tiny, range(count)):
        (sources / tiny.filename).write_bytes(tiny.data)
    users = [
        subprocess.Popen(
            [sys.executable, CHILD, root, sources, str(count), str(seed), stop],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for seed in range(PROCESSES)
    ]
    try:
        assert [user.stdout.readline() for user in users] == ["ready\n"] * PROCESSES
        reports = []
        with Cache(root) as cache:
            for step in range(1, 11):
                reports.append(cache.prune(max_size=count * TINY_SIZE * (20 - step) // 20))
                assert reports[-1].freed <= count * TINY_SIZE
    finally:
        stop.touch()
        told = [json.loads(user.communicate()[0].splitlines()[-1]) for user in users]
    assert [wrong for user in told for wrong in user["wrong"]] == []
    assert all(user.returncode == 0 for user in users)

    numbers = {f"sha256:{Tiny(number).sha256}": number for number in range(count)}
    removed = [numbers[wheel.digest] for report in reports for wheel in report.removed]
    used = {number for user in told for number in user["used"]}
    # Of the entries that were not used, exactly the oldest are gone.
    gone = sorted(set(removed) - used)
    stayed = set(range(count)) - set(removed) - used
    assert gone
    assert all(number > gone[-1] for number in stayed)
    reasons = {skipped.reason for report in reports for skipped in report.skipped}
    # On Windows, a file that Python opened for reading cannot be deleted.
    assert reasons <= {"used meanwhile", "held by another process (winerror 32)"}

    with Cache(root) as cache:
        half = [
            entry
            for entry in walk_entries(RobustIO(core_of(cache).begin()), core_of(cache).layout)
            if not entry.names or not entry.blobs
        ]
        # A process that was fetching or reading a wheel during its removal may have stored the blob again, or kept the
        # folder. This is not an entry: prune sweeps it after a day, and the next fetch completes it.
        for tiny in (Tiny(numbers[f"sha256:{entry.sha256}"]) for entry in half):
            assert tiny.number in used
            cache.fetch((sources / tiny.filename).as_uri(), hashes=f"sha256:{tiny.sha256}")
        cache.prune(max_size=count * TINY_SIZE // 2)
        assert cache.stats().wheel_bytes <= count * TINY_SIZE // 2
        assert cache.verify().problems == ()
        for wheel in cache.entries():
            assert wheel.path.read_bytes() == Tiny(numbers[wheel.digest]).data
