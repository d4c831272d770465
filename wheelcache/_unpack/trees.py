"""Trees: the unpacked wheels of one cache folder.

A tree is filled where it will stay: whoever unpacks a wheel claims a folder of its own by an exclusive ``mkdir``, so
that two never write one file, and writes the marker last and beside it. No folder is ever renamed. A folder without a
good marker is not there; it is swept when it is old.

A tree is trusted as wheels are: within the boot in which its marker was written, every file must have the recorded size
and time stamp, which costs one stat each; after a reboot, a restore or a touch the files in question are hashed once.
Only who deleted the marker deletes the folder, so that nobody empties one that was claimed anew.

Known blind spot: as for wheels, a program that edits a file within one boot and sets its time stamp back is noticed
with ``verify="full"`` only.
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
    PLAIN,
    Manifest,
    ManifestDir,
    decode_marker,
    encode_marker,
    is_executable,
)

# Each number that is taken is a folder that somebody fills, or that was left over and is not swept yet.
_NUMBERS = 100
# Most files of most wheels: they are read in one piece, with what is needed for one that is refused made only then.
_SMALL = 1 << 16


class Outcome(IntEnum):
    """What has become of something that was to go; nothing but ``STAYS`` is false.

    Of several who take the same away at once, only one has ``TAKEN`` it, so that it is counted once; where the system
    lets several delete one file that all of them had opened, as Wine does, the next walk puts the size right.
    """

    KEPT = 0
    GONE = 1
    REMOVED = 2


class TreeEntry(NamedTuple):
    """A tree as its marker tells it, not checked.

    Attributes:
        sha256: of the wheel, in hex.
        folder: the absolute path of the tree.
        marker: the absolute path of its marker.
        manifest: what it holds.
        used: seconds since the epoch when it was made, or hashed again for the first use in another boot.
    """

    sha256: str
    folder: str
    marker: str
    manifest: Manifest
    used: float

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return self.manifest.size()

    @property
    def created(self) -> int:
        """Seconds since the epoch."""
        return self.manifest.created


class TreeStore:
    """The trees of one cache folder.

    Args:
        layout: its paths.
        writable: whether markers may be renewed and damaged trees removed.
        full: whether every file is hashed every time.
    """

    def __init__(self, layout: Layout, *, writable: bool, full: bool = False) -> None:
        self._layout = layout
        self._writable = writable
        self._full = full
        # What this object hashed once and could not write down, as in a layer, is hashed only once all the same.
        self._hashed: dict[str, Manifest] = {}

    # One tree

    def find(self, fs: RobustIO, sha256: str) -> TreeEntry | None:
        """Return the tree of a wheel, ``None`` where there is none that may be believed. A damaged one is removed."""
        for entry in self.iter_marked(fs, sha256):
            problems = self.check(fs, entry)
            if not problems:
                return entry
            if self._writable:
                self.remove_tree(fs, entry)
        return None

    def iter_marked(self, fs: RobustIO, sha256: str) -> Iterator[TreeEntry]:
        """Yield the trees of a wheel as their markers tell them, not checked."""
        first = self._layout.tree(sha256, 0)
        entry = self.read_marker(fs, first)
        if entry is not None and entry.sha256 == sha256:
            yield entry
        # Where the first number is the tree, as nearly always, nobody asks for the second, and nothing is scanned.
        prefix = os.path.basename(first)[:-1]
        shard = self._layout.tree_shard(sha256)
        for name in sorted(other.name for other in fs.scan(shard)):
            if name.startswith(prefix) and name.endswith(".json") and tree_folder(name) != f"{prefix}0":
                entry = self.read_marker(fs, tree_folder(os.path.join(shard, name)))
                if entry is not None and entry.sha256 == sha256:
                    yield entry

    def check(self, fs: RobustIO, entry: TreeEntry, *, bytes_only: bool = False) -> list[str]:
        """Return the absolute paths of the files that are missing or damaged, hashing those that could have changed.

        With ``bytes_only``, lost permissions are no damage: whoever uses the tree gives them back.

        Raises:
            CommitError: where a file cannot be looked at, or is held for too long.
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
        """Return whether size and stamp are enough to believe a file."""
        boot = fs.system.boot()
        return manifest.boot == boot and boot is not None and not self._full

    def _renew(self, fs: RobustIO, marker: str, manifest: Manifest) -> None:
        """Write down that the files were hashed; where that cannot be just now, the next process hashes again."""
        try:
            if self._writable:
                self._write(fs.without_waiting(), marker, manifest)
                return
        except CommitError:
            pass
        self._hashed[marker] = manifest

    def claim(self, fs: RobustIO, sha256: str) -> str:
        """Make an empty folder for a tree of this wheel that nobody else fills, and return its path.

        Raises:
            CommitError: where it cannot be made.
        """
        fs.make_folder(self._layout.tree_shard(sha256))
        for number in range(_NUMBERS):
            folder = self._layout.tree(sha256, number)
            marker = marker_path(folder)
            # A marker that lost its folder must not vouch for what is about to be written.
            if fs.stat(marker) is not None and (fs.stat(folder) is not None or not fs.discard(marker)):
                continue
            try:
                fs.perform("mkdir", folder, lambda folder=folder: fs.files.mkdir(folder))  # type: ignore[misc]
            except FileExistsError:
                continue
            return folder
        raise CommitError(
            "every place for this tree is taken by an unfinished one",
            operation="unpack",
            path=self._layout.tree(sha256, 0),
            attempts=_NUMBERS,
            advice="Prune the cache, or clear it.",
        )

    def mark(self, fs: RobustIO, folder: str, manifest: Manifest) -> TreeEntry:
        """Write the marker of a folder that was claimed and filled: from here on it is a tree.

        Raises:
            CommitError: where it is refused.
        """
        marker = marker_path(folder)
        self._write(fs, marker, manifest)
        return TreeEntry(manifest.sha256, folder, marker, manifest, float(manifest.created))

    def _write(self, fs: RobustIO, marker: str, manifest: Manifest) -> None:
        stamp = OwnerTag.new(fs.system.now(), fs.system.boot())
        fs.write_small(marker, encode_marker(manifest), self._layout.new_temporary(stamp))

    # All of them

    def iter_trees(self, fs: RobustIO) -> Iterator[TreeEntry]:
        """Yield every tree that has a good marker, not checked."""
        for folder, marked in self.iter_folders(fs):
            entry = self.read_marker(fs, folder) if marked else None
            stat = entry and fs.stat(entry.marker)
            if entry and stat:
                yield entry._replace(used=stat.st_mtime)

    def iter_unmarked(self, fs: RobustIO) -> Iterator[str]:
        """Yield the absolute paths of folders without a good marker, and of markers without a folder.

        A tree that is being filled just now is among them: its folder's time stamp says how old it is.
        :func:`remove_recursively` deletes it.
        """
        for folder, marked in self.iter_folders(fs):
            if not marked or self.read_marker(fs, folder) is None:
                yield folder if fs.stat(folder) is not None else marker_path(folder)

    def remove_tree(self, fs: RobustIO, entry: TreeEntry) -> Outcome:
        """Delete a tree: its marker, so that nobody begins to use it, then its folder. Never waits and never fails.

        Returns:
            Whether all of it is gone. What is held stays, without a marker, and is swept later.
        """
        try:
            fs.files.unlink(entry.marker)
        except OSError as error:
            # Where it is gone already, another process deletes the folder, or has done so and somebody claims it anew.
            gone = is_missing(error, entry.marker) and fs.without_waiting().stat(entry.folder) is None
            return Outcome.GONE if gone else Outcome.KEPT
        return Outcome.REMOVED if remove_recursively(fs, entry.folder) else Outcome.KEPT

    def read_marker(self, fs: RobustIO, folder: str) -> TreeEntry | None:
        """Return the tree in a folder as its marker tells it, not checked; ``None`` where none is believed."""
        marker = marker_path(folder)
        data = fs.read(marker)
        manifest = None if data is None else decode_marker(data)
        # A marker that was copied elsewhere marks nothing.
        if manifest is None or not self._belongs(manifest.sha256, folder):
            return None
        return TreeEntry(manifest.sha256, folder, marker, manifest, float(manifest.created))

    def _belongs(self, sha256: str, folder: str) -> bool:
        return self._layout.tree(sha256, 0)[:-1] == folder[: folder.rindex("-") + 1]

    def iter_folders(self, fs: RobustIO, on_error: OnError | None = None) -> Iterator[tuple[str, bool]]:
        """Yield the path of every folder that is, was or will be a tree, with whether there is a file to mark it.

        Raises:
            CommitError: where a folder cannot be looked into, and nobody takes the refusal.
        """
        for shard in walk_shards(fs, self._layout.trees, on_error):
            names = {entry.name for entry in scan_folder(fs, shard, on_error)}
            for name in sorted(filter(is_tree, {tree_folder(name) for name in names})):
                yield os.path.join(shard, name), marker_path(name) in names


class _CheckedFolder:
    """One folder of a tree, looked at file by file."""

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
        """Look at every file; with ``trusted``, the recorded size and stamp are enough."""
        folder = self._folder
        if not folder.names:
            return
        try:
            files = self._fs.files.open_folder(self._path)
        except OSError:
            if self._is_none():
                self.problems += [os.path.join(self._path, name) for name in folder.names]
            else:
                # Whatever is the matter, it will be told for each file.
                self._slowly(range(len(folder.names)))
            return
        with files:
            changed = changed_files(self._fs, files, folder) if trusted else range(len(folder.names))
        self._slowly(changed)

    def _is_none(self) -> bool:
        """Whether something else stands where the folder should be, or where one above it should."""
        try:
            stat = self._fs.stat(self._path)
        except CommitError as error:
            return bool(error.errno == errno.ENOTDIR)
        return stat is not None and not modes.S_ISDIR(stat.st_mode)

    def _slowly(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._one(number)

    def _one(self, number: int) -> None:
        folder, fs = self._folder, self._fs
        path = os.path.join(self._path, folder.names[number])
        stat = self._small(path, number) or self._large(path, number)
        if stat is None:
            self.problems.append(path)
            return
        kind = folder.kinds[number]
        if not (self._bytes_only or _has_kind(fs, stat, kind) or self._protected(path, kind)):
            self.problems.append(path)
            return
        if not self.hashed:
            self.hashed, self.stamps = True, list(folder.stamps)
        self.stamps[number] = stat.st_mtime_ns

    def _small(self, path: str, number: int) -> os.stat_result | None:
        """Return what is known of a small file that is right; ``None`` for any other, which is then looked at well."""
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

    def _large(self, path: str, number: int) -> os.stat_result | None:
        size = self._folder.sizes[number]
        stat = self._fs.stat(path)
        if stat is None or not modes.S_ISREG(stat.st_mode) or stat.st_size != size:
            return None
        hashes = hash_file(self._fs, path, (), size)
        return stat if hashes is not None and hashes["sha256"] == self._folder.digest(number) else None

    def _protected(self, path: str, kind: str) -> bool:
        """Give a file its permissions back, which archives of a cache lose; return whether that could be done."""
        if self._writable:
            try:
                self._fs.files.make_read_only(path, executable=is_executable(kind))
            except OSError:
                return False  # it is somebody else's: a tree of one's own will do
        return self._writable


def _has_kind(fs: RobustIO, stat: os.stat_result, kind: str) -> bool:
    mask = _OWNER_KIND if fs.files.has_permissions else _KIND
    return stat.st_mode & mask == _MODES[kind] & mask


def changed_files(fs: RobustIO, files: OpenFolder, folder: ManifestDir) -> list[int]:
    """Return the numbers of the files that are not as they were when their stamps were taken."""
    mask = _OWNER_KIND if fs.files.has_permissions else _KIND
    changed = []
    stat = files.stat
    columns = zip(folder.names, folder.sizes, folder.stamps, folder.kinds, strict=True)
    for number, (name, size, stamp, kind) in enumerate(columns):
        try:
            seen = stat(name)
        except OSError:
            changed.append(number)
        else:
            if seen.st_size != size or seen.st_mtime_ns != stamp or seen.st_mode & mask != _MODES[kind] & mask:
                changed.append(number)
    return changed


# What is asked of a file's mode: a regular file, which its owner may execute or not; a umask takes from the others.
_KIND, _OWNER_KIND = 0o170000, 0o170100
_MODES = {PLAIN: 0o100000, IMAGE: 0o100000, EXECUTABLE: 0o100100, EXECUTABLE_IMAGE: 0o100100}


def remove_recursively(fs: RobustIO, path: str) -> bool:
    """Delete a folder and all that is in it, or a file; return whether it is gone. Never waits and never fails."""
    without_waiting = fs.without_waiting()
    gone = True
    try:
        stat = without_waiting.stat(path)
        if stat is None or not modes.S_ISDIR(stat.st_mode):
            # A link to a folder is deleted as the file that it is; what it leads to is not ours.
            return fs.discard(path)
        for entry in without_waiting.scan(path):
            gone = remove_recursively(fs, os.path.join(path, entry.name)) and gone
        fs.files.rmdir(path)
    except OSError as error:
        return is_missing(error, path)
    return gone
