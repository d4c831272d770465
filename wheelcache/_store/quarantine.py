"""Move damaged files into quarantine. Nothing is deleted here, because a deletion cannot be undone."""

from __future__ import annotations

import os

from .._fs.robustio import RobustIO
from .._fs.tempnames import OwnerTag
from .layout import Layout


def quarantine_file(fs: RobustIO, layout: Layout, path: str, examined: os.stat_result) -> bool:
    """Move a damaged file into quarantine, and return whether its path is free now.

    Since the file was examined, another process may have replaced it with a good one. It is therefore moved only if it
    is still the same file, and moved back if the moved file turns out to be another one.
    """
    target = layout.quarantined(OwnerTag.new(fs.system.now(), fs.system.boot()), path)
    try:
        fs.without_waiting().make_folder(layout.quarantine)
        if _is_same(fs.files.stat(path), examined):
            fs.files.rename(path, target)
            # Not cancellable: a good file must get its name back.
            cleanup = fs.for_cleanup()
            if not _is_still_same(cleanup, target, examined):
                cleanup.files.rename(target, path)
    except (FileNotFoundError, FileExistsError):
        return True
    except OSError:
        return False  # the volume has no rename, or a process holds the file: the good file gets a numbered place
    return True


def _is_same(stat: os.stat_result, other: os.stat_result) -> bool:
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns) == (other.st_ino, other.st_size, other.st_mtime_ns)


def _is_still_same(fs: RobustIO, renamed: str, examined: os.stat_result) -> bool:
    """Return whether a renamed file is the one that was examined before.

    On FAT, a file's number depends on the position of its directory entry, and a rename may change it. Only size and
    time remain to compare there, with a resolution of 2 s: a good file that replaced a damaged one within them is
    quarantined and fetched again.
    https://learn.microsoft.com/windows/win32/api/fileapi/ns-fileapi-by_handle_file_information
    """
    stat = fs.files.stat(renamed)
    if _is_same(stat, examined):
        return True
    is_alike = (stat.st_size, stat.st_mtime_ns) == (examined.st_size, examined.st_mtime_ns)
    return is_alike and "fat" in fs.system.volume(renamed).file_system.lower()
