"""``wheelcache verify``: check every file in the cache against its hash."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import click

from wheelcache import Cache, ProgressEvent, VerifyReport

from .. import _options, _output
from .._output import Column

if TYPE_CHECKING:
    from rich.status import Status

_COLUMNS = (Column("problem"), Column("action"), Column("path", wrap=True))


@click.command("verify", short_help="Check every file in the cache against its hash.")
@click.option("--repair", is_flag=True, help="Quarantine damaged files and repair the rest.")
@_options.existing_cache_dir
@_options.as_json
@_options.quiet
def command(*, repair: bool, cache_dir: str | None, as_json: bool, quiet: bool) -> int:
    """Check every file in the cache against its hash. The exit code is 1 if a problem is found and not repaired."""
    show_progress = not (quiet or as_json) and _output.is_terminal(sys.stderr)
    spinner: AbstractContextManager[Status | None] = (
        _output.console(sys.stderr).status("verifying", spinner="line") if show_progress else nullcontext()
    )
    with Cache(cache_dir) as cache, spinner as status:

        def show(event: ProgressEvent) -> None:
            if status is not None and event.detail:
                status.update(event.detail)

        report = cache.verify(repair=repair, progress=show if show_progress else None)
    if as_json:
        _print_json(report)
    elif not quiet:
        _print_report(report)
    return 0 if report.ok else 1


def _print_report(report: VerifyReport) -> None:
    if report.problems:
        rows = [(problem.kind, problem.action, str(problem.path)) for problem in report.problems]
        _output.print_table(_COLUMNS, rows)
    _output.print_line(f"{report.checked} checked, {_output.count(len(report.problems), 'problem')}")


def _print_json(report: VerifyReport) -> None:
    _output.print_json(
        {
            "checked": report.checked,
            "ok": report.ok,
            "problems": [
                {
                    "kind": problem.kind,
                    "path": str(problem.path),
                    "digest": problem.digest,
                    "action": problem.action,
                }
                for problem in report.problems
            ],
        }
    )
