"""Find, check, create, mark and remove the unpacked wheels of one cache folder.

A tree is filled in place. Each attempt to unpack a wheel claims a numbered folder with an exclusive ``mkdir``, so that
two processes never write the same file. The marker is written last, beside the folder. No folder is ever renamed. A
folder without a valid marker is not a tree, and is swept after some time.

Trees are trusted like wheels. In the boot in which the marker was written, every file must have the recorded size and
time stamp. This check takes one ``stat`` per file. After a reboot, a restore or a touch, the affected files are hashed
once. Only the process that deleted the marker deletes the folder, so that a folder that was claimed again is never
emptied.

As for wheels, only ``verify="full"`` detects a program that edits a file and resets its time stamp within one boot.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

from .._exceptions import CommitError
from .._fs.robustio import RobustIO, hash_file, is_missing
from .._fs.small import read_optional, read_small
from .._fs.tempnames import OwnerTag
from .._hashes import sha256_of
from .._models import Phase
from .._os.files import OpenFolder
from .._store.layout import Layout, is_tree, marker_path, tree_folder
from .._store.walk import OnError, scan_folder, walk_shards
from .manifest import (
    EXECUTABLE,
    EXECUTABLE_IMAGE,
    IMAGE,
    MAX_MARKER,
    PLAIN,
    Manifest,
    ManifestDir,
    decode_marker,
    encode_marker,
    is_executable,
)

# Apart from the tree itself, each number in use is a folder that is being filled, or an unfinished one that was not
# swept yet.
_NUMBERS = 100
# Bytes. Smaller files are read at once. Most files of most wheels are smaller. RobustIO reads such a file only after a
# refusal.
_SMALL = 1 << 16


class Outcome(IntEnum):
    """The outcome of a removal. Only ``KEPT`` is false.

    If several processes remove the same file at once, only one of them reports ``REMOVED``, so that the file is counted
    once. Some systems, such as Wine, let several processes delete a file that all of them had opened. The next walk
    then corrects the size.
    """

    KEPT = 0
    GONE = 1
    REMOVED = 2


class TreeEntry(NamedTuple):
    """A tree according to its marker, unchecked.

    Attributes:
        sha256: the sha256 of the wheel, in hex.
        folder: the absolute path of the tree.
        marker: the absolute path of the marker.
        manifest: the files of the tree.
        used: the time of the creation, or of the hashing for the first use in another boot, in seconds since the epoch.
    """

    sha256: str
    folder: str
    marker: str
    manifest: Manifest
    used: float

    @property
    def size(self) -> int:
        """The total size of the files in bytes."""
        return self.manifest.size()

    @property
    def created(self) -> int:
        """The creation time in seconds since the epoch."""
        return self.manifest.created


class TreeStore:
    """The trees of one cache folder.

    Args:
        layout: the paths of the cache folder.
        writable: whether markers may be renewed and damaged trees removed.
        full: whether every file is hashed at every check.
    """

    def __init__(self, layout: Layout, *, writable: bool, full: bool = False) -> None:
        self._layout = layout
        self._writable = writable
        self._full = full
        # The manifests, by marker, of hashed trees whose marker cannot be renewed, such as those in a layer.
        self._hashed: dict[str, Manifest] = {}

    def find(self, fs: RobustIO, sha256: str) -> TreeEntry | None:
        """Check and return the tree of a wheel, or return ``None``. A damaged tree is removed.

        Raises:
            CommitError: as for :meth:`check`.
        """
        for entry in self.iter_marked(fs, sha256):
            problems = self.check(fs, entry)
            if not problems:
                return entry
            if self._writable:
                self.remove_tree(fs.for_cleanup(), entry)  # a cancellation must not leave half of the tree
        return None

    def iter_marked(self, fs: RobustIO, sha256: str, *, skip_unreadable: bool = True) -> Iterator[TreeEntry]:
        """Yield the trees of a wheel that have a valid marker, unchecked.

        Raises:
            CommitError: if a marker cannot be read, unless ``skip_unreadable`` is set.
        """
        first = self._layout.tree(sha256, 0)
        entry = self.read_marker(fs, first, skip_unreadable=skip_unreadable)
        if entry is not None and entry.sha256 == sha256:
            yield entry
        # The tree nearly always has the first number. Most callers stop after it, so the shard is only scanned
        # afterwards.
        prefix = os.path.basename(first)[:-1]
        shard = self._layout.tree_shard(sha256)
        for name in sorted(other.name for other in fs.scan(shard)):
            if name.startswith(prefix) and name.endswith(".json") and tree_folder(name) != f"{prefix}0":
                folder = tree_folder(os.path.join(shard, name))
                entry = self.read_marker(fs, folder, skip_unreadable=skip_unreadable)
                if entry is not None and entry.sha256 == sha256:
                    yield entry

    def check(self, fs: RobustIO, entry: TreeEntry, *, bytes_only: bool = False) -> list[str]:
        """Hash the files that could have changed, and return the absolute paths of the missing and damaged files.

        With ``bytes_only``, lost permissions do not count as damage, since the next use of the tree restores them.

        Raises:
            CommitError: if a file cannot be read, or is held for too long.
        """
        manifest = self._hashed.get(entry.marker, entry.manifest)
        trusted = self.is_of_this_boot(fs, manifest)
        problems: list[str] = []
        renewed = []
        hashed = False
        for folder in manifest.folders:
            checked = _CheckedFolder(
                fs,
                os.path.join(entry.folder, *folder.path.split("/")),
                folder,
                writable=self._writable,
                bytes_only=bytes_only,
            )
            checked.run(trusted=trusted)
            problems += checked.problems
            renewed.append(checked.stamps)
            hashed = hashed or checked.hashed
        if hashed and not problems:
            self._renew(fs, entry.marker, manifest.with_stamps(renewed, fs.system.boot()))
        return problems

    def is_of_this_boot(self, fs: RobustIO, manifest: Manifest) -> bool:
        """Return whether the recorded size and time stamp are sufficient to trust a file."""
        boot = fs.system.boot()
        return manifest.boot == boot and boot is not None and not self._full

    def _renew(self, fs: RobustIO, marker: str, manifest: Manifest) -> None:
        """Record, best effort, that the files were hashed, so that the next process need not hash them again."""
        try:
            if self._writable:
                self._write(fs.without_waiting(), marker, manifest)
                return
        except CommitError:
            pass
        self._hashed[marker] = manifest

    def claim(self, fs: RobustIO, sha256: str) -> str:
        """Create an empty folder for a tree of this wheel, and return its path. Only this caller may use it.

        Raises:
            CommitError: if the folder cannot be created.
        """
        fs.make_folder(self._layout.tree_shard(sha256))
        for number in range(_NUMBERS):
            folder = self._layout.tree(sha256, number)
            marker = marker_path(folder)
            # The marker of a lost folder must not count as the marker of the new tree.
            if fs.stat(marker) is not None and (fs.stat(folder) is not None or not fs.discard(marker)):
                continue
            try:
                fs.perform("mkdir", folder, lambda folder=folder: fs.files.mkdir(folder))  # type: ignore[misc]
            except FileExistsError:
                continue
            return folder
        raise CommitError(
            f"all {_NUMBERS} locations for this tree are occupied by unfinished trees",
            operation="unpack",
            path=self._layout.tree(sha256, 0),
            attempts=_NUMBERS,
            advice="Prune or clear the cache.",
        )

    def mark(self, fs: RobustIO, folder: str, manifest: Manifest) -> TreeEntry:
        """Make a filled folder a tree by writing its marker.

        Raises:
            CommitError: if the marker cannot be written.
        """
        marker = marker_path(folder)
        self._write(fs, marker, manifest)
        return TreeEntry(manifest.sha256, folder, marker, manifest, float(manifest.created))

    def _write(self, fs: RobustIO, marker: str, manifest: Manifest) -> None:
        tag = OwnerTag.new(fs.system.now(), fs.system.boot())
        fs.write_small(marker, encode_marker(manifest), self._layout.new_temporary(tag))

    def iter_trees(self, fs: RobustIO) -> Iterator[TreeEntry]:
        """Yield every tree with a valid marker, unchecked."""
        for folder, marked in self.iter_folders(fs):
            entry = self.read_marker(fs, folder) if marked else None
            stat = entry and fs.stat(entry.marker)
            if entry and stat:
                yield entry._replace(used=stat.st_mtime)

    def iter_unmarked(self, fs: RobustIO) -> Iterator[str]:
        """Yield the absolute paths of folders without a valid marker, and of markers without a folder.

        Includes trees that are being filled. The time stamp of a folder shows its age. :func:`remove_recursively`
        deletes such a folder.
        """
        for folder, marked in self.iter_folders(fs):
            if not marked or self.read_marker(fs, folder) is None:
                yield folder if fs.stat(folder) is not None else marker_path(folder)

    def remove_tree(self, fs: RobustIO, entry: TreeEntry) -> Outcome:
        """Delete a tree, beginning with the marker, so that no new use begins. Never waits or raises.

        Returns:
            The outcome. Files that are held are kept without a marker, and swept later.
        """
        try:
            fs.files.unlink(entry.marker)
        except OSError as error:
            # If the marker is missing, another process is deleting the folder, or has deleted it and the folder was
            # claimed again.
            gone = is_missing(error, entry.marker) and fs.without_waiting().stat(entry.folder) is None
            return Outcome.GONE if gone else Outcome.KEPT
        return Outcome.REMOVED if remove_recursively(fs, entry.folder) else Outcome.KEPT

    def read_marker(self, fs: RobustIO, folder: str, *, skip_unreadable: bool = False) -> TreeEntry | None:
        """Return the tree in a folder, unchecked, or ``None`` if it has no valid marker.

        Raises:
            CommitError: if the marker cannot be read, unless ``skip_unreadable`` is set.
        """
        marker = marker_path(folder)
        data = (read_optional if skip_unreadable else read_small)(fs, marker, MAX_MARKER)
        manifest = None if data is None else decode_marker(data)
        # The marker may have been copied from another folder.
        if manifest is None or not self._belongs(manifest.sha256, folder):
            return None
        return TreeEntry(manifest.sha256, folder, marker, manifest, float(manifest.created))

    def _belongs(self, sha256: str, folder: str) -> bool:
        return self._layout.tree(sha256, 0)[:-1] == folder[: folder.rindex("-") + 1]

    def iter_folders(self, fs: RobustIO, on_error: OnError | None = None) -> Iterator[tuple[str, bool]]:
        """Yield the path of every folder that is, was or will be a tree, and whether it has a marker.

        A marker without a folder is included.

        Raises:
            CommitError: if a folder cannot be scanned and no callback receives the error.
        """
        for shard in walk_shards(fs, self._layout.trees, on_error):
            names = {entry.name for entry in scan_folder(fs, shard, on_error)}
            for name in sorted(filter(is_tree, {tree_folder(name) for name in names})):
                yield os.path.join(shard, name), marker_path(name) in names


class _CheckedFolder:
    """The check of one folder of a tree.

    Attributes:
        problems: the absolute paths of missing and damaged files.
        stamps: the time stamps of the files. For hashed files, these are the new ones.
        hashed: whether a file was hashed.
    """

    def __init__(self, fs: RobustIO, path: str, folder: ManifestDir, *, writable: bool, bytes_only: bool) -> None:
        self._fs = fs
        self._writable = writable
        self._bytes_only = bytes_only
        self._path = path
        self._folder = folder
        self.problems: list[str] = []
        self.stamps: list[int] = folder.stamps
        self.hashed = False

    def run(self, *, trusted: bool) -> None:
        """Check every file. With ``trusted``, only files without the recorded size and time stamp are hashed."""
        folder = self._folder
        if not folder.names:
            return
        try:
            files = self._fs.files.open_folder(self._path)
        except OSError:
            if self._is_replaced():
                self.problems += [os.path.join(self._path, name) for name in folder.names]
            else:
                # The check of each file reports the error.
                self._check_files(range(len(folder.names)))
            return
        with files:
            changed = changed_files(self._fs, files, folder) if trusted else range(len(folder.names))
        self._check_files(changed)

    def _is_replaced(self) -> bool:
        """Return whether a file has the name of the folder or of a parent folder."""
        try:
            stat = self._fs.stat(self._path)
        except CommitError as error:
            return bool(error.errno == errno.ENOTDIR)
        return stat is not None and not modes.S_ISDIR(stat.st_mode)

    def _check_files(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._check_file(number)

    def _check_file(self, number: int) -> None:
        folder, fs = self._folder, self._fs
        path = os.path.join(self._path, folder.names[number])
        stat = self._check_small(path, number) or self._check_large(path, number)
        if stat is None:
            self.problems.append(path)
            return
        kind = folder.kinds[number]
        if not (self._bytes_only or _has_kind(fs, stat, kind) or self._restore_permissions(path, kind)):
            self.problems.append(path)
            return
        if not self.hashed:
            self.hashed, self.stamps = True, list(folder.stamps)
        self.stamps[number] = stat.st_mtime_ns

    def _check_small(self, path: str, number: int) -> os.stat_result | None:
        """Return the ``stat`` result of a small file if it is intact, else ``None``."""
        size, files = self._folder.sizes[number], self._fs.files
        if size > _SMALL:
            return None
        try:
            stat = files.stat(path)
            if not modes.S_ISREG(stat.st_mode) or stat.st_size != size:
                return None
            with files.open_read(path) as file:
                data = file.read(size + 1)
        except OSError:
            return None
        self._fs.op.report(Phase.CHECKING, size, size)
        return stat if sha256_of(data) == self._folder.digest(number) else None

    def _check_large(self, path: str, number: int) -> os.stat_result | None:
        size = self._folder.sizes[number]
        stat = self._fs.stat(path)
        if stat is None or not modes.S_ISREG(stat.st_mode) or stat.st_size != size:
            return None
        hashes = hash_file(self._fs, path, (), size)
        return stat if hashes is not None and hashes["sha256"] == self._folder.digest(number) else None

    def _restore_permissions(self, path: str, kind: str) -> bool:
        """Restore permissions that an archive of the cache has lost, and return whether this was possible."""
        if self._writable:
            try:
                self._fs.files.make_read_only(path, executable=is_executable(kind))
            except OSError:
                return False  # another user owns the file, so this user needs a new tree
        return self._writable


def _has_kind(fs: RobustIO, stat: os.stat_result, kind: str) -> bool:
    mask = _OWNER_KIND if fs.files.has_permissions else _KIND
    return stat.st_mode & mask == _MODES[kind] & mask


def changed_files(fs: RobustIO, files: OpenFolder, folder: ManifestDir) -> list[int]:
    """Return the numbers of the files without the recorded size, time stamp and kind."""
    mask = _OWNER_KIND if fs.files.has_permissions else _KIND
    changed = []
    stat = files.stat
    columns = zip(folder.names, folder.sizes, folder.stamps, folder.kinds, strict=True)
    for number, (name, size, stamp, kind) in enumerate(columns):
        try:
            current = stat(name)
        except OSError:
            changed.append(number)
        else:
            is_same = current.st_size == size and current.st_mtime_ns == stamp
            if not is_same or current.st_mode & mask != _MODES[kind] & mask:
                changed.append(number)
    return changed


# The bits of a mode that are compared: the type, and whether the owner may execute the file. The others depend on the
# umask.
_KIND, _OWNER_KIND = 0o170000, 0o170100
_MODES = {PLAIN: 0o100000, IMAGE: 0o100000, EXECUTABLE: 0o100100, EXECUTABLE_IMAGE: 0o100100}


def remove_recursively(fs: RobustIO, path: str) -> bool:
    """Delete a folder with its contents, or a file, and return whether it no longer exists. Never waits or raises."""
    without_waiting = fs.without_waiting()
    gone = True
    try:
        stat = without_waiting.stat(path)
        if stat is None or not modes.S_ISDIR(stat.st_mode):
            # A link to a folder is deleted like a file. Its target is not part of the cache.
            return fs.discard(path)
        for entry in without_waiting.scan(path):
            gone = remove_recursively(fs, os.path.join(path, entry.name)) and gone
        fs.files.rmdir(path)
    except OSError as error:
        return is_missing(error, path)
    return gone
