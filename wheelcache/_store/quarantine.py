"""Quarantine: damaged files are moved aside, never deleted."""

from __future__ import annotations

import os

from .._fs.robustio import RobustIO
from .._fs.tempnames import OwnerTag
from .layout import Layout


def quarantine_file(fs: RobustIO, layout: Layout, path: str, looked_at: os.stat_result) -> bool:
    """Move a damaged file into quarantine; return whether it is out of the way.

    Since it was looked at, another process may have put a good file in its place: so it is moved only if it is still
    the same, and back again if it was not. Nothing is ever deleted here, since a deletion cannot be taken back.
    """
    target = layout.quarantined(OwnerTag.new(fs.system.now(), fs.system.boot()), path)
    try:
        fs.without_waiting().make_folder(layout.quarantine)
        if _is_same(fs.files.stat(path), looked_at):
            fs.files.rename(path, target)
            # From here on not to be cancelled: a good file must get its name back.
            cleanup = fs.for_cleanup()
            if not _is_still(cleanup, target, looked_at):
                cleanup.files.rename(target, path)
    except (FileNotFoundError, FileExistsError):
        return True
    except OSError:
        return False  # there is no rename here, or somebody holds it: a good one takes the place beside it
    return True


def _is_same(stat: os.stat_result, other: os.stat_result) -> bool:
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns) == (other.st_ino, other.st_size, other.st_mtime_ns)


def _is_still(fs: RobustIO, renamed: str, looked_at: os.stat_result) -> bool:
    """Return whether a file that was renamed is the one that was looked at before.

    FAT numbers files by where their names stand, so that another name may make another number: what is left to compare
    has 2 s of grain, and a good file that came within them is put aside and fetched again.
    https://learn.microsoft.com/windows/win32/api/fileapi/ns-fileapi-by_handle_file_information
    """
    stat = fs.files.stat(renamed)
    if _is_same(stat, looked_at):
        return True
    alike = (stat.st_size, stat.st_mtime_ns) == (looked_at.st_size, looked_at.st_mtime_ns)
    return alike and "fat" in fs.system.volume(renamed).file_system.lower()
