"""What the system knows of the volume behind a path, and of the machine around it.

It is asked when an operation was refused, and by ``doctor``: never on the way of one that succeeds. What the system
does not say is empty; nothing here fails. ``_volume_windows`` and ``_volume_posix`` have the answers, and ``_system``
chooses between them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Volume:
    r"""A volume.

    Attributes:
        file_system: as the system calls it: ``"NTFS"``, ``"ext4"``; empty where it does not say.
        mount: where it begins: ``"C:\\"``, ``"/home"``.
        remote: the files are on another machine, or on the other side of a virtual one.
        mapped: what it shows is a part of another volume, mapped here: into a container, or as a drive letter.
        cloud: the service that keeps these files in the cloud; empty where there is none.
        free: the bytes that this user may still write, ``None`` where the system does not say.
        size: its bytes in all.
        code: with which code the system refused to say more; empty where it did not.
    """

    file_system: str = ""
    mount: str = ""
    remote: bool = False
    mapped: bool = False
    cloud: str = ""
    free: int | None = None
    size: int | None = None
    code: str = ""


@dataclass(frozen=True)
class Environment:
    """What this process runs in.

    Attributes:
        container: the kind of container; empty where there is none to be seen.
        wsl: the Windows Subsystem for Linux, ``"WSL1"`` or ``"WSL2"``; empty outside of it.
    """

    container: str = ""
    wsl: str = ""


# Programs that upload what is below a folder of theirs, by the beginning of its name.
_CLOUDS = {
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
    """Return the cloud service whose folder this is below, by the folder's name; empty where it is none's."""
    for part in path.replace("\\", "/").lower().split("/"):
        for beginning, name in _CLOUDS.items():
            if part == beginning or part.startswith((f"{beginning} ", f"{beginning}-")):
                return name
    return ""
