"""What the stations need of the machine: files, clocks, sleep, boot identity. Injected: tests lend others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Protocol

from . import files
from .files import FileSystem

if sys.platform == "win32":
    from .process_windows import boot_id, interrupt_read, pid_namespace, process_alive
else:
    from .process_posix import boot_id, interrupt_read, pid_namespace, process_alive

if TYPE_CHECKING:
    import socket

    from .volume import Environment, Volume


# A wait is looked up from this often, so that a stop is not slept through.
_SLICE = 0.1


def _sleep(seconds: float, look_up: Callable[[], object] = lambda: None) -> None:
    """Wait so many seconds, unless ``look_up``, which is called now and then, raises something."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        look_up()
        time.sleep(min(left, _SLICE))


class Sleep(Protocol):
    """Waiting that can be ended."""

    def __call__(self, seconds: float, look_up: Callable[[], object] = ..., /) -> None:
        """Wait so many seconds, unless ``look_up``, which is called now and then, raises something."""
        ...


def holders_of(paths: Sequence[str]) -> tuple[str, ...]:
    """Return who has one of these files open, as ``"name.exe (pid 4711)"``; nobody where the system does not say.

    On Windows an open handle is what refuses an operation, and the system can name its owner. Elsewhere a handle
    refuses nothing, and who is to blame for a refusal of a network drive sits on another machine: nobody is asked.
    """
    if sys.platform == "win32":
        # Nobody needs it before something was refused.
        from . import holders_windows

        return holders_windows.holders_of(paths)
    return ()


# One boot is one answer, and a hit asks for it.
_boot = cache(boot_id)


def _volume_of(path: str) -> Volume:
    # Only what was refused, and doctor, ask.
    if sys.platform == "win32":
        from . import volume_windows as native
    else:
        from . import volume_posix as native
    return native.volume_of(path)


def _environment() -> Environment:
    if sys.platform == "win32":
        from . import volume_windows as native
    else:
        from . import volume_posix as native
    return native.environment()


@dataclass(frozen=True)
class System:
    """One machine.

    Attributes:
        files: its file layer.
        now: seconds since the epoch.
        monotonic: seconds that never go back.
        sleep: waits so many seconds, or until what it calls meanwhile raises something.
        boot: what is the same until the machine starts again, ``None`` where nobody knows.
        process_alive: whether there is a process of this number.
        pid_namespace: within what process numbers mean something, besides the boot.
        interrupt_read: ends the reading of a socket in another thread; it is of no further use then.
        holders: who holds these files, where the system says.
        volume: what is known of the volume behind a path.
        environment: what this process runs in.
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
    volume: Callable[[str], Volume] = _volume_of
    environment: Callable[[], Environment] = _environment
