"""``wheelcache ls``: the wheels of the cache."""

from __future__ import annotations

import click
from rich.filesize import decimal

from wheelcache import Cache

from .. import _options, _output
from .._output import Column
from .._select import chosen, wheel_json

_COLUMNS = (Column("wheel", long=True), Column("size", "right"), Column("digest"))
# As many hex digits as nobody confuses, and every command takes; info and --json tell all of them.
_SHORT = len("sha256:") + 12


@click.command("ls", short_help="List the wheels of the cache.")
@click.argument("names", nargs=-1, metavar="[PROJECT | DIGEST | FILENAME]...")
@_options.existing_cache_dir
@_options.as_json
def command(*, names: tuple[str, ...], cache_dir: str | None, as_json: bool) -> int:
    """List the wheels of the cache, or those that are named. A damaged wheel is not listed.

    Of a digest, the 8 digits or more that it begins with are enough.
    """
    with Cache(cache_dir) as cache:
        wheels = chosen(cache, names)
    if as_json:
        _output.print_json({"wheels": [wheel_json(wheel) for wheel in wheels]})
        return 0
    rows = [(wheel.filename, decimal(wheel.size), wheel.digest[:_SHORT]) for wheel in wheels]
    if rows:
        _output.print_table(_COLUMNS, rows)
    total = decimal(sum(wheel.size for wheel in wheels))
    _output.print_line(f"{_output.count(len(wheels), 'wheel')}, {total}")
    return 0
