"""Survey: walking a whole cache to say what it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .._fs.robustio import RobustIO
from .._reports import Stats
from .._store import walk
from .._store.counters import Count
from .._store.layout import Layout


def survey(disk: RobustIO, layout: Layout, counted: Count) -> Stats:
    """Count what is there; an entry is a record with its blob, one blob may have several names."""
    wheels, wheel_bytes = _wheels(disk, layout)
    return Stats(
        wheels=wheels,
        wheel_bytes=wheel_bytes,
        trees=sum(entry.name.endswith(".json") for shard in _folders(disk, layout.trees) for entry in disk.scan(shard)),
        tree_bytes=_size(disk, layout.trees),
        partial_bytes=_size(disk, layout.partial) + _size(disk, layout.tmp),
        quarantine_bytes=_size(disk, layout.quarantine),
        hits=counted.hits,
        misses=counted.misses,
        bytes_saved=counted.bytes_saved,
    )


def _wheels(disk: RobustIO, layout: Layout) -> tuple[int, int]:
    wheels, size = 0, 0
    for entry in walk.walk(disk, layout):
        wheels += len(entry.wheels())
        size += entry.size
    return wheels, size


def _size(disk: RobustIO, folder: str) -> int:
    return sum(stat.st_size for path, _ in _files(disk, folder) if (stat := disk.stat(path)) is not None)


def _files(disk: RobustIO, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in disk.scan(folder):
        path = os.path.join(folder, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _files(disk, path)
        else:
            yield path, entry


def _folders(disk: RobustIO, folder: str) -> list[str]:
    return [os.path.join(folder, entry.name) for entry in disk.scan(folder) if entry.is_dir(follow_symlinks=False)]
