"""``wheelcache ls``: list the wheels in the cache."""

from __future__ import annotations

import click
from rich.filesize import decimal

from wheelcache import Cache

from .. import _options, _output
from .._output import Column
from .._select import select_wheels, wheel_json

_COLUMNS = (Column("wheel", wrap=True), Column("size", "right"), Column("digest"))
# A prefix of this length is unique in practice, and every command accepts it. info and --json print the whole digest.
_DIGEST_WIDTH = len("sha256:") + 12


@click.command("ls", short_help="List the wheels in the cache.")
@click.argument("names", nargs=-1, metavar="[PROJECT | DIGEST | FILENAME]...")
@_options.existing_cache_dir
@_options.as_json
def command(*, names: tuple[str, ...], cache_dir: str | None, as_json: bool) -> int:
    """List the wheels in the cache, or only the named ones. Damaged wheels are not listed.

    A digest can be shortened to its first 8 or more digits.
    """
    with Cache(cache_dir) as cache:
        wheels = select_wheels(cache, names)
    if as_json:
        _output.print_json({"wheels": [wheel_json(wheel) for wheel in wheels]})
        return 0
    rows = [(wheel.filename, decimal(wheel.size), wheel.digest[:_DIGEST_WIDTH]) for wheel in wheels]
    if rows:
        _output.print_table(_COLUMNS, rows)
    total = decimal(sum(wheel.size for wheel in wheels))
    _output.print_line(f"{_output.count(len(wheels), 'wheel')}, {total}")
    return 0
