"""Verify: every kind of damage is reported and repaired if possible, and intact files are kept."""

from __future__ import annotations

import _thread
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
from faulty import FaultyFiles, FileCall, Plan, Refuse, Refusing
from folders import files_in, listing, quarantined
from machines import Machine
from many import build
from marks import not_on_windows
from wheels import make_wheel, wheel_filename

from wheelcache import Action, Cache, CachedWheel, Phase, ProblemKind, ProgressEvent, Status
from wheelcache._cache import core_of
from wheelcache._fs.robustio import RobustIO
from wheelcache._maintenance.verify import Verifier
from wheelcache._operation import CURRENT_TOKEN, CancelToken, Operation, OperationCancelledError
from wheelcache._os.system import System
from wheelcache._store.layout import Layout

SIZE = 3000
POINTER = "0" * 62 + ".json"


def fill(cache: Cache, folder: Path, count: int = 3, size: int = SIZE) -> list[CachedWheel]:
    found = []
    for number in range(count):
        source = folder / wheel_filename(f"p{number}")
        source.write_bytes(make_wheel(f"p{number}", size=size))
        found.append(cache.put(source))
    return found


def record(wheel: CachedWheel) -> Path:
    return wheel.path.with_suffix(".json")


def keep_stamp(path: Path, data: bytes) -> None:
    """Write other bytes into a file without a trace in its size or time stamp."""
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def move(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    return target


def other_name(path: Path) -> Path:
    return path.with_name(f"other-1.0-py3-none-any{path.suffix}")


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    return path


Damage = Callable[[Path, CachedWheel], Path]

DAMAGES: dict[str, tuple[Damage, ProblemKind, Action, bool]] = {
    "no blob": (
        lambda root, wheel: wheel.path.unlink() or wheel.path,
        ProblemKind.MISSING, Action.REMOVED, False,
    ),
    "cut short": (
        lambda root, wheel: os.truncate(wheel.path, 100) or wheel.path,
        ProblemKind.SHORT, Action.QUARANTINED, False,
    ),
    "grown": (
        lambda root, wheel: wheel.path.write_bytes(wheel.path.read_bytes() + b"1") and wheel.path,
        ProblemKind.ALTERED, Action.QUARANTINED, False,
    ),
    "one bit": (
        lambda root, wheel: keep_stamp(wheel.path, wheel.path.read_bytes()[:-1] + b"?") or wheel.path,
        ProblemKind.ALTERED, Action.QUARANTINED, False,
    ),
    "zeros": (
        lambda root, wheel: keep_stamp(wheel.path, bytes(SIZE)) or wheel.path,
        ProblemKind.ALTERED, Action.QUARANTINED, False,
    ),
    "no record": (
        lambda root, wheel: record(wheel).unlink() or wheel.path,
        ProblemKind.ORPHANED, Action.ADOPTED, True,
    ),
    "torn record": (
        lambda root, wheel: record(wheel).write_bytes(record(wheel).read_bytes()[:50]) and record(wheel),
        ProblemKind.TORN, Action.ADOPTED, True,
    ),
    "empty record, no blob": (
        lambda root, wheel: wheel.path.unlink() or record(wheel).write_bytes(b"") or record(wheel),
        ProblemKind.TORN, Action.REMOVED, False,
    ),
    "a file beside the wheel": (
        lambda root, wheel: wheel.path.with_name("notes.txt").write_text("mine") and wheel.path.with_name("notes.txt"),
        ProblemKind.FOREIGN, Action.QUARANTINED, True,
    ),
    "a file between the folders": (
        lambda root, wheel: (root / "v1/wheels/notes.txt").write_text("mine") and root / "v1/wheels/notes.txt",
        ProblemKind.FOREIGN, Action.QUARANTINED, True,
    ),
    "a folder between the folders": (
        lambda root, wheel: (root / "v1/mine").mkdir() or root / "v1/mine",
        ProblemKind.FOREIGN, Action.NONE, True,
    ),
    "an entry under another digest": (
        lambda root, wheel: move(wheel.path, root / "v1/wheels/00" / ("0" * 62) / wheel.filename),
        ProblemKind.ALTERED, Action.QUARANTINED, False,
    ),
    "a folder in an entry's folder": (
        lambda root, wheel: (wheel.path.parent / "mine").mkdir() or wheel.path.parent / "mine",
        ProblemKind.FOREIGN, Action.NONE, True,
    ),
    "a folder in the place of a record": (
        lambda root, wheel: other_name(record(wheel)).mkdir() or other_name(record(wheel)),
        ProblemKind.FOREIGN, Action.REMOVED, True,
    ),
    "a file that is not finished by nobody": (
        lambda root, wheel: write(root / "v1/tmp/notes.txt"),
        ProblemKind.FOREIGN, Action.QUARANTINED, True,
    ),
    "a file between downloads": (
        lambda root, wheel: write(root / "v1/partial/00/notes.txt"),
        ProblemKind.FOREIGN, Action.QUARANTINED, True,
    ),
    "a file between pointers": (
        lambda root, wheel: write(root / "v1/urls/00/notes.txt"),
        ProblemKind.FOREIGN, Action.QUARANTINED, True,
    ),
    "a file between locks": (
        lambda root, wheel: write(root / "v1/locks/notes.txt"),
        ProblemKind.FOREIGN, Action.QUARANTINED, True,
    ),
    "a torn pointer": (
        lambda root, wheel: move(shutil.copy(record(wheel), root / "copy"), root / "v1/urls/00" / POINTER),
        ProblemKind.TORN, Action.REMOVED, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_each_kind_of_damage_is_told_and_repaired(machine: Machine, cache: Cache, tmp_path: Path, name: str) -> None:
    """The damage of a trusted wheel is found. A check changes nothing. A repair leaves all other wheels intact."""
    damage, kind, action, stays = DAMAGES[name]
    wheels = fill(cache, tmp_path)
    path = damage(cache.path, wheels[1])
    if name == "an entry under another digest":
        record(wheels[1]).unlink()
    elif name == "a torn pointer":
        path.write_bytes(path.read_bytes()[:-5])
    before = files_in(cache.path)
    report = cache.verify()
    assert [(problem.kind, problem.path, problem.action) for problem in report.problems] == [(kind, path, Action.NONE)]
    assert not report.ok
    assert files_in(cache.path) == before
    report = cache.verify(repair=True)
    assert [(problem.kind, problem.path, problem.action) for problem in report.problems] == [(kind, path, action)]
    assert len(quarantined(cache)) == (action is Action.QUARANTINED)
    if action is not Action.NONE:
        assert report.ok
        assert cache.verify().problems == ()
    with machine.cache(cache.path) as fresh:
        left = {wheel.digest for wheel in fresh.entries()}
    assert left == {wheel.digest for wheel in wheels if wheel is not wheels[1] or stays}


@pytest.mark.parametrize("full", [True, False])
def test_a_folder_in_the_place_of_a_record(machine: Machine, cache: Cache, tmp_path: Path, full: bool) -> None:
    """A folder in place of a record makes the wheel a miss. A repair removes it only if it is empty."""
    (wheel,) = fill(cache, tmp_path, 1)
    record(wheel).unlink()
    record(wheel).mkdir()
    if full:
        write(record(wheel) / "notes.txt")
    with machine.cache(cache.path) as fresh:
        assert fresh.get(wheel.digest, filename=wheel.filename) is None
    assert cache.verify(repair=True).ok is not full
    with machine.cache(cache.path) as fresh:
        assert (fresh.get(wheel.digest, filename=wheel.filename) is None) is full
    assert (record(wheel) / "notes.txt").exists() is full


@not_on_windows("Windows has no such files")
@pytest.mark.parametrize("name", ["other-1.0-py3-none-any.whl", "other-1.0-py3-none-any.json"])
def test_a_pipe_is_not_waited_for(cache: Cache, tmp_path: Path, name: str) -> None:
    """Opening a pipe would wait for its writer. In an entry and between pointers it is reported and removed."""
    wheels = fill(cache, tmp_path)
    pipes = [wheels[1].path.parent / name, cache.path / "v1/urls/00" / POINTER]
    pipes[1].parent.mkdir(parents=True, exist_ok=True)
    for pipe in pipes:
        os.mkfifo(pipe)
    report = cache.verify(repair=True)
    assert {problem.path for problem in report.problems} == set(pipes)
    assert {(problem.kind, problem.action) for problem in report.problems} == {(ProblemKind.UNSAFE, Action.REMOVED)}
    os.mkfifo(pipes[1])
    assert cache.prune().swept == (pipes[1],)


def test_a_sound_cache_has_no_problems(cache: Cache, tmp_path: Path) -> None:
    """Several names of one wheel, pointers, counters and unfinished files are not problems."""
    wheels = fill(cache, tmp_path, 5)
    cache.put(tmp_path / wheels[0].filename, filename="other-1.0-py3-none-any.whl", hashes=wheels[0].digest)
    report = cache.verify()
    assert (report.checked, report.problems, report.ok) == (5, (), True)
    assert Cache(tmp_path / "empty").verify().checked == 0


def test_an_unreadable_wheel_is_reported(tmp_path: Path) -> None:
    """A wheel that cannot be read because it is held open is reported as such, and kept."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache", io_timeout=1) as cache:
        wheels = fill(cache, tmp_path)
        files.plan = Refusing(Refuse("open_read", 32, f"*{wheels[1].filename}"))
        report = cache.verify(repair=True)
        files.plan = Refusing()
        assert [(p.kind, p.path, p.action) for p in report.problems] == [
            (ProblemKind.UNREADABLE, wheels[1].path, Action.NONE)
        ]
        assert cache.verify().ok


@not_on_windows("making links needs a right there that few have")
def test_a_link_to_a_folder_stays(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A folder that was moved to another volume and linked is reported, and a repair keeps the link and the folder."""
    fill(cache, tmp_path)
    linked, other = cache.path / "v1" / "wheels", tmp_path / "other volume"
    linked.rename(other)
    linked.symlink_to(other)
    before = listing(other)
    inside = cache.path / "v1" / "mine"
    inside.symlink_to(tmp_path)
    for _ in range(2):
        report = cache.verify(repair=True)
        assert [(problem.kind, problem.path, problem.action) for problem in report.problems] == [
            (ProblemKind.FOREIGN, inside, Action.NONE),
            (ProblemKind.UNSAFE, linked, Action.NONE),
        ]
        if other.exists():
            assert listing(other) == before
            other.rename(tmp_path / "away")


@pytest.mark.parametrize("pattern", ["*urls", "*urls?[0-9a-f][0-9a-f]", "*wheels", "*wheels?[0-9a-f][0-9a-f]"])
def test_a_folder_that_cannot_be_looked_into_is_told_once(tmp_path: Path, pattern: str) -> None:
    """An unreadable folder of pointers or wheels is reported once, and the rest is still checked."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache", io_timeout=1) as cache:
        data = make_wheel()
        source = tmp_path / wheel_filename()
        source.write_bytes(data)
        cache.put(source, hashes={"sha512": hashlib.sha512(data).hexdigest()})
        stranger = write(cache.path / "v1" / "locks" / "notes.txt")
        files.plan = Refusing(Refuse("scan", 5, pattern))
        report = cache.verify()
        files.plan = Refusing()
    unreadable = [problem.path.as_posix() for problem in report.problems if problem.kind is ProblemKind.UNREADABLE]
    assert [fnmatch(path, pattern) for path in unreadable] == [True]
    assert [problem.path for problem in report.problems if problem.kind is ProblemKind.FOREIGN] == [stranger]


def test_a_damaged_wheel_takes_no_record_of_a_good_one_along(tmp_path: Path) -> None:
    """When a damaged wheel that was held open is quarantined at last, the intact one beside it is a hit."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        (bad,) = fill(cache, tmp_path, 1)
        keep_stamp(bad.path, bytes(SIZE))
        files.plan = Refusing(Refuse("rename", 32, "*quarantine*"))
        good = cache.put(tmp_path / bad.filename)
        files.plan = Refusing()
        assert good.path == bad.path.parent / "1" / bad.filename
        report = cache.verify(repair=True)
        assert [(problem.kind, problem.path, problem.action) for problem in report.problems] == [
            (ProblemKind.ALTERED, bad.path, Action.QUARANTINED)
        ]
        assert cache.verify().problems == ()
    with machine.cache(tmp_path / "cache") as fresh:
        assert fresh.get(good.digest) == replace(good, status=Status.HIT)


@pytest.mark.parametrize("recorded", [True, False])
def test_of_two_good_wheels_of_one_name_one_stays(
    machine: Machine, cache: Cache, tmp_path: Path, recorded: bool
) -> None:
    """The blob that has the record, or gets it, is kept, and a second check finds no problem."""
    (wheel,) = fill(cache, tmp_path, 1)
    second = wheel.path.parent / "1" / wheel.filename
    second.parent.mkdir()
    shutil.copy(wheel.path, second)
    expected = [(ProblemKind.ORPHANED, second, Action.REMOVED)]
    if not recorded:
        record(wheel).unlink()
        expected.append((ProblemKind.ORPHANED, wheel.path, Action.ADOPTED))
    report = cache.verify(repair=True)
    assert [(problem.kind, problem.path, problem.action) for problem in report.problems] == expected
    assert cache.verify().problems == ()
    assert not second.parent.exists()
    with machine.cache(cache.path) as fresh:
        assert fresh.get(wheel.digest) == replace(wheel, status=Status.HIT)


def test_progress_comes_one_by_one_and_stops_it(cache: Cache, tmp_path: Path) -> None:
    """The listener receives events of every wheel, one at a time. Its exception ends the check and all threads."""
    wheels = fill(cache, tmp_path, 20)
    before = threading.active_count()
    inside = threading.Lock()
    seen: list[ProgressEvent] = []

    def listen(event: ProgressEvent) -> None:
        assert inside.acquire(blocking=False), "two threads at once"
        seen.append(event)
        inside.release()

    assert cache.verify(progress=listen).ok
    assert {event.wheel for event in seen if event.wheel} == {wheel.filename for wheel in wheels}
    assert {event.phase for event in seen} == {Phase.CHECKING}

    class EnoughError(Exception):
        pass

    def stop(event: ProgressEvent) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        cache.verify(progress=stop)
    assert threading.active_count() == before
    assert cache.verify().ok


def test_a_large_wheel_is_looked_at_as_a_small_one_is(cache: Cache, tmp_path: Path) -> None:
    """One altered byte in the middle of a wheel of 300 kB is found, and nothing else."""
    wheels = fill(cache, tmp_path, size=300_000)
    data = bytearray(wheels[1].path.read_bytes())
    data[150_000] ^= 1
    keep_stamp(wheels[1].path, bytes(data))
    report = cache.verify()
    assert [(problem.kind, problem.path) for problem in report.problems] == [(ProblemKind.ALTERED, wheels[1].path)]
    assert report.checked == 3


class Together(Plan):
    """The first two opened wheels wait for each other."""

    def __init__(self) -> None:
        self.met = threading.Barrier(2)
        self._opened = 0
        self._lock = threading.Lock()

    def before(self, call: FileCall) -> None:
        if call.operation != "open_read" or not call.path.endswith(".whl"):
            return
        with self._lock:
            self._opened += 1
            waits = self._opened <= 2
        if waits:
            self.met.wait(30)


def test_several_threads_check_wheels(tmp_path: Path) -> None:
    """Two wheels are opened at a time, and a problem that a thread finds is reported."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        wheels = fill(cache, tmp_path, 60)
        keep_stamp(wheels[1].path, bytes(SIZE))
        files.plan = Together()
        report = cache.verify()
        assert [problem.path for problem in report.problems] == [wheels[1].path]
        assert not files.plan.met.broken


class StopAtOpen(Plan):
    """Stops the verification when the tenth wheel is opened, and lets no thread go on before it is stopped."""

    def __init__(self, stop: Callable[[], object]) -> None:
        self.opened = 0
        self.stopped = threading.Event()
        self._stop = stop
        self._lock = threading.Lock()

    def before(self, call: FileCall) -> None:
        if call.operation != "open_read" or not call.path.endswith(".whl"):
            return
        with self._lock:
            self.opened += 1
            if self.opened == 10:
                self._stop()
            waits = self.opened >= 10
        if waits:
            assert self.stopped.wait(60)


@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
def test_every_thread_ends_at_its_next_file_operation(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a cancellation or Ctrl-C, each thread opens at most one more of 200 wheels, and none is left running."""
    build(tmp_path / "cache", 200, None)
    files = FaultyFiles()
    token = CancelToken()
    files.plan = plan = StopAtOpen(lambda: token.cancel() if how == "cancelled" else _thread.interrupt_main())
    cancel = CancelToken.cancel

    def cancel_and_tell(self: CancelToken) -> None:
        cancel(self)
        plan.stopped.set()

    monkeypatch.setattr(CancelToken, "cancel", cancel_and_tell)
    before = threading.active_count()
    op = Operation(System(files=files), tokens=(token,))
    with pytest.raises(OperationCancelledError if how == "cancelled" else KeyboardInterrupt):
        Verifier(Layout(str(tmp_path / "cache")), repair=False).verify(RobustIO(op))
    assert plan.opened <= 10 + 8
    assert threading.active_count() == before


def test_it_is_stopped_with_a_listener_as_without(cache: Cache, tmp_path: Path) -> None:
    """A cancelled verification ends with a listener as well as without."""
    fill(cache, tmp_path)
    stop = CancelToken()
    stop.cancel()
    token = CURRENT_TOKEN.set(stop)
    try:
        for listener in (None, lambda event: None):
            with pytest.raises(OperationCancelledError):
                cache.verify(progress=listener)
    finally:
        CURRENT_TOKEN.reset(token)


def test_a_record_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    """A record that another process is writing is torn at the first check, and complete at the second."""
    machine = Machine()
    whole = b""

    def sleep(seconds: float, look_up: object = None) -> None:
        record(wheels[1]).write_bytes(whole)

    with machine.cache(tmp_path / "cache") as cache:
        wheels = fill(cache, tmp_path)
        whole = record(wheels[1]).read_bytes()
        record(wheels[1]).write_bytes(whole[:40])
        core_of(cache).system = replace(core_of(cache).system, sleep=sleep)
        assert cache.verify(repair=True).problems == ()
