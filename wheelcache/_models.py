"""The values that callers pass and receive: wheels, unpacked trees, link modes and progress events."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias


class Status(StrEnum):
    """The way in which a wheel was obtained."""

    HIT = "hit"
    """The wheel was in the cache."""
    LAYER = "layer"
    """The wheel was in one of the read-only layers."""
    DOWNLOADED = "downloaded"
    """The wheel was downloaded from its URL or a mirror."""
    RESUMED = "resumed"
    """An interrupted download of the wheel was resumed."""
    REVALIDATED = "revalidated"
    """The wheel was in the cache. The server confirmed that it is still current."""
    ADDED = "added"
    """The wheel was copied from a local file."""
    REPAIRED = "repaired"
    """The wheel was downloaded, after the damaged copy in the cache was quarantined."""


@dataclass(frozen=True)
class CachedWheel:
    """A wheel in the cache whose content was verified.

    A ``CachedWheel`` is an :class:`os.PathLike`. pip, ``installer``, :mod:`zipfile` and ``open`` accept it.

    Attributes:
        path: the absolute path. It ends in the wheel's file name. The path is valid until the wheel is pruned or
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
    """The method that puts a file of the cache into a folder."""

    AUTO = "auto"
    """The first of the other modes that works."""
    CLONE = "clone"
    """A separate file that shares its blocks with the cached one until either is written to."""
    HARDLINK = "hardlink"
    """Another name of the cached file. A change to one name's content changes both."""
    COPY = "copy"
    """A separate file."""


@dataclass(frozen=True)
class Unpacked:
    """The files of an unpacked wheel. An ``Unpacked`` is an :class:`os.PathLike` of the folder that contains them.

    Attributes:
        path: the absolute path of the folder: the given destination, or the tree in the cache.
        mode: ``hardlink`` if any of the files is a hard link to the cache, else the mode that was used. ``None`` if the
            folder is the tree in the cache. A file that existed before the call counts as a hard link if it is one,
            else as a copy.
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
    """Waiting for another thread or process that downloads the same wheel, or waiting before another attempt."""
    DOWNLOADING = "downloading"
    """Receiving the content: ``done`` of ``total`` bytes."""
    CHECKING = "checking"
    """Hashing a cached wheel again: ``done`` of ``total`` bytes."""
    REMOVING = "removing"
    """``prune``, ``remove`` or ``clear`` deleted the wheel whose digest is in ``detail``.

    ``done`` is the total number of bytes deleted so far.
    """
    DONE = "done"
    """The wheel is in the cache. This is the last event of every request that does not fail."""
    FAILED = "failed"
    """The request failed with the error in ``detail``. This is the last event of a failed request of ``fetch_all``."""


@dataclass(frozen=True)
class ProgressEvent:
    """The progress of one wheel in an operation.

    Attributes:
        wheel: the wheel's file name.
        phase: the current step.
        done: the number of bytes processed so far, and 0 while waiting.
        total: the number of bytes to process, or ``None`` if unknown.
        detail: a note for display, such as ``"for process 4711"`` or ``"HTTP 503, again in 2.1 s"``. Usually empty.
        request: in ``fetch_all``, the caller's request that the event belongs to. Otherwise ``None``.
        index: in ``fetch_all``, the position of that request. Otherwise ``None``.
    """

    wheel: str
    phase: Phase
    done: int = 0
    total: int | None = None
    detail: str = ""
    request: object = None
    index: int | None = None


Progress: TypeAlias = Callable[[ProgressEvent], object]
"""A progress listener, called by the thread that does the work.

An exception that a listener raises ends the operation.
"""
