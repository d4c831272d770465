"""Credentials: where they are written down, whom they are for, and how they are chosen."""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from urllib.parse import SplitResult, unquote, urlsplit

_URL = re.compile(r"https?://[^\s'\"<>]+", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class _Login:
    origin: tuple[str, str, int | None]
    path: tuple[str, ...]
    user: str
    password: str = field(repr=False)


class Credentials:
    """Who to be for which server.

    pip takes the credentials off the URLs in its report (PEP 610), so they are found where pip found them.

    Args:
        texts: whatever can have URLs with credentials in it: settings, requirements, requirement files.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        found = (_login(match[0]) for text in texts for match in _URL.finditer(text))
        self._logins = [login for login in found if login is not None]
        self._netrc = _read_netrc()

    def choose(self, url: str) -> tuple[str, str] | None:
        """Return user name and password for a URL, ``None`` where there are none.

        As pip does: those of an index with the same origin, the one whose path is nearest where there are several, then
        those of the netrc file.
        """
        parts = urlsplit(url)
        origin, path = _origin(parts), _segments(parts)
        logins = [login for login in self._logins if login.origin == origin]
        if logins:
            nearest = max(logins, key=lambda login: _common(login.path, path))
            return nearest.user, nearest.password
        entry = self._netrc.authenticators(parts.hostname or "") if self._netrc else None
        return (entry[0], entry[2] or "") if entry else None


def _login(url: str) -> _Login | None:
    try:
        parts = urlsplit(url)
        if parts.username is None:
            return None
        # A token is written as the user name alone: then the password is sent empty.
        return _Login(_origin(parts), _segments(parts), unquote(parts.username), unquote(parts.password or ""))
    except ValueError:
        return None  # no URL after all, and pip will say so


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def _segments(parts: SplitResult) -> tuple[str, ...]:
    return tuple(segment for segment in parts.path.split("/") if segment)


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Count the segments at the beginning that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _read_netrc() -> netrc.netrc | None:
    """Read the user's netrc file, at the places where pip looks for it."""
    named = os.environ.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        try:
            return netrc.netrc(os.path.expanduser(path))
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue  # most people have none, and pip passes over one that cannot be read as well
    return None
