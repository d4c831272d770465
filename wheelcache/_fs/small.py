"""Read the small files of a cache: records, markers, pointers, metadata, origins of partial downloads and counters.

Another user may have put a link, a pipe or a device in place of such a file, or a file without an end. All of these
count as missing, and are never followed, waited for or read into the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .._exceptions import Cause, CommitError
from .errors import are_too_many_files_open
from .robustio import RobustIO, is_missing

_T = TypeVar("_T")


def read_small(fs: RobustIO, path: str, limit: int) -> bytes | None:
    """Return the content of a file, or ``None`` if there is no regular file of at most ``limit`` bytes.

    Raises:
        CommitError: if the file cannot be read, or is held for too long.
    """
    return _unless_missing(fs, path, lambda: fs.files.read_small(path, limit))


def read_small_with_mtime(fs: RobustIO, path: str, limit: int) -> tuple[bytes, float] | None:
    """Read a file like :func:`read_small`. Return its time stamp, too, in seconds since the epoch."""
    return _unless_missing(fs, path, lambda: fs.files.read_small_with_mtime(path, limit))


def read_optional(fs: RobustIO, path: str, limit: int) -> bytes | None:
    """Return the content of a file, or ``None`` if it is missing, unsafe or larger than ``limit``, or cannot be read.

    Raises:
        CommitError: if too many files are open, since the file may be intact then.
    """
    try:
        return read_small(fs, path, limit)
    except CommitError as error:
        if are_too_many_files_open(error):
            raise
        return None


def _unless_missing(fs: RobustIO, path: str, action: Callable[[], _T]) -> _T | None:
    try:
        return fs.perform("read", path, action)
    except OSError as error:
        if is_missing(error, path):
            return None
        if isinstance(error, CommitError) and error.cause in {Cause.UNSAFE, Cause.IN_THE_WAY}:
            return None
        raise
