"""The index: maps keys, which are URLs and strong hashes other than sha256, to the sha256 of a wheel.

Each key has a small file, its pointer. The name of that file is a hash of the key, since a URL may contain a secret.
The pointer of a URL also states how long the response is fresh, and contains the header fields that revalidate it. The
index only stores freshness; ``_http.cache_control`` computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._hashes import normalize_hash
from .layout import Layout
from .records import decode, encode


class UrlEntry(NamedTuple):
    """The last response for a URL.

    Attributes:
        sha256: the digest of the wheel that it delivered, in hex.
        until: the end of its freshness, in seconds since the epoch.
        may_be_stale: whether an offline cache may use the response after that.
        headers: the header fields that freshness and conditional requests need, with lowercase names.
        place: the key of the URL that redirects led to, empty if there were no redirects.
    """

    sha256: str
    until: float
    may_be_stale: bool
    headers: Mapping[str, str]
    place: str

    def is_usable(self, now: float, *, offline: bool) -> bool:
        """Return whether the response may be used without revalidation."""
        return now < self.until or (offline and self.may_be_stale)


class Index:
    """The pointers of one cache folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def find_digest(self, fs: RobustIO, key: str) -> str | None:
        """Return the sha256 that a key points to, or ``None``."""
        return digest_in_pointer(fs.read(self._layout.pointer(key)))

    def find_url(self, fs: RobustIO, url: str) -> UrlEntry | None:
        """Return the last response for a URL, or ``None``."""
        match decode(fs.read(self._layout.pointer(url)) or b""):
            case {
                "sha256": str(sha256),
                "until": float() | int() as until,
                "may_be_stale": bool(may_be_stale),
                "headers": dict(headers),
                "place": str(place),
            }:
                try:
                    return UrlEntry(normalize_hash("sha256", sha256)[1], until, may_be_stale, headers, place)
                except ValueError:
                    return None
        return None

    def write_digest(self, fs: RobustIO, key: str, sha256: str) -> None:
        """Write the pointer of a key, best effort. Without one, the next fetch by this key downloads again."""
        self._write(fs, key, {"sha256": sha256})

    def write_url(self, fs: RobustIO, url: str, entry: UrlEntry) -> None:
        """Store the last response for a URL, best effort, like :meth:`write_digest`."""
        self._write(fs, url, entry._asdict())

    def _write(self, fs: RobustIO, key: str, fields: Mapping[str, Any]) -> None:
        temporary = self._layout.new_temporary(fs.temporary_tag())
        try:
            fs.without_waiting().write_small(self._layout.pointer(key), encode(fields), temporary)
        except CommitError:
            pass

    def remove(self, fs: RobustIO, key: str) -> None:
        """Delete the pointer of a key, best effort."""
        fs.discard(self._layout.pointer(key))


def digest_in_pointer(data: bytes | None) -> str | None:
    """Return the sha256 in the contents of a pointer, or ``None`` if they are invalid."""
    fields = decode(data or b"")
    try:
        return None if fields is None else normalize_hash("sha256", fields["sha256"])[1]
    except (KeyError, ValueError, AttributeError):
        return None
