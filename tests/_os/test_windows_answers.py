"""Facts about the machine on Windows: the holders of a file, the environment of this process, the boot.

Wine names no holders and has no Windows containers: the tests replace its responses for these.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from marks import on_windows

from wheelcache import Cache, Cause, CommitError

if sys.platform == "win32":
    import winreg
    from ctypes import wintypes

    from wheelcache._os import process_windows
    from wheelcache._os.holders_windows import Process, holders_of, list_processes
    from wheelcache._os.process_windows import TimeOfDay, boot_id, in_container, pid_namespace, user_id
    from wheelcache._os.volume_windows import cloud_attributes, environment

pytestmark = on_windows

MORE_DATA = 234


# Holders of a file


def test_the_list_of_holders_has_the_form_that_windows_gives_it() -> None:
    """The size and the offsets of the structure are those of RM_PROCESS_INFO in restartmanager.h."""
    assert ctypes.sizeof(Process) == 668
    places = {"pid": 0, "started": 4, "application": 12, "service": 524, "kind": 652, "status": 656, "session": 660}
    assert {name: getattr(Process, name).offset for name in places} == places
    assert Process.restartable.offset == 664


class RestartManager:
    """A Restart Manager whose list may have grown since it reported its length."""

    def __init__(self, *lengths: int, code: int = 0) -> None:
        self.lengths = list(lengths)
        self.code = code
        self.rooms: list[int] = []

    def __call__(self, session: object, needed: object, count: object, processes: object, reasons: object) -> int:
        room = count._obj.value
        self.rooms.append(room)
        length = self.lengths.pop(0)
        needed._obj.value = length
        if length > room:
            return MORE_DATA
        count._obj.value = length
        for number in range(length):
            processes[number].pid = 100 + number
            processes[number].application = f"program {number}"
        return self.code


@pytest.mark.parametrize(
    ("lengths", "rooms"), [((0,), [0]), ((3, 3), [0, 4]), ((1, 6, 6), [0, 2, 7]), ((2, 1), [0, 3]), ((4, 5), [0, 5])]
)
def test_holders_are_asked_for_with_more_room(lengths: tuple[int, ...], rooms: list[int]) -> None:
    """If the buffer is too small, the query is repeated with a larger one, as often as the list grows."""
    manager = RestartManager(*lengths)
    found = list_processes(wintypes.DWORD(1), manager)
    assert manager.rooms == rooms
    assert [(process.pid, process.application) for process in found] == [
        (100 + number, f"program {number}") for number in range(lengths[-1])
    ]


def test_a_list_of_holders_that_always_grows_is_given_up() -> None:
    """If the list grows at every query, the query is given up and no process is named."""
    manager = RestartManager(*range(1, 100, 3))
    assert list_processes(wintypes.DWORD(1), manager) == []
    assert 1 < len(manager.rooms) < 10


def test_a_refusal_to_tell_names_nobody() -> None:
    """If the Restart Manager fails, no process is named."""
    assert list_processes(wintypes.DWORD(1), RestartManager(0, code=5)) == []


def holder(pid: int, application: str = "program") -> Process:
    process = Process()
    process.pid, process.application = pid, application
    return process


def test_each_file_is_asked_about_for_itself(tmp_path: Path) -> None:
    """Folders are not queried, and a file without a result does not hide the holders of another file."""
    first, second, folder = tmp_path / "first", tmp_path / "second", tmp_path / "folder"
    first.touch()
    second.touch()
    folder.mkdir()
    asked = []

    def ask(path: str) -> list[Process]:
        asked.append(path)
        return [] if path == str(first) else [holder(1 << 30, "AV"), holder(os.getpid()), holder(1 << 30, "AV")]

    assert holders_of([str(first), str(folder), str(second)], ask) == (f"AV (pid {1 << 30})", "this process")
    assert asked == [str(first), str(second)]


# The environment


@pytest.fixture
def contained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate the registry of a container."""
    genuine = winreg.QueryValueEx

    def query(key: object, name: str) -> tuple[object, int]:
        return (1, winreg.REG_DWORD) if name == "ContainerType" else genuine(key, name)

    monkeypatch.setattr(winreg, "QueryValueEx", query)


def test_outside_of_containers_process_numbers_are_those_of_the_machine() -> None:
    """Outside of containers the PID namespace is empty: all processes of the machine share it."""
    assert not in_container()
    assert pid_namespace() == ""
    assert environment().container == ""


@pytest.mark.usefixtures("contained")
def test_in_a_container_process_numbers_are_its_own() -> None:
    """Containers that share a cache are distinguished by their names, and doctor reports the container."""
    assert in_container()
    assert pid_namespace().lower() == os.environ["COMPUTERNAME"].lower()
    assert environment().container == "Windows container"


def test_what_keeps_files_in_the_cloud_is_seen() -> None:
    """Attributes and reparse points of cloud services are recognised. Extended attributes and other links are not."""
    directory = 0x10
    assert cloud_attributes(directory | 0x80000, 0) == "pinned"
    assert cloud_attributes(directory | 0x400000 | 0x1000, 0) == "offline, recall on data access"
    assert cloud_attributes(directory | 0x400, 0x9000001A) == "cloud files"
    assert cloud_attributes(directory | 0x400, 0x9000601A) == "cloud files"
    assert cloud_attributes(directory | 0x40000, 0) == ""
    assert cloud_attributes(directory | 0x400, 0xA0000003) == ""
    assert cloud_attributes(directory, 0) == ""


def test_a_share_that_is_not_there_is_told() -> None:
    """A cache folder on a share that does not exist is an error that names the path and no holder."""
    with pytest.raises(CommitError) as caught:
        Cache("\\\\127.0.0.1\\no share\\cache", io_timeout=0.5)
    assert "\\\\127.0.0.1\\no share" in str(caught.value)
    assert caught.value.cause is not Cause.HELD


# The boot


def answer(boot: int, bias: int, code: int = 0) -> Callable[..., int]:
    def query(kind: int, pointer: object, size: int, length: object) -> int:
        assert (kind, size) == (3, ctypes.sizeof(TimeOfDay)) == (3, 48)
        pointer._obj.boot_time, pointer._obj.boot_time_bias = boot, bias
        return code

    return query


def test_the_boot_is_the_same_in_every_process() -> None:
    """Another process of this boot has the same boot ID: otherwise each process would hash every wheel."""
    mine = boot_id()
    assert mine
    code = "from wheelcache._os.process_windows import boot_id; print(boot_id())"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert theirs == mine == boot_id()


def test_setting_the_clock_is_no_boot() -> None:
    """Setting the clock changes the boot time and its bias alike, so the boot ID stays the same."""
    assert boot_id(answer(1000, 0)) == boot_id(answer(1500, 500))
    assert boot_id(answer(1000, 0)) != boot_id(answer(1500, 0))


def test_a_boot_that_is_not_told_is_none() -> None:
    """If the system refuses the query or returns no time, there is no boot ID."""
    assert boot_id(answer(1000, 0, code=-1)) is None
    assert boot_id(answer(0, 0)) is None


# The user


def test_the_user_is_that_of_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is a security identifier, whatever the environment says, and the same in each process."""
    for name in ("USERNAME", "USERDOMAIN", "USERPROFILE"):
        monkeypatch.setenv(name, "somebody else")
    user_id.cache_clear()
    user = user_id()
    assert user is not None
    assert user.startswith("S-1-")
    code = "from wheelcache._os.process_windows import user_id; print(user_id())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == user


def test_an_unknown_user_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the token cannot be read, the user is unknown, and no error is raised."""
    for name in ("OpenProcessToken", "GetTokenInformation", "ConvertSidToStringSidW"):
        with monkeypatch.context() as patch:
            real = process_windows.function

            def refusing(wanted: str, *types: object, name: str = name, real=real, **options: object) -> object:
                return (lambda *_: 0) if wanted == name else real(wanted, *types, **options)

            patch.setattr(process_windows, "function", refusing)
            user_id.cache_clear()
            assert user_id() is None
    user_id.cache_clear()
