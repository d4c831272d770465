"""Determine the boot ID, the user and whether a process is alive, and end blocked reads, on POSIX systems."""

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
    with import_lock:  # on most systems, a hit does not need ctypes
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
    if pid <= 0:  # to kill(2), such numbers are process groups
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number that is too large for the system
        return False
    except PermissionError:
        return True
    return True


def pid_namespace() -> str:
    """Return an identifier of the PID namespace, or an empty string if it is unknown.

    Each container has its own namespace.
    """
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def user_id() -> str | None:
    """Return an identifier of the user whose rights this process has."""
    return f"uid {os.geteuid()}"


def interrupt_read(connection: socket.socket) -> None:
    """End a blocked read of a socket in another thread. The socket cannot be used afterwards."""
    with import_lock:  # already loaded, since the caller has a socket
        import socket

    try:
        # The method of the plain socket is called, because that of ssl.SSLSocket discards state that the other thread
        # is using.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass  # already closed
