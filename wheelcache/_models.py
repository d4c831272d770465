"""The values that callers pass and receive: wheels, unpacked trees, link modes and progress events."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias


class Status(StrEnum):
    """How a wheel was obtained."""

    HIT = "hit"
    """From the cache."""
    LAYER = "layer"
    """From one of the read-only layers."""
    DOWNLOADED = "downloaded"
    """From its URL or a mirror."""
    RESUMED = "resumed"
    """From its URL or a mirror, continuing an interrupted download."""
    REVALIDATED = "revalidated"
    """From the cache, after the server confirmed that it is still current."""
    ADDED = "added"
    """From a local file, which was copied."""
    REPAIRED = "repaired"
    """From its URL or a mirror, after the damaged copy in the cache was quarantined."""


@dataclass(frozen=True)
class CachedWheel:
    """A wheel in the cache whose content was verified.

    It is an :class:`os.PathLike`: pip, ``installer``, :mod:`zipfile` and ``open`` accept it.

    Attributes:
        path: the absolute path, which ends in the wheel's file name. The path is valid until the wheel is pruned or
            removed. The file must never be written to.
        filename: the wheel's file name.
        digest: ``"sha256:<hex>"``.
        size: the size in bytes.
        hashes: every hash that has been computed for the wheel, by algorithm, in hex.
        url: the URL that the wheel was first fetched from, without credentials and query, or ``None``. The content may
            have been downloaded from a mirror.
        status: how the wheel was obtained.
    """

    path: Path
    filename: str
    digest: str
    size: int
    hashes: Mapping[str, str] = field(compare=False)
    url: str | None = field(compare=False)
    status: Status = field(compare=False)

    def __fspath__(self) -> str:
        return str(self.path)


def require_wheel(wheel: object) -> None:
    """Check that an argument is a wheel of a cache, and not, for example, a path.

    Raises:
        TypeError: if it is not a :class:`CachedWheel`.
    """
    if not isinstance(wheel, CachedWheel):
        kind = type(wheel).__name__
        raise TypeError(f"the wheel must be a CachedWheel, as returned by fetch, put, get and entries, not {kind}")


Keep: TypeAlias = str | CachedWheel | os.PathLike[str]
"""A wheel that ``prune`` keeps: a digest ``"sha256:<hex>"``, a wheel, or the path of a ``pylock.toml``."""


class LinkMode(StrEnum):
    """How a file of the cache is put into a folder."""

    AUTO = "auto"
    """The first of the other modes that works."""
    CLONE = "clone"
    """A separate file that shares its blocks with the cached one until either is written to."""
    HARDLINK = "hardlink"
    """Another name of the cached file: a change of one changes both."""
    COPY = "copy"
    """A separate file."""


@dataclass(frozen=True)
class Unpacked:
    """The files of an unpacked wheel. It is an :class:`os.PathLike` of the folder that holds them.

    Attributes:
        path: the absolute path of the folder: the given destination, or the tree in the cache.
        mode: ``hardlink`` if any of the files shares its content with the cache, so that a change of one changes both;
            else the mode that was used. ``None`` if the folder is the tree in the cache. A file that existed before
            counts as a hard link if it is one, else as a copy.
        files: the names of the wheel's files, relative to ``path``, with slashes.
    """

    path: Path
    mode: LinkMode | None
    files: Sequence[str] = field(repr=False)

    def __fspath__(self) -> str:
        return str(self.path)


class Phase(StrEnum):
    """The current step of an operation."""

    WAITING = "waiting"
    """Waiting for another thread or process that downloads the same wheel, or before another attempt."""
    DOWNLOADING = "downloading"
    """Receiving the content: ``done`` of ``total`` bytes."""
    CHECKING = "checking"
    """Hashing a cached wheel again: ``done`` of ``total`` bytes."""
    REMOVING = "removing"
    """``prune``, ``remove`` or ``clear`` deleted a wheel: ``done`` is the total number of bytes deleted so far, and
    ``detail`` the digest of the wheel."""
    DONE = "done"
    """The wheel is in the cache. This is the last event of every request that does not fail."""
    FAILED = "failed"
    """The request failed with the error in ``detail``. This is the last event of a failed request of ``fetch_all``."""


@dataclass(frozen=True)
class ProgressEvent:
    """The progress of one wheel.

    Attributes:
        wheel: the wheel's file name.
        phase: the current step.
        done: the bytes processed so far; 0 while waiting.
        total: the bytes to process, or ``None`` if unknown.
        detail: a note for display, such as ``"for process 4711"`` or ``"HTTP 503, again in 2.1 s"``; usually empty.
        request: the caller's request that the event belongs to, in ``fetch_all``; else ``None``.
        index: the position of that request, in ``fetch_all``; else ``None``.
    """

    wheel: str
    phase: Phase
    done: int = 0
    total: int | None = None
    detail: str = ""
    request: object = None
    index: int | None = None


Progress: TypeAlias = Callable[[ProgressEvent], object]
"""A progress listener. The thread that does the work calls it, and an exception that it raises ends the operation."""
