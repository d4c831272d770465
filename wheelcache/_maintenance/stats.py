"""Collect the statistics of a cache by a walk over the whole cache."""

from __future__ import annotations

from .._fs.robustio import RobustIO
from .._reports import Stats
from .._store.counters import Count
from .._store.layout import Layout
from .._store.walk import walk_entries, walk_files, walk_shards


def collect_stats(fs: RobustIO, layout: Layout, count: Count) -> Stats:
    """Return the statistics of a cache folder.

    A blob with several file names counts as several wheels. Its bytes count once.

    Raises:
        CommitError: if a folder or file cannot be read.
    """
    wheels, wheel_bytes = _count_wheels(fs, layout)
    return Stats(
        wheels=wheels,
        wheel_bytes=wheel_bytes,
        trees=_count_trees(fs, layout),
        tree_bytes=_total_size(fs, layout.trees),
        partial_bytes=_total_size(fs, layout.partial) + _total_size(fs, layout.tmp),
        quarantine_bytes=_total_size(fs, layout.quarantine),
        hits=count.hits,
        misses=count.misses,
        bytes_saved=count.bytes_saved,
    )


def _count_wheels(fs: RobustIO, layout: Layout) -> tuple[int, int]:
    wheels, size = 0, 0
    for entry in walk_entries(fs, layout):
        wheels += len(entry.wheels())
        size += entry.size
    return wheels, size


def _count_trees(fs: RobustIO, layout: Layout) -> int:
    """Return the number of trees, by their markers."""
    return sum(entry.name.endswith(".json") for shard in walk_shards(fs, layout.trees) for entry in fs.scan(shard))


def _total_size(fs: RobustIO, folder: str) -> int:
    return sum(stat.st_size for _, stat in walk_files(fs, folder))
