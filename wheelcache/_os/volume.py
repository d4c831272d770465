"""Facts about the volume behind a path, and about the environment of this process.

The facts are looked up by ``doctor``, after a refusal, and before a cache writes its first record, never for a hit. The
lookup never fails.
A fact that the system does not report is empty. :mod:`.volume_windows` and :mod:`.volume_posix` find the facts.
:mod:`.system` chooses between the two modules.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Volume:
    r"""Facts about a volume.

    Attributes:
        file_system: the system's name for the type of the file system, such as ``"NTFS"`` or ``"ext4"``. Empty if
            unknown.
        mount: the mount point, such as ``"C:\\"`` or ``"/home"``. Empty if unknown.
        remote: True if the files are on another machine, or on the host of this virtual machine.
        removable: True if the volume can be unplugged while this machine runs.
        mapped: True if the volume is a part of another one that is mapped into a container or to a drive letter.
        cloud: the name of the cloud service that synchronises these files. Empty if no service does.
        free: the bytes that this user may still write, or ``None`` if unknown.
        size: the capacity in bytes, or ``None`` if unknown.
        code: the code of the error that prevented the system from reporting more. Empty if there was no error.
    """

    file_system: str = ""
    mount: str = ""
    remote: bool = False
    removable: bool = False
    mapped: bool = False
    cloud: str = ""
    free: int | None = None
    size: int | None = None
    code: str = ""


@dataclass(frozen=True)
class Environment:
    """Facts about the environment of this process.

    Attributes:
        container: the kind of container. Empty if no container was detected.
        wsl: the version of the Windows Subsystem for Linux, ``"WSL1"`` or ``"WSL2"``. Empty outside of it.
    """

    container: str = ""
    wsl: str = ""


# Cloud services, by the prefix of the folder that their client synchronises.
_CLOUD_FOLDERS = {
    "onedrive": "OneDrive",
    "dropbox": "Dropbox",
    "google drive": "Google Drive",
    "googledrive": "Google Drive",
    "icloud": "iCloud Drive",
    "mobile documents": "iCloud Drive",
    "cloudstorage": "a cloud service",
    "nextcloud": "Nextcloud",
}


def cloud_by_name(path: str) -> str:
    """Return the cloud service that the names of a path's folders indicate, or an empty string if no name matches."""
    for part in path.replace("\\", "/").lower().split("/"):
        for prefix, service in _CLOUD_FOLDERS.items():
            if part == prefix or part.startswith((f"{prefix} ", f"{prefix}-")):
                return service
    return ""
