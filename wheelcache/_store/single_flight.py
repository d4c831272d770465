"""Flight: one download of a wheel at a time, among the threads of this process and among processes.

It saves work and carries no correctness (rule 9). Who waits looks whether the owner makes progress: whether a partial
file of the same wheel grows. An owner who stands still for ``lock_timeout`` seconds, a lock that cannot be had, a lock
folder that refuses: each ends in going on without, and the result is still right, since every process writes a partial
file of its own and commits are made for races.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .._fs.lock import FileLock
from .._fs.robustio import RobustIO
from .._fs.tempnames import OwnerTag
from .._models import Phase
from .layout import Layout

# Between two looks at a lock that somebody holds.
_POLL = 0.05


class SingleFlight:
    """The downloads under way in one cache folder.

    Args:
        layout: its paths.
        lock_timeout: seconds that a waiter bears with an owner who makes no progress.
    """

    def __init__(self, layout: Layout, lock_timeout: float) -> None:
        self._layout = layout
        self._lock_timeout = lock_timeout
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the turns of the parent's threads, which do not exist in this process."""
        self._lock = threading.Lock()
        self._threads: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def turn(self, fs: RobustIO, key: str, is_there: Callable[[], bool]) -> Iterator[None]:
        """Wait until this caller may work on a key: nobody else does, or waiting for them is not worth it.

        ``is_there`` says whether the work is done: others do it too when who has the turn stands still.
        """
        watch = _Watch(fs, self._layout, key, self._lock_timeout, is_there)
        with self._among_threads(key) as thread_lock:
            mine = watch.wait(lambda: thread_lock.acquire(blocking=False))
            try:
                with self._among_processes(fs, key, watch):
                    yield
            finally:
                if mine:
                    thread_lock.release()

    @contextmanager
    def _among_threads(self, key: str) -> Iterator[threading.Lock]:
        with self._lock:
            lock, users = self._threads.get(key, (threading.Lock(), 0))
            self._threads[key] = lock, users + 1
        try:
            yield lock
        finally:
            with self._lock:
                lock, users = self._threads[key]
                if users == 1:
                    del self._threads[key]
                else:
                    self._threads[key] = lock, users - 1

    @contextmanager
    def _among_processes(self, fs: RobustIO, key: str, watch: _Watch) -> Iterator[None]:
        lock = FileLock(fs.without_waiting(), self._layout.lock(key))

        def had_or_hopeless() -> bool:
            try:
                return lock.try_acquire()
            except OSError:
                return True  # no lock can be had here: the work is done without

        # An OSError of the caller's listener goes through: it means stop.
        watch.wait(had_or_hopeless)
        try:
            yield
        finally:
            lock.release()


class _Watch:
    """A waiter's view of whoever works on a key: how far they are, and since when nothing has moved."""

    def __init__(self, fs: RobustIO, layout: Layout, key: str, timeout: float, is_there: Callable[[], bool]) -> None:
        self._fs = fs
        self._is_there = is_there
        self._folder, self._prefix = layout.partials(key)
        self._timeout = timeout
        # Looked at when there is somebody to wait for, and kept for the next lock: the time of standing still is one.
        self._seen: tuple[tuple[int, ...], int] | None = None
        self._since = 0.0

    def wait(self, try_acquire: Callable[[], bool]) -> bool:
        """Wait for a lock while its owner makes progress; return whether it was had."""
        system = self._fs.system
        while not try_acquire():
            now = self._look()
            if now != self._seen:
                self._seen, self._since = now, system.monotonic()
            if system.monotonic() - self._since >= self._timeout or self._is_there():
                return False
            owners = now[0]
            whom = f"for process {owners[0]}" if owners else "for another fetch of this wheel"
            self._fs.op.report(Phase.WAITING, detail=whom)
            self._fs.op.sleep(_POLL)
        return True

    def _look(self) -> tuple[tuple[int, ...], int]:
        """Return who downloads this key, and how far they are in all: when it changes, somebody makes progress."""
        owners, size = [], 0
        try:
            for entry in self._fs.files.scan(self._folder):
                stamp = OwnerTag.of(entry.name)
                # What was given up and lies there has no owner, and who takes it up writes to it under another name.
                if entry.name.startswith(self._prefix) and stamp is not None and stamp.pid != 0:
                    owners.append(stamp.pid)
                    size += self._fs.files.stat(os.path.join(self._folder, entry.name)).st_size
        except OSError:
            pass  # it is looked at again in a moment, and what was seen is still a state to compare with
        return tuple(sorted(owners)), size
