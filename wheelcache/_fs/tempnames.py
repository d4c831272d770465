"""TODO."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from .._request import text_key

_SPACE_DIGITS = 8

_STAMP_FORM = r"(?P<time>\d{10,})-(?P<boot>[0-9a-f]{8})-(?P<pid>\d+)-(?P<nonce>[0-9a-f]{8})"
_STAMP = re.compile(rf"{_STAMP_FORM}(?:\.(?P<space>[0-9a-f]{{{_SPACE_DIGITS}}})\.)?")


class OwnerTag(NamedTuple):
    """Who made an unfinished file, and when: carried in its name, so that it can be told when it may be swept.

    Attributes:
        time: seconds since the epoch.
        boot: the first digits of the boot identity's hash; a process number means something within one boot only.
        pid: the process number of the owner.
        space: the first digits of the hash of what it means something within besides, ``None`` where that is not said.
    """

    time: int
    boot: str
    pid: int
    space: str | None = None

    @classmethod
    def of(cls, name: str) -> OwnerTag | None:
        """Read the stamp in a file name, ``None`` where there is none."""
        found = _STAMP.search(name)
        return None if found is None else cls(int(found["time"]), found["boot"], int(found["pid"]), found["space"])

    @staticmethod
    def new(now: float, boot: str | None, *, owned: bool = True) -> str:
        """Return a stamp of this process, or of nobody, as text; no two are the same."""
        return f"{int(now):010d}-{boot_tag(boot)}-{os.getpid() if owned else 0}-{os.urandom(4).hex()}"


def boot_tag(boot: str | None) -> str:
    """Return what stamps have of a boot identity."""
    return text_key(boot or "")[:8]


def space_tag(space: str) -> str:
    """Return what names have of the space that a process number means something within."""
    return text_key(space)[:_SPACE_DIGITS]


def spare_name(stamp: str) -> str:
    """The name of a temporary file in a folder that is not the cache's."""
    return f"{SPARE}{stamp}.tmp"


def is_spare(name: str) -> bool:
    """Whether a name in a folder that is not the cache's is one of ours for what is not finished."""
    return name.startswith(SPARE) and name.endswith(".tmp")


SPARE = ".wheelcache-"
