"""Which wheels of the cache a command is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from wheelcache import Cache, CachedWheel

from ._items import CommandError

_RUNS = re.compile(r"[-_.]+")


def chosen(cache: Cache, names: Sequence[str]) -> list[CachedWheel]:
    """Return the wheels of these digests, projects or file names, all where none is given, by file name.

    Raises:
        CommandError: for a name that no wheel of the cache has.
    """
    found: list[CachedWheel] = []
    unused = set(names)
    for wheel in cache.entries():
        its = {wheel.digest, wheel.filename, _normal(wheel.filename.partition("-")[0])}
        meant = {name for name in names if name in its or _normal(name) in its}
        unused -= meant
        if meant or not names:
            found.append(wheel)
    if unused:
        raise CommandError(f"no wheel in this cache is called {' or '.join(sorted(unused))}")
    return sorted(found, key=lambda wheel: (wheel.filename.lower(), wheel.digest))


def _normal(name: str) -> str:
    return _RUNS.sub("-", name).lower()


def wheel_json(wheel: CachedWheel) -> dict[str, Any]:
    """Return what a program wants to know of a wheel."""
    return {
        "filename": wheel.filename,
        "digest": wheel.digest,
        "size": wheel.size,
        "path": str(wheel.path),
        "url": wheel.url,
        "hashes": dict(wheel.hashes),
    }
