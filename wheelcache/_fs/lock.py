"""The one place that touches filelock: a lock on a file that this module opens and names itself.

Locks save work and carry no correctness. Where the lock file cannot be made, or the file system knows no locks, the
caller goes on without.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from .errors import ErrorKind, classify
from .robustio import RobustIO, close_quietly

# What is refused more often than that, between looks of some hundredths of a second, is no matter of a moment.
_MOST_REFUSALS = 20


class FileLock:
    """A lock that one process holds at a time; the system takes it back from a process that dies."""

    def __init__(self, fs: RobustIO, path: str) -> None:
        self._fs = fs
        self._path = path
        self._file: BinaryIO | None = None
        self._refusals = 0

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it; never waits.

        Raises:
            OSError: where no lock can be had here at all.
        """
        from filelock import lock_descriptor

        try:
            file = self._open()
        except OSError as error:
            # Windows refuses to open a lock file that its last holder is just deleting: a moment later it can be made.
            self._refusals += 1
            if classify(error, self._path) is ErrorKind.TRANSIENT and self._refusals <= _MOST_REFUSALS:
                return False
            raise
        try:
            taken = lock_descriptor(file.fileno(), blocking=False) and self._is_ours(file)
        except BaseException:
            file.close()
            raise
        if not taken:
            file.close()
            return False
        self._file = file
        return True

    def _open(self) -> BinaryIO:
        try:
            return self._fs.files.open_write(self._path)
        except FileNotFoundError:
            self._fs.make_folder(os.path.dirname(self._path))
            return self._fs.files.open_write(self._path)

    def _is_ours(self, file: BinaryIO) -> bool:
        """Whether the path still leads to the file that was locked: its last holder may have deleted it meanwhile."""
        try:
            return self._fs.files.stat(self._path).st_ino == os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go of the lock, and delete its file; never fails."""
        if self._file is None:
            return
        file, self._file = self._file, None
        from filelock import unlock_descriptor

        # Deleted while it is held: who opens it from now on makes a new one, and who had it open sees that it is gone.
        self._fs.discard(self._path)
        try:
            unlock_descriptor(file.fileno())
        except OSError:
            pass  # closing the file gives the lock back as well
        close_quietly(file)
