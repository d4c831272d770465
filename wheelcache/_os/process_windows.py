"""What is the same until Windows starts again.

Processes and threads on Windows: whether one is there, and how one that waits for a socket is woken.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

if sys.platform != "win32":  # pragma: no cover - mypy reads this module for Linux too
    raise ImportError("this is for Windows")

from ctypes import wintypes
from typing import TYPE_CHECKING

from .win32 import function

if TYPE_CHECKING:
    import socket


# SystemTimeOfDayInformation of winternl.h.
_TIME_OF_DAY = 3


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
    """Return what is the same until this machine starts again, ``None`` where the system does not say.

    It is the time of the boot to 100 ns. Setting the clock moves it, and moves its bias as much; the difference stays.
    ``query`` is the system's NtQuerySystemInformation.
    """
    answer = TimeOfDay()
    query = query or ctypes.WinDLL("ntdll").NtQuerySystemInformation
    if query(_TIME_OF_DAY, ctypes.byref(answer), ctypes.sizeof(answer), None) != 0 or answer.boot_time == 0:
        return None
    return f"{answer.boot_time - answer.boot_time_bias:x}"


_OpenProcess = function("OpenProcess", wintypes.DWORD, wintypes.BOOL, wintypes.DWORD, result=wintypes.HANDLE)
_GetExitCodeProcess = function("GetExitCodeProcess", wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
_CloseHandle = function("CloseHandle", wintypes.HANDLE)
_CancelIoEx = function("CancelIoEx", wintypes.HANDLE, wintypes.LPVOID)
_GetComputerNameW = function("GetComputerNameW", wintypes.LPWSTR, ctypes.POINTER(wintypes.DWORD))

_QUERY_LIMITED_INFORMATION = 0x1000
# What OpenProcess says of a number that no process has, and GetExitCodeProcess of one that has not ended.
_INVALID_PARAMETER = 87
_STILL_ACTIVE = 259
_LONGEST_NAME = 256


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


def pid_namespace() -> str:
    """Return what process numbers mean something within: the machine, or a container, which has a name of its own.

    Containers that share the kernel of their machine share its boot too, and see no process of each other.
    """
    if not in_container():
        return ""
    size = wintypes.DWORD(_LONGEST_NAME)
    name = ctypes.create_unicode_buffer(size.value)
    return name.value if _GetComputerNameW(name, ctypes.byref(size)) else "a container"


def in_container() -> bool:
    """Return whether this process runs in a container: Windows writes down there which kind it is, and nowhere else."""
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control") as key:
            winreg.QueryValueEx(key, "ContainerType")
    except OSError:
        return False
    return True


def interrupt_read(connection: socket.socket) -> None:
    """End the reading of a socket in another thread.

    Shutting it wakes nobody who waits already, and closing it would leave its number to the next file or socket that is
    opened, which that thread might then read from. What waits is cancelled, in whichever thread it was begun:
    https://learn.microsoft.com/windows/win32/fileio/cancelioex-func
    """
    import socket  # who has one to give has imported it

    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass  # it is shut already
    number = connection.fileno()
    if number >= 0:
        _CancelIoEx(number, None)
