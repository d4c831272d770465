"""Who holds a file, on Windows: the Restart Manager, which installers ask for it, knows.

https://learn.microsoft.com/windows/win32/rstmgr/about-restart-manager. It knows files and not folders, needs no rights
of its own to tell a name and a number, and may refuse: then nobody is named.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

if sys.platform != "win32":  # pragma: no cover - mypy reads this module for Linux too
    raise ImportError("this is for Windows")

from ctypes import wintypes

from ._win32 import function

_KEY_LENGTH = 33
_MORE_DATA = 234
# A list that grows while it is asked for is asked for again; more often than this it says nothing.
_TRIES = 3
_MOST_SHOWN = 5
_LONGEST_PATH = 32768
_QUERY_LIMITED_INFORMATION = 0x1000


class _Process(ctypes.Structure):
    # RM_PROCESS_INFO, which begins with an RM_UNIQUE_PROCESS.
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
    "RmGetList", _WORD, _TO_COUNT, _TO_COUNT, ctypes.POINTER(_Process), _TO_WORD, result=_WORD, library="rstrtmgr"
)
_OpenProcess = function("OpenProcess", _WORD, wintypes.BOOL, _WORD, result=_HANDLE)
_CloseHandle = function("CloseHandle", _HANDLE)
_QueryFullProcessImageNameW = function("QueryFullProcessImageNameW", _HANDLE, _WORD, _TEXT, _TO_WORD)


def holders_of(paths: Sequence[str]) -> tuple[str, ...]:
    """Return who has one of these files open, as ``"name.exe (pid 4711)"``; nobody where that cannot be told."""
    found = _ask(paths)
    own = os.getpid()
    shown = [f"{_name(process)} (pid {process.pid})" for process in found if process.pid != own]
    if any(process.pid == own for process in found):
        shown.append("this process")
    return tuple(shown[:_MOST_SHOWN])


def _ask(paths: Sequence[str]) -> list[_Process]:
    session = wintypes.DWORD()
    if _RmStartSession(ctypes.byref(session), 0, ctypes.create_unicode_buffer(_KEY_LENGTH)):
        return []
    try:
        names = (wintypes.LPCWSTR * len(paths))(*paths)
        if _RmRegisterResources(session, len(paths), names, 0, None, 0, None):
            return []
        return _listed(session)
    finally:
        _RmEndSession(session)


def _listed(session: wintypes.DWORD) -> list[_Process]:
    room = 0
    for _ in range(_TRIES):
        needed, count, reasons = wintypes.UINT(), wintypes.UINT(room), wintypes.DWORD()
        processes = (_Process * max(room, 1))()
        code = _RmGetList(session, ctypes.byref(needed), ctypes.byref(count), processes, ctypes.byref(reasons))
        if code == 0:
            return list(processes[: count.value])
        if code != _MORE_DATA:
            break
        room = needed.value + 1
    return []


def _name(process: _Process) -> str:
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
