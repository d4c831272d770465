"""System: all calls of the operating system that the library makes, as one object that tests can replace.

This module also chooses between POSIX and Windows. Only the file layer is chosen by :func:`.files.native`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Protocol

from .._imports import import_lock
from . import files
from .files import FileSystem

if sys.platform == "win32":
    from .access.windows import is_private
    from .process_windows import boot_id, interrupt_read, pid_namespace, process_alive, user_id
else:
    from .access.posix import is_private
    from .process_posix import boot_id, interrupt_read, pid_namespace, process_alive, user_id

if TYPE_CHECKING:
    import socket

    from .volume import Environment, Volume


# Seconds between two calls of the check during a wait.
_CHECK_INTERVAL = 0.1


class Sleep(Protocol):
    """A wait that can be ended early."""

    def __call__(self, seconds: float, check: Callable[[], object] = ..., /) -> None:
        """Wait this many seconds. ``check`` is called every 0.1 s, and ends the wait by raising an exception."""
        ...


def _sleep(seconds: float, check: Callable[[], object] = lambda: None) -> None:
    end = time.monotonic() + seconds
    while (remaining := end - time.monotonic()) > 0:
        check()
        time.sleep(min(remaining, _CHECK_INTERVAL))


# The boot ID is cached, because every hit needs it and it does not change while this process runs.
_boot = cache(boot_id)


def holders_of(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the processes that have any of these files open, as ``"name.exe (pid 4711)"``.

    Returns an empty tuple on POSIX systems. There, an open file does not prevent any operation. A network drive may
    refuse an operation because of a holder on another machine.
    """
    if sys.platform == "win32":
        with import_lock:  # needed only after a refusal
            from . import holders_windows

        return holders_windows.holders_of(paths)
    return ()


def _volume_of(path: str) -> Volume:
    with import_lock:  # needed only after a refusal, and by doctor
        if sys.platform == "win32":
            from . import volume_windows as native
        else:
            from . import volume_posix as native
    return native.volume_of(path)


def _environment() -> Environment:
    with import_lock:  # needed only by doctor
        if sys.platform == "win32":
            from . import volume_windows as native
        else:
            from . import volume_posix as native
    return native.environment()


@dataclass(frozen=True)
class System:
    """The operating system and the clock of one machine.

    Attributes:
        files: the file layer.
        now: returns the seconds since the epoch.
        monotonic: returns seconds from a clock that is never set back.
        sleep: waits for some seconds, as described in :class:`Sleep`.
        boot: returns a string that changes with every boot, or ``None`` if the system has none.
        process_alive: returns whether a process with this ID exists in our PID namespace.
        pid_namespace: returns an identifier of the PID namespace of this process, or an empty string if it is unknown.
        interrupt_read: ends a blocked read of a socket in another thread. The socket cannot be used afterwards.
        holders: returns the processes that have any of these files open, as :func:`holders_of` does.
        user: returns an identifier of the user whose rights this process has, or ``None`` if it is unknown.
        is_private: returns whether no other user except an administrator can write to any of these folders. Links are
            followed, and missing folders are skipped. A folder that cannot be examined counts as shared.
        volume: returns the facts about the volume behind a path.
        environment: returns the facts about the environment of this process.
    """

    files: FileSystem = field(default_factory=files.native)
    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Sleep = _sleep
    boot: Callable[[], str | None] = _boot
    process_alive: Callable[[int], bool] = process_alive
    pid_namespace: Callable[[], str] = pid_namespace
    interrupt_read: Callable[[socket.socket], None] = interrupt_read
    holders: Callable[[Sequence[str]], tuple[str, ...]] = holders_of
    user: Callable[[], str | None] = user_id
    is_private: Callable[[Sequence[str]], bool] = is_private
    volume: Callable[[str], Volume] = _volume_of
    environment: Callable[[], Environment] = _environment

    def with_files(self, files: FileSystem) -> System:
        """Return a copy with another file layer."""
        # A call of dataclasses.replace would take a tenth of the time of opening a cache.
        copy = object.__new__(System)
        copy.__dict__.update(self.__dict__, files=files)
        return copy
