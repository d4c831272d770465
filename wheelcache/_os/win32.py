"""The calls of Windows that Python does not have, or has with the code lost: each raises what Windows said.

``_fs_windows``, ``_clone_windows``, ``_volume_windows`` and ``_holders_windows`` are written with these. Nothing here
decides anything.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, Self

if sys.platform != "win32":  # pragma: no cover - mypy reads this module for Linux too
    raise ImportError("this is for Windows")

from ctypes import wintypes

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll = ctypes.WinDLL("ntdll")
_ntdll.RtlGetLastNtStatus.restype = ctypes.c_ulong
# The C library that this Python is built with, and so the one whose calls have failed.
_get_doserrno = getattr(ctypes.CDLL("ucrtbase"), "_get_doserrno")  # noqa: B009 - no private name of Python's

# Folders may be no longer than 248 characters, files no longer than 259, without the prefix:
# https://learn.microsoft.com/windows/win32/fileio/maximum-file-path-limitation
_LONGEST_PLAIN_PATH = 240
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
# FILE_FLAG_OPEN_REPARSE_POINT: a link itself and not what it leads to. Folders are opened with backup semantics only.
LINK_ITSELF = 0x00200000
FOLDER_TOO = 0x02000000


def function(name: str, *arguments: Any, result: Any = wintypes.BOOL, library: str = "") -> Any:
    """Return a function of Windows with its types; with ``library`` of another one than kernel32."""
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
    r"""Return the form of an absolute path that has no limit of 260 characters, where it needs it.

    With the ``\\?\`` prefix Windows takes a path as it is: no ``..``, no ``/``, which ``normpath`` sees to.
    """
    if len(path) <= _LONGEST_PLAIN_PATH or path.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    path = os.path.normpath(path)
    return "\\\\?\\UNC" + path[1:] if path.startswith("\\\\") else "\\\\?\\" + path


def error_of(code: int, path: str, target: str | None = None) -> OSError:
    """Return the error of a code."""
    return OSError(None, ctypes.FormatError(code).strip(), path, code, target)


def last_error(path: str, target: str | None = None) -> OSError:
    """Return the error of the call that has just failed.

    Windows makes the same 5 of a permission and of a file that is being deleted, whose name is there until its last
    holder lets go. Below that, the two are told apart; the second can pass.
    """
    code = ctypes.get_last_error()
    if code == ACCESS_DENIED and _ntdll.RtlGetLastNtStatus() == _STATUS_DELETE_PENDING:
        code = _DELETE_PENDING
    return error_of(code, path, target)


class Handle:
    """An open file or folder, closed at the end of the block."""

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
        """Close it."""
        _CloseHandle(self.number)

    def set(self, kind: int, information: bytes, target: str | None = None) -> None:
        """Set information of a kind."""
        if not _SetFileInformationByHandle(self.number, kind, information, len(information)):
            raise last_error(self.path, target)


def told(error: OSError, path: str) -> OSError:
    """Return the error of a call of the C library that has just failed, with the code of Windows put back.

    The C library folds the codes into errno: a locked range, which passes, is EACCES, and a mapped file is EINVAL. It
    keeps the last code for each thread.
    """
    code = wintypes.DWORD()
    if error.errno is None or _get_doserrno(ctypes.byref(code)) or code.value == 0:
        return error
    return error_of(code.value, path)


def control(handle: int, code: int, given: bytes, room: int, *, path: str, target: str | None = None) -> bytes:
    """Ask the file system behind a handle for something that only it can do; the paths are for the error."""
    answer = ctypes.create_string_buffer(room) if room else None
    length = wintypes.DWORD()
    if not _DeviceIoControl(handle, code, given, len(given), answer, room, ctypes.byref(length), None):
        raise last_error(path, target)
    return answer.raw[: length.value] if answer is not None else b""
