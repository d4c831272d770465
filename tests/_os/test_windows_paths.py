r"""Paths that are passed to Windows: long ones have the prefix that removes the length limit, on servers too.

Only here do tests replace functions of the library: by wrappers that record the arguments.
"""

from __future__ import annotations

import ctypes
import inspect
import ntpath
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from marks import on_windows
from wheels import Wheel, wheel_filename

from wheelcache._fs.tempnames import OwnerTag
from wheelcache._hashes import MultiHash
from wheelcache._options import choose_cache_folder
from wheelcache._os.files import FileSystem
from wheelcache._store.layout import Layout

if sys.platform == "win32":
    from wheelcache._os import holders_windows, volume_windows, win32, windows
    from wheelcache._os.confined import area_windows, handles_windows
    from wheelcache._os.confined.windows import NativeFiles

    NATIVE: tuple[ModuleType, ...] = (windows, win32, holders_windows, volume_windows, area_windows, handles_windows)

pytestmark = on_windows

LOCAL, SHARE = "\\\\?\\", "\\\\?\\UNC\\"
# Only paths with a folder of this name are recorded; all of them are long.
MARK = "m" * 230
OF_PYTHON = ("stat", "lstat", "utime", "scandir")
_RENAME_EX = 22
# Operations on open files have no path of their own.
WITHOUT_PATH = {"close_folders", "copy", "copy_permissions", "make_read_only"}


class Spy:
    """Records every path below the marked folder that is passed to the system, and the function that receives it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def note(self, name: str, value: object) -> None:
        if isinstance(value, ctypes.Array):
            for item in value:
                self.note(name, item)
        elif isinstance(value, str) and MARK in value:
            self.seen.append((name, value))

    def on(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def spied(*arguments: object, **options: object) -> object:
            for value in arguments:
                self.note(name, value)
            return function(*arguments, **options)

        return spied

    def set_information(self, handle: object, kind: int, information: bytes, target: str | None) -> None:
        """Record the path inside a FILE_RENAME_INFO."""
        if kind == _RENAME_EX:
            self.note("FILE_RENAME_INFO", information[20:].decode("utf-16-le", "replace").lstrip("\0"))
        win32.Handle.set(handle, kind, information, target)

    def names(self) -> set[str]:
        return {name for name, _ in self.seen}


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """A spy on every function that the Windows file layer calls."""
    spy = Spy()
    foreign = type(ctypes.WinDLL("kernel32").CloseHandle).__mro__[-2]
    for module in NATIVE:
        for name, value in list(vars(module).items()):
            if isinstance(value, foreign):
                monkeypatch.setattr(module, name, spy.on(name.lstrip("_"), value))

    def function(name: str, *arguments: object, **options: object) -> Callable[..., object]:
        return spy.on(name, win32.function(name, *arguments, **options))

    monkeypatch.setattr(volume_windows, "function", function)
    for name in OF_PYTHON:
        monkeypatch.setattr(os, name, spy.on(f"os.{name}", getattr(os, name)))
    for name in ("isdir", "exists"):
        monkeypatch.setattr(ntpath, name, spy.on(f"os.path.{name}", getattr(ntpath, name)))
    return spy


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A local folder whose path is too long for Windows without a prefix."""
    path = f"{tmp_path}\\{MARK}"
    os.makedirs(LOCAL + path)
    return path


def every_operation(files: FileSystem, folder: str) -> Iterator[Callable[[], object]]:
    """Yield each operation of the file layer that takes a path, in an order in which all of them work."""
    one, two, three = (f"{folder}\\{name}" for name in ("one", "two", "three"))

    def work(open_file: Callable[[str], object], path: str) -> None:
        with open_file(path) as file:
            file.tell()

    def within(operation: str, *arguments: object) -> None:
        with files.open_folder(folder) as first, files.open_folder(folder) as second:
            given = [second if argument is None else argument for argument in arguments]
            made = getattr(first, operation)(*given)
            if operation == "create":
                made.close()

    def replace_while_held() -> None:
        with open(LOCAL + two, "rb"):
            files.replace(three, two)

    yield lambda: files.confined_to(one)
    yield lambda: work(files.create, one)
    yield lambda: work(files.open_read, one)
    yield lambda: work(files.open_write, one)
    yield lambda: work(files.open_append, one)
    yield lambda: files.read_small(one, 99)
    yield lambda: files.read_small_with_mtime(one, 99)
    yield lambda: files.flush(one)
    yield lambda: files.touch(one, 1e9)
    yield lambda: files.stat(one)
    yield lambda: files.is_dir(one)
    yield lambda: files.scan(folder)
    yield lambda: files.volume_id(folder)
    yield lambda: files.change_time(folder)
    yield lambda: files.rename(one, two)
    yield lambda: files.link(two, one)
    yield lambda: files.clone(one, three)
    yield lambda: work(files.create, three)
    yield lambda: files.replace(three, two)
    yield lambda: within("create", "four", 0)
    yield lambda: within("stat", "four")
    yield lambda: within("link", "four", None)
    yield lambda: within("clone", "four", None, "five", 0)
    yield lambda: win32.Handle(two, win32.GENERIC_READ).close()
    # The older calls, all of which a read-only file needs.
    yield lambda: work(files.create, three)
    yield lambda: ctypes.WinDLL("kernel32").SetFileAttributesW(LOCAL + two, 1)
    yield replace_while_held
    yield lambda: files.replace(three, two)
    yield lambda: ctypes.WinDLL("kernel32").SetFileAttributesW(LOCAL + two, 1)
    yield lambda: files.unlink(two)
    yield lambda: files.mkdir(two)
    yield lambda: files.rmdir(two)
    yield lambda: files.unlink(one)
    yield lambda: holders_windows.holders_of([one, folder])
    yield lambda: volume_windows.volume_of(folder)


def test_every_operation_is_among_them() -> None:
    """Every operation of the file layer is called here: a new one must be added."""
    source = inspect.getsource(every_operation)
    operations = {name for name, value in vars(FileSystem).items() if inspect.isfunction(value) and name[0] != "_"}
    assert {name for name in operations if f"files.{name}" not in source} == WITHOUT_PATH


@pytest.mark.parametrize("refusing", [False, True])
def test_every_long_path_reaches_the_system_with_its_prefix(spy: Spy, folder: str, refusing: bool) -> None:
    r"""Every function of Windows or Python receives long paths with ``\\?\``, without POSIX semantics too."""

    def refuse(handle: object, kind: int, information: bytes, target: str | None) -> None:
        spy.set_information(handle, kind, information, target)
        if kind in {21, 22}:
            raise OSError(None, "no", folder, 87, target)

    files = NativeFiles(refuse if refusing else spy.set_information)
    for operation in every_operation(files, folder):
        with suppress(OSError):
            operation()
    assert [call for call in spy.seen if not call[1].startswith(LOCAL)] == []
    assert {"CreateFileW", "MoveFileExW", "CreateHardLinkW", "CreateDirectoryW", "GetFileAttributesW"} <= spy.names()
    assert {"os.lstat", "os.stat", "os.utime", "os.scandir", "os.path.isdir", "FILE_RENAME_INFO"} <= spy.names()
    assert {"RmRegisterResources", "GetVolumePathNameW", "GetDiskFreeSpaceExW"} <= spy.names()


def test_every_long_path_of_a_cache_reaches_the_system_with_its_prefix(spy: Spy, folder: str) -> None:
    r"""In a cache folder, only the paths of folders reach the system, and the long ones have ``\\?\``."""
    files = NativeFiles(spy.set_information).confined_to(folder)
    for operation in every_operation(files, folder):
        with suppress(OSError):
            operation()
    assert [call for call in spy.seen if not call[1].startswith(LOCAL)] == []
    assert {"CreateFileW", "os.lstat"} <= spy.names()
    assert not {"MoveFileExW", "CreateHardLinkW", "CreateDirectoryW", "os.utime", "os.scandir"} & spy.names()


def test_the_paths_of_a_server_reach_the_system_with_theirs(spy: Spy) -> None:
    r"""A long path ``\\server\share\…`` becomes ``\\?\UNC\server\share\…`` for every function."""
    folder = f"\\\\127.0.0.1\\no share\\{MARK}"
    files = NativeFiles(spy.set_information)
    for operation in every_operation(files, folder):
        with suppress(OSError):
            operation()
    assert [call for call in spy.seen if not call[1].startswith(f"{SHARE}127.0.0.1\\no share\\{MARK}")] == []
    assert {"CreateFileW", "MoveFileExW", "CreateHardLinkW", "CreateDirectoryW", "os.lstat"} <= spy.names()


@pytest.mark.parametrize(
    "given", ["\\\\server\\share\\cache", "//server/share/cache", "\\\\server\\share\\x\\..\\cache\\"]
)
def test_a_cache_folder_on_a_server(given: str, wheel: Wheel) -> None:
    r"""Every path of a cache on a share is below it, and the long ones become ``\\?\UNC\server\share\…``."""
    root = choose_cache_folder(given)
    assert root == "\\\\server\\share\\cache"
    layout = Layout(root)
    running = MultiHash()
    running.update(wheel.data)
    sha256 = running.hexdigests()["sha256"]
    long_name = wheel_filename("a" * 150)
    stamp = OwnerTag.new(1e9, None)
    paths = [
        *(layout.entry(sha256), layout.record(sha256, long_name), layout.blob(sha256, long_name, 0)),
        *(
            layout.blob(sha256, long_name, 3),
            layout.tree(sha256, 0),
            layout.pointer("https://example.org/" + long_name),
        ),
        *(layout.new_partial("key", stamp, "space"), layout.new_temporary(stamp), layout.quarantined(stamp, long_name)),
    ]
    assert all(path.startswith(root + "\\v1\\") for path in paths)
    prefixed = [path for path in paths if len(path) > 240]
    assert prefixed
    for path in prefixed:
        assert win32.extended(path) == SHARE + path[2:]
        assert os.path.dirname(win32.extended(path)).startswith(SHARE + "server\\share\\cache\\v1")


def test_the_root_of_a_share_is_where_its_paths_end() -> None:
    """The root of a share is its own parent, like that of a drive: creating parent folders ends there."""
    root = choose_cache_folder("\\\\server\\share\\")
    assert os.path.dirname(root) == root
    assert Layout(root).version.startswith("\\\\server\\share\\v1")
