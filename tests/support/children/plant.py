"""Plant objects in a cache, make calls, and report everything that is wrong. Each call has a process of its own.

python plant.py USERS FOLDER < combinations, one JSON list a line

A list is either [area, kind, call, is_open], or [area, call, rounds] for a folder that is exchanged with a link during
the call. Prints a JSON list of faults for each. The scene is created in FOLDER.
"""

import json
import sys
import tempfile
from pathlib import Path

from planted import USERS, Combination, Scene

MOST_HANGING = 3
"""Each hanging call takes its full time. After this number, the rest is not tried."""


def faults_of(scene: Scene, combination: list[object]) -> list[str]:
    match combination:
        case [str(area), str(call), int(rounds)]:
            return next(filter(None, (scene.swap(area, call) for _ in range(rounds))), [])
    return scene.run(Combination(*combination))


with tempfile.TemporaryDirectory(dir=sys.argv[2]) as folder:
    scene = Scene(Path(folder), USERS[sys.argv[1]])
    hanging = 0
    for line in sys.stdin:
        faults = faults_of(scene, json.loads(line))
        print(json.dumps(faults), flush=True)
        hanging += any("did not end" in fault for fault in faults)
        if hanging >= MOST_HANGING:
            sys.exit("too many calls hang")
    scene.clear()
