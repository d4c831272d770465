"""Flush a file to its volume, and interpret a refusal."""

from __future__ import annotations

import errno

from .._exceptions import Cause, CommitError
from .errors import ErrorKind, classify
from .robustio import RobustIO

# A file system without the operation may answer EINVAL: https://man7.org/linux/man-pages/man2/fsync.2.html
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EROFS}
_LOST = {Cause.BROKEN, Cause.FULL}


def flush_file(fs: RobustIO, path: str) -> bool:
    """Write a file from the memory of the system to its volume, without waiting for holders.

    Returns:
        Whether the file was flushed, or the volume does not support that. False if a process holds the file.

    Raises:
        CommitError: if the volume could not store the file.
    """
    try:
        fs.without_waiting().perform("flush", path, lambda: fs.files.flush(path))
    except FileNotFoundError:
        return False  # another process is removing the wheel
    except CommitError as refusal:
        cause = refusal.__cause__
        if refusal.errno in _UNSUPPORTED or (
            isinstance(cause, OSError) and classify(cause, path) is ErrorKind.UNSUPPORTED
        ):
            return True
        if refusal.cause in _LOST:
            raise
        return False
    return True
