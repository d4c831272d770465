"""Walk the entries, shards, folders and files of a cache folder.

A walk over the entries reads no record, since names and file status are enough. The walk needs memory for one folder at
a time, and takes about as long as listing the same files.

Only names that the layout forms are used. Folders with other names are ignored, and never read.

If a folder or file cannot be read, an error handler receives its path. The walk then continues with the rest. Without a
handler, the error is raised. The handler also receives each link and special file that has the name of a folder, with
the cause ``UNSAFE``. Without a handler, it is ignored like a missing folder. No walk follows it.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from .._exceptions import CommitError
from .._fs.robustio import RobustIO, commit_error
from .._os.confined.entries import FolderEntry, UnsafePathError
from .._os.files import FileSystem
from .layout import Layout, is_blob, is_entry, is_place, is_record, is_shard, is_temporary, record_name, wheel_name
from .records import MAX_RECORD, Record, decode_record

OnError: TypeAlias = Callable[[str, CommitError], object]
"""A function that receives the path of a folder or file that cannot be read, and the error."""


class Blob(NamedTuple):
    """The blob of a wheel: its file name, its path and its file status."""

    filename: str
    path: str
    stat: os.stat_result

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.stat.st_size

    @property
    def inode(self) -> int:
        """The number of the file on its volume."""
        return self.stat.st_ino


class EntryFolder(NamedTuple):
    """The contents of the folder of one digest.

    Attributes:
        sha256: the digest in hex.
        folder: the absolute path.
        names: the file names of the wheels that have a record.
        blobs: the blobs beside the records, followed by those in numbered folders.
        temporary: the paths of temporary files, which a probe has left.
        unsafe: the paths of links and special files with names that wheelcache uses here.
        foreign: the paths of everything with a name that wheelcache does not use here, except for folders.
        folders: the paths of folders that wheelcache does not create, such as one with the name of a record.
        used: the time of the last use of any of the wheels, in seconds since the epoch, accurate to a day. 0 without a
            record.
        changed: the latest time stamp of the blobs and temporary files, or of the folder if there are no such files.
    """

    sha256: str
    folder: str
    names: tuple[str, ...]
    blobs: tuple[Blob, ...]
    temporary: tuple[str, ...]
    unsafe: tuple[str, ...]
    foreign: tuple[str, ...]
    folders: tuple[str, ...]
    used: float
    changed: float

    @property
    def size(self) -> int:
        """The size of the blobs in bytes. A blob with several hard links counts once."""
        if len(self.blobs) == 1:
            return self.blobs[0].size
        return sum({blob.inode: blob.size for blob in self.blobs}.values())

    def wheels(self) -> dict[str, int]:
        """Return the file names of the wheels and their sizes in bytes, without reading the records."""
        sizes = {blob.filename: blob.size for blob in self.blobs}
        return {name: sizes[name] for name in self.names if name in sizes}


def scan_folder(fs: RobustIO, folder: str, on_error: OnError | None = None) -> list[FolderEntry]:
    """Return the entries of a folder, or an empty list if it is missing.

    Raises:
        CommitError: if the folder cannot be read and there is no error handler.
    """
    try:
        return fs.scan(folder)
    except CommitError as error:
        if on_error is None:
            raise
        on_error(folder, error)
        return []


def list_folders(
    fs: RobustIO, folder: str, is_ours: Callable[[str], bool], on_error: OnError | None = None
) -> list[str]:
    """Return the sorted names of the folders in a folder that have a name of ours.

    Raises:
        CommitError: as for :func:`scan_folder`.
    """
    names = []
    for entry in scan_folder(fs, folder, on_error):
        if entry.is_dir:
            names.append(entry.name)
        elif on_error is not None and not entry.is_file and is_ours(entry.name):
            path = os.path.join(folder, entry.name)
            on_error(path, unsafe_error(path))
    return sorted(filter(is_ours, names))


def unsafe_error(path: str) -> CommitError:
    """Return the error for a link or special file that has the name of a folder of ours."""
    return commit_error(UnsafePathError(errno.ENOTDIR, "not a folder", path), "scan", path)


def walk_shards(fs: RobustIO, folder: str, on_error: OnError | None = None) -> Iterator[str]:
    """Yield the absolute paths of the shards of a folder, in order.

    Raises:
        CommitError: as for :func:`scan_folder`.
    """
    for name in list_folders(fs, folder, is_shard, on_error):
        yield os.path.join(folder, name)


def walk_files(fs: RobustIO, folder: str, on_error: OnError | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the absolute path and the status of every file, link and special file below a folder.

    Raises:
        CommitError: if a folder or file cannot be read and there is no error handler.
    """
    for entry in scan_folder(fs, folder, on_error):
        path = os.path.join(folder, entry.name)
        if entry.is_dir:
            yield from walk_files(fs, path, on_error)
            continue
        try:
            stat = fs.stat(path)
        except CommitError as error:
            if on_error is None:
                raise
            on_error(path, error)
            continue
        if stat is not None:
            yield path, stat


def walk_digests(fs: RobustIO, layout: Layout, on_error: OnError | None = None) -> Iterator[str]:
    """Yield the sha256 of the folder of every entry, in order, without reading the folder.

    Raises:
        CommitError: as for :func:`scan_folder`.
    """
    for shard in list_folders(fs, layout.wheels, is_shard, on_error):
        for name in list_folders(fs, os.path.join(layout.wheels, shard), is_entry, on_error):
            yield shard + name


def walk_entries(fs: RobustIO, layout: Layout, on_error: OnError | None = None) -> Iterator[EntryFolder]:
    """Yield the contents of every folder that is named after a sha256, in order.

    Raises:
        CommitError: as for :func:`scan_folder`.
    """
    for sha256 in walk_digests(fs, layout, on_error):
        try:
            entry = scan_entry(fs, layout, sha256)
        except CommitError as error:
            if on_error is None:
                raise
            on_error(layout.entry(sha256), error)
        else:
            if entry is not None:
                yield entry


def scan_entry(fs: RobustIO, layout: Layout, sha256: str) -> EntryFolder | None:
    """Return the contents of the folder of a sha256, or ``None`` if it does not exist.

    Raises:
        CommitError: if the folder or a file in it cannot be read.
    """
    folder = layout.entry(sha256)
    names: list[str] = []
    blobs: list[Blob] = []
    others = _Others([], [], [], [])
    used = changed = 0.0
    placed: list[Blob] = []
    # os.path.join would take a fifth of the time of a walk.
    prefix = folder + os.sep
    for entry in sorted(fs.scan(folder)):
        name, is_dir, is_file = entry
        path = prefix + name
        has_record_name = is_record(name)
        # The name of the record is before that of its blob, and has been checked.
        if is_file and (has_record_name or name in names or is_blob(name)):
            stat = fs.stat(path)
            if stat is None:
                continue
            if not modes.S_ISREG(stat.st_mode):
                others.unsafe.append(path)  # it has replaced a file since the scan
            elif has_record_name:
                names.append(wheel_name(name))
                used = max(used, stat.st_mtime)
            else:
                blobs.append(Blob(name, path, stat))
                changed = max(changed, stat.st_mtime)
        elif is_dir and is_place(name):
            changed = max(changed, _scan_place(fs, path, placed, others))
        else:
            is_ours = has_record_name or is_blob(name) or is_place(name) or is_temporary(name)
            changed = max(changed, others.add(fs, path, entry, is_ours=is_ours))
    if not changed:
        # A record without a blob may belong to a damaged wheel that is being fetched again, so its time stamp is not
        # used.
        folder_stat = fs.stat(folder)
        if folder_stat is None:
            return None
        changed = folder_stat.st_mtime
    temporary, unsafe, foreign, folders = map(tuple, others)
    wheels = tuple(names), (*blobs, *placed)
    return EntryFolder(sha256, folder, *wheels, temporary, unsafe, foreign, folders, used, changed)


class _Others(NamedTuple):
    """The contents of an entry's folder other than records and blobs. The fields are those of :class:`EntryFolder`."""

    temporary: list[str]
    unsafe: list[str]
    foreign: list[str]
    folders: list[str]

    def add(self, fs: RobustIO, path: str, entry: FolderEntry, *, is_ours: bool) -> float:
        """Add an entry of a folder. Return the time stamp of a temporary file, or 0.

        ``is_ours`` states whether wheelcache uses its name here.
        """
        if entry.is_dir:
            self.folders.append(path)
        elif not entry.is_file:
            (self.unsafe if is_ours else self.foreign).append(path)
        elif is_temporary(entry.name):
            self.temporary.append(path)
            stat = fs.stat(path)
            return 0.0 if stat is None else stat.st_mtime
        else:
            self.foreign.append(path)
        return 0.0


def _scan_place(fs: RobustIO, folder: str, blobs: list[Blob], others: _Others) -> float:
    """Add the contents of a numbered folder to two lists, and return the latest time stamp of its files."""
    changed = 0.0
    for entry in sorted(fs.scan(folder)):
        path = os.path.join(folder, entry.name)
        if not entry.is_file or not is_blob(entry.name):
            is_ours = is_blob(entry.name) or is_temporary(entry.name)
            changed = max(changed, others.add(fs, path, entry, is_ours=is_ours))
        elif (stat := fs.stat(path)) is None:
            continue
        elif not modes.S_ISREG(stat.st_mode):
            others.unsafe.append(path)
        else:
            blobs.append(Blob(entry.name, path, stat))
            changed = max(changed, stat.st_mtime)
    return changed


def read_plain_record(files: FileSystem, layout: Layout, sha256: str) -> Record | None:
    """Return the record of an entry whose folder contains only the record and a blob of its name.

    Nearly every entry has this form. Two file operations confirm it. For any other entry, the result is ``None``.

    Raises:
        OSError: if the folder or the record cannot be read.
    """
    names = {entry.name: entry.is_file for entry in files.scan(layout.entry(sha256))}
    blob = next(filter(is_blob, names), "")
    if names != {blob: True, record_name(blob): True}:
        return None
    record = decode_record(files.read_small(layout.record(sha256, blob), MAX_RECORD), sha256)
    return record if record is not None and (record.filename, record.place) == (blob, 0) else None
