"""``wheelcache rm``: take wheels out of the cache."""

from __future__ import annotations

import click

from wheelcache import Cache

from . import _options, _removed


@click.command("rm", short_help="Take wheels out of the cache.")
@click.argument("names", nargs=-1, required=True, metavar="[PROJECT | DIGEST]...")
@_options.dry_run
@_options.existing_cache_dir
@_options.as_json
@_options.quiet
def command(*, names: tuple[str, ...], dry_run: bool, cache_dir: str | None, as_json: bool, quiet: bool) -> int:
    """Take the wheels of these projects or digests out of the cache. Where one name is unknown, all stay."""
    with Cache(cache_dir) as cache:
        report = cache.remove(*names, dry_run=dry_run)
    return _removed.show(report, as_json=as_json, quiet=quiet)
