"""Files that would take hours to hash: sparse files, and files that grow while they are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import blobs, quarantined, records
from machines import Machine
from marks import not_on_windows
from server import Server
from wheels import Wheel

from wheelcache import Cache
from wheelcache._fs.hashing import _has_hole
from wheelcache._store.records import decode, encode

pytestmark = not_on_windows("a file there has holes only on request")

HUGE = 1 << 40


@pytest.mark.parametrize(
    "call",
    [
        lambda cache, wheel: cache.get(wheel.digest),
        lambda cache, _: list(cache.entries()),
        lambda cache, _: cache.verify(repair=True),
    ],
    ids=["get", "entries", "verify"],
)
def test_a_huge_wheel_of_holes_is_not_read(
    call: Callable[[Cache, Wheel], object], machine: Machine, server: Server, wheel: Wheel, tmp_path: Path
) -> None:
    """A forged record of a terabyte does not make a call read one."""
    machine.is_private = False
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
        (blob,), (record,) = blobs(cache), records(cache)
    os.truncate(blob, HUGE)
    record.write_bytes(encode({**(decode(record.read_bytes()) or {}), "size": HUGE}))
    with machine.cache(tmp_path / "cache") as cache:
        call(cache, wheel)
        assert quarantined(cache)
        assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data


def test_a_large_wheel_without_reported_blocks_is_read(tmp_path: Path) -> None:
    """A file system that reports no blocks reports no holes either, so its large files are hashed."""
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    with path.open("rb", buffering=0) as file:
        assert not _has_hole(file, path.stat())
        assert file.read() == b"bytes"
