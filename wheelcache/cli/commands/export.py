"""``wheelcache export``: wheels into a folder for ``--find-links``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import click

from wheelcache import Cache, CachedWheel, LinkMode

from .. import _options, _output
from .._errors import CommandError
from .._select import chosen


@click.command("export", short_help="Put wheels into a folder for --find-links.")
@click.argument("dest", metavar="DIR", type=click.Path(file_okay=False))
@click.argument("names", nargs=-1, metavar="[PROJECT | DIGEST | FILENAME]...")
@click.option(
    "--mode", type=click.Choice([mode.value for mode in LinkMode]), default="auto", show_default=True, help="How."
)
@_options.existing_cache_dir
@_options.as_json
@_options.quiet
def command(*, dest: str, names: tuple[str, ...], mode: str, cache_dir: str | None, as_json: bool, quiet: bool) -> int:
    """Put all wheels of the cache, or those that are named, into DIR under their true names.

    pip and uv install from there with --no-index --find-links DIR. Of a digest, the 8 digits or more that it begins
    with are enough.
    """
    with Cache(cache_dir) as cache:
        wheels = chosen(cache, names)
        _check(wheels)
        # One that is pruned meanwhile is missed only by who named it.
        paths = cache.export(dest, wheels if names else None, mode=mode)
    if as_json:
        _output.print_json({"paths": [str(path) for path in paths]})
    elif not quiet:
        _output.print_line(f"{_output.count(len(paths), 'wheel')} in {dest}")
    return 0


def _check(wheels: Iterable[CachedWheel]) -> None:
    """Refuse wheels of one name, all at once, and say how to go on: the library stops at the first."""
    called = defaultdict[str, dict[str, str]](dict)
    for wheel in wheels:
        # Folded, since the folder may be on a file system that folds case.
        called[wheel.filename.lower()][wheel.digest] = wheel.filename
    clashes = [f"{min(found.values())} ({', '.join(found)})" for found in called.values() if len(found) > 1]
    if clashes:
        raise CommandError(
            f"one folder cannot hold several wheels of one name: {'; '.join(clashes)}. Leave out all but one of each: "
            "name the wheels that are to go there, these by their digests, or take the others out of the cache with rm"
        )
