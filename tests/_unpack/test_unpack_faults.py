"""Unpacking while each file operation in turn is refused, or is the last one of the process.

After each call, no tree with a valid marker is wrong, the caller's folder has only complete files of the wheel, no file
is left open, and repeating the call succeeds.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import FILENAME, Entry, wheel, wheel_entries
from faulty import MOMENTS, Dead, Die, FailNth, FaultyFiles, FileCall, Plan, code_text, os_error
from folders import files_in
from machines import Machine, TickingClock
from marks import any_system, under_windows
from oracle import check_error

from wheelcache import Cache, CachedWheel, UnsafeWheelError
from wheelcache._fs.robustio import RobustIO
from wheelcache._fs.tempnames import is_spare
from wheelcache._operation import Operation
from wheelcache._os.system import System
from wheelcache._store.layout import Layout
from wheelcache._unpack.check import check_recorded
from wheelcache._unpack.trees import TreeStore

ENTRIES = [
    Entry("demo/__init__.py", b""),
    Entry("demo/a.py", b"a = 1\n"),
    Entry("demo/sub/run", b"x" * 99, mode=0o100755),
]
# Enough bytes for several extracting threads, and enough files for several linking threads on a slow disk.
LARGE = [
    *ENTRIES,
    Entry("demo/large.bin", random.Random(1).randbytes(1 << 14) * 200),
    *(Entry(f"demo/{number % 5}/{number}.py", b"%d\n" % number) for number in range(110)),
]

CODES = ("EACCES", "ENOSPC", "EIO", "EMFILE", 5, 32, 17, 396, "EXDEV", "ENOTSUP", 1142, "ENOENT")
LASTING = ("ENOSPC", "EIO", 32)

# A file operation takes much longer under Wine, so only every thirtieth is tested there.
STEP = 30 if sys.platform == "win32" else 1
LARGE_STEP = 2003 if sys.platform == "win32" else 401


class World:
    """A cache folder with the wheel, on a machine whose file operations follow a plan."""

    def __init__(self, folder: Path, entries: list[Entry] = ENTRIES) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.all = {str(entry.name): entry.data for entry in wheel_entries(entries)}
        self.is_large = entries is LARGE
        folder.mkdir(exist_ok=True)
        source = folder / FILENAME
        source.write_bytes(wheel(entries))
        self.files = FaultyFiles()
        self.machine = Machine(self.files, TickingClock() if self.is_large else None)
        with self.cache() as cache:
            self.wheel: CachedWheel = cache.put(source)

    def cache(self) -> Cache:
        return self.machine.cache(self.folder / "cache", io_timeout=1.0, lock_timeout=1.0)

    def check(self) -> None:
        """Check that every tree with a valid marker is right, and the caller's folder has only complete files."""
        system = System(boot=lambda: self.machine.boot)
        fs = RobustIO(Operation(system, io_timeout=1.0))
        trees = TreeStore(Layout(str(self.folder / "cache")))
        for entry in trees.iter_trees(fs):
            if not check_recorded(fs, entry.folder, entry.manifest, trusted=True, writable=False)[0]:
                assert files_in(Path(entry.folder)) == self.all
        if self.site.exists():
            whole = {name: data for name, data in files_in(self.site).items() if not is_spare(name.rpartition("/")[2])}
            assert whole.items() <= self.all.items()


def make(cache: Cache, world: World) -> None:
    assert files_in(cache.unpack(world.wheel).path) == world.all


def link(cache: Cache, world: World) -> None:
    cache.unpack(world.wheel, world.site)
    check_out(world)


def copy(cache: Cache, world: World) -> None:
    cache.unpack(world.wheel, world.site, mode="copy")
    check_out(world)


def check_out(world: World) -> None:
    found = files_in(world.site)
    assert {name: data for name, data in found.items() if not is_spare(name.rpartition("/")[2])} == world.all


def nothing(world: World) -> None:
    """Only the wheel exists."""


def made(world: World) -> None:
    """The tree exists."""
    with world.cache() as cache:
        cache.unpack(world.wheel)


def rebooted(world: World) -> None:
    """The tree was made before a reboot."""
    made(world)
    world.machine.reboot()


def damaged(world: World) -> None:
    """One file of the tree has other bytes."""
    with world.cache() as cache:
        path = cache.unpack(world.wheel).path / "demo" / "a.py"
    path.chmod(0o644)
    path.write_bytes(b"evil = 1\n")


def half_out(world: World) -> None:
    """Some files are already in the caller's folder."""
    made(world)
    (world.site / "demo").mkdir(parents=True)
    (world.site / "demo" / "a.py").write_bytes(world.all["demo/a.py"])


SCENARIOS: dict[str, tuple[Callable[[World], None], Callable[[Cache, World], None]]] = {
    "make": (nothing, make),
    "make and link": (nothing, link),
    "link": (made, link),
    "copy": (made, copy),
    "link after a reboot": (rebooted, link),
    "repair": (damaged, link),
    "complete": (half_out, copy),
}


# The worlds in which several threads work on one wheel.
THREADED = ["make and link", "copy", "repair"]

CASES = pytest.mark.parametrize(
    ("name", "entries", "step"),
    [(name, ENTRIES, STEP) for name in SCENARIOS]
    + [pytest.param(name, LARGE, LARGE_STEP, marks=[] if name == "make and link" else any_system) for name in THREADED],
    ids=[*SCENARIOS, *(f"{name}, large wheel" for name in THREADED)],
)


def worlds(
    tmp_path: Path, before: Callable[[World], None], entries: list[Entry], step: int
) -> Iterator[tuple[int, World, int]]:
    """Yield a fresh world for each call to come, its number, and how many calls were made before."""
    for number in itertools.count(1, step):
        world = World(tmp_path / str(number), entries)
        before(world)
        yield number, world, len(world.files.trace)
        shutil.rmtree(world.folder)


@CASES
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_every_call_refused(name: str, lasting: bool, entries: list[Entry], step: int, tmp_path: Path) -> None:
    """Each operation is refused in several ways: a complete error or a success follows, never a wrong file."""
    before, act = SCENARIOS[name]
    codes = LASTING if lasting else CODES
    for number, world, begun in worlds(tmp_path, before, entries, step):
        code = codes[number % len(codes)]
        plan = world.files.plan = FailNth(begun + number, code, forever=lasting)
        try:
            with world.cache() as cache:
                act(cache, world)
        except Exception as error:
            if not isinstance(error, FileNotFoundError) or code not in {"ENOENT", 2}:
                check_error(error, code_text(code))
            assert plan.hit
        finally:
            world.files.plan = Plan()
        try:
            assert not world.files.open_handles
            world.check()
            with world.cache() as cache:
                act(cache, world)
            world.check()
        except BaseException as problem:
            problem.add_note(f"with {code} at {plan.hit[:1]}")
            raise
        if not plan.hit:
            assert number > 5
            return


@CASES
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_every_call(name: str, moment: str, entries: list[Entry], step: int, tmp_path: Path) -> None:
    """A process killed at any operation leaves no wrong tree, and a second run completes its work."""
    before, act = SCENARIOS[name]
    for number, world, begun in worlds(tmp_path, before, entries, step):
        plan = world.files.plan = Die(begun + number, moment)
        try:
            with world.cache() as cache:
                act(cache, world)
        except Dead:
            pass
        reached = len(world.files.trace)
        world.files.close_all()
        world.files.plan = Plan()
        try:
            world.check()
            with world.cache() as cache:
                act(cache, world)
            world.check()
        except BaseException as problem:
            problem.add_note(f"{moment} {plan.hit}")
            raise
        # A call that fails by itself, because a file is missing, has no moment after it.
        if plan.hit is None and reached < begun + number:
            assert number > 5
            return


@pytest.mark.parametrize("moment", under_windows(MOMENTS, ["half"]))
def test_killed_for_real(moment: str, tmp_path: Path) -> None:
    """The same with real processes that are killed at some of the operations."""
    unharmed = World(tmp_path / "unharmed", LARGE)
    begun = len(unharmed.files.trace)
    with unharmed.cache() as cache:
        link(cache, unharmed)
    calls = len(unharmed.files.trace) - begun
    for number in range(1, calls, calls // 3):
        folder = tmp_path / str(number)
        command = [sys.executable, __file__, folder, str(number), moment]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        # The order of the threads varies: the last calls of one run may not occur in another.
        assert done.returncode in {KILLED, 0}, done.stderr
        assert done.returncode == KILLED or number > calls // 2
        world = World(folder, LARGE)
        world.check()
        with world.cache() as cache:
            link(cache, world)
        world.check()


# The exit code of a process that :func:`kill` ended.
KILLED = 9 if sys.platform == "win32" else -9


def kill() -> None:
    os.kill(os.getpid(), 9)


class HeldUntilAnother(Plan):
    """One file is held forever, and another one is created only once a thread waits for the first."""

    def __init__(self, held: str, other: str) -> None:
        self.held = held
        self.other = other
        self.waits = threading.Event()

    def before(self, call: FileCall) -> None:
        if call.operation == "create" and call.path.endswith(self.held):
            self.waits.set()
            raise os_error(32, call.path)
        if call.operation == "create" and call.path.endswith(self.other):
            assert self.waits.wait(60)


@pytest.mark.parametrize("interrupted", [False, True], ids=["refused", "interrupted"])
def test_an_error_ends_the_wait_of_the_other_threads(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that waits for a held file ends when another one fails, long before the timeout of 60 s."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    entries = [Entry(f"demo/{name}.bin", name.encode() * (1 << 20)) for name in ("held", "other")]
    source = tmp_path / FILENAME
    data = bytearray(wheel(entries))
    data[data.index(b"otherother")] = 0
    source.write_bytes(data)
    files = FaultyFiles()

    class Plugged(Cache):
        _system = System(files=files)

    with Plugged(tmp_path / "cache", io_timeout=60.0) as cache:
        found = cache.put(source)
        plan = files.plan = HeldUntilAnother("held.bin", "other.bin")
        if interrupted:

            class Interrupted(HeldUntilAnother):
                def before(self, call: FileCall) -> None:
                    super().before(call)
                    if call.operation == "create" and call.path.endswith(self.other):
                        raise KeyboardInterrupt

            plan = files.plan = Interrupted("held.bin", "other.bin")
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt if interrupted else UnsafeWheelError):
            cache.unpack(found)
        assert time.monotonic() - started < 10
        assert plan.waits.is_set()
        assert not files.open_handles
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wheelcache")]


def test_a_refused_wheel_leaves_nothing_where_deleting_works(tmp_path: Path) -> None:
    """If a file in the middle of the archive is damaged, none of the wheel's files is left."""
    world = World(tmp_path / "world")
    source = tmp_path / FILENAME
    data = bytearray(wheel(ENTRIES))
    data[data.index(b"x" * 99)] = 0
    source.write_bytes(data)
    with world.cache() as cache:
        found = cache.put(source)
        with pytest.raises(UnsafeWheelError):
            cache.unpack(found, world.site)
    assert not world.site.exists()
    assert list((tmp_path / "world/cache/v1/trees").rglob("*-0*")) == []


if __name__ == "__main__":
    doomed = World(Path(sys.argv[1]), LARGE)
    doomed.files.plan = Die(len(doomed.files.trace) + int(sys.argv[2]), sys.argv[3], kill)
    with doomed.cache() as opened:
        link(opened, doomed)
