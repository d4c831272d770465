"""Compare a file with the fingerprint that it had when it was hashed."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable

from ..._fs.robustio import RobustIO
from ..records import Record, StatFingerprint


def fingerprint_of(fs: RobustIO, stat: os.stat_result) -> StatFingerprint:
    """Return the fingerprint of a file in this boot."""
    return StatFingerprint(stat.st_mtime_ns, stat.st_ino, fs.system.boot())


def is_regular(stat: os.stat_result) -> bool:
    """Return whether the status is that of a regular file, and not of a link, folder, pipe or device."""
    return modes.S_ISREG(stat.st_mode)


def is_unchanged(fs: RobustIO, path: str, stat: os.stat_result, seen: StatFingerprint) -> bool:
    """Return whether a file has the fingerprint that it had when it was hashed in this boot.

    Args:
        fs: the file system of the operation.
        path: the absolute path of the file.
        stat: the status of the file. The caller has compared its size.
        seen: the recorded fingerprint.
    """
    if stat.st_mtime_ns != seen.mtime_ns or fs.system.boot() != seen.boot:
        return False
    return stat.st_ino == seen.inode or not is_replaced(stat, lambda: fs.stat(path))


def is_recorded(fs: RobustIO, path: str, stat: os.stat_result, record: Record) -> bool:
    """Return whether a file has the size and the fingerprint in its record. The caller trusts the record."""
    return stat.st_size == record.size and is_unchanged(fs, path, stat, record.seen)


def is_replaced(stat: os.stat_result, stat_again: Callable[[], os.stat_result | None]) -> bool:
    """Return whether a file with another inode than the recorded one is another file.

    Some network and user-space file systems number a file anew at each lookup. The file is therefore examined once
    more. The inode is ignored if it has changed again.
    """
    again = stat_again()
    return again is None or again.st_ino == stat.st_ino or not _is_alike(again, stat)


def _is_alike(stat: os.stat_result, other: os.stat_result) -> bool:
    return (stat.st_mode, stat.st_size, stat.st_mtime_ns) == (other.st_mode, other.st_size, other.st_mtime_ns)
