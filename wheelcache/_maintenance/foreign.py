"""Find what does not belong in a cache folder, by names and kinds alone.

Users and desktop environments create files anywhere. Foreign files are harmless, and are only reported. The cache
contains no links and special files, so one with a name that wheelcache uses is unsafe.
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


class Stray(NamedTuple):
    """A file, folder, link or special file that does not belong where it is.

    Attributes:
        path: the absolute path.
        is_folder: whether it is a folder.
        is_unsafe: whether it is a link or special file with a name that wheelcache uses there.
    """

    path: str
    is_folder: bool
    is_unsafe: bool


def find_foreign(fs: RobustIO, layout: Layout, on_error: OnError) -> Iterator[Stray]:
    """Yield everything that does not belong in the cache, except in entries and trees."""
    yield from _find_strays(fs, layout.version, layout.is_own, on_error)
    for pattern in layout.patterns():
        if pattern.in_shards:
            yield from _find_strays(fs, pattern.folder, pattern.of_top().is_ours, on_error)
        # Errors are ignored, because the line above has already reported them.
        shards = walk_shards(fs, pattern.folder, lambda *_: None)
        for folder in shards if pattern.in_shards else [pattern.folder]:
            yield from _find_strays(fs, folder, pattern.is_ours, on_error)


def find_foreign_in_tree(fs: RobustIO, root: str, manifest: Manifest) -> Iterator[Stray]:
    """Yield the files in a tree that its manifest does not contain. Every link and special file is unsafe.

    Raises:
        CommitError: if a folder or file cannot be read.
    """
    own_folders = {folder.path for folder in manifest.folders}
    for folder in manifest.folders:
        path, names = os.path.join(root, *folder.path.split("/")), set(folder.names)
        # A file with the name of a folder is skipped, because it is reported as damage.
        for entry in fs.scan(path) if is_plain_folder(fs, path) else []:
            inside = os.path.join(path, entry.name)
            if not entry.is_dir:
                if entry.name not in names:
                    yield Stray(inside, is_folder=False, is_unsafe=not entry.is_file)
            elif folder.relative(entry.name) not in own_folders:
                for file, stat in walk_files(fs, inside):
                    yield Stray(file, is_folder=False, is_unsafe=not modes.S_ISREG(stat.st_mode))


def is_unsafe(fs: RobustIO, path: str) -> bool:
    """Return whether a path is a link or special file, according to its parent folder.

    Raises:
        CommitError: if the parent folder cannot be read.
    """
    parent, name = os.path.split(path)
    return any(entry.name == name and not (entry.is_dir or entry.is_file) for entry in fs.scan(parent))


def is_plain_folder(fs: RobustIO, path: str) -> bool:
    """Return whether a path is a folder, and not a link to one.

    Raises:
        CommitError: if the status cannot be read.
    """
    stat = fs.stat(path)
    return stat is not None and modes.S_ISDIR(stat.st_mode)


def _find_strays(fs: RobustIO, folder: str, is_ours: Callable[[str, bool], bool], on_error: OnError) -> Iterator[Stray]:
    for entry in scan_folder(fs, folder, on_error):
        path = os.path.join(folder, entry.name)
        if not (entry.is_dir or entry.is_file):
            yield Stray(path, is_folder=False, is_unsafe=is_ours(entry.name, False) or is_ours(entry.name, True))
        elif not is_ours(entry.name, entry.is_dir):
            yield Stray(path, is_folder=entry.is_dir, is_unsafe=False)
