"""Find the entries that a caller names: by digest, project, wheel or lock file.

All names are read and checked before anything is removed.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from .. import _hashes
from .._exceptions import CommitError
from .._fs.hashing import hash_file
from .._fs.inputs import read_input
from .._fs.robustio import RobustIO
from .._fs.small import read_small
from .._imports import third_party_import_lock
from .._models import CachedWheel, Keep
from .._store.layout import Layout
from .._store.records import MAX_RECORD, decode_record
from .._store.walk import EntryFolder, walk_entries


class HashFinder(NamedTuple):
    """Finds trusted hashes of the wheels in a cache.

    Attributes:
        find_digest: returns the sha256 for ``"<algorithm>:<hex>"`` of another strong hash, or ``None``.
        find_hashes: returns the hashes of the wheel with this sha256, at least by these algorithms, or ``None`` if the
            wheel is damaged or missing.
    """

    find_digest: Callable[[str], str | None]
    find_hashes: Callable[[str, Collection[str]], Mapping[str, str] | None]


# Bytes. A lock file with a thousand packages, each with wheels for many platforms, has a few megabytes.
_LARGEST_LOCK_FILE = 64 << 20
# https://packaging.python.org/en/latest/specifications/name-normalization/
_PROJECT = re.compile(r"[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9])?", re.ASCII | re.IGNORECASE)


def select_named(
    fs: RobustIO, layout: Layout, finder: HashFinder, names: Iterable[str | CachedWheel]
) -> dict[str, set[str] | None]:
    """Return the selected entries, as each sha256 with the selected file names, or with ``None`` for all file names.

    Raises:
        ValueError: if a digest or project name is invalid, or no wheel in the cache has it.
        TypeError: if a name is neither a string nor a wheel.
    """
    selected: dict[str, set[str] | None] = {}
    projects: dict[str, str] = {}
    for name in names:
        text = name.digest if isinstance(name, CachedWheel) else name
        if not isinstance(text, str):
            raise TypeError(f"a digest or project name must be a str, not {type(name).__name__}")
        if not _is_hash(text):
            projects[_normalize_project(text)] = text
            continue
        sha256 = _resolve(_parse_strong_hash(text), finder)
        if sha256 is None or fs.stat(layout.entry(sha256)) is None:
            raise ValueError(f"no wheel in this cache has the digest {text}")
        selected[sha256] = None
    for sha256, filenames in _select_projects(fs, layout, projects).items():
        selected.setdefault(sha256, filenames)
    return selected


def _select_projects(fs: RobustIO, layout: Layout, projects: dict[str, str]) -> dict[str, set[str] | None]:
    """Return the entries of these projects. Each is given by its normalised name and in the caller's spelling."""
    selected: dict[str, set[str] | None] = {}
    if not projects:
        return selected
    absent = set(projects)
    # A cache often has many wheels of one project. Normalising a name takes longer than looking it up here.
    normalized: dict[str, str] = {}
    for entry in walk_entries(fs, layout):
        filenames: set[str] = set()
        for filename in entry.names:
            spelling = filename.partition("-")[0]
            project = normalized.get(spelling) or normalized.setdefault(spelling, canonicalize_name(spelling))
            if project in projects:
                filenames.add(filename)
                absent.discard(project)
        if filenames:
            selected[entry.sha256] = None if len(filenames) == len(entry.names) else filenames
    if absent:
        spellings = " or ".join(sorted(projects[name] for name in absent))
        raise ValueError(f"no wheel in this cache belongs to the project {spellings}")
    return selected


def _normalize_project(text: str) -> str:
    if not _PROJECT.fullmatch(text):
        raise ValueError(f"{text!r} is neither a digest '<algorithm>:<hex>' nor a project name")
    return canonicalize_name(text)


def _is_hash(text: str) -> bool:
    """Return whether the text has the form of a hash, and not of a Windows path with a drive letter."""
    algorithm, separator, _ = text.replace("=", ":", 1).partition(":")
    name = algorithm.strip().lower().replace("-", "_")
    return bool(separator) and (_hashes.is_known(name) or name.startswith(("sha", "blake")))


def _parse_strong_hash(text: str) -> str:
    """Return a strong hash as ``"<algorithm>:<hex>"``."""
    name, value = _hashes.parse_hash(text)
    _hashes.require_strong({name: value})
    return f"{name}:{value}"


def _resolve(key: str, finder: HashFinder) -> str | None:
    algorithm, _, value = key.partition(":")
    return value if algorithm == "sha256" else finder.find_digest(key)


def _resolve_if_readable(key: str, finder: HashFinder) -> str | None:
    try:
        return _resolve(key, finder)
    except CommitError:
        return None


class _KeepRequest(NamedTuple):
    """A wheel to keep, by ``"<algorithm>:<hex>"`` of a strong hash and, from a lock file, its file name."""

    key: str
    filename: str = ""


def select_kept(
    fs: RobustIO, layout: Layout, finder: HashFinder, keep: Keep | Iterable[Keep] | None
) -> frozenset[str] | None:
    """Return the sha256 of every entry to keep, or ``None`` if ``keep`` is ``None``.

    Raises:
        ValueError: if a digest is invalid, or if a lock file cannot be parsed or names a wheel without a strong hash.
        TypeError: if ``keep`` contains an object of another type.
        OSError: if a lock file cannot be read.
    """
    if keep is None:
        return None
    fs = fs.without_waiting()
    items = [keep] if isinstance(keep, str | os.PathLike) else keep
    requests: list[_KeepRequest] = []
    for item in items:
        if isinstance(item, CachedWheel):
            requests.append(_KeepRequest(item.digest))
        elif isinstance(item, str) and _is_hash(item):
            requests.append(_KeepRequest(_parse_strong_hash(item)))
        elif not item and isinstance(item, str):
            raise ValueError("keep must contain digests, wheels and paths of pylock.toml files, not an empty string")
        elif isinstance(item, str | os.PathLike):
            requests += _read_lock_file(fs, os.path.abspath(item))
        else:
            raise TypeError(f"keep must contain digests, wheels and paths of pylock.toml files, not {item!r}")
    resolved = [(request, _resolve_if_readable(request.key, finder)) for request in requests]
    kept = frozenset(sha256 for _, sha256 in resolved if sha256)
    unresolved = [request for request, sha256 in resolved if sha256 is None]
    return kept | _search_entries(fs, layout, finder, unresolved) if unresolved else kept


def _search_entries(
    fs: RobustIO, layout: Layout, finder: HashFinder, requests: Collection[_KeepRequest]
) -> frozenset[str]:
    """Return the sha256 of the entries that have one of these hashes but no pointer from that hash.

    The record of a wheel that was fetched by its sha256 contains no other hash. An entry whose file name is in a lock
    file is therefore hashed. This is rare, because most wheels in a lock file are for other platforms and not in the
    cache.
    """
    keys = {request.key for request in requests}
    filenames = {request.filename.lower() for request in requests}
    algorithms = {key.partition(":")[0] for key in keys}
    found: set[str] = set()
    # Errors are ignored, because the following prune keeps and reports a folder that cannot be read.
    for entry in walk_entries(fs, layout, lambda *_: None):
        is_candidate = "" in filenames or any(blob.filename.lower() in filenames for blob in entry.blobs)
        try:
            hashes = _listed_hashes(fs, layout, entry)
            hashes |= _compute_hashes(fs, finder, entry, algorithms) if is_candidate else {}
        except CommitError:
            found.add(entry.sha256)  # the entry may have one of the hashes
            continue
        if not keys.isdisjoint(f"{name}:{value}" for name, value in hashes.items()):
            found.add(entry.sha256)
    return frozenset(found)


def _listed_hashes(fs: RobustIO, layout: Layout, entry: EntryFolder) -> dict[str, str]:
    """Return the hashes in the records of an entry. A false one only keeps a wheel that could be removed.

    Raises:
        CommitError: if a record cannot be read.
    """
    hashes: dict[str, str] = {}
    for name in entry.names:
        data = read_small(fs, layout.record(entry.sha256, name), MAX_RECORD)
        record = None if data is None else decode_record(data, entry.sha256)
        hashes |= {} if record is None else record.hashes
    return hashes


def _compute_hashes(
    fs: RobustIO, finder: HashFinder, entry: EntryFolder, algorithms: Collection[str]
) -> Mapping[str, str]:
    """Return the hashes of an entry by these algorithms, trusted or computed from its blobs.

    Raises:
        CommitError: if a record or blob cannot be read.
    """
    hashes = finder.find_hashes(entry.sha256, algorithms)
    if hashes is not None:
        return hashes
    for blob in entry.blobs:  # without a record
        computed = hash_file(fs, blob.path, algorithms, blob.size)
        # The hashes of a damaged blob are not the hashes of its wheel.
        if computed is not None and computed["sha256"] == entry.sha256:
            return computed
    return {}


def _read_lock_file(fs: RobustIO, path: str) -> list[_KeepRequest]:
    """Return the wheels of a lock file, for all platforms."""
    if fs.files.is_dir(path):
        raise IsADirectoryError(errno.EISDIR, "this is a folder, not a lock file", path)
    try:
        data = fs.perform("read", path, lambda: read_input(fs.op, path, _LARGEST_LOCK_FILE))
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "the lock file does not exist", path) from error
    except ValueError as error:
        raise ValueError(f"the lock file {error}") from error
    requests: list[_KeepRequest] = []
    for filename, given in _parse_wheels(data, path):
        try:
            hashes = _hashes.parse_hashes({name: value for name, value in given.items() if _is_known(name)})
        except ValueError as error:
            raise ValueError(f"the lock file {path} has an invalid hash for {filename}: {error}") from error
        key = _hashes.naming_hash(hashes)
        if key is None:
            # The wheel may be in the cache. Without its hash, no entry can be identified, and prune would remove it.
            raise ValueError(f"the lock file {path} has no strong hash (sha256 or better) for {filename}")
        requests.append(_KeepRequest(key, filename))
    return requests


def _parse_wheels(data: bytes, path: str) -> list[tuple[str, Mapping[str, str]]]:
    """Return the file names and hashes of the wheels in a lock file."""
    with third_party_import_lock:
        # A prune by size or age needs neither of these modules.
        import tomllib

        from packaging.pylock import Pylock, PylockValidationError

    found: list[tuple[str, Mapping[str, str]]] = []
    try:
        for package in Pylock.from_dict(tomllib.loads(data.decode("utf-8"))).packages:
            found += [(wheel.filename, wheel.hashes) for wheel in package.wheels or ()]
            if package.archive is not None:
                # Tools record a wheel that was given by its URL as an archive.
                name = _last_part(package.archive.url, package.archive.path)
                found += [(name, package.archive.hashes)] if name.lower().endswith(".whl") else []
    # A number with thousands of digits or an invalid URL raises a plain ValueError.
    except (ValueError, RecursionError, PylockValidationError) as error:
        raise ValueError(f"the lock file {path} is not a valid pylock.toml: {error}") from error
    return found


def _last_part(url: str | None, path: str | None) -> str:
    """Return the file name in a path of a lock file, or in a URL if there is no path."""
    # A lock file that was written on Windows may contain backslashes.
    text = unquote(urlsplit(url or "").path) if path is None else path.replace("\\", "/")
    return text.rpartition("/")[2]


def _is_known(algorithm: str) -> bool:
    return _hashes.is_known(algorithm.lower().replace("-", "_"))
