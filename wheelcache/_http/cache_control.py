"""Freshness: for how long what a server said of a URL holds, by RFC 9111, for a cache of one user.

The rules are few for an answer that is a file: Cache-Control, Expires, Date, Age and Vary. hishel, the library that
knows all of them, was looked at (2.0): its core works on entries with whole requests and responses, reads the clock
itself (ours is lent by tests), and needs msgpack, a compiled package, for storage that nothing here would use. What is
left is this page.

Stricter than it must be in two things, so that nobody is surprised: nothing is fresh that the server did not call so
(no heuristics), and an answer that varies with any header but Accept-Encoding, which we always send alike, is asked for
again each time; so no header of a request needs to be kept, some of which are secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .headers import parse_date

# What is kept of an answer: enough to ask whether it still holds, and to take up a 304's changes.
KEPT = ("cache-control", "expires", "date", "age", "vary", "etag", "last-modified")

_DIRECTIVE = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,;"]*))?')
# https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2: who reads more takes it for this.
_LONGEST = 2**31


@dataclass(frozen=True)
class Freshness:
    """What may be done with an answer that is kept.

    Attributes:
        storable: whether it may be kept at all.
        until: seconds since the epoch until which it holds without asking.
        may_be_stale: whether it may be used after that where the server cannot be asked.
    """

    storable: bool
    until: float
    may_be_stale: bool


def freshness(
    headers: Mapping[str, str], asked: float, came: float, hops: Sequence[Mapping[str, str]] = ()
) -> Freshness:
    """Return how fresh an answer is.

    Args:
        headers: its fields, names in lower case.
        asked: when it was asked for, in seconds since the epoch.
        came: when it came.
        hops: the fields of the redirects on the way: an answer holds no longer than the way to it.
    """
    every = [_one(each, asked, came) for each in (headers, *hops)]
    return Freshness(
        storable=all(each.storable for each in every),
        until=min(each.until for each in every),
        may_be_stale=all(each.may_be_stale for each in every),
    )


def _one(headers: Mapping[str, str], asked: float, came: float) -> Freshness:
    directives = _directives(headers.get("cache-control", ""))
    strict = bool(directives.keys() & {"no-cache", "must-revalidate"})
    varies = {name.strip().lower() for name in headers.get("vary", "").split(",")} - {"", "accept-encoding"}
    lifetime = 0.0 if "no-cache" in directives or varies else _lifetime(headers, directives)
    return Freshness(
        storable="no-store" not in directives,
        until=came + lifetime - _age(headers, asked, came) if lifetime > 0 else 0.0,
        may_be_stale=not strict,
    )


def _directives(field: str) -> dict[str, str]:
    """Read a Cache-Control field; of a directive that comes twice with two values, none is believed."""
    found: dict[str, str] = {}
    for name, value in _DIRECTIVE.findall(field):
        text = value.strip('"')
        found[name.lower()] = text if found.get(name.lower(), text) == text else ""
    return found


def _lifetime(headers: Mapping[str, str], directives: Mapping[str, str]) -> float:
    """Seconds from when the answer was made. What cannot be read means stale, not fresh."""
    if "max-age" in directives:
        return _seconds(directives["max-age"])
    expires, date = parse_date(headers.get("expires")), parse_date(headers.get("date"))
    return 0.0 if expires is None or date is None else max(0.0, expires - date)


def _age(headers: Mapping[str, str], asked: float, came: float) -> float:
    """Seconds since the answer was made, as far as can be told: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3."""
    date = parse_date(headers.get("date"))
    # Of several, which it should not have, the first counts: https://www.rfc-editor.org/rfc/rfc9111#section-5.1
    apparent = 0.0 if date is None else max(0.0, came - date)
    return max(apparent, _seconds(headers.get("age", "").partition(",")[0]) + (came - asked))


def _seconds(text: str) -> float:
    text = text.strip()
    if not text.isascii() or not text.isdigit():
        return 0.0
    return float(min(int(text[:12]), _LONGEST))
