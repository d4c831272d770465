"""Handles of Windows below an open folder, and facts about open handles.

The Win32 functions take paths, and follow links in them. The functions of NT that they call also take an open folder
and a name in it. Such a call cannot be redirected, even if somebody replaces the folder by a link at this moment, or
turns the empty folder itself into a junction:
https://learn.microsoft.com/windows/win32/api/winternl/nf-winternl-ntcreatefile
"""

from __future__ import annotations

import ctypes
import errno
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

if sys.platform != "win32":  # pragma: no cover - mypy checks this module for Linux too
    raise ImportError("this module is for Windows")

from ctypes import wintypes

from .. import win32
from ..win32 import Handle, error_of, function, last_error
from ..windows import is_link, to_entry
from .entries import FolderEntry, UnsafePathError

_ntdll = ctypes.WinDLL("ntdll")
# These values of an NTSTATUS are those of ntstatus.h.
_INVALID_PARAMETER = 0xC000000D
_DELETE_PENDING = 0xC0000056
_REPARSE_POINT_ENCOUNTERED = 0xC000050B
_DELETE_PENDING_CODE = 303

# Open options and attributes of NtCreateFile, from winternl.h and ntdef.h.
OF_FOLDER, OF_FILE = 0x1, 0x40
_SYNCHRONOUS, _OPEN_REPARSE_POINT = 0x20, 0x00200000
_CASE_INSENSITIVE, _DONT_REPARSE = 0x40, 0x1000
_SYNCHRONIZE = 0x00100000
# The dispositions of NtCreateFile by those of CreateFileW.
_DISPOSITIONS = {win32.OPEN_EXISTING: 1, win32.CREATE_NEW: 2, win32.OPEN_ALWAYS: 3}
# The codes of a file system that has no names relative to a folder: invalid function, not supported, invalid parameter,
# not implemented, and a path or name with an invalid syntax.
NO_RELATIVE_NAMES = {1, win32.NOT_SUPPORTED, 87, 120, 123, 161}

# FILE_INFORMATION_CLASS of ntifs.h.
RENAME, LINK, RENAME_EX = 10, 11, 65
# FILE_INFO_BY_HANDLE_CLASS of winbase.h. The second class for the entries of a folder starts from the beginning.
_ATTRIBUTE_TAG, _ENTRIES, _ENTRIES_FROM_START = 9, 14, 15
_NO_ENTRIES = {2, 18}  # file not found, no more files
_LIST_BUFFER = 1 << 16
# FILE_FULL_DIR_INFO: the offset of the next entry, skipped fields, the attributes, the length of the name in bytes, and
# the reparse tag, which takes the place of the size of the extended attributes:
# https://learn.microsoft.com/openspecs/windows_protocols/ms-fscc/e8d926d1-3a22-4654-be9c-58317a85540b
_ENTRY = struct.Struct("<I52xIII")

# The path as opened, with the name of the device. A path with a drive letter would take a query of the mount manager,
# which does not know every volume. A normalised path would take one query per folder on a network drive:
# https://learn.microsoft.com/windows/win32/api/fileapi/nf-fileapi-getfinalpathnamebyhandlew
_OPENED_PATH_OF_DEVICE = 0x8 | 0x2
_USUAL_PATH, _LONGEST_PATH = 512, 32_768


class _Name(ctypes.Structure):
    """A UNICODE_STRING. Its lengths are in bytes."""

    _fields_ = (("length", wintypes.USHORT), ("maximum_length", wintypes.USHORT), ("buffer", wintypes.LPCWSTR))


class _ObjectAttributes(ctypes.Structure):
    """An OBJECT_ATTRIBUTES."""

    _fields_ = (
        ("length", wintypes.ULONG),
        ("root", wintypes.HANDLE),
        ("name", ctypes.POINTER(_Name)),
        ("attributes", wintypes.ULONG),
        ("security_descriptor", wintypes.LPVOID),
        ("security_quality", wintypes.LPVOID),
    )


class _Outcome(ctypes.Structure):
    """An IO_STATUS_BLOCK."""

    _fields_ = (("status", wintypes.LPVOID), ("information", wintypes.LPVOID))


_NtCreateFile = _ntdll.NtCreateFile
_NtCreateFile.restype = wintypes.ULONG
_NtCreateFile.argtypes = (
    *(ctypes.POINTER(wintypes.HANDLE), wintypes.ULONG, ctypes.POINTER(_ObjectAttributes), ctypes.POINTER(_Outcome)),
    *(wintypes.LPVOID, wintypes.ULONG, wintypes.ULONG, wintypes.ULONG, wintypes.ULONG, wintypes.LPVOID, wintypes.ULONG),
)
_NtSetInformationFile = _ntdll.NtSetInformationFile
_NtSetInformationFile.restype = wintypes.ULONG
_NtSetInformationFile.argtypes = (
    *(wintypes.HANDLE, ctypes.POINTER(_Outcome), wintypes.LPVOID, wintypes.ULONG, ctypes.c_int),
)
_RtlNtStatusToDosError = _ntdll.RtlNtStatusToDosError
_RtlNtStatusToDosError.restype = wintypes.ULONG
_RtlNtStatusToDosError.argtypes = (wintypes.ULONG,)
_GetFileInformationByHandleEx = function(
    "GetFileInformationByHandleEx", wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD
)
_GetFinalPathNameByHandleW = function(
    *("GetFinalPathNameByHandleW", wintypes.HANDLE, wintypes.LPWSTR, wintypes.DWORD, wintypes.DWORD),
    result=wintypes.DWORD,
)


class Attributes(NamedTuple):
    """A FILE_ATTRIBUTE_TAG_INFO: the attributes of an open file or folder, and its reparse tag."""

    attributes: int
    tag: int

    @property
    def is_link(self) -> bool:
        """Whether this is a symbolic link, junction or mount point."""
        return is_link(self.attributes, self.tag)


def unsafe_path(path: str) -> UnsafePathError:
    """Return the error for a link in place of a folder or file."""
    return UnsafePathError(errno.ELOOP, f"{path} is a link or leads out of the cache", path)


class RelativeHandle(Handle):
    """A handle of a file or folder below an open folder. A link of this name is opened itself.

    Args:
        folder: the open folder.
        path: the path for errors. Its last component is the name.
        access: the access rights, besides those to wait for the handle and to read attributes.
        disposition: as for CreateFileW.
        options: :data:`OF_FILE`, :data:`OF_FOLDER` or 0, which accepts both.
        follow: opens the content behind a reparse point, as if it were an ordinary file.

    Raises:
        UnsafePathError: if the folder has become a link.
        OSError: if the operation is refused.
    """

    # Older versions of Windows do not know the attribute that refuses reparse points.
    _attributes = _CASE_INSENSITIVE | _DONT_REPARSE

    def __init__(
        self,
        folder: Handle,
        path: str,
        access: int,
        *,
        disposition: int = win32.OPEN_EXISTING,
        options: int = OF_FILE,
        follow: bool = False,
    ) -> None:
        self.path = path
        access |= win32.READ_ATTRIBUTES | _SYNCHRONIZE
        options |= _SYNCHRONOUS | (0 if follow else _OPEN_REPARSE_POINT)
        attributes = _CASE_INSENSITIVE if follow else RelativeHandle._attributes
        status = self._open(folder, access, _DISPOSITIONS[disposition], options, attributes)
        if status == _INVALID_PARAMETER and attributes != _CASE_INSENSITIVE:
            status = self._open(folder, access, _DISPOSITIONS[disposition], options, _CASE_INSENSITIVE)
            if not status:
                RelativeHandle._attributes = _CASE_INSENSITIVE
        if status:
            raise error_of_status(status, path)

    def _open(self, folder: Handle, access: int, disposition: int, options: int, attributes: int) -> int:
        name = self.path.rpartition("\\")[2]
        length = 2 * len(name) if name.isascii() else len(name.encode("utf-16-le", "surrogatepass"))
        given = _Name(length, length, name)
        where = _ObjectAttributes(
            ctypes.sizeof(_ObjectAttributes), folder.number, ctypes.pointer(given), attributes, None, None
        )
        number = wintypes.HANDLE()
        status: int = _NtCreateFile(
            *(ctypes.byref(number), access, ctypes.byref(where), ctypes.byref(_Outcome()), None, win32.NORMAL),
            *(win32.SHARE_ALL, disposition, options, None, 0),
        )
        self.number = number.value or 0
        return status


def set_name(handle: Handle, kind: int, flags: int, folder: Handle, target: str) -> None:
    """Give an open file another name in an open folder, or an additional one.

    Args:
        handle: the file.
        kind: :data:`RENAME`, :data:`RENAME_EX` or :data:`LINK`.
        flags: those of a FILE_RENAME_INFORMATION. For a link, 1 replaces an existing file.
        folder: the open folder.
        target: the path of the new name. Only its last component is used. The rest is for the error.
    """
    name = target.rpartition("\\")[2].encode("utf-16-le", "surrogatepass")
    information = struct.pack("IPI", flags, folder.number, len(name)) + name + b"\0\0"
    size = len(information)
    status = _NtSetInformationFile(handle.number, ctypes.byref(_Outcome()), information, size, kind)
    if status:
        raise error_of_status(status, handle.path, target)


def error_of_status(status: int, path: str, target: str | None = None) -> OSError:
    """Return the error for an NTSTATUS."""
    if status == _REPARSE_POINT_ENCOUNTERED:
        return unsafe_path(path)
    # Windows reports the code for a missing permission for a file that is being deleted, too.
    code = _DELETE_PENDING_CODE if status == _DELETE_PENDING else _RtlNtStatusToDosError(status)
    return error_of(code, path, target)


def attributes_of(handle: Handle) -> Attributes:
    """Return the attributes and the reparse tag of an open file or folder."""
    information = ctypes.create_string_buffer(8)
    if not _GetFileInformationByHandleEx(handle.number, _ATTRIBUTE_TAG, information, 8):
        raise last_error(handle.path)
    return Attributes(*struct.unpack("II", information.raw))


def final_path(handle: Handle) -> str:
    """Return the path of an open file or folder with every link followed, beginning with the name of the device.

    Raises:
        OSError: if the driver of the volume does not report a path.
    """
    room = _USUAL_PATH
    while True:
        text = ctypes.create_unicode_buffer(room)
        length = _GetFinalPathNameByHandleW(handle.number, text, room, _OPENED_PATH_OF_DEVICE)
        if not length:
            raise last_error(handle.path)
        if length < room:
            return text.value
        if room == _LONGEST_PATH:
            raise error_of(win32.NOT_SUPPORTED, handle.path)
        room = _LONGEST_PATH


def list_entries(handle: Handle) -> Iterator[FolderEntry]:
    """Yield the entries of an open folder. The handle needs the right to list the folder."""
    buffer = ctypes.create_string_buffer(_LIST_BUFFER)
    kind = _ENTRIES_FROM_START
    while True:
        if not _GetFileInformationByHandleEx(handle.number, kind, buffer, _LIST_BUFFER):
            if ctypes.get_last_error() in _NO_ENTRIES:
                return
            raise last_error(handle.path)
        kind = _ENTRIES
        data, start = buffer.raw, 0
        while True:
            following, attributes, length, tag = _ENTRY.unpack_from(data, start)
            begin = start + _ENTRY.size
            name = data[begin : begin + length].decode("utf-16-le", "surrogatepass")
            if name not in {".", ".."}:
                yield to_entry(name, attributes, tag)
            if not following:
                break
            start += following
