"""The file layer: the file operations that the library needs (:class:`FileSystem`).

:mod:`.confined.posix` and :mod:`.windows` implement the same operations. An implementation makes one attempt, without
waiting, and raises the system's own :class:`OSError` if it fails. :mod:`wheelcache._fs` retries operations and
interprets errors. Tests replace the file layer by one that fails, or kills its process, at the Nth call.

Every implementation follows these rules:

- Paths are absolute ``str``. If the system limits their length, the implementation works around the limit.
- Files are unbuffered. An open file never blocks another process. On Windows, it shares reading, writing and deleting.
- ``rename``, ``link`` and ``clone`` never replace a file. They raise :class:`FileExistsError` if the target exists.
- On POSIX systems, opening a file for writing does not follow symbolic links. Otherwise a user who can create a link in
  a shared folder could redirect the write.
- A file layer that :meth:`FileSystem.confined_to` returned does not follow a link below the folder of a cache. An
  operation that would need that raises :class:`.UnsafePathError`.
- An operation that the system or the volume lacks raises an :class:`OSError` that
  :func:`wheelcache._fs.errors.classify` recognises as unsupported.

Every operation can raise :class:`OSError`. The docstrings name only the subclasses that callers rely on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import BinaryIO, Protocol, Self

from .._imports import import_lock
from .confined.entries import FolderEntry


class OpenFolder(Protocol):
    """An open folder, for many operations on its files by name. The end of its ``with`` block closes it.

    On POSIX systems, names are looked up from a descriptor, so the path is not resolved again for each file.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None:
        """Close the folder."""
        ...

    def create(self, name: str, permissions: int) -> BinaryIO:
        """Create a file and open it for writing, even if ``permissions`` forbid writing.

        The umask is subtracted from ``permissions``. Windows ignores them.

        Raises:
            FileExistsError: if the file exists.
        """
        ...

    def stat(self, name: str) -> os.stat_result:
        """Return the status of a file, or of a link itself.

        Raises:
            FileNotFoundError: if the file does not exist.
        """
        ...

    def link(self, name: str, target: Self) -> None:
        """Create a hard link of the same name in another open folder.

        Raises:
            FileExistsError: if ``target`` already has such a name.
        """
        ...

    def clone(self, name: str, target: Self, new: str, permissions: int) -> None:
        """Clone ``name`` to a file ``new`` in another open folder. Both share their blocks until either is written to.

        Raises:
            FileExistsError: if ``target`` already has such a name.
        """
        ...


class FileSystem(Protocol):
    """The files of one machine."""

    @property
    def has_permissions(self) -> bool:
        """Whether files have POSIX permissions."""
        ...

    @property
    def protects_loaded_images(self) -> bool:
        """Whether a loaded program or library cannot be deleted, under any of its hard links."""
        ...

    def confined_to(self, folder: str, layers: Sequence[str] = ()) -> FileSystem:
        """Return a file layer for one cache. The layer does not follow links in the cache or in its layers.

        Links in the path of a cache folder, and the cache folder itself, are followed. Below it, an operation on a path
        with a link in place of a folder raises :class:`.UnsafePathError`. New files get the owner and the sharing
        permissions of the cache folder. Paths outside are unaffected.

        The layer keeps folders open between operations, separately for each thread: see :meth:`close_folders`.

        Args:
            folder: the only folder in the cache folder that is confined. Its parent is the cache folder.
            layers: the same folder of each layer.

        Raises:
            FileNotFoundError: if the cache folder does not exist.
        """
        ...

    def close_folders(self) -> None:
        """Close the folders that operations of this thread have kept open. Never fails.

        Each thread calls this method at the end of its work.
        """
        ...

    def create(self, path: str) -> BinaryIO:
        """Create a file, and open it for writing and reading.

        Raises:
            FileExistsError: if the file exists.
        """
        ...

    def open_read(self, path: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            FileNotFoundError: if the file does not exist.
        """
        ...

    def open_write(self, path: str) -> BinaryIO:
        """Open a file for writing and reading, at its start and without truncating it. Create it if it is missing."""
        ...

    def open_append(self, path: str) -> BinaryIO:
        """Open a file so that every write is appended, even beside other writers. Create it if it is missing."""
        ...

    def flush(self, path: str) -> None:
        """Write the content of a file from the memory of the system to its volume.

        Raises:
            FileNotFoundError: if the file does not exist.
        """
        ...

    def read_small(self, path: str, limit: int) -> bytes:
        """Return the content of a regular file of at most ``limit`` bytes. Never waits for a writer of a pipe.

        Raises:
            FileNotFoundError: if the file does not exist.
            UnsafePathError: if the file is a link, a folder, a pipe or a device, or is larger than ``limit``.
        """
        ...

    def read_small_with_mtime(self, path: str, limit: int) -> tuple[bytes, float]:
        """Read a file like :meth:`read_small`, and return its time of modification too, in seconds since the epoch.

        Both are read from the same open file, so that a concurrent replacement does not mix two files.

        Raises:
            FileNotFoundError, UnsafePathError: as for :meth:`read_small`.
        """
        ...

    def touch(self, path: str, seconds: float) -> None:
        """Set the time of modification, in seconds since the epoch.

        A user who may write to a file but does not own it can only set the present time. This method then sets that
        time.
        """
        ...

    def stat(self, path: str) -> os.stat_result:
        """Return the status of a file or folder, or of a link itself.

        Raises:
            FileNotFoundError: if the path does not exist.
        """
        ...

    def change_time(self, path: str) -> int:
        """Return the time of the last change of a file or folder, in nanoseconds since the Unix epoch.

        Links are not followed. The system sets this time when an entry of a folder is created or deleted, and when the
        owner, the permissions or the time stamps of a file or folder are set. Tools that restore archives restore the
        time stamps, but not this time.

        Raises:
            FileNotFoundError: if the path does not exist.
        """
        ...

    def volume_id(self, path: str) -> int | None:
        """Return the number of the volume of a folder, following links, or ``None`` if the volume has no number.

        Raises:
            FileNotFoundError: if the folder does not exist.
        """
        ...

    def is_dir(self, path: str) -> bool:
        """Return whether the path is a folder, or a link to one. Never fails."""
        ...

    def scan(self, path: str) -> list[FolderEntry]:
        """Return the entries of a folder, in no particular order.

        Raises:
            FileNotFoundError: if the folder does not exist.
        """
        ...

    def open_folder(self, path: str) -> OpenFolder:
        """Open a folder, for many operations on its files."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename a file within its volume, without replacing a file.

        Raises:
            FileExistsError: if ``target`` exists.
        """
        ...

    def replace(self, source: str, target: str) -> None:
        """Rename a file within its volume, replacing ``target`` if that is a file."""
        ...

    def link(self, source: str, target: str) -> None:
        """Create a hard link ``target`` to the file ``source``, on the same volume.

        Raises:
            FileExistsError: if ``target`` exists.
        """
        ...

    def clone(self, source: str, target: str) -> None:
        """Create a file ``target`` that shares its blocks with ``source`` until either is written to.

        Raises:
            FileExistsError: if ``target`` exists.
        """
        ...

    def copy(self, source: BinaryIO, target: BinaryIO, count: int) -> int:
        """Copy up to ``count`` bytes between two open files, from their positions, by the fastest available method.

        Returns the number of bytes copied. This number is 0 only at the end of ``source``.
        """
        ...

    def copy_permissions(self, source: BinaryIO, target: BinaryIO) -> None:
        """Copy the permissions of one open file to another. Does nothing on Windows."""
        ...

    def make_read_only(self, path: str, *, executable: bool) -> None:
        """Remove all write permissions of a file, and set or clear execution for every user who can read it.

        Does nothing on Windows.
        """
        ...

    def unlink(self, path: str) -> None:
        """Delete a file or link, even a read-only one.

        Raises:
            FileNotFoundError: if the file does not exist.
        """
        ...

    def mkdir(self, path: str) -> None:
        """Create a folder. The folder above it must exist.

        Raises:
            FileExistsError: if the path exists.
        """
        ...

    def rmdir(self, path: str) -> None:
        """Delete an empty folder.

        Raises:
            FileNotFoundError: if the folder does not exist.
        """
        ...


def native() -> FileSystem:
    """Return the file layer of this machine."""
    with import_lock:  # each module can only be imported on its own system
        if sys.platform == "win32":
            from .confined.windows import NativeFiles

            return NativeFiles()
        from .confined.posix import NativeFiles

        return NativeFiles()
