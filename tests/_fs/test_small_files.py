"""Small files are read without following links, without waiting, and only up to a limit."""

from __future__ import annotations

import os
import socket
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from wheelcache._os.confined.entries import UnsafePathError
from wheelcache._os.confined.small import read_within
from wheelcache._os.files import native

LIMIT = 1 << 20


def make_link(path: Path) -> None:
    path.with_name("target").write_bytes(b"secret")
    path.symlink_to(path.with_name("target"))


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("missing"))


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


def make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root can create devices")


def make_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LIMIT + 1)


OBJECTS: dict[str, Callable[[Path], object]] = {"folder": Path.mkdir, "large file": make_large}
if sys.platform != "win32":
    OBJECTS |= {
        "link": make_link,
        "link to a device": make_link_to_device,
        "dangling link": make_dangling_link,
        "pipe": make_pipe,
        "socket": make_socket,
        "device": make_device,
    }


@pytest.mark.parametrize("operation", ["read_small", "read_small_with_mtime"])
@pytest.mark.parametrize("kind", OBJECTS)
def test_anything_but_a_regular_file_of_bounded_size_is_unsafe(
    kind: str, operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading such an object raises an error at once, with its path."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small"
    OBJECTS[kind](path)
    with pytest.raises(UnsafePathError) as caught:
        getattr(native(), operation)(str(path), LIMIT)
    assert caught.value.filename == str(path)


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_a_file_of_the_largest_size_is_read(size: int, tmp_path: Path) -> None:
    """The limit itself is allowed."""
    path = tmp_path / "small"
    path.write_bytes(bytes(size))
    assert len(native().read_small(str(path), LIMIT)) == size


def test_a_large_file_takes_no_memory(tmp_path: Path) -> None:
    """The size in the status is compared before anything is read."""
    path = tmp_path / "small"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(UnsafePathError, match="larger than"):
            native().read_small(str(path), LIMIT)
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()


class Growing:
    """A file that has more bytes than its status says, and returns a part of them at a time."""

    def __init__(self, size: int, part: int) -> None:
        self.remaining = size
        self.part = part
        self.given = 0

    def read(self, size: int) -> bytes:
        count = min(size, self.part, self.remaining)
        self.remaining -= count
        self.given += count
        return b"x" * count


def test_a_file_that_grows_without_end_is_read_up_to_the_limit() -> None:
    """At most one byte more than the limit is read, although the status has a smaller size."""
    file = Growing(1 << 40, 1 << 30)
    with pytest.raises(UnsafePathError):
        read_within(file.read, 100, LIMIT, "path")
    assert file.given == LIMIT + 1


@pytest.mark.parametrize(("actual", "stated"), [(1000, 10), (10, 1000), (0, 5), (5, 0), (LIMIT, 0), (LIMIT, LIMIT)])
def test_a_file_whose_size_changes_is_read_whole(actual: int, stated: int) -> None:
    """The content up to the end is returned if it is within the limit, whatever the status says."""
    file = Growing(actual, 1000)
    assert read_within(file.read, stated, LIMIT, "path") == b"x" * actual
