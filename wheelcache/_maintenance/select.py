"""Naming: which entries a caller means: by digest, by project, by wheel, by lock file.

Everything is read and checked here before anything is done with it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from .. import _hashes
from .._exceptions import CommitError
from .._fs.robustio import RobustIO, hash_file
from .._models import CachedWheel, Keep
from .._store import walk
from .._store.layout import Layout
from .._store.records import decode_record
from .._store.walk import EntryFolder

Find: TypeAlias = Callable[[str], str | None]
"""Takes ``"<algorithm>:<hex>"`` of a strong hash and returns the sha256 that it leads to, or ``None``."""

# https://packaging.python.org/en/latest/specifications/name-normalization/
_PROJECT = re.compile(r"[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9])?", re.ASCII | re.IGNORECASE)
_RUNS = re.compile(r"[-_.]+")


def chosen(fs: RobustIO, layout: Layout, find: Find, names: Iterable[str | CachedWheel]) -> dict[str, set[str] | None]:
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
        sha256 = _sha256(_strong(text), find)
        if sha256 is None or fs.stat(layout.entry(sha256)) is None:
            raise ValueError(f"no wheel in this cache has the digest {text}")
        found[sha256] = None
    for sha256, filenames in _of_projects(fs, layout, projects).items():
        found.setdefault(sha256, filenames)
    return found


def _of_projects(fs: RobustIO, layout: Layout, projects: dict[str, str]) -> dict[str, set[str] | None]:
    """Walk by names alone to the wheels of these projects, by their normalised names as they were given."""
    found: dict[str, set[str] | None] = {}
    if not projects:
        return found
    missing = set(projects)
    for entry in walk.walk_entries(fs, layout):
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
    return bool(separator) and (_hashes.is_known(name) or name.startswith(("sha", "blake")))


def _strong(text: str) -> str:
    """Return ``"<algorithm>:<hex>"`` of a strong hash in its normal form."""
    name, value = _hashes.parse_hash(text)
    _hashes.require_strong({name: value})
    return f"{name}:{value}"


def _sha256(key: str, find: Find) -> str | None:
    algorithm, _, value = key.partition(":")
    return value if algorithm == "sha256" else find(key)


class _Meant(NamedTuple):
    """What stays: ``"<algorithm>:<hex>"`` of a strong hash, and the file name that a lock file gives with it."""

    key: str
    filename: str = ""


def kept(fs: RobustIO, layout: Layout, find: Find, keep: Keep | Iterable[Keep] | None) -> frozenset[str] | None:
    """Return the sha256 of everything that stays, ``None`` where nothing was said.

    Raises:
        ValueError: for a digest that cannot be one, or a lock file that does not parse or names no strong hash.
        OSError: where a lock file cannot be read.
    """
    if keep is None:
        return None
    fs = fs.without_waiting()
    several = [keep] if isinstance(keep, str | os.PathLike) else keep
    meant: list[_Meant] = []
    for one in several:
        if isinstance(one, CachedWheel):
            meant.append(_Meant(one.digest))
        elif isinstance(one, str) and _is_hash(one):
            meant.append(_Meant(_strong(one)))
        elif not one and isinstance(one, str):
            raise ValueError("a digest, a wheel or the path of a pylock.toml is kept, not an empty string")
        elif isinstance(one, str | os.PathLike):
            meant += _locked(fs, os.path.abspath(one))
        else:
            raise TypeError(f"a digest, a wheel or the path of a pylock.toml is kept, not {one!r}")
    led = [(one, _sha256(one.key, find)) for one in meant]
    lost = [one for one, sha256 in led if sha256 is None]
    return frozenset(sha256 for _, sha256 in led if sha256) | (_having(fs, layout, lost) if lost else frozenset())


def _having(fs: RobustIO, layout: Layout, meant: Collection[_Meant]) -> frozenset[str]:
    """Return the sha256 of what is in the cache and has one of these hashes, to which no pointer leads.

    What came by its sha256 has no other hash recorded. It is hashed where its name is one of a lock file's: that names
    wheels of every platform, and most of them are nowhere.
    """
    keys = {one.key for one in meant}
    names = {one.filename.lower() for one in meant}
    algorithms = {key.partition(":")[0] for key in keys}
    found: set[str] = set()
    # What cannot be looked into is told of, and left, by whoever prunes.
    for entry in walk.walk_entries(fs, layout, lambda *_: None):
        is_candidate = "" in names or any(blob.filename.lower() in names for blob in entry.blobs)
        try:
            hashes = _hashes_of(fs, layout, entry, algorithms if is_candidate else ())
        except CommitError:
            found.add(entry.sha256)  # it may be one of them
            continue
        if not keys.isdisjoint(f"{name}:{value}" for name, value in hashes.items()):
            found.add(entry.sha256)
    return frozenset(found)


def _hashes_of(fs: RobustIO, layout: Layout, entry: EntryFolder, needed: Collection[str]) -> dict[str, str]:
    """Return the hashes of an entry's bytes that are recorded, and those that are needed besides.

    Raises:
        CommitError: where it cannot be read.
    """
    hashes: dict[str, str] = {}
    for name in entry.names:
        data = fs.read(layout.record(entry.sha256, name))
        record = None if data is None else decode_record(data, entry.sha256)
        hashes |= {} if record is None else record.hashes
    for blob in entry.blobs:
        computed = None if hashes.keys() >= set(needed) else hash_file(fs, blob.path, needed, blob.size)
        # One that is damaged has other hashes than its wheel.
        if computed is not None and computed["sha256"] == entry.sha256:
            hashes |= computed
    return hashes


def _locked(fs: RobustIO, path: str) -> list[_Meant]:
    """Return every wheel of a lock file, whatever its platform."""
    if fs.files.is_dir(path):
        raise IsADirectoryError(errno.EISDIR, "this is a folder, and no lock file", path)
    data = fs.read(path)
    if data is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such lock file", path)
    found: list[_Meant] = []
    for filename, given in _wheels(data, path):
        try:
            hashes = _hashes.parse_hashes({name: value for name, value in given.items() if _known(name)})
        except ValueError as error:
            raise ValueError(f"a wheel with a wrong hash: {path}: {filename}: {error}") from error
        key = _hashes.naming_hash(hashes)
        if key is None:
            # It may be in the cache, and would go: who cannot say what stays is not to say what goes.
            raise ValueError(f"a wheel without a strong hash (sha256 or better): {path}: {filename}")
        found.append(_Meant(key, filename))
    return found


def _wheels(data: bytes, path: str) -> list[tuple[str, Mapping[str, str]]]:
    """Return the file names and hashes of the wheels in a lock file."""
    # Here and not above: pruning by size or age, which a fetch may do, needs neither.
    import tomllib

    from packaging.pylock import Pylock, PylockValidationError

    found: list[tuple[str, Mapping[str, str]]] = []
    try:
        for package in Pylock.from_dict(tomllib.loads(data.decode("utf-8"))).packages:
            found += [(wheel.filename, wheel.hashes) for wheel in package.wheels or ()]
            if package.archive is not None:
                # Tools lock a wheel that they were given by its URL as an archive.
                name = _last_part(package.archive.url, package.archive.path)
                found += [(name, package.archive.hashes)] if name.lower().endswith(".whl") else []
    # A number of some thousand digits and an impossible URL are mere ValueErrors.
    except (ValueError, RecursionError, PylockValidationError) as error:
        raise ValueError(f"not a lock file of pylock.toml's format: {path}: {error}") from error
    return found


def _last_part(url: str | None, path: str | None) -> str:
    """Return the file name of what a lock file gives by its path, or its URL."""
    from urllib.parse import unquote, urlsplit

    # A lock file written on Windows may have its separators.
    text = unquote(urlsplit(url or "").path) if path is None else path.replace("\\", "/")
    return text.rpartition("/")[2]


def _known(algorithm: str) -> bool:
    return _hashes.is_known(algorithm.lower().replace("-", "_"))
