"""Find the processes that have a file open, with the Restart Manager of Windows.

The Restart Manager reports names and process IDs without special rights:
https://learn.microsoft.com/windows/win32/rstmgr/about-restart-manager. If a query fails, no process is named. Folders
are not supported. A query that includes a folder or an inaccessible file fails as a whole, so each file is queried by
itself.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence

if sys.platform != "win32":  # pragma: no cover - mypy checks this module for Linux too
    raise ImportError("this module is for Windows")

from ctypes import wintypes

from .win32 import extended, function

_KEY_LENGTH = 33
_MORE_DATA = 234
# The list may grow between the query of its length and the query of its content.
_MAX_QUERIES = 3
_MAX_SHOWN = 5
_MAX_PATH = 32768
_NO_ATTRIBUTES, _FOLDER = 0xFFFFFFFF, 0x10
_QUERY_LIMITED_INFORMATION = 0x1000


class Process(ctypes.Structure):
    """An RM_PROCESS_INFO. It begins with an RM_UNIQUE_PROCESS."""

    _fields_ = (
        ("pid", wintypes.DWORD),
        ("started", wintypes.FILETIME),
        ("application", wintypes.WCHAR * 256),
        ("service", wintypes.WCHAR * 64),
        ("kind", ctypes.c_int),
        ("status", wintypes.ULONG),
        ("session", wintypes.DWORD),
        ("restartable", wintypes.BOOL),
    )


_WORD, _TEXT, _HANDLE = wintypes.DWORD, wintypes.LPWSTR, wintypes.HANDLE
_TO_WORD, _TO_COUNT = ctypes.POINTER(wintypes.DWORD), ctypes.POINTER(wintypes.UINT)
_NONE = (wintypes.UINT, wintypes.LPVOID)
_FILES = (wintypes.UINT, ctypes.POINTER(wintypes.LPCWSTR))
_RmStartSession = function("RmStartSession", _TO_WORD, _WORD, _TEXT, result=_WORD, library="rstrtmgr")
_RmEndSession = function("RmEndSession", _WORD, result=_WORD, library="rstrtmgr")
_RmRegisterResources = function("RmRegisterResources", _WORD, *_FILES, *_NONE, *_NONE, result=_WORD, library="rstrtmgr")
_RmGetList = function(
    "RmGetList", _WORD, _TO_COUNT, _TO_COUNT, ctypes.POINTER(Process), _TO_WORD, result=_WORD, library="rstrtmgr"
)
_GetFileAttributesW = function("GetFileAttributesW", wintypes.LPCWSTR, result=_WORD)
_OpenProcess = function("OpenProcess", _WORD, wintypes.BOOL, _WORD, result=_HANDLE)
_CloseHandle = function("CloseHandle", _HANDLE)
_QueryFullProcessImageNameW = function("QueryFullProcessImageNameW", _HANDLE, _WORD, _TEXT, _TO_WORD)


def holders_of(paths: Sequence[str], query: Callable[[str], list[Process]] | None = None) -> tuple[str, ...]:
    """Return up to five processes that have any of these files open, as ``"name.exe (pid 4711)"``.

    Returns an empty tuple if Windows does not report them. ``query`` replaces the Restart Manager in tests.
    """
    query = query or _holders_of_file
    processes = {process.pid: process for path in paths if not _is_folder(path) for process in query(path)}
    own = processes.pop(os.getpid(), None)
    names = [f"{_name(process)} (pid {pid})" for pid, process in processes.items()]
    if own is not None:
        names.append("this process")
    return tuple(names[:_MAX_SHOWN])


def _is_folder(path: str) -> bool:
    attributes: int = _GetFileAttributesW(extended(path))
    return attributes != _NO_ATTRIBUTES and bool(attributes & _FOLDER)


def _holders_of_file(path: str) -> list[Process]:
    session = wintypes.DWORD()
    if _RmStartSession(ctypes.byref(session), 0, ctypes.create_unicode_buffer(_KEY_LENGTH)):
        return []
    try:
        names = (wintypes.LPCWSTR * 1)(extended(path))
        if _RmRegisterResources(session, 1, names, 0, None, 0, None):
            return []
        return list_processes(session)
    finally:
        _RmEndSession(session)


def list_processes(session: wintypes.DWORD, get_list: Callable[..., int] = _RmGetList) -> list[Process]:
    """Return the processes that hold the resources of a session, or an empty list if Windows does not report them."""
    room = 0
    for _ in range(_MAX_QUERIES):
        needed, count, reasons = wintypes.UINT(), wintypes.UINT(room), wintypes.DWORD()
        processes = (Process * max(room, 1))()
        code = get_list(session, ctypes.byref(needed), ctypes.byref(count), processes, ctypes.byref(reasons))
        if code == 0:
            return list(processes[: count.value])
        if code != _MORE_DATA:
            break
        room = needed.value + 1
    return []


def _name(process: Process) -> str:
    """Return the file name of a process's program, for users to search for, or the display name of the process."""
    handle = _OpenProcess(_QUERY_LIMITED_INFORMATION, False, process.pid)
    if handle:
        try:
            size = wintypes.DWORD(_MAX_PATH)
            text = ctypes.create_unicode_buffer(size.value)
            if _QueryFullProcessImageNameW(handle, 0, text, ctypes.byref(size)):
                return os.path.basename(text.value)
        finally:
            _CloseHandle(handle)
    return process.application or process.service or "a process"
