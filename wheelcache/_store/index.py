"""Map URLs, and strong hashes other than sha256, to the sha256 of a wheel.

Each of these keys has a small file, its pointer. The name of that file is a hash of the key, since a URL may contain a
secret. The pointer of a URL also contains the end of the response's freshness, and the header fields that revalidate
the response. The index only stores freshness. ``_http.cache_control`` computes it.

A private response has a separate pointer for each user of the operating system. The key of that pointer contains the
user's identifier. Other users and older versions look up another key and do not find the response.

A pointer proves nothing. A user who can write to the cache can make a key lead to any wheel. A wheel that was found by
a hash is therefore returned only if it has that hash. No hash protects a request by URL alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._fs.small import read_optional
from .._hashes import normalize_hash
from .layout import Layout
from .records import decode, encode, is_text

# Seconds. A larger integer may not fit into a float.
_MAX_TIME = 1e300
MAX_POINTER = 1 << 20
"""Bytes. The longest fields are those of the response's header. HTTP clients accept about 100 kB of header fields, and
JSON needs up to 6 bytes for a character."""


class UrlEntry(NamedTuple):
    """The last response for a URL.

    Attributes:
        sha256: the digest of the wheel in the response, in hex.
        until: the end of the response's freshness, in seconds since the epoch.
        may_be_stale: whether an offline cache may use the response after ``until``.
        headers: the header fields that freshness and conditional requests need, with lowercase names.
        place: the key of the URL that redirects led to, or an empty string if there were no redirects.
        is_private: whether only the user who received the response may use it.
    """

    sha256: str
    until: float
    may_be_stale: bool
    headers: Mapping[str, str]
    place: str
    is_private: bool = False

    def is_usable(self, now: float, *, offline: bool) -> bool:
        """Return whether the response may be used without revalidation."""
        return now < self.until or (offline and self.may_be_stale)


class Index:
    """The pointers of one cache folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def find_digest(self, fs: RobustIO, key: str) -> str | None:
        """Return the sha256 that a key points to, or ``None``. The caller checks that the wheel has the key's hash."""
        return digest_in_pointer(read_optional(fs, self._layout.pointer(key), MAX_POINTER))

    def find_url(self, fs: RobustIO, url: str) -> UrlEntry | None:
        """Return the last response for a URL that this user may use, or ``None``."""
        private_key = _private_key(fs, url)
        own = None if private_key is None else self._read_url(fs, private_key)
        if own is not None:
            return own._replace(is_private=True)
        entry = self._read_url(fs, url)
        return None if entry is None or entry.is_private else entry

    def _read_url(self, fs: RobustIO, key: str) -> UrlEntry | None:
        fields = decode(read_optional(fs, self._layout.pointer(key), MAX_POINTER) or b"") or {}
        match fields:
            case {
                "sha256": str(sha256),
                "until": float() | int() as until,
                "may_be_stale": bool(may_be_stale),
                "headers": dict(headers),
                "place": str(place),
            } if _is_time(until) and is_text(place) and all(map(is_text, headers.values())):
                try:
                    digest = normalize_hash("sha256", sha256)[1]
                except ValueError:
                    return None
                # Older versions stored private responses for all users.
                says_private = "private" in str(headers.get("cache-control")).lower()
                is_private = fields.get("is_private", says_private) is not False
                return UrlEntry(digest, until, may_be_stale, headers, place, is_private)
        return None

    def write_digest(self, fs: RobustIO, key: str, sha256: str) -> None:
        """Write the pointer of a key, best effort. Without the pointer, the next fetch by this key downloads again."""
        self._write(fs, key, {"sha256": sha256})

    def remove_digest(self, fs: RobustIO, key: str) -> None:
        """Delete the pointer of a key, best effort, because it leads to a wheel without this hash."""
        self._remove(fs, key)

    def write_url(self, fs: RobustIO, url: str, entry: UrlEntry) -> None:
        """Store the last response for a URL in place of the previous one, best effort, like :meth:`write_digest`.

        A private response is not stored if the user is unknown.
        """
        private_key = _private_key(fs, url)
        key, other = (private_key, url) if entry.is_private else (url, private_key)
        # The previous response is removed first. It must not be used if the process ends between the two operations.
        if other is not None:
            self._remove(fs, other)
        if key is not None:
            self._write(fs, key, entry._asdict())

    def _write(self, fs: RobustIO, key: str, fields: Mapping[str, Any]) -> None:
        temporary = self._layout.new_temporary(fs.temporary_tag())
        data = encode(fields)
        if len(data) > MAX_POINTER:
            return
        try:
            fs.without_waiting().write_small(self._layout.pointer(key), data, temporary)
        except CommitError:
            pass

    def remove_url(self, fs: RobustIO, url: str) -> None:
        """Delete the last responses for a URL that this user may use, best effort."""
        for key in (_private_key(fs, url), url):
            if key is not None:
                self._remove(fs, key)

    def _remove(self, fs: RobustIO, key: str) -> None:
        fs.discard(self._layout.pointer(key))


def _is_time(until: float) -> bool:
    """Return whether a number can be a time in seconds since the epoch."""
    return not isinstance(until, bool) and abs(until) < _MAX_TIME


def _private_key(fs: RobustIO, url: str) -> str | None:
    """Return the key of this user's private response for a URL, or ``None`` if the user is unknown."""
    user = fs.system.user()
    return None if user is None else f"private {user} {url}"


def digest_in_pointer(data: bytes | None) -> str | None:
    """Return the sha256 in the contents of a pointer, or ``None`` if the contents are invalid."""
    fields = decode(data or b"")
    try:
        return None if fields is None else normalize_hash("sha256", fields["sha256"])[1]
    except (KeyError, ValueError, AttributeError, TypeError):
        return None


def leads_from_url(data: bytes | None) -> bool:
    """Return whether a pointer has the fields of a response, because its key is a URL and not a hash."""
    return "until" in (decode(data or b"") or {})
