"""Kill processes between any two file operations, and in the middle of a write.

After each death, no entry is lost or wrong, the names of leftovers contain their owner and age, and the operation can
be repeated. The deaths are first simulated in this process, which is fast. Then real processes are killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from faulty import Dead, Die, Plan
from machines import Machine
from marks import not_on_windows, under_windows
from oracle import check_sound, leftovers
from scenarios import SCENARIOS, UNDER_WINDOWS, World, deaths, quick_folder
from server import Server, gzipped

CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "support", "children", "killed.py")
NEW = "new-1.0-py3-none-any.whl"

# The scenarios that write. The fault sweep covers the end of a process that only reads.
WRITING = [name for name, scenario in SCENARIOS.items() if not name.startswith(("look", "hit read-only"))]
# A few are enough to show that real deaths have the same effect as simulated ones.
REAL = ["open and put", "repair", "hit after a boot", "link by copy"]


@pytest.fixture
def url(server: Server) -> str:
    """Return the URL of the new wheel."""
    server.serve("/encoded/" + NEW, SCENARIOS["fetch"].gained[NEW], how=gzipped)
    return server.serve("/" + NEW, SCENARIOS["fetch"].gained[NEW])


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """Yield one client for all runs."""
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """Yield a folder for some hundred caches."""
    with quick_folder() as folder:
        yield folder


def revive(world: World, name: str) -> None:
    """Check the leftovers of a dead process, and complete its operation."""
    scenario = SCENARIOS[name]
    machine = Machine()
    machine.boot = world.machine.boot
    leftovers(world.root)
    check_sound(machine, world.root, scenario.kept)
    with world.cache(**scenario.options) as cache:
        scenario.act(cache, world)
    check_sound(machine, world.root, {**scenario.kept, **scenario.gained})


@pytest.mark.parametrize("name", under_windows(WRITING, UNDER_WINDOWS))
def test_every_death(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """If a process ends before any file operation or in the middle of any write, no entry is lost or wrong."""
    scenario = SCENARIOS[name]
    moments = deaths(World(quick_path / "unharmed", url, client), scenario)
    assert len(moments) >= 4
    for number, moment in moments:
        world = World(quick_path / "killed", url, client)
        world.make_ready(scenario)
        plan = world.files.plan = Die(len(world.files.trace) + number, moment)
        try:
            with pytest.raises(Dead), world.cache(**scenario.options) as cache:
                scenario.act(cache, world)
            world.files.close_all()
            world.files.plan = Plan()
            revive(world, name)
        except BaseException as error:
            error.add_note(f"killed {moment} {plan.hit}")
            raise
        shutil.rmtree(world.folder)


@not_on_windows("fork is POSIX only; the test after this one kills processes there")
def test_every_real_death(quick_path: Path, url: str) -> None:
    """The same is true for SIGKILL, with a separate process for each death."""
    done = subprocess.run(
        [sys.executable, CHILD, "all", quick_path, url, *REAL], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(REAL), done.stdout
    assert sum(map(int, done.stdout.split())) > 80


@pytest.mark.parametrize("name", under_windows(["put", "fetch", "repair"], ["fetch"]))
def test_some_real_deaths(name: str, quick_path: Path, url: str, client: httpx.Client) -> None:
    """The same is true for processes that are started and killed in the way of each system, at a few moments."""
    scenario = SCENARIOS[name]
    moments = deaths(World(quick_path / "unharmed", url, client), scenario)
    halves = [death for death in moments if death[1] == "half"]
    for number, moment in [*moments[len(moments) // 2 :: len(moments) // 4], halves[-1]]:
        world = World(quick_path / f"{moment} {number}", url, client)
        world.make_ready(scenario)
        done = subprocess.run(
            [sys.executable, CHILD, "one", world.folder, url, name, str(number), moment],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode in {9, -9}, done.stderr
        revive(world, name)
