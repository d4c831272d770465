"""Open the files that a caller names: sources of ``put``, ``file:`` URLs and lock files.

Such a file may be a pipe, such as the ``<(command)`` of a shell. Its writer may be slow or may never open it. On POSIX
systems, every wait for the writer can be cancelled. On Windows, a read of a named pipe ends by itself.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import BinaryIO

from .._imports import import_lock
from .._models import Phase
from .._operation import Operation

# Milliseconds between two checks for a cancellation.
_POLL_INTERVAL = 100
_CHUNK = 1 << 20


class _Pipe(io.FileIO):
    """An open pipe. A read waits for its writer, and can be cancelled."""

    def __init__(self, op: Operation, descriptor: int, path: str) -> None:
        super().__init__(descriptor, "r")
        self._op = op
        self._path = path

    def read(self, size: int | None = -1) -> bytes:
        if sys.platform == "win32":  # pragma: no cover - open_input creates no pipe there
            return super().read(size)
        with import_lock:  # only pipes need this module
            import select

        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while True:
            # Before the first writer has opened the pipe, a read would return the end of the file at once, but the poll
            # reports nothing.
            while not poll.poll(_POLL_INTERVAL):
                self._op.report(Phase.WAITING, detail=f"for the writer of {self._path}")
            self._op.check()
            data = super().read(size)
            if data is not None:  # another reader has not taken the bytes
                return data


def open_input(op: Operation, path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file or pipe for reading, without buffering and without waiting for the writer of a pipe.

    Raises:
        OSError: if it cannot be opened, or is a folder or a device.
    """
    if sys.platform == "win32":
        return open(path, "rb", buffering=0)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode):
        return _Pipe(op, descriptor, os.fspath(path))
    if stat.S_ISREG(mode):
        return io.FileIO(descriptor, "r")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    # A device such as /dev/zero may have no end.
    raise OSError(errno.EINVAL, "this is a device and not a file", os.fspath(path))


def size_of(file: BinaryIO) -> int | None:
    """Return the size in bytes of an open file, or ``None`` for a pipe."""
    return None if isinstance(file, _Pipe) else os.fstat(file.fileno()).st_size


def read_input(op: Operation, path: str, limit: int) -> bytes:
    """Return the content of a file or pipe of at most ``limit`` bytes.

    Raises:
        OSError: as for :func:`open_input`.
        ValueError: if there are more than ``limit`` bytes.
    """
    parts, size = [], 0
    with open_input(op, path) as file:
        while part := file.read(_CHUNK):
            op.check()
            parts.append(part)
            size += len(part)
            if size > limit:
                raise ValueError(f"{path} has more than {limit} bytes")
    return b"".join(parts)
