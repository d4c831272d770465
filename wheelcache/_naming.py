"""Naming: which entries a caller means: by digest, by project, by wheel, by lock file.

Everything is read and checked here before anything is done with it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

from . import _digest, _inventory
from ._disk import Disk
from ._layout import Layout
from ._limits import Keep
from ._wheel import CachedWheel

Find: TypeAlias = Callable[[str], str | None]
"""Takes ``"<algorithm>:<hex>"`` of a strong hash and returns the sha256 that it leads to, or ``None``."""

# https://packaging.python.org/en/latest/specifications/name-normalization/
_PROJECT = re.compile(r"[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9])?", re.ASCII | re.IGNORECASE)
_RUNS = re.compile(r"[-_.]+")


def chosen(disk: Disk, layout: Layout, find: Find, names: Iterable[str | CachedWheel]) -> dict[str, set[str] | None]:
    """Return what names mean: the sha256 of entries, with the file names that are meant or ``None`` for all of them.

    Raises:
        ValueError: for a digest or project name that cannot be one, or that nothing in the cache has.
    """
    found: dict[str, set[str] | None] = {}
    projects: dict[str, str] = {}
    for name in names:
        text = name.digest if isinstance(name, CachedWheel) else name
        if not isinstance(text, str):
            raise TypeError(f"a digest or the name of a project is a str, not {type(name).__name__}")
        if not _is_hash(text):
            projects[_project(text)] = text
            continue
        sha256 = _sha256(text, find)
        if sha256 is None or disk.stat(layout.entry(sha256)) is None:
            raise ValueError(f"no wheel in this cache has the digest {text}")
        found[sha256] = None
    for sha256, filenames in _of_projects(disk, layout, projects).items():
        found.setdefault(sha256, filenames)
    return found


def _of_projects(disk: Disk, layout: Layout, projects: dict[str, str]) -> dict[str, set[str] | None]:
    """Walk by names alone to the wheels of these projects, by their normalised names as they were given."""
    found: dict[str, set[str] | None] = {}
    if not projects:
        return found
    missing = set(projects)
    for entry in _inventory.walk(disk, layout):
        named = {name: project_of(name) for name in entry.names}
        meant = {name for name, project in named.items() if project in projects}
        missing -= set(named.values())
        if meant:
            found[entry.sha256] = None if len(meant) == len(named) else meant
    if missing:
        given = " or ".join(sorted(projects[name] for name in missing))
        raise ValueError(f"no wheel in this cache is of the project {given}")
    return found


def project_of(filename: str) -> str:
    """Return the normalised name of the project that a wheel of this file name belongs to."""
    return _RUNS.sub("-", filename.partition("-")[0]).lower()


def _project(text: str) -> str:
    if not _PROJECT.fullmatch(text):
        raise ValueError(f"neither a digest '<algorithm>:<hex>' nor the name of a project: {text!r}")
    return _RUNS.sub("-", text).lower()


def _is_hash(text: str) -> bool:
    """Whether this is meant to be a hash; a Windows path has a drive before its colon, which is no algorithm."""
    algorithm, separator, _ = text.replace("=", ":", 1).partition(":")
    name = algorithm.strip().lower().replace("-", "_")
    return bool(separator) and (_digest.is_known(name) or name.startswith(("sha", "blake")))


def _sha256(text: str, find: Find) -> str | None:
    name, value = _digest.parse_hash(text)
    _digest.require_strong({name: value})
    return value if name == "sha256" else find(f"{name}:{value}")


def kept(disk: Disk, find: Find, keep: Keep | Iterable[Keep] | None) -> frozenset[str] | None:
    """Return the sha256 of everything that stays, ``None`` where nothing was said.

    Raises:
        ValueError: for a digest that cannot be one, or a lock file that does not parse or names no strong hash.
        OSError: where a lock file cannot be read.
    """
    if keep is None:
        return None
    several = [keep] if isinstance(keep, str | os.PathLike) else keep
    found: set[str] = set()
    for one in several:
        if isinstance(one, CachedWheel):
            found.add(one.digest.removeprefix("sha256:"))
        elif isinstance(one, str) and _is_hash(one):
            found.update(filter(None, [_sha256(one, find)]))
        elif not one and isinstance(one, str):
            raise ValueError("a digest, a wheel or the path of a pylock.toml is kept, not an empty string")
        elif isinstance(one, str | os.PathLike):
            found.update(_locked(disk, os.path.abspath(one), find))
        else:
            raise TypeError(f"a digest, a wheel or the path of a pylock.toml is kept, not {one!r}")
    return frozenset(found)


def _locked(disk: Disk, path: str, find: Find) -> set[str]:
    """Return the sha256 of every wheel of a lock file, whatever its platform."""
    # Here and not above: pruning by size or age, which a fetch may do, needs neither.
    import tomllib

    from packaging.pylock import Pylock, PylockValidationError

    if disk.files.is_folder(path):
        raise IsADirectoryError(errno.EISDIR, "this is a folder, and no lock file", path)
    data = disk.read(path)
    if data is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such lock file", path)
    try:
        lock = Pylock.from_dict(tomllib.loads(data.decode("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, PylockValidationError) as error:
        raise ValueError(f"not a lock file of pylock.toml's format: {path}: {error}") from error
    found: set[str] = set()
    for package in lock.packages:
        wheels = [(wheel.filename, wheel.hashes) for wheel in package.wheels or ()]
        if package.archive is not None:
            # Tools lock a wheel that they were given by its URL as an archive.
            name = _last_part(package.archive.url, package.archive.path)
            wheels += [(name, package.archive.hashes)] if name.lower().endswith(".whl") else []
        for filename, given in wheels:
            hashes = _digest.parse_hashes({name: value for name, value in given.items() if _known(name)})
            key = _digest.naming_hash(hashes)
            if key is None:
                # It may be in the cache, and would go: who cannot say what stays is not to say what goes.
                raise ValueError(f"a wheel without a strong hash (sha256 or better): {path}: {filename}")
            sha256 = hashes.get("sha256") or find(key)
            if sha256:
                found.add(sha256)
    return found


def _last_part(url: str | None, path: str | None) -> str:
    """Return the file name of what a lock file gives by its path, or its URL."""
    from urllib.parse import unquote, urlsplit

    # A lock file written on Windows may have its separators.
    text = unquote(urlsplit(url or "").path) if path is None else path.replace("\\", "/")
    return text.rpartition("/")[2]


def _known(algorithm: str) -> bool:
    return _digest.is_known(algorithm.lower().replace("-", "_"))
