"""Find files and folders in a cache folder that wheelcache does not create, by their names alone.

Users and desktop environments create files anywhere. Foreign files are harmless, and are only reported.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .._fs.robustio import RobustIO
from .._store.layout import Layout
from .._store.walk import OnError, scan_folder, walk_files, walk_shards
from .._unpack.manifest import Manifest


class ForeignFile(NamedTuple):
    """The absolute path of a foreign file or folder, and whether it is a folder or a link that replaces a folder."""

    path: str
    is_folder: bool


def find_foreign(fs: RobustIO, layout: Layout, on_error: OnError) -> Iterator[ForeignFile]:
    """Yield the foreign files and folders of the cache, except those in entries and trees."""
    yield from _find_foreign_in(fs, layout.version, layout.is_own, on_error)
    for pattern in layout.patterns():
        if pattern.in_shards:
            yield from _find_foreign_in(fs, pattern.folder, pattern.of_top().is_ours, on_error)
        # Errors are ignored, because the line above has already reported them.
        shards = walk_shards(fs, pattern.folder, lambda *_: None)
        for folder in shards if pattern.in_shards else [pattern.folder]:
            yield from _find_foreign_in(fs, folder, pattern.is_ours, on_error)


def find_foreign_in_tree(fs: RobustIO, root: str, manifest: Manifest) -> Iterator[str]:
    """Yield the absolute paths of the files in a tree that its manifest does not contain.

    Raises:
        CommitError: if a folder or file cannot be read.
    """
    own_folders = {folder.path for folder in manifest.folders}
    for folder in manifest.folders:
        path, names = os.path.join(root, *folder.path.split("/")), set(folder.names)
        # A file with the name of a folder is skipped, because it is reported as damage.
        for entry in fs.scan(path) if fs.files.is_dir(path) else []:
            inside = os.path.join(path, entry.name)
            if not entry.is_dir:
                if entry.name not in names:
                    yield inside
            elif folder.relative(entry.name) not in own_folders:
                yield from (file for file, _ in walk_files(fs, inside))


def _find_foreign_in(
    fs: RobustIO, folder: str, is_ours: Callable[[str, bool], bool], on_error: OnError
) -> Iterator[ForeignFile]:
    for entry in scan_folder(fs, folder, on_error):
        path = os.path.join(folder, entry.name)
        is_plain = entry.is_dir or entry.is_file
        if not (is_plain and is_ours(entry.name, entry.is_dir)):
            yield ForeignFile(path, entry.is_dir or (not is_plain and _replaces_folder(fs, path, is_ours)))


def _replaces_folder(fs: RobustIO, path: str, is_ours: Callable[[str, bool], bool]) -> bool:
    """Return whether a link replaces a folder, for example one that was moved to another volume."""
    stat = fs.stat(path)
    if stat is None or not modes.S_ISLNK(stat.st_mode):
        return False
    # The name is also checked, because the target may be on a volume that is not mounted.
    return fs.files.is_dir(path) or is_ours(os.path.basename(path), True)
