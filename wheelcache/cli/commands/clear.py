"""``wheelcache clear``: take everything out of the cache."""

from __future__ import annotations

import sys

import click
from rich.filesize import decimal

from wheelcache import Cache

from .. import _options, _output, _prune_report


@click.command("clear", short_help="Take everything out of the cache.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_options.dry_run
@_options.existing_cache_dir
@_options.as_json
@_options.quiet
def command(*, yes: bool, dry_run: bool, cache_dir: str | None, as_json: bool, quiet: bool) -> int:
    """Take everything out of the cache, after a question."""
    with Cache(cache_dir) as cache:
        if not yes and not dry_run and not _is_wanted(cache):
            _output.print_error("nothing was removed")
            return 1
        report = cache.clear(dry_run=dry_run)
    return _prune_report.show(report, as_json=as_json, quiet=quiet)


def _is_wanted(cache: Cache) -> bool:
    nobody = click.UsageError("There is nobody to ask: say --yes.")
    if not _output.is_terminal(sys.stdin):
        raise nobody
    stats = cache.stats()
    what = f"{_output.count(stats.wheels, 'wheel')}, {decimal(stats.wheel_bytes + stats.tree_bytes)}"
    click.echo(f"Remove everything from {cache.path} ({what})? [y/N]: ", nl=False, err=True)
    # Not click.confirm, to which the end of the input and Ctrl-C are one: the null device of Windows says of itself
    # that it is a terminal.
    answer = sys.stdin.readline()
    if not answer:
        raise nobody
    return answer.strip().lower() in {"y", "yes"}
