"""``wheelcache doctor``: try the cache folder where it is, and print a report that can be pasted into a bug report."""

from __future__ import annotations

from dataclasses import asdict

import click

from wheelcache import Cache, Check, DoctorReport, __version__

from .. import _options, _output
from .._output import Column

_COLUMNS = (Column("probe"), Column("result"), Column("time", "right"), Column("code"), Column("detail", long=True))

# "\b" keeps click from filling the paragraph.
_HELP = """Try in the cache folder what the cache does there.

It reports every probe with its result, code and time, the ways that wheels
will take, and what to do about what is wrong. The report holds the path of
the cache folder and nothing else of yours: paste it into a bug report, or
send it to the vendor of the security software.

\b
Exit codes:
  0    nothing is wrong
  1    something is; the report says what
  2    the command line was wrong
  130  interrupted
"""


@click.command("doctor", help=_HELP, short_help="Try the cache folder, and report.")
@_options.cache_dir
@_options.as_json
def command(*, cache_dir: str | None, as_json: bool) -> int:
    """Examine, report, and return the exit code."""
    with Cache(cache_dir) as cache:
        report = cache.doctor()
        path = str(cache.path)
    if as_json:
        _output.print_json({"version": __version__, "cache_dir": path, **asdict(report)})
    else:
        _print(report, path)
    return 0 if report.ok else 1


def _print(report: DoctorReport, path: str) -> None:
    _output.print_line(f"wheelcache {__version__}, cache folder {path}")
    _output.print_table(_COLUMNS, map(_row, report.checks))
    for advice in report.advice:
        _output.print_line(f"advice: {advice}")
    wrong = sum(not check.ok for check in report.checks)
    _output.print_line("nothing is wrong" if report.ok else f"{_output.count(wrong, 'probe')} with a problem")


def _row(check: Check) -> tuple[str, ...]:
    seconds = _output.human_seconds(check.seconds)
    return check.name, "ok" if check.ok else "BAD", seconds, check.code, check.detail
