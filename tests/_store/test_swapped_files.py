"""Shared caches: another user replaces or changes a wheel between two steps of a call."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import FILENAME, Entry, wheel
from faulty import Doing, FaultyFiles, FileCall
from folders import files_in
from machines import Machine
from marks import not_on_windows

from wheelcache import CachedWheel, CommitError, WheelCacheError
from wheelcache._hashes import sha256_of

pytestmark = not_on_windows("an open file cannot be replaced there")

GOOD = wheel([Entry("demo/a.py", b"good = 1\n"), Entry("demo/b.py", b"b = 1234\n")])
EVIL = wheel([Entry("demo/a.py", b"evil = 1\n"), Entry("demo/b.py", b"b = 1234\n")])
DIGEST = f"sha256:{sha256_of(GOOD)}"


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
def shared(files: FaultyFiles) -> Machine:
    """A machine on which other users can write to every cache."""
    machine = Machine(files)
    machine.is_private = False
    return machine


def replace(path: str) -> None:
    """Put another file with the same size and time stamp in place of a file."""
    stat = os.stat(path)
    Path(path + ".new").write_bytes(EVIL)
    os.utime(path + ".new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(path + ".new", path)


def overwrite(path: str) -> None:
    """Write other bytes into a file, through a handle of another user."""
    with Path(path).open("r+b") as file:
        file.write(EVIL)


def good(found: CachedWheel | None) -> bool:
    return found is None or found.path.read_bytes() == GOOD


@pytest.mark.parametrize("change", [replace, overwrite])
def test_a_temporary_file_changed_before_its_commit_is_not_returned(
    change: Callable[[str], None], files: FaultyFiles, shared: Machine, tmp_path: Path
) -> None:
    """The bytes are hashed while they are written, and once more under their final name."""
    assert len(GOOD) == len(EVIL)
    with shared.cache(tmp_path / "cache") as cache:
        files.plan = Doing("rename", lambda call: change(call.path), path="*.whl")
        with pytest.raises(CommitError, match="changed the file"):
            cache.put(io.BytesIO(GOOD), filename=FILENAME, hashes=DIGEST)
        assert cache.get(DIGEST) is None
        assert good(cache.put(io.BytesIO(GOOD), filename=FILENAME, hashes=DIGEST))
        assert good(cache.get(DIGEST))


def test_a_wheel_swapped_while_it_is_hashed_is_not_trusted(files: FaultyFiles, shared: Machine, tmp_path: Path) -> None:
    """The fingerprint belongs to the file that was hashed, so that the swapped file is hashed again."""
    with shared.cache(tmp_path / "cache") as cache:
        blob = str(cache.put(io.BytesIO(GOOD), filename=FILENAME).path)
    kept = str(tmp_path / "kept.whl")
    shutil.copy2(blob, kept)
    replace(blob)

    def swap_back(_: FileCall) -> None:
        os.rename(blob, kept + ".evil")
        os.rename(kept, blob)

    with shared.cache(tmp_path / "cache") as cache:
        files.plan = Doing("open_read", swap_back, path="*.whl")
        assert good(cache.get(DIGEST))
        os.replace(kept + ".evil", blob)
        assert good(cache.get(DIGEST))


@pytest.mark.parametrize("dest", [None, "site"])
def test_a_wheel_swapped_before_it_is_unpacked_is_refused(
    dest: str | None, files: FaultyFiles, shared: Machine, tmp_path: Path
) -> None:
    """The wheel that is unpacked is the file that was hashed."""
    target = dest and tmp_path / dest
    with shared.cache(tmp_path / "cache") as cache:
        found = cache.put(io.BytesIO(GOOD), filename=FILENAME)
        files.plan = Doing("open_read", lambda call: replace(call.path), path="*.whl")
        with pytest.raises(FileNotFoundError):
            cache.unpack(found, target)
        assert target is None or not target.exists()


def test_a_wheel_changed_while_it_is_unpacked_is_refused(files: FaultyFiles, shared: Machine, tmp_path: Path) -> None:
    """A tree is discarded if the wheel was written to meanwhile."""
    with shared.cache(tmp_path / "cache") as cache:
        found = cache.put(io.BytesIO(GOOD), filename=FILENAME)
        files.plan = Doing("create", lambda _: overwrite(str(found.path)), path="*/demo/a.py")
        with pytest.raises(FileNotFoundError):
            cache.unpack(found)
        assert not files_in(tmp_path / "cache" / "v1" / "trees")


@pytest.mark.parametrize("moment", ["*.whl", "*/demo/a.py"])
def test_a_wheel_whose_owner_resets_its_time_is_not_unpacked(
    moment: str, files: FaultyFiles, shared: Machine, tmp_path: Path
) -> None:
    """In a shared cache, the wheel is hashed while it is unpacked, and its change time is compared."""
    with shared.cache(tmp_path / "cache") as cache:
        found = cache.put(io.BytesIO(GOOD), filename=FILENAME)

        def change(_: FileCall) -> None:
            stat = found.path.stat()
            overwrite(str(found.path))
            os.utime(found.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

        files.plan = Doing("open_read" if moment == "*.whl" else "create", change, path=moment)
        with pytest.raises(FileNotFoundError):
            cache.unpack(found, tmp_path / "site")
        assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("dest", [None, "site"])
def test_a_file_swapped_while_its_tree_is_filled_is_refused(
    dest: str | None, files: FaultyFiles, shared: Machine, tmp_path: Path
) -> None:
    """The fingerprint in a manifest belongs to the file that was written."""

    def swap(call: FileCall) -> None:
        stat = os.stat(call.path)
        Path(call.path + ".new").write_bytes(b"evil = 1\n")
        os.chmod(call.path + ".new", stat.st_mode)
        os.utime(call.path + ".new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(call.path + ".new", call.path)

    with shared.cache(tmp_path / "cache") as cache:
        found = cache.put(io.BytesIO(GOOD), filename=FILENAME)
        files.plan = Doing("file.close", swap, path="*/demo/a.py", after=True)
        with pytest.raises(CommitError, match="replaced the file"):
            cache.unpack(found, dest and tmp_path / dest)
        done = cache.unpack(found, dest and tmp_path / dest)
        assert (done.path / "demo" / "a.py").read_bytes() == b"good = 1\n"


def test_files_of_a_tree_with_equal_stamps_are_not_mistaken(
    files: FaultyFiles, shared: Machine, tmp_path: Path
) -> None:
    """After a hard link, the inode is compared, since two files of a tree may have the same size and time stamp."""
    with shared.cache(tmp_path / "cache") as cache:
        found = cache.put(io.BytesIO(GOOD), filename=FILENAME)
        folder = cache.unpack(found).path / "demo"
        for name in ("a.py", "b.py"):
            os.utime(folder / name, (1_700_000_000, 1_700_000_000))
        cache.unpack(found)

        def exchange(_: FileCall) -> None:
            os.rename(folder / "a.py", tmp_path / "a")
            os.rename(folder / "b.py", folder / "a.py")
            os.rename(tmp_path / "a", folder / "b.py")

        files.plan = Doing("link", exchange, path="*/demo/a.py")
        try:
            cache.unpack(found, tmp_path / "site", mode="hardlink")
        except WheelCacheError:
            pass
        left = tmp_path / "site" / "demo" / "a.py"
        assert not left.exists() or left.read_bytes() == b"good = 1\n"


@pytest.mark.parametrize("mode", ["auto", "copy", "hardlink"])
def test_a_wheel_changed_after_it_was_returned_is_not_linked(
    mode: str, files: FaultyFiles, shared: Machine, tmp_path: Path
) -> None:
    """In a shared cache, the new link or copy of a wheel is hashed, and deleted if it has other bytes."""
    with shared.cache(tmp_path / "cache") as cache:
        found = cache.put(io.BytesIO(GOOD), filename=FILENAME)
        replace(str(found.path))
        for call in (cache.link, lambda wheel, dest, mode: cache.export(dest, [wheel], mode=mode)):
            with pytest.raises(CommitError, match="changed the wheel"):
                call(found, tmp_path / "out", mode=mode)
            assert not files_in(tmp_path / "out")
    assert not files.open_handles
