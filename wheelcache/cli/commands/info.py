"""``wheelcache info``: show details of wheels."""

from __future__ import annotations

import click
from rich.filesize import decimal

from wheelcache import Cache

from .. import _options, _output
from .._select import select_wheels, wheel_json


@click.command("info", short_help="Show details of a wheel.")
@click.argument("names", nargs=-1, required=True, metavar="[PROJECT | DIGEST | FILENAME]...")
@_options.existing_cache_dir
@_options.as_json
def command(*, names: tuple[str, ...], cache_dir: str | None, as_json: bool) -> int:
    """Show details of the named wheels.

    A digest can be shortened to its first 8 or more digits.
    """
    with Cache(cache_dir) as cache:
        wheels = select_wheels(cache, names)
    if as_json:
        _output.print_json({"wheels": [wheel_json(wheel) for wheel in wheels]})
        return 0
    for number, wheel in enumerate(wheels):
        if number:
            _output.print_line("")
        _output.print_line(wheel.filename)
        details = [("size", f"{decimal(wheel.size)} ({wheel.size} bytes)"), ("path", str(wheel.path))]
        details += [("url", wheel.url)] if wheel.url else []
        for name, value in [*details, *wheel.hashes.items()]:
            _output.print_line(f"  {name}: {value}")
    return 0
