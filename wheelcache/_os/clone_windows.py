"""Cloning on ReFS and Dev Drive: a file that shares its blocks with another until either is written to.

What the file system asks for (https://learn.microsoft.com/windows/win32/fileio/block-cloning): both files on one
volume, both sparse or neither, the same integrity setting, regions that begin and end at a cluster and are smaller than
4 GiB; the last one may end behind the end of the file, whose size must be set before.

:class:`Cloning` takes the call that asks the file system as an argument, since no test machine has such a volume: what
it asks for, and in which order, is what the tests see.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TypeAlias

Control: TypeAlias = Callable[[int, int, bytes, int], bytes]
"""Handle, control code, what is given, room for the answer -> the answer."""

GET_INTEGRITY = 0x0009027C
SET_INTEGRITY = 0x0009C280
DUPLICATE_EXTENTS = 0x00098344

_LARGEST = 1 << 30
# FSCTL_GET_INTEGRITY_INFORMATION_BUFFER: algorithm, reserved, flags, chunk size, cluster size. Setting it takes the
# first three.
_INTEGRITY = struct.Struct("<HHIII")
_SETTING = struct.Struct("<HHI")


def regions(size: int, cluster: int) -> Iterator[tuple[int, int]]:
    """Yield where each region of a file begins and how long it is: whole clusters, the last one too."""
    step = _LARGEST // cluster * cluster
    for offset in range(0, size, step):
        length = min(step, size - offset)
        yield offset, -(-length // cluster) * cluster


class Cloning:
    """One file that is cloned.

    Args:
        source: the handle of the file.
        size: its bytes.
        control: asks the file system.
    """

    def __init__(self, source: int, size: int, control: Control) -> None:
        self._source = source
        self._size = size
        self._control = control
        # A file system that has no integrity streams has no block cloning: asked before anything is made.
        self._setting = _INTEGRITY.unpack(control(source, GET_INTEGRITY, b"", _INTEGRITY.size))

    def into(self, target: int, grow: Callable[[], object]) -> None:
        """Let another file, which is empty, share the blocks. ``grow`` gives it this one's size.

        Raises:
            OSError: where the file system refuses.
        """
        algorithm, _, flags, _, cluster = self._setting
        there = _INTEGRITY.unpack(self._control(target, GET_INTEGRITY, b"", _INTEGRITY.size))
        if there[0] != algorithm:
            # Only while it is empty: https://learn.microsoft.com/windows/win32/api/winioctl/ni-winioctl-fsctl_set_integrity_information
            self._control(target, SET_INTEGRITY, _SETTING.pack(algorithm, 0, flags), 0)
        grow()
        for offset, length in regions(self._size, cluster):
            # DUPLICATE_EXTENTS_DATA: the source, where it begins there and here, how long it is.
            extents = struct.pack("@Pqqq", self._source, offset, offset, length)
            self._control(target, DUPLICATE_EXTENTS, extents, 0)
