"""Fetch and read tiny wheels in random order until stopped, and print the used ones and the errors.

python use_while_pruned.py CACHE SOURCES COUNT SEED STOP-FILE
"""

from __future__ import annotations

import json
import random
import sys
import traceback
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[3])]

from many import Tiny  # noqa: E402  - the path to it is known from here on

from wheelcache import Cache  # noqa: E402

# On Windows, Python's open() does not share deleting, so it cannot open a file that is being deleted.
GONE = (FileNotFoundError, PermissionError) if sys.platform == "win32" else FileNotFoundError


def main() -> None:
    root, sources, count, seed, stop = sys.argv[1:]
    chance = random.Random(int(seed))
    used: set[int] = set()
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    with Cache(root) as cache:
        while not wrong and not Path(stop).exists():
            # A third of the wheels is never used: the oldest of these must be removed.
            number = chance.randrange(int(count))
            tiny = Tiny(number - 1 if number % 3 == 2 else number)
            used.add(tiny.number)
            try:
                wheel = cache.fetch((Path(sources) / tiny.filename).as_uri(), hashes=f"sha256:{tiny.sha256}")
                outcomes[wheel.status] += 1
                try:
                    data = wheel.path.read_bytes()
                except GONE:
                    outcomes["pruned before it was read"] += 1  # a path is valid until its wheel is pruned
                    continue
                if data != tiny.data:
                    wrong.append(f"{tiny}: {data!r}")
            except Exception:
                wrong.append(traceback.format_exc())
            if sum(outcomes.values()) == 1:
                print("ready", flush=True)
    print(json.dumps({"used": sorted(used), "outcomes": outcomes, "wrong": wrong}))


main()
