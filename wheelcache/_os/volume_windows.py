"""The volume behind a path on Windows: :mod:`._volume` says what is asked.

Every question may be refused (a mapped folder of a container has no volume that can be asked, for one), and what is
known from the others is still told.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator

if sys.platform != "win32":  # pragma: no cover - mypy reads this module for Linux too
    raise ImportError("this is for Windows")

from ctypes import wintypes

from . import win32
from .process_windows import in_container
from .volume import Environment, Volume, cloud_by_name
from .win32 import Handle, extended, function

_PATH, _TEXT, _NUMBER = wintypes.LPCWSTR, wintypes.LPWSTR, wintypes.DWORD
_ROOM = 1024
_REMOTE_DRIVE = 4

# A reparse point of these kinds, or one of these attributes, is a file whose bytes may be in the cloud:
# https://learn.microsoft.com/windows/win32/fileio/reparse-point-tags and .../file-attribute-constants.
# 0x00040000 is left out: "recall on open" is told in listings of folders only, and of a file that is asked itself the
# same bit says that it has extended attributes, as all has that was made from WSL.
_CLOUD_TAG, _CLOUD_TAG_MASK = 0x9000001A, 0xFFFF0FFF
_CLOUD_ATTRIBUTES = {
    0x00001000: "offline",
    0x00080000: "pinned",
    0x00100000: "unpinned",
    0x00400000: "recall on data access",
}
# Where the folders are that Docker maps into a Windows container: https://github.com/nodejs/node/issues/8897
_CONTAINER_FOLDERS = "ContainerMappedDirectories".lower()


def volume_of(path: str) -> Volume:
    """Return the volume of a path."""
    path = _existing(path)
    mount, code = _mount(path)
    file_system = ""
    if mount:
        file_system, refused = _file_system(mount)
        code = code or refused
    drive, unc = os.path.splitdrive(path)[0], path.startswith("\\\\") and not path.startswith("\\\\?\\")
    remote = unc or path.upper().startswith("\\\\?\\UNC\\") or _drive_type(mount or drive + "\\") == _REMOTE_DRIVE
    free, size = _room(path)
    return Volume(
        file_system=file_system,
        mount=mount or drive,
        remote=remote,
        mapped=_is_substituted(drive) or _CONTAINER_FOLDERS in _final_path(path).lower(),
        cloud=_cloud(path),
        free=free,
        size=size,
        code=code,
    )


def _room(path: str) -> tuple[int | None, int | None]:
    number = ctypes.POINTER(ctypes.c_uint64)
    ask = function("GetDiskFreeSpaceExW", _PATH, number, number, number)
    free, size = ctypes.c_uint64(), ctypes.c_uint64()
    # A share's name must end so: https://learn.microsoft.com/windows/win32/api/fileapi/nf-fileapi-getdiskfreespaceexw
    folder = extended(path).rstrip("\\") + "\\"
    return (free.value, size.value) if ask(folder, free, size, None) else (None, None)


def _existing(path: str) -> str:
    while not os.path.exists(extended(path)) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _code() -> str:
    return f"winerror {ctypes.get_last_error()}"


def _mount(path: str) -> tuple[str, str]:
    ask = function("GetVolumePathNameW", _PATH, _TEXT, _NUMBER)
    text = ctypes.create_unicode_buffer(_ROOM)
    if not ask(extended(path), text, _ROOM):
        return "", _code()
    return text.value.rstrip("\\") + "\\", ""


def _file_system(mount: str) -> tuple[str, str]:
    number = ctypes.POINTER(_NUMBER)
    ask = function("GetVolumeInformationW", _PATH, _TEXT, _NUMBER, number, number, number, _TEXT, _NUMBER)
    name = ctypes.create_unicode_buffer(_ROOM)
    return (name.value, "") if ask(mount, None, 0, None, None, None, name, _ROOM) else ("", _code())


def _drive_type(root: str) -> int:
    kind: int = function("GetDriveTypeW", _PATH, result=wintypes.UINT)(root)
    return kind


def _is_substituted(drive: str) -> bool:
    """Return whether a drive letter stands for a folder of another drive."""
    ask = function("QueryDosDeviceW", _PATH, _TEXT, _NUMBER, result=_NUMBER)
    text = ctypes.create_unicode_buffer(_ROOM)
    return bool(ask(drive, text, _ROOM)) and text.value.startswith("\\??\\") and ":" in text.value[4:]


def _final_path(path: str) -> str:
    """Return where a path leads to when every link is followed."""
    ask = function("GetFinalPathNameByHandleW", wintypes.HANDLE, _TEXT, _NUMBER, _NUMBER, result=_NUMBER)
    text = ctypes.create_unicode_buffer(32768)
    try:
        with Handle(path, win32.READ_ATTRIBUTES, flags=win32.FOLDER_TOO) as handle:
            return text.value if ask(handle.number, text, len(text), 0) else ""
    except OSError:
        return ""


def _cloud(path: str) -> str:
    """Return the service of the nearest folder that is kept in the cloud."""
    for folder in _upwards(path):
        try:
            stat = os.lstat(extended(folder))
        except OSError:
            continue
        marks = cloud_attributes(stat.st_file_attributes, stat.st_reparse_tag)
        if marks:
            return f"{cloud_by_name(path) or 'a cloud service'} ({marks})"
    for variable in ("OneDrive", "OneDriveConsumer", "OneDriveCommercial"):
        root = os.environ.get(variable)
        if root and (os.path.normcase(path) + "\\").startswith(os.path.normcase(root).rstrip("\\") + "\\"):
            return "OneDrive"
    return cloud_by_name(path)


def cloud_attributes(attributes: int, tag: int) -> str:
    """Return what says that a file or folder is kept in the cloud; empty where nothing does."""
    marks = [name for bit, name in _CLOUD_ATTRIBUTES.items() if attributes & bit]
    return ", ".join(marks) or ("cloud files" if tag & _CLOUD_TAG_MASK == _CLOUD_TAG else "")


def _upwards(path: str) -> Iterator[str]:
    while True:
        yield path
        above = os.path.dirname(path)
        if above == path:
            return
        path = above


def environment() -> Environment:
    """Return what this process runs in."""
    return Environment(container="Windows container" if in_container() else "")
