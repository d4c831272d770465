"""``wheelcache fetch``: find out what is wanted, get it into the cache, link it out, report."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from rich.filesize import decimal

from wheelcache import Cache, CachedWheel, LinkMode, OfflineError, Status, WheelCacheError

from .. import _options, _output
from .._crew import Outcome, fetch_all
from .._errors import CommandError, LockError, PipError
from .._output import Column
from .._progress import Bars
from .._redact import redact
from ..resolve.arguments import Arguments, sort_arguments
from ..resolve.credentials import Credentials
from ..resolve.pip import pip_settings
from ..resolve.requests import Failure, FetchRequest
from ..resolve.requirements import PipOptions, resolve_requirements, texts_with_urls

_JOBS = 8
_MOST_JOBS = 64
_EXPECTED = (CommandError, WheelCacheError, OSError, ValueError)

_COLUMNS = (
    Column("wheel", wrap=True),
    Column("size", "right"),
    Column("status"),
    Column("time", "right"),
)


@dataclass(frozen=True)
class _Options:
    """How to fetch.

    Attributes:
        pip: for pip.
        cache_dir: the cache folder, ``None`` for the usual one.
        to: the folder to link the wheels to, or ``None``.
        jobs: how many wheels at once.
        offline: whether to do without the network.
        watched: whether there is a person to see the progress.
    """

    pip: PipOptions
    cache_dir: str | None
    to: str | None
    jobs: int
    offline: bool
    watched: bool


@dataclass
class _Result:
    """What came of it; ``linked`` has the path and the mode of each wheel that was linked out, by its place."""

    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[Failure] = field(default_factory=list)
    linked: dict[int, tuple[str, LinkMode]] = field(default_factory=dict)

    def wheels(self) -> list[tuple[int, Outcome, CachedWheel]]:
        return [(place, one, one.wheel) for place, one in enumerate(self.outcomes) if one.wheel is not None]


# "\b" keeps click from filling the paragraph.
_HELP = """Fetch wheels into the cache, with all that they depend on.

\b
REQUIREMENT  as pip takes it: "httpx[http2]>=0.27". pip itself chooses the
             wheels, for this Python, and all of its settings hold.
PYLOCK       a pylock.toml or pylock.<name>.toml; needs no index.
URL          of a wheel; a fragment #sha256=<hex> is checked.
WHEEL        a .whl file.

\b
Exit codes:
  0    every wheel is there
  1    a wheel is missing, or something else failed; stderr says what
  2    the command line was wrong
  130  interrupted
"""


@click.command("fetch", help=_HELP, short_help="Fetch wheels into the cache.")
@click.argument("wanted", nargs=-1, metavar="[REQUIREMENT | PYLOCK | URL | WHEEL]...")
@click.option("-r", "--requirement", "requirement_files", multiple=True, metavar="FILE", help="A requirements file.")
@click.option("-c", "--constraint", "constraints", multiple=True, metavar="FILE", help="A constraints file.")
@click.option("-i", "--index-url", metavar="URL", help="The index, instead of pip's.")
@click.option("--extra-index-url", "extra_index_urls", multiple=True, metavar="URL", help="One more index.")
@click.option("-f", "--find-links", multiple=True, metavar="DIR|URL", help="Links to wheels, or a folder of them.")
@click.option("--no-index", is_flag=True, help="Use --find-links only.")
@click.option("--pre", is_flag=True, help="Take pre-releases, too.")
@click.option("--to", type=click.Path(file_okay=False), metavar="DIR", help="Link the wheels to this folder.")
@_options.cache_dir
@click.option("--offline", is_flag=True, help="Use what the cache has, and not the network.")
@click.option(
    "-j", "--jobs", type=click.IntRange(1, _MOST_JOBS), default=_JOBS, show_default=True, help="Wheels at once."
)
@_options.as_json
@_options.quiet
def command(
    *,
    wanted: tuple[str, ...],
    requirement_files: tuple[str, ...],
    constraints: tuple[str, ...],
    index_url: str | None,
    extra_index_urls: tuple[str, ...],
    find_links: tuple[str, ...],
    no_index: bool,
    pre: bool,
    to: str | None,
    cache_dir: str | None,
    offline: bool,
    jobs: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Fetch, report, and return the exit code."""
    if not wanted and not requirement_files:
        raise click.UsageError("Say what to fetch: a requirement, -r FILE, a pylock.toml, a URL or a wheel.")
    started = time.monotonic()
    what = sort_arguments(wanted, requirement_files)
    files = tuple(what.requirement_files)
    options = _Options(
        pip=PipOptions(files, constraints, index_url, extra_index_urls, find_links, no_index=no_index, pre=pre),
        cache_dir=cache_dir,
        to=to,
        jobs=jobs,
        offline=offline,
        watched=not (quiet or as_json) and _output.is_terminal(sys.stderr),
    )
    result = _Result()
    try:
        _fetch(what, options, result)
    except _EXPECTED as error:
        result.problems.append(Failure.from_error(error))
    if as_json:
        _print_json(result)
    elif not quiet:
        _print_table(result, time.monotonic() - started, to)
    for problem in result.problems:
        _output.print_error(problem.message)
    return 1 if result.problems else 0


def _fetch(wanted: Arguments, options: _Options, result: _Result) -> None:
    """Find out what is wanted, get it, link it out. What fails goes into the result, and does not stop the others."""
    # Most is there most of the time: then pip's settings need not be read, which takes pip, nor a client be made.
    with Cache(options.cache_dir, offline=True) as cache:
        items = _find_out(wanted, cache, options, result.problems)
        with Bars(len(items), shown=options.watched) as bars:
            result.outcomes = fetch_all(cache, list(enumerate(items)), options.jobs, bars)
            if not options.offline:
                _download(wanted, cache.path, options, bars, result.outcomes)
        result.problems += [_problem(one.item, one.error) for one in result.outcomes if one.error is not None]
        if options.to is not None:
            _link_out(cache, options.to, result)


def _find_out(wanted: Arguments, cache: Cache, options: _Options, problems: list[Failure]) -> list[FetchRequest]:
    """Return the wheels that are wanted, each once."""
    items: list[FetchRequest] = []
    problems += wanted.failures
    if wanted.requirements or wanted.requirement_files:
        try:
            with _waiting("pip is choosing the wheels", shown=options.watched):
                found, refused = resolve_requirements(
                    wanted.requirements, options.pip, only=cache if options.offline else None
                )
            items += found
            problems += refused
        except PipError as error:
            if options.offline:
                error = PipError(f"{error} (offline: only the wheels of the cache and of local folders were looked at)")
            problems.append(Failure.from_error(error, " ".join([*wanted.requirements, *wanted.requirement_files])))
    for lock in wanted.locks:
        from ..resolve.pylock import read_lock

        try:
            found, refused = read_lock(lock)
            items += found
            problems += refused
        except LockError as error:
            problems.append(Failure.from_error(error, str(lock)))
    items += wanted.requests
    return list({(one.url, str(one.hashes)): one for one in items}.values())


def _download(wanted: Arguments, folder: Path, options: _Options, bars: Bars, outcomes: list[Outcome]) -> None:
    """Get what the cache has not from the network, and put it into the outcomes."""
    missing = [place for place, one in enumerate(outcomes) if isinstance(one.error, OfflineError)]
    if not missing:
        return
    from .._http_client import line

    settings = pip_settings()
    credentials = Credentials([*settings.values(), *texts_with_urls(wanted.requirements, options.pip)])
    with line(settings, credentials) as to_the_network, Cache(folder, client=to_the_network.client) as cache:
        items = [(place, outcomes[place].item) for place in missing]
        found = fetch_all(cache, items, options.jobs, bars, cut=to_the_network.cut)
    for place, outcome in zip(missing, found, strict=True):
        outcomes[place] = outcome


def _link_out(cache: Cache, folder: str, result: _Result) -> None:
    os.makedirs(folder, exist_ok=True)
    for place, one, wheel in result.wheels():
        target = os.path.join(os.path.abspath(folder), wheel.filename)
        try:
            result.linked[place] = target, cache.link(wheel, target)
        except _EXPECTED as error:
            result.problems.append(_problem(one.item, error))


def _problem(item: FetchRequest, error: Exception) -> Failure:
    problem = Failure.from_error(error, item.requirement)
    # Not every exception knows what it was about.
    return problem if problem.url else replace(problem, url=redact(item.url.partition("#")[0]))


def _waiting(text: str, *, shown: bool) -> AbstractContextManager[object]:
    if not shown:
        return nullcontext()
    return _output.console(sys.stderr).status(text, spinner="line")


def _print_table(result: _Result, seconds: float, to: str | None) -> None:
    rows = [
        (
            one.item.display_name if one.wheel is None else one.wheel.filename,
            "-" if one.wheel is None else decimal(one.wheel.size),
            "failed" if one.wheel is None else one.wheel.status,
            _output.format_seconds(one.seconds),
        )
        for one in result.outcomes
    ]
    if rows:
        _output.print_table(_COLUMNS, rows)
    wheels = [wheel for _, _, wheel in result.wheels()]
    parts = [f"{_output.count(len(wheels), 'wheel')}, {decimal(sum(wheel.size for wheel in wheels))}"]
    by_status = Counter(wheel.status for wheel in wheels)
    parts += [f"{by_status[status]} {status}" for status in Status if by_status[status]]
    if result.problems:
        parts.append(f"{len(result.problems)} failed")
    line = f"{parts[0]}: {', '.join(parts[1:])}" if parts[1:] else parts[0]
    line += f" in {_output.format_seconds(seconds)}"
    if result.linked:
        modes = sorted({mode.value for _, mode in result.linked.values()})
        line += f", linked to {to} ({', '.join(modes)})"
    _output.print_line(line)


def _print_json(result: _Result) -> None:
    wheels = [_wheel_json(one, wheel, result.linked.get(place)) for place, one, wheel in result.wheels()]
    errors = [
        {"requirement": one.requirement, "url": one.url, "error": one.error, "message": one.message}
        for one in result.problems
    ]
    _output.print_json({"wheels": wheels, "errors": errors})


def _wheel_json(one: Outcome, wheel: CachedWheel, linked: tuple[str, LinkMode] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "filename": wheel.filename,
        "digest": wheel.digest,
        "size": wheel.size,
        "status": wheel.status,
        "path": str(wheel.path),
        "url": wheel.url,
        "requirement": one.item.requirement,
        "seconds": round(one.seconds, 6),
    }
    return facts if linked is None else {**facts, "linked": linked[0], "mode": linked[1]}
