"""Select cached wheels by project, digest, start of a digest, or file name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from packaging.utils import canonicalize_name

from wheelcache import Cache, CachedWheel

from ._errors import CommandError

_DIGEST_PREFIX = re.compile(r"(?:sha256[:=])?([0-9a-f]{8,64})", re.IGNORECASE)
_DIGEST_LENGTH = len("sha256:") + 64


def select_wheels(cache: Cache, names: Sequence[str]) -> list[CachedWheel]:
    """Return the wheels with any of these names, or all wheels if there are no names, sorted by file name.

    Raises:
        CommandError: if no wheel has one of the names, or several digests start with it.
    """
    wheels = sorted(cache.entries(), key=lambda wheel: (wheel.filename.lower(), wheel.digest))
    if not names:
        return wheels
    by_name: dict[str, list[CachedWheel]] = defaultdict(list)
    for wheel in wheels:
        hashes = [f"{algorithm}:{value}" for algorithm, value in wheel.hashes.items()]
        for name in (wheel.filename, canonicalize_name(wheel.filename.partition("-")[0]), *hashes):
            by_name[name].append(wheel)
    matches = {
        name: by_name.get(name) or by_name.get(canonicalize_name(name)) or _find_by_prefix(wheels, name)
        for name in names
    }
    if unknown := sorted(name for name, found in matches.items() if not found):
        raise CommandError(f"no wheel named {' or '.join(map(repr, unknown))} in this cache")
    paths = {wheel.path for found in matches.values() for wheel in found}
    return [wheel for wheel in wheels if wheel.path in paths]


def select_for_removal(cache: Cache, names: Sequence[str]) -> list[str | CachedWheel]:
    """Return the arguments of :meth:`Cache.remove` for these names.

    Project names and whole digests are passed on unchanged, because the library also finds damaged wheels by them.

    Raises:
        CommandError: as for :func:`select_wheels`.
    """
    passed_on: list[str] = []
    to_look_up: list[str] = []
    for name in names:
        digest = _digest_prefix(name)
        if len(digest) == _DIGEST_LENGTH:
            passed_on.append(digest)
        elif digest or name.lower().endswith(".whl"):
            to_look_up.append(name)
        else:
            passed_on.append(name)
    return [*passed_on, *(select_wheels(cache, to_look_up) if to_look_up else ())]


def _find_by_prefix(wheels: Sequence[CachedWheel], name: str) -> list[CachedWheel]:
    """Return the wheels of the only digest that starts with ``name``, if ``name`` can be the start of a digest."""
    prefix = _digest_prefix(name)
    found = [wheel for wheel in wheels if prefix and wheel.digest.startswith(prefix)]
    if len({wheel.digest for wheel in found}) > 1:
        candidates = ", ".join(f"{wheel.digest} ({wheel.filename})" for wheel in found)
        raise CommandError(f"several digests start with {name!r}: {candidates}")
    return found


def _digest_prefix(name: str) -> str:
    """Return a digest or the start of a digest as ``sha256:<hex>``, or an empty string for any other name."""
    match = _DIGEST_PREFIX.fullmatch(name)
    return f"sha256:{match[1].lower()}" if match else ""


def wheel_json(wheel: CachedWheel) -> dict[str, Any]:
    """Return the JSON form of a wheel."""
    return {
        "filename": wheel.filename,
        "digest": wheel.digest,
        "size": wheel.size,
        "path": str(wheel.path),
        "url": wheel.url,
        "hashes": dict(wheel.hashes),
    }
