"""Whether other users can write to folders, on Windows.

A folder is private if its owner, and everybody whom its access list allows to change or delete something, is the
current user, SYSTEM or an administrator. The owner matters, because an owner can always change the list. Entries that
only apply to new files and folders inside count, too. Entries that deny access are ignored, so that a folder is rather
taken for shared.

A folder without a list is shared, because everybody has full access to it. This is the case on volumes without access
lists, such as FAT: https://learn.microsoft.com/windows/win32/secauthz/dacls-and-aces
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

if sys.platform != "win32":  # pragma: no cover - mypy checks this module for Linux too
    raise ImportError("this module is for Windows")

from ctypes import wintypes

from .. import win32
from ..process_windows import user_id
from ..win32 import Handle, function

# The functions are looked up on first use, since a call that reads a trusted wheel does not need them.
_function = cache(function)
_POINTER, _NUMBER = wintypes.LPVOID, wintypes.DWORD
_POINTERS = ctypes.POINTER(wintypes.LPVOID)
_FILE_OBJECT = 1  # SE_FILE_OBJECT of accctrl.h
_OWNER_AND_LIST = 0x1 | 0x4  # OWNER_SECURITY_INFORMATION and DACL_SECURITY_INFORMATION of winnt.h
_READ_CONTROL = 0x00020000
_MISSING = {2, 3}

# https://learn.microsoft.com/windows/win32/secauthz/well-known-sids
_SYSTEM, _ADMINISTRATORS = "S-1-5-18", "S-1-5-32-544"
# The rights of the creator of a file inside, who could already write to the folder, and of the owner of a file.
_CREATOR_OWNER, _OWNER_RIGHTS = "S-1-3-0", "S-1-3-4"
# https://learn.microsoft.com/windows/win32/fileio/file-access-rights-constants: write data or create files, append data
# or create folders, write extended attributes, delete children, write attributes. The last one suffices to turn an
# empty folder into a junction. The others are DELETE, WRITE_DAC, WRITE_OWNER, GENERIC_ALL and GENERIC_WRITE.
_WRITING = 0x2 | 0x4 | 0x10 | 0x40 | 0x100 | 0x10000 | 0x40000 | 0x80000 | 0x10000000 | 0x40000000

# https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-ace_header. An entry for a callback has a condition after
# its security identifier. Entries of these types begin alike: type, flags, size, access mask, security identifier.
_ALLOWED = {0x00, 0x09}
_DENIED = {0x01, 0x06, 0x0A, 0x0C}
_OFFSET_OF_MASK, _OFFSET_OF_IDENTIFIER = 4, 8


class AccessEntry(NamedTuple):
    """An entry of an access list.

    Attributes:
        kind: the type of the entry in winnt.h.
        mask: the access rights.
        identifier: the security identifier (SID) of the user or group. Empty for a type without an access mask.
    """

    kind: int
    mask: int
    identifier: str


class Access(NamedTuple):
    """The owner of a folder, and its access list or ``None`` if it has no list."""

    owner: str
    entries: Sequence[AccessEntry] | None


def is_private(paths: Sequence[str]) -> bool:
    """Return whether only the current user, SYSTEM and Administrators can write to all of these folders.

    Links are followed. A missing folder is skipped. A folder that cannot be examined counts as shared.
    """
    user = user_id()
    return user is not None and all(_is_private(path, user) for path in paths)


def _is_private(path: str, user: str) -> bool:
    try:
        return admits_only(user, read_access(path))
    except OSError as error:
        return error.winerror in _MISSING


def admits_only(user: str, access: Access) -> bool:
    """Return whether nobody but this user, SYSTEM and Administrators can change or delete anything in the folder."""
    trusted = {user, _SYSTEM, _ADMINISTRATORS}
    if access.owner not in trusted or access.entries is None:
        return False
    trusted |= {_CREATOR_OWNER, _OWNER_RIGHTS}
    return not any(
        entry.kind not in _DENIED
        and (entry.kind not in _ALLOWED or (entry.mask & _WRITING and entry.identifier not in trusted))
        for entry in access.entries
    )


def read_access(path: str) -> Access:
    """Return the owner and the access list of a folder.

    Raises:
        OSError: if the folder is missing, or its owner or list cannot be read.
    """
    query = _function(
        "GetSecurityInfo",
        *(wintypes.HANDLE, ctypes.c_int, _NUMBER, _POINTERS, _POINTERS, _POINTERS, _POINTERS, _POINTERS),
        result=_NUMBER,
        library="advapi32",
    )
    free = _function("LocalFree", _POINTER, result=_POINTER)
    owner, entries, descriptor = _POINTER(), _POINTER(), _POINTER()
    with Handle(path, _READ_CONTROL, flags=win32.FOLDERS_TOO) as handle:
        code = query(
            handle.number,
            _FILE_OBJECT,
            _OWNER_AND_LIST,
            ctypes.byref(owner),
            None,
            ctypes.byref(entries),
            None,
            ctypes.byref(descriptor),
        )
    if code:
        raise win32.error_of(code, path)
    try:
        # The owner and the list are parts of the descriptor.
        return Access(_to_text(owner), list(list_entries(entries, path)) if entries else None)
    finally:
        free(descriptor)


def list_entries(access_list: ctypes.c_void_p, path: str) -> Iterator[AccessEntry]:
    """Yield the entries of an ACL. The path is only used in the error."""
    get = _function("GetAce", _POINTER, _NUMBER, _POINTERS, library="advapi32")
    # An ACL begins with two bytes, its size, and the number of its entries.
    count = ctypes.cast(access_list, ctypes.POINTER(wintypes.WORD))[2]
    for index in range(count):
        entry = _POINTER()
        if not get(access_list, index, ctypes.byref(entry)) or not entry.value:
            raise win32.last_error(path)
        kind = ctypes.cast(entry, ctypes.POINTER(ctypes.c_ubyte))[0]
        if kind in _ALLOWED | _DENIED:
            mask = ctypes.cast(entry.value + _OFFSET_OF_MASK, ctypes.POINTER(_NUMBER))[0]
            known = kind in _ALLOWED
            identifier = _to_text(_POINTER(entry.value + _OFFSET_OF_IDENTIFIER)) if known else ""
            yield AccessEntry(kind, mask, identifier)
        else:
            yield AccessEntry(kind, 0, "")


def _to_text(identifier: ctypes.c_void_p) -> str:
    """Return a security identifier as text, or an empty string if it is invalid."""
    to_text = _function("ConvertSidToStringSidW", _POINTER, ctypes.POINTER(wintypes.LPWSTR), library="advapi32")
    free = _function("LocalFree", _POINTER, result=_POINTER)
    text = wintypes.LPWSTR()
    if not to_text(identifier, ctypes.byref(text)):
        return ""
    try:
        return text.value or ""
    finally:
        free(text)
