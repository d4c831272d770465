"""``wheelcache fetch``: resolve the arguments, fetch the wheels, link them, and print a report."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import click
from rich.filesize import decimal

from wheelcache import Cache, CachedWheel, LinkMode, Status

from .. import _options, _output
from .._errors import LockError, PipError
from .._fetch import EXPECTED_ERRORS, Outcome, fetch_missing, fetch_offline
from .._output import Column
from .._progress import ProgressBars
from .._redact import redact
from ..resolve.arguments import Arguments, sort_arguments
from ..resolve.requests import Failure, FetchRequest
from ..resolve.requirements import PipOptions, resolve_requirements, texts_with_urls

_JOBS = 8
_MAX_JOBS = 64

_COLUMNS = (
    Column("wheel", wrap=True),
    Column("size", "right"),
    Column("status"),
    Column("time", "right"),
)


@dataclass(frozen=True)
class _Options:
    """Options of the command.

    Attributes:
        pip: options for pip.
        cache_dir: the cache folder, or ``None`` for the default.
        to: the folder to link the wheels into, or ``None``.
        jobs: the number of parallel downloads.
        offline: whether to work without network access.
        show_progress: whether to show progress on stderr.
    """

    pip: PipOptions
    cache_dir: str | None
    to: str | None
    jobs: int
    offline: bool
    show_progress: bool


@dataclass
class _Result:
    """The result of the command.

    Attributes:
        outcomes: the outcome of each request.
        failures: every failure, including those before the first request.
        links: the path and the link mode of each linked wheel, by the position of the request.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    links: dict[int, tuple[str, LinkMode]] = field(default_factory=dict)

    def wheels(self) -> list[tuple[int, Outcome, CachedWheel]]:
        """Return the position, the outcome and the wheel of each request that succeeded."""
        return [
            (position, outcome, outcome.result)
            for position, outcome in enumerate(self.outcomes)
            if isinstance(outcome.result, CachedWheel)
        ]


# "\b" keeps click from rewrapping the paragraph.
_HELP = """Fetch wheels and their dependencies into the cache.

\b
REQUIREMENT  a requirement in pip's syntax: "httpx[http2]>=0.27". pip chooses
             the wheels for this Python, with all of its settings.
PYLOCK       a pylock.toml or pylock.<name>.toml. No index is needed.
URL          the URL of a wheel. A fragment #sha256=<hex> is verified.
WHEEL        a .whl file.

\b
Exit codes:
  0    all wheels are in the cache
  1    a wheel is missing, or another failure (see stderr)
  2    invalid command line
  130  interrupted
"""


@click.command("fetch", help=_HELP, short_help="Fetch wheels into the cache.")
@click.argument("arguments", nargs=-1, metavar="[REQUIREMENT | PYLOCK | URL | WHEEL]...")
@click.option(
    "-r", "--requirement", "requirement_files", multiple=True, metavar="FILE", help="Fetch from a requirements file."
)
@click.option(
    "-c", "--constraint", "constraints", multiple=True, metavar="FILE", help="Constrain versions by a constraints file."
)
@click.option("-i", "--index-url", metavar="URL", help="The package index, instead of pip's setting.")
@click.option("--extra-index-url", "extra_index_urls", multiple=True, metavar="URL", help="An additional index.")
@click.option("-f", "--find-links", multiple=True, metavar="DIR|URL", help="A folder of wheels, or a page of links.")
@click.option("--no-index", is_flag=True, help="Ignore indexes, and use only --find-links.")
@click.option("--pre", is_flag=True, help="Include pre-releases.")
@click.option("--to", type=click.Path(file_okay=False), metavar="DIR", help="Link the wheels into this folder.")
@_options.cache_dir
@click.option("--offline", is_flag=True, help="Use only the cache, without network access.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, _MAX_JOBS),
    default=_JOBS,
    show_default=True,
    help="Number of parallel downloads.",
)
@_options.as_json
@_options.quiet
def command(
    *,
    arguments: tuple[str, ...],
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
    """Fetch the wheels, print the result, and return the exit code."""
    if not arguments and not requirement_files:
        raise click.UsageError("Nothing to fetch: give a requirement, -r FILE, a pylock.toml, a URL or a wheel.")
    started = time.monotonic()
    by_kind = sort_arguments(arguments, requirement_files)
    files = tuple(by_kind.requirement_files)
    options = _Options(
        pip=PipOptions(files, constraints, index_url, extra_index_urls, find_links, no_index=no_index, pre=pre),
        cache_dir=cache_dir,
        to=to,
        jobs=jobs,
        offline=offline,
        show_progress=not (quiet or as_json) and _output.is_terminal(sys.stderr),
    )
    result = _Result()
    try:
        _fetch(by_kind, options, result)
    except EXPECTED_ERRORS as error:
        result.failures.append(Failure.from_error(error))
    if as_json:
        _print_json(result)
    elif not quiet:
        _print_table(result, time.monotonic() - started, to)
    for failure in result.failures:
        _output.print_error(failure.message)
    return 1 if result.failures else 0


def _fetch(arguments: Arguments, options: _Options, result: _Result) -> None:
    """Resolve the arguments, fetch the wheels and link them. Failures are stored in the result."""
    # The first pass is offline. If it finds all wheels, pip need not be run to read its settings.
    with Cache(options.cache_dir, offline=True) as cache:
        requests = _resolve(arguments, cache, options, result.failures)
        with ProgressBars(len(requests), enabled=options.show_progress) as bars:
            result.outcomes = fetch_offline(cache, requests, jobs=options.jobs, bars=bars, final=options.offline)
            if not options.offline:
                result.outcomes = fetch_missing(
                    cache.path,
                    result.outcomes,
                    lambda: texts_with_urls(arguments.requirements, options.pip),
                    jobs=options.jobs,
                    bars=bars,
                )
        result.failures += [
            _failure(outcome.request, outcome.result)
            for outcome in result.outcomes
            if isinstance(outcome.result, Exception)
        ]
        if options.to is not None:
            _link(cache, options.to, result)


def _resolve(arguments: Arguments, cache: Cache, options: _Options, failures: list[Failure]) -> list[FetchRequest]:
    """Return the requested wheels without duplicates. Append each failure to ``failures``."""
    requests: list[FetchRequest] = []
    failures += arguments.failures
    if arguments.requirements or arguments.requirement_files:
        only = cache if options.offline else None
        try:
            with _spinner("resolving requirements", enabled=options.show_progress):
                found, refused = resolve_requirements(arguments.requirements, options.pip, only=only)
            requests += found
            failures += refused
        except PipError as error:
            if options.offline:
                error = PipError(f"{error} (offline: only the cache and local folders were searched)")
            requirement = " ".join([*arguments.requirements, *arguments.requirement_files])
            failures.append(Failure.from_error(error, requirement))
    for lock in arguments.locks:
        # This import takes 40 ms, and most runs have no lock file.
        from ..resolve.pylock import read_lock

        try:
            found, refused = read_lock(lock)
            requests += found
            failures += refused
        except LockError as error:
            failures.append(Failure.from_error(error, str(lock)))
    requests += arguments.requests
    return list({(request.url, str(request.hashes)): request for request in requests}.values())


def _link(cache: Cache, folder: str, result: _Result) -> None:
    os.makedirs(folder, exist_ok=True)
    for position, outcome, wheel in result.wheels():
        target = os.path.join(os.path.abspath(folder), wheel.filename)
        try:
            result.links[position] = target, cache.link(wheel, target)
        except EXPECTED_ERRORS as error:
            result.failures.append(_failure(outcome.request, error))


def _failure(request: FetchRequest, error: Exception) -> Failure:
    failure = Failure.from_error(error, request.requirement)
    # Not every exception has a URL.
    return failure if failure.url else replace(failure, url=redact(request.url.partition("#")[0]))


def _spinner(text: str, *, enabled: bool) -> AbstractContextManager[object]:
    if not enabled:
        return nullcontext()
    return _output.console(sys.stderr).status(text, spinner="line")


def _print_table(result: _Result, seconds: float, to: str | None) -> None:
    if result.outcomes:
        _output.print_table(_COLUMNS, map(_row, result.outcomes))
    wheels = [wheel for _, _, wheel in result.wheels()]
    by_status = Counter(wheel.status for wheel in wheels)
    parts = [f"{by_status[status]} {status}" for status in Status if by_status[status]]
    if result.failures:
        parts.append(f"{len(result.failures)} failed")
    line = f"{_output.count(len(wheels), 'wheel')}, {decimal(sum(wheel.size for wheel in wheels))}"
    if parts:
        line += f": {', '.join(parts)}"
    line += f" in {_output.format_seconds(seconds)}"
    if result.links:
        modes = sorted({mode.value for _, mode in result.links.values()})
        line += f", linked to {to} ({', '.join(modes)})"
    _output.print_line(line)


def _row(outcome: Outcome) -> tuple[str, ...]:
    duration = _output.format_seconds(outcome.seconds)
    if isinstance(outcome.result, Exception):
        return outcome.request.display_name, "-", "failed", duration
    wheel = outcome.result
    return wheel.filename, decimal(wheel.size), wheel.status, duration


def _print_json(result: _Result) -> None:
    wheels = [_wheel_json(outcome, wheel, result.links.get(position)) for position, outcome, wheel in result.wheels()]
    errors = [
        {
            "requirement": failure.requirement,
            "url": failure.url,
            "error": failure.error,
            "message": failure.message,
        }
        for failure in result.failures
    ]
    _output.print_json({"wheels": wheels, "errors": errors})


def _wheel_json(outcome: Outcome, wheel: CachedWheel, link: tuple[str, LinkMode] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "filename": wheel.filename,
        "digest": wheel.digest,
        "size": wheel.size,
        "status": wheel.status,
        "path": str(wheel.path),
        "url": wheel.url,
        "requirement": outcome.request.requirement,
        "seconds": round(outcome.seconds, 6),
    }
    return fields if link is None else {**fields, "linked": link[0], "mode": link[1]}
