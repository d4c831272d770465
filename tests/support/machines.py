"""Machines that tests run caches on: a clock that does not wait, a boot that can happen, file calls that are counted.

They stand at the seam that the library has for it: ``Cache._system``.

    machine = Machine()
    cache = machine.cache(folder, offline=True)     # a Cache of this machine
    machine.reboot()
    machine.files.calls("open_read")                # the paths that were opened for reading, oldest first
    machine.clock.slept                             # the seconds of each sleep, none of which took any
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from wheelcache import Cache
from wheelcache._os.files import FileSystem, native
from wheelcache._os.system import System
from wheelcache._os.volume import Environment, Volume


class FakeClock:
    """A clock that stands still but for sleeping, which takes no time."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.slept: list[float] = []
        self._begun = now
        self._passed = 0.0
        self._lock = threading.Lock()

    def sleep(self, seconds: float, look_up: Callable[[], object] = lambda: None) -> None:
        look_up()
        with self._lock:
            self.slept.append(seconds)
            self._passed += seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._passed += seconds

    def monotonic(self) -> float:
        return self._passed

    def now(self) -> float:
        return self._begun + self._passed


class TickingClock(FakeClock):
    """A clock on which whatever is timed takes a hundredth of a second: the disk seems to be a slow one."""

    def monotonic(self) -> float:
        self.advance(0.01)
        return super().monotonic()


class CountingFiles:
    """A file layer that writes down every call before it passes it on."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self.log: list[tuple[str, str]] = []

    def with_modes_of(self, root: str) -> CountingFiles:
        self._files = self._files.with_modes_of(root) or self._files
        return self

    def __getattr__(self, name: str) -> Any:
        action = getattr(self._files, name)
        if not callable(action):
            return action

        def counted(*args: Any, **options: Any) -> Any:
            self.log.append((name, str(args[0])))
            return action(*args, **options)

        return counted

    def calls(self, name: str, ending: str = "") -> list[str]:
        """Return the paths of the calls of this name, those that end so."""
        return [path for called, path in self.log if called == name and path.endswith(ending)]

    def forget(self) -> None:
        """Count from zero again."""
        self.log.clear()


class Machine:
    """One machine: its files are counted, its clock never waits, and it boots when it is told.

    Attributes:
        holders: who is named when it is asked who holds a file, and ``asked`` when that was, and about which files.
        pid_namespace: within what process numbers mean something.
        volume: what is known of every volume.
        environment: what this process runs in.

    Args:
        files: the file layer below the counting, if not this machine's own.
        clock: if not one that stands still.
    """

    def __init__(self, files: FileSystem | None = None, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.files = CountingFiles(files or native())
        self.boot: str | None = "boot 1"
        self.pid_namespace = "namespace 1"
        self.holders: tuple[str, ...] = ()
        self.volume = Volume()
        self.environment = Environment()
        self.asked: list[tuple[float, tuple[str, ...]]] = []
        machine = self

        class MachineCache(Cache):
            _system = System(
                files=self.files,
                now=self.clock.now,
                monotonic=self.clock.monotonic,
                sleep=self.clock.sleep,
                boot=lambda: machine.boot,
                pid_namespace=lambda: machine.pid_namespace,
                holders=self._name_holders,
                volume=lambda path: machine.volume,
                environment=lambda: machine.environment,
            )

        self.cache_class: type[Cache] = MachineCache

    def _name_holders(self, paths: Sequence[str]) -> tuple[str, ...]:
        self.asked.append((self.clock.monotonic(), tuple(paths)))
        return self.holders

    def cache(self, path: str | os.PathLike[str], **options: Any) -> Cache:
        """Open a cache of this machine."""
        return self.cache_class(path, **options)

    def reboot(self) -> None:
        """Start again: what was trusted for this boot is not any more."""
        self.boot = f"{self.boot} and again"
