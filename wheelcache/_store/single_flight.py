"""Let only one thread or process at a time work on a key.

The locks only save work. Correctness never depends on them. A waiter observes the progress of the owner: the growth of
a partial file of the same wheel. The waiter continues without a lock if the owner makes no progress for
``lock_timeout`` seconds, or if locking is impossible. The result is still correct, because each process writes its own
partial file, and losing the race to commit is a success.
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

# Seconds between two attempts to acquire a lock.
_POLL_INTERVAL = 0.05


class SingleFlight:
    """The keys in progress in one cache folder.

    Args:
        layout: the paths of the cache folder.
        lock_timeout: the seconds that a waiter waits for an owner that makes no progress.
    """

    def __init__(self, layout: Layout, lock_timeout: float) -> None:
        self._layout = layout
        self._lock_timeout = lock_timeout
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the turns of the parent's threads. Those threads do not exist in this process."""
        self._lock = threading.Lock()
        self._threads: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def turn(self, fs: RobustIO, key: str, is_done: Callable[[], bool]) -> Iterator[None]:
        """Wait until the caller may work on a key within the block.

        The wait ends when no other thread or process works on the key, or when ``is_done`` reports that another one has
        done the work. The wait also ends if the owner makes no progress, or if the operation is cancelled.
        """
        owner = _Owner(fs, self._layout, key, self._lock_timeout, is_done)
        with self._among_threads(key) as thread_lock:
            is_acquired = owner.wait(lambda: thread_lock.acquire(blocking=False))
            try:
                with self._among_processes(fs, key, owner):
                    yield
            finally:
                if is_acquired:
                    thread_lock.release()

    @contextmanager
    def _among_threads(self, key: str) -> Iterator[threading.Lock]:
        # A listener may fork. A call in the child then replaces these attributes. So this turn keeps its own
        # references.
        mutex, threads = self._lock, self._threads
        with mutex:
            lock, users = threads.get(key, (threading.Lock(), 0))
            threads[key] = lock, users + 1
        try:
            yield lock
        finally:
            with mutex:
                lock, users = threads[key]
                if users == 1:
                    del threads[key]
                else:
                    threads[key] = lock, users - 1

    @contextmanager
    def _among_processes(self, fs: RobustIO, key: str, owner: _Owner) -> Iterator[None]:
        lock = FileLock(fs.without_waiting(), self._layout.lock(key))

        def try_acquire() -> bool:
            try:
                return lock.try_acquire()
            except OSError:
                return True  # locking is impossible here, so the work is done without a lock

        # Only errors of this lock are ignored, because an OSError of the caller's listener must end the call.
        owner.wait(try_acquire)
        try:
            yield
        finally:
            lock.release()


class _Owner:
    """The progress of the thread or process that works on a key, as a waiter observes it."""

    def __init__(self, fs: RobustIO, layout: Layout, key: str, timeout: float, is_done: Callable[[], bool]) -> None:
        self._fs = fs
        self._is_done = is_done
        self._folder, self._prefix = layout.partials(key)
        self._timeout = timeout
        # Both locks share these values, since the time without progress is counted across the two waits.
        self._progress: tuple[tuple[int, ...], int] | None = None
        self._since = 0.0

    def wait(self, try_acquire: Callable[[], bool]) -> bool:
        """Wait for a lock while its owner makes progress, and return whether the lock was acquired."""
        system = self._fs.system
        while not try_acquire():
            progress = self._observe()
            if progress != self._progress:
                self._progress, self._since = progress, system.monotonic()
            if system.monotonic() - self._since >= self._timeout or self._is_done():
                return False
            pids = progress[0]
            owner = f"for process {pids[0]}" if pids else "for another fetch of this wheel"
            self._fs.op.report(Phase.WAITING, detail=owner)
            self._fs.op.sleep(_POLL_INTERVAL)
        return True

    def _observe(self) -> tuple[tuple[int, ...], int]:
        """Return the processes that download this key, and the size of their partial files. A change means progress."""
        pids, size = [], 0
        try:
            for entry in self._fs.files.scan(self._folder):
                tag = OwnerTag.of(entry.name)
                # The process ID of an abandoned file is 0. A process that resumes the file renames it first.
                if entry.name.startswith(self._prefix) and tag is not None and tag.pid != 0:
                    pids.append(tag.pid)
                    size += self._fs.files.stat(os.path.join(self._folder, entry.name)).st_size
        except OSError:
            pass  # An incomplete observation can also be compared. The next one follows soon.
        return tuple(sorted(pids)), size
