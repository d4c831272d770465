"""``wheelcache clear``: remove everything from the cache."""

from __future__ import annotations

import sys

import click
from rich.filesize import decimal

from wheelcache import Cache

from .. import _options, _output
from .._prune_report import print_prune_report


@click.command("clear", short_help="Remove everything from the cache.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@_options.dry_run
@_options.existing_cache_dir
@_options.as_json
@_options.quiet
def command(*, yes: bool, dry_run: bool, cache_dir: str | None, as_json: bool, quiet: bool) -> int:
    """Remove everything from the cache, after confirmation."""
    with Cache(cache_dir) as cache:
        if not yes and not dry_run and not _confirm(cache):
            _output.print_error("nothing was removed")
            return 1
        report = cache.clear(dry_run=dry_run)
    return print_prune_report(report, as_json=as_json, quiet=quiet)


def _confirm(cache: Cache) -> bool:
    no_terminal = click.UsageError("Not a terminal: confirm with --yes.")
    if not _output.is_terminal(sys.stdin):
        raise no_terminal
    stats = cache.stats()
    contents = f"{_output.count(stats.wheels, 'wheel')}, {decimal(stats.wheel_bytes + stats.tree_bytes)}"
    click.echo(f"Remove everything from {cache.path} ({contents})? [y/N]: ", nl=False, err=True)
    # click.confirm does not distinguish the end of the input from Ctrl-C. For the null device, Windows reports a
    # terminal. Only the end of the input shows that nobody can answer.
    answer = sys.stdin.readline()
    if not answer:
        raise no_terminal
    return answer.strip().lower() in {"y", "yes"}
