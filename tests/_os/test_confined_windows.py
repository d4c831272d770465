"""The file layer of a cache on Windows, which follows no junction below the cache folder.

Wine has no junctions, so the tests use a stand-in, or replace the functions that examine an open file or folder.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from junctions import plant_junction
from marks import on_windows

from wheelcache import Cause
from wheelcache._fs.errors import ErrorKind, cause_of, classify
from wheelcache._os.confined.entries import FolderEntry, UnsafePathError
from wheelcache._os.files import FileSystem

pytestmark = on_windows

if sys.platform == "win32":
    from wheelcache._os import windows
    from wheelcache._os.confined import area_windows, handles_windows
    from wheelcache._os.confined.area_windows import Queries
    from wheelcache._os.confined.handles_windows import Attributes, attributes_of, final_path
    from wheelcache._os.confined.windows import NativeFiles
    from wheelcache._os.win32 import Handle

REPARSE_POINT = 0x400
JUNCTION, SYMBOLIC_LINK, DEDUPLICATED, CLOUD_FILE = 0xA0000003, 0xA000000C, 0x80000013, 0x9000001A
# Codes of volumes whose driver reports no final path.
NO_FINAL_PATH = [1, 50, 87]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache folder with one file in ``v1/tmp``."""
    (tmp_path / "cache" / "v1" / "tmp").mkdir(parents=True)
    (tmp_path / "cache" / "v1" / "tmp" / "file").write_bytes(b"content")
    return tmp_path / "cache"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else, with the same names as the cache."""
    (tmp_path / "outside" / "folder").mkdir(parents=True)
    for name in ("file", "old"):
        (tmp_path / "outside" / name).write_bytes(b"theirs")
        os.utime(tmp_path / "outside" / name, (1e9, 1e9))
    return tmp_path / "outside"


def confined(root: Path, queries: Queries | None = None) -> FileSystem:
    return NativeFiles(queries=queries).confined_to(str(root / "v1"))


def tagged(tag: int, *names: str) -> Callable[[Handle], Attributes]:
    """Return a query that reports a reparse point for the files and folders of these names."""

    def query(handle: Handle) -> Attributes:
        found = attributes_of(handle)
        return Attributes(found.attributes | REPARSE_POINT, tag) if os.path.basename(handle.path) in names else found

    return query


def no_final_path(code: int) -> Callable[[Handle], str]:
    def query(handle: Handle) -> str:
        raise OSError(None, "no final path", handle.path, code)

    return query


def state(folder: Path) -> list[tuple[str, bytes | None, float]]:
    """Return the names, contents and time stamps below a folder."""
    return [
        (str(path.relative_to(folder)), path.read_bytes() if path.is_file() else None, path.stat().st_mtime)
        for path in sorted(folder.rglob("*"))
    ]


def operations(files: FileSystem, folder: str, safe: str) -> dict[str, Callable[[], object]]:
    """Return every operation that could read, write or delete something in a folder."""
    file = f"{folder}\\file"
    return {
        "create": lambda: files.create(f"{folder}\\new"),
        "open_read": lambda: files.open_read(file),
        "open_write": lambda: files.open_write(file),
        "open_append": lambda: files.open_append(f"{folder}\\new"),
        "touch": lambda: files.touch(file, 2e9),
        "scan": lambda: files.scan(folder),
        "open_folder": lambda: files.open_folder(folder),
        "rename from it": lambda: files.rename(file, f"{safe}\\moved"),
        "rename into it": lambda: files.rename(f"{safe}\\file", f"{folder}\\new"),
        "replace": lambda: files.replace(f"{safe}\\file", file),
        "link from it": lambda: files.link(file, f"{safe}\\linked"),
        "link into it": lambda: files.link(f"{safe}\\file", f"{folder}\\new"),
        "clone": lambda: files.clone(file, f"{safe}\\cloned"),
        "unlink": lambda: files.unlink(file),
        "mkdir": lambda: files.mkdir(f"{folder}\\new"),
        "rmdir": lambda: files.rmdir(f"{folder}\\folder"),
    }


@pytest.mark.parametrize("place", ["wheels", "wheels\\ab"])
def test_no_operation_follows_a_junction(root: Path, outside: Path, place: str) -> None:
    """Each operation below a junction is refused as unsafe with its path, and changes nothing behind it."""
    files, link = confined(root), root / "v1" / "wheels"
    plant_junction(link, outside)
    (outside / "ab").mkdir()
    before = state(outside)
    for operation in operations(files, f"{root}\\v1\\{place}", f"{root}\\v1\\tmp").values():
        with pytest.raises(UnsafePathError) as caught:
            operation()
        assert caught.value.filename == str(link)
        assert classify(caught.value, str(link)) is ErrorKind.PERMANENT
        assert cause_of(caught.value, str(link)) is Cause.UNSAFE
    assert state(outside) == before
    assert os.listdir(root / "v1" / "tmp") == ["file"]


@pytest.mark.parametrize("final", [None, *NO_FINAL_PATH, "network", "mapped"])
def test_a_junction_is_recognised_by_its_tag(root: Path, outside: Path, final: object) -> None:
    """A folder with the tag of a link is refused, even if final paths are not known or prove nothing."""
    (root / "v1" / "wheels" / "ab").mkdir(parents=True)
    queries = Queries(tagged(JUNCTION, "wheels"), final_paths(final))
    files = confined(root, queries)
    # A genuine final path would show the junction in the path of the second folder.
    for folder in ("wheels",) if final is None else ("wheels", "wheels\\ab"):
        for operation in operations(files, f"{root}\\v1\\{folder}", f"{root}\\v1\\tmp").values():
            with pytest.raises(UnsafePathError) as caught:
                operation()
            assert caught.value.filename == str(root / "v1" / "wheels")
    assert os.listdir(root / "v1" / "wheels" / "ab") == []


def final_paths(kind: object) -> Callable[[Handle], str]:
    """Return a query of final paths: the genuine one, one that fails, or one of another kind of volume."""
    if kind is None:
        return final_path
    if isinstance(kind, int):
        return no_final_path(kind)
    if kind == "network":
        return lambda handle: "\\Device\\Mup\\server\\share"
    return lambda handle: f"\\Device\\{len(handle.path)}"


@pytest.mark.parametrize("final", [*NO_FINAL_PATH, "network", "mapped"])
def test_volumes_without_final_paths_work(root: Path, final: object) -> None:
    """If final paths are not known or prove nothing, every operation works by opening one folder after the other."""
    work_in(confined(root, Queries(final_path=final_paths(final))), root)


def work_in(files: FileSystem, root: Path) -> None:
    """Perform every operation with its usual result."""
    v1 = f"{root}\\v1"
    files.mkdir(f"{v1}\\wheels")
    files.mkdir(f"{v1}\\wheels\\ab")
    with files.create(f"{v1}\\wheels\\ab\\new") as file:
        file.write(b"new")
    with files.open_append(f"{v1}\\wheels\\ab\\new") as file:
        file.write(b"er")
    with files.open_read(f"{v1}\\wheels\\ab\\new") as file:
        assert file.read() == b"newer"
    files.touch(f"{v1}\\wheels\\ab\\new", 1_600_000_000.25)
    assert files.stat(f"{v1}\\wheels\\ab\\new").st_mtime == 1_600_000_000.25
    files.rename(f"{v1}\\wheels\\ab\\new", f"{v1}\\tmp\\moved")
    files.link(f"{v1}\\tmp\\moved", f"{v1}\\wheels\\ab\\linked")
    assert os.path.samefile(f"{v1}\\tmp\\moved", f"{v1}\\wheels\\ab\\linked")
    with pytest.raises(FileExistsError):
        files.rename(f"{v1}\\tmp\\file", f"{v1}\\wheels\\ab\\linked")
    files.replace(f"{v1}\\tmp\\file", f"{v1}\\wheels\\ab\\linked")
    assert files.scan(f"{v1}\\wheels\\ab") == [FolderEntry("linked", False, True)]
    assert files.scan(f"{v1}\\wheels\\") == files.scan(f"{v1}\\wheels") == [FolderEntry("ab", True, False)]
    with files.open_folder(f"{v1}\\wheels\\ab") as folder, files.open_folder(str(root.parent)) as other:
        folder.link("linked", other)
        folder.create("created", 0).close()
        assert folder.stat("created").st_size == 0
    assert Path(root.parent / "linked").read_bytes() == b"content"
    with files.open_write(f"{v1}\\wheels\\ab\\created") as file:
        file.write(b"written")
    for name in ("linked", "created"):
        files.unlink(f"{v1}\\wheels\\ab\\{name}")
    for folder_name in ("ab", ""):
        files.rmdir(f"{v1}\\wheels\\{folder_name}".rstrip("\\"))
    assert os.listdir(v1) == ["tmp"]


def test_every_operation_works(root: Path) -> None:
    """In an ordinary cache folder every operation has its usual result."""
    work_in(confined(root), root)


@pytest.mark.parametrize("code", [50, 87])
def test_a_driver_that_only_knows_full_paths(monkeypatch: pytest.MonkeyPatch, root: Path, code: int) -> None:
    """If names relative to an open folder are refused, the operations use the path of the verified folder."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(None, "no", "", code)

    monkeypatch.setattr(area_windows, "RelativeHandle", refuse)
    monkeypatch.setattr(handles_windows, "set_name", refuse)
    monkeypatch.setattr(handles_windows, "list_entries", refuse)
    work_in(confined(root), root)


def test_a_cache_folder_behind_a_junction_works(root: Path, tmp_path: Path) -> None:
    """A junction in the path of the cache folder, or in its place, is followed."""
    plant_junction(tmp_path / "link", root)
    work_in(confined(tmp_path / "link"), tmp_path / "link")


@pytest.mark.parametrize("spelling", [str.upper, lambda path: f"\\\\?\\{path}"], ids=["case", "prefix"])
def test_other_spellings_of_the_cache_folder_work(root: Path, spelling: Callable[[str], str]) -> None:
    """The cache folder may be given in another case, or with the prefix of long paths."""
    work_in(confined(Path(spelling(str(root)))), Path(spelling(str(root))))


def test_folders_of_another_case_are_the_same(root: Path) -> None:
    """A folder that an archive restored with another case is no junction."""
    (root / "v1" / "WHEELS").mkdir()
    confined(root).create(f"{root}\\v1\\wheels\\file").close()
    assert os.listdir(root / "v1" / "WHEELS") == ["file"]


def test_a_volume_that_is_mounted_again_works(root: Path) -> None:
    """If the volume comes back as another device, the final path of the cache folder is looked up again."""
    device = ["1"]
    files = confined(root, Queries(final_path=lambda handle: f"\\Device\\{device[0]}{handle.path}"))
    files.create(f"{root}\\v1\\tmp\\one").close()
    device[0] = "2"
    files.create(f"{root}\\v1\\tmp\\two").close()
    assert sorted(os.listdir(root / "v1" / "tmp")) == ["file", "one", "two"]


def test_no_handle_is_kept(root: Path) -> None:
    """After an operation, and while a folder is open, others can delete the folder."""
    files = confined(root)
    (root / "v1" / "empty").mkdir()
    with files.open_folder(f"{root}\\v1\\empty"):
        os.rmdir(root / "v1" / "empty")
    files.unlink(f"{root}\\v1\\tmp\\file")
    os.rmdir(root / "v1" / "tmp")
    os.rmdir(root / "v1")
    os.rmdir(root)


@pytest.mark.parametrize("name", ["..", ".", "a:b", "a/b", "nul\0"])
def test_names_that_lead_elsewhere_are_refused(root: Path, name: str) -> None:
    """A path with such a name in place of a folder is unsafe."""
    with pytest.raises(UnsafePathError):
        confined(root).create(f"{root}\\v1\\{name}\\file")


@pytest.mark.parametrize("operation", ["open_read", "open_write", "open_append"])
def test_a_link_in_place_of_a_file_is_not_opened(root: Path, operation: str) -> None:
    """A file with the tag of a symbolic link is refused."""
    files = confined(root, Queries(tagged(SYMBOLIC_LINK, "file")))
    with pytest.raises(UnsafePathError):
        getattr(files, operation)(f"{root}\\v1\\tmp\\file")


def test_a_link_in_place_of_a_file_is_not_linked(root: Path, tmp_path: Path) -> None:
    """A hard link to a symbolic link is not created."""
    files = confined(root, Queries(tagged(SYMBOLIC_LINK, "file")))
    with pytest.raises(UnsafePathError):
        files.link(f"{root}\\v1\\tmp\\file", str(tmp_path / "linked"))
    with (
        files.open_folder(f"{root}\\v1\\tmp") as folder,
        files.open_folder(str(tmp_path)) as other,
        pytest.raises(UnsafePathError),
    ):
        folder.link("file", other)
    assert not (tmp_path / "linked").exists()


@pytest.mark.parametrize("tag", [DEDUPLICATED, CLOUD_FILE], ids=hex)
@pytest.mark.parametrize("final", [None, 50])
def test_a_reparse_point_that_is_no_link_is_read(root: Path, tag: int, final: int | None) -> None:
    """Deduplicated files and files of a cloud service are ordinary files, and so are their folders."""
    files = confined(root, Queries(tagged(tag, "file", "tmp"), final_paths(final)))
    with files.open_read(f"{root}\\v1\\tmp\\file") as file:
        assert file.read() == b"content"


def test_a_link_that_replaces_such_a_file_meanwhile_is_refused(root: Path) -> None:
    """If the second open of a deduplicated file leads elsewhere, nothing is read."""
    seen: list[str] = []

    def other_path(handle: Handle) -> str:
        seen.append(handle.path)
        return final_path(handle) + ("" if handle.path.count("file") == 0 else str(len(seen)))

    files = confined(root, Queries(tagged(DEDUPLICATED, "file"), other_path))
    with pytest.raises(UnsafePathError):
        files.open_read(f"{root}\\v1\\tmp\\file")


@pytest.mark.parametrize("operation", ["unlink", "rmdir"])
def test_a_junction_is_deleted_itself(root: Path, operation: str) -> None:
    """Deleting a junction removes the link, also by the operation for files. A folder is only deleted by rmdir."""
    (root / "v1" / "link").mkdir()
    (root / "v1" / "folder").mkdir()
    files = confined(root, Queries(tagged(JUNCTION, "link")))
    getattr(files, operation)(f"{root}\\v1\\link")
    assert not (root / "v1" / "link").exists()
    with pytest.raises(PermissionError):
        files.unlink(f"{root}\\v1\\folder")


def test_a_junction_is_neither_a_folder_nor_a_file(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """The status and the entry of a junction are those of a link, in Python 3.11, too."""
    real = os.lstat(root)
    named = {"st_file_attributes": 0x10 | REPARSE_POINT, "st_reparse_tag": JUNCTION, "st_mtime_ns": real.st_mtime_ns}
    named |= {"st_atime_ns": 0, "st_ctime_ns": 0}
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result(tuple(real), named))
    path = f"{root}\\v1\\tmp"
    assert stat.S_ISDIR(NativeFiles().stat(path).st_mode)
    assert stat.S_ISLNK(confined(root).stat(path).st_mode)
    assert confined(root).stat(path).st_mtime_ns == real.st_mtime_ns
    assert not confined(root).is_dir(path)
    for tag in (JUNCTION, SYMBOLIC_LINK, 0):
        assert windows.to_entry("name", 0x10 | REPARSE_POINT, tag) == FolderEntry("name", False, False)
        assert windows.to_entry("name", REPARSE_POINT, tag) == FolderEntry("name", False, False)
    for tag in (DEDUPLICATED, CLOUD_FILE):
        assert windows.to_entry("name", 0x10 | REPARSE_POINT, tag) == FolderEntry("name", True, False)
        assert windows.to_entry("name", REPARSE_POINT, tag) == FolderEntry("name", False, True)


def test_a_large_folder_is_listed_whole(root: Path) -> None:
    """A folder whose entries need more than one buffer is listed once and completely."""
    names = {f"{number:03}{'n' * 150}" for number in range(250)}
    for name in names:
        (root / "v1" / "tmp" / name).touch()
    found = confined(root).scan(f"{root}\\v1\\tmp")
    assert len(found) == len(names) + 1
    assert {entry.name for entry in found} == {*names, "file"}


def test_a_file_in_place_of_a_folder_is_reported_as_before(root: Path) -> None:
    """A path through a file is missing, and a file cannot be listed."""
    files = confined(root)
    with pytest.raises(FileNotFoundError):
        files.create(f"{root}\\v1\\tmp\\file\\new")
    with pytest.raises(NotADirectoryError):
        files.scan(f"{root}\\v1\\tmp\\file")
    with pytest.raises(NotADirectoryError):
        files.rmdir(f"{root}\\v1\\tmp\\file")


def test_a_read_only_file_is_replaced_and_deleted(root: Path) -> None:
    """A file that a backup made read-only is no obstacle."""
    files = confined(root)
    for name in ("one", "two"):
        (root / "v1" / "tmp" / name).write_bytes(name.encode())
        os.chmod(root / "v1" / "tmp" / name, stat.S_IREAD)
    files.replace(f"{root}\\v1\\tmp\\file", f"{root}\\v1\\tmp\\one")
    assert (root / "v1" / "tmp" / "one").read_bytes() == b"content"
    files.unlink(f"{root}\\v1\\tmp\\two")
    assert os.listdir(root / "v1" / "tmp") == ["one"]
