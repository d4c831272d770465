"""The index: from a name that is not a sha256 (another strong hash, a URL) to the sha256 of its wheel.

Each name has a small file, a pointer. Its own file name is a hash of the name, since a URL may contain a secret. The
pointer of a URL also says how long the answer of the server is fresh, and holds the header fields to revalidate it by.
The index stores freshness; computing it is up to the modules that talk to servers.
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
    """The last response of a server for a URL.

    Attributes:
        sha256: the digest of the wheel that it delivered, in hex.
        until: until when the response is fresh, in seconds since the epoch.
        may_be_stale: whether the response may be used after that if the server cannot be asked.
        headers: the header fields that freshness and conditional requests need; names in lower case.
        place: the key of the URL that redirects led to, empty if there were no redirects.
    """

    sha256: str
    until: float
    may_be_stale: bool
    headers: Mapping[str, str]
    place: str

    def is_usable(self, now: float, *, offline: bool) -> bool:
        """Return whether the response may be used without asking the server."""
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
        """Make a key point to a sha256, best effort: without it, the next fetch by this key downloads again."""
        self._write(fs, key, {"sha256": sha256})

    def write_url(self, fs: RobustIO, url: str, entry: UrlEntry) -> None:
        """Store the last response for a URL, best effort, as :meth:`write_digest`."""
        self._write(fs, url, entry._asdict())

    def _write(self, fs: RobustIO, key: str, fields: Mapping[str, Any]) -> None:
        temporary = self._layout.new_temporary(fs.temporary_tag())
        try:
            fs.without_waiting().write_small(self._layout.pointer(key), encode(fields), temporary)
        except CommitError:
            pass

    def remove(self, fs: RobustIO, key: str) -> None:
        """Delete the pointer of a key."""
        fs.discard(self._layout.pointer(key))


def digest_in_pointer(data: bytes | None) -> str | None:
    """Return the sha256 in the bytes of a pointer, or ``None`` if they are not a pointer."""
    fields = decode(data or b"")
    try:
        return None if fields is None else normalize_hash("sha256", fields["sha256"])[1]
    except (KeyError, ValueError, AttributeError):
        return None
