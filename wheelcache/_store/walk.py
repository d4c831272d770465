"""Inventory: walking the entries of a cache folder, one folder at a time, by names and stats alone.

A walk reads no record: it costs what a bare walk over the same files costs, and memory for one folder.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._os.files import FileSystem
from .layout import Layout, is_blob, is_place, is_record, record_name, wheel_name
from .records import Record, decode_record

Refused = Callable[[str, CommitError], None]
"""Takes a folder that cannot be looked into, and why; the walk goes on."""


@dataclass(frozen=True, slots=True)
class Blob:
    """The bytes of a wheel: its file name, where they are, and what the system knows of the file."""

    filename: str
    path: str
    stat: os.stat_result

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.stat.st_size

    @property
    def inode(self) -> int:
        """The file's number on its volume."""
        return self.stat.st_ino


@dataclass(frozen=True, slots=True)
class EntryFolder:
    """What is in the folder of one sha256.

    Attributes:
        sha256: in hex.
        folder: its path.
        names: the file names of the wheels that have a record.
        blobs: those beside the records first, then those in numbered folders.
        others: the paths of files that are neither, and of what is no file.
        folders: the paths of folders that are none of ours.
        used: seconds since the epoch when any of its wheels was used last, to the day; 0 without a record.
        changed: the latest time stamp of its files but the records, or the folder's own where there is none.
    """

    sha256: str
    folder: str
    names: tuple[str, ...]
    blobs: tuple[Blob, ...]
    others: tuple[str, ...]
    folders: tuple[str, ...]
    used: float
    changed: float

    @property
    def size(self) -> int:
        """The bytes of its blobs; several names of one file take them once."""
        if len(self.blobs) == 1:
            return self.blobs[0].size
        return sum({blob.inode: blob.size for blob in self.blobs}.values())

    def wheels(self) -> dict[str, int]:
        """The file names of its wheels and their bytes, as far as a stat tells."""
        sizes = {blob.filename: blob.size for blob in self.blobs}
        return {name: sizes[name] for name in self.names if name in sizes}


def walk(fs: RobustIO, layout: Layout, refused: Refused | None = None) -> Iterator[EntryFolder]:
    """Yield every folder that is named by a sha256, in order.

    Raises:
        CommitError: where a folder cannot be looked into, and nobody takes the refusal.
    """
    for sha256 in digests(fs, layout, refused):
        try:
            found = look(fs, layout, sha256)
        except CommitError as error:
            if refused is None:
                raise
            refused(layout.entry(sha256), error)
        else:
            if found is not None:
                yield found


def digests(fs: RobustIO, layout: Layout, refused: Refused | None = None) -> Iterator[str]:
    """Yield the sha256 of every entry's folder, in order, without looking into it.

    Raises:
        CommitError: as for :func:`walk`.
    """
    for shard in names_of_folders(fs, layout.wheels, refused):
        for name in names_of_folders(fs, os.path.join(layout.wheels, shard), refused):
            digest = layout.digest_of(shard, name)
            if digest is not None:
                yield digest


def names_of_folders(fs: RobustIO, folder: str, refused: Refused | None) -> list[str]:
    """Return the names of the folders in a folder, in order.

    Raises:
        CommitError: as for :func:`walk`.
    """
    try:
        return sorted(entry.name for entry in fs.scan(folder) if entry.is_dir(follow_symlinks=False))
    except CommitError as error:
        if refused is None:
            raise
        refused(folder, error)
        return []


def look(fs: RobustIO, layout: Layout, sha256: str) -> EntryFolder | None:
    """Return what is in the folder of a sha256, ``None`` where there is none.

    Raises:
        CommitError: where it cannot be looked into.
    """
    folder = layout.entry(sha256)
    names: list[str] = []
    blobs: list[Blob] = []
    placed: list[Blob] = []
    others: list[str] = []
    folders: list[str] = []
    used = changed = 0.0
    for name, is_folder in _files(fs, folder):
        # os.path.join would be a fifth of the walk.
        path = f"{folder}{os.sep}{name}"
        if is_folder:
            if is_place(name):
                changed = max(changed, _look_into_place(fs, path, placed, others))
            else:
                folders.append(path)
            continue
        stat = fs.stat(path)
        if stat is None:
            continue
        if not modes.S_ISREG(stat.st_mode):
            others.append(path)  # a link, or what would be waited for for ever
        elif is_record(name):
            names.append(wheel_name(name))
            used = max(used, stat.st_mtime)
        elif is_blob(name):
            blobs.append(Blob(name, path, stat))
            changed = max(changed, stat.st_mtime)
        else:
            others.append(path)
            changed = max(changed, stat.st_mtime)
    if not blobs and not placed and not others:
        # A record alone may be of a wheel that was damaged and is just being fetched again: its stamp says nothing.
        stat = fs.stat(folder)
        if stat is None:
            return None
        changed = stat.st_mtime
    return EntryFolder(sha256, folder, tuple(names), (*blobs, *placed), tuple(others), tuple(folders), used, changed)


def plain(files: FileSystem, layout: Layout, sha256: str) -> Record | None:
    """Return the record in the folder of a sha256 that holds it and a blob of its name, and nothing else.

    Nearly every entry is such a one, and is found out to be with the fewest calls. ``None`` for any other.

    Raises:
        OSError: where it cannot be looked into, as it came.
    """
    names = {entry.name: entry.is_file(follow_symlinks=False) for entry in files.scan(layout.entry(sha256))}
    blob = next(filter(is_blob, names), "")
    if names != {blob: True, record_name(blob): True}:
        return None
    record = decode_record(files.read(layout.record(sha256, blob)), sha256)
    return record if record is not None and (record.filename, record.place) == (blob, 0) else None


def _files(fs: RobustIO, folder: str) -> list[tuple[str, bool]]:
    return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in fs.scan(folder))


def _look_into_place(fs: RobustIO, folder: str, blobs: list[Blob], others: list[str]) -> float:
    """Add what is in a numbered folder, and return the latest time stamp of its blobs."""
    changed = 0.0
    for name, is_folder in _files(fs, folder):
        path = os.path.join(folder, name)
        stat = None if is_folder else fs.stat(path)
        if stat is None:
            continue
        if is_blob(name) and modes.S_ISREG(stat.st_mode):
            blobs.append(Blob(name, path, stat))
            changed = max(changed, stat.st_mtime)
        else:
            others.append(path)
    return changed
