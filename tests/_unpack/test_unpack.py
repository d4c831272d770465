"""Unpacking: the tree in the cache, when it is trusted, and how its files are linked out."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import FILENAME, INFO, Entry, archive, wheel, wheel_entries
from faulty import FaultyFiles, FaultyFolder, Refuse, Refusing
from folders import files_in, listing
from machines import Machine, TickingClock
from marks import not_on_windows, on_windows

from wheelcache import Cache, CachedWheel, Cause, CommitError, InvalidWheelError, LinkMode, ReadOnlyError
from wheelcache._os.files import native

FILES = {
    "demo/__init__.py": b"",
    "demo/a.py": b"a = 1\n",
    "demo/sub/b.py": b"b = 2\n" * 1000,
    "demo/run.sh": b"#!/bin/sh\n",
    "demo/native.pyd": b"MZ" + bytes(100),
    "top.py": b"top = 1\n",
}
ENTRIES = [Entry(name, data, mode=0o100755 if name.endswith(".sh") else 0o100644) for name, data in FILES.items()]
WHEEL = wheel(ENTRIES)
ALL = {str(entry.name): entry.data for entry in wheel_entries(ENTRIES)}

WRITE_PROTECTED = 19
OTHER = "other-1.0-py3-none-any.whl"
OTHER_WHEEL = archive(wheel_entries([Entry("other.py"), Entry("shared/x.py")], info="other-1.0.dist-info"))


@pytest.fixture
def found(cache: Cache, tmp_path: Path) -> CachedWheel:
    """The wheel, in the cache."""
    return put(cache, tmp_path, FILENAME, WHEEL)


def put(cache: Cache, tmp_path: Path, filename: str, data: bytes) -> CachedWheel:
    source = tmp_path / "source" / filename
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(data)
    return cache.put(source)


def tree_of(cache: Cache, found: CachedWheel) -> Path:
    return cache.unpack(found).path


def marker_of(tree: Path) -> Path:
    return tree.with_name(tree.name + ".json")


def edit(path: Path, data: bytes) -> None:
    """Overwrite a file of the cache, which no program should do."""
    path.chmod(0o644)
    path.write_bytes(data)


# The tree


def test_the_tree_is_the_wheel(cache: Cache, found: CachedWheel) -> None:
    """Without a folder, the tree in the cache is returned, with exactly the files of the wheel."""
    unpacked = cache.unpack(found)
    assert files_in(unpacked.path) == ALL
    assert (sorted(unpacked.files), unpacked.mode) == (sorted(ALL), None)
    assert os.fspath(unpacked) == str(unpacked.path)
    assert unpacked.path.is_relative_to(cache.path / "v1" / "trees")


def test_a_tree_is_made_once(cache: Cache, found: CachedWheel, machine: Machine) -> None:
    """The second call writes nothing and reads no file but the marker."""
    tree = tree_of(cache, found)
    before = listing(cache.path)
    machine.files.forget()
    assert tree_of(cache, found) == tree
    assert machine.files.calls("read_small") == [str(marker_of(tree))]
    assert machine.files.calls("open_read") == machine.files.calls("create") == []
    assert listing(cache.path) == before


@not_on_windows("files have no permissions there, and a read-only file cannot be deleted")
def test_files_of_a_tree_are_protected(cache: Cache, found: CachedWheel) -> None:
    """No file is writable, and executable files can be executed by every user who can read them."""
    tree = tree_of(cache, found)
    for path in tree.rglob("*"):
        if path.is_file():
            mode = path.stat().st_mode
            assert mode & 0o222 == 0
            assert bool(mode & 0o100) == (path.name == "run.sh")


@pytest.mark.parametrize("damage", ["edited", "same size", "shorter", "gone", "a folder instead"])
def test_a_damaged_tree_is_made_again(damage: str, cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """A missing or altered file is noticed before any file is returned."""
    path = tree_of(cache, found) / "demo" / "a.py"
    if damage in {"gone", "a folder instead"}:
        path.unlink()
        if damage == "a folder instead":
            path.mkdir()
    else:
        edit(path, {"edited": b"evil = 1\n", "same size": b"a = 2\n", "shorter": b"a"}[damage])
    cache.unpack(found, tmp_path / "site")
    assert files_in(tmp_path / "site") == ALL
    assert files_in(tree_of(cache, found)) == ALL


@pytest.mark.parametrize("marker", ["gone", "empty", "torn", "zeros", "of another wheel"])
def test_a_tree_without_a_good_marker_is_none(marker: str, cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """If the marker is invalid or missing, a new tree is made beside the old folder."""
    tree = tree_of(cache, found)
    path = marker_of(tree)
    data = path.read_bytes()
    other = marker_of(tree_of(cache, put(cache, tmp_path, OTHER, OTHER_WHEEL))).read_bytes()
    path.unlink()
    if marker != "gone":
        path.write_bytes(
            {"empty": b"", "torn": data[: len(data) // 2], "zeros": bytes(len(data)), "of another wheel": other}[marker]
        )
    (tree / "demo" / "a.py").chmod(0o644)
    (tree / "demo" / "a.py").write_bytes(b"evil = 1\n")
    again = cache.unpack(found)
    assert again.path != tree
    assert files_in(again.path) == ALL


def test_after_a_reboot_every_file_is_hashed_once(cache: Cache, found: CachedWheel, machine: Machine) -> None:
    """Fingerprints of another boot are not trusted: the wheel and all files are hashed, and the marker is renewed."""
    tree = tree_of(cache, found)
    machine.reboot()
    machine.files.forget()
    assert tree_of(cache, found) == tree
    opened = machine.files.calls("open_read")
    assert set(opened) == {str(found.path), *(str(tree / name) for name in ALL)}
    assert len(opened) == 2 + len(ALL)  # the wheel is hashed, and then its RECORD is read
    machine.files.forget()
    assert tree_of(cache, found) == tree
    assert machine.files.calls("open_read") == []


def test_after_a_reboot_a_file_with_other_bytes_is_noticed(cache: Cache, found: CachedWheel, machine: Machine) -> None:
    """A file of zeros with the right size and time stamp, as after a power cut, is not returned."""
    path = tree_of(cache, found) / "demo" / "sub" / "b.py"
    stamp = path.stat().st_mtime_ns
    edit(path, bytes(path.stat().st_size))
    os.utime(path, ns=(stamp, stamp))
    machine.reboot()
    assert files_in(tree_of(cache, found)) == ALL


def test_full_verification_hashes_every_time(machine: Machine, tmp_path: Path) -> None:
    """With verify="full" an edit with the old size and time stamp is noticed."""
    with machine.cache(tmp_path / "cache", verify="full") as cache:
        found = put(cache, tmp_path, FILENAME, WHEEL)
        path = tree_of(cache, found) / "demo" / "a.py"
        stamp = path.stat().st_mtime_ns
        edit(path, b"a = 9\n")
        os.utime(path, ns=(stamp, stamp))
        assert files_in(tree_of(cache, found)) == ALL


@not_on_windows("files have no permissions there")
def test_executable_bits_survive_an_archive_that_lost_them(
    cache: Cache, found: CachedWheel, machine: Machine, tmp_path: Path
) -> None:
    """Executable bits are recorded in the marker, and restored from it."""
    tree = tree_of(cache, found)
    for path in tree.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    machine.reboot()
    cache.unpack(found, tmp_path / "site")
    assert (tmp_path / "site" / "demo" / "run.sh").stat().st_mode & 0o111
    assert not (tmp_path / "site" / "demo" / "a.py").stat().st_mode & 0o111
    assert tree_of(cache, found) == tree


@not_on_windows("files have no permissions there")
@pytest.mark.parametrize("mode", [LinkMode.AUTO, LinkMode.COPY])
def test_programs_stay_programs_where_only_copying_works(mode: LinkMode, tmp_path: Path) -> None:
    """On a volume without links, clones and exclusive renames, such as FUSE, programs are still executable."""
    files = FaultyFiles()
    with Machine(files).cache(tmp_path / "cache") as cache:
        wheel = put(cache, tmp_path, FILENAME, WHEEL)
        cache.unpack(wheel)
        files.plan = Refusing(Refuse("rename *link clone *clone", "ENOTSUP"))
        assert cache.unpack(wheel, tmp_path / "site", mode=mode).mode is LinkMode.COPY
        assert (tmp_path / "site" / "demo" / "run.sh").stat().st_mode & 0o111
        assert not (tmp_path / "site" / "demo" / "a.py").stat().st_mode & 0o111


def test_a_tree_goes_on_when_its_wheel_is_gone(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """A tree can be used without its wheel. If both are missing, the error says so."""
    tree = tree_of(cache, found)
    found.path.unlink()
    cache.unpack(found, tmp_path / "site")
    assert files_in(tmp_path / "site") == ALL
    marker_of(tree).unlink()
    with pytest.raises(FileNotFoundError, match="fetched again"):
        cache.unpack(found)


@pytest.mark.parametrize("waits", [True, False], ids=["with locks", "without"])
def test_many_threads_get_good_trees(waits: bool, machine: Machine, tmp_path: Path) -> None:
    """Threads that unpack the same wheel at once get a good tree, the same one if waiting is possible."""
    cache = Cache(tmp_path / "cache") if waits else machine.cache(tmp_path / "cache", lock_timeout=0)
    found = put(cache, tmp_path, FILENAME, WHEEL)
    trees = []
    barrier = threading.Barrier(8)

    def unpack() -> None:
        barrier.wait()
        trees.append(cache.unpack(found))

    threads = [threading.Thread(target=unpack) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [files_in(tree.path) for tree in trees] == [ALL] * 8
    assert not waits or len({tree.path for tree in trees}) == 1
    cache.close()


def test_nothing_of_ours_runs_on(cache: Cache, tmp_path: Path) -> None:
    """The threads for a large wheel have ended when the call returns."""
    before = set(threading.enumerate())
    large = wheel([Entry(f"demo/{n}.bin", bytes([n]) * 100_000) for n in range(100)])
    cache.unpack(put(cache, tmp_path, FILENAME, large), tmp_path / "site")
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("slow", [False, True])
def test_threads_are_for_slow_disks(slow: bool, tmp_path: Path) -> None:
    """Several threads link only if each file takes long: otherwise they would slow each other down."""
    files = WatchedFiles()
    machine = Machine(files, TickingClock() if slow else None)
    large = wheel([Entry(f"demo/{n}/{n}.py", b"%d" % n) for n in range(200)])
    with machine.cache(tmp_path / "cache") as cache:
        found = put(cache, tmp_path, FILENAME, large)
        cache.unpack(found)
        files.threads.clear()
        files.waits = slow
        cache.unpack(found, tmp_path / "site")
    assert (len(files.threads) > 1) == slow


class WatchedFiles(FaultyFiles):
    """A file layer that records which threads open folders, and lets the first one wait for another."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()
        self.another = threading.Event()
        self.waits = False

    def open_folder(self, path: str) -> FaultyFolder:
        self.threads.add(threading.get_ident())
        if len(self.threads) > 1:
            self.another.set()
        elif self.waits and path.endswith("199"):
            self.another.wait(10)
        return super().open_folder(path)


# Linking out


@pytest.mark.parametrize("mode", [LinkMode.AUTO, LinkMode.HARDLINK, LinkMode.COPY])
def test_files_go_out(mode: LinkMode, cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """Every file is in the folder, which is created if needed, and the mode is returned."""
    unpacked = cache.unpack(found, tmp_path / "deep" / "site", mode=mode)
    assert files_in(unpacked.path) == ALL
    assert unpacked.path == tmp_path / "deep" / "site"
    assert sorted(unpacked.files) == sorted(ALL)
    tree = tree_of(cache, found)
    shared = os.path.samefile(tree / "top.py", unpacked.path / "top.py")
    assert shared == (unpacked.mode is LinkMode.HARDLINK)
    assert mode in {LinkMode.AUTO, unpacked.mode}


@pytest.mark.parametrize("mode", [LinkMode.AUTO, LinkMode.CLONE])
def test_files_go_out_as_clones(mode: LinkMode, tmp_path: Path) -> None:
    """On a volume with clones, every file is a clone by default. It is writable, and a program is executable."""
    machine = Machine(CloningFiles())
    with machine.cache(tmp_path / "cache") as cache:
        found = put(cache, tmp_path, FILENAME, WHEEL)
        unpacked = cache.unpack(found, tmp_path / "site", mode=mode)
        assert unpacked.mode is LinkMode.CLONE
        check_own(cache.unpack(found).path, tmp_path / "site")


@pytest.mark.parametrize("mode", [LinkMode.AUTO, LinkMode.CLONE])
def test_files_go_out_as_clones_for_real(mode: LinkMode, cloning: Path) -> None:
    """On a real volume with clones, the result is as in the simulation."""
    with Cache(cloning / "cache") as cache:
        found = put(cache, cloning, FILENAME, WHEEL)
        assert cache.link(found, cloning / "out.whl", mode=mode) is LinkMode.CLONE
        assert (cloning / "out.whl").read_bytes() == WHEEL
        unpacked = cache.unpack(found, cloning / "site", mode=mode)
        assert unpacked.mode is LinkMode.CLONE
        check_own(cache.unpack(found).path, cloning / "site")


def check_own(tree: Path, site: Path) -> None:
    """Check that the files are those of the tree, and share no more than blocks with it."""
    assert files_in(site) == ALL
    for name in ALL:
        assert not os.path.samefile(site / name, tree / name)
        assert os.access(site / name, os.W_OK)
    if os.name == "posix":
        assert [name for name in ALL if (site / name).stat().st_mode & stat.S_IXUSR] == ["demo/run.sh"]
    (site / "top.py").write_bytes(b"mine")
    assert (tree / "top.py").read_bytes() == ALL["top.py"]


class CloningFiles(FaultyFiles):
    """A file layer that simulates a volume with clones."""

    def open_folder(self, path: str) -> CloningFolder:
        return CloningFolder(self, self.inner.open_folder(path), path)


class CloningFolder(FaultyFolder):
    def clone(self, name: str, target: FaultyFolder, new: str, permissions: int) -> None:
        with target.inner.create(new, permissions) as file:
            file.write(Path(self.path, name).read_bytes())


@pytest.fixture
def cloning(tmp_path: Path) -> Iterator[Path]:
    """A folder on a volume with clones: that of the tests, or one made for it, which requires root."""
    (tmp_path / "a").write_bytes(b"a")
    try:
        native().clone(str(tmp_path / "a"), str(tmp_path / "b"))
    except OSError:
        pass
    else:
        yield tmp_path
        return
    if not (hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mkfs.xfs")):
        pytest.skip("no volume that clones: run the tests on btrfs, xfs or APFS, or as root with mkfs.xfs")
    with (tmp_path / "image").open("wb") as image:
        image.truncate(512 << 20)
    mounted = tmp_path / "volume"
    mounted.mkdir()
    subprocess.run(["mkfs.xfs", "-q", tmp_path / "image"], check=True)
    if subprocess.run(["mount", "-o", "loop", tmp_path / "image", mounted], capture_output=True).returncode:
        pytest.skip("no volume that clones: this machine may not mount one")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_a_copy_is_a_file_of_its_own(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """Editing a copy does not affect the cache, and it has the permissions of any new file."""
    cache.unpack(found, tmp_path / "site", mode="copy")
    (tmp_path / "new").write_bytes(b"")
    path = tmp_path / "site" / "demo" / "a.py"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "new").stat().st_mode)
    path.write_bytes(b"edited")
    assert files_in(tree_of(cache, found)) == ALL


@pytest.mark.skipif(sys.platform != "win32", reason="only there is a loaded file in the way of deleting it")
def test_auto_copies_what_windows_could_load(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """A library is copied, since a loaded one could not be deleted under any of its names."""
    site = cache.unpack(found, tmp_path / "site").path
    tree = tree_of(cache, found)
    assert not os.path.samefile(tree / "demo/native.pyd", site / "demo/native.pyd")
    assert os.path.samefile(tree / "demo/a.py", site / "demo/a.py")


def test_packages_share_a_folder(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """The files of several wheels are linked side by side, in shared folders."""
    site = tmp_path / "site"
    (site / "demo").mkdir(parents=True)
    (site / "demo" / "mine.py").write_bytes(b"mine")
    cache.unpack(found, site)
    cache.unpack(put(cache, tmp_path, OTHER, OTHER_WHEEL), site)
    other = {
        str(entry.name): entry.data
        for entry in wheel_entries([Entry("other.py"), Entry("shared/x.py")], info="other-1.0.dist-info")
    }
    assert files_in(site) == {**ALL, **other, "demo/mine.py": b"mine"}


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
@pytest.mark.parametrize("first", ["hardlink", "copy"])
def test_twice_is_fine(first: str, mode: str, cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """An existing file with the same bytes is kept and its mode reported. Missing files are added."""
    cache.unpack(found, tmp_path / "site", mode=first)
    before = listing(tmp_path / "site")
    again = cache.unpack(found, tmp_path / "site", mode=mode)
    assert listing(tmp_path / "site") == before
    assert again.mode == first
    (tmp_path / "site" / "demo" / "a.py").unlink()
    cache.unpack(found, tmp_path / "site", mode=mode)
    assert files_in(tmp_path / "site") == ALL


@pytest.mark.parametrize("name", ["demo/sub/b.py", "top.py", f"{INFO}/RECORD"])
@pytest.mark.parametrize("what", ["other bytes", "same size", "folder"])
def test_a_file_in_the_way_stops_it_before_anything_is_written(
    what: str, name: str, cache: Cache, found: CachedWheel, tmp_path: Path
) -> None:
    """An existing file with other bytes is an error that names it, and the folder is unchanged."""
    path = tmp_path / "site" / name
    path.parent.mkdir(parents=True)
    if what == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"mine" if what == "other bytes" else bytes(len(ALL[name])))
    before = listing(tmp_path / "site")
    with pytest.raises(FileExistsError) as caught:
        cache.unpack(found, tmp_path / "site")
    assert caught.value.filename == str(path)
    assert listing(tmp_path / "site") == before


def test_a_file_where_a_folder_should_go(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """A file with the name of a folder is an error that names it, and nothing is written."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "demo").write_bytes(b"mine")
    with pytest.raises(FileExistsError) as caught:
        cache.unpack(found, site)
    assert caught.value.filename == str(site / "demo")
    assert files_in(site) == {"demo": b"mine"}


@not_on_windows("no right to make links there")
def test_a_link_in_the_way_is_not_followed(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """A link with the name of a file is an error, and its target is unchanged."""
    elsewhere = tmp_path / "elsewhere.py"
    elsewhere.write_bytes(b"mine")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "top.py").symlink_to(elsewhere)
    with pytest.raises(FileExistsError):
        cache.unpack(found, tmp_path / "site")
    assert elsewhere.read_bytes() == b"mine"


@not_on_windows("no right to make links there")
def test_a_link_that_leads_nowhere_is_in_the_way_of_a_folder(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """A dangling link with the name of a folder is an error that names it, and nothing is written."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "demo").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError) as caught:
        cache.unpack(found, tmp_path / "site")
    assert caught.value.filename == str(tmp_path / "site" / "demo")
    assert os.listdir(tmp_path / "site") == ["demo"]


@on_windows
def test_a_file_of_another_spelling_is_in_the_way(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """If case is ignored, an existing file in another spelling is noticed before anything is written."""
    path = tmp_path / "site" / "DEMO" / "A.PY"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    before = listing(tmp_path / "site")
    with pytest.raises(FileExistsError):
        cache.unpack(found, tmp_path / "site")
    assert listing(tmp_path / "site") == before


def test_old_temporary_files_in_the_folder_are_swept(
    cache: Cache, found: CachedWheel, machine: Machine, tmp_path: Path
) -> None:
    """Old temporary files of killed processes are deleted. Newer ones, which may be in use, are kept."""
    site = tmp_path / "site"
    site.mkdir()
    left = site / f".wheelcache-{int(machine.clock.now())}-00000000-1-00000000.tmp"
    left.write_bytes(b"half")
    cache.unpack(found, site)
    assert left.exists()
    machine.clock.advance(7200)
    cache.unpack(found, site)
    assert not left.exists()
    assert files_in(site) == ALL


def test_a_relative_folder(cache: Cache, found: CachedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the folder is made absolute at the time of the call."""
    monkeypatch.chdir(tmp_path)
    assert cache.unpack(found, "site").path == tmp_path / "site"


def test_an_unknown_mode(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """An unknown mode is an error at once."""
    with pytest.raises(ValueError, match="symlink"):
        cache.unpack(found, tmp_path / "site", mode="symlink")


# Read-only caches and layers


def test_a_read_only_cache_with_a_tree(cache: Cache, found: CachedWheel, machine: Machine, tmp_path: Path) -> None:
    """The tree of a read-only cache is used, even after a reboot, and nothing is written."""
    tree = tree_of(cache, found)
    machine.reboot()
    before = listing(cache.path)
    with machine.cache(cache.path, read_only=True) as reader:
        assert reader.unpack(found).path == tree
        reader.unpack(found, tmp_path / "site")
        machine.files.forget()
        reader.unpack(found, tmp_path / "site 2", mode="hardlink")
        assert machine.files.calls("open_read", ".py") == []
    assert listing(cache.path) == before
    assert files_in(tmp_path / "site") == ALL


def test_a_read_only_cache_without_a_tree(cache: Cache, found: CachedWheel, machine: Machine, tmp_path: Path) -> None:
    """The wheel is unpacked directly into the folder. A tree in the cache cannot be made."""
    before = listing(cache.path)
    with machine.cache(cache.path, read_only=True) as reader:
        unpacked = reader.unpack(found, tmp_path / "site")
        with pytest.raises(ReadOnlyError):
            reader.unpack(found)
        for mode in (LinkMode.CLONE, LinkMode.HARDLINK):
            with pytest.raises(ReadOnlyError):
                reader.unpack(found, tmp_path / "elsewhere", mode=mode)
    assert not (tmp_path / "elsewhere").exists()
    assert listing(cache.path) == before
    assert files_in(tmp_path / "site") == ALL
    assert unpacked.mode is LinkMode.COPY
    (tmp_path / "site" / "top.py").write_bytes(b"mine")


def test_a_cache_that_may_only_be_read_without_having_been_told(
    cache: Cache, found: CachedWheel, tmp_path: Path
) -> None:
    """A user without write permission for the cache gets the wheel unpacked by copy."""
    files = FaultyFiles()
    with Machine(files).cache(cache.path) as reader:
        code = "EACCES" if os.name == "posix" else WRITE_PROTECTED
        files.plan = Refusing(Refuse("mkdir create open_append", code, str(cache.path / "*")))
        unpacked = reader.unpack(found, tmp_path / "site")
        with pytest.raises(CommitError) as caught:
            reader.unpack(found)
    assert caught.value.cause is Cause.DENIED
    assert unpacked.mode is LinkMode.COPY
    assert files_in(tmp_path / "site") == ALL


def test_a_bad_wheel_in_a_read_only_cache(cache: Cache, machine: Machine, tmp_path: Path) -> None:
    """A refused wheel leaves nothing in the folder."""
    found = put(cache, tmp_path, FILENAME, wheel(ENTRIES, record="top.py,,\n"))
    with machine.cache(cache.path, read_only=True) as reader, pytest.raises(InvalidWheelError):
        reader.unpack(found, tmp_path / "site")
    assert not (tmp_path / "site").exists() or files_in(tmp_path / "site") == {}


def test_a_tree_of_a_layer_is_used(cache: Cache, found: CachedWheel, machine: Machine, tmp_path: Path) -> None:
    """The tree of a layer is used. A wheel of a layer without a tree is unpacked into the cache above."""
    other = put(cache, tmp_path, OTHER, OTHER_WHEEL)
    tree = tree_of(cache, found)
    before = listing(cache.path)
    with machine.cache(tmp_path / "above", layers=[cache.path]) as above:
        assert above.unpack(found).path == tree
        assert above.unpack(other).path.is_relative_to(above.path)
    assert listing(cache.path) == before


def test_a_cache_can_be_moved(cache: Cache, found: CachedWheel, machine: Machine, tmp_path: Path) -> None:
    """A tree contains no absolute path, and is trusted at its new location."""
    tree = tree_of(cache, found)
    cache.close()
    moved = tmp_path / "moved"
    os.rename(cache.path, moved)
    with machine.cache(moved) as there:
        again = there.get(found.digest)
        assert again is not None
        assert there.unpack(again).path == moved / tree.relative_to(cache.path)
