"""A process that runs an operation of :mod:`scenarios` and is killed in the middle of it.

``killed.py all FOLDER URL NAME...`` runs each of these operations again and again, each time in a forked process that
is killed at the next possible moment, checks the remaining cache, and prints the number of runs.
``killed.py one FOLDER URL NAME NUMBER MOMENT`` is one such process, for systems without fork; it finds the cache made.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import httpx
from faulty import Die
from oracle import check_sound, leftovers
from scenarios import SCENARIOS, Scenario, World, deaths

SURVIVED = 7


def kill() -> None:
    """End this process at once, without any cleanup: 9 is SIGKILL, and TerminateProcess on Windows."""
    os.kill(os.getpid(), 9)


def live(world: World, scenario: Scenario, number: int, moment: str) -> None:
    """Run the operation. The process ends inside this function in any case."""
    try:
        world.files.plan = Die(len(world.files.trace) + number, moment, kill)
        with world.cache(**scenario.options) as cache:
            scenario.act(cache, world)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(SURVIVED)


def look(world: World, scenario: Scenario) -> None:
    """Check that nothing is damaged or lost, and that the operation now succeeds."""
    leftovers(world.root)
    check_sound(world.machine, world.root, scenario.kept)
    with world.cache(**scenario.options) as cache:
        scenario.act(cache, world)
    check_sound(world.machine, world.root, {**scenario.kept, **scenario.gained})


def die_every_death(folder: Path, url: str, client: httpx.Client, scenario: Scenario) -> int:
    """Kill the operation at every moment, and return the number of moments."""
    moments = deaths(World(folder / "unharmed", url, client), scenario)
    for number, moment in moments:
        world = World(folder / "killed", url, client)
        world.make_ready(scenario)
        pid = os.fork()
        if pid == 0:
            # The parent's connections must not be used here.
            world.client = httpx.Client(trust_env=False)
            live(world, scenario, number, moment)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == -9, f"it ended with {code} and was not killed {moment} call {number}"
        try:
            look(world, scenario)
        except BaseException as error:
            error.add_note(f"killed {moment} call {number}")
            raise
        shutil.rmtree(world.folder)
    return len(moments)


def main(mode: str, folder: str, url: str, *rest: str) -> None:
    with httpx.Client(trust_env=False) as client:
        if mode == "one":
            name, number, moment = rest
            live(World(Path(folder), url, client), SCENARIOS[name], int(number), moment)
        for name in rest:
            own = Path(folder, name)
            own.mkdir()
            print(die_every_death(own, url, client, SCENARIOS[name]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
