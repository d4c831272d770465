"""Who holds a file, on Windows: the Restart Manager, which installers ask for it, knows.

https://learn.microsoft.com/windows/win32/rstmgr/about-restart-manager. It needs no rights of its own to tell a name and
a number, and may refuse: then nobody is named. It knows files and not folders, and does not answer at all where one of
those it is asked about is a folder, or may not be looked at: so it is asked about each file for itself.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence

if sys.platform != "win32":  # pragma: no cover - mypy reads this module for Linux too
    raise ImportError("this is for Windows")

from ctypes import wintypes

from .win32 import extended, function

_KEY_LENGTH = 33
_MORE_DATA = 234
# A list that grows while it is asked for is asked for again; more often than this it says nothing.
_TRIES = 3
_MOST_SHOWN = 5
_LONGEST_PATH = 32768
_NO_ATTRIBUTES, _FOLDER = 0xFFFFFFFF, 0x10
_QUERY_LIMITED_INFORMATION = 0x1000


class Process(ctypes.Structure):
    """An RM_PROCESS_INFO, which begins with an RM_UNIQUE_PROCESS."""

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


def holders_of(paths: Sequence[str], ask: Callable[[str], list[Process]] | None = None) -> tuple[str, ...]:
    """Return who has one of these files open, as ``"name.exe (pid 4711)"``; nobody where that cannot be told."""
    ask = ask or _ask
    found = {process.pid: process for path in paths if not _is_folder(path) for process in ask(path)}
    own = found.pop(os.getpid(), None)
    shown = [f"{_name(process)} (pid {pid})" for pid, process in found.items()]
    if own is not None:
        shown.append("this process")
    return tuple(shown[:_MOST_SHOWN])


def _is_folder(path: str) -> bool:
    attributes: int = _GetFileAttributesW(extended(path))
    return attributes != _NO_ATTRIBUTES and bool(attributes & _FOLDER)


def _ask(path: str) -> list[Process]:
    session = wintypes.DWORD()
    if _RmStartSession(ctypes.byref(session), 0, ctypes.create_unicode_buffer(_KEY_LENGTH)):
        return []
    try:
        names = (wintypes.LPCWSTR * 1)(extended(path))
        if _RmRegisterResources(session, 1, names, 0, None, 0, None):
            return []
        return listed(session)
    finally:
        _RmEndSession(session)


def listed(session: wintypes.DWORD, get_list: Callable[..., int] = _RmGetList) -> list[Process]:
    """Return the processes that hold what a session is about; the system is asked until it is given enough room."""
    room = 0
    for _ in range(_TRIES):
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
    """Return the file name of a process's program, as people search for it, else what it is called."""
    handle = _OpenProcess(_QUERY_LIMITED_INFORMATION, False, process.pid)
    if handle:
        try:
            size = wintypes.DWORD(_LONGEST_PATH)
            text = ctypes.create_unicode_buffer(size.value)
            if _QueryFullProcessImageNameW(handle, 0, text, ctypes.byref(size)):
                return os.path.basename(text.value)
        finally:
            _CloseHandle(handle)
    return process.application or process.service or "a process"
