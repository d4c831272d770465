"""Clone files on ReFS and Dev Drive. The clone shares the blocks of the original until either is written to.

The requirements are in https://learn.microsoft.com/windows/win32/fileio/block-cloning. Both files must be on one
volume, have the same integrity setting, and be both sparse or both not sparse. Each cloned region must be smaller than
4 GiB and begin and end at a cluster. The last region may end beyond the end of the file. The size of the new file must
be set beforehand.

:class:`BlockClone` receives the function that sends control codes as an argument. No test machine has such a volume, so
the tests check the codes and their order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TypeAlias

Control: TypeAlias = Callable[[int, int, bytes, int], bytes]
"""A function that sends a control code, and returns the output.

Its arguments are a handle, the code, the input, and the size of the output.
"""

GET_INTEGRITY = 0x0009027C
SET_INTEGRITY = 0x0009C280
DUPLICATE_EXTENTS = 0x00098344

_MAX_REGION = 1 << 30
# FSCTL_GET_INTEGRITY_INFORMATION_BUFFER: algorithm, reserved, flags, chunk size, cluster size.
_INTEGRITY = struct.Struct("<HHIII")
# FSCTL_SET_INTEGRITY_INFORMATION_BUFFER: algorithm, reserved, flags.
_NEW_INTEGRITY = struct.Struct("<HHI")


def regions(size: int, cluster: int) -> Iterator[tuple[int, int]]:
    """Yield the offset and the length of each region of a file. All lengths are multiples of the cluster size."""
    step = _MAX_REGION // cluster * cluster
    for offset in range(0, size, step):
        length = min(step, size - offset)
        yield offset, -(-length // cluster) * cluster


class BlockClone:
    """The clone of one file.

    Args:
        source: the handle of the file.
        size: its size in bytes.
        control: sends a control code to the file system.

    Raises:
        OSError: if the file system cannot clone blocks.
    """

    def __init__(self, source: int, size: int, control: Control) -> None:
        self._source = source
        self._size = size
        self._control = control
        # The settings are queried before any file is created, because a file system without integrity streams has no
        # block cloning either.
        self._integrity = _INTEGRITY.unpack(control(source, GET_INTEGRITY, b"", _INTEGRITY.size))

    def clone_to(self, target: int, grow: Callable[[], object]) -> None:
        """Make an empty file share the blocks of the source.

        ``grow`` sets the size of the empty file to that of the source.

        Raises:
            OSError: if the file system refuses an operation.
        """
        algorithm, _, flags, _, cluster = self._integrity
        existing = _INTEGRITY.unpack(self._control(target, GET_INTEGRITY, b"", _INTEGRITY.size))
        if existing[0] != algorithm:
            # Possible only while the file is empty: https://learn.microsoft.com/windows/win32/api/winioctl/ni-winioctl-fsctl_set_integrity_information
            self._control(target, SET_INTEGRITY, _NEW_INTEGRITY.pack(algorithm, 0, flags), 0)
        grow()
        for offset, length in regions(self._size, cluster):
            # DUPLICATE_EXTENTS_DATA: the source, its offset, the offset in the target, the length.
            extents = struct.pack("@Pqqq", self._source, offset, offset, length)
            self._control(target, DUPLICATE_EXTENTS, extents, 0)
