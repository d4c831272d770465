"""Whether other users can write to folders, by the access lists of Windows.

Wine makes the access list of a folder from its POSIX permissions, so most tests use lists that they write themselves.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from marks import on_windows

pytestmark = on_windows

if sys.platform == "win32":
    from ctypes import wintypes

    from wheelcache._os.access import windows
    from wheelcache._os.access.windows import Access, AccessEntry, admits_only, is_private, list_entries, read_access
    from wheelcache._os.process_windows import user_id
    from wheelcache._os.win32 import function

USER, OTHER, EVERYBODY = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002", "S-1-1-0"
ALLOWED, DENIED, CONDITIONAL, UNKNOWN = 0x00, 0x01, 0x09, 0x05
FULL, READ_EXECUTE = 0x1F01FF, 0x1200A9


def access(*entries: AccessEntry, owner: str = USER) -> Access:
    return Access(owner, [AccessEntry(ALLOWED, FULL, USER), *entries])


@contextmanager
def access_list(text: str) -> Iterator[ctypes.c_void_p]:
    """Make an access list from a security descriptor in text form, as Windows stores it."""
    pointers = ctypes.POINTER(wintypes.LPVOID)
    convert = function(
        "ConvertStringSecurityDescriptorToSecurityDescriptorW",
        *(wintypes.LPCWSTR, wintypes.DWORD, pointers, wintypes.LPVOID),
        library="advapi32",
    )
    flag = ctypes.POINTER(wintypes.BOOL)
    find = function("GetSecurityDescriptorDacl", wintypes.LPVOID, flag, pointers, flag, library="advapi32")
    descriptor, found = wintypes.LPVOID(), wintypes.LPVOID()
    present, defaulted = wintypes.BOOL(), wintypes.BOOL()
    assert convert(text, 1, ctypes.byref(descriptor), None)
    assert find(descriptor, ctypes.byref(present), ctypes.byref(found), ctypes.byref(defaulted))
    yield found
    function("LocalFree", wintypes.LPVOID, result=wintypes.LPVOID)(descriptor)


def test_the_default_access_of_a_profile_is_private() -> None:
    """The user, SYSTEM and Administrators may do everything, and others may read."""
    allowed = [(FULL, "S-1-5-18"), (FULL, "S-1-5-32-544"), (READ_EXECUTE, EVERYBODY), (FULL, "S-1-3-0")]
    entries = [AccessEntry(ALLOWED, mask, who) for mask, who in allowed]
    for owner in (USER, "S-1-5-18", "S-1-5-32-544"):
        assert admits_only(USER, access(*entries, owner=owner))


@pytest.mark.parametrize(
    "right",
    [0x2, 0x4, 0x10, 0x40, 0x100, 0x10000, 0x40000, 0x80000, 0x10000000, 0x40000000],
    ids=hex,
)
def test_each_right_to_change_something_makes_a_folder_shared(right: int) -> None:
    """One right of another user or group to write, delete or change the access is enough, even under a condition."""
    for kind in (ALLOWED, CONDITIONAL):
        for who in (OTHER, EVERYBODY, "S-1-5-11", "S-1-5-32-545", ""):
            assert not admits_only(USER, access(AccessEntry(kind, right, who)))


def test_a_folder_of_another_owner_is_shared() -> None:
    """The owner can change the access list at any time."""
    assert not admits_only(USER, access(owner=OTHER))
    assert not admits_only(USER, access(owner=""))


def test_a_folder_without_an_access_list_is_shared() -> None:
    """Without a list, everybody has full access. An empty list gives nobody access."""
    assert not admits_only(USER, Access(USER, None))
    assert admits_only(USER, Access(USER, []))


def test_denials_change_nothing() -> None:
    """An entry that denies access neither makes a folder shared nor private."""
    denied = AccessEntry(DENIED, FULL, "")
    assert admits_only(USER, access(denied))
    assert not admits_only(USER, access(denied, AccessEntry(ALLOWED, FULL, EVERYBODY)))


def test_an_entry_of_an_unknown_type_makes_a_folder_shared() -> None:
    """The rights of such an entry are not known."""
    assert not admits_only(USER, access(AccessEntry(UNKNOWN, 0, "")))


def test_the_entries_are_read_as_windows_stores_them() -> None:
    """An access list yields the type, the rights and the security identifier of each entry, inherited ones too."""
    with access_list("D:(D;;FA;;;BG)(A;;FA;;;SY)(A;OICIIO;0x1301bf;;;AU)(A;ID;0x1200a9;;;WD)") as found:
        assert list(list_entries(found, "")) == [
            AccessEntry(DENIED, FULL, ""),
            AccessEntry(ALLOWED, FULL, "S-1-5-18"),
            AccessEntry(ALLOWED, 0x1301BF, "S-1-5-11"),
            AccessEntry(ALLOWED, READ_EXECUTE, EVERYBODY),
        ]


def test_the_access_of_a_folder_is_read(tmp_path: Path) -> None:
    """The owner of a new folder is this user, who has full access."""
    found = read_access(str(tmp_path))
    assert found.owner == user_id()
    assert found.entries is not None
    assert any(entry.identifier == user_id() and entry.mask & 0x2 for entry in found.entries)


def test_each_folder_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    """One shared folder is enough. A missing folder is skipped, and one that cannot be examined counts as shared."""
    user = user_id()
    answers: dict[str, Access | int] = {"mine": Access(user or "", []), "shared": Access(user or "", None)}
    answers |= {"missing": 2, "no path": 3, "denied": 5}

    def read(path: str) -> Access:
        answer = answers[path]
        if isinstance(answer, int):
            raise OSError(None, "refused", path, answer)
        return answer

    monkeypatch.setattr(windows, "read_access", read)
    assert is_private(["mine", "missing", "mine", "no path"])
    assert not is_private(["mine", "shared"])
    assert not is_private(["mine", "denied"])
    monkeypatch.setattr(windows, "user_id", lambda: None)
    assert not is_private(["mine"])
