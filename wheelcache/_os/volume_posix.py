"""The volume behind a path on POSIX systems: :mod:`._volume` says what is asked."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass

from .volume import Environment, Volume, cloud_by_name

if sys.platform == "win32":  # pragma: no cover - mypy reads this module for Windows too
    raise ImportError("this is for the other systems")


_NETWORK = {"cifs", "smb3", "smbfs", "nfs", "nfs4", "afs", "ceph", "glusterfs", "lustre", "afpfs", "webdav", "sshfs"}
# A folder of the machine around this virtual machine, container or subsystem.
_HOST = {"9p", "drvfs", "lxfs", "wslfs", "vboxsf", "vmhgfs", "virtiofs", "prl_fs", "grpcfuse", "osxfs", "fakeowner"}
_USER_SPACE = {"fuse", "fuseblk"}
# Their mounts show a part of a volume as a matter of course.
_SUBVOLUMES = {"btrfs", "overlay", "zfs"}

FOREIGN = _NETWORK | _HOST | _USER_SPACE
"""File systems through which the errors of another system come."""


@dataclass(frozen=True)
class _Mount:
    folder: str
    root: str
    kind: str


def volume_of(path: str) -> Volume:
    """Return the volume of a path."""
    mount = _mount_of(path) if sys.platform == "linux" else _darwin_mount_of(path)
    cloud = cloud_by_name(path)
    free, size = _room(path)
    if mount is None:
        return Volume(cloud=cloud, free=free, size=size)
    main, _, below = mount.kind.partition(".")
    part = mount.root not in {"", "/"} and main not in _SUBVOLUMES
    return Volume(
        file_system=mount.kind,
        mount=mount.folder,
        remote=main in _NETWORK or below in _NETWORK,
        mapped=main in _HOST or below in _HOST or (part and bool(_container())),
        cloud=cloud,
        free=free,
        size=size,
    )


def _room(path: str) -> tuple[int | None, int | None]:
    try:
        answer = os.statvfs(path)
    except OSError:
        return None, None
    return answer.f_bavail * answer.f_frsize, answer.f_blocks * answer.f_frsize


def file_system_type(path: str) -> str:
    """Return the name of the file system that holds a path, ``""`` where the system does not say."""
    mount = _mount_of(path)
    return "" if mount is None else mount.kind.partition(".")[0]


def _mount_of(path: str) -> _Mount | None:
    """Return the mount that holds a path: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html."""
    best: _Mount | None = None
    for line in _lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ", 1)[0]
        folder = _unescaped(fields[4]).rstrip("/")
        if (path + "/").startswith(folder + "/") and (best is None or len(folder) >= len(best.folder.rstrip("/"))):
            best = _Mount(folder or "/", _unescaped(fields[3]), kind)
    return best


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)


def _darwin_mount_of(path: str) -> _Mount | None:
    """Ask statfs(2), whose structure begins with 72 bytes of numbers, on every Mac of today."""
    import ctypes

    statfs = getattr(ctypes.CDLL(None, use_errno=True), "statfs$INODE64", None)
    statfs = statfs or getattr(ctypes.CDLL(None, use_errno=True), "statfs", None)
    answer = ctypes.create_string_buffer(4096)
    while statfs is not None and statfs(os.fsencode(path), answer) != 0:
        above = os.path.dirname(path)
        if above == path:
            return None
        path = above
    if statfs is None:
        return None
    kind = answer.raw[72:88].split(b"\0", 1)[0].decode("ascii", "replace")
    folder = os.fsdecode(answer.raw[88:1112].split(b"\0", 1)[0])
    return _Mount(folder, "/", kind)


def environment() -> Environment:
    """Return what this process runs in."""
    return Environment(_container(), _wsl())


def _container() -> str:
    for file, name in (("/.dockerenv", "Docker"), ("/run/.containerenv", "Podman")):
        if os.path.exists(file):
            return name
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "Kubernetes"
    for line in _lines("/proc/1/cgroup"):
        for word, name in (("docker", "Docker"), ("kubepods", "Kubernetes"), ("lxc", "LXC"), ("libpod", "Podman")):
            if word in line:
                return name
    return ""


def _wsl() -> str:
    release = " ".join(_lines("/proc/sys/kernel/osrelease"))
    if "microsoft" not in release.lower():
        return ""
    return "WSL2" if "WSL2" in release or "microsoft-standard" in release else "WSL1"
