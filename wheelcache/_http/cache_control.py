"""How long a response stays fresh, by RFC 9111, for the cache of one user.

For a response that is a file the rules are few: Cache-Control, Expires, Date, Age and Vary. hishel 2.0, a library that
implements all of them, was considered. It works on entries with complete requests and responses, reads the clock itself
(tests replace ours), and requires msgpack, a compiled package, for a storage that wheelcache does not use.

Two rules are stricter than the RFC, to avoid surprises. A response is fresh only if the server says so: there are no
heuristics. A response that varies with any header but Accept-Encoding, which wheelcache always sends alike, is
revalidated each time. So no request header needs to be stored, and some of them are secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .headers import parse_date

# The header fields that are stored: those that revalidation needs, and those that a 304 response may change.
KEPT = ("cache-control", "expires", "date", "age", "vary", "etag", "last-modified")

_DIRECTIVE = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,;"]*))?')
# Larger values count as this one: https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2
_LONGEST = 2**31


@dataclass(frozen=True)
class Freshness:
    """How a stored response may be used.

    Attributes:
        storable: whether it may be stored.
        until: seconds since the epoch until which it may be used without asking the server.
        may_be_stale: whether it may be used after that if the server cannot be asked.
    """

    storable: bool
    until: float
    may_be_stale: bool


def freshness(
    headers: Mapping[str, str], asked: float, came: float, hops: Sequence[Mapping[str, str]] = ()
) -> Freshness:
    """Return how a response may be used.

    Args:
        headers: its header fields, with lowercase names.
        asked: when the request was sent, in seconds since the epoch.
        came: when the response was received, in seconds since the epoch.
        hops: the header fields of the redirects that led to it. It is fresh no longer than any of them.
    """
    responses = [_freshness_of_one(fields, asked, came) for fields in (headers, *hops)]
    return Freshness(
        storable=all(response.storable for response in responses),
        until=min(response.until for response in responses),
        may_be_stale=all(response.may_be_stale for response in responses),
    )


def _freshness_of_one(headers: Mapping[str, str], asked: float, came: float) -> Freshness:
    directives = _parse_directives(headers.get("cache-control", ""))
    must_revalidate = bool(directives.keys() & {"no-cache", "must-revalidate"})
    varies = {name.strip().lower() for name in headers.get("vary", "").split(",")} - {"", "accept-encoding"}
    lifetime = 0.0 if "no-cache" in directives or varies else _lifetime(headers, directives)
    return Freshness(
        storable="no-store" not in directives,
        until=came + lifetime - _age(headers, asked, came) if lifetime > 0 else 0.0,
        may_be_stale=not must_revalidate,
    )


def _parse_directives(field: str) -> dict[str, str]:
    """Return the directives of a Cache-Control field. If one has two different values, neither is used."""
    found: dict[str, str] = {}
    for name, value in _DIRECTIVE.findall(field):
        text = value.strip('"')
        found[name.lower()] = text if found.get(name.lower(), text) == text else ""
    return found


def _lifetime(headers: Mapping[str, str], directives: Mapping[str, str]) -> float:
    """Return the seconds of freshness from the creation of the response; 0 if they cannot be parsed."""
    if "max-age" in directives:
        return _parse_seconds(directives["max-age"])
    expires, date = parse_date(headers.get("expires")), parse_date(headers.get("date"))
    return 0.0 if expires is None or date is None else max(0.0, expires - date)


def _age(headers: Mapping[str, str], asked: float, came: float) -> float:
    """Return the seconds since the creation of the response: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3."""
    date = parse_date(headers.get("date"))
    apparent = 0.0 if date is None else max(0.0, came - date)
    # If there are several ages, which is an error, the first counts: https://www.rfc-editor.org/rfc/rfc9111#section-5.1
    return max(apparent, _parse_seconds(headers.get("age", "").partition(",")[0]) + (came - asked))


def _parse_seconds(text: str) -> float:
    text = text.strip()
    if not text.isascii() or not text.isdigit():
        return 0.0
    return float(min(int(text[:12]), _LONGEST))
