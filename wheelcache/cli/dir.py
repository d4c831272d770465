"""``wheelcache dir``: where the cache is."""

from __future__ import annotations

import click

from wheelcache import Cache

from . import _options, _output


@click.command("dir", short_help="Print the path of the cache folder.")
@_options.cache_dir
@_options.as_json
def command(*, cache_dir: str | None, as_json: bool) -> int:
    """Print the absolute path of the cache folder."""
    with Cache(cache_dir) as cache:
        path = str(cache.path)
    if as_json:
        _output.print_json({"path": path})
    else:
        _output.print_line(path)
    return 0
