"""Read an archive in a local file by offset."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO, Self

from .._fs.robustio import RobustIO, close_quietly


class ArchiveFile:
    """An archive in a local file. Each thread that reads an archive opens its own object.

    Args:
        fs: the file layer.
        path: the absolute path of the file.

    Attributes:
        size: the size of the file in bytes.

    Raises:
        FileNotFoundError: if the file does not exist.
        CommitError: if the file cannot be opened.
    """

    def __init__(self, fs: RobustIO, path: str) -> None:
        self._fs = fs
        self._path = path
        file = fs.open_read(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "the wheel is no longer in the cache and must be fetched again", path)
        self._file: BinaryIO = file
        try:
            self.size: int = fs.perform("read", path, lambda: self._file.seek(0, os.SEEK_END))
        except BaseException:
            close_quietly(file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close_quietly(self._file)

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
