"""Check the arguments of ``Cache`` and the limits of ``prune``."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, get_args

from ._imports import import_lock

if TYPE_CHECKING:
    from datetime import timedelta

ENVIRONMENT_VARIABLE = "WHEELCACHE_DIR"

Verify: TypeAlias = Literal["auto", "records", "full"]
"""The values of the option ``verify`` of ``Cache``."""
_VERIFY_VALUES = get_args(Verify)


@dataclass(frozen=True)
class DownloadLimits:
    """Limits that end a download from a server that sends too much or too little.

    A request that is too slow ends in the middle of a wait if the cache created the client, or if your client is
    asynchronous. With a synchronous client of yours, the cache can end a wait for a body only over HTTP/1.1, and a wait
    for response headers only on a new connection of httpx. Other waits last until the timeouts of your client.

    Args:
        max_bytes: the maximum size in bytes of a body without a requested ``size``, or ``None`` for no limit. If the
            server compressed the body, the limit applies both before and after decoding. :class:`CacheTransport` does
            not store a larger body. The limit also applies to a pipe or a file object that is given to ``put``.
        min_rate: the bytes per second below which an attempt to download fails, or 0 for no limit. After the failure, a
            mirror is used, or the attempt is repeated.
        window: the seconds over which the rate is averaged. The default is long, because an antivirus gateway may send
            a few bytes for minutes before it sends the rest. Only the time in which a request waits for the network is
            counted, without hashing, writing, progress listeners, and pauses between attempts.

    Raises:
        ValueError: if a limit cannot have this value.
    """

    max_bytes: int | None = 16 * 2**30
    min_rate: float = 1.0
    window: float = 900.0

    def __post_init__(self) -> None:
        check_size("max_bytes", self.max_bytes)
        if not _is_duration(self.min_rate) or math.isinf(self.min_rate):
            raise ValueError(f"min_rate must be a number of bytes per second, not {self.min_rate!r}")
        if not _is_duration(self.window) or self.window == 0 or math.isinf(self.window):
            raise ValueError(f"window must be a positive number of seconds, not {self.window!r}")


def choose_cache_folder(path: str | os.PathLike[str] | None) -> str:
    """Return the absolute path of the cache folder: the argument, or ``WHEELCACHE_DIR``, or the user's default.

    Links are not resolved. A path through a mount or a junction remains as the user wrote it.

    Raises:
        ValueError: if the path is empty, not text, or contains a null character.
    """
    if path is None:
        path = os.environ.get(ENVIRONMENT_VARIABLE) or None
    if path is None:
        with import_lock:  # a cache with a path does not need platformdirs
            import platformdirs

        path = platformdirs.user_cache_dir("wheelcache", appauthor=False)
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"the cache folder must be a path, not {path!r}")
    return os.path.abspath(text)


def check_options(layers: object, verify: str, io_timeout: float, lock_timeout: float, limits: object) -> None:
    """Check the options of a cache when the cache is opened, and not in the middle of a fetch.

    Raises:
        ValueError: if an option cannot have this value.
        TypeError: if ``layers`` is one path and not several, or ``limits`` is not a :class:`DownloadLimits`.
    """
    if limits is not None and not isinstance(limits, DownloadLimits):
        raise TypeError(f"limits must be a DownloadLimits, not {_type_name(limits)}")
    if isinstance(layers, str | os.PathLike):
        raise TypeError("layers must be a list of folders, not one folder")
    if verify not in _VERIFY_VALUES:
        raise ValueError(f"verify must be 'auto', 'records' or 'full', not {verify!r}")
    for name, value in (("io_timeout", io_timeout), ("lock_timeout", lock_timeout)):
        if not _is_duration(value):
            raise ValueError(f"{name} must be a number of seconds, not {value!r}")


def check_client(client: object, *, is_async: bool) -> None:
    """Check an HTTP client when the cache is opened, and not in the first download.

    The attributes of the client are checked, and not its class. Any object with the required methods is accepted. httpx
    need not be imported.

    Raises:
        TypeError: if ``client`` is not a client, or is synchronous instead of asynchronous, or the reverse.
    """
    # Objects with this method belong to our own classes. These classes wrap clients of other libraries.
    if client is None or hasattr(client, "create_adapter"):
        return
    # httpx.Client has close(), and AsyncClient has aclose(). An object with both or neither is accepted as either kind.
    closers = {name for name in ("close", "aclose") if hasattr(client, name)}
    usable = all(hasattr(client, name) for name in ("auth", "build_request", "send"))
    if not usable or closers == {"close" if is_async else "aclose"}:
        required, owner = ("AsyncClient", "an AsyncCache") if is_async else ("Client", "a Cache")
        if hasattr(client, "prepare_request"):
            raise TypeError(f"wrap the requests.Session for {owner}: client=wheelcache.requests_client(session)")
        raise TypeError(
            f"the client of {owner} must be an httpx.{required} or httpx2.{required}, not {_type_name(client)}"
        )


def _type_name(client: object) -> str:
    # The value itself is not shown, because it may be a URL with a password that was passed by mistake.
    kind = type(client)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class PruneLimits(NamedTuple):
    """The limits that a cache must satisfy after pruning. Without limits, no entry is removed.

    Attributes:
        max_size: bytes of wheels and trees.
        max_age: seconds since the last use.
        keep: the sha256 digests of wheels to keep at any age, or ``None``. Without the other limits, all other wheels
            are removed.
    """

    max_size: int | None = None
    max_age: float | None = None
    keep: frozenset[str] | None = None


def check_size(name: str, value: object) -> int | None:
    """Return a limit in bytes.

    Raises:
        ValueError: if ``value`` is not a non-negative integer or ``None``.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"{name} must be a number of bytes, not {value!r}")


def check_age(value: float | timedelta | None) -> float | None:
    """Return an age in seconds.

    Raises:
        ValueError: if ``value`` is not a non-negative number of seconds, a timedelta or ``None``.
    """
    seconds = value if value is None or isinstance(value, int | float) else _seconds_of(value)
    if seconds is None:
        return None
    if _is_duration(seconds):
        return float(seconds)
    raise ValueError(f"max_age must be a non-negative number of seconds or a timedelta, not {value!r}")


def _is_duration(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return float(value) >= 0
    except OverflowError:
        return False


def _seconds_of(value: object) -> float:
    """Return the seconds of a timedelta, or NaN for anything else."""
    with import_lock:  # a hit does not need datetime
        from datetime import timedelta

    return value.total_seconds() if isinstance(value, timedelta) else math.nan
