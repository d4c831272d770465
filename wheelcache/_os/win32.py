"""ctypes bindings to Windows functions that Python lacks, or whose error code Python loses.

A call that fails raises an :class:`OSError` with its ``winerror``. The callers interpret the errors.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, Self

if sys.platform != "win32":  # pragma: no cover - mypy checks this module for Linux too
    raise ImportError("this module is for Windows")

from ctypes import wintypes

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll = ctypes.WinDLL("ntdll")
_ntdll.RtlGetLastNtStatus.restype = ctypes.c_ulong
# The C library that Python is linked to stores the Windows code of the call that failed.
_get_doserrno = getattr(ctypes.CDLL("ucrtbase"), "_get_doserrno")  # noqa: B009 - a documented function of the C library

# Without the prefix, the limit is 248 characters for folders and 259 for files:
# https://learn.microsoft.com/windows/win32/fileio/maximum-file-path-limitation
_MAX_PLAIN_PATH = 240
_INVALID_HANDLE = wintypes.HANDLE(-1).value

ACCESS_DENIED = 5
NOT_SUPPORTED = 50
_DELETE_PENDING = 303
_STATUS_DELETE_PENDING = 0xC0000056

GENERIC_READ = 0x80000000
GENERIC_WRITE = 0x40000000
DELETE = 0x00010000
READ_ATTRIBUTES = 0x0080
WRITE_ATTRIBUTES = 0x0100
SHARE_ALL = 0x1 | 0x2 | 0x4
CREATE_NEW, OPEN_EXISTING, OPEN_ALWAYS = 1, 3, 4
NORMAL = 0x80
NO_FOLLOW = 0x00200000  # FILE_FLAG_OPEN_REPARSE_POINT: opens a link itself and not its target
FOLDERS_TOO = 0x02000000  # FILE_FLAG_BACKUP_SEMANTICS: opens folders, too


def function(name: str, *arguments: Any, result: Any = wintypes.BOOL, library: str = "") -> Any:
    """Return a function of a Windows library, by default of kernel32, with its argument and result types."""
    found = getattr(ctypes.WinDLL(library, use_last_error=True) if library else _kernel32, name)
    found.restype = result
    found.argtypes = arguments
    return found


_PATH = wintypes.LPCWSTR
_CreateFileW = function(
    "CreateFileW",
    _PATH,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.LPVOID,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
    result=wintypes.HANDLE,
)
_CloseHandle = function("CloseHandle", wintypes.HANDLE)
_SetFileInformationByHandle = function(
    "SetFileInformationByHandle", wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD
)
_DeviceIoControl = function(
    "DeviceIoControl",
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.LPVOID,
    wintypes.DWORD,
    wintypes.LPVOID,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
    wintypes.LPVOID,
)


def extended(path: str) -> str:
    r"""Return an absolute path, with the ``\\?\`` prefix if it is so long that it needs one.

    With the prefix, Windows has no limit of 260 characters. It then no longer resolves ``..`` and ``/``, so this
    function normalises the path.
    """
    if len(path) <= _MAX_PLAIN_PATH or path.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    path = os.path.normpath(path)
    return "\\\\?\\UNC" + path[1:] if path.startswith("\\\\") else "\\\\?\\" + path


def error_of(code: int, path: str, target: str | None = None) -> OSError:
    """Return the OSError for a Windows error code."""
    return OSError(None, ctypes.FormatError(code).strip(), path, code, target)


def last_error(path: str, target: str | None = None) -> OSError:
    """Return the OSError for the call that has just failed in this thread.

    Windows reports 5 both for missing permissions and for a file that is being deleted. The name of such a file exists
    until its last handle is closed. The NT status distinguishes the two errors. The second one is transient, and is
    returned as 303.
    """
    code = ctypes.get_last_error()
    if code == ACCESS_DENIED and _ntdll.RtlGetLastNtStatus() == _STATUS_DELETE_PENDING:
        code = _DELETE_PENDING
    return error_of(code, path, target)


class Handle:
    """A handle of a file or folder that shares all access. The end of its ``with`` block closes it."""

    def __init__(self, path: str, access: int, *, disposition: int = OPEN_EXISTING, flags: int = NORMAL) -> None:
        self.path = path
        self.number: int = _CreateFileW(extended(path), access, SHARE_ALL, None, disposition, flags, None)
        if self.number == _INVALID_HANDLE:
            raise last_error(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the handle."""
        _CloseHandle(self.number)

    def set(self, kind: int, information: bytes, target: str | None = None) -> None:
        """Call SetFileInformationByHandle with an information class. ``target`` is only used in the error."""
        if not _SetFileInformationByHandle(self.number, kind, information, len(information)):
            raise last_error(self.path, target)


def with_winerror(error: OSError, path: str) -> OSError:
    """Return the error of a C library call that has just failed in this thread, with its Windows error code restored.

    The C library maps many codes to one errno. For example, the code for a locked range becomes EACCES, although this
    error is transient. The code for a mapped file becomes EINVAL. The C library keeps the last Windows code of each
    thread.
    """
    code = wintypes.DWORD()
    if error.errno is None or _get_doserrno(ctypes.byref(code)) or code.value == 0:
        return error
    return error_of(code.value, path)


def control(handle: int, code: int, given: bytes, room: int, *, path: str, target: str | None = None) -> bytes:
    """Send a control code with its input to a handle's file system, and return up to ``room`` bytes of output.

    The paths are only used in the error.
    """
    output = ctypes.create_string_buffer(room) if room else None
    length = wintypes.DWORD()
    if not _DeviceIoControl(handle, code, given, len(given), output, room, ctypes.byref(length), None):
        raise last_error(path, target)
    return output.raw[: length.value] if output is not None else b""
