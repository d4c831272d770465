"""Form the names of temporary files. A name contains the owner and the age of its file.

From the name alone, a process can determine whether the owner still runs and how old the file is, and so whether the
file may be swept.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from .._request import text_key

SPARE = ".wheelcache-"
"""The prefix of temporary names in folders of the caller."""

_SPACE_DIGITS = 8

OWNER = r"(?P<time>[0-9]{10,12})-(?P<boot>[0-9a-f]{8})-(?P<pid>[0-9]{1,20})-(?P<nonce>[0-9a-f]{8})"
"""The pattern of an owner tag."""
SPACE = rf"[0-9a-f]{{{_SPACE_DIGITS}}}"
"""The pattern of the part of a name that identifies a PID namespace."""

_STAMP = re.compile(rf"{OWNER}(?:\.(?P<space>{SPACE})\.)?")


class OwnerTag(NamedTuple):
    """The owner of an unfinished file, and the time at which it was created.

    Attributes:
        time: seconds since the epoch.
        boot: the first digits of the hash of the boot ID. A process ID is only valid within one boot.
        pid: the process ID of the owner, or 0 if the owner abandoned the file.
        space: the first digits of the hash of the PID namespace in which the process ID is valid, or ``None`` if the
            name does not contain them.
    """

    time: int
    boot: str
    pid: int
    space: str | None = None

    @classmethod
    def of(cls, name: str) -> OwnerTag | None:
        """Return the tag in a file name, or ``None`` if the name has no tag."""
        found = _STAMP.search(name)
        return None if found is None else cls(int(found["time"]), found["boot"], int(found["pid"]), found["space"])

    @staticmethod
    def new(now: float, boot: str | None, *, owned: bool = True) -> str:
        """Return a new, unique tag as text. Its owner is this process or, without ``owned``, no process."""
        return f"{int(now):010d}-{boot_tag(boot)}-{os.getpid() if owned else 0}-{os.urandom(4).hex()}"


def boot_tag(boot: str | None) -> str:
    """Return the part of a tag that identifies a boot."""
    return text_key(boot or "")[:8]


def space_tag(space: str) -> str:
    """Return the part of a name that identifies a PID namespace."""
    return text_key(space)[:_SPACE_DIGITS]


def spare_name(owner: str) -> str:
    """Return a name for a temporary file in a folder of the caller."""
    return f"{SPARE}{owner}.tmp"


def owner_of_spare(name: str) -> OwnerTag | None:
    """Return the owner in a name that :func:`spare_name` formed, or ``None`` for any other name."""
    return OwnerTag.of(name) if re.fullmatch(rf"{re.escape(SPARE)}{OWNER}\.tmp", name) else None


def is_spare(name: str) -> bool:
    """Return whether a name in a folder of the caller is one of our temporary names."""
    return name.startswith(SPARE) and name.endswith(".tmp")
