"""``wheelcache prune``: remove old wheels by size, age or lock file."""

from __future__ import annotations

import click

from wheelcache import Cache

from .. import _options
from .._prune_report import print_prune_report


@click.command("prune", short_help="Remove old wheels by size, age or lock file.")
@click.option(
    "--max-size", type=_options.parse_size, metavar="SIZE", help="Shrink the cache to this size: 500MB, 10GB, 2GiB."
)
@click.option(
    "--max-age", type=_options.parse_age, metavar="AGE", help="Remove wheels not used for this long: 30d, 12h, 2w."
)
@click.option(
    "--keep",
    multiple=True,
    metavar="PYLOCK|DIGEST",
    help="Keep these wheels: a pylock.toml or a digest. Without a limit, remove all others.",
)
@_options.dry_run
@_options.existing_cache_dir
@_options.as_json
@_options.quiet
def command(
    *,
    max_size: int | None,
    max_age: float | None,
    keep: tuple[str, ...],
    dry_run: bool,
    cache_dir: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Remove the least recently used wheels first, and sweep leftovers.

    Without a limit or --keep, only leftovers are removed. Files in use are kept and reported. prune does not wait until
    they are closed.
    """
    with Cache(cache_dir) as cache:
        report = cache.prune(max_size=max_size, max_age=max_age, keep=keep or None, dry_run=dry_run)
    return print_prune_report(report, as_json=as_json, quiet=quiet)
