"""Junctions, and a stand-in for them under Wine 8, which cannot create any.

The stand-in is a symbolic link of Linux. Wine reports it as the folder that it leads to, as Windows reports a junction
to programs that ignore reparse points. Only its final path shows that it leads elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

if sys.platform == "win32":
    import _winapi

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    # STARTUPINFOW and PROCESS_INFORMATION, of which only the size of the first is set.
    _STARTUP_SIZE, _PROCESS_SIZE = 104, 24


def is_wine() -> bool:
    """Return whether this Windows is Wine."""
    return sys.platform == "win32" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


def plant_junction(link: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Create a junction, or its stand-in under Wine, where ``link`` does not exist."""
    if not is_wine():
        _winapi.CreateJunction(os.fspath(target), os.fspath(link))
        return
    unix = _kernel32.wine_get_unix_file_name
    unix.argtypes, unix.restype = (ctypes.c_wchar_p,), ctypes.c_char_p
    parent, name = os.path.split(os.fspath(link))
    arguments = [unix(os.fspath(path)).decode() for path in (target, parent)]
    startup, process = (ctypes.c_byte * _STARTUP_SIZE)(), (ctypes.c_byte * _PROCESS_SIZE)()
    startup[0] = _STARTUP_SIZE
    line = ctypes.create_unicode_buffer(f'Z:\\bin\\ln -s "{arguments[0]}" "{arguments[1]}/{name}"')
    # subprocess fails, because Wine returns no handle of a program of Linux.
    assert _kernel32.CreateProcessW(None, line, None, None, False, 0, None, None, startup, process)
    deadline = time.monotonic() + 20
    while not Path(link).exists():
        assert time.monotonic() < deadline, link
        time.sleep(0.005)
