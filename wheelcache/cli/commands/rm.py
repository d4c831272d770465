"""``wheelcache rm``: take wheels out of the cache."""

from __future__ import annotations

import click

from wheelcache import Cache

from .. import _options, _prune_report
from .._select import removable


@click.command("rm", short_help="Take wheels out of the cache.")
@click.argument("names", nargs=-1, required=True, metavar="[PROJECT | DIGEST | FILENAME]...")
@_options.dry_run
@_options.existing_cache_dir
@_options.as_json
@_options.quiet
def command(*, names: tuple[str, ...], dry_run: bool, cache_dir: str | None, as_json: bool, quiet: bool) -> int:
    """Take the wheels of these names out of the cache. Where one name is unknown, all stay.

    By its digest, or the 8 digits or more that it begins with, or by a file name, a wheel goes under every file name
    that its bytes have.
    """
    with Cache(cache_dir) as cache:
        report = cache.remove(*removable(cache, names), dry_run=dry_run)
    return _prune_report.show(report, as_json=as_json, quiet=quiet)
