"""Whether a process is there, on Windows."""

from __future__ import annotations

import ctypes
import sys

if sys.platform != "win32":  # pragma: no cover - mypy reads this module for Linux too
    raise ImportError("this is for Windows")

from ctypes import wintypes

from ._win32 import function

_OpenProcess = function("OpenProcess", wintypes.DWORD, wintypes.BOOL, wintypes.DWORD, result=wintypes.HANDLE)
_GetExitCodeProcess = function("GetExitCodeProcess", wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
_CloseHandle = function("CloseHandle", wintypes.HANDLE)

_QUERY_LIMITED_INFORMATION = 0x1000
# What OpenProcess says of a number that no process has, and GetExitCodeProcess of one that has not ended.
_INVALID_PARAMETER = 87
_STILL_ACTIVE = 259


def process_alive(pid: int) -> bool:
    """Return whether there is a process of this number. Never ``os.kill``: signal 0 is Ctrl-C here."""
    if pid <= 0:
        return False
    handle = _OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
    if not handle:
        return ctypes.get_last_error() != _INVALID_PARAMETER
    code = wintypes.DWORD()
    known = _GetExitCodeProcess(handle, ctypes.byref(code))
    _CloseHandle(handle)
    return not known or code.value == _STILL_ACTIVE


def process_space() -> str:
    """Return what process numbers mean something within: on Windows, all of the machine."""
    return ""
