"""Pointers: from a name that is not a sha256 (another strong hash, a URL) to the sha256 of its wheel.

URLs: which wheel a URL gave last, for fetches without a hash, and whether the server has to be asked again.

What is on disk is a pointer: the sha256, how long it holds, and the validators to ask with. The URL itself may be a
secret and is there as a hash only; of the answer's header fields only those of :mod:`._freshness` are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._fs.tempnames import OwnerTag
from .._hashes import checked
from .layout import Layout
from .records import decode, encode

if TYPE_CHECKING:
    from .._fetch.download import Answer


class Pointers:
    """The pointers of one cache folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def read(self, fs: RobustIO, key: str) -> str | None:
        """Return the sha256 that a key points to, ``None`` where it points nowhere."""
        # The key itself may be a URL with secrets; only its hash is on disk, as the file's name.
        return target_of(fs.read(self._layout.pointer(key)))

    def fields(self, fs: RobustIO, key: str) -> dict[str, Any]:
        """Return all that a pointer says, nothing where there is none."""
        # The key itself may be a URL with secrets; only its hash is on disk, as the file's name.
        return decode(fs.read(self._layout.pointer(key)) or b"") or {}

    def write(self, fs: RobustIO, key: str, sha256: str, more: Mapping[str, Any] | None = None) -> None:
        """Let a key point to a sha256. Where that is refused, the next fetch by this key downloads again, no more."""
        stamp = OwnerTag.new(fs.system.now(), fs.system.boot())
        data = encode({**(more or {}), "sha256": sha256})
        try:
            fs.without_waiting().write_small(self._layout.pointer(key), data, self._layout.new_temporary(stamp))
        except CommitError:
            pass

    def forget(self, fs: RobustIO, key: str) -> None:
        """Let a key point nowhere."""
        fs.discard(self._layout.pointer(key))


def target_of(data: bytes | None) -> str | None:
    """Return the sha256 in the bytes of a pointer, ``None`` where they are none."""
    fields = decode(data or b"")
    try:
        return None if fields is None else checked("sha256", fields["sha256"])[1]
    except (KeyError, ValueError, AttributeError):
        return None


class UrlEntry(NamedTuple):
    """What is known of a URL.

    Attributes:
        sha256: of the wheel that it gave.
        until: seconds since the epoch until which the server need not be asked.
        may_be_stale: whether it may be used later, where the server cannot be asked.
        headers: what the server said of it.
        place: where redirects led, see :func:`._download.place_of`.
    """

    sha256: str
    until: float
    may_be_stale: bool
    headers: Mapping[str, str]
    place: str

    def holds(self, now: float, *, offline: bool) -> bool:
        """Whether it may be used without asking."""
        return now < self.until or (offline and self.may_be_stale)

    def conditions(self, *, refresh: bool) -> dict[str, str]:
        """Return the header fields that ask whether it is still so."""
        asked = {"If-None-Match": self.headers.get("etag"), "If-Modified-Since": self.headers.get("last-modified")}
        found = {name: text for name, text in asked.items() if text}
        # Caches on the way are told, too: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.4
        return {**found, "Cache-Control": "no-cache"} if found and refresh else found


class Urls:
    """The URLs that one cache folder knows."""

    def __init__(self, pointers: Pointers) -> None:
        self._pointers = pointers

    def read(self, fs: RobustIO, url: str) -> UrlEntry | None:
        """Return what is known of a URL."""
        match self._pointers.fields(fs, url):
            case {
                "sha256": str(sha256),
                "until": float() | int() as until,
                "may_be_stale": bool(may_be_stale),
                "headers": dict(headers),
                "place": str(place),
            }:
                try:
                    return UrlEntry(checked("sha256", sha256)[1], until, may_be_stale, headers, place)
                except ValueError:
                    return None
        return None

    def write(self, fs: RobustIO, url: str, sha256: str, answer: Answer, before: UrlEntry | None = None) -> None:
        """Take down what a server said of a URL; with an answer that nothing was modified, what it said ``before``."""
        # Only who asked a server needs it, and the start of a process counts.
        from .._http.cache_control import KEPT, freshness

        if answer.url != url:
            return  # a mirror's word says nothing of this URL
        headers = {} if answer.modified or before is None else dict(before.headers)
        if not answer.modified:
            # An age belongs to the answer that it came with.
            headers.pop("age", None)
        headers.update({name: answer.headers[name] for name in KEPT if name in answer.headers})
        fresh = freshness(headers, answer.asked, fs.system.now(), answer.hops)
        if not fresh.storable:
            self.forget(fs, url)
            return
        more = {"until": fresh.until, "may_be_stale": fresh.may_be_stale, "headers": headers, "place": answer.place}
        self._pointers.write(fs, url, sha256, more)

    def forget(self, fs: RobustIO, url: str) -> None:
        """Know nothing of a URL any more."""
        self._pointers.forget(fs, url)
