"""Import httpx or httpx2, its successor with the same classes, and find the one that an object belongs to.

No other module imports them at run time. They are imported when a request is sent, not for a hit.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from ..._imports import third_party_import_lock

_NAMES = {"httpx", "httpx2"}


class Library(NamedTuple):
    """An installed library.

    Attributes:
        name: ``"httpx"`` or ``"httpx2"``.
        httpx: the module of this name.
        httpcore: the module of its connections.
    """

    name: str
    httpx: Any
    httpcore: Any


def library_of(value: object) -> Library | None:
    """Return the library that defines the class of an object, or one of its base classes."""
    for kind in type(value).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in _NAMES:
            return load(name)
    return None


def default_library() -> Library:
    """Return the library of our own client: httpx2 if it is installed, or else the older httpx."""
    try:
        return load("httpx2")
    except ImportError:
        return load("httpx")


@cache
def load(name: str) -> Library:
    """Import a library.

    Raises:
        ImportError: if the library is not installed.
    """
    with third_party_import_lock:
        if name == "httpx2":
            import httpcore2
            import httpx2

            return Library(name, httpx2, httpcore2)
        import httpcore
        import httpx

    return Library(name, httpx, httpcore)
