"""The fault sweep: every file call of every operation is refused in every way, one after the other.

For each scenario and each error the first call is refused, then in a new cache the second, and so on, until a run comes
through without meeting its fault. After each run the same must hold: it was a success or an error that says everything;
nothing that was an entry is lost, nothing wrong is to be seen; the same call succeeds when it is made again, on the
object that met the fault and on a fresh one; and no file is left open.
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
from oracle import check_error, check_sound, leftovers
from scenarios import NEW, NEW_DATA, SCENARIOS, Scenario, World, quick_folder, seen
from server import Server

from wheelcache import Cache, Cause, CommitError, ReadOnlyError

COMMON: tuple[Code, ...] = ("EACCES", "ENOSPC", "EIO", "EMFILE", 5, 32, 17, 396)
ALL: tuple[Code, ...] = (*COMMON, "EPERM", "EXDEV", "ENOTSUP", "ESTALE", 33, 1, 50, 1142, 225, 2, 303, 1224, 87)
LASTING: tuple[Code, ...] = ("EACCES", "ENOSPC", 5, 32)
"""What may begin and stay: a permission, a full volume, a holder."""

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
"""The ways in and out meet every code at every call. The others, which are ways round the same corners, meet the common
ones by turns, and all of them in the slow test."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that has the new wheel."""
    with Server() as server:
        yield server.serve("/" + NEW, NEW_DATA)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """One client for all runs, since making one takes longer than a run."""
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A folder for some hundred caches."""
    with quick_folder() as folder:
        yield folder


def run(world: World, scenario: Scenario, plan: Plan) -> tuple[Cache | None, Exception | None]:
    """Do the operation under a plan; return the object it was done on, still open, and what was raised."""
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
    """What came out is a success, or an error that says everything, with the code that was met."""
    if error is None or not plan.hit:
        assert error is None, f"refused without a fault: {error!r}"
        return
    if type(error) in documented:
        return
    # That something is not there can be the wheel's own finding, too.
    check_error(error, code_text(plan.code), *["errno 2"] * (plan.code == 2))
    if plan.code == "ENOSPC" and isinstance(error, CommitError):
        assert error.cause is Cause.FULL
    assert isinstance(error, CommitError | ReadOnlyError), f"not of the file system: {error!r}"


def check_left_behind(world: World, plan: FailNth) -> None:
    """Nothing unfinished is left, unless deleting was refused; what is left in the folder outside is the wheel."""
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
    """Refuse the first call, then the second, until none is met, with these codes by turns; return how many."""
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
            # By turns on the object that met the fault, for what it remembers of it, and on one that knows nothing.
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
    """Return the files that this process has open, where the system shows it; sockets are the server's."""
    found = []
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the folder that was just listed
        if path.startswith("/") and not path.startswith("/dev/"):
            found.append(path)
    return sorted(found)


def _threads() -> set[str]:
    """Return the threads of this process but those of the server, which has one for each connection."""
    return {thread.name for thread in threading.enumerate() if "process_request_thread" not in thread.name}


def by_turns(codes: Sequence[Code], times: int) -> list[Sequence[Code]]:
    """Return the codes in so many orders, each of which begins elsewhere."""
    starts = [len(codes) * time // times for time in range(times)]
    return [[*codes[start:], *codes[:start]] for start in starts]


def sweeps(name: str) -> list[Sequence[Code]]:
    """Return the codes of each sweep of a scenario. Where file calls are slow, it is one, of all codes by turns."""
    if sys.platform == "win32":
        return [AT_EVERY_CALL.get(name, COMMON)]
    if name in AT_EVERY_CALL:
        return [[code] for code in AT_EVERY_CALL[name]]
    return by_turns(COMMON, 3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_refusal(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """Whichever call is refused once, and however, nothing is lost, nothing wrong is shown, and a retry succeeds."""
    gc.collect()
    files, threads = _open_files(), _threads()
    for codes in sweeps(name):
        assert sweep(quick_path, url, client, SCENARIOS[name], codes) >= 3
    gc.collect()
    # Fewer is fine: what another test has left may end meanwhile, such as a worker thread that idles.
    assert set(_open_files()) <= set(files)
    assert _threads() <= threads


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if AT_EVERY_CALL.get(name) is not ALL])
def test_one_rare_refusal(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """The same with every code that there is, but that something is not there: that is an answer to who looks."""
    for code in ALL:
        if code != 2:
            assert sweep(quick_path, url, client, SCENARIOS[name], [code]) >= 3


@pytest.mark.parametrize("name", SCENARIOS)
def test_refused_from_then_on(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """Whenever the file system begins to refuse everything, nothing is lost or wrong, and it works again afterwards."""
    for codes in by_turns(LASTING, 1 if sys.platform == "win32" else 2):
        assert sweep(quick_path, url, client, SCENARIOS[name], codes, forever=True) >= 3
