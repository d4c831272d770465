"""Pointers: from a name that is not a sha256 (another strong hash, a URL) to the sha256 of its wheel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._digest import checked
from ._disk import Disk
from ._errors import CommitError
from ._layout import Layout, Stamp
from ._record import decode, encode


class Pointers:
    """The pointers of one cache folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def read(self, disk: Disk, key: str) -> str | None:
        """Return the sha256 that a key points to, ``None`` where it points nowhere."""
        # The key itself may be a URL with secrets; only its hash is on disk, as the file's name.
        return target_of(disk.read(self._layout.pointer(key)))

    def fields(self, disk: Disk, key: str) -> dict[str, Any]:
        """Return all that a pointer says, nothing where there is none."""
        # The key itself may be a URL with secrets; only its hash is on disk, as the file's name.
        return decode(disk.read(self._layout.pointer(key)) or b"") or {}

    def write(self, disk: Disk, key: str, sha256: str, more: Mapping[str, Any] | None = None) -> None:
        """Let a key point to a sha256. Where that is refused, the next fetch by this key downloads again, no more."""
        stamp = Stamp.new(disk.system.now(), disk.system.boot())
        data = encode({**(more or {}), "sha256": sha256})
        try:
            disk.hurried().write_small(self._layout.pointer(key), data, self._layout.new_temporary(stamp))
        except CommitError:
            pass

    def forget(self, disk: Disk, key: str) -> None:
        """Let a key point nowhere."""
        disk.discard(self._layout.pointer(key))


def target_of(data: bytes | None) -> str | None:
    """Return the sha256 in the bytes of a pointer, ``None`` where they are none."""
    fields = decode(data or b"")
    try:
        return None if fields is None else checked("sha256", fields["sha256"])[1]
    except (KeyError, ValueError, AttributeError):
        return None
