"""The file layer on POSIX systems: :class:`._fs.FileSystem` says what each name does."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self, TypeVar

if sys.platform == "win32":  # pragma: no cover - mypy reads this module for Windows too
    raise ImportError("this is the file layer of the other systems")

import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable


_T = TypeVar("_T")

# From <linux/fs.h> and <linux/stat.h>.
_FICLONE = 0x40049409
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# From Darwin's <stdio.h>.
_RENAME_EXCL = 4

# No file of a cache is a link: one that somebody planted there is not written through.
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_CREAT | os.O_EXCL
# A place to start from is all that a folder is opened for, and Linux has a cheaper kind of descriptor for that.
_TO_LOOK_IN = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_SMALL_FILE = 1 << 16


class PosixFolder:
    """A folder by its descriptor."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle = os.open(path, _TO_LOOK_IN)

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
        source, made = os.path.join(self._path, name), os.path.join(target._path, new)
        if sys.platform != "linux":
            _clonefile()(source, made)
            # The clone has the permissions of the file in the cache, which nobody may write to.
            os.chmod(made, os.stat(source).st_mode & 0o777 | 0o200)
            return
        with target.create(new, permissions) as writer:
            _share_blocks(source, writer, made)


class PosixFiles:
    """The files of this machine."""

    has_permissions = True
    protects_loaded_images = False

    def with_modes_of(self, root: str) -> PosixFiles | None:
        modes = Modes.of(os.stat(root))
        return None if modes is None else _FollowingFiles(root, modes)

    def create(self, path: str) -> BinaryIO:
        return io.FileIO(os.open(path, _WRITE | _NEW, 0o666), "r+")

    def open_read(self, path: str) -> BinaryIO:
        return io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "r")

    def open_write(self, path: str) -> BinaryIO:
        return io.FileIO(self._opened(path, _WRITE), "r+")

    def open_append(self, path: str) -> BinaryIO:
        return io.FileIO(self._opened(path, _APPEND), "a")

    def _opened(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CREAT, 0o666)

    def read(self, path: str) -> bytes:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_all(handle)
        finally:
            os.close(handle)

    def read_with_mtime(self, path: str) -> tuple[bytes, float]:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_all(handle), os.fstat(handle).st_mtime
        finally:
            os.close(handle)

    def touch(self, path: str, seconds: float) -> None:
        try:
            os.utime(path, (seconds, seconds))
        except PermissionError:
            # Who may write to another user's file may set its time to now, and to nothing else:
            # https://man7.org/linux/man-pages/man2/utimensat.2.html
            os.utime(path)

    def stat(self, path: str) -> os.stat_result:
        return os.lstat(path)

    def volume_id(self, path: str) -> int | None:
        return os.stat(path).st_dev

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def scan(self, path: str) -> list[os.DirEntry[str]]:
        with os.scandir(path) as entries:
            return list(entries)

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
                # Between two file systems, and on some, there is no such call before Linux 5.19:
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
    """What files and folders of a cache are made with, where the umask alone would not do.

    Attributes:
        file: permissions of files.
        folder: permissions of folders.
        owner: user and group to give them to, or ``None``.
    """

    file: int
    folder: int
    owner: tuple[int, int] | None

    @classmethod
    def of(cls, root: os.stat_result) -> Modes | None:
        """Return the modes for a cache folder that is shared, private or another user's; ``None`` for any other."""
        mode = root.st_mode
        shared = bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)
        private = not mode & (stat.S_IRWXG | stat.S_IRWXO)
        # What root writes into a user's cache, with sudo mostly, would lock that user out.
        owner = (root.st_uid, root.st_gid) if os.geteuid() == 0 and root.st_uid != 0 else None
        if not (shared or private or owner):
            return None
        # Never writable by everybody, whatever the folder says: who can write there decides what others install. Always
        # by its owner: a folder that is made read-only for a while must not leave others in it that stay so.
        return cls(mode & 0o664 | 0o600, mode & 0o2775 | 0o700, owner)

    def give(self, made: int, mode: int, folder: int) -> None:
        """Give a file or folder that was made in an open folder its mode, and to its owner, if that can be."""
        try:
            # The path may lead through a link that the owner planted: in a folder of somebody else nothing is theirs.
            if self.owner is not None and os.fstat(folder).st_uid == self.owner[0]:
                os.fchown(made, *self.owner)
            # Second: giving a file away takes the set-group bit from it.
            os.fchmod(made, mode)
        except OSError:
            pass  # it stays as it is, and works for its owner


class _FollowingFiles(PosixFiles):
    """The files of this machine, made in the way of a cache folder when they are below it.

    They get their modes right after they are made, since a umask takes from what ``open`` and ``mkdir`` are given.
    Where that is refused the file stays as it is: it works for its owner. What was there before is left alone: others
    who can write to the cache choose what that is, and root must not give it away.
    """

    def __init__(self, root: str, modes: Modes) -> None:
        self._below = os.path.join(root, "")
        self._modes = modes

    def create(self, path: str) -> BinaryIO:
        if not path.startswith(self._below):
            return super().create(path)
        return self._in_folder(path, lambda folder, name: folder.create(name, 0o666))

    def _opened(self, path: str, flags: int) -> int:
        if not path.startswith(self._below):
            return super()._opened(path, flags)
        return self._in_folder(path, lambda folder, name: folder.open(name, flags))

    def mkdir(self, path: str) -> None:
        if not path.startswith(self._below):
            super().mkdir(path)
            return
        self._in_folder(path, lambda folder, name: folder.mkdir(name))

    def open_folder(self, path: str) -> PosixFolder:
        return _FollowingFolder(path, self._modes) if path.startswith(self._below) else super().open_folder(path)

    def _in_folder(self, path: str, action: Callable[[_FollowingFolder, str], _T]) -> _T:
        """Do something in the folder of a path, by its descriptor: a path may lead elsewhere a moment later."""
        parent, name = os.path.split(path)
        try:
            with _FollowingFolder(parent, self._modes) as folder:
                return action(folder, name)
        except OSError as error:
            error.filename = path
            raise


class _FollowingFolder(PosixFolder):
    """A folder of the cache: what is made in it is read, and executed where that is meant, by whom the cache is for."""

    def __init__(self, path: str, modes: Modes) -> None:
        super().__init__(path)
        self._modes = modes

    def create(self, name: str, permissions: int) -> BinaryIO:
        file = super().create(name, permissions)
        self._give(file.fileno(), permissions & (self._modes.file | self._modes.folder & 0o111))
        return file

    def open(self, name: str, flags: int) -> int:
        """Open a file as it is; one that is not there is made."""
        try:
            return os.open(name, flags, dir_fd=self._handle)
        except FileNotFoundError:
            pass
        try:
            made = os.open(name, flags | _NEW, 0o666, dir_fd=self._handle)
        except FileExistsError:
            # Another process was quicker, and gives it its mode; it may be about to delete it, as locks are.
            return os.open(name, flags | os.O_CREAT, 0o666, dir_fd=self._handle)
        self._give(made, self._modes.file)
        return made

    def mkdir(self, name: str) -> None:
        """Make a folder; it must not be there yet."""
        os.mkdir(name, dir_fd=self._handle)
        try:
            made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._handle)
        except OSError:
            return  # it was pruned meanwhile, or it stays as it is and works for its owner
        try:
            self._give(made, self._modes.folder)
        finally:
            os.close(made)

    def _give(self, made: int, mode: int) -> None:
        self._modes.give(made, mode, self._handle)


def _read_all(handle: int) -> bytes:
    data = os.read(handle, _SMALL_FILE)
    if len(data) < _SMALL_FILE:
        return data
    # From the start and in one piece: joined from parts, the time or the memory would be more than the file's.
    os.lseek(handle, 0, os.SEEK_SET)
    with io.FileIO(handle, closefd=False) as file:
        return file.readall()


def _share_blocks(source: str, writer: BinaryIO, target: str) -> None:
    """Let an empty new file share the blocks of another, or delete it."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader)
    except OSError as error:
        os.unlink(target)
        # The ioctl names no file, and says EINVAL, ENOTTY or EOPNOTSUPP for "not on this file system":
        # https://man7.org/linux/man-pages/man2/ioctl_ficlone.2.html
        code = errno.ENOTSUP if error.errno in {errno.EINVAL, errno.ENOTTY} else error.errno
        raise OSError(code, os.strerror(code or 0), source, None, target) from None
    finally:
        os.close(reader)


@cache
def _exclusive_rename() -> Callable[[str, str], None]:
    """Return a rename that never replaces: the C library has one on Linux and Darwin, and Python shows neither.

    ctypes is imported on the first commit only, since a hit has no use for it.
    """
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
            # A file system without the flag says EINVAL: https://man7.org/linux/man-pages/man2/rename.2.html
            code = errno.ENOTSUP if code == errno.EINVAL else code
            raise OSError(code, os.strerror(code), source, None, target)

    return rename


@cache
def _clonefile() -> Callable[[str, str], None]:
    """Return Darwin's clonefile(2), which makes the target and never replaces."""
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
