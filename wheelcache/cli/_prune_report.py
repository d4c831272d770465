"""What becomes of a report of what went: lines for people, an object for programs, the exit code."""

from __future__ import annotations

from rich.filesize import decimal

from wheelcache import PruneReport

from . import _output
from ._output import Column

_COLUMNS = (Column("wheel", long=True), Column("size", "right"))


def show(report: PruneReport, *, as_json: bool, quiet: bool) -> int:
    """Print a report. What is in use stays for the next time and is no failure."""
    if as_json:
        _output.print_json(
            {
                "removed": [
                    {"filename": wheel.filename, "digest": wheel.digest, "size": wheel.size} for wheel in report.removed
                ],
                "skipped": [
                    {"path": str(one.path), "digest": one.digest, "reason": one.reason} for one in report.skipped
                ],
                "freed": report.freed,
                "swept": [str(path) for path in report.swept],
                "dry_run": report.dry_run,
            }
        )
    elif not quiet:
        _print(report)
    return 0


def _print(report: PruneReport) -> None:
    if report.removed:
        _output.print_table(_COLUMNS, [(wheel.filename, decimal(wheel.size)) for wheel in report.removed])
    for one in report.skipped:
        _output.print_line(f"stays: {one.path}: {one.reason}")
    would = "would free" if report.dry_run else "freed"
    parts = [_output.count(len(report.removed), "wheel"), _output.count(len(report.swept), "leftover")]
    if report.skipped:
        parts.append(f"{len(report.skipped)} stay")
    _output.print_line(f"{would} {decimal(report.freed)}: {', '.join(parts)}")
