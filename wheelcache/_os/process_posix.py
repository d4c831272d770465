"""TODO."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if sys.platform == "win32":  # pragma: no cover - mypy reads this module for Windows too
    raise ImportError("this is the file layer of the other systems")


if TYPE_CHECKING:
    import socket


def boot_id() -> str | None:
    """Return what is the same until this machine starts again, ``None`` where the system does not say."""
    if sys.platform == "linux":
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return None
    return _darwin_boot_session()


def _darwin_boot_session() -> str | None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "sysctlbyname", None)
    text = ctypes.create_string_buffer(64)
    length = ctypes.c_size_t(len(text))
    if function is None or function(b"kern.bootsessionuuid", text, ctypes.byref(length), None, ctypes.c_size_t(0)):
        return None
    return text.value.decode("ascii", "replace") or None


def process_alive(pid: int) -> bool:
    """Return whether there is a process of this number."""
    if pid <= 0:  # to kill(2) these are groups, and to us nobody
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def pid_namespace() -> str:
    """Return what process numbers mean something within: containers of one boot have a space each."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def interrupt_read(connection: socket.socket) -> None:
    """End the reading of a socket in another thread."""
    import socket  # who has one to give has imported it

    try:
        # The plain socket's: that of ssl forgets its state, under the hands of the thread that reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already
