"""The file operations on POSIX systems, by path. :class:`.files.FileSystem` documents them.

:mod:`.confined.posix` adds the operations that follow no link in a cache folder.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from functools import cache, partial
from typing import TYPE_CHECKING, BinaryIO, Self

if sys.platform == "win32":  # pragma: no cover - mypy checks this module for Windows too
    raise ImportError("this module is for POSIX systems")

import fcntl

from .._imports import import_lock
from .confined.entries import FolderEntry, UnsafePathError
from .confined.small import not_regular, read_within

if TYPE_CHECKING:
    from collections.abc import Callable


# From <linux/fs.h>.
_FICLONE = 0x40049409
_RENAME_NOREPLACE = 1
# From <stdio.h> and <sys/clonefile.h> of macOS.
_RENAME_EXCL = 4
_CLONE_NOFOLLOW, _CLONE_NOOWNERCOPY = 1, 2
# From <fcntl.h>.
_AT_FDCWD = -2 if sys.platform == "darwin" else -100

# The cache contains no symbolic links. A link that another user planted must not redirect a write.
WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_CREAT | os.O_EXCL
# The flag O_NONBLOCK keeps the open call from waiting for the writer of a pipe. It has no effect on a regular file.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Opening a link fails with ELOOP, or with EMLINK on FreeBSD. Opening a socket or a device without a driver fails with
# the other codes: https://man7.org/linux/man-pages/man2/open.2.html
_NOT_REGULAR = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP}
# These handles only resolve names. O_PATH is cheaper, but exists only on Linux.
LOOKUP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC

_new_tuple = tuple.__new__


class PosixFolder:
    """An open folder, by its descriptor."""

    def __init__(self, path: str, handle: int) -> None:
        self._path = path
        self._handle = handle
        # A method would take longer, and a warm install calls this function for each file.
        self.stat: Callable[[str], os.stat_result] = partial(os.stat, dir_fd=handle, follow_symlinks=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def create(self, name: str, permissions: int) -> BinaryIO:
        return io.FileIO(os.open(name, WRITE | NEW, permissions, dir_fd=self._handle), "r+")

    def link(self, name: str, target: Self) -> None:
        os.link(name, name, src_dir_fd=self._handle, dst_dir_fd=target._handle, follow_symlinks=False)

    def clone(self, name: str, target: Self, new: str, permissions: int) -> None:
        source, created = os.path.join(self._path, name), os.path.join(target._path, new)
        try:
            if sys.platform != "linux":
                clone_file(self._handle, name, target._handle, new)
                _make_writable(target._handle, new)
                return
            reader = os.open(name, READ, dir_fd=self._handle)
            try:
                with target.create(new, permissions) as writer:
                    share_blocks(reader, writer.fileno(), lambda: os.unlink(new, dir_fd=target._handle))
            finally:
                os.close(reader)
        except OSError as error:
            name_paths(error, source, created)
            raise


class PosixFiles:
    """The operations on paths that are not confined."""

    has_permissions = True
    protects_loaded_images = False

    def create(self, path: str) -> BinaryIO:
        return io.FileIO(os.open(path, WRITE | NEW, 0o666), "r+")

    def open_read(self, path: str) -> BinaryIO:
        return io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "r")

    def open_write(self, path: str) -> BinaryIO:
        return io.FileIO(self._open_or_create(path, WRITE), "r+")

    def open_append(self, path: str) -> BinaryIO:
        return io.FileIO(self._open_or_create(path, _APPEND), "a")

    def _open_or_create(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CREAT, 0o666)

    def flush(self, path: str) -> None:
        with self.open_read(path) as file:
            if sys.platform == "darwin":
                # fsync does not empty the buffer of the drive:
                # https://developer.apple.com/library/archive/documentation/System/Conceptual/ManPages_iPhoneOS/man2/fsync.2.html
                try:
                    fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
                except OSError:
                    pass  # network drives do not support it
            os.fsync(file.fileno())

    def read_small(self, path: str, limit: int) -> bytes:
        return read_regular(path, limit)[0]

    def read_small_with_mtime(self, path: str, limit: int) -> tuple[bytes, float]:
        data, status = read_regular(path, limit)
        return data, status.st_mtime

    def touch(self, path: str, seconds: float) -> None:
        set_time(path, seconds)

    def stat(self, path: str) -> os.stat_result:
        return os.lstat(path)

    def change_time(self, path: str) -> int:
        return os.lstat(path).st_ctime_ns

    def volume_id(self, path: str) -> int | None:
        return os.stat(path).st_dev

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def scan(self, path: str) -> list[FolderEntry]:
        return scan_folder(path)

    def open_folder(self, path: str) -> PosixFolder:
        return PosixFolder(path, os.open(path, LOOKUP))

    def rename(self, source: str, target: str) -> None:
        rename_exclusively(None, source, None, target)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target, follow_symlinks=False)

    def clone(self, source: str, target: str) -> None:
        if sys.platform != "linux":
            clone_file(None, source, None, target)
            return
        try:
            with self.open_read(source) as reader, self.create(target) as writer:
                share_blocks(reader.fileno(), writer.fileno(), lambda: self.unlink(target))
        except OSError as error:
            name_paths(error, source, target)
            raise

    def copy(self, source: BinaryIO, target: BinaryIO, count: int) -> int:
        if sys.platform == "linux":
            try:
                return os.copy_file_range(source.fileno(), target.fileno(), count)
            except OSError as error:
                # Before Linux 5.19, copy_file_range fails between two file systems. Some file systems lack it:
                # https://man7.org/linux/man-pages/man2/copy_file_range.2.html
                if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:
                    raise
        data = memoryview(source.read(min(count, 1 << 20)))
        written = 0
        while written < len(data):
            written += target.write(data[written:])
        return written

    def copy_permissions(self, source: BinaryIO, target: BinaryIO) -> None:
        os.fchmod(target.fileno(), stat.S_IMODE(os.fstat(source.fileno()).st_mode))

    def make_read_only(self, path: str, *, executable: bool) -> None:
        protect_and_close(os.open(path, READ), executable=executable)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)


def set_time(path: str | int, seconds: float) -> None:
    """Set the time of modification of a file, given its path or its descriptor."""
    try:
        os.utime(path, (seconds, seconds))
    except PermissionError:
        # A user who may write to another user's file can only set its time to the present:
        # https://man7.org/linux/man-pages/man2/utimensat.2.html
        os.utime(path)


def protect_and_close(handle: int, *, executable: bool) -> None:
    """Remove all write permissions of an open file, set or clear execution, and close the file."""
    try:
        readable = os.fstat(handle).st_mode & 0o444
        os.fchmod(handle, readable | readable >> 2 if executable else readable)
    finally:
        os.close(handle)


def name_paths(error: OSError, path: str, target: str | None = None) -> None:
    """Set the absolute paths of an error whose operation received names in open folders."""
    if not isinstance(error, UnsafePathError):  # that error has the path of the link
        error.filename = path
        if target is not None:
            error.filename2 = target


def scan_folder(folder: str | int) -> list[FolderEntry]:
    """Return the entries of a folder, given its path or its descriptor."""
    with os.scandir(folder) as entries:
        return [
            # The class itself takes twice the time, because its own __new__ is a Python function.
            _new_tuple(
                FolderEntry, (entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
            )
            for entry in entries
        ]


def read_regular(path: str, limit: int, folder: int | None = None) -> tuple[bytes, os.stat_result]:
    """Return the content and the status of a regular file of at most ``limit`` bytes.

    With ``folder``, the last name of the path is opened in that open folder.
    """
    try:
        handle = os.open(path if folder is None else os.path.basename(path), READ, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_REGULAR:
            raise not_regular(path) from error
        raise
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise not_regular(path)
        return read_within(lambda size: os.read(handle, size), status.st_size, limit, path), status
    finally:
        os.close(handle)


def share_blocks(reader: int, writer: int, delete: Callable[[], None]) -> None:
    """Make an empty new file share the blocks of another file. Delete the new file if that fails."""
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        delete()
        # If the file system cannot clone, the code is EINVAL, ENOTTY or EOPNOTSUPP:
        # https://man7.org/linux/man-pages/man2/ioctl_ficlone.2.html
        code = errno.ENOTSUP if error.errno in {errno.EINVAL, errno.ENOTTY} else error.errno
        raise OSError(code, os.strerror(code or 0)) from None


def _make_writable(folder: int, name: str) -> None:
    """Make a clone writable for its owner. Its permissions are those of the cached file, which is read-only."""
    handle = os.open(name, READ, dir_fd=folder)
    try:
        os.fchmod(handle, os.fstat(handle).st_mode & 0o777 | 0o200)
    finally:
        os.close(handle)


def rename_exclusively(source_folder: int | None, source: str, target_folder: int | None, target: str) -> None:
    """Rename a file without replacing another one. Each path may be a name in an open folder."""
    name = "renameatx_np" if sys.platform == "darwin" else "renameat2"
    flags = _RENAME_EXCL if sys.platform == "darwin" else _RENAME_NOREPLACE
    code = _call(name, (source_folder, source), (target_folder, target), flags)
    if code:
        # EINVAL means that the file system does not support the flag: https://man7.org/linux/man-pages/man2/rename.2.html
        code = errno.ENOTSUP if code == errno.EINVAL else code
        raise OSError(code, os.strerror(code), source, None, target)


def clone_file(source_folder: int | None, source: str, target_folder: int | None, target: str) -> None:
    """Clone a file on macOS, without replacing another one. Each path may be a name in an open folder."""
    # Without the second flag, a clone that root makes has the owner of its source, who could change it later.
    flags = _CLONE_NOFOLLOW | _CLONE_NOOWNERCOPY
    code = _call("clonefileat", (source_folder, source), (target_folder, target), flags)
    if code:
        code = errno.ENOTSUP if code == errno.ENOSYS else code
        raise OSError(code, os.strerror(code), source, None, target)


def _call(name: str, source: tuple[int | None, str], target: tuple[int | None, str], flags: int) -> int:
    """Call a function of the C library with two names in folders, and return 0 or the error code.

    Python has no such functions.
    """
    function, last_error = _function(name)
    if function is None:
        return errno.ENOSYS
    arguments: list[int | bytes] = []
    for folder, path in (source, target):
        arguments += [_AT_FDCWD if folder is None else folder, os.fsencode(path)]
    return last_error() if function(*arguments, flags) else 0


@cache
def _function(name: str) -> tuple[Callable[..., int] | None, Callable[[], int]]:
    """Return a function of the C library of Linux or macOS, or ``None``, and the function for its error code."""
    with import_lock:  # not needed for a hit
        import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function, ctypes.get_errno
