"""The Windows file layer: behaviour that the tests of the packages above do not reach."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import stat
import string
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import FaultyFiles
from machines import Machine
from marks import on_windows, with_scanner
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, Cause, CommitError, LinkMode, Status
from wheelcache._fs.link import LinkStrategy
from wheelcache._fs.persist import persist_noclobber
from wheelcache._fs.robustio import RobustIO
from wheelcache._operation import Operation
from wheelcache._os.clone_windows import DUPLICATE_EXTENTS, GET_INTEGRITY, SET_INTEGRITY, BlockClone, regions

if sys.platform == "win32":
    from wheelcache._os.holders_windows import holders_of
    from wheelcache._os.volume_windows import volume_of
    from wheelcache._os.win32 import Handle, extended
    from wheelcache._os.windows import WindowsFiles

BASIC, DISPOSITION, DELETE_EX, RENAME_EX = 0, 4, 21, 22


@pytest.fixture
def files():
    return WindowsFiles()


def make(folder: Path, name: str, data: bytes = b"content") -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def test_cloning_needs_whole_clusters() -> None:
    """The regions of a clone begin and end at clusters, are smaller than 4 GiB, and cover the whole file."""
    for size in (0, 1, 4096, 4097, (1 << 30) - 1, 1 << 30, (3 << 30) + 5, 10 << 30):
        for cluster in (4096, 65536):
            found = list(regions(size, cluster))
            end = 0
            for offset, length in found:
                assert offset == end
                assert offset % cluster == length % cluster == 0
                assert 0 < length < 4 << 30
                end = offset + length
            assert size <= end < size + cluster


def test_cloning_asks_for_the_same_integrity_first() -> None:
    """If the source has checksums, they are enabled on the target before it is cloned, and otherwise not."""
    for there, setting in ((0, []), (2, [SET_INTEGRITY])):
        asked = []

        def control(handle: int, code: int, given: bytes, room: int, there: int = there, asked: list = asked) -> bytes:
            asked.append((handle, code, given))
            algorithm = there if handle == 7 else 0
            return struct.pack("<HHIII", algorithm, 0, 0, 65536, 4096) if code == GET_INTEGRITY else b""

        BlockClone(7, 5000, control).clone_to(8, lambda asked=asked: asked.append((8, 0, b"")))
        assert [code for _, code, _ in asked] == [GET_INTEGRITY, GET_INTEGRITY, *setting, 0, DUPLICATE_EXTENTS]
        assert asked[-1][0] == 8
        assert struct.unpack("@Pqqq", asked[-1][2]) == (7, 0, 0, 8192)


@on_windows
def test_a_volume_without_cloning_says_so_and_leaves_nothing(files, tmp_path: Path) -> None:
    """If blocks cannot be shared, the error has the code and both paths, and no file remains."""
    source = make(tmp_path, "source")
    with pytest.raises(OSError) as caught:
        files.clone(source, str(tmp_path / "target"))
    assert caught.value.winerror in {1, 50}
    assert (caught.value.filename, caught.value.filename2) == (source, str(tmp_path / "target"))
    assert os.listdir(tmp_path) == ["source"]


@on_windows
def test_a_clone_that_cannot_be_taken_back_keeps_its_code(tmp_path: Path) -> None:
    """If the incomplete clone cannot be deleted either, the error is still that of the clone."""

    def refuse(handle: Handle, kind: int, information: bytes, target: str | None) -> None:
        raise OSError(None, "held", handle.path, 32, target)

    def control(handle: int, code: int, given: bytes, room: int, *, path: str, target: str) -> bytes:
        if code == GET_INTEGRITY:
            return struct.pack("<HHIII", 0, 0, 0, 65536, 4096)
        raise OSError(None, "full", path, 112, target)

    with pytest.raises(OSError) as caught:
        WindowsFiles(refuse, control).clone(make(tmp_path, "source"), str(tmp_path / "target"))
    assert caught.value.winerror == 112
    assert (tmp_path / "target").exists()


@on_windows
@pytest.mark.parametrize("action", ["rename", "unlink", "replace"])
def test_our_handles_keep_nobody_out(action: str, files, tmp_path: Path) -> None:
    """A file that is open for reading, writing or appending can be renamed, deleted, replaced and read by others."""
    for number, opened in enumerate((files.open_read, files.open_write, files.open_append)):
        path, other = make(tmp_path, f"{number}"), make(tmp_path, f"{number}-other", b"other")
        with opened(path):
            if action == "rename":
                os.rename(path, path + "-new")
            elif action == "unlink":
                os.unlink(path)
            else:
                with pytest.raises(PermissionError) if _is_wine() else open(os.devnull):
                    files.replace(other, path)


def _is_wine() -> bool:
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


@on_windows
def test_a_read_only_file_is_deleted_and_its_other_names_stay_read_only(files, tmp_path: Path) -> None:
    """Deleting one hard link of a read-only file leaves the others read-only."""
    path, other = make(tmp_path, "file"), str(tmp_path / "other")
    files.link(path, other)
    os.chmod(path, stat.S_IREAD)
    files.unlink(path)
    assert not os.path.exists(path)
    assert not os.stat(other).st_mode & stat.S_IWRITE
    os.chmod(other, stat.S_IWRITE)


@on_windows
@pytest.mark.parametrize("disposition", [None, 32])
def test_an_attribute_that_cannot_be_put_back_hides_nothing(disposition: int | None, tmp_path: Path) -> None:
    """A read-only file is deleted even if restoring the attribute fails. A holder is reported by its own code."""
    asked = []

    def refuse(handle: Handle, kind: int, information: bytes, target: str | None) -> None:
        asked.append(kind)
        code = {DELETE_EX: 87, BASIC: 5 if asked.count(BASIC) == 2 else None}.get(kind)
        if kind == DISPOSITION:
            code = 5 if asked.count(DISPOSITION) == 1 else disposition
        if code is not None:
            raise OSError(None, "no", handle.path, code, target)
        handle.set(kind, information, target)

    path = make(tmp_path, "file")
    os.chmod(path, stat.S_IREAD)
    if disposition is None:
        WindowsFiles(refuse).unlink(path)
        assert not os.path.exists(path)
    else:
        with pytest.raises(OSError) as caught:
            WindowsFiles(refuse).unlink(path)
        assert caught.value.winerror == disposition
        os.chmod(path, stat.S_IWRITE)
    assert asked == [DELETE_EX, DISPOSITION, BASIC, DISPOSITION, BASIC]


@on_windows
def test_a_read_only_file_is_replaced(files, tmp_path: Path) -> None:
    """A record that a backup made read-only is replaced like any other."""
    target, source = make(tmp_path, "target"), make(tmp_path, "source", b"new")
    os.chmod(target, stat.S_IREAD)
    files.replace(source, target)
    assert Path(target).read_bytes() == b"new"


@with_scanner
def test_the_code_of_a_held_read_only_file_is_the_holders(files, tmp_path: Path) -> None:
    """A read-only file that is held open is reported as held, and remains read-only."""
    from scanner import holding

    path = make(tmp_path, "file")
    os.chmod(path, stat.S_IREAD)
    with holding(path, share="rw"):
        with pytest.raises(PermissionError) as caught:
            files.unlink(path)
        assert caught.value.winerror == 32
    assert not os.stat(path).st_mode & stat.S_IWRITE
    os.chmod(path, stat.S_IWRITE)


@on_windows
def test_what_the_c_library_folds_keeps_its_code(files, tmp_path: Path) -> None:
    """Truncating a mapped file reports 1224, which is transient, and not the EINVAL of the C library."""
    with files.open_write(make(tmp_path, "file", b"x" * 5000)) as file:
        with mmap.mmap(file.fileno(), 0), pytest.raises(OSError) as caught:
            file.truncate(0)
        assert caught.value.winerror == 1224
        assert caught.value.filename
        file.truncate(0)


@on_windows
@pytest.mark.parametrize("code", [1, 50, 87, 120])
def test_posix_semantics_are_asked_for_once(code: int, tmp_path: Path) -> None:
    """On a volume without POSIX semantics, the older calls are used from then on, with the same result."""
    asked = []

    def refuse(handle: Handle, kind: int, information: bytes, target: str | None) -> None:
        if kind not in {RENAME_EX, DELETE_EX}:
            return handle.set(kind, information, target)
        asked.append(kind)
        raise OSError(None, "no", handle.path, code, target)

    files = WindowsFiles(refuse)
    for number in range(3):
        path, other = make(tmp_path, f"{number}"), make(tmp_path, f"{number}-other", b"other")
        files.replace(other, path)
        assert Path(path).read_bytes() == b"other"
        files.unlink(path)
        files.mkdir(path)
        files.rmdir(path)
        assert not os.path.exists(path)
    assert asked == [RENAME_EX, DELETE_EX]


@on_windows
@pytest.mark.parametrize("code", [5, 32, 303])
def test_a_refusal_in_posix_semantics_is_told_and_not_remembered(code: int, tmp_path: Path) -> None:
    """A held file says nothing about the volume: POSIX semantics are used for the next file."""
    asked = []

    def refuse(handle: Handle, kind: int, information: bytes, target: str | None) -> None:
        asked.append(kind)
        raise OSError(None, "no", handle.path, code, target)

    files = WindowsFiles(refuse)
    for number in range(2):
        with pytest.raises(OSError) as caught:
            files.unlink(make(tmp_path, f"{number}"))
        assert caught.value.winerror == code
    assert asked == [DELETE_EX, DELETE_EX]


@on_windows
def test_posix_semantics_are_asked_for_as_windows_documents_it(tmp_path: Path) -> None:
    """The system receives a FILE_RENAME_INFO and a FILE_DISPOSITION_INFO_EX with their flags."""
    asked = {}

    def see(handle: Handle, kind: int, information: bytes, target: str | None) -> None:
        asked[kind] = information

    files = WindowsFiles(see)
    source, target = make(tmp_path, "source"), str(tmp_path / "tärget")
    files.replace(source, target)
    files.unlink(source)
    flags, folder, length = struct.unpack_from("IPI", asked[RENAME_EX])
    start = struct.calcsize("IPI")
    assert (flags, folder) == (0x43, 0)
    assert asked[RENAME_EX][start : start + length].decode("utf-16-le") == target
    assert struct.unpack("I", asked[DELETE_EX]) == (0x13,)


@on_windows
def test_each_call_tells_the_code_of_windows(files, tmp_path: Path) -> None:
    """Errors about missing and existing paths, and about files in place of folders, have their code and the paths."""
    path, folder, missing = make(tmp_path, "file"), str(tmp_path / "folder"), str(tmp_path / "missing")
    os.mkdir(folder)
    make(Path(folder), "inside")
    for code, action, arguments in (
        (80, files.create, (path,)),
        (2, files.open_read, (missing,)),
        (5, files.open_read, (folder,)),
        (3, files.create, (missing + "\\file",)),
        (183, files.rename, (make(tmp_path, "other"), path)),
        (183, files.link, (make(tmp_path, "other"), path)),
        (2, files.rename, (missing, path + "-new")),
        (2, files.unlink, (missing,)),
        (5, files.unlink, (folder,)),
        (2, files.rmdir, (missing,)),
        (267, files.rmdir, (path,)),
        (145, files.rmdir, (folder,)),
        (183, files.mkdir, (folder,)),
        (2, files.stat, (missing,)),
    ):
        with pytest.raises(OSError) as caught:
            action(*arguments)
        assert caught.value.winerror == code, (action, arguments)
        assert caught.value.filename == arguments[0]


@on_windows
@pytest.mark.parametrize(
    ("path", "native"),
    [
        ("C:\\short", "C:\\short"),
        ("C:\\" + "a" * 300, "\\\\?\\C:\\" + "a" * 300),
        ("C:/" + "a" * 300 + "/../b" * 1, "\\\\?\\C:\\b"),
        ("\\\\server\\share\\" + "a" * 300, "\\\\?\\UNC\\server\\share\\" + "a" * 300),
        ("\\\\?\\C:\\" + "a" * 300, "\\\\?\\C:\\" + "a" * 300),
        ("\\\\?\\UNC\\server\\share\\" + "a" * 300, "\\\\?\\UNC\\server\\share\\" + "a" * 300),
        ("\\\\.\\C:\\" + "a" * 300, "\\\\.\\C:\\" + "a" * 300),
        ("\\\\server\\share\\file", "\\\\server\\share\\file"),
    ],
)
def test_long_paths_get_their_prefix(path: str, native: str) -> None:
    """A path that is too long for Windows is passed with the prefix, in every notation."""
    assert extended(path) == native


@on_windows
def test_a_folder_has_room_for_names_in_it() -> None:
    """The limit for folders is shorter than that for files: the prefix is added early enough for both."""
    for length in range(1, 400):
        path = "C:\\" + "a" * length
        assert extended(path).startswith("\\\\?\\") or len(path) < 248


def round_trip(cache: Cache, folder: Path, wheel: Wheel) -> None:
    """Put a wheel, find it with another ``Cache``, and link it out."""
    source = folder / wheel.filename
    source.write_bytes(wheel.data)
    added = cache.put(source)
    assert added.path.name == wheel.filename
    assert (added.status, os.path.getsize(extended(str(added.path)))) == (Status.ADDED, wheel.size)
    with Cache(cache.path) as second:
        assert second.get(wheel.digest, filename=wheel.filename) == added
        assert list(second.entries()) == [added]
        assert second.link(added, folder / "out" / wheel.filename, mode="copy") is LinkMode.COPY


@on_windows
@pytest.mark.parametrize(
    "name",
    ["with spaces and a %TEMP% in it", "ünïcödé-漢字-🎡", "a" * 100 + "\\" + "b" * 97, "'quotes' & [brackets] {100%}"],
)
def test_cache_folders_of_every_kind(name: str, tmp_path: Path) -> None:
    """A cache works in long paths and in paths with spaces, non-ASCII letters and percent signs."""
    wheel = Wheel(wheel_filename("a" * 80), make_wheel("a" * 80))
    assert len(wheel.filename) >= 100
    with Cache(tmp_path / name) as cache:
        round_trip(cache, tmp_path, wheel)


@on_windows
def test_a_cache_folder_given_with_the_long_prefix(wheel: Wheel, tmp_path: Path) -> None:
    r"""A cache path that already has the ``\\?\`` prefix is used as it is."""
    with Cache("\\\\?\\" + str(tmp_path / "cache")) as cache:
        assert str(cache.path).startswith("\\\\?\\")
        round_trip(cache, tmp_path, wheel)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[str]:
    """A drive letter that is a substitute for a folder of this test."""
    define = ctypes.WinDLL("kernel32").DefineDosDeviceW
    define.argtypes = (ctypes.c_uint32, ctypes.c_wchar_p, ctypes.c_wchar_p)
    letter = next(letter for letter in reversed(string.ascii_uppercase) if not os.path.exists(f"{letter}:\\"))
    folder = tmp_path / "drive"
    folder.mkdir()
    if not define(0, f"{letter}:", str(folder)):
        pytest.skip("no drive letter can be made here")
    yield f"{letter}:\\"
    define(2, f"{letter}:", str(folder))


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """The root of a drive that this test may use. Wine has no substitutes for folders. Its C: belongs to the lab."""
    if not _is_wine():
        yield request.getfixturevalue("drive")
        return
    yield "C:\\"
    shutil.rmtree("C:\\v1")


@on_windows
def test_a_drive_root_is_a_cache_folder(root: str, wheel: Wheel, tmp_path: Path) -> None:
    """The root of a drive, which cannot be created, is a valid cache folder."""
    with Cache(root) as cache:
        assert str(cache.path) == root
        round_trip(cache, tmp_path, wheel)
        assert "v1" in os.listdir(root)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another volume than that of the test: in the lab, the shared memory of the host."""
    shared = Path("Z:\\dev\\shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second volume here")
    folder = shared / f"wheelcache-{os.getpid()}-{os.urandom(4).hex()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@on_windows
def test_another_volume_is_reached_by_a_copy_at_once(elsewhere: Path, wheel: Wheel, tmp_path: Path) -> None:
    """Windows refuses to rename and link across volumes (17): files are copied, and that is remembered."""
    files = FaultyFiles()
    machine = Machine(files)
    disk = RobustIO(Operation(machine.cache_class._system, io_timeout=60.0))
    destination = LinkStrategy().destination(disk, str(tmp_path), str(elsewhere))
    for name, tried in (("one", ["rename", "link", "create"]), ("two", ["create"])):
        with pytest.raises(OSError) as caught:
            files.inner.rename(make(tmp_path, name, wheel.data), str(elsewhere / name))
        assert caught.value.winerror == 17
        files.trace.clear()
        target = str(elsewhere / name)
        step = persist_noclobber(disk, str(tmp_path / name), target, destination=destination, sha256=wheel.hex())
        assert step == "copy"
        ways = [call.operation for call in files.trace if target in {call.path, call.target}]
        assert [way for way in ways if way in {"rename", "link", "create"}] == tried
        assert Path(target).read_bytes() == wheel.data
        assert not (tmp_path / name).exists()
    assert machine.clock.slept == []


@on_windows
def test_a_wheel_leaves_for_another_volume_as_a_copy(elsewhere: Path, wheel: Wheel, tmp_path: Path) -> None:
    """Linking and unpacking across volumes copies without waiting. A requested mode is refused with the code."""
    machine = Machine()
    with machine.cache(tmp_path / "cache") as cache:
        source = tmp_path / wheel.filename
        source.write_bytes(wheel.data)
        added = cache.put(source)
        assert cache.link(added, elsewhere / "out.whl") is LinkMode.COPY
        assert (elsewhere / "out.whl").read_bytes() == wheel.data
        site = cache.unpack(added, elsewhere / "site")
        assert site.mode is LinkMode.COPY
        assert site.files
        with pytest.raises(CommitError) as caught:
            cache.link(added, elsewhere / "named.whl", mode="hardlink")
    assert caught.value.winerror == 17
    assert caught.value.cause is Cause.UNSUPPORTED
    assert machine.clock.slept == []


@on_windows
@pytest.mark.parametrize("ours", [True, False])
def test_a_wheel_that_this_process_reads_is_pruned(ours: bool, wheel: Wheel, tmp_path: Path) -> None:
    """Pruning deletes a wheel that we have open, which stays readable. A wheel held by Python's open is kept whole."""
    machine = Machine()
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with machine.cache(tmp_path / "cache") as cache:
        added = cache.put(source)
        with WindowsFiles().open_read(str(added.path)) if ours else added.path.open("rb") as reader:
            assert reader.read(100) == wheel.data[:100]
            report = cache.prune(max_size=0)
            assert machine.clock.slept == []
            assert [gone.digest for gone in report.removed] == ([wheel.digest] if ours else [])
            assert [skipped.path for skipped in report.skipped] == ([] if ours else [added.path])
            for looking in (cache, machine.cache(cache.path)):
                assert (looking.get(wheel.digest) is None) is ours
            assert reader.read() == wheel.data[100:]
        if ours:
            assert cache.put(source).path.read_bytes() == wheel.data
        assert [gone.digest for gone in cache.prune(max_size=0).removed] == [wheel.digest]
        assert cache.get(wheel.digest) is None
    assert [path.name for path in (tmp_path / "cache" / "v1" / "wheels").rglob("*") if path.is_file()] == []


@on_windows
def test_a_server_share_is_a_network_drive() -> None:
    """A UNC path is recognised as remote, even if its server does not respond."""
    volume = volume_of("\\\\127.0.0.1\\no share\\folder")
    assert volume.remote
    assert volume.code


@on_windows
def test_what_is_known_of_a_volume(tmp_path: Path) -> None:
    """The file system, mount point and free space are reported for a folder that does not exist yet, too."""
    for path in (tmp_path, tmp_path / "not" / "yet"):
        volume = volume_of(str(path))
        assert volume.mount == f"{tmp_path.drive}\\"
        assert volume.file_system
        assert 0 < volume.free <= volume.size
        assert not volume.remote
        assert volume.cloud == volume.code == ""


@on_windows
def test_a_folder_of_the_cloud_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder that OneDrive names as its own counts as synchronised, with everything below it."""
    monkeypatch.setenv("OneDrive", str(tmp_path))
    assert volume_of(str(tmp_path / "cache")).cloud == "OneDrive"
    monkeypatch.setenv("OneDrive", str(tmp_path / "elsewhere"))
    assert volume_of(str(tmp_path / "cache")).cloud == ""


@on_windows
def test_a_mapped_drive_is_told(drive: str) -> None:
    """A drive letter that is a substitute for a folder is reported as mapped, if the system reports it."""
    assert volume_of(drive).mapped


@on_windows
def test_the_restart_manager_is_asked_and_never_fails(tmp_path: Path) -> None:
    """Every holder is named with its process ID, and a missing file has none."""
    path = make(tmp_path, "file")
    with open(path, "rb"):
        assert all("pid" in name or name == "this process" for name in holders_of([path]))
    assert holders_of([str(tmp_path / "missing")]) == ()
    assert holders_of([]) == ()


def test_boot_is_the_same_in_every_object(tmp_path: Path, wheel: Wheel) -> None:
    """Within one boot a wheel is hashed once: another ``Cache`` only reads its record."""
    machine = Machine()
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with machine.cache(tmp_path / "cache") as cache:
        cache.put(source)
    machine.files.forget()
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.get(wheel.digest, filename=wheel.filename) is not None
    assert machine.files.calls("open_read", ".whl") == []
