"""Decide which header fields are credentials, and which URLs have the same origin."""

from __future__ import annotations

from typing import TypeAlias
from urllib.parse import urlsplit

Origin: TypeAlias = tuple[str, str, int | None]

# These fields describe the client or the requested bytes. All other fields count as credentials, since servers define
# fields for tokens under many names, such as "Private-Token" and "X-JFrog-Art-Api".
_PUBLIC = {"cache-control", "connection", "content-length", "host", "keep-alive", "pragma", "range", "te", "user-agent"}
_PUBLIC_PREFIXES = ("accept", "if-")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_credential(name: str) -> bool:
    """Return whether a header field of this name may contain credentials."""
    name = name.lower()
    return name not in _PUBLIC and not name.startswith(_PUBLIC_PREFIXES)


def origin_of(url: str) -> Origin:
    """Return the scheme, host and port of a URL."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(scheme)
