"""The file layer of this machine, where no station shows what it does: the same on every system."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from wheelcache._os.files import native


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 1 << 18])
def test_a_file_is_read_whole(tmp_path: Path, size: int) -> None:
    """Below, at and above the size up to which one reading is enough, the bytes are the file's."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert native().read(str(path)) == path.read_bytes()
    assert native().read_with_mtime(str(path)) == (path.read_bytes(), path.stat().st_mtime)


def test_a_large_file_is_read_in_one_piece(tmp_path: Path) -> None:
    """A file that grew large is not copied again and again while it is read: it takes the memory of its bytes, once."""
    path, size = tmp_path / "file", 8 << 20
    path.write_bytes(bytes(size))
    tracemalloc.start()
    try:
        assert len(native().read(str(path))) == size
        assert tracemalloc.get_traced_memory()[1] < size * 3 // 2
    finally:
        tracemalloc.stop()
