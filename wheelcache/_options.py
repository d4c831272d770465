"""Limits: what a caller may say of how much stays.

Opening a cache: which folder, whether the options can be, and the few files that mark it.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    # A hit has no use for it, and it would make every start slower.
    from datetime import timedelta


class PruneLimits(NamedTuple):
    """What must hold after pruning; where nothing is said, no entry goes.

    Attributes:
        max_size: bytes of wheels and trees.
        max_age: seconds since the last use.
        keep: the sha256 of what stays whatever its age, ``None`` for nothing; without the other limits, all else goes.
    """

    max_size: int | None = None
    max_age: float | None = None
    keep: frozenset[str] | None = None


def check_size(name: str, value: object) -> int | None:
    """Return a limit in bytes.

    Raises:
        ValueError: where it is none.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"{name} is a number of bytes, not {value!r}")


def check_age(value: float | timedelta | None) -> float | None:
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


ENVIRONMENT_VARIABLE = "WHEELCACHE_DIR"


def cache_folder(path: str | os.PathLike[str] | None) -> str:
    """Return the absolute path of the cache folder that is meant.

    ``abspath`` and not ``realpath``: a path through a mount or a junction stays the one that the user chose.
    """
    if path is None:
        path = os.environ.get(ENVIRONMENT_VARIABLE) or None
    if path is None:
        import platformdirs

        path = platformdirs.user_cache_dir("wheelcache", appauthor=False)
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"the cache folder is a path, not {path!r}")
    return os.path.abspath(text)


def check_options(*, layers: object, verify: str, io_timeout: float, lock_timeout: float) -> None:
    """Refuse options that cannot be, now and not in the middle of a fetch.

    Raises:
        ValueError: for a value that an option does not have.
        TypeError: for one path where several belong.
    """
    if isinstance(layers, str | os.PathLike):
        raise TypeError("layers is a list of folders, not one folder")
    if verify not in {"auto", "full"}:
        raise ValueError(f"verify is 'auto' or 'full', not {verify!r}")
    for name, value in (("io_timeout", io_timeout), ("lock_timeout", lock_timeout)):
        if not (
            isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and not math.isnan(value)
        ):
            raise ValueError(f"{name} is a number of seconds, not {value!r}")


def check_client(client: object, *, awaited: bool) -> None:
    """Refuse a client that cannot be used, now and not at the first download.

    It is known by what it has and not by its class: any object with the names that are used will do, and httpx is not
    imported before something is downloaded.

    Raises:
        TypeError: for what is no client, or one that is awaited where one that blocks belongs, or the other way round.
    """
    if client is None:
        return
    # httpx's that blocks has close(), the one that is awaited aclose(); who has both or neither may be either.
    closings = {name for name in ("close", "aclose") if hasattr(client, name)}
    usable = all(hasattr(client, name) for name in ("auth", "build_request", "send"))
    if not usable or closings == {"close" if awaited else "aclose"}:
        wanted, owner = ("AsyncClient", "an AsyncCache") if awaited else ("Client", "a Cache")
        raise TypeError(f"the client of {owner} is an httpx.{wanted}, not {_kind(client)}")


def _kind(client: object) -> str:
    # Its text may be a secret: somebody may take a URL for it.
    kind = type(client)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
