"""Copy the contents of an open file.

This module makes all copies of the library. A copy is made in chunks, so that a cancellation ends it soon. The sizes
are compared at the end, because a copy can be short without an error.
"""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

from .._hashes import MultiHash
from .robustio import RobustIO, write_all

# The kernel copies a whole chunk in one call. A cancellation cannot interrupt this call.
_COPY_CHUNK = 8 << 20
_READ_CHUNK = 1 << 20


def copy_contents(
    fs: RobustIO, reader: BinaryIO, writer: BinaryIO, *, size: int | None = None, hasher: MultiHash | None = None
) -> None:
    """Copy an open file, from its position to its end, into an empty file.

    Args:
        fs: the file system of the operation.
        reader: the file to read.
        writer: the empty file to write.
        size: the expected number of bytes, if known.
        hasher: hashes the bytes that are copied. Without a hasher, the system copies them by its fastest method.

    Raises:
        OSError: if a read or a write fails, or the copy does not have the expected size.
        OperationCancelledError: if the operation was cancelled.
    """
    if hasher is None:
        copied = _copy_by_system(fs, reader, writer)
        if size is not None and _size(writer) < size:
            # copy_file_range can report the end of a file too early:
            # https://man7.org/linux/man-pages/man2/copy_file_range.2.html#BUGS
            copied += _copy_by_reading(fs, reader, writer, None)
    else:
        copied = _copy_by_reading(fs, reader, writer, hasher)
    expected = copied if size is None else size
    if _size(writer) != expected:
        raise OSError(errno.EIO, f"the copy has {_size(writer)} bytes instead of {expected}")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _copy_by_system(fs: RobustIO, reader: BinaryIO, writer: BinaryIO) -> int:
    copied = 0
    while count := fs.files.copy(reader, writer, _COPY_CHUNK):
        copied += count
    return copied


def _copy_by_reading(fs: RobustIO, reader: BinaryIO, writer: BinaryIO, hasher: MultiHash | None) -> int:
    copied = 0
    while chunk := reader.read(_READ_CHUNK):
        fs.op.check()
        if hasher is not None:
            hasher.update(chunk)
        write_all(writer, chunk)
        copied += len(chunk)
    return copied
