"""The file layer: the contract, and the choice of the system behind it.

Stations reach the disk through a :class:`FileSystem` and through nothing else. Windows and POSIX implement the same
names; neither loops, waits nor decides. They do one thing once and raise what the system said, as :class:`OSError`.
:mod:`._refusal` says what a refusal means, :mod:`._patience` waits, :mod:`._ladder` goes another way. Tests put a
file system that fails, or kills its process, at the Nth call in this place.

What the contract asks of an implementation:

- Paths are absolute ``str``. Where a system limits their length, the implementation goes past it.
- A handle that is open on a cache file never stands in the way of another process: on Windows it shares reading,
  writing and deleting.
- ``rename`` and ``link`` never replace: an existing target is :class:`FileExistsError`.
- Where everybody may make links, as on POSIX systems, opening a file to write does not follow one: who plants it in a
  folder that others write to chooses where it leads.
- A way that this system or volume does not have is an :class:`OSError` that :mod:`._refusal` calls unsupported.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO, Protocol, Self


class OpenFolder(Protocol):
    """A folder that is worked in for a while: its files by name, so that a system need not walk the path for each."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None:
        """Be done with it."""
        ...

    def create(self, name: str, permissions: int) -> BinaryIO:
        """Create a file that is not there yet, to write through this handle even where its permissions forbid it.

        The process's umask is taken off the permissions; Windows has none of them. Unbuffered.
        """
        ...

    def stat(self, name: str) -> os.stat_result:
        """Return what the system knows of a file, without following a link."""
        ...

    def link(self, name: str, target: Self) -> None:
        """Give a file a second name, the same one, in another open folder; never replaces."""
        ...

    def clone(self, name: str, target: Self, new: str, permissions: int) -> None:
        """Create a file in another open folder that shares its blocks with one of this; never replaces."""
        ...


class FileSystem(Protocol):
    """What the stations need of a file system."""

    @property
    def has_permissions(self) -> bool:
        """Whether files have the permissions of POSIX."""
        ...

    @property
    def protects_loaded_images(self) -> bool:
        """Whether a program or library that is loaded cannot be deleted under any of its names."""
        ...

    def with_modes_of(self, root: str) -> FileSystem | None:
        """Return the same file system for a cache in this folder, which exists.

        What that makes there is as open or as private as the folder is. ``None`` where there is nothing to follow.
        """
        ...

    def create(self, path: str) -> BinaryIO:
        """Create a file that is not there yet, to write and read back through the same handle. Unbuffered."""
        ...

    def open_read(self, path: str) -> BinaryIO:
        """Open a file for reading. Unbuffered."""
        ...

    def open_write(self, path: str) -> BinaryIO:
        """Open a file for writing and reading as it is, making it where it is not there. Unbuffered."""
        ...

    def open_append(self, path: str) -> BinaryIO:
        """Open a file so that every write goes to its end, making it where it is not there. Unbuffered."""
        ...

    def read(self, path: str) -> bytes:
        """Return the bytes of a small file."""
        ...

    def read_with_mtime(self, path: str) -> tuple[bytes, float]:
        """Return the bytes of a small file and its time stamp in seconds since the epoch, by one opening."""
        ...

    def touch(self, path: str, seconds: float) -> None:
        """Set the time stamp of a file, to the present where only its owner may choose."""
        ...

    def stat(self, path: str) -> os.stat_result:
        """Return what the system knows of a file or folder, without following a link."""
        ...

    def volume_id(self, path: str) -> int | None:
        """Return a number that all folders of one volume share, following links.

        ``None`` if the system has no such number for this volume.
        """
        ...

    def is_dir(self, path: str) -> bool:
        """Return whether there is a folder, or a link that leads to one."""
        ...

    def scan(self, path: str) -> list[os.DirEntry[str]]:
        """Return what is in a folder, in no order."""
        ...

    def open_folder(self, path: str) -> OpenFolder:
        """Open a folder to work in."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Give a file another name on the same volume; never replaces."""
        ...

    def replace(self, source: str, target: str) -> None:
        """Give a file another name on the same volume, in the place of the file that has it."""
        ...

    def link(self, source: str, target: str) -> None:
        """Give a file a second name on the same volume; never replaces."""
        ...

    def clone(self, source: str, target: str) -> None:
        """Create a file that shares its blocks with another until either is written to; never replaces."""
        ...

    def copy(self, source: BinaryIO, target: BinaryIO, count: int) -> int:
        """Copy up to ``count`` bytes from where one open file stands to where the other does; 0 at the end.

        It takes the quickest way that the system has for bytes which nobody needs to look at.
        """
        ...

    def copy_permissions(self, source: BinaryIO, target: BinaryIO) -> None:
        """Give an open file the permissions of another one."""
        ...

    def make_read_only(self, path: str, *, executable: bool) -> None:
        """Take the right to write to a file from everybody, and let who may read it execute it, or not."""
        ...

    def unlink(self, path: str) -> None:
        """Delete a file, a read-only one too."""
        ...

    def mkdir(self, path: str) -> None:
        """Make a folder; it must not be there yet."""
        ...

    def rmdir(self, path: str) -> None:
        """Delete an empty folder."""
        ...


def native() -> FileSystem:
    """Return the file system of this machine."""
    if sys.platform == "win32":
        from .windows import WindowsFiles

        return WindowsFiles()
    from .posix import PosixFiles

    return PosixFiles()
