"""List, create, mark and remove the unpacked wheels of one cache folder.

A tree is filled in place. Each attempt to unpack a wheel claims a numbered folder with an exclusive ``mkdir``, so that
two processes never write the same file. The marker is written last, beside the folder. No folder is ever renamed. A
folder without a valid marker is not a tree, and is swept after some time.

Only the process that deleted the marker deletes the folder, so that a folder that was claimed again is never emptied.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from .._exceptions import CommitError, UnsafeWheelError
from .._fs.robustio import RobustIO, is_missing
from .._fs.small import read_optional, read_small
from .._fs.tempnames import OwnerTag
from .._store.layout import Layout, is_tree, marker_path, tree_folder
from .._store.walk import OnError, scan_folder, walk_shards
from .manifest import Manifest
from .marker import MAX_MARKER, decode_marker, encode_marker

# Apart from the tree itself, each number in use is a folder that is being filled, or an unfinished one that was not
# swept yet.
_NUMBERS = 100


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
    """The trees of one cache folder. Nothing here decides whether a tree is trusted.

    Args:
        layout: the paths of the cache folder.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

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
        marked = manifest._replace(changed=fs.change_time(folder))
        marker = marker_path(folder)
        self.write_marker(fs, marker, marked)
        return TreeEntry(marked.sha256, folder, marker, marked, float(marked.created))

    def write_marker(self, fs: RobustIO, marker: str, manifest: Manifest) -> None:
        """Write or replace a marker.

        Raises:
            CommitError: if the marker cannot be written.
            UnsafeWheelError: if the marker would be too large to be read again.
        """
        tag = OwnerTag.new(fs.system.now(), fs.system.boot())
        data = encode_marker(manifest)
        if len(data) > MAX_MARKER:
            raise UnsafeWheelError(
                f"the list of its files has {len(data)} bytes, more than the limit",
                operation="unpack",
                path=marker,
                advice="Do not use this wheel. Report it to its maintainers.",
            )
        fs.write_small(marker, data, self._layout.new_temporary(tag))

    def iter_trees(self, fs: RobustIO, on_error: OnError | None = None) -> Iterator[TreeEntry]:
        """Yield every tree with a valid marker, unchecked.

        Raises:
            CommitError: if a folder or marker cannot be read and no callback receives the error.
        """
        for folder, marked in self.iter_folders(fs, on_error):
            try:
                entry = self.read_marker(fs, folder) if marked else None
                stat = entry and fs.stat(entry.marker)
            except CommitError as error:
                if on_error is None:
                    raise
                on_error(error.path or folder, error)
                continue
            if entry and stat:
                yield entry._replace(used=stat.st_mtime)

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
