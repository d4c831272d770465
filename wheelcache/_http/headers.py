"""Parse HTTP header fields. A value that cannot be parsed counts as absent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

# int() refuses numbers with thousands of digits. No file size has more than 18 digits.
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
# A validator is received once and sent many times. HTTP allows only these characters in a field that is sent:
# https://www.rfc-editor.org/rfc/rfc9110#section-5.5
_PRINTABLE = re.compile(r"[ -~]+")
_STRONG_ETAG = re.compile(r'"[ !#-~]*"')
# Servers refuse requests whose fields have some thousands of bytes.
_LONGEST_VALUE = 1024
# The number of digits of a delay that are used. Twelve digits are enough for thousands of years.
_LONGEST_DELAY = 12
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.ASCII)


@dataclass(frozen=True)
class ContentRange:
    """The value of a Content-Range field.

    Attributes:
        first: position of the first byte, or ``None`` if the server refused the range.
        last: position of the last byte, or ``None`` if the server refused the range.
        total: size of the whole file in bytes, or ``None`` if it is unknown.
    """

    first: int | None
    last: int | None
    total: int | None

    @property
    def length(self) -> int:
        """The number of bytes in the range. Zero or negative if the server refused the range or reversed its ends."""
        return 0 if self.first is None or self.last is None else self.last + 1 - self.first


def is_file_size(number: int | None) -> bool:
    """Return whether a number can be the size of a file in bytes that a header field declares."""
    return type(number) is int and 0 <= number < 10**18


def parse_content_length(value: str | None) -> int | None:
    """Return the number of bytes that a Content-Length field declares."""
    return int(value) if value is not None and _LENGTH.fullmatch(value) else None


def declared_length(headers: Mapping[str, str]) -> int | None:
    """Return the number of bytes that the body of a response must have, or ``None`` if no header field declares it.

    A Content-Length beside a Transfer-Encoding is ignored: https://www.rfc-editor.org/rfc/rfc9112#section-6.3. Some
    proxies forward the length of another form of the body. HTTP/2 has no Transfer-Encoding.

    Args:
        headers: fields with lowercase names, or a mapping that ignores the case of names.
    """
    return None if headers.get("transfer-encoding") else parse_content_length(headers.get("content-length"))


def parse_content_range(value: str | None) -> ContentRange | None:
    """Return the range that a Content-Range field declares."""
    match = _CONTENT_RANGE.fullmatch(value or "")
    if match is None:
        return None
    first, last, total = (None if text in {None, "*"} else int(text) for text in match.groups())
    return ContentRange(first, last, total)


def sendable_value(value: object) -> str | None:
    """Return the value of a received or stored field without surrounding spaces, or ``None`` if it cannot be sent.

    A value that can be sent is printable ASCII of at most 1024 characters.
    """
    text = value.strip(" ") if isinstance(value, str) else ""
    return text if len(text) <= _LONGEST_VALUE and _PRINTABLE.fullmatch(text) else None


def parse_date(value: str | None) -> float | None:
    """Return the time of an HTTP date, in seconds since the epoch."""
    # Python would accept digits of every script.
    if value is None or not value.isascii():
        return None
    try:
        date = parsedate_to_datetime(value)
        # A date with the zone "-0000" becomes a naive date. Windows refuses to convert naive dates before 1970.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the delay in seconds that a Retry-After field requests.

    Args:
        value: a number of seconds or a date.
        now: seconds since the epoch.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # As a float, a number with hundreds of digits is infinite.
        return float(value[:_LONGEST_DELAY])
    date = parse_date(value)
    return None if date is None else max(0.0, date - now)


def confirms(response: Mapping[str, str], conditions: Mapping[str, str]) -> bool:
    """Return whether a 304 response is about the stored response: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.4.

    Args:
        response: the header fields of the 304 response. Their names are looked up in any case.
        conditions: the conditional header fields of its request.
    """
    etag, requested = response.get("ETag", "").strip(), conditions.get("If-None-Match")
    return not etag.startswith('"') or requested is None or etag == requested.removeprefix("W/")


def strong_validator(headers: Mapping[str, str]) -> str | None:
    """Return the validator for If-Range, if any: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.2.2."""
    etag = headers.get("ETag", "").strip()
    if etag:
        # A response with a weak ETag has no strong validator. The date is only used if there is no ETag:
        # https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
        return sendable_value(etag) if _STRONG_ETAG.fullmatch(etag) else None
    modified_field = sendable_value(headers.get("Last-Modified"))
    modified, date = parse_date(modified_field), parse_date(headers.get("Date"))
    # A file may change twice within one second, with the same Last-Modified.
    return modified_field if modified is not None and date is not None and date - modified >= 1 else None
