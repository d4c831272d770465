"""Limits: what a caller may say of how much stays."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ._wheel import CachedWheel

if TYPE_CHECKING:
    # A hit has no use for it, and it would make every start slower.
    from datetime import timedelta

Keep: TypeAlias = str | CachedWheel | os.PathLike[str]
"""What stays: a digest ``"sha256:<hex>"``, a wheel, or the path of a ``pylock.toml``."""


class Limits(NamedTuple):
    """What must hold after pruning; where nothing is said, no entry goes.

    Attributes:
        max_size: bytes of wheels and trees.
        max_age: seconds since the last use.
        keep: the sha256 of what stays whatever its age, ``None`` for nothing; without the other limits, all else goes.
    """

    max_size: int | None = None
    max_age: float | None = None
    keep: frozenset[str] | None = None


def checked_size(name: str, value: object) -> int | None:
    """Return a limit in bytes.

    Raises:
        ValueError: where it is none.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"{name} is a number of bytes, not {value!r}")


def checked_age(value: float | timedelta | None) -> float | None:
    """Return an age in seconds.

    Raises:
        ValueError: where it is none.
    """
    seconds = value if value is None or isinstance(value, int | float) else _seconds_of(value)
    if seconds is None:
        return None
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds >= 0 and not math.isnan(seconds):
        return float(seconds)
    raise ValueError(f"max_age is a number of seconds or a timedelta, and not below zero: {value!r}")


def _seconds_of(value: object) -> float:
    from datetime import timedelta

    return value.total_seconds() if isinstance(value, timedelta) else math.nan
