"""Locks: the owner of a lock file deletes its own file and no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faulty import FaultyFiles, Refuse, Refusing
from machines import Machine
from marks import not_on_windows

from wheelcache import Cache
from wheelcache._fs.lock import FileLock
from wheelcache._fs.robustio import RobustIO
from wheelcache._maintenance.sweep import LOCK_AGE
from wheelcache._operation import CancelToken, Operation
from wheelcache._store.layout import Layout


@pytest.fixture
def files() -> FaultyFiles:
    """The file layer of the machine."""
    return FaultyFiles()


def lock_of(files: FaultyFiles, path: Path, *tokens: CancelToken) -> FileLock:
    system = Machine(files).cache_class._system
    return FileLock(RobustIO(Operation(system, tokens=tokens)), str(path))


def replace(files: FaultyFiles, path: Path) -> FileLock:
    """Simulate another process that deletes a held lock file, as a user may do, and locks a new one."""
    files.inner.rename(str(path), f"{path}.away")
    other = lock_of(FaultyFiles(), path)
    assert other.try_acquire()
    return other


def test_a_lock_file_of_another_process_is_kept(files: FaultyFiles, tmp_path: Path) -> None:
    """If a lock file was replaced meanwhile, releasing the lock keeps the other process's file."""
    path = tmp_path / "key.lock"
    ours = lock_of(files, path)
    assert ours.try_acquire()
    theirs = replace(files, path)
    ours.release()
    assert path.exists()
    assert not lock_of(files, path).try_acquire()
    theirs.release()
    assert not path.exists()


def test_a_lock_file_that_cannot_be_examined_is_kept(files: FaultyFiles, tmp_path: Path) -> None:
    """If the owner of the file cannot be determined, the file is kept and the lock is released."""
    path = tmp_path / "key.lock"
    ours = lock_of(files, path)
    assert ours.try_acquire()
    files.plan = Refusing(Refuse("stat", "EIO"))
    ours.release()
    files.plan = Refusing()
    assert path.exists()
    again = lock_of(files, path)
    assert again.try_acquire()
    again.release()


def test_a_lock_is_released_after_a_cancellation(files: FaultyFiles, tmp_path: Path) -> None:
    """A cancelled operation releases its lock and deletes the file."""
    token = CancelToken()
    lock = lock_of(files, tmp_path / "key.lock", token)
    assert lock.try_acquire()
    token.cancel()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    assert files.open_handles == set()


@not_on_windows("Wine keeps a deleted name while the file is open")
def test_sweeping_keeps_a_lock_that_replaced_the_one_it_took(files: FaultyFiles, tmp_path: Path) -> None:
    """A sweep deletes an old lock file once, and keeps the one that another process creates at that moment."""
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        path = Path(Layout(str(cache.path)).lock("key"))
        path.parent.mkdir(exist_ok=True)
        path.touch()
        long_ago = machine.clock.now() - LOCK_AGE - 1
        os.utime(path, (long_ago, long_ago))
        others: list[FileLock] = []

        class Arriving(Refusing):
            def after(self, call: object) -> None:
                if call.operation == "unlink" and call.path == str(path) and not others:
                    others.append(lock_of(FaultyFiles(), path))
                    assert others[0].try_acquire()

        files.plan = Arriving()
        cache.prune()
        assert others
        assert path.exists()
        others[0].release()
    with Cache(cache.path) as after:
        after.prune()
