"""Simulated machines for caches: a clock that never waits, reboots, and counted file operations.

They replace ``Cache._system``, the test hook of the library.

    machine = Machine()
    cache = machine.cache(folder, offline=True)     # a Cache of this machine
    machine.reboot()
    machine.files.calls("open_read")                # the paths that were opened for reading, oldest first
    machine.clock.slept                             # the seconds of each simulated sleep
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
    """A clock that advances only by sleeping, which takes no real time."""

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
        """Advance the clock."""
        with self._lock:
            self._passed += seconds

    def monotonic(self) -> float:
        return self._passed

    def now(self) -> float:
        return self._begun + self._passed


class TickingClock(FakeClock):
    """A clock that advances by 10 ms per reading, so that the disk appears to be slow."""

    def monotonic(self) -> float:
        self.advance(0.01)
        return super().monotonic()


class CountingFiles:
    """A file layer that records every call and then makes it."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self.log: list[tuple[str, str]] = []

    def confined_to(self, folder: str, layers: Sequence[str] = ()) -> CountingFiles:
        confined = CountingFiles(self._files.confined_to(folder, layers))
        confined.log = self.log
        return confined

    def close_folders(self) -> None:
        self._files.close_folders()

    def __getattr__(self, name: str) -> Any:
        action = getattr(self._files, name)
        if not callable(action):
            return action

        def counted(*args: Any, **options: Any) -> Any:
            self.log.append((name, str(args[0])))
            return action(*args, **options)

        return counted

    def calls(self, name: str, ending: str = "") -> list[str]:
        """Return the paths of the calls whose names are or end with this one."""
        return [path for called, path in self.log if called == name and path.endswith(ending)]

    def forget(self) -> None:
        """Forget all calls."""
        self.log.clear()


class Machine:
    """One machine: its file operations are counted, its clock never waits, and a test can reboot it.

    Attributes:
        holders: the reported holders of every file; ``asked`` has the time and the files of each query.
        pid_namespace: the process space.
        user: the user of every process.
        is_private: whether no other user can write to the folders of any cache.
        private_roots: the caches for which that is true nevertheless; ``judged`` has the folders of each query.
        volume: the description of every volume; ``volumes_asked`` has the path of each query.
        environment: the environment of this process.

    Args:
        files: the file layer below the counting; by default that of the real machine.
        clock: the clock; by default a :class:`FakeClock`.
    """

    def __init__(self, files: FileSystem | None = None, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.files = CountingFiles(files or native())
        self.boot: str | None = "boot 1"
        self.pid_namespace = "namespace 1"
        self.user: str | None = "anne"
        # A constant makes tests independent of the umask.
        self.is_private = True
        self.private_roots: set[str] = set()
        self.judged: list[tuple[str, ...]] = []
        self.holders: tuple[str, ...] = ()
        self.volume = Volume()
        self.volumes_asked: list[str] = []
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
                user=lambda: machine.user,
                is_private=self._judge,
                holders=self._name_holders,
                volume=self._describe_volume,
                environment=lambda: machine.environment,
            )

        self.cache_class: type[Cache] = MachineCache

    def _describe_volume(self, path: str) -> Volume:
        self.volumes_asked.append(path)
        return self.volume

    def _judge(self, paths: Sequence[str]) -> bool:
        self.judged.append(tuple(paths))
        return self.is_private or paths[0] in self.private_roots

    def _name_holders(self, paths: Sequence[str]) -> tuple[str, ...]:
        self.asked.append((self.clock.monotonic(), tuple(paths)))
        return self.holders

    def cache(self, path: str | os.PathLike[str], **options: Any) -> Cache:
        """Open a cache of this machine."""
        return self.cache_class(path, **options)

    def reboot(self) -> None:
        """Change the boot identity, so that the trust of the last boot ends."""
        self.boot = f"{self.boot} and again"
