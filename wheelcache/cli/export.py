"""``wheelcache export``: wheels into a folder for ``--find-links``."""

from __future__ import annotations

import click

from wheelcache import Cache, LinkMode

from . import _options, _output
from ._choice import chosen


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
        paths = cache.export(dest, chosen(cache, names) if names else None, mode=mode)
    if as_json:
        _output.print_json({"paths": [str(path) for path in paths]})
    elif not quiet:
        _output.print_line(f"{_output.count(len(paths), 'wheel')} in {dest}")
    return 0
