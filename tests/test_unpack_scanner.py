"""Unpacking under a scanner that opens every new file and folder and holds it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from archives import FILENAME, Entry, wheel, wheel_entries
from folders import files_in

from wheelcache import Cache
from wheelcache._layout import is_spare

SCANNER = os.environ.get("WHEELCACHE_SCANNER", "")

pytestmark = pytest.mark.skipif(sys.platform != "win32" or not SCANNER, reason="the scanner is the Windows lab's")

ENTRIES = [Entry(f"demo/sub{n % 5}/{n}.py", b"x = %d\n" % n) for n in range(40)] + [
    Entry("demo/native.pyd", b"MZ" * 50)
]
ALL = {str(entry.name): entry.data for entry in wheel_entries(ENTRIES)}


@contextmanager
def scanner(folder: Path, log: Path, *options: str) -> Iterator[None]:
    """Hold all that appears below a folder for 30 seconds."""
    stop = log.with_suffix(".stop")
    with log.open("wb") as out:
        command = [SCANNER, "watch", str(folder), "--ms", "30000", *options, "--stop-file", str(stop)]
        process = subprocess.Popen([*command, "--seconds", "90"], stdout=out)
    try:
        while b"ready" not in log.read_bytes():
            time.sleep(0.01)
        yield
    finally:
        stop.touch()
        assert process.wait(20) == 0


@pytest.mark.parametrize("share", ["r", "rw"])
def test_everything_new_is_held(share: str, tmp_path: Path) -> None:
    """Nothing is renamed that anybody could hold, so the tree is made and linked out while everything is."""
    source = tmp_path / FILENAME
    source.write_bytes(wheel(ENTRIES))
    watched = tmp_path / "watched"
    watched.mkdir()
    log = tmp_path / "scanner.log"
    with Cache(watched / "cache", io_timeout=60) as cache:
        found = cache.put(source)
        with scanner(watched, log, "--share", share):
            tree = cache.unpack(found)
            site = cache.unpack(found, watched / "site")
            assert files_in(tree.path) == ALL
            # A temporary name of the copied library is held too, and cannot be deleted yet (rule 8).
            found_there = files_in(site.path)
            assert {name: data for name, data in found_there.items() if not is_spare(name.rpartition("/")[2])} == ALL
    held = log.read_text("utf-8", "replace")
    assert held.count("held ") > len(ALL), held
