"""Foreign files, links and special files in a cache: each is reported once, and only a name of ours is deleted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import listing
from machines import Machine
from marks import not_on_windows
from wheels import make_wheel, wheel_filename

from wheelcache import Action, Cache, CachedWheel, ProblemKind
from wheelcache._cache import core_of
from wheelcache._fs.tempnames import OwnerTag
from wheelcache._store.layout import marker_path

DAY = 86_400.0
SIZE = 3000
OLD = f"{1_500_000_000}-{'0' * 8}-1-{'0' * 8}"


@pytest.fixture
def wheel(cache: Cache, tmp_path: Path) -> CachedWheel:
    """A wheel in the cache, with its tree."""
    source = tmp_path / wheel_filename()
    source.write_bytes(make_wheel(size=SIZE))
    wheel = cache.put(source)
    cache.unpack(wheel)
    return wheel


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of another user, with a wheel, a record and a folder in it."""
    folder = tmp_path / "outside"
    (folder / "inside").mkdir(parents=True)
    for name in ("notes.txt", "demo-1.0-py3-none-any.whl", "demo-1.0-py3-none-any.json"):
        (folder / name).write_text("mine")
        (folder / "inside" / name).write_text("mine")
    return folder


Plant = Callable[[Path, Path], object]
PLANTS: dict[str, Plant] = {
    "link to a folder": lambda path, outside: path.symlink_to(outside),
    "link to a file": lambda path, outside: path.symlink_to(outside / "notes.txt"),
    "dangling link": lambda path, outside: path.symlink_to(outside / "missing"),
    "pipe": lambda path, outside: os.mkfifo(path),
}
Place = Callable[[Cache, CachedWheel], str | Path]
# Names that wheelcache uses: for files, then for folders.
PLACES: dict[str, Place] = {
    "blob": lambda cache, wheel: wheel.path.with_name("other-1.0-py3-none-any.whl"),
    "record": lambda cache, wheel: wheel.path.with_name("other-1.0-py3-none-any.json"),
    "marker": lambda cache, wheel: marker_path(core_of(cache).layout.tree("0" * 64, 0)),
    "pointer": lambda cache, wheel: core_of(cache).layout.pointer("key"),
    "metadata": lambda cache, wheel: core_of(cache).layout.metadata("key"),
    "partial": lambda cache, wheel: core_of(cache).layout.new_partial("key", OLD),
    "temporary": lambda cache, wheel: core_of(cache).layout.new_temporary(OLD),
    "lock": lambda cache, wheel: core_of(cache).layout.lock("key"),
    "quarantine": lambda cache, wheel: core_of(cache).layout.quarantined(OLD, "x.whl"),
    "counters": lambda cache, wheel: core_of(cache).layout.sealed_counters(OLD),
    "probe": lambda cache, wheel: cache.path / f"v1/{OLD}.tmp",
    "place": lambda cache, wheel: wheel.path.with_name("1"),
    "entry": lambda cache, wheel: core_of(cache).layout.entry("0" * 64),
    "tree": lambda cache, wheel: core_of(cache).layout.tree("0" * 64, 1),
    "shard of wheels": lambda cache, wheel: cache.path / "v1/wheels/01",
    "shard of trees": lambda cache, wheel: cache.path / "v1/trees/01",
    "shard of pointers": lambda cache, wheel: cache.path / "v1/urls/01",
    "shard of metadata": lambda cache, wheel: cache.path / "v1/metadata/01",
    "shard of downloads": lambda cache, wheel: cache.path / "v1/partial/01",
}
AREAS = ["wheels", "trees", "urls", "metadata", "partial", "tmp", "locks", "quarantine"]


def make_room(place: str | Path) -> Path:
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@not_on_windows("making links needs a right there that few have, and there are no pipes")
@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_planted_object_is_reported_then_removed(
    machine: Machine, cache: Cache, wheel: CachedWheel, outside: Path, place: str, kind: str
) -> None:
    """A link or pipe with a name of ours is one problem. A repair deletes it, and never what it points to."""
    before = listing(outside)
    path = make_room(PLACES[place](cache, wheel))
    PLANTS[kind](path, outside)
    expected = [(ProblemKind.UNSAFE, path)]
    for action, repair in ((Action.NONE, False), (Action.REMOVED, True)):
        report = cache.verify(repair=repair)
        assert [(problem.kind, problem.path) for problem in report.problems] == expected
        assert report.problems[0].action is action
    assert not os.path.lexists(path)
    assert listing(outside) == before
    with machine.cache(cache.path) as fresh:
        assert [found.digest for found in fresh.entries()] == [wheel.digest]


@not_on_windows("making links needs a right there that few have, and there are no pipes")
@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", ["prune", "clear"])
def test_a_planted_object_is_swept(
    machine: Machine, cache: Cache, wheel: CachedWheel, outside: Path, place: str, kind: str, call: str
) -> None:
    """Prune, once it is old, and clear delete a link or pipe with a name of ours, and never what it points to."""
    before = listing(outside)
    path = make_room(PLACES[place](cache, wheel))
    PLANTS[kind](path, outside)
    machine.clock.advance(60 * DAY)
    os.utime(path, (1, 1), follow_symlinks=False)
    plan = getattr(cache, call)(dry_run=True)
    assert os.path.lexists(path)
    report = getattr(cache, call)()
    assert not os.path.lexists(path)
    assert listing(outside) == before
    assert Counter(plan.swept)[path] == Counter(report.swept)[path] == 1
    assert (plan.skipped, report.skipped) == ((), ())
    assert len(report.removed) == (call == "clear")


@not_on_windows("making links needs a right there that few have, and there are no pipes")
@pytest.mark.parametrize("place", ["temporary", "partial", "quarantine", "metadata", "lock"])
def test_a_young_planted_object_stays(
    machine: Machine, cache: Cache, wheel: CachedWheel, outside: Path, place: str
) -> None:
    """A link that has the name of a leftover is swept at the age of that leftover, not before."""
    owner = OwnerTag.new(machine.clock.now(), machine.boot, owned=False)
    layout = core_of(cache).layout
    young = {
        "temporary": layout.new_temporary(owner),
        "partial": layout.new_partial("key", owner),
        "quarantine": layout.quarantined(owner, "x.whl"),
    }
    path = make_room(young.get(place) or PLACES[place](cache, wheel))
    path.symlink_to(outside)
    os.utime(path, (machine.clock.now(),) * 2, follow_symlinks=False)
    assert cache.prune().swept == ()
    assert path.is_symlink()
    assert path in cache.clear().swept


# Names that wheelcache never uses, in every folder of a cache
FOREIGN: dict[str, Place] = {
    "in v1": lambda cache, wheel: cache.path / "v1/notes.txt",
    "counters": lambda cache, wheel: cache.path / "v1/tally-mine.log",
    "between wheels": lambda cache, wheel: cache.path / "v1/wheels/notes.txt",
    "between entries": lambda cache, wheel: wheel.path.parents[1] / "notes.txt",
    "in an entry": lambda cache, wheel: wheel.path.with_name("notes.whl"),
    "between trees": lambda cache, wheel: cache.path / "v1/trees/01/notes.json",
    "between pointers": lambda cache, wheel: cache.path / "v1/urls/01/notes.json",
    "beside pointers": lambda cache, wheel: cache.path / "v1/urls/notes.json",
    "between metadata": lambda cache, wheel: cache.path / "v1/metadata/01/notes.json",
    "between downloads": lambda cache, wheel: cache.path / "v1/partial/01/notes.part",
    "temporary": lambda cache, wheel: cache.path / f"v1/tmp/{OLD}",
    "lock": lambda cache, wheel: cache.path / "v1/locks/notes.lock",
    "quarantine": lambda cache, wheel: cache.path / "v1/quarantine/notes.txt",
}
# Prune only looks at the names in folders whose contents it removes by age.
SWEPT_BY_NAME = {
    *("between pointers", "beside pointers", "between metadata", "between downloads", "temporary", "lock"),
    "quarantine",
}


def plant_foreign(kind: str, path: Path, outside: Path) -> None:
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        PLANTS[kind](path, outside)
    os.utime(path, (1, 1), follow_symlinks=os.utime not in os.supports_follow_symlinks)


KINDS = ["file", "folder", *(pytest.param(kind, marks=not_on_windows("no links")) for kind in PLANTS)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", FOREIGN)
def test_a_foreign_name_stays_and_is_reported(
    cache: Cache, wheel: CachedWheel, outside: Path, place: str, kind: str
) -> None:
    """Prune and clear keep what has no name of ours, of any kind, and report it once with its path."""
    path = make_room(FOREIGN[place](cache, wheel))
    plant_foreign(kind, path, outside)
    before = listing(outside), os.lstat(path).st_mtime
    pruned = cache.prune()
    assert [skipped.path for skipped in pruned.skipped] == ([path] if place in SWEPT_BY_NAME else [])
    plan, report = cache.clear(dry_run=True), cache.clear()
    assert [skipped.path for skipped in plan.skipped] == [skipped.path for skipped in report.skipped] == [path]
    assert "not a file or folder of wheelcache" in report.skipped[0].reason
    assert len(report.removed) == 1
    assert (listing(outside), os.lstat(path).st_mtime) == before
    assert not (path.is_dir() and not path.is_symlink()) or (path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", FOREIGN)
def test_a_foreign_name_is_a_problem(cache: Cache, wheel: CachedWheel, outside: Path, place: str, kind: str) -> None:
    """Verify reports what has no name of ours once. A repair moves only files, into quarantine."""
    path = make_room(FOREIGN[place](cache, wheel))
    plant_foreign(kind, path, outside)
    before = listing(outside)
    for repair in (False, True):
        (problem,) = cache.verify(repair=repair).problems
        assert (problem.kind, problem.path) == (ProblemKind.FOREIGN, path)
        assert problem.action is (Action.QUARANTINED if repair and kind == "file" else Action.NONE)
    assert os.path.lexists(path) is (kind != "file")
    assert listing(outside) == before


# A probe may be a folder with the name of a temporary file.
FILES = [place for place in list(PLACES)[: list(PLACES).index("probe")] if place != "temporary"]
FOLDERS = list(PLACES)[list(PLACES).index("place") :]


@pytest.mark.parametrize("place", FILES)
def test_a_folder_in_the_place_of_a_file_stays(machine: Machine, cache: Cache, wheel: CachedWheel, place: str) -> None:
    """A folder with the name of a file of ours is foreign: clear keeps it with its contents, and reports it."""
    path = make_room(PLACES[place](cache, wheel))
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    machine.clock.advance(60 * DAY)
    assert [(p.kind, p.path, p.action) for p in cache.verify(repair=True).problems if p.path == path] == [
        (ProblemKind.FOREIGN, path, Action.NONE)
    ]
    report = cache.clear()
    assert Counter(skipped.path for skipped in report.skipped) == {path: 1}
    assert (path / "notes.txt").read_text() == "mine"
    assert len(report.removed) == 1


@pytest.mark.parametrize("place", FOLDERS)
def test_a_file_in_the_place_of_a_folder_stays(machine: Machine, cache: Cache, wheel: CachedWheel, place: str) -> None:
    """A file with the name of a folder of ours is foreign: clear keeps it, and reports it once."""
    path = make_room(PLACES[place](cache, wheel))
    path.write_text("mine")
    machine.clock.advance(60 * DAY)
    assert {(p.kind, p.path) for p in cache.verify().problems} >= {(ProblemKind.FOREIGN, path)}
    report = cache.clear()
    assert Counter(skipped.path for skipped in report.skipped) == {path: 1}
    assert path.read_text() == "mine"
    assert len(report.removed) == 1


@pytest.mark.parametrize("area", AREAS)
def test_a_file_in_the_place_of_an_area_is_reported(cache: Cache, wheel: CachedWheel, area: str) -> None:
    """A file in place of an area is reported once by every call, and the rest of the work is done."""
    path = cache.path / "v1" / area
    if path.exists():
        path.rename(cache.path.parent / "away")
    path.write_text("mine")
    assert [(p.kind, p.path) for p in cache.verify().problems] == [(ProblemKind.FOREIGN, path)]
    for report in (cache.prune(), cache.clear()):
        assert [skipped.path for skipped in report.skipped] == [path]
    assert path.read_text() == "mine"
    assert len(list((cache.path / "v1").glob("wheels/*/*/*"))) == 0


@not_on_windows("making links needs a right there that few have")
@pytest.mark.parametrize("target", ["folder", "file", "nothing"])
@pytest.mark.parametrize("area", AREAS)
def test_a_link_in_the_place_of_an_area_stays(
    cache: Cache, wheel: CachedWheel, outside: Path, area: str, target: str
) -> None:
    """Every call reports the link once as unsafe, keeps it, follows it nowhere, and does the rest of its work."""
    path = cache.path / "v1" / area
    if path.exists():
        path.rename(cache.path.parent / "away")
    path.symlink_to({"folder": outside, "file": outside / "notes.txt", "nothing": outside / "missing"}[target])
    (outside / "00").mkdir()
    (outside / "00" / ("0" * 62)).mkdir()
    before = listing(outside)
    for repair in (False, True):
        assert [(p.kind, p.path, p.action) for p in cache.verify(repair=repair).problems] == [
            (ProblemKind.UNSAFE, path, Action.NONE)
        ]
    for report in (cache.prune(dry_run=True), cache.prune(), cache.clear(dry_run=True), cache.clear()):
        assert [skipped.path for skipped in report.skipped] == [path]
        assert "unsafe" in report.skipped[0].reason
    assert path.is_symlink()
    assert listing(outside) == before
    left = [name for name in AREAS if name != area and any((cache.path / "v1" / name).rglob("*.*"))]
    assert left == []


@not_on_windows("making links needs a right there that few have")
@pytest.mark.parametrize("area", ["wheels", "trees", "urls"])
def test_remove_follows_no_link(cache: Cache, wheel: CachedWheel, outside: Path, area: str) -> None:
    """Removing a wheel reports a link in the place of an area that it needs, and removes the rest."""
    path = cache.path / "v1" / area
    if path.exists():
        path.rename(cache.path.parent / "away")
    path.symlink_to(cache.path.parent / "away" if area == "wheels" else outside)
    before = listing(outside)
    report = cache.remove(wheel.digest)
    assert [skipped.path for skipped in report.skipped] == [path]
    assert len(report.removed) == (area != "wheels")
    assert listing(outside) == before
    assert path.is_symlink()
