"""Unpacking under a scanner that opens every new file and folder and holds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from archives import FILENAME, Entry, wheel, wheel_entries
from faulty import FaultyFiles
from folders import files_in
from machines import Machine
from marks import with_scanner
from scanner import SHARES, holding, watching

from wheelcache import Cache, LinkMode
from wheelcache._fs.tempnames import is_spare
from wheelcache._os.system import System

pytestmark = with_scanner

MODULES = [Entry(f"demo/sub{n % 5}/{n}.py", b"x = %d\n" % n) for n in range(40)]
LIBRARY = Entry("demo/native.pyd", b"MZ" * 50)


def lasting(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, without temporary files of copied libraries, which are held too."""
    return {name: data for name, data in files_in(folder).items() if not is_spare(name.rpartition("/")[2])}


def source_of(entries: list[Entry], folder: Path) -> Path:
    source = folder / FILENAME
    source.write_bytes(wheel(entries))
    return source


@pytest.mark.parametrize("share", [share for share in SHARES if share != "none"])
def test_everything_new_is_held(share: str, tmp_path: Path) -> None:
    """No step renames a file that could be held, so the tree is made and linked out without a wait."""
    entries = [*MODULES, LIBRARY]
    everything = {str(entry.name): entry.data for entry in wheel_entries(entries)}
    out = tmp_path / "out"
    out.mkdir()
    machine = Machine()
    with machine.cache(tmp_path / "cache") as cache:
        found = cache.put(source_of(entries, tmp_path))
        # Wine reports nothing about folders that existed before the watch began: the wheel itself is not held.
        with watching(cache.path / "v1", share=share) as inside, watching(out, share=share) as outside:
            tree = cache.unpack(found)
            site = cache.unpack(found, out / "site")
            assert cache.unpack(found).path == tree.path
            assert machine.clock.slept == []
            assert site.mode is LinkMode.HARDLINK
            assert files_in(tree.path) == lasting(site.path) == everything
            for folder, scanner in ((tree.path, inside), (site.path, outside)):
                for path in (folder, folder / "demo", *(folder / name for name in everything)):
                    scanner.wait_for(f"held {path}")
            inside.wait_for(f"held {tree.path}.json")
    with Cache(cache.path) as after:
        assert after.unpack(found).path == tree.path
        assert lasting(site.path) == everything


def test_a_scanner_that_shares_nothing_does_not_prevent_unpacking(tmp_path: Path) -> None:
    """If every new file and folder is held without sharing, the tree is made without a wait."""
    machine = Machine()
    with machine.cache(tmp_path / "cache") as cache:
        found = cache.put(source_of(MODULES, tmp_path))
        with watching(cache.path / "v1", share="none") as scanner:
            tree = cache.unpack(found)
            assert machine.clock.slept == []
            scanner.wait_for(f"held {tree.path}")
            scanner.wait_for(f"held {tree.path}.json")
        assert files_in(tree.path) == {str(entry.name): entry.data for entry in wheel_entries(MODULES)}
    with Cache(cache.path) as after:
        assert after.unpack(found).path == tree.path


def test_reading_a_held_marker_waits_for_its_holder(tmp_path: Path) -> None:
    """If the marker is held without sharing, the call waits, and does not make the tree again."""
    entries = [*MODULES, LIBRARY]
    files = FaultyFiles()

    class RealCache(Cache):
        _system = replace(System(), files=files)

    with RealCache(tmp_path / "cache") as cache:
        found = cache.put(source_of(entries, tmp_path))
        tree = cache.unpack(found)
        held = [f"{tree.path}.json", *(path for path in tree.path.rglob("*") if path.is_file())]
        files.trace.clear()
        with holding(*held, share="none", ms=3000):
            site = cache.unpack(found, tmp_path / "site")
        assert files.count("read_small", "*trees*.json") > 1
        assert files.count("mkdir", "*trees*") == 0
    assert site.mode is LinkMode.HARDLINK
    assert files_in(site.path) == {str(entry.name): entry.data for entry in wheel_entries(entries)}
