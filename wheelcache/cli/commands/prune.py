"""``wheelcache prune``: cut the cache to a size, an age, or what a project needs."""

from __future__ import annotations

import click

from wheelcache import Cache

from .. import _options, _prune_report


@click.command("prune", short_help="Cut the cache to a size, an age, or what a project needs.")
@click.option("--max-size", type=_options.size, metavar="SIZE", help="How much may stay: 500MB, 10GB, 2GiB.")
@click.option("--max-age", type=_options.age, metavar="AGE", help="How long ago what stays was used: 30d, 12h, 2w.")
@click.option(
    "--keep",
    multiple=True,
    metavar="PYLOCK|DIGEST",
    help="What stays whatever its age: all that a pylock.toml names, or a wheel by its digest. Without a limit, all "
    "else goes.",
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
    """Let wheels go, least recently used first, and sweep leftovers.

    Without limits and --keep, leftovers go only. What is in use stays and is reported; nothing is waited for.
    """
    with Cache(cache_dir) as cache:
        report = cache.prune(max_size=max_size, max_age=max_age, keep=keep or None, dry_run=dry_run)
    return _prune_report.show(report, as_json=as_json, quiet=quiet)
