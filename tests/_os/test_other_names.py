"""A cache changes no file that has another name, since another user may have put a file of this user into its place."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import FILENAME, Entry, wheel
from machines import Machine
from marks import not_on_windows

from wheelcache import Cache
from wheelcache._hashes import sha256_of
from wheelcache._os.confined.entries import UnsafePathError
from wheelcache._os.files import FileSystem, native

pytestmark = not_on_windows("a hard link there keeps the access list of the cache")

WHEEL = wheel([Entry("demo/a.py", b"a = 1\n"), Entry("demo/empty.py", b"")])


def write(files: FileSystem, path: str) -> None:
    with files.open_write(path) as file:
        file.write(b"changed")


def append(files: FileSystem, path: str) -> None:
    with files.open_append(path) as file:
        file.write(b"changed")


@pytest.mark.parametrize(
    "change",
    [
        write,
        append,
        lambda files, path: files.touch(path, 1.0),
        lambda files, path: files.make_read_only(path, executable=True),
    ],
    ids=["open_write", "open_append", "touch", "make_read_only"],
)
def test_a_file_with_another_name_is_not_changed(change: Callable[[FileSystem, str], None], tmp_path: Path) -> None:
    """The content, the mode and the time of a private file that was linked into the cache remain."""
    private, version = tmp_path / "private", tmp_path / "cache" / "v1"
    version.mkdir(parents=True)
    private.write_bytes(b"mine")
    planted = version / "file"
    os.link(private, planted)
    before = private.stat()
    files = native().confined_to(str(version))
    with pytest.raises(UnsafePathError, match="another name"):
        change(files, str(planted))
    after = private.stat()
    assert private.read_bytes() == b"mine"
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    private.unlink()
    change(files, str(planted))
    changed = planted.stat()
    assert (changed.st_mode, changed.st_mtime_ns) != (before.st_mode, before.st_mtime_ns)


@pytest.mark.parametrize("name", ["counters", "record", "marker"])
def test_an_installed_file_that_was_moved_in_the_cache_is_not_written(name: str, tmp_path: Path) -> None:
    """Another user renames a hard-linked file of a tree to a name that wheelcache writes to."""
    with Cache(tmp_path / "cache") as cache:
        found = cache.put(io.BytesIO(WHEEL), filename=FILENAME)
        tree = cache.unpack(found).path
        cache.unpack(found, tmp_path / "site", mode="hardlink")
    (counters,) = (tmp_path / "cache" / "v1").glob("*.log")
    targets = {"counters": counters, "record": Path(f"{found.path}.json"), "marker": Path(f"{tree}.json")}
    targets["record"] = next(found.path.parent.glob("*.json"))
    os.replace(tree / "demo" / "a.py", targets[name])
    installed = tmp_path / "site" / "demo" / "a.py"
    installed.chmod(0o644)
    before = installed.stat()
    with Cache(tmp_path / "cache") as cache:
        cache.put(io.BytesIO(WHEEL), filename=FILENAME)
        cache.get(f"sha256:{sha256_of(WHEEL)}")
        cache.unpack(found)
        cache.prune(max_age=1e9)
        cache.verify(repair=True)
    after = installed.stat()
    assert installed.read_bytes() == b"a = 1\n"
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_lost_permissions_of_a_file_with_another_name_are_restored_in_a_new_tree(
    machine: Machine, tmp_path: Path
) -> None:
    """An empty private file has the bytes of an empty module, and keeps its mode when the tree is compared."""
    private = tmp_path / "private"
    private.touch(mode=0o755)
    with machine.cache(tmp_path / "cache") as cache:
        found = cache.put(io.BytesIO(WHEEL), filename=FILENAME)
        module = cache.unpack(found).path / "demo" / "empty.py"
        module.unlink()
        os.link(private, module)
    machine.reboot()
    with machine.cache(tmp_path / "cache") as cache:
        module = cache.unpack(found).path / "demo" / "empty.py"
        assert stat.S_IMODE(private.stat().st_mode) == 0o755
        assert not module.stat().st_mode & 0o111
