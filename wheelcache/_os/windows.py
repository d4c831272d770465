"""The file layer on Windows. :class:`.files.FileSystem` documents the operations.

Every handle shares reading, writing and deleting, so that our processes never block each other. Python's ``open`` does
not share deleting. A file that was opened with it cannot be renamed or deleted until it is closed.

Deleting and replacing use POSIX semantics if the volume has them (NTFS since Windows 10 1709, other file systems
later). The name is then free at once, even if readers still have the file open. Read-only files can be deleted without
being made writable. After a volume has refused POSIX semantics, the older calls are used for its whole drive, including
other volumes that are mounted in folders of that drive.
"""

from __future__ import annotations

import ctypes
import io
import os
import stat
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, NamedTuple, Self, TypeAlias

if sys.platform != "win32":  # pragma: no cover - mypy checks this module for Linux too
    raise ImportError("this module is for Windows")

import msvcrt
from ctypes import wintypes

from .._imports import import_lock
from . import win32
from .confined.entries import FolderEntry
from .confined.small import not_regular, read_within
from .win32 import ACCESS_DENIED, Handle, extended, function, last_error

_PATH = wintypes.LPCWSTR
_MoveFileExW = function("MoveFileExW", _PATH, _PATH, wintypes.DWORD)
_CreateHardLinkW = function("CreateHardLinkW", _PATH, _PATH, wintypes.LPVOID)
_CreateDirectoryW = function("CreateDirectoryW", _PATH, wintypes.LPVOID)
_GetFileAttributesW = function("GetFileAttributesW", _PATH, result=wintypes.DWORD)
_SetFileAttributesW = function("SetFileAttributesW", _PATH, wintypes.DWORD)
_GetFileInformationByHandleEx = function(
    "GetFileInformationByHandleEx", wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD
)
_REPLACE_EXISTING = 0x1
_NO_ATTRIBUTES = 0xFFFFFFFF
READ_ONLY, FOLDER, REPARSE_POINT = 0x1, 0x10, 0x400
# The bit of a reparse tag that marks a name surrogate: https://learn.microsoft.com/windows/win32/fileio/reparse-point-tags
_NAME_SURROGATE = 0x20000000

# FILE_INFO_BY_HANDLE_CLASS of winbase.h, and the flags of FILE_DISPOSITION_INFO_EX and FILE_RENAME_INFO.
BASIC, _DISPOSITION, _DISPOSITION_EX, _RENAME_EX = 0, 4, 21, 22
_DELETE_POSIX_READ_ONLY_TOO = 0x01 | 0x02 | 0x10
REPLACE_POSIX_READ_ONLY_TOO = 0x01 | 0x02 | 0x40
# Invalid function, not supported, invalid parameter (an unknown class or flag), not implemented.
_NO_POSIX_SEMANTICS = {1, win32.NOT_SUPPORTED, 87, 120}
_INVALID_DIRECTORY_NAME = 267
# FILE_BASIC_INFO: the times of creation, last access, last write and last change, then the attributes.
_BASIC_INFO = struct.Struct("4qI4x")
# The times count 100 ns from the year 1601. Those of Python begin in 1970.
_NANOSECONDS_PER_TICK, EPOCH = 100, 116_444_736_000_000_000

_SetInformation: TypeAlias = Callable[[Handle, int, bytes, str | None], None]


class OpenMode(NamedTuple):
    """The rights and modes with which a file is opened.

    Attributes:
        access: the access rights.
        disposition: whether the file is created, as for CreateFileW.
        flags: the flags of the descriptor, as for ``os.open``.
        mode: the mode of Python's file object.
    """

    access: int
    disposition: int
    flags: int
    mode: str


_READ_WRITE = win32.GENERIC_READ | win32.GENERIC_WRITE
_APPEND_ACCESS = 0x0004 | 0x00100000  # FILE_APPEND_DATA | SYNCHRONIZE: writes are appended, even beside other writers
READ = OpenMode(win32.GENERIC_READ, win32.OPEN_EXISTING, os.O_RDONLY, "r")
CREATE = OpenMode(_READ_WRITE, win32.CREATE_NEW, os.O_RDWR, "r+")
WRITE = OpenMode(_READ_WRITE, win32.OPEN_ALWAYS, os.O_RDWR, "r+")
_EXISTING = WRITE._replace(disposition=win32.OPEN_EXISTING)
APPEND = OpenMode(_APPEND_ACCESS, win32.OPEN_ALWAYS, os.O_WRONLY | os.O_APPEND, "a")


class NativeFile(io.FileIO):
    """An open file whose errors keep their Windows error code. It owns the handle."""

    def __init__(self, handle: Handle, mode: OpenMode) -> None:
        try:
            number = msvcrt.open_osfhandle(handle.number, mode.flags | os.O_BINARY | os.O_NOINHERIT)
        except BaseException:
            handle.close()
            raise
        super().__init__(number, mode.mode)
        self._path = handle.path

    @classmethod
    def open(cls, path: str, mode: OpenMode, flags: int = win32.NORMAL) -> Self:
        """Open a file by its path. Links are followed unless the flags forbid it."""
        return cls(Handle(path, mode.access, disposition=mode.disposition, flags=flags), mode)

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(-1 if size is None else size)
        except OSError as error:
            raise win32.with_winerror(error, self._path) from None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise win32.with_winerror(error, self._path) from None

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            raise win32.with_winerror(error, self._path) from None


def _open_small(path: str) -> NativeFile:
    """Open a regular file for reading, without following a link."""
    try:
        file = NativeFile.open(path, READ, win32.NO_FOLLOW)
    except OSError as error:
        # Opening a folder fails with the same code as a missing permission.
        if error.winerror == ACCESS_DENIED and os.path.isdir(extended(path)):
            raise not_regular(path) from error
        raise
    try:
        status = os.fstat(file.fileno())
        is_regular = stat.S_ISREG(status.st_mode)
        if status.st_file_attributes & REPARSE_POINT:
            is_regular = not is_link(status.st_file_attributes, os.lstat(extended(path)).st_reparse_tag)
        if is_regular and status.st_file_attributes & REPARSE_POINT:
            # The reparse point of a deduplicated file, or of a file of a cloud service, is not a link. The content is
            # only available if the file is opened without the flag. A link that has replaced the file meanwhile leads
            # to another file.
            file.close()
            file = NativeFile.open(path, READ)
            is_regular = os.path.samestat(status, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    if not is_regular:
        file.close()
        raise not_regular(path)
    return file


class WindowsFolder:
    """An open folder, represented by its path, because these functions of Windows take no folder handle."""

    def __init__(self, files: WindowsFiles, path: str) -> None:
        self._files = files
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _path_of(self, name: str) -> str:
        return f"{self._path}\\{name}"

    def create(self, name: str, permissions: int) -> BinaryIO:  # noqa: ARG002 - Windows has no POSIX permissions
        return self._files.create(self._path_of(name))

    def stat(self, name: str) -> os.stat_result:
        return self._files.stat(self._path_of(name))

    def link(self, name: str, target: Self) -> None:
        self._files.link(self._path_of(name), target._path_of(name))

    def clone(self, name: str, target: Self, new: str, permissions: int) -> None:  # noqa: ARG002 - see create
        self._files.clone(self._path_of(name), target._path_of(new))


class WindowsFiles:
    """The file layer of this machine.

    Args:
        set_information: replaces :meth:`.win32.Handle.set` in tests that imitate other volumes.
        control: replaces :func:`.win32.control` in the same way.
    """

    has_permissions = False
    protects_loaded_images = True

    def __init__(
        self, set_information: _SetInformation = Handle.set, control: Callable[..., bytes] = win32.control
    ) -> None:
        self._set_information = set_information
        self._control = control
        self._drives_without_posix: set[tuple[int, str]] = set()

    def _open_file(self, path: str, mode: OpenMode) -> BinaryIO:
        return NativeFile.open(path, mode)

    def _open_handle(self, path: str, access: int, flags: int) -> Handle:
        return Handle(path, access, flags=flags)

    def create(self, path: str) -> BinaryIO:
        return self._open_file(path, CREATE)

    def open_read(self, path: str) -> BinaryIO:
        return self._open_file(path, READ)

    def open_write(self, path: str) -> BinaryIO:
        return self._open_file(path, WRITE)

    def open_append(self, path: str) -> BinaryIO:
        return self._open_file(path, APPEND)

    def flush(self, path: str) -> None:
        # Flushing needs the right to write:
        # https://learn.microsoft.com/windows/win32/api/fileapi/nf-fileapi-flushfilebuffers
        with self._open_file(path, _EXISTING) as file:
            try:
                os.fsync(file.fileno())
            except OSError as error:
                raise win32.with_winerror(error, path) from None

    def read_small(self, path: str, limit: int) -> bytes:
        with _open_small(path) as file:
            return read_within(file.read, os.fstat(file.fileno()).st_size, limit, path)

    def read_small_with_mtime(self, path: str, limit: int) -> tuple[bytes, float]:
        with _open_small(path) as file:
            status = os.fstat(file.fileno())
            return read_within(file.read, status.st_size, limit, path), status.st_mtime

    def touch(self, path: str, seconds: float) -> None:
        os.utime(extended(path), (seconds, seconds))

    def stat(self, path: str) -> os.stat_result:
        return os.lstat(extended(path))

    def change_time(self, path: str) -> int:
        # st_ctime is the time of creation on Windows: https://docs.python.org/3/library/os.html#os.stat_result.st_ctime
        with Handle(path, win32.READ_ATTRIBUTES, flags=win32.NO_FOLLOW | win32.FOLDERS_TOO) as handle:
            return _change_time(handle)

    def volume_id(self, path: str) -> int | None:
        # The serial number of the volume. Some network drives do not have one.
        return os.stat(extended(path)).st_dev or None

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(extended(path))

    def scan(self, path: str) -> list[FolderEntry]:
        with os.scandir(extended(path)) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]  # needs no further call
        return [to_entry(name, status.st_file_attributes, status.st_reparse_tag) for name, status in found]

    def open_folder(self, path: str) -> WindowsFolder:
        return WindowsFolder(self, path)

    def copy_permissions(self, source: BinaryIO, target: BinaryIO) -> None:
        pass  # Windows has no POSIX permissions

    def make_read_only(self, path: str, *, executable: bool) -> None:
        pass  # on Windows, read-only files are hard to delete, and execution needs no permission

    def rename(self, source: str, target: str) -> None:
        if not _MoveFileExW(extended(source), extended(target), 0):
            raise last_error(source, target)

    def replace(self, source: str, target: str) -> None:
        if not self._set_posix(_RENAME_EX, source, win32.NO_FOLLOW, _rename_information(extended(target)), target):
            _replace(source, target)

    def link(self, source: str, target: str) -> None:
        if not _CreateHardLinkW(extended(target), extended(source), None):
            raise last_error(source, target)

    def clone(self, source: str, target: str) -> None:
        with self.open_read(source) as reader:
            self.clone_open(reader, source, target, lambda: self.create(target))

    def clone_open(self, reader: BinaryIO, source: str, target: str, create: Callable[[], BinaryIO]) -> None:
        """Clone an open file. ``create`` creates the target. The paths are for errors, and to delete the target."""
        with import_lock:  # not needed for a hit
            from .clone_windows import BlockClone

        size = os.fstat(reader.fileno()).st_size
        control = partial(self._control, path=source, target=target)
        clone = BlockClone(msvcrt.get_osfhandle(reader.fileno()), size, control)
        with create() as writer:
            try:
                clone.clone_to(msvcrt.get_osfhandle(writer.fileno()), lambda: writer.truncate(size))
            except BaseException:
                # Errors of the cleanup must not hide the original error.
                _ignore_errors(writer.close)
                _ignore_errors(partial(self.unlink, target))
                raise

    def copy(self, source: BinaryIO, target: BinaryIO, count: int) -> int:
        data = memoryview(source.read(min(count, 1 << 20)))
        written = 0
        while written < len(data):
            written += target.write(data[written:])
        return written

    def unlink(self, path: str) -> None:
        self._delete(path, win32.NO_FOLLOW)

    def mkdir(self, path: str) -> None:
        create_folder(path)

    def rmdir(self, path: str) -> None:
        attributes = _GetFileAttributesW(extended(path))
        if attributes != _NO_ATTRIBUTES and not attributes & FOLDER:
            raise win32.error_of(_INVALID_DIRECTORY_NAME, path)
        self._delete(path, win32.NO_FOLLOW | win32.FOLDERS_TOO)

    def _delete(self, path: str, flags: int) -> None:
        posix = struct.pack("I", _DELETE_POSIX_READ_ONLY_TOO)
        if not self._set_posix(_DISPOSITION_EX, path, flags, posix):
            self._delete_without_posix(path, flags)

    def _delete_without_posix(self, path: str, flags: int) -> None:
        try:
            with self._open_handle(path, win32.DELETE, flags) as handle:
                self._set_information(handle, _DISPOSITION, b"\1", None)
        except OSError as error:
            # Error 5 has other causes, too. An attempt to make the file writable could then fail and hide this error.
            if error.winerror != ACCESS_DENIED or not _is_read_only(path):
                raise
        else:
            return
        attributes: int = _GetFileAttributesW(extended(path))
        with self._open_handle(path, win32.DELETE | win32.WRITE_ATTRIBUTES, flags) as handle:
            self._set_information(handle, BASIC, basic_information(attributes & ~READ_ONLY or win32.NORMAL), None)
            try:
                self._set_information(handle, _DISPOSITION, b"\1", None)
            finally:
                # The attribute belongs to the file and not to its name, so it is restored for the other hard links.
                _ignore_errors(partial(self._set_information, handle, BASIC, basic_information(attributes), None))

    def _set_posix(self, kind: int, path: str, flags: int, information: bytes, target: str | None = None) -> bool:
        """Set information that requests POSIX semantics, and return whether this volume supports them."""
        drive = os.path.splitdrive(path)[0].lower()
        if (kind, drive) in self._drives_without_posix:
            return False
        with self._open_handle(path, win32.DELETE, flags) as handle:
            try:
                self._set_information(handle, kind, information, target)
            except OSError as error:
                if error.winerror not in _NO_POSIX_SEMANTICS:
                    raise
                self._drives_without_posix.add((kind, drive))
                return False
        return True


def _rename_information(target: str) -> bytes:
    """Return a FILE_RENAME_INFO: flags, no root folder, the length of the target in bytes, the target."""
    name = target.encode("utf-16-le", "surrogatepass")
    return struct.pack("IPI", REPLACE_POSIX_READ_ONLY_TOO, 0, len(name)) + name + b"\0\0"


def _is_read_only(path: str) -> bool:
    attributes: int = _GetFileAttributesW(extended(path))
    return attributes != _NO_ATTRIBUTES and bool(attributes & READ_ONLY)


def create_folder(path: str) -> None:
    """Create a folder. The folder above it must exist."""
    if not _CreateDirectoryW(extended(path), None):
        raise last_error(path)


def is_link(attributes: int, tag: int) -> bool:
    """Return whether these attributes and this reparse tag are those of a symbolic link, junction or mount point.

    A reparse point with an unknown tag counts, too.
    """
    return bool(attributes & REPARSE_POINT) and (not tag or bool(tag & _NAME_SURROGATE))


def to_entry(name: str, attributes: int, tag: int) -> FolderEntry:
    """Return the entry of a folder. The methods of an ``os.DirEntry`` of Python 3.11 count a junction as a folder."""
    is_folder = bool(attributes & FOLDER)
    return FolderEntry(name, False, False) if is_link(attributes, tag) else FolderEntry(name, is_folder, not is_folder)


def _change_time(handle: Handle) -> int:
    """Return the ChangeTime of a FILE_BASIC_INFO, in nanoseconds since the epoch."""
    information = ctypes.create_string_buffer(_BASIC_INFO.size)
    if not _GetFileInformationByHandleEx(handle.number, BASIC, information, _BASIC_INFO.size):
        raise last_error(handle.path)
    ticks: int = _BASIC_INFO.unpack(information.raw)[3]
    return (ticks - EPOCH) * _NANOSECONDS_PER_TICK


def _ignore_errors(action: Callable[[], None]) -> None:
    """Call ``action`` to clean up after another operation, and ignore its errors."""
    try:
        action()
    except OSError:
        pass


def basic_information(attributes: int, modified: int = 0) -> bytes:
    """Return a FILE_BASIC_INFO with these attributes, and a time of the last access and write.

    The time counts 100 ns from the year 1601. Attributes of 0 and times of 0 leave those of the file unchanged.
    """
    return _BASIC_INFO.pack(0, modified, modified, 0, attributes)


def _replace(source: str, target: str) -> None:
    if _MoveFileExW(extended(source), extended(target), _REPLACE_EXISTING):
        return
    error = last_error(source, target)
    attributes: int = _GetFileAttributesW(extended(target))
    if error.winerror != ACCESS_DENIED or not _is_read_only(target) or attributes & FOLDER:
        raise error
    if not _SetFileAttributesW(extended(target), attributes & ~READ_ONLY or win32.NORMAL):
        raise error
    if not _MoveFileExW(extended(source), extended(target), _REPLACE_EXISTING):
        error = last_error(source, target)
        _SetFileAttributesW(extended(target), attributes)
        raise error
