"""``wheelcache doctor``: test the cache folder, and report problems."""

from __future__ import annotations

from dataclasses import asdict

import click

from wheelcache import Cache, Check, DoctorReport, __version__

from .. import _options, _output
from .._output import Column

_COLUMNS = (Column("probe"), Column("result"), Column("time", "right"), Column("code"), Column("detail", wrap=True))

# "\b" keeps click from rewrapping the paragraph.
_HELP = """Test the cache folder, and report problems.

Performs the file operations of the cache in its folder. The report shows the
result, code and duration of each probe, the link modes that will be used, and
advice for each problem. It contains the path of the cache folder and no other
personal data. Paste it into a bug report, or send it to the vendor of the
security software.

\b
Exit codes:
  0    no problems
  1    problems found (see the report)
  2    invalid command line
  130  interrupted
"""


@click.command("doctor", help=_HELP, short_help="Test the cache folder, and report problems.")
@_options.cache_dir
@_options.as_json
def command(*, cache_dir: str | None, as_json: bool) -> int:
    """Test the folder, print the report, and return the exit code."""
    with Cache(cache_dir) as cache:
        report = cache.doctor()
        path = str(cache.path)
    if as_json:
        _output.print_json({"version": __version__, "cache_dir": path, **asdict(report)})
    else:
        _print_report(report, path)
    return 0 if report.ok else 1


def _print_report(report: DoctorReport, path: str) -> None:
    _output.print_line(f"wheelcache {__version__}, cache folder {path}")
    _output.print_table(_COLUMNS, map(_row, report.checks))
    for advice in report.advice:
        _output.print_line(f"advice: {advice}")
    failed = sum(not check.ok for check in report.checks)
    _output.print_line("no problems found" if report.ok else f"{_output.count(failed, 'probe')} failed")


def _row(check: Check) -> tuple[str, ...]:
    duration = _output.format_seconds(check.seconds)
    return check.name, "ok" if check.ok else "BAD", duration, check.code, check.detail
