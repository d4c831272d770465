"""Determine the boot ID, the user and whether a process is alive, and end blocked reads, on Windows."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

if sys.platform != "win32":  # pragma: no cover - mypy checks this module for Linux too
    raise ImportError("this module is for Windows")

from ctypes import wintypes
from typing import TYPE_CHECKING

from .._imports import import_lock
from .win32 import function

if TYPE_CHECKING:
    import socket

_OpenProcess = function("OpenProcess", wintypes.DWORD, wintypes.BOOL, wintypes.DWORD, result=wintypes.HANDLE)
_GetExitCodeProcess = function("GetExitCodeProcess", wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
_CloseHandle = function("CloseHandle", wintypes.HANDLE)
_CancelIoEx = function("CancelIoEx", wintypes.HANDLE, wintypes.LPVOID)
_GetComputerNameW = function("GetComputerNameW", wintypes.LPWSTR, ctypes.POINTER(wintypes.DWORD))

_TIME_OF_DAY = 3  # SystemTimeOfDayInformation of winternl.h
_QUERY_LIMITED_INFORMATION = 0x1000
_LARGEST_PROCESS_ID = 0xFFFFFFFF  # a DWORD
_INVALID_PARAMETER = 87  # OpenProcess: no process has this ID
_STILL_ACTIVE = 259  # GetExitCodeProcess: the process has not ended
_MAX_NAME = 256
_TOKEN_QUERY = 0x0008
_TOKEN_USER = 1
# The size of a buffer for a TOKEN_USER and the security identifier that it points to. The identifier has at most 68
# bytes.
_TOKEN_USER_SIZE = 256


class TimeOfDay(ctypes.Structure):
    """A SYSTEM_TIMEOFDAY_INFORMATION."""

    _fields_ = (
        ("boot_time", ctypes.c_int64),
        ("current_time", ctypes.c_int64),
        ("time_zone_bias", ctypes.c_int64),
        ("time_zone_id", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("boot_time_bias", ctypes.c_uint64),
        ("sleep_time_bias", ctypes.c_uint64),
    )


def boot_id(query: Callable[..., int] | None = None) -> str | None:
    """Return a string that changes with every boot of this machine, or ``None`` if the system has none.

    The string is the time of the boot, in units of 100 ns. Setting the clock changes this time and its bias by the same
    amount, so the difference of the two is used.

    Args:
        query: replaces NtQuerySystemInformation in tests.
    """
    information = TimeOfDay()
    query = query or ctypes.WinDLL("ntdll").NtQuerySystemInformation
    size = ctypes.sizeof(information)
    if query(_TIME_OF_DAY, ctypes.byref(information), size, None) != 0 or information.boot_time == 0:
        return None
    return f"{information.boot_time - information.boot_time_bias:x}"


def process_alive(pid: int) -> bool:
    """Return whether a process with this ID exists.

    ``os.kill`` must not be used, because signal 0 is Ctrl-C on Windows.
    """
    if not 0 < pid <= _LARGEST_PROCESS_ID:
        return False
    handle = _OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
    if not handle:
        return ctypes.get_last_error() != _INVALID_PARAMETER
    code = wintypes.DWORD()
    known = _GetExitCodeProcess(handle, ctypes.byref(code))
    _CloseHandle(handle)
    return not known or code.value == _STILL_ACTIVE


def pid_namespace() -> str:
    """Return the name of the container, or an empty string outside of one.

    Containers that share the kernel of their host also share its boot ID, but do not see each other's processes.
    """
    if not in_container():
        return ""
    size = wintypes.DWORD(_MAX_NAME)
    name = ctypes.create_unicode_buffer(size.value)
    return name.value if _GetComputerNameW(name, ctypes.byref(size)) else "a container"


def in_container() -> bool:
    """Return whether this process runs in a container, since only there the registry contains a container type."""
    with import_lock:
        import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control") as key:
            winreg.QueryValueEx(key, "ContainerType")
    except OSError:
        return False
    return True


@cache
def user_id() -> str | None:
    """Return the security identifier (SID) of the user of this process, or ``None`` if it is unknown.

    Environment variables such as USERNAME are not used, because a process can set them. The result is cached, because
    the user of a process cannot change.
    """
    words, texts, handles = map(ctypes.POINTER, (wintypes.DWORD, wintypes.LPWSTR, wintypes.HANDLE))
    advapi = "advapi32"
    current_process = function("GetCurrentProcess", result=wintypes.HANDLE)
    open_token = function("OpenProcessToken", wintypes.HANDLE, wintypes.DWORD, handles, library=advapi)
    query_token = function(
        "GetTokenInformation", wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD, words, library=advapi
    )
    to_text = function("ConvertSidToStringSidW", wintypes.LPVOID, texts, library=advapi)
    free = function("LocalFree", wintypes.LPVOID, result=wintypes.LPVOID)
    token, length, text = wintypes.HANDLE(), wintypes.DWORD(), wintypes.LPWSTR()
    if not open_token(current_process(), _TOKEN_QUERY, ctypes.byref(token)):
        return None
    try:
        information = ctypes.create_string_buffer(_TOKEN_USER_SIZE)
        if not query_token(token, _TOKEN_USER, information, _TOKEN_USER_SIZE, ctypes.byref(length)):
            return None
        # A TOKEN_USER begins with a pointer to the identifier.
        if not to_text(ctypes.c_void_p.from_buffer(information), ctypes.byref(text)):
            return None
        try:
            return text.value
        finally:
            free(text)
    finally:
        _CloseHandle(token)


def interrupt_read(connection: socket.socket) -> None:
    """End a blocked read of a socket in another thread. The socket cannot be used afterwards.

    On Windows, shutting the socket down does not end a read that has begun. Closing the socket would free its number.
    The other thread might then read from the next file or socket that is opened. So the read is cancelled:
    https://learn.microsoft.com/windows/win32/fileio/cancelioex-func
    """
    with import_lock:  # already loaded, since the caller has a socket
        import socket

    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass  # already shut down
    number = connection.fileno()
    if number >= 0:
        _CancelIoEx(number, None)
