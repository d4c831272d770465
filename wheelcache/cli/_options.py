"""Options that several commands share, with the same names and help texts everywhere."""

from __future__ import annotations

import math
import re

import click

# Longer numbers are typing errors, and would exceed the range of a float.
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([kmgtp]?)(i?)b?", re.ASCII | re.IGNORECASE)
_AGE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([smhdwy])", re.ASCII | re.IGNORECASE)
_UNITS = " kmgtp"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_557_600}


def parse_size(text: str) -> int:
    """Parse a size such as ``10GB`` (powers of 1000) or ``10GiB`` (powers of 1024), and return bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size. Examples: 500MB, 10GB, 2GiB.")
    number, unit, binary = match.groups()
    step = 1024 if binary else 1000
    exponent = _UNITS.index(unit.lower()) if unit else 0
    return math.floor(float(number) * math.pow(step, exponent))


def parse_age(text: str) -> float:
    """Parse an age such as ``30d``, ``12h`` or ``2w``, and return seconds."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not an age. Examples: 30d, 12h, 2w.")
    number, unit = match.groups()
    return float(number) * _SECONDS[unit.lower()]


cache_dir = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="The cache folder. Default: WHEELCACHE_DIR, or the user's cache directory.",
)
# The option of commands on the contents of a cache. A mistyped path is an error, and does not create an empty cache.
existing_cache_dir = click.option(
    "--cache-dir",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="The existing cache folder. Default: WHEELCACHE_DIR, or the user's cache directory.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
dry_run = click.option("-n", "--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
