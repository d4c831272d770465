"""Refuse every file operation of every scenario in every way, one after the other.

For each scenario and each error, the first file operation is refused, then the second in a new cache, and so on, until
a run ends without a refusal. Each run must succeed, or raise an error with all details. Afterwards, no entry is lost or
wrong, and no file is left open. The same call then succeeds, on the same object and on a new one.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from faulty import Code, FailNth, Plan, code_text
from machines import Machine
from marks import under_windows
from oracle import check_error, check_sound, leftovers
from scenarios import NEW, NEW_DATA, SCENARIOS, UNDER_WINDOWS, Scenario, World, quick_folder, seen
from server import Server, gzipped

from wheelcache import Cache, Cause, CommitError, ReadOnlyError

COMMON: tuple[Code, ...] = ("EACCES", "ENOSPC", "EIO", "EMFILE", 5, 32, 17, 396)
ALL: tuple[Code, ...] = (*COMMON, "EPERM", "EXDEV", "ENOTSUP", "ESTALE", 33, 1, 50, 1142, 225, 2, 303, 1224, 87)
LASTING: tuple[Code, ...] = ("EACCES", "ENOSPC", 5, 32)
"""The codes that can persist: a missing permission, a full volume, a holder."""

AT_EVERY_CALL = {
    "put": ALL,
    "fetch a second name": ALL,
    "link": ALL,
    "link by copy": ALL,
    "open and put": COMMON,
    "fetch": COMMON,
    "repair": COMMON,
    "hit": COMMON,
    "hit after a boot": COMMON,
}
"""The codes of each scenario. Scenarios that add and link wheels meet every code at every operation.

The others meet the common codes by turns, and all codes in the slow test.
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return the URL of the new wheel."""
    with Server() as server:
        server.serve("/encoded/" + NEW, NEW_DATA, how=gzipped)
        yield server.serve("/" + NEW, NEW_DATA)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Yield one client for all runs, since creating a client takes longer than a run."""
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """Yield a folder for some hundred caches."""
    with quick_folder() as folder:
        yield folder


def run(world: World, scenario: Scenario, plan: Plan) -> tuple[Cache | None, Exception | None]:
    """Perform the operation under a plan, and return the cache, which is still open, and the exception."""
    cache = None
    world.files.plan = plan
    try:
        cache = world.cache(**scenario.options)
        scenario.act(cache, world)
    except Exception as error:
        return cache, error
    finally:
        world.files.plan = Plan()
    return cache, None


def check_outcome(error: Exception | None, plan: FailNth, documented: tuple[type[OSError], ...]) -> None:
    """Check that the outcome is a success, or an error with all details and the code of the refusal."""
    if error is None or not plan.hit:
        assert error is None, f"refused without a fault: {error!r}"
        return
    if type(error) in documented:
        return
    # An error that a file is missing may also be the library's own.
    check_error(error, code_text(plan.code), *["errno 2"] * (plan.code == 2))
    if plan.code == "ENOSPC" and isinstance(error, CommitError):
        assert error.cause is Cause.FULL
    assert isinstance(error, CommitError | ReadOnlyError), f"not of the file system: {error!r}"


def check_left_behind(world: World, plan: FailNth) -> None:
    """Check that no unfinished file is left unless its deletion was refused, and no file but the wheel outside."""
    refused_to_delete = any(call.operation == "unlink" for call in plan.hit)
    left = leftovers(world.root)
    assert not left or refused_to_delete, f"left behind after {plan.hit}: {left}"
    if world.out.exists():
        for path in world.out.iterdir():
            if path.name == NEW:
                seen(path)
            else:
                assert refused_to_delete, f"left behind outside after {plan.hit}: {path}"


def sweep(
    folder: Path, url: str, client: httpx.Client, scenario: Scenario, codes: Sequence[Code], *, forever: bool = False
) -> int:
    """Refuse the first operation, then the second, and so on, with these codes by turns. Return the number of runs."""
    for number in itertools.count(1):
        code = codes[number % len(codes)]
        world = World(folder / str(number), url, client)
        world.make_ready(scenario)
        begun = len(world.files.trace)
        plan = FailNth(begun + number, code, forever=forever)
        try:
            cache, error = run(world, scenario, plan)
            check_outcome(error, plan, scenario.documented)
            assert not world.files.open_handles, "a file was left open"
            if not forever:
                check_left_behind(world, plan)
            machine = Machine()
            machine.boot = world.machine.boot
            made = error is None and (scenario.sure or not plan.hit)
            check_sound(machine, world.root, {**scenario.kept, **scenario.gained} if made else scenario.kept)
            # By turns on the object that met the fault, which may have remembered it, and on a new one.
            if cache is not None and number % 2:
                scenario.act(cache, world)
            else:
                with world.cache(**scenario.options) as fresh:
                    scenario.act(fresh, world)
            if cache is not None:
                cache.close()
            check_sound(machine, world.root, {**scenario.kept, **scenario.gained})
            assert not world.files.open_handles, "a file was left open"
        except BaseException as problem:
            problem.add_note(f"with {code} at call {number}: {plan.hit}")
            raise
        shutil.rmtree(world.folder)
        if not plan.met:
            return number - 1
    raise AssertionError("counting never ends")


def _open_files() -> list[str]:
    """Return the open files of this process without sockets, or an empty list if the system does not show them."""
    found = []
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the folder that was listed just now
        if path.startswith("/") and not path.startswith("/dev/"):
            found.append(path)
    return sorted(found)


def _threads() -> set[str]:
    """Return the threads of this process, without those of the server, which has one for each connection."""
    return {thread.name for thread in threading.enumerate() if "process_request_thread" not in thread.name}


def by_turns(codes: Sequence[Code], times: int) -> list[Sequence[Code]]:
    """Return the codes in this many orders, each of which begins at another code."""
    starts = [len(codes) * time // times for time in range(times)]
    return [[*codes[start:], *codes[:start]] for start in starts]


def sweeps(name: str) -> list[Sequence[Code]]:
    """Return the codes of each sweep of a scenario. If file operations are slow, one sweep uses all codes by turns."""
    if sys.platform == "win32":
        return [AT_EVERY_CALL.get(name, COMMON)]
    if name in AT_EVERY_CALL:
        return [[code] for code in AT_EVERY_CALL[name]]
    return by_turns(COMMON, 3)


@pytest.mark.parametrize("name", under_windows(SCENARIOS, UNDER_WINDOWS))
def test_one_refusal(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """If any operation is refused once with any code, no entry is lost or wrong, and a retry succeeds."""
    gc.collect()
    files, threads = _open_files(), _threads()
    for codes in sweeps(name):
        assert sweep(quick_path, url, client, SCENARIOS[name], codes) >= 3
    gc.collect()
    # There may be fewer, because an idle worker thread of another test may have ended meanwhile.
    assert set(_open_files()) <= set(files)
    assert _threads() <= threads


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if AT_EVERY_CALL.get(name) is not ALL])
def test_one_rare_refusal(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """The same is true for every code except those of a missing file, which is an answer and not a refusal."""
    for code in ALL:
        if code != 2:
            assert sweep(quick_path, url, client, SCENARIOS[name], [code]) >= 3


@pytest.mark.parametrize("name", under_windows(SCENARIOS, UNDER_WINDOWS))
def test_refused_from_then_on(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """If the file system begins to refuse everything, no entry is lost or wrong, and later calls succeed."""
    for codes in by_turns(LASTING, 1 if sys.platform == "win32" else 2):
        assert sweep(quick_path, url, client, SCENARIOS[name], codes, forever=True) >= 3
