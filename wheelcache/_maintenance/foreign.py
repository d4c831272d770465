"""Strangers: what lies in a cache folder and was not made by wheelcache, by names alone.

Desktops leave files of their own everywhere, and so do people. None of it stands in the way of anything; it is found to
be told of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .._fs.robustio import RobustIO
from .._store import walk
from .._store.layout import Layout
from .._unpack.manifest import Manifest


class ForeignFile(NamedTuple):
    """Something that is not ours: its absolute path, and whether it is a folder or a link that stands for one."""

    path: str
    is_folder: bool


def foreign_files(fs: RobustIO, layout: Layout, refused: walk.OnError) -> Iterator[ForeignFile]:
    """Yield what is not ours between the folders that are, but not what is inside of entries and trees."""
    yield from _besides(fs, layout.version, layout.is_own, refused)
    for shape in layout.shapes():
        if shape.in_shards:
            yield from _besides(fs, shape.folder, layout.is_shard, refused)
        # An error was reported already, for the folder that contains the shards.
        shards = walk.walk_shards(fs, shape.folder, lambda *_: None)
        for inside in shards if shape.in_shards else [shape.folder]:
            yield from _besides(fs, inside, shape.is_ours, refused)


def in_tree(fs: RobustIO, root: str, listing: Manifest) -> Iterator[str]:
    """Yield the paths of files that are in an unpacked wheel, and are none of its own.

    Raises:
        CommitError: where a folder cannot be looked into.
    """
    own = {folder.path for folder in listing.folders}
    for folder in listing.folders:
        inside, names = os.path.join(root, *folder.path.split("/")), set(folder.names)
        # What stands in the place of a folder is told of as damage.
        for entry in fs.scan(inside) if fs.files.is_dir(inside) else []:
            path = os.path.join(inside, entry.name)
            if not entry.is_dir(follow_symlinks=False):
                if entry.name not in names:
                    yield path
            elif folder.relative(entry.name) not in own:
                yield from (file for file, _ in walk.walk_files(fs, path))


def _besides(
    fs: RobustIO, folder: str, is_ours: Callable[[str, bool], bool], refused: walk.OnError
) -> Iterator[ForeignFile]:
    for entry in walk.scan_folder(fs, folder, refused):
        path = os.path.join(folder, entry.name)
        is_folder = entry.is_dir(follow_symlinks=False)
        # A link is neither.
        is_plain = is_folder or entry.is_file(follow_symlinks=False)
        if not (is_plain and is_ours(entry.name, is_folder)):
            yield ForeignFile(path, is_folder or (entry.is_symlink() and _stands_for_folder(fs, path, is_ours)))


def _stands_for_folder(fs: RobustIO, link: str, is_ours: Callable[[str, bool], bool]) -> bool:
    """Whether a link is in the place of a folder: who is short of room links one of ours to another volume."""
    # That volume may not be there just now.
    return fs.files.is_dir(link) or is_ours(os.path.basename(link), True)
