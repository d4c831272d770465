"""Create caches of many entries fast, with real records and tiny blobs, last used a minute apart."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from wheels import wheel_filename

from wheelcache._store.layout import Layout
from wheelcache._store.records import Record, StatFingerprint, encode_record

FIRST_USE = 1_500_000_000
"""The time of the last use of entry 0, in seconds since the epoch. Each later entry was used a minute later."""


@dataclass(frozen=True)
class Tiny:
    """An entry whose bytes follow from its number. All have the same size."""

    number: int

    @property
    def data(self) -> bytes:
        return b"wheel number %12d" % self.number

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def filename(self) -> str:
        return wheel_filename(f"n{self.number}")

    @property
    def used(self) -> int:
        return FIRST_USE + 60 * self.number


TINY_SIZE = len(Tiny(0).data)


def build(root: Path, count: int, boot: str | None) -> None:
    """Create a cache of this many entries, which are trusted in this boot."""
    layout = Layout(str(root))
    made: set[str] = set()
    for tiny in map(Tiny, range(count)):
        folder = layout.entry(tiny.sha256)
        if tiny.sha256[:2] not in made:
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            made.add(tiny.sha256[:2])
        os.mkdir(folder)
        blob = layout.blob(tiny.sha256, tiny.filename, 0)
        with open(blob, "wb", buffering=0) as file:
            file.write(tiny.data)
            stat = os.fstat(file.fileno())
        seen = StatFingerprint(stat.st_mtime_ns, stat.st_ino, boot)
        record = Record(tiny.filename, tiny.sha256, TINY_SIZE, seen, created=tiny.used)
        path = layout.record(tiny.sha256, tiny.filename)
        with open(path, "wb", buffering=0) as file:
            file.write(encode_record(record))
        os.utime(path, (tiny.used, tiny.used))
