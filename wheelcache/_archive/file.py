"""Read an archive in a local file by offset."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from typing import BinaryIO, Self

from .._fs.robustio import RobustIO, close_quietly

_CHUNK = 1 << 20

IsSame = Callable[[os.stat_result], bool]
"""A function that returns whether a status is that of the file that was hashed."""


class ArchiveFile:
    """An archive in a local file. Each thread that reads an archive opens its own object.

    Args:
        fs: the file layer.
        path: the absolute path of the file.
        is_same: returns whether the status is that of the file that was hashed. Another user may have replaced it.

    Attributes:
        size: the size of the file in bytes.

    Raises:
        FileNotFoundError: if the file does not exist, or is another one.
        CommitError: if the file cannot be opened.
    """

    def __init__(self, fs: RobustIO, path: str, is_same: IsSame | None = None) -> None:
        self._fs = fs
        self._path = path
        self._is_same = is_same
        self._changed: int | None = None
        file = fs.open_read(path)
        if file is None:
            raise _missing(path)
        self._file: BinaryIO = file
        try:
            self.require_unchanged()
            self.size: int = fs.perform("read", path, lambda: self._file.seek(0, os.SEEK_END))
        except BaseException:
            close_quietly(file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close_quietly(self._file)

    def require_unchanged(self) -> None:
        """Raise :class:`FileNotFoundError` if this is not the file that was hashed, or if it has changed since."""
        # On Windows, the status of an open file may differ from that of its path, which was recorded.
        is_same = self._is_same if self._fs.files.has_permissions else None
        if is_same is None:
            return
        stat = os.fstat(self._file.fileno())
        if not is_same(stat) or self._changed not in {None, stat.st_ctime_ns}:
            raise _missing(self._path)

    def require_sha256(self, sha256: str) -> None:
        """Hash the file, and remember its change time for :meth:`require_unchanged`.

        Raises:
            FileNotFoundError: if the file has another sha256.
            CommitError: if the file cannot be read.
        """
        if self._fs.files.has_permissions:
            self._changed = os.fstat(self._file.fileno()).st_ctime_ns
        hasher, offset = hashlib.sha256(), 0
        while offset < self.size and (chunk := self.read_at(offset, _CHUNK)):
            hasher.update(chunk)
            offset += len(chunk)
        if hasher.hexdigest() != sha256:
            raise _missing(self._path)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from an offset, or fewer at the end of the file.

        Raises:
            CommitError: if the file cannot be read.
        """
        return self._fs.perform("read", self._path, lambda: self._read_once(offset, count))

    def _read_once(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(count)
        while len(data) < count and (more := self._file.read(count - len(data))):
            data += more
        return data


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "the wheel is no longer in the cache and must be fetched again", path)
