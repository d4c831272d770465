"""Facts about volumes and the environment on POSIX systems. :mod:`.volume` describes these facts.

The mount table is read from ``/proc``. A system without it, such as macOS, reports only the free space and the size.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass

from .volume import Environment, Volume, cloud_by_name

if sys.platform == "win32":  # pragma: no cover - mypy checks this module for Windows too
    raise ImportError("this module is for POSIX systems")


_NETWORK = {"cifs", "smb3", "smbfs", "nfs", "nfs4", "afs", "ceph", "glusterfs", "lustre", "afpfs", "webdav", "sshfs"}
# Folders of the host, shared with this virtual machine, container or subsystem.
_HOST = {"9p", "drvfs", "lxfs", "wslfs", "vboxsf", "vmhgfs", "virtiofs", "prl_fs", "grpcfuse", "osxfs", "fakeowner"}
_USER_SPACE = {"fuse", "fuseblk"}
# A mount of these types normally shows a part of a volume, and so does not count as mapped.
_SUBVOLUMES = {"btrfs", "overlay", "zfs"}

FOREIGN = _NETWORK | _HOST | _USER_SPACE
"""The file system types that relay errors of another machine or program."""


@dataclass(frozen=True)
class _Mount:
    folder: str
    root: str
    file_system: str
    device: str


def volume_of(path: str) -> Volume:
    """Return the volume of a path."""
    mount = _mount_of(path)
    cloud = cloud_by_name(path)
    free, size = _space_of(path)
    if mount is None:
        # macOS mounts external drives there.
        removable = sys.platform == "darwin" and os.path.realpath(path).startswith("/Volumes/")
        return Volume(removable=removable, cloud=cloud, free=free, size=size)
    main, _, subtype = mount.file_system.partition(".")
    is_part = mount.root not in {"", "/"} and main not in _SUBVOLUMES
    return Volume(
        file_system=mount.file_system,
        mount=mount.folder,
        remote=main in _NETWORK or subtype in _NETWORK,
        removable=_is_removable(mount.device),
        mapped=main in _HOST or subtype in _HOST or (is_part and bool(_container())),
        cloud=cloud,
        free=free,
        size=size,
    )


def file_system_type(path: str) -> str:
    """Return the type of the file system of a path, without its subtype, or an empty string if it is unknown."""
    mount = _mount_of(path)
    return "" if mount is None else mount.file_system.partition(".")[0]


def environment() -> Environment:
    """Return the environment of this process."""
    return Environment(_container(), _wsl())


def _space_of(path: str) -> tuple[int | None, int | None]:
    """Return the free bytes and the size of a volume."""
    try:
        stat = os.statvfs(path)
    except OSError:
        return None, None
    return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize


def _mount_of(path: str) -> _Mount | None:
    """Return the mount of a path, as described in https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html."""
    best: _Mount | None = None
    for line in _lines_of("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, file_system = before.split(" "), after.split(" ", 1)[0]
        folder = _unescape(fields[4]).rstrip("/")
        # The later of two mounts on one folder hides the earlier one.
        if (path + "/").startswith(folder + "/") and (best is None or len(folder) >= len(best.folder.rstrip("/"))):
            best = _Mount(folder or "/", _unescape(fields[3]), file_system, fields[2])
    return best


def _is_removable(device: str) -> bool:
    """Return whether a device, given as ``"major:minor"``, can be unplugged.

    USB disks do not call themselves removable, so the path of the device counts too:
    https://www.kernel.org/doc/html/latest/admin-guide/sysfs-rules.html
    """
    if device.startswith("0:"):
        return False  # no block device
    link = f"/sys/dev/block/{device}"
    # An encrypted volume is a device of its own, above the disk.
    links = [link, *(f"{link}/slaves/{name}" for name in _names_in(f"{link}/slaves"))]
    for folder in map(os.path.realpath, links):
        # The folder of a partition is below that of its disk.
        disks = (folder, os.path.dirname(folder))
        if "/usb" in folder or any(_lines_of(f"{disk}/removable") == ["1"] for disk in disks):
            return True
    return False


def _names_in(folder: str) -> list[str]:
    """Return the names in a folder, or an empty list if it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _lines_of(path: str) -> list[str]:
    """Return the lines of a text file, or an empty list if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _unescape(field: str) -> str:
    """Decode the octal escapes of a field of the mount table."""
    if "\\" not in field:
        return field
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)


def _container() -> str:
    """Return the kind of container that this process runs in, or an empty string if no container was detected."""
    for file, name in (("/.dockerenv", "Docker"), ("/run/.containerenv", "Podman")):
        if os.path.exists(file):
            return name
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "Kubernetes"
    for line in _lines_of("/proc/1/cgroup"):
        for word, name in (("docker", "Docker"), ("kubepods", "Kubernetes"), ("lxc", "LXC"), ("libpod", "Podman")):
            if word in line:
                return name
    return ""


def _wsl() -> str:
    """Return the version of the Windows Subsystem for Linux, or an empty string outside of it."""
    release = " ".join(_lines_of("/proc/sys/kernel/osrelease"))
    if "microsoft" not in release.lower():
        return ""
    return "WSL2" if "WSL2" in release or "microsoft-standard" in release else "WSL1"
