"""Boot and processes on POSIX systems: the boot ID, whether a process is alive, and ending a blocked read."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from .._imports import import_lock

if sys.platform == "win32":  # pragma: no cover - mypy checks this module for Windows too
    raise ImportError("this module is for POSIX systems")

if TYPE_CHECKING:
    import socket


def boot_id() -> str | None:
    """Return a string that changes with every boot of this machine, or ``None`` if the system has none."""
    if sys.platform == "linux":
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
                return file.read().strip()
        except OSError:
            return None
    return _darwin_boot_id()


def _darwin_boot_id() -> str | None:
    with import_lock:  # most systems need no ctypes for a hit
        import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "sysctlbyname", None)
    text = ctypes.create_string_buffer(64)
    length = ctypes.c_size_t(len(text))
    if function is None or function(b"kern.bootsessionuuid", text, ctypes.byref(length), None, ctypes.c_size_t(0)):
        return None
    return text.value.decode("ascii", "replace") or None


def process_alive(pid: int) -> bool:
    """Return whether a process with this ID exists."""
    if pid <= 0:  # kill(2) takes such numbers for process groups
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def pid_namespace() -> str:
    """Return an identifier of the PID namespace, of which each container has its own. Empty if it is unknown."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def interrupt_read(connection: socket.socket) -> None:
    """End a blocked read of a socket in another thread. The socket cannot be used afterwards."""
    with import_lock:  # loaded already: the caller has a socket
        import socket

    try:
        # The method of the plain socket: that of ssl.SSLSocket discards its state while the other thread uses it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass  # already closed
