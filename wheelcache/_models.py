"""Progress: what a caller is told while it waits, and how it says stop.

What callers get: a wheel in the cache, and the words for how it came and how it went out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias


class Phase(StrEnum):
    """What is being done."""

    WAITING = "waiting"
    """Another thread or process is downloading this wheel, or a refused try is about to be made again."""
    DOWNLOADING = "downloading"
    """Bytes are coming in; ``done`` of ``total`` are here."""
    CHECKING = "checking"
    """A cached wheel is hashed again; ``done`` of ``total`` bytes are."""
    REMOVING = "removing"
    """A wheel was deleted by ``prune``, ``remove`` or ``clear``: ``done`` is the total of bytes deleted so far, and
    ``detail`` the digest of the wheel."""
    DONE = "done"
    """The wheel is in the cache. The last event of every request that did not fail."""
    FAILED = "failed"
    """The request failed; ``detail`` is the error. The last event of a failed request of ``fetch_all``."""


@dataclass(frozen=True)
class ProgressEvent:
    """One step of one wheel.

    Attributes:
        wheel: the wheel's file name.
        phase: what is being done.
        done: bytes so far; 0 while waiting.
        total: bytes in all, ``None`` where nobody knows.
        detail: for people: ``"for process 4711"``, ``"HTTP 503, again in 2.1 s"``; empty mostly.
        request: in ``fetch_all``, the request that the event belongs to, as the caller gave it; else ``None``.
        index: in ``fetch_all``, the position of that request; else ``None``.
    """

    wheel: str
    phase: Phase
    done: int = 0
    total: int | None = None
    detail: str = ""
    request: object = None
    index: int | None = None


Progress: TypeAlias = Callable[[ProgressEvent], object]
"""Takes an event. It is called from the thread that does the work; what it raises stops that fetch cleanly."""


class Status(StrEnum):
    """How a wheel came to be in the caller's hands."""

    HIT = "hit"
    """It was in the cache."""
    LAYER = "layer"
    """It was in one of the read-only layers."""
    DOWNLOADED = "downloaded"
    """It was downloaded."""
    RESUMED = "resumed"
    """It was downloaded, and a part of it was there from an earlier try."""
    REVALIDATED = "revalidated"
    """It was in the cache, and the server said that it is still the one at this URL."""
    ADDED = "added"
    """It was copied in from a local file."""
    REPAIRED = "repaired"
    """The cache held a damaged copy, which was put aside, and the wheel was fetched again."""


class LinkMode(StrEnum):
    """How a file leaves the cache."""

    AUTO = "auto"
    """The first of the others that works."""
    CLONE = "clone"
    """A file of its own that shares its blocks with the cached one until either is written to."""
    HARDLINK = "hardlink"
    """A second name of the cached file: who edits one edits both."""
    COPY = "copy"
    """A file of its own."""


@dataclass(frozen=True)
class CachedWheel:
    """A wheel in the cache, whose bytes were checked.

    It is an :class:`os.PathLike`: pip, ``installer``, :mod:`zipfile` and ``open`` take it as it is.

    Attributes:
        path: the absolute path of the wheel, which ends in its true file name. It stays good until the wheel is
            pruned or removed. Read it, never write to it.
        filename: the wheel's file name.
        digest: ``"sha256:<hex>"``.
        size: bytes.
        hashes: every hash that was computed of it, by algorithm, in hex.
        url: the one that it was first fetched by, without credentials and query, or ``None``; a mirror may have brought
            the bytes.
        status: how it came; see :class:`Status`.
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
    """Refuse what is no wheel of a cache, such as the path of a file.

    Raises:
        TypeError: where it is none.
    """
    if not isinstance(wheel, CachedWheel):
        raise TypeError(f"a wheel is what fetch, put, get and entries return, not {type(wheel).__name__}")


@dataclass(frozen=True)
class Unpacked:
    """The files of a wheel, as :class:`os.PathLike` of the folder they are in.

    Attributes:
        path: the absolute path of the folder: the one that was given, or the tree in the cache.
        mode: how the files came to that folder: ``hardlink`` where any of them shares its bytes with the cache, so that
            who edits one edits both; ``None`` where the folder is the tree in the cache itself. Files that were there
            already count as what they are: a hard link or, else, a copy.
        files: the names of the wheel's files, relative to ``path``, with slashes.
    """

    path: Path
    mode: LinkMode | None
    files: Sequence[str] = field(repr=False)

    def __fspath__(self) -> str:
        return str(self.path)


Keep: TypeAlias = str | CachedWheel | os.PathLike[str]
"""What stays: a digest ``"sha256:<hex>"``, a wheel, or the path of a ``pylock.toml``."""
