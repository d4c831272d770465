"""``wheelcache export``: put wheels into a folder for ``--find-links``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import click

from wheelcache import Cache, CachedWheel, LinkMode

from .. import _options, _output
from .._errors import CommandError
from .._select import select_wheels


@click.command("export", short_help="Put wheels into a folder for --find-links.")
@click.argument("dest", metavar="DIR", type=click.Path(file_okay=False))
@click.argument("names", nargs=-1, metavar="[PROJECT | DIGEST | FILENAME]...")
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in LinkMode]),
    default="auto",
    show_default=True,
    help="How to create the files.",
)
@_options.existing_cache_dir
@_options.as_json
@_options.quiet
def command(*, dest: str, names: tuple[str, ...], mode: str, cache_dir: str | None, as_json: bool, quiet: bool) -> int:
    """Put all cached wheels, or only the named ones, into DIR.

    pip and uv install from there with --no-index --find-links DIR. A digest can be shortened to its first 8 or more
    digits.
    """
    with Cache(cache_dir) as cache:
        wheels = select_wheels(cache, names)
        _check_filenames(wheels)
        # A wheel that is pruned meanwhile is an error if it was named. Otherwise it is skipped.
        paths = cache.export(dest, wheels if names else None, mode=mode)
    if as_json:
        _output.print_json({"paths": [str(path) for path in paths]})
    elif not quiet:
        _output.print_line(f"{_output.count(len(paths), 'wheel')} in {dest}")
    return 0


def _check_filenames(wheels: Iterable[CachedWheel]) -> None:
    """Refuse different wheels with the same file name, and list all of them. The library stops at the first."""
    by_name = defaultdict[str, dict[str, str]](dict)
    for wheel in wheels:
        # The names are compared in lower case, since the file system of the folder may ignore case.
        by_name[wheel.filename.lower()][wheel.digest] = wheel.filename
    clashes = [f"{min(found.values())} ({', '.join(found)})" for found in by_name.values() if len(found) > 1]
    if clashes:
        raise CommandError(
            f"several wheels have the same file name: {'; '.join(clashes)}. Export one of each by its digest, or "
            "remove the others with wheelcache rm"
        )
