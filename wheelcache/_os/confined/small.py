"""Read an open file up to a limit, and the errors for files that must not be read."""

from __future__ import annotations

import errno
from collections.abc import Callable

from .entries import UnsafePathError

_CHUNK = 1 << 16


def not_regular(path: str) -> UnsafePathError:
    """Return the error for a link, a folder, a pipe or a device in place of a file."""
    return UnsafePathError(errno.EINVAL, "this is not a regular file", path)


def read_within(read: Callable[[int], bytes], size: int, limit: int, path: str) -> bytes:
    """Return the content of an open file of about ``size`` bytes. Never reads more than one byte above ``limit``.

    Args:
        read: returns the next bytes of the file, at most the given number. Returns no bytes at the end of the file.
        size: the size in the status of the file.
        limit: the largest accepted size in bytes.
        path: the path, for the error.

    Raises:
        UnsafePathError: if the file is larger than ``limit``.
    """
    if size > limit:
        raise _too_large(path, limit)
    # One read returns the whole file. Joining parts would need memory for a second copy of a large marker. The
    # additional byte shows whether the file has grown.
    data = read(size + 1)
    if len(data) != size:
        parts, size = [data], len(data)
        while size <= limit and (part := read(min(_CHUNK, limit + 1 - size))):
            parts.append(part)
            size += len(part)
        data = b"".join(parts)
    if len(data) > limit:
        raise _too_large(path, limit)
    return data


def _too_large(path: str, limit: int) -> UnsafePathError:
    return UnsafePathError(errno.EFBIG, f"the file is larger than {limit} bytes", path)
