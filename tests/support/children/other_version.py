"""One step of a version of wheelcache on a cache that two versions share: ``other_version.py STEP ROOT URL SOURCE``.

It uses only calls that both versions have, and writes what it sees as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from wheelcache import Cache, CachedWheel


def facts(wheel: CachedWheel) -> list[str]:
    return [wheel.filename, wheel.digest, str(wheel.status), str(wheel.path)]


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text("latin-1") for path in folder.rglob("*") if path.is_file()
    }


def fill(cache: Cache, url: str, source: Path) -> object:
    """Put, fetch, unpack and give a second name."""
    first = cache.put(source)
    second = cache.put(source, filename=source.name.replace("1.0", "1.0.0"))
    fetched = cache.fetch(url)
    unpacked = cache.unpack(first)
    cache.metadata(url)
    return [facts(first), facts(second), facts(fetched), tree(Path(unpacked))]


def use(cache: Cache, url: str, source: Path) -> object:
    """Use what :func:`fill` has made."""
    fetched = cache.fetch(url)
    found = {wheel.filename: wheel for wheel in cache.entries()}
    first, second = found[source.name], found[source.name.replace("1.0", "1.0.0")]
    unpacked = cache.unpack(first)
    report = cache.verify()
    stats = dataclasses.asdict(cache.stats())
    pruned = cache.prune()
    return {
        "wheels": [facts(first), facts(second), facts(fetched), tree(Path(unpacked))],
        "got": facts(cache.get(first.digest, filename=first.filename)),
        "problems": [str(problem) for problem in report.problems],
        "checked": report.checked,
        "stats": {name: stats[name] for name in ("wheels", "wheel_bytes", "trees", "tree_bytes", "partial_bytes")},
        "pruned": [len(pruned.removed), len(pruned.swept), len(pruned.skipped)],
    }


def cut(cache: Cache, url: str, source: Path) -> object:
    """Begin to download, and die when most of it is there."""

    def die(event: object) -> None:
        if event.done > 500_000:
            print("{}", flush=True)
            os._exit(0)

    return facts(cache.fetch(url, progress=die))


def resume(cache: Cache, url: str, source: Path) -> object:
    """Download the rest."""
    return facts(cache.fetch(url))


STEPS = {step.__name__: step for step in (fill, use, cut, resume)}

if __name__ == "__main__":
    step, root, url, source = sys.argv[1:]
    with Cache(root) as cache:
        print(json.dumps(STEPS[step](cache, url, Path(source))))
