"""An error or Ctrl-C in one of the threads that link a tree ends the waits of the others."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from archives import FILENAME, Entry, wheel
from faulty import FaultyFiles, FileCall, Plan, os_error
from folders import files_in

from wheelcache import Cache
from wheelcache._os.system import System
from wheelcache._unpack import link_tree

ENTRIES = [Entry(f"demo/{name}/file.py", b"x = 1\n") for name in ("first", "held", "interrupted", "last")]
IO_TIMEOUT = 60.0


class HeldAndInterrupted(Plan):
    """One file is held forever. Once a thread waits for it, another thread raises an exception."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.is_waiting = threading.Event()

    def before(self, call: FileCall) -> None:
        if call.operation != "link" or "site" not in call.target:
            return
        if "held" in call.target:
            self.is_waiting.set()
            raise os_error(32, call.path, call.target)
        if "interrupted" in call.target:
            assert self.is_waiting.wait(IO_TIMEOUT)
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_exception_in_one_thread_ends_the_waiting_of_another(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call ends with the exception long before the timeout, and can be repeated."""
    monkeypatch.setattr(link_tree, "_SAMPLE_FILES", 1)
    monkeypatch.setattr(link_tree, "_SLOW_SECONDS", -1.0)
    files = FaultyFiles()

    class FaultyCache(Cache):
        _system = replace(System(), files=files)

    source = tmp_path / FILENAME
    source.write_bytes(wheel(ENTRIES))
    with FaultyCache(tmp_path / "cache", io_timeout=IO_TIMEOUT) as cache:
        found = cache.put(source)
        tree = cache.unpack(found)
        files.plan = HeldAndInterrupted(error)
        started = time.monotonic()
        with pytest.raises(type(error)):
            cache.unpack(found, tmp_path / "site", mode="hardlink")
        assert time.monotonic() - started < IO_TIMEOUT / 4
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("wheelcache")]
        files.plan = Plan()
        cache.unpack(found, tmp_path / "site", mode="hardlink")
        assert files_in(tmp_path / "site") == files_in(tree.path)
