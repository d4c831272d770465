"""The file layer on POSIX systems. :class:`.files.FileSystem` documents the operations."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self, TypeVar

if sys.platform == "win32":  # pragma: no cover - mypy checks this module for Windows too
    raise ImportError("this module is for POSIX systems")

import fcntl

from .._imports import import_lock
from .confined.entries import FolderEntry
from .confined.small import not_regular, read_within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_T = TypeVar("_T")

# From <linux/fs.h> and <linux/stat.h>.
_FICLONE = 0x40049409
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# From <stdio.h> of macOS.
_RENAME_EXCL = 4

# The cache contains no symbolic links. A link that another user planted must not redirect a write.
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_CREAT | os.O_EXCL
# These handles only resolve names. O_PATH is cheaper, but exists only on Linux.
_LOOKUP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
# The flag O_NONBLOCK keeps the open call from waiting for the writer of a pipe. It has no effect on a regular file.
_READ_SMALL = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Opening a link fails with ELOOP, or with EMLINK on FreeBSD. Opening a socket or a device without a driver fails with
# the other codes: https://man7.org/linux/man-pages/man2/open.2.html
_NOT_REGULAR = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP}


class PosixFolder:
    """An open folder, by its descriptor."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle = os.open(path, _LOOKUP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def create(self, name: str, permissions: int) -> BinaryIO:
        return io.FileIO(os.open(name, _WRITE | _NEW, permissions, dir_fd=self._handle), "r+")

    def stat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._handle, follow_symlinks=False)

    def link(self, name: str, target: Self) -> None:
        os.link(name, name, src_dir_fd=self._handle, dst_dir_fd=target._handle, follow_symlinks=False)

    def clone(self, name: str, target: Self, new: str, permissions: int) -> None:
        source, created = os.path.join(self._path, name), os.path.join(target._path, new)
        if sys.platform != "linux":
            _clonefile()(source, created)
            # clonefile copies the permissions of the cached file. That file is read-only.
            os.chmod(created, os.stat(source).st_mode & 0o777 | 0o200)
            return
        with target.create(new, permissions) as writer:
            _share_blocks(source, writer, created)


class PosixFiles:
    """The file layer of this machine."""

    has_permissions = True
    protects_loaded_images = False

    def confined_to(self, folder: str, layers: Sequence[str] = ()) -> PosixFiles:  # noqa: ARG002 - links are followed
        root = os.path.dirname(folder)
        modes = Modes.for_root(os.stat(root))
        return self if modes is None else _FilesWithModes(root, modes)

    def close_folders(self) -> None:
        pass  # no folder is kept open

    def create(self, path: str) -> BinaryIO:
        return io.FileIO(os.open(path, _WRITE | _NEW, 0o666), "r+")

    def open_read(self, path: str) -> BinaryIO:
        return io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "r")

    def open_write(self, path: str) -> BinaryIO:
        return io.FileIO(self._open_or_create(path, _WRITE), "r+")

    def open_append(self, path: str) -> BinaryIO:
        return io.FileIO(self._open_or_create(path, _APPEND), "a")

    def _open_or_create(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CREAT, 0o666)

    def read_small(self, path: str, limit: int) -> bytes:
        return _read_small(path, limit)[0]

    def read_small_with_mtime(self, path: str, limit: int) -> tuple[bytes, float]:
        data, status = _read_small(path, limit)
        return data, status.st_mtime

    def touch(self, path: str, seconds: float) -> None:
        try:
            os.utime(path, (seconds, seconds))
        except PermissionError:
            # A user who may write to another user's file can only set its time to the present:
            # https://man7.org/linux/man-pages/man2/utimensat.2.html
            os.utime(path)

    def stat(self, path: str) -> os.stat_result:
        return os.lstat(path)

    def change_time(self, path: str) -> int:
        return os.lstat(path).st_ctime_ns

    def volume_id(self, path: str) -> int | None:
        return os.stat(path).st_dev

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def scan(self, path: str) -> list[FolderEntry]:
        with os.scandir(path) as entries:
            return [
                FolderEntry(entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
                for entry in entries
            ]

    def open_folder(self, path: str) -> PosixFolder:
        return PosixFolder(path)

    def rename(self, source: str, target: str) -> None:
        _exclusive_rename()(source, target)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target, follow_symlinks=False)

    def clone(self, source: str, target: str) -> None:
        if sys.platform != "linux":
            _clonefile()(source, target)
            return
        with self.create(target) as writer:
            _share_blocks(source, writer, target)

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
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            readable = os.fstat(handle).st_mode & 0o444
            os.fchmod(handle, readable | readable >> 2 if executable else readable)
        finally:
            os.close(handle)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)


class Modes(NamedTuple):
    """The permissions and the owner of new files in a cache, where the defaults of the umask would be wrong.

    Attributes:
        file: permissions of files.
        folder: permissions of folders.
        owner: the user and group that own them, or ``None`` for the user of this process.
    """

    file: int
    folder: int
    owner: tuple[int, int] | None

    @classmethod
    def for_root(cls, root: os.stat_result) -> Modes | None:
        """Return the modes for a cache folder that is shared, private or owned by another user, else ``None``."""
        mode = root.st_mode
        shared = bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)
        private = not mode & (stat.S_IRWXG | stat.S_IRWXO)
        # Files that root, usually through sudo, writes into a user's cache would lock that user out.
        owner = (root.st_uid, root.st_gid) if os.geteuid() == 0 and root.st_uid != 0 else None
        if not (shared or private or owner):
            return None
        # New files are never writable by everybody, even if the folder is, because a user who can write to them
        # controls the packages that others install. They are always writable by the owner, because they must not remain
        # read-only if the folder is read-only for a while.
        return cls(mode & 0o664 | 0o600, mode & 0o2775 | 0o700, owner)

    def apply(self, handle: int, mode: int, folder: int) -> None:
        """Set the mode and the owner of a new file or folder, given the descriptor of its parent folder.

        Errors are ignored, because the file works for the user who created it even without the mode.
        """
        try:
            # The owner of the cache may have put a link into the path. So the owner is only set in folders that the
            # owner has.
            if self.owner is not None and os.fstat(folder).st_uid == self.owner[0]:
                os.fchown(handle, *self.owner)
            # The mode is set last, because a change of the owner clears the setgid bit.
            os.fchmod(handle, mode)
        except OSError:
            pass


class _FilesWithModes(PosixFiles):
    """A file layer that gives new files below a cache folder the modes of that folder.

    The modes are set after the creation, since the umask clears bits of the modes that ``open`` and ``mkdir`` receive.
    Existing files remain unchanged. Another user may have created them. Root must not make the owner of the cache the
    owner of such a file.
    """

    def __init__(self, root: str, modes: Modes) -> None:
        self._prefix = os.path.join(root, "")
        self._modes = modes

    def create(self, path: str) -> BinaryIO:
        if not path.startswith(self._prefix):
            return super().create(path)
        return self._in_folder(path, lambda folder, name: folder.create(name, 0o666))

    def _open_or_create(self, path: str, flags: int) -> int:
        if not path.startswith(self._prefix):
            return super()._open_or_create(path, flags)
        return self._in_folder(path, lambda folder, name: folder.open_or_create(name, flags))

    def mkdir(self, path: str) -> None:
        if not path.startswith(self._prefix):
            super().mkdir(path)
            return
        self._in_folder(path, lambda folder, name: folder.mkdir(name))

    def open_folder(self, path: str) -> PosixFolder:
        return _FolderWithModes(path, self._modes) if path.startswith(self._prefix) else super().open_folder(path)

    def _in_folder(self, path: str, action: Callable[[_FolderWithModes, str], _T]) -> _T:
        """Call ``action`` with the open parent folder of a path, since another user may redirect the path meanwhile."""
        parent, name = os.path.split(path)
        try:
            with _FolderWithModes(parent, self._modes) as folder:
                return action(folder, name)
        except OSError as error:
            error.filename = path
            raise


class _FolderWithModes(PosixFolder):
    """An open folder of a cache. Its new files get the modes of that cache."""

    def __init__(self, path: str, modes: Modes) -> None:
        super().__init__(path)
        self._modes = modes

    def create(self, name: str, permissions: int) -> BinaryIO:
        file = super().create(name, permissions)
        self._apply_modes(file.fileno(), permissions & (self._modes.file | self._modes.folder & 0o111))
        return file

    def open_or_create(self, name: str, flags: int) -> int:
        """Open a file, creating it if it is missing, and return its descriptor."""
        try:
            return os.open(name, flags, dir_fd=self._handle)
        except FileNotFoundError:
            pass
        try:
            handle = os.open(name, flags | _NEW, 0o666, dir_fd=self._handle)
        except FileExistsError:
            # Another process has created the file and sets its mode. A lock file may be deleted before we open it.
            return os.open(name, flags | os.O_CREAT, 0o666, dir_fd=self._handle)
        self._apply_modes(handle, self._modes.file)
        return handle

    def mkdir(self, name: str) -> None:
        """Create a folder."""
        os.mkdir(name, dir_fd=self._handle)
        try:
            handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._handle)
        except OSError:
            return  # another process pruned the folder, or the folder keeps the modes of the umask
        try:
            self._apply_modes(handle, self._modes.folder)
        finally:
            os.close(handle)

    def _apply_modes(self, handle: int, mode: int) -> None:
        self._modes.apply(handle, mode, self._handle)


def _read_small(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Return the content and the status of a regular file of at most ``limit`` bytes."""
    try:
        handle = os.open(path, _READ_SMALL)
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


def _share_blocks(source: str, writer: BinaryIO, target: str) -> None:
    """Make an empty new file share the blocks of another file. Delete the new file if that fails."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader)
    except OSError as error:
        os.unlink(target)
        # The error has no path. If the file system cannot clone, the code is EINVAL, ENOTTY or EOPNOTSUPP:
        # https://man7.org/linux/man-pages/man2/ioctl_ficlone.2.html
        code = errno.ENOTSUP if error.errno in {errno.EINVAL, errno.ENOTTY} else error.errno
        raise OSError(code, os.strerror(code or 0), source, None, target) from None
    finally:
        os.close(reader)


@cache
def _exclusive_rename() -> Callable[[str, str], None]:
    """Return the rename of the C library of Linux or macOS that never replaces a file. Python has no such function."""
    with import_lock:  # not needed for a hit
        import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_uint(_RENAME_EXCL if sys.platform == "darwin" else _RENAME_NOREPLACE)
    function = getattr(library, "renamex_np" if sys.platform == "darwin" else "renameat2", None)

    def rename(source: str, target: str) -> None:
        if function is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), source, None, target)
        first, second = os.fsencode(source), os.fsencode(target)
        if sys.platform == "darwin":
            failed = function(first, second, flags)
        else:
            failed = function(_AT_FDCWD, first, _AT_FDCWD, second, flags)
        if failed:
            code = ctypes.get_errno()
            # EINVAL means that the file system does not support the flag:
            # https://man7.org/linux/man-pages/man2/rename.2.html
            code = errno.ENOTSUP if code == errno.EINVAL else code
            raise OSError(code, os.strerror(code), source, None, target)

    return rename


@cache
def _clonefile() -> Callable[[str, str], None]:
    """Return macOS's clonefile(2). It creates the target, and never replaces a file."""
    with import_lock:  # not needed for a hit
        import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "clonefile", None)

    def clone(source: str, target: str) -> None:
        if function is None:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), source, None, target)
        if function(os.fsencode(source), os.fsencode(target), ctypes.c_int(0)):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), source, None, target)

    return clone
