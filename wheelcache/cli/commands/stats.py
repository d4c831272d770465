"""``wheelcache stats``: show the cache's size and hit rate."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.filesize import decimal

from wheelcache import Cache, Stats

from .. import _options, _output
from .._output import Column

_COLUMNS = (Column(""), Column("number", "right"), Column("size", "right"))


@click.command("stats", short_help="Show the cache's size and hit rate.")
@_options.existing_cache_dir
@_options.as_json
def command(*, cache_dir: str | None, as_json: bool) -> int:
    """Show the size of the cache, and its hits and misses since it was created."""
    with Cache(cache_dir) as cache:
        stats, path = cache.stats(), cache.path
    if as_json:
        _output.print_json({"path": str(path), **asdict(stats)})
        return 0
    _output.print_line(str(path))
    _output.print_table(_COLUMNS, _rows(stats))
    return 0


def _rows(stats: Stats) -> list[tuple[str, str, str]]:
    lookups = stats.hits + stats.misses
    hit_rate = f" ({stats.hits / lookups:.0%})" if lookups else ""
    return [
        ("wheels", str(stats.wheels), decimal(stats.wheel_bytes)),
        ("unpacked", str(stats.trees), decimal(stats.tree_bytes)),
        ("unfinished", "", decimal(stats.partial_bytes)),
        ("quarantine", "", decimal(stats.quarantine_bytes)),
        ("hits", f"{stats.hits}{hit_rate}", decimal(stats.bytes_saved)),
        ("misses", str(stats.misses), ""),
    ]
