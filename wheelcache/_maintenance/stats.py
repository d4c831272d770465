"""Survey: walking a whole cache to say what it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .._fs.robustio import RobustIO
from .._reports import Stats
from .._store import walk
from .._store.counters import Count
from .._store.layout import Layout


def survey(fs: RobustIO, layout: Layout, counted: Count) -> Stats:
    """Count what is there; an entry is a record with its blob, one blob may have several names."""
    wheels, wheel_bytes = _wheels(fs, layout)
    return Stats(
        wheels=wheels,
        wheel_bytes=wheel_bytes,
        trees=sum(entry.name.endswith(".json") for shard in _folders(fs, layout.trees) for entry in fs.scan(shard)),
        tree_bytes=_size(fs, layout.trees),
        partial_bytes=_size(fs, layout.partial) + _size(fs, layout.tmp),
        quarantine_bytes=_size(fs, layout.quarantine),
        hits=counted.hits,
        misses=counted.misses,
        bytes_saved=counted.bytes_saved,
    )


def _wheels(fs: RobustIO, layout: Layout) -> tuple[int, int]:
    wheels, size = 0, 0
    for entry in walk.walk(fs, layout):
        wheels += len(entry.wheels())
        size += entry.size
    return wheels, size


def _size(fs: RobustIO, folder: str) -> int:
    return sum(stat.st_size for path, _ in _files(fs, folder) if (stat := fs.stat(path)) is not None)


def _files(fs: RobustIO, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in fs.scan(folder):
        path = os.path.join(folder, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _files(fs, path)
        else:
            yield path, entry


def _folders(fs: RobustIO, folder: str) -> list[str]:
    return [os.path.join(folder, entry.name) for entry in fs.scan(folder) if entry.is_dir(follow_symlinks=False)]
