"""Find the user's credentials for package servers, and choose the ones for a URL."""

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
    """User names and passwords by server.

    pip removes credentials from the URLs in its report (PEP 610). So they are read from the settings and files where
    pip found them.

    Args:
        texts: texts that may contain URLs with credentials: settings, requirements, requirements files.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        found = (_login(match[0]) for text in texts for match in _URL.finditer(text))
        self._logins = [login for login in found if login is not None]
        self._netrc = _read_netrc()

    def choose(self, url: str) -> tuple[str, str] | None:
        """Return the user name and password for a URL, or ``None``.

        As in pip, these are the credentials of an index with the same origin. Among several such indexes, the path of
        the chosen one shares the most leading segments with the URL. Without such an index, the netrc file is used.
        """
        parts = urlsplit(url)
        origin, path = _origin(parts), _segments(parts)
        logins = [login for login in self._logins if login.origin == origin]
        if logins:
            nearest = max(logins, key=lambda login: _count_common(login.path, path))
            return nearest.user, nearest.password
        entry = self._netrc.authenticators(parts.hostname or "") if self._netrc else None
        return (entry[0], entry[2] or "") if entry else None


def _login(url: str) -> _Login | None:
    try:
        parts = urlsplit(url)
        if parts.username is None:
            return None
        # A token is given as a user name without a password.
        return _Login(_origin(parts), _segments(parts), unquote(parts.username), unquote(parts.password or ""))
    except ValueError:
        return None  # pip reports invalid URLs


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def _segments(parts: SplitResult) -> tuple[str, ...]:
    return tuple(segment for segment in parts.path.split("/") if segment)


def _count_common(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """Return the number of equal leading segments."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _read_netrc() -> netrc.netrc | None:
    """Read the user's netrc file, from the paths that pip uses."""
    named = os.environ.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        try:
            return netrc.netrc(os.path.expanduser(path))
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue  # The file is optional. pip also ignores an unreadable one.
    return None
