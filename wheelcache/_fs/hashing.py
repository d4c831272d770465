"""Hash a file of a cache or of the caller."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from typing import BinaryIO, NamedTuple

from .._hashes import MultiHash
from .._models import Phase
from .robustio import RobustIO, reading

_CHUNK = 1 << 20
_LARGE = 1 << 30
_BLOCK = 512  # the unit of st_blocks: https://man7.org/linux/man-pages/man3/stat.3type.html


def hash_file(fs: RobustIO, path: str, algorithms: Collection[str], total: int) -> Mapping[str, str] | None:
    """Return the hashes of a file in hex, by algorithm, always including sha256, or ``None`` if it is missing.

    A file of more than ``total`` bytes is not read to its end, because another process could append to it forever. A
    hollow file is not read at all, see :func:`is_hollow`.

    Raises:
        CommitError: if the file cannot be read, or is held for too long.
    """
    hashed = hash_with_stat(fs, path, algorithms, total)
    return None if hashed is None else hashed.hashes


class HashedFile(NamedTuple):
    """The hashes of a file in hex, by algorithm, and the status that it had before it was hashed."""

    hashes: Mapping[str, str]
    stat: os.stat_result


def hash_with_stat(fs: RobustIO, path: str, algorithms: Collection[str], total: int) -> HashedFile | None:
    """Hash a file like :func:`hash_file`, and return its status, too."""
    file = fs.open_read(path)
    if file is None:
        return None
    hasher = MultiHash(algorithms)
    with reading(file):
        # The status must belong to the file that is hashed, and another user may replace the file at any time. On
        # Windows, the status of a path and that of its open file may have different inodes.
        stat = os.fstat(file.fileno()) if fs.files.has_permissions else fs.stat(path)
        done = 0
        if stat is not None and is_hollow(stat) and _has_hole(file, stat):
            total = -1  # the file is not read, and does not have the expected hash
        while done <= total and (chunk := fs.perform("read", path, lambda: file.read(_CHUNK))):
            hasher.update(chunk)
            done += len(chunk)
            fs.op.report(Phase.CHECKING, done, total)
    return None if stat is None else HashedFile(hasher.hexdigests(), stat)


def is_hollow(stat: os.stat_result) -> bool:
    """Return whether a large file occupies less than a quarter of its size, according to its status.

    Another user can create a file of many terabytes that occupies no space. Reading it would take hours. A wheel is
    compressed, so it occupies about its size. Some file systems report no blocks at all.
    """
    if sys.platform == "win32":
        return False
    return stat.st_size >= _LARGE and stat.st_blocks * _BLOCK < stat.st_size // 4


def _has_hole(file: BinaryIO, stat: os.stat_result) -> bool:
    """Return whether an open file has a hole. A file system that does not know its holes reports none."""
    if sys.platform == "win32":
        return False
    try:
        return os.lseek(file.fileno(), 0, os.SEEK_HOLE) < stat.st_size
    except OSError:
        return False
    finally:
        file.seek(0)
