"""Facts about volumes and the environment on Windows. :mod:`.volume` describes these facts.

Each query may fail, for example in a folder that is mapped into a container. The facts from the other queries are still
returned.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator

if sys.platform != "win32":  # pragma: no cover - mypy checks this module for Linux too
    raise ImportError("this module is for Windows")

from ctypes import wintypes

from . import win32
from .process_windows import in_container
from .volume import Environment, Volume, cloud_by_name
from .win32 import Handle, extended, function

_PATH, _TEXT, _NUMBER = wintypes.LPCWSTR, wintypes.LPWSTR, wintypes.DWORD
_BUFFER_SIZE = 1024
# https://learn.microsoft.com/windows/win32/api/fileapi/nf-fileapi-getdrivetypew
_REMOVABLE_DRIVE, _REMOTE_DRIVE = 2, 4

# A file with such a reparse point, or with one of these attributes, may have its content in the cloud only:
# https://learn.microsoft.com/windows/win32/fileio/reparse-point-tags and .../file-attribute-constants. 0x00040000 is
# omitted, because it means "recall on open" in listings of folders only. In the attributes of a single file, this bit
# means that the file has extended attributes, like every file that was created from WSL.
_CLOUD_TAG, _CLOUD_TAG_MASK = 0x9000001A, 0xFFFF0FFF
_CLOUD_ATTRIBUTES = {
    0x00001000: "offline",
    0x00080000: "pinned",
    0x00100000: "unpinned",
    0x00400000: "recall on data access",
}
# The object directory of the folders that Docker maps into a Windows container: https://github.com/nodejs/node/issues/8897
_CONTAINER_FOLDERS = "ContainerMappedDirectories".lower()


def volume_of(path: str) -> Volume:
    """Return the volume of a path. The path need not exist."""
    path = _existing(path)
    mount, code = _mount(path)
    file_system = ""
    if mount:
        file_system, refused = _file_system(mount)
        code = code or refused
    drive, unc = os.path.splitdrive(path)[0], path.startswith("\\\\") and not path.startswith("\\\\?\\")
    drive_type = _drive_type(mount or drive + "\\")
    remote = unc or path.upper().startswith("\\\\?\\UNC\\") or drive_type == _REMOTE_DRIVE
    free, size = _space_of(path)
    return Volume(
        file_system=file_system,
        mount=mount or drive,
        remote=remote,
        removable=drive_type == _REMOVABLE_DRIVE,
        mapped=_is_substituted(drive) or _CONTAINER_FOLDERS in _final_path(path).lower(),
        cloud=_cloud(path),
        free=free,
        size=size,
        code=code,
    )


def _space_of(path: str) -> tuple[int | None, int | None]:
    """Return the free bytes and the size of a volume."""
    number = ctypes.POINTER(ctypes.c_uint64)
    query = function("GetDiskFreeSpaceExW", _PATH, number, number, number)
    free, size = ctypes.c_uint64(), ctypes.c_uint64()
    # The name of a share must end in a backslash: https://learn.microsoft.com/windows/win32/api/fileapi/nf-fileapi-getdiskfreespaceexw
    folder = extended(path).rstrip("\\") + "\\"
    return (free.value, size.value) if query(folder, free, size, None) else (None, None)


def _existing(path: str) -> str:
    """Return the path, or the nearest folder above it that exists."""
    while not os.path.exists(extended(path)) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _code() -> str:
    return f"winerror {ctypes.get_last_error()}"


def _mount(path: str) -> tuple[str, str]:
    """Return the mount point of a path, and the code of the error if the mount point is unknown."""
    query = function("GetVolumePathNameW", _PATH, _TEXT, _NUMBER)
    text = ctypes.create_unicode_buffer(_BUFFER_SIZE)
    if not query(extended(path), text, _BUFFER_SIZE):
        return "", _code()
    return text.value.rstrip("\\") + "\\", ""


def _file_system(mount: str) -> tuple[str, str]:
    """Return the type of the file system at a mount point, and the code of the error if the type is unknown."""
    number = ctypes.POINTER(_NUMBER)
    query = function("GetVolumeInformationW", _PATH, _TEXT, _NUMBER, number, number, number, _TEXT, _NUMBER)
    name = ctypes.create_unicode_buffer(_BUFFER_SIZE)
    return (name.value, "") if query(mount, None, 0, None, None, None, name, _BUFFER_SIZE) else ("", _code())


def _drive_type(root: str) -> int:
    kind: int = function("GetDriveTypeW", _PATH, result=wintypes.UINT)(root)
    return kind


def _is_substituted(drive: str) -> bool:
    """Return whether a drive letter is a substitute for a folder of another drive."""
    query = function("QueryDosDeviceW", _PATH, _TEXT, _NUMBER, result=_NUMBER)
    text = ctypes.create_unicode_buffer(_BUFFER_SIZE)
    return bool(query(drive, text, _BUFFER_SIZE)) and text.value.startswith("\\??\\") and ":" in text.value[4:]


def _final_path(path: str) -> str:
    """Return the path with every link followed, or an empty string if the path cannot be resolved."""
    query = function("GetFinalPathNameByHandleW", wintypes.HANDLE, _TEXT, _NUMBER, _NUMBER, result=_NUMBER)
    text = ctypes.create_unicode_buffer(32768)
    try:
        with Handle(path, win32.READ_ATTRIBUTES, flags=win32.FOLDERS_TOO) as handle:
            return text.value if query(handle.number, text, len(text), 0) else ""
    except OSError:
        return ""


def _cloud(path: str) -> str:
    """Return the cloud service that synchronises a path or the nearest folder above it, or an empty string."""
    for folder in _with_parents(path):
        try:
            stat = os.lstat(extended(folder))
        except OSError:
            continue
        attributes = cloud_attributes(stat.st_file_attributes, stat.st_reparse_tag)
        if attributes:
            return f"{cloud_by_name(path) or 'a cloud service'} ({attributes})"
    for variable in ("OneDrive", "OneDriveConsumer", "OneDriveCommercial"):
        root = os.environ.get(variable)
        if root and (os.path.normcase(path) + "\\").startswith(os.path.normcase(root).rstrip("\\") + "\\"):
            return "OneDrive"
    return cloud_by_name(path)


def cloud_attributes(attributes: int, tag: int) -> str:
    """Return the names of the attributes that mark a file as synchronised with a cloud, or an empty string."""
    names = [name for bit, name in _CLOUD_ATTRIBUTES.items() if attributes & bit]
    return ", ".join(names) or ("cloud files" if tag & _CLOUD_TAG_MASK == _CLOUD_TAG else "")


def _with_parents(path: str) -> Iterator[str]:
    """Yield a path and each folder above it."""
    while True:
        yield path
        parent = os.path.dirname(path)
        if parent == path:
            return
        path = parent


def environment() -> Environment:
    """Return the environment of this process."""
    return Environment(container="Windows container" if in_container() else "")
