"""Which wheels of the cache a command is about."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from packaging.utils import canonicalize_name

from wheelcache import Cache, CachedWheel

from ._errors import CommandError

_BEGINNING = re.compile(r"(?:sha256[:=])?([0-9a-f]{8,64})", re.IGNORECASE)
_WHOLE = len("sha256:") + 64


def chosen(cache: Cache, names: Sequence[str]) -> list[CachedWheel]:
    """Return the wheels of these projects, digests, beginnings of one or file names, all where none is given.

    They come by file name.

    Raises:
        CommandError: for a name that no wheel of the cache has, or a beginning that several digests have.
    """
    wheels = sorted(cache.entries(), key=lambda wheel: (wheel.filename.lower(), wheel.digest))
    if not names:
        return wheels
    by_name: dict[str, list[CachedWheel]] = defaultdict(list)
    for wheel in wheels:
        hashes = [f"{algorithm}:{value}" for algorithm, value in wheel.hashes.items()]
        for name in (wheel.filename, canonicalize_name(wheel.filename.partition("-")[0]), *hashes):
            by_name[name].append(wheel)
    meant = {name: by_name.get(name) or by_name.get(canonicalize_name(name)) or _begun(wheels, name) for name in names}
    if unknown := sorted(name for name, found in meant.items() if not found):
        raise CommandError(f"no wheel in this cache is called {' or '.join(unknown)}")
    places = {wheel.path for found in meant.values() for wheel in found}
    return [wheel for wheel in wheels if wheel.path in places]


def removable(cache: Cache, names: Sequence[str]) -> list[str | CachedWheel]:
    """Return what :meth:`Cache.remove` takes for names as :func:`chosen` takes them.

    By project or whole digest it finds damaged wheels as well, so these are left to it.

    Raises:
        CommandError: as :func:`chosen`.
    """
    left: list[str] = []
    others: list[str] = []
    for name in names:
        digest = _digest(name)
        if len(digest) == _WHOLE:
            left.append(digest)
        elif digest or name.lower().endswith(".whl"):
            others.append(name)
        else:
            left.append(name)
    return [*left, *(chosen(cache, others) if others else ())]


def _begun(wheels: Sequence[CachedWheel], name: str) -> list[CachedWheel]:
    """Return the wheels of the one digest that begins so, if this is the beginning of a digest."""
    beginning = _digest(name)
    found = [wheel for wheel in wheels if beginning and wheel.digest.startswith(beginning)]
    if len({wheel.digest for wheel in found}) > 1:
        candidates = ", ".join(f"{wheel.digest} ({wheel.filename})" for wheel in found)
        raise CommandError(f"several digests begin with {name}: {candidates}")
    return found


def _digest(name: str) -> str:
    """Return a digest or its beginning in full, nothing for another name."""
    match = _BEGINNING.fullmatch(name)
    return f"sha256:{match[1].lower()}" if match else ""


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
