"""Compute how long a response is fresh in a private cache, by RFC 9111.

Only a few rules apply to files: those of Cache-Control, Expires, Date, Age and Vary. hishel 2.0, a library that
implements the whole RFC, was considered. It works on entries with complete requests and responses, reads the clock
itself (tests replace the clock of a cache), and requires msgpack, a compiled package, for a storage that wheelcache
does not use.

Two rules are stricter than the RFC, to avoid surprises. A response is fresh only if the server declares it
fresh. Heuristic freshness is not used. A response that varies with any header but Accept-Encoding is revalidated each
time. The value of Accept-Encoding never changes. Request headers may be secret, so none of them is stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .headers import parse_date, sendable_value

# The header fields that are stored: those that revalidation needs, and those that a 304 response may change.
KEPT = ("cache-control", "expires", "date", "age", "vary", "etag", "last-modified")
# These fields are lists. No part of them may be lost. A value that is too long is replaced by the strictest one.
_CAREFUL = {"cache-control": "no-cache", "vary": "*"}
_UNPRINTABLE = re.compile(r"[^ -~]")

_DIRECTIVE = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,;"]*))?')
# Larger values are replaced by this one: https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2
_LONGEST = 2**31


@dataclass(frozen=True)
class Freshness:
    """The permitted uses of a stored response.

    Attributes:
        storable: whether the response may be stored.
        until: the time until which the response may be used without revalidation, in seconds since the epoch.
        may_be_stale: whether the response may be used after that time if the server cannot be reached.
    """

    storable: bool
    until: float
    may_be_stale: bool


def stored_fields(headers: Mapping[str, object]) -> dict[str, str]:
    """Return the fields of a response, or of an index entry, that may be stored and sent.

    The fields of index entries are filtered too, because other programs and older versions write such entries.
    All values are printable ASCII of bounded length. A validator, date or age with other characters is left out. In a
    list, such characters are replaced. The other directives remain.

    Args:
        headers: fields with lowercase names.
    """
    fields: dict[str, str] = {}
    for name in KEPT:
        value = headers.get(name)
        if name in _CAREFUL and isinstance(value, str) and value.strip():
            printable = _UNPRINTABLE.sub("?", value.replace("\t", " "))
            fields[name] = sendable_value(printable) or _CAREFUL[name]
        elif (text := sendable_value(value)) is not None:
            fields[name] = text
    return fields


def is_private(headers: Mapping[str, str]) -> bool:
    """Return whether a server forbids using a response, or a part of it, for another user.

    Args:
        headers: fields with lowercase names, or a mapping that ignores the case of names.
    """
    return "private" in _parse_directives(headers.get("cache-control", ""))


def freshness(
    headers: Mapping[str, str], sent_at: float, received_at: float, hops: Sequence[Mapping[str, str]] = ()
) -> Freshness:
    """Return the permitted uses of a response.

    Args:
        headers: the header fields of the response, with lowercase names.
        sent_at: when the request was sent, in seconds since the epoch.
        received_at: when the response was received, in seconds since the epoch.
        hops: the header fields of the redirects that led to the response. It is fresh no longer than any of them.
    """
    responses = [_freshness_of_one(fields, sent_at, received_at) for fields in (headers, *hops)]
    return Freshness(
        storable=all(response.storable for response in responses),
        until=min(response.until for response in responses),
        may_be_stale=all(response.may_be_stale for response in responses),
    )


def _freshness_of_one(headers: Mapping[str, str], sent_at: float, received_at: float) -> Freshness:
    directives = _parse_directives(headers.get("cache-control", ""))
    must_revalidate = bool(directives.keys() & {"no-cache", "must-revalidate"})
    varies = {name.strip().lower() for name in headers.get("vary", "").split(",")} - {"", "accept-encoding"}
    lifetime = 0.0 if "no-cache" in directives or varies else _lifetime(headers, directives)
    return Freshness(
        storable="no-store" not in directives,
        until=received_at + lifetime - _age(headers, sent_at, received_at) if lifetime > 0 else 0.0,
        may_be_stale=not must_revalidate,
    )


def _parse_directives(field: str) -> dict[str, str]:
    """Return the directives of a Cache-Control field. If a directive has two different values, neither is used."""
    found: dict[str, str] = {}
    for name, value in _DIRECTIVE.findall(field):
        text = value.strip('"')
        found[name.lower()] = text if found.get(name.lower(), text) == text else ""
    return found


def _lifetime(headers: Mapping[str, str], directives: Mapping[str, str]) -> float:
    """Return how long a response is fresh after its creation, in seconds, or 0 if the fields cannot be parsed."""
    if "max-age" in directives:
        return _parse_seconds(directives["max-age"])
    expires, date = parse_date(headers.get("expires")), parse_date(headers.get("date"))
    return 0.0 if expires is None or date is None else max(0.0, expires - date)


def _age(headers: Mapping[str, str], sent_at: float, received_at: float) -> float:
    """Return the seconds since the creation of the response: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3."""
    date = parse_date(headers.get("date"))
    apparent = 0.0 if date is None else max(0.0, received_at - date)
    # Several ages are an error. The first one is used: https://www.rfc-editor.org/rfc/rfc9111#section-5.1
    return max(apparent, _parse_seconds(headers.get("age", "").partition(",")[0]) + (received_at - sent_at))


def _parse_seconds(text: str) -> float:
    text = text.strip()
    if not text.isascii() or not text.isdigit():
        return 0.0
    return float(min(int(text[:12]), _LONGEST))
