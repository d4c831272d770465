"""Options that several commands have, so that they are called the same and say the same everywhere."""

from __future__ import annotations

import math
import re

import click

# More digits than that are a slip, and no float has them.
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([kmgtp]?)(i?)b?", re.ASCII | re.IGNORECASE)
_AGE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([smhdwy])", re.ASCII | re.IGNORECASE)
_UNITS = " kmgtp"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_557_600}


def size(text: str) -> int:
    """Read a number of bytes as people write it: ``10GB`` in powers of 1000, ``10GiB`` in powers of 1024."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no size: write 500MB, 10GB or 2GiB.")
    number, unit, binary = found.groups()
    step = 1024 if binary else 1000
    exponent = _UNITS.index(unit.lower()) if unit else 0
    return math.floor(float(number) * math.pow(step, exponent))


def age(text: str) -> float:
    """Read a time span as people write it, in seconds: ``30d``, ``12h``, ``2w``."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no age: write 30d, 12h or 2w.")
    number, unit = found.groups()
    return float(number) * _SECONDS[unit.lower()]


cache_dir = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="The cache folder. Default: WHEELCACHE_DIR, else the user's cache folder.",
)
# For commands about what is in a cache: a mistyped folder has nothing, and is not made.
existing_cache_dir = click.option(
    "--cache-dir",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="The cache folder, which must exist. Default: WHEELCACHE_DIR, else the user's cache folder.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, for machines.")
dry_run = click.option("-n", "--dry-run", is_flag=True, help="Only say what would go.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
