"""Suspected problems in a cache folder. Each can be checked again and repaired.

Each problem is checked twice, the second time after the walk, because other processes may be using the cache. A wheel
that is being committed has a blob and no record yet. A wheel that is being removed has a record and no blob any more. A
record is incomplete while it is being written. A tree that is being removed loses its files one by one.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable
from dataclasses import dataclass, replace

from .._exceptions import Cause, CommitError
from .._fs.robustio import RobustIO
from .._reports import Action, ProblemKind
from .._store.layout import Layout, is_blob, is_record
from .._store.quarantine import quarantine_file
from .foreign import is_unsafe
from .removal import unsafe_path


@dataclass(frozen=True)
class Suspect:
    """A suspected problem in a cache folder.

    Attributes:
        kind: the kind of the problem.
        path: the absolute path of the file or folder.
        sha256: the digest of the wheel that the file or folder belongs to, or ``None``.
        repair: repairs the problem, and returns the action.
        check_again: returns the current problems of the same file or folder, or is ``None`` if a second check would not
            help.
    """

    kind: ProblemKind
    path: str
    sha256: str | None = None
    repair: Callable[[RobustIO], Action] = lambda _: Action.NONE
    check_again: Callable[[RobustIO], list[Suspect]] | None = None

    def is_same_problem(self, other: Suspect) -> bool:
        """Return whether both objects describe the same problem."""
        return (self.kind, self.path) == (other.kind, other.path)

    def confirm(self, fs: RobustIO) -> Suspect | None:
        """Check again, and return the current problem, or ``None`` if it no longer exists."""
        if self.check_again is None:
            return self
        try:
            found = self.check_again(fs)
        except CommitError:
            return self
        return next((suspect for suspect in found if suspect.is_same_problem(self)), None)


def suspect_unsafe(layout: Layout, path: str, *, sha256: str | None = None) -> Suspect:
    """Return the problem of a link or special file that has the name of a file or folder of ours.

    The repair deletes it without following it. A link in the place of an area folder is kept, because a user may have
    moved the folder to another volume.
    """

    def check_again(fs: RobustIO) -> list[Suspect]:
        return [suspect] if is_unsafe(fs, path) else []

    def repair(fs: RobustIO) -> Action:
        return Action.NONE if path in layout.folders() else remove_file(fs, path)

    suspect = Suspect(ProblemKind.UNSAFE, path, sha256, repair)
    return replace(suspect, check_again=check_again)


def suspect_unreadable(layout: Layout, path: str, error: CommitError, *, sha256: str | None = None) -> Suspect:
    """Return the problem of a file or folder that cannot be read."""
    unsafe = unsafe_path(error) or (path if error.cause is Cause.UNSAFE else None)
    if unsafe is not None:
        return suspect_unsafe(layout, unsafe, sha256=sha256)
    return Suspect(ProblemKind.UNREADABLE, error.path or path, sha256)


def suspect_foreign(layout: Layout, path: str, *, sha256: str | None = None, is_folder: bool = False) -> Suspect:
    """Return the problem of a file or folder that wheelcache did not create."""

    def check_again(fs: RobustIO) -> list[Suspect]:
        return [] if fs.stat(path) is None else [suspect]

    def repair(fs: RobustIO) -> Action:
        # A foreign folder is never renamed, because its contents belong to other programs.
        return _remove_obstructing_folder(fs, path) if is_folder else quarantine(fs, layout, path)

    suspect = Suspect(ProblemKind.FOREIGN, path, sha256, repair)
    return replace(suspect, check_again=check_again)


def quarantine(fs: RobustIO, layout: Layout, path: str, checked: os.stat_result | None = None) -> Action:
    """Quarantine a file, unless it has changed since its status was ``checked``."""
    checked = checked or fs.stat(path)
    # A foreign link or special file is kept, because it contains no bytes that a user could need back.
    if checked is None or not modes.S_ISREG(checked.st_mode) or not quarantine_file(fs, layout, path, checked):
        return Action.NONE
    return Action.QUARANTINED


def remove_file(fs: RobustIO, path: str) -> Action:
    """Delete a file."""
    return Action.REMOVED if fs.discard(path) else Action.NONE


def _remove_obstructing_folder(fs: RobustIO, folder: str) -> Action:
    """Delete an empty folder with the name of a record or blob, since that file cannot have another name."""
    name = os.path.basename(folder)
    stat = fs.stat(folder) if is_record(name) or is_blob(name) else None
    is_gone = stat is not None and modes.S_ISDIR(stat.st_mode) and fs.remove_folder(folder)
    return Action.REMOVED if is_gone else Action.NONE
