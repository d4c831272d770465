"""Check one tree. Each file is compared with its digest, and foreign files are reported.

The digests in a marker prove nothing if another user has written it. The marker and the files are therefore compared
with the wheel, if the cache has its bytes, whatever its record is. A tree without its wheel is compared with its marker
alone. Such a tree is used only in a private cache, within the boot in which its marker was written.
"""

from __future__ import annotations

import os
import stat as modes
from dataclasses import replace

from .._exceptions import CommitError, InvalidWheelError
from .._fs.robustio import RobustIO
from .._reports import Action, ProblemKind
from .._store.layout import Layout, marker_path
from .._unpack.check import check_recorded
from .._unpack.compare import compare_with_wheel
from .._unpack.trees import TreeEntry, TreeStore, remove_recursively
from .check_entry import find_intact_blobs
from .foreign import find_foreign_in_tree
from .suspects import Suspect, remove_file, suspect_foreign, suspect_unreadable, suspect_unsafe
from .sweep import TEMPORARY_AGE


def check_tree(fs: RobustIO, layout: Layout, folder: str) -> list[Suspect]:
    """Return the suspected problems in the folder of a tree."""
    found_again: list[list[Suspect]] = []

    def check_again(fs: RobustIO) -> list[Suspect]:
        # The whole tree is checked once and not once per problem, because a pruner deletes a tree as a whole.
        if not found_again:
            found_again.append(check_tree(fs, layout, folder))
        return found_again[0]

    fs = fs.without_waiting()
    trees = TreeStore(layout)
    try:
        tree = trees.read_marker(fs, folder)
        found = _check_unmarked(fs, folder) if tree is None else _check_marked(fs, layout, tree)
    except CommitError as error:
        found = [suspect_unreadable(layout, folder, error)]
    return [replace(suspect, check_again=check_again) for suspect in found]


def _check_marked(fs: RobustIO, layout: Layout, tree: TreeEntry) -> list[Suspect]:
    def remove(fs: RobustIO) -> Action:
        return Action.REMOVED if TreeStore(layout).remove_tree(fs, tree) else Action.NONE

    stat = fs.stat(tree.folder)
    if stat is not None and not (modes.S_ISDIR(stat.st_mode) or modes.S_ISREG(stat.st_mode)):
        # The check of names reports the link too. Only this repair removes its marker.
        return [Suspect(ProblemKind.UNSAFE, tree.folder, repair=remove)]
    damaged = [tree.folder]
    if stat is not None and modes.S_ISDIR(stat.st_mode):
        damaged = _find_damage(fs, layout, tree)
    if damaged:
        # The repair removes foreign files along with the tree.
        return [Suspect(_damage_kind(fs, path), path, tree.sha256, remove) for path in damaged]
    return [
        suspect_unsafe(layout, stray.path, sha256=tree.sha256)
        if stray.is_unsafe
        else suspect_foreign(layout, stray.path, sha256=tree.sha256)
        for stray in find_foreign_in_tree(fs, tree.folder, tree.manifest)
    ]


def _find_damage(fs: RobustIO, layout: Layout, tree: TreeEntry) -> list[str]:
    """Return the absolute paths of missing and altered files, and of a marker that does not match its wheel."""
    for blob in find_intact_blobs(fs, layout, tree.sha256):
        try:
            return compare_with_wheel(
                fs, tree.folder, tree.manifest, blob.path, blob.filename, writable=False, bytes_only=True
            ).damaged
        except (InvalidWheelError, FileNotFoundError):
            continue  # the file name belongs to another project, or an earlier version accepted more wheels
    return check_recorded(fs, tree.folder, tree.manifest, trusted=False, writable=False, bytes_only=True)[0]


def _check_unmarked(fs: RobustIO, folder: str) -> list[Suspect]:
    """Check a folder without a valid marker. Another process may be filling it.

    The check of names reports a marker that is not a file, and a tree that is not a folder.
    """
    marker = marker_path(folder)
    marker_stat, stat = fs.stat(marker), fs.stat(folder)
    if marker_stat is not None and modes.S_ISREG(marker_stat.st_mode):
        return [Suspect(ProblemKind.TORN, marker, repair=lambda fs: remove_file(fs, marker))]
    if stat is None or not modes.S_ISDIR(stat.st_mode) or fs.system.now() - stat.st_mtime <= TEMPORARY_AGE:
        return []

    def remove(fs: RobustIO) -> Action:
        return Action.REMOVED if remove_recursively(fs, folder) else Action.NONE

    return [Suspect(ProblemKind.ORPHANED, folder, repair=remove)]


def _damage_kind(fs: RobustIO, path: str) -> ProblemKind:
    exists = fs.files.is_dir(os.path.dirname(path)) and fs.stat(path) is not None
    return ProblemKind.ALTERED if exists else ProblemKind.MISSING
