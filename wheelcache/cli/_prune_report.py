"""Print the reports of the commands that remove something: ``prune``, ``rm`` and ``clear``."""

from __future__ import annotations

from rich.filesize import decimal

from wheelcache import PruneReport

from . import _output
from ._output import Column

_COLUMNS = (Column("wheel", wrap=True), Column("size", "right"))


def print_prune_report(report: PruneReport, *, as_json: bool, quiet: bool) -> int:
    """Print a report, and return the exit code. Files in use are kept for the next run and are not a failure."""
    if as_json:
        _print_json(report)
    elif not quiet:
        _print_text(report)
    return 0


def _print_json(report: PruneReport) -> None:
    _output.print_json(
        {
            "removed": [
                {"filename": wheel.filename, "digest": wheel.digest, "size": wheel.size} for wheel in report.removed
            ],
            "skipped": [
                {"path": str(skipped.path), "digest": skipped.digest, "reason": skipped.reason}
                for skipped in report.skipped
            ],
            "freed": report.freed,
            "swept": [str(path) for path in report.swept],
            "dry_run": report.dry_run,
        }
    )


def _print_text(report: PruneReport) -> None:
    if report.removed:
        _output.print_table(_COLUMNS, [(wheel.filename, decimal(wheel.size)) for wheel in report.removed])
    for skipped in report.skipped:
        _output.print_line(f"kept: {skipped.path}: {skipped.reason}")
    verb = "would free" if report.dry_run else "freed"
    parts = [_output.count(len(report.removed), "wheel"), _output.count(len(report.swept), "leftover")]
    if report.skipped:
        parts.append(f"{len(report.skipped)} kept")
    _output.print_line(f"{verb} {decimal(report.freed)}: {', '.join(parts)}")
