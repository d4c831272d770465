"""Trees are removed, counted and verified with their wheels, and their leftovers are swept."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from faulty import Doing, FaultyFiles
from folders import files_in
from machines import Machine
from marks import not_on_windows
from wheels import make_wheel, wheel_filename

from wheelcache import Action, Cache, CachedWheel, ProblemKind
from wheelcache._cache import core_of
from wheelcache._fs.robustio import RobustIO

DAY = 86_400.0
SIZE = 3000


@pytest.fixture
def wheels(machine: Machine, cache: Cache, tmp_path: Path) -> list[CachedWheel]:
    """Three wheels, a day apart, each unpacked."""
    found = []
    for number in range(3):
        source = tmp_path / wheel_filename(f"p{number}")
        source.write_bytes(make_wheel(f"p{number}", size=SIZE))
        found.append(cache.put(source))
        cache.unpack(found[-1])
        machine.clock.advance(DAY + 1)
    return found


def tree(cache: Cache, wheel: CachedWheel) -> Path:
    return cache.unpack(wheel).path


def tree_bytes(cache: Cache) -> int:
    """Return the size of all unpacked files, without markers."""
    return sum(len(data) for name, data in files_in(cache.path / "v1/trees").items() if name.count("/") > 1)


def test_a_tree_goes_with_its_wheel(cache: Cache, wheels: list[CachedWheel]) -> None:
    """The oldest wheel is removed with its tree, and both count as freed. The other trees are kept."""
    before = tree_bytes(cache)
    gone, *left = [tree(cache, wheel) for wheel in wheels]
    total = 3 * SIZE + before
    report = cache.prune(max_size=total - 1)
    assert [wheel.digest for wheel in report.removed] == [wheels[0].digest]
    assert report.freed == SIZE + before - tree_bytes(cache)
    assert not gone.exists()
    assert not gone.with_name(gone.name + ".json").exists()
    assert all(path.exists() for path in left)
    assert core_of(cache).counters.size(RobustIO(core_of(cache).begin())) == total - report.freed
    assert cache.stats().trees == 2


def test_remove_and_clear_take_trees(cache: Cache, wheels: list[CachedWheel]) -> None:
    """No tree is left, not even one without a wheel."""
    cache.remove("p1")
    assert cache.stats().trees == 2
    wheels[2].path.unlink()
    cache.clear()
    assert [name for name in files_in(cache.path) if name.startswith(("v1/trees", "v1/wheels"))] == []


def test_a_dry_run_of_clear_counts_each_wheel_once(cache: Cache, wheels: list[CachedWheel]) -> None:
    """A dry run reports the same wheels and bytes as the run that follows, with trees and without."""
    plan = cache.clear(dry_run=True)
    done = cache.clear()
    assert [wheel.digest for wheel in plan.removed] == [wheel.digest for wheel in done.removed]
    assert (len(plan.removed), plan.freed) == (3, done.freed)


def test_a_cache_keeps_to_its_size_when_it_unpacks(machine: Machine, cache: Cache, wheels: list[CachedWheel]) -> None:
    """Trees count: unpacking beyond the limit removes the oldest wheel."""
    limit = 2 * SIZE + tree_bytes(cache)
    with machine.cache(cache.path, max_size=limit) as small:
        tree_of = tree(small, wheels[2])
        next(path for path in tree_of.rglob("*.py")).unlink()
        assert tree(small, wheels[2]).exists()
        assert small.get(wheels[0].digest) is None
        assert small.get(wheels[2].digest) is not None


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_tree_is_told_and_removed(cache: Cache, wheels: list[CachedWheel], damage: str) -> None:
    """Every file is hashed, whatever its time stamp. A repair removes the tree, and unpacking makes it again."""
    path = next(tree(cache, wheels[1]).rglob("*.py"))
    data, before = path.read_bytes(), path.stat()
    path.chmod(0o644)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(bytes(len(data)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    report = cache.verify()
    assert report.checked == 6
    (problem,) = report.problems
    assert (problem.kind, problem.path, problem.digest) == (ProblemKind(damage), path, wheels[1].digest)
    assert [problem.action for problem in cache.verify(repair=True).problems] == [Action.REMOVED]
    assert cache.verify().problems == ()
    assert (tree(cache, wheels[1]) / path.name).read_bytes() == data


def test_an_unfinished_tree_is_swept_when_it_is_old(machine: Machine, cache: Cache, wheels: list[CachedWheel]) -> None:
    """A folder without a marker is kept for a day, while a process may be filling it."""
    old, young = tree(cache, wheels[0]), tree(cache, wheels[1])
    for path, age in ((old, 1.1 * DAY), (young, 0.9 * DAY)):
        path.with_name(path.name + ".json").unlink()
        os.utime(path, (machine.clock.now() - age,) * 2)
    report = cache.prune()
    assert report.swept == (old,)
    assert (old.exists(), young.exists()) == (False, True)
    assert [skipped.path for skipped in cache.clear().skipped] == [young]


@not_on_windows("Windows has no such modes")
@pytest.mark.parametrize(("root_mode", "mode"), [(0o2775, 0o444), (0o2770, 0o440), (0o700, 0o400)], ids=oct)
def test_trees_are_as_open_as_the_cache(tmp_path: Path, root_mode: int, mode: int) -> None:
    """The users of a cache can read its trees, whatever the umask of the process was, but not write to them."""
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(root_mode)
    (tmp_path / wheel_filename()).write_bytes(make_wheel())
    before = os.umask(0o077)
    try:
        with Cache(root) as cache:
            path = cache.unpack(cache.put(tmp_path / wheel_filename())).path
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.rglob("*") if file.is_file()} == {mode}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in root.rglob("*") if folder.is_dir()} == {root_mode}


def test_foreign_files_in_trees_are_reported(cache: Cache, wheels: list[CachedWheel]) -> None:
    """Foreign files in a tree and between trees are reported. A repair keeps the trees."""
    folder = tree(cache, wheels[0])
    foreign = [
        folder / "mine.py",
        folder / "__pycache__/mine.pyc",
        folder.parent / "mine.json",
        folder.parent.parent / "x",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert {(problem.kind, problem.path) for problem in cache.verify().problems} == {
        (ProblemKind.FOREIGN, path) for path in foreign
    }
    assert cache.prune(max_age=3600 * DAY).skipped == ()
    assert {problem.action for problem in cache.verify(repair=True).problems} == {Action.QUARANTINED}
    assert cache.verify().problems == ()
    assert tree(cache, wheels[0]) == folder
    assert cache.stats().trees == 3


def test_a_tree_that_lost_its_marker_is_told(machine: Machine, cache: Cache, wheels: list[CachedWheel]) -> None:
    """A torn marker is reported at once, and a folder without a marker once it is old."""
    torn, old, young = (tree(cache, wheel) for wheel in wheels)
    markers = [path.with_name(path.name + ".json") for path in (torn, old, young)]
    os.truncate(markers[0], 30)
    for path, marker, age in ((old, markers[1], 1.1 * DAY), (young, markers[2], 0.9 * DAY)):
        marker.unlink()
        os.utime(path, (machine.clock.now() - age,) * 2)
    assert {(problem.kind, problem.path) for problem in cache.verify().problems} == {
        (ProblemKind.TORN, markers[0]),
        (ProblemKind.ORPHANED, old),
    }
    assert {problem.action for problem in cache.verify(repair=True).problems} == {Action.REMOVED}
    assert (markers[0].exists(), old.exists(), young.exists()) == (False, False, True)
    assert [cache.unpack(wheel).path.is_dir() for wheel in wheels] == [True] * 3


def test_permissions_that_an_archive_lost_are_no_damage(cache: Cache, wheels: list[CachedWheel]) -> None:
    """Lost permissions are not a problem: the next use of the tree restores them."""
    for path in tree(cache, wheels[0]).rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    assert cache.verify().problems == ()


@pytest.mark.parametrize("inner", ["", "p0-1.0.dist-info"])
def test_a_file_in_the_place_of_a_trees_folder_is_damage(
    machine: Machine, cache: Cache, wheels: list[CachedWheel], inner: str
) -> None:
    """A missing folder is reported as a missing file, and unpacking makes the tree again."""
    folder = tree(cache, wheels[0])
    shutil.rmtree(folder / inner)
    (folder / inner).write_text("mine")
    kinds = {problem.kind for problem in cache.verify().problems}
    assert kinds == ({ProblemKind.MISSING} if inner else {ProblemKind.ALTERED, ProblemKind.FOREIGN})
    with machine.cache(cache.path) as fresh:
        assert (fresh.unpack(wheels[0]).path / "p0-1.0.dist-info").is_dir()
        assert fresh.verify().problems == ()


def test_a_wheel_that_is_pruned_before_it_is_unpacked_says_so(tmp_path: Path) -> None:
    """A wheel that is removed between lookup and opening is an error that says what to do."""
    files = FaultyFiles()
    with Machine(files).cache(tmp_path / "cache") as cache:
        source = tmp_path / wheel_filename()
        source.write_bytes(make_wheel())
        wheel = cache.put(source)
        files.plan = Doing("open_read", lambda call: cache.remove(wheel), path=f"*{wheel.filename}")
        with pytest.raises(FileNotFoundError, match="no longer in the cache and must be fetched again"):
            cache.unpack(wheel)
        assert files.plan.done


def test_a_tree_that_is_pruned_meanwhile_is_no_damage(tmp_path: Path) -> None:
    """Files of a tree that is removed during the check are not reported as missing."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        source = tmp_path / wheel_filename()
        source.write_bytes(make_wheel())
        wheel = cache.put(source)
        folder = str(cache.unpack(wheel).path)
        files.plan = Doing("open_read", lambda call: cache.remove(wheel), path=f"{folder}*")
        assert cache.verify(repair=True).problems == ()
        assert files.plan.done
