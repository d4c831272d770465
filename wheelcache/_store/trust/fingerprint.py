"""Compare a file with the fingerprint that it had when it was hashed."""

from __future__ import annotations

import os
import stat as modes

from ..._fs.robustio import RobustIO
from ..records import StatFingerprint


def fingerprint_of(fs: RobustIO, stat: os.stat_result) -> StatFingerprint:
    """Return the fingerprint of a file in this boot."""
    return StatFingerprint(stat.st_mtime_ns, stat.st_ino, fs.system.boot())


def is_regular(stat: os.stat_result) -> bool:
    """Return whether the status is that of a regular file, and not of a link, folder, pipe or device."""
    return modes.S_ISREG(stat.st_mode)


def is_unchanged(fs: RobustIO, path: str, stat: os.stat_result, seen: StatFingerprint) -> bool:
    """Return whether a file has the fingerprint that it had when it was hashed in this boot.

    Some network and user-space file systems number a file anew at each lookup. If the inode differs, the file is
    therefore examined once more. The inode is ignored if it has changed again.

    Args:
        fs: the file system of the operation.
        path: the absolute path of the file.
        stat: the status of the file. The caller has compared its size.
        seen: the recorded fingerprint.
    """
    if stat.st_mtime_ns != seen.mtime_ns or fs.system.boot() != seen.boot:
        return False
    if stat.st_ino == seen.inode:
        return True
    again = fs.stat(path)
    return again is not None and again.st_ino != stat.st_ino and _is_alike(again, stat)


def _is_alike(stat: os.stat_result, other: os.stat_result) -> bool:
    return (stat.st_mode, stat.st_size, stat.st_mtime_ns) == (other.st_mode, other.st_size, other.st_mtime_ns)
