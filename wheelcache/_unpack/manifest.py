"""The files of an unpacked wheel, in columns, with the fingerprints by which they are trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .._filenames import is_dist_info

DIGEST_DIGITS = 64

# The kinds of files, with one letter each, since a string is the most compact column.
PLAIN = "-"
EXECUTABLE = "x"
IMAGE = "m"
"""A Windows program or library. While it is loaded, it cannot be deleted under any of its names."""
EXECUTABLE_IMAGE = "b"
KINDS = frozenset({PLAIN, EXECUTABLE, IMAGE, EXECUTABLE_IMAGE})


class ManifestDir(NamedTuple):
    """The files of one folder of a tree, in columns.

    Attributes:
        path: the path relative to the tree, with slashes. Empty for the tree itself.
        names: the names of the files.
        sizes: the sizes of the files in bytes.
        stamps: the time stamps that the files had when they were last written or hashed, in nanoseconds.
        inodes: the numbers that the files had on their volume at that time.
        kinds: the kinds of the files: :data:`PLAIN`, :data:`EXECUTABLE`, :data:`IMAGE` or :data:`EXECUTABLE_IMAGE`.
        digests: the sha256 of the files, in hex, concatenated.
    """

    path: str
    names: list[str]
    sizes: list[int]
    stamps: list[int]
    inodes: list[int]
    kinds: str
    digests: str

    def digest(self, number: int) -> str:
        """Return the sha256 of a file, in hex."""
        return self.digests[number * DIGEST_DIGITS : (number + 1) * DIGEST_DIGITS]

    def only(self, number: int) -> ManifestDir:
        """Return the folder with only one of its files."""
        one = slice(number, number + 1)
        return ManifestDir(
            self.path,
            self.names[one],
            self.sizes[one],
            self.stamps[one],
            self.inodes[one],
            self.kinds[one],
            self.digest(number),
        )

    def relative(self, name: str) -> str:
        """Return the path of a file relative to the tree, with slashes."""
        return f"{self.path}/{name}" if self.path else name


class Manifest(NamedTuple):
    """The files of a tree.

    Attributes:
        sha256: the sha256 of the wheel, in hex.
        boot: the boot in which the fingerprints were read, or ``None`` if the system does not identify its boots.
        created: the creation time of the tree, in seconds since the epoch.
        changed: the change time of the tree's top folder after its last entry was created, in nanoseconds. ``None`` in
            the marker of an earlier version. That marker has no inodes either.
        folders: every folder that is not empty, each after its parent.
    """

    sha256: str
    boot: str | None
    created: int
    changed: int | None
    folders: list[ManifestDir]

    def files(self) -> Iterator[str]:
        """Yield the paths of all files relative to the tree, with slashes."""
        for folder in self.folders:
            prefix = folder.path + "/" if folder.path else ""
            for name in folder.names:
                yield prefix + name

    def dist_info(self) -> str:
        """Return the name of the ``.dist-info`` folder. Every wheel has exactly one."""
        return next(folder.path for folder in self.folders if is_dist_info(folder.path))

    def size(self) -> int:
        """Return the total size of all files in bytes."""
        return sum(sum(folder.sizes) for folder in self.folders)


def folders_of(files: Iterable[str]) -> set[str]:
    """Return the folders that contain these files, including ``""``, the top of the wheel."""
    folders = {""}
    for name in files:
        parent = name.rpartition("/")[0]
        while parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    return folders


def is_executable(kind: str) -> bool:
    """Return whether a file of this kind is executable."""
    return kind in (EXECUTABLE, EXECUTABLE_IMAGE)


def is_image(kind: str) -> bool:
    """Return whether a file of this kind is a Windows program or library."""
    return kind in (IMAGE, EXECUTABLE_IMAGE)


def kind_of(first_bytes: bytes, *, executable: bool) -> str:
    """Return the kind of a file with these first two bytes."""
    # Programs and libraries of Windows begin with these bytes, regardless of their names:
    # https://learn.microsoft.com/windows/win32/debug/pe-format
    if first_bytes == b"MZ":
        return EXECUTABLE_IMAGE if executable else IMAGE
    return EXECUTABLE if executable else PLAIN
