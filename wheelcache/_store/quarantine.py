"""Move damaged files into quarantine. This module deletes no file, because a deletion cannot be undone."""

from __future__ import annotations

import os

from .._fs.robustio import RobustIO
from .._fs.tempnames import OwnerTag
from .layout import Layout


def quarantine_file(fs: RobustIO, layout: Layout, path: str, examined: os.stat_result) -> bool:
    """Move a damaged file into quarantine, and return whether its path is free now.

    After the examination, another process may have replaced the file with a good one. So the file is moved only if it
    is still the same, and is moved back if it proves to be another file.
    """
    target = layout.quarantined(OwnerTag.new(fs.system.now(), fs.system.boot()), path)
    try:
        fs.without_waiting().make_folder(layout.quarantine)
        if _is_same(fs.files.stat(path), examined):
            fs.files.rename(path, target)
            # These steps must not be cancelled, because a good file must be moved back to its name.
            cleanup = fs.for_cleanup()
            if not _is_still_same(cleanup, target, examined):
                cleanup.files.rename(target, path)
    except (FileNotFoundError, FileExistsError):
        return True
    except OSError:
        return False  # the volume has no rename, or a process holds the file
    return True


def _is_same(stat: os.stat_result, other: os.stat_result) -> bool:
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns) == (other.st_ino, other.st_size, other.st_mtime_ns)


def _is_still_same(fs: RobustIO, renamed: str, examined: os.stat_result) -> bool:
    """Return whether a renamed file is the one that was examined before.

    On FAT, a file's inode depends on the position of its directory entry, so a rename may change it:
    https://learn.microsoft.com/windows/win32/api/fileapi/ns-fileapi-by_handle_file_information. Only the size and the
    time stamp can be compared there. The time stamp has a resolution of 2 s. If a good file replaces a damaged one
    within this time, the good file is quarantined, and the wheel is fetched again.
    """
    stat = fs.files.stat(renamed)
    if _is_same(stat, examined):
        return True
    is_alike = (stat.st_size, stat.st_mtime_ns) == (examined.st_size, examined.st_mtime_ns)
    return is_alike and "fat" in fs.system.volume(renamed).file_system.lower()
