"""Lock files between processes. No other module uses filelock.

Locks save work. Correctness never depends on them. If the lock file cannot be created, or the file system has no locks,
the caller continues without a lock.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from .._imports import third_party_import_lock
from .errors import ErrorKind, classify
from .robustio import RobustIO, close_quietly

# Twenty refusals in a row, at 50 ms intervals, are not a race with a closing handle.
_MAX_REFUSALS = 20


class FileLock:
    """A lock that one process holds at a time. If the process dies, the system releases its lock."""

    def __init__(self, fs: RobustIO, path: str) -> None:
        self._fs = fs
        self._path = path
        self._file: BinaryIO | None = None
        self._refusals = 0

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free, and return whether it was free. Never waits.

        Raises:
            OSError: if the lock file cannot be opened, or the file system has no locks.
        """
        with third_party_import_lock:
            from filelock import lock_descriptor

        try:
            file = self._open()
        except OSError as error:
            # Windows refuses to open a lock file that its last holder is deleting. Once the deletion ends, a new file
            # can be created.
            self._refusals += 1
            if classify(error, self._path) is ErrorKind.TRANSIENT and self._refusals <= _MAX_REFUSALS:
                return False
            raise
        try:
            acquired = lock_descriptor(file.fileno(), blocking=False) and self._leads_to(file)
        except BaseException:
            file.close()
            raise
        if not acquired:
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

    def _leads_to(self, file: BinaryIO) -> bool:
        """Return whether the path still leads to this file. Another process may have deleted or replaced it."""
        try:
            # This call must not be cancelled, because a lock is also released after a cancellation.
            return self._fs.system.files.stat(self._path).st_ino == os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock, and delete its file. Never fails, and cannot be cancelled.

        If another process has replaced our file meanwhile, its file is kept. If we deleted that file, a third process
        could lock a new one while the second process still holds its own.
        """
        if self._file is None:
            return
        file, self._file = self._file, None
        with third_party_import_lock:
            from filelock import unlock_descriptor

        # The file is deleted before it is unlocked. A process that opens the path afterwards creates a new file. A
        # process that already has this file open detects in try_acquire() that the path no longer leads to it.
        if self._is_own(file):
            self._fs.discard(self._path)
        try:
            unlock_descriptor(file.fileno())
        except OSError:
            pass  # closing the file releases the lock as well
        close_quietly(file)

    def _is_own(self, file: BinaryIO) -> bool:
        try:
            return self._leads_to(file)
        except OSError:
            return False  # an empty lock file is harmless until it is swept
