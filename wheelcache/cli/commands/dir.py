"""``wheelcache dir``: print the path of the cache folder."""

from __future__ import annotations

import click

from wheelcache import Cache, ReadOnlyError

from .. import _options, _output


@click.command("dir", short_help="Print the path of the cache folder.")
@_options.cache_dir
@_options.as_json
def command(*, cache_dir: str | None, as_json: bool) -> int:
    """Print the absolute path of the cache folder. The folder need not exist, and is not created."""
    path = _cache_path(cache_dir)
    if as_json:
        _output.print_json({"path": path})
    else:
        _output.print_line(path)
    return 0


def _cache_path(cache_dir: str | None) -> str:
    try:
        with Cache(cache_dir, read_only=True) as cache:
            return str(cache.path)
    except ReadOnlyError as error:
        # The cache does not exist yet. The error contains its path.
        return str(error.path)
