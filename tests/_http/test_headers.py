"""Header fields: the values that are accepted, and those that count as absent."""

from __future__ import annotations

import pytest
from marks import any_system

from wheelcache._http.headers import (
    ContentRange,
    parse_content_length,
    parse_content_range,
    parse_date,
    parse_retry_after,
    strong_validator,
)

pytestmark = any_system

EPOCH_DATE = "Thu, 01 Jan 1970 00:01:00 GMT"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), ("0", 0), ("123", 123), ("-1", None), ("1 2", None), ("", None), ("٣", None), ("9" * 5000, None)],
)
def test_content_length(value: str | None, expected: int | None) -> None:
    """A Content-Length is a number of at most 18 ASCII digits."""
    assert parse_content_length(value) == expected


@pytest.mark.parametrize(
    ("value", "expected", "length"),
    [
        ("bytes 0-9/100", ContentRange(0, 9, 100), 10),
        ("bytes 5-4/100", ContentRange(5, 4, 100), 0),
        ("bytes 0-9/*", ContentRange(0, 9, None), 10),
        ("bytes */100", ContentRange(None, None, 100), 0),
        ("bytes 0-/100", None, None),
        ("items 0-9/100", None, None),
        (f"bytes 0-{'9' * 30}/100", None, None),
        (None, None, None),
    ],
)
def test_content_range(value: str | None, expected: ContentRange | None, length: int | None) -> None:
    """A Content-Range names its bytes and the size of the file, each of which may be unknown."""
    parsed = parse_content_range(value)
    assert parsed == expected
    assert parsed is None or parsed.length == length


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (EPOCH_DATE, 60.0),
        ("Thu, 01 Jan 1970 00:01:00 -0000", 60.0),
        ("Thursday, 01-Jan-70 00:01:00 GMT", 60.0),
        ("soon", None),
        ("Thu, 99 Jan 1970 00:01:00 GMT", None),
        (None, None),
    ],
)
def test_date(value: str | None, expected: float | None) -> None:
    """A date of any form that HTTP allows is seconds since the epoch."""
    assert parse_date(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(" 7 ", 7.0), (EPOCH_DATE, 50.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("-7", None), ("", None), (None, None)],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    """A Retry-After is a number of seconds or a date, and never in the past."""
    assert parse_retry_after(value, 10.0) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ETag": ' "a" '}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": EPOCH_DATE, "Date": "Thu, 01 Jan 1970 01:00:00 GMT"}, None),
        ({"ETag": '"'}, None),
        ({"ETag": '"é"'}, None),
        ({"Last-Modified": EPOCH_DATE, "Date": "Thu, 01 Jan 1970 00:01:01 GMT"}, EPOCH_DATE),
        ({"Last-Modified": EPOCH_DATE, "Date": EPOCH_DATE}, None),
        ({"Last-Modified": EPOCH_DATE}, None),
        ({}, None),
    ],
)
def test_strong_validator(headers: dict[str, str], expected: str | None) -> None:
    """A strong ETag is a validator; a date is one if it is a second old, and there is no ETag."""
    assert strong_validator(headers) == expected
