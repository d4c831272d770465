"""Survey: walking a whole cache to say what it holds."""

from __future__ import annotations

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
        trees=sum(
            entry.name.endswith(".json") for shard in walk.walk_shards(fs, layout.trees) for entry in fs.scan(shard)
        ),
        tree_bytes=_size(fs, layout.trees),
        partial_bytes=_size(fs, layout.partial) + _size(fs, layout.tmp),
        quarantine_bytes=_size(fs, layout.quarantine),
        hits=counted.hits,
        misses=counted.misses,
        bytes_saved=counted.bytes_saved,
    )


def _wheels(fs: RobustIO, layout: Layout) -> tuple[int, int]:
    wheels, size = 0, 0
    for entry in walk.walk_entries(fs, layout):
        wheels += len(entry.wheels())
        size += entry.size
    return wheels, size


def _size(fs: RobustIO, folder: str) -> int:
    return sum(stat.st_size for _, stat in walk.walk_files(fs, folder))
