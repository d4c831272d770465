"""What is the same until Windows starts again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

if sys.platform != "win32":  # pragma: no cover - mypy reads this module for Linux too
    raise ImportError("this is for Windows")

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


def boot_identity(query: Callable[..., int] | None = None) -> str | None:
    """Return what is the same until this machine starts again, ``None`` where the system does not say.

    It is the time of the boot to 100 ns. Setting the clock moves it, and moves its bias as much; the difference stays.
    ``query`` is the system's NtQuerySystemInformation.
    """
    answer = TimeOfDay()
    query = query or ctypes.WinDLL("ntdll").NtQuerySystemInformation
    if query(_TIME_OF_DAY, ctypes.byref(answer), ctypes.sizeof(answer), None) != 0 or answer.boot_time == 0:
        return None
    return f"{answer.boot_time - answer.boot_time_bias:x}"
