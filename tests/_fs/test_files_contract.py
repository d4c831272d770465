"""The contract of the file layer on this machine, as far as no other test checks it."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from wheelcache._os.files import native


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 1 << 18])
def test_a_file_is_read_whole(tmp_path: Path, size: int) -> None:
    """All bytes are returned for sizes below, at and above the limit of a single read."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert native().read_small(str(path), size) == path.read_bytes()
    assert native().read_small_with_mtime(str(path), size) == (path.read_bytes(), path.stat().st_mtime)


def test_a_large_file_is_read_in_one_piece(tmp_path: Path) -> None:
    """Reading a file that grew large takes the memory of its bytes once, without repeated copying."""
    path, size = tmp_path / "file", 8 << 20
    path.write_bytes(bytes(size))
    tracemalloc.start()
    try:
        assert len(native().read_small(str(path), size)) == size
        assert tracemalloc.get_traced_memory()[1] < size * 3 // 2
    finally:
        tracemalloc.stop()
