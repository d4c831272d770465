"""``wheelcache rm``: remove wheels from the cache."""

from __future__ import annotations

import click

from wheelcache import Cache

from .. import _options
from .._prune_report import print_prune_report
from .._select import select_for_removal


@click.command("rm", short_help="Remove wheels from the cache.")
@click.argument("names", nargs=-1, required=True, metavar="[PROJECT | DIGEST | FILENAME]...")
@_options.dry_run
@_options.existing_cache_dir
@_options.as_json
@_options.quiet
def command(*, names: tuple[str, ...], dry_run: bool, cache_dir: str | None, as_json: bool, quiet: bool) -> int:
    """Remove the named wheels from the cache. If a name is unknown, nothing is removed.

    A digest or a file name removes the wheel under all of its file names. A digest can be shortened to its first 8 or
    more digits.
    """
    with Cache(cache_dir) as cache:
        report = cache.remove(*select_for_removal(cache, names), dry_run=dry_run)
    return print_prune_report(report, as_json=as_json, quiet=quiet)
