"""What is asked for: a URL, the hashes its bytes must have, its size and the wheel's file name.

Everything that must not leak is taken off here: the URL that later stations see in errors and records is the redacted
one, and the credentials travel beside it, not in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from . import _hashes
from ._filenames import check_filename
from ._hashes import Hashes

_SCHEMES = {"https", "http", "file"}


@dataclass(frozen=True)
class WheelRequest:
    """One wheel that is wanted: what ``fetch`` and ``fetch_all`` take.

    Args:
        url: where its bytes are: ``https:``, ``http:`` or ``file:``; a ``#sha256=...`` fragment counts as a hash.
        hashes: what its bytes must have, see ``Cache.fetch``.
        size: its size in bytes, where known.
        filename: its wheel file name, where the URL does not end in it.
        mirrors: URLs of the same file elsewhere, see ``Cache.fetch``.
    """

    url: str
    hashes: Hashes | None = None
    size: int | None = None
    filename: str | None = None
    mirrors: Sequence[str] = ()

    def __repr__(self) -> str:
        parts = [f"{redact(self.url)!r}", f"hashes={self.hashes!r}", f"size={self.size}", f"filename={self.filename!r}"]
        if self.mirrors:
            parts.append(f"mirrors={[redact(mirror) for mirror in self.mirrors]!r}")
        return f"WheelRequest({', '.join(parts)})"


class Source(NamedTuple):
    """A place to get the bytes from.

    Attributes:
        url: the URL without credentials and fragment, as it is requested.
        shown: the URL as it may be shown and stored: without query, too.
        auth: user name and password of the URL, or ``None``.
    """

    url: str
    shown: str
    auth: tuple[str, str] | None

    def __repr__(self) -> str:
        return f"Source({self.shown!r})"


class ResolvedRequest(NamedTuple):
    """A request, checked and taken apart.

    Attributes:
        url: the URL without credentials and fragment, as it is requested.
        shown: the URL as it may be shown and stored: without query, too.
        auth: user name and password of the URL, or ``None``.
        filename: the wheel's file name.
        hashes: what the bytes must have, by algorithm, in hex.
        size: what the bytes must measure, or ``None``.
        mirrors: where else they are, in the order in which they are asked.
    """

    url: str
    shown: str
    auth: tuple[str, str] | None
    filename: str
    hashes: Mapping[str, str]
    size: int | None
    mirrors: tuple[Source, ...] = ()

    def __repr__(self) -> str:
        return f"Wanted({self.filename!r}, {self.shown!r})"

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every place to get the bytes from, in order."""
        return (Source(self.url, self.shown, self.auth), *self.mirrors)

    @property
    def key(self) -> str:
        """What is single: the hash that names the bytes, else the URL. Two requests of one key want one download."""
        return _hashes.naming_hash(self.hashes) or self.url


def parse_request(
    url: str, hashes: Hashes | None, size: int | None, filename: str | None, mirrors: Iterable[str] = ()
) -> ResolvedRequest:
    """Check a request.

    Raises:
        ValueError: for a URL, hash or size that cannot be one.
        InvalidWheelError: for a file name that is not a wheel's.
    """
    parts = split_url(url)
    if isinstance(mirrors, str):
        raise TypeError("mirrors is a list of URLs, not one URL")
    others = {mirror: split_url(mirror) for mirror in mirrors}
    if others and "file" in {parts.scheme, *(other.scheme for other in others.values())}:
        raise ValueError("a file: URL neither has mirrors nor is one")
    fragments = [found for each in (parts, *others.values()) for found in _fragment_hashes(each.fragment)]
    wanted = _hashes.merged([*_hashes.parse_hashes(hashes).items(), *fragments])
    _hashes.require_strong(wanted)
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise ValueError(f"size is a number of bytes, not {size!r}")
    source = _source(url, parts)
    if filename is None:
        filename = unquote(parts.path.rpartition("/")[2])
    check_filename(filename, operation="fetch", url=source.shown)
    return ResolvedRequest(
        url=source.url,
        shown=source.shown,
        auth=source.auth,
        filename=filename,
        hashes=wanted,
        size=size,
        mirrors=tuple(_source(mirror, other) for mirror, other in others.items()),
    )


def _source(url: str, parts: SplitResult) -> Source:
    return Source(
        url=parts._replace(netloc=_without_userinfo(parts.netloc), fragment="").geturl(),
        shown=redact(url),
        auth=None if parts.username is None else (unquote(parts.username), unquote(parts.password or "")),
    )


def split_url(url: str) -> SplitResult:
    """Take a URL apart.

    Raises:
        ValueError: where it is not an absolute ``https:``, ``http:`` or ``file:`` URL. The text shows no credentials.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL is a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        _ = parts.port  # a port that is no number is told only when it is asked for
    except ValueError:
        # urllib's own text quotes what it could not read, which may be a part of a password.
        raise ValueError(f"not a URL, its host or port cannot be read: {redact(url)}") from None
    if parts.scheme not in _SCHEMES or (parts.scheme != "file" and not parts.hostname):
        way_in = "" if parts.scheme else "; a local file goes in by put"
        raise ValueError(f"not an https:, http: or file: URL: {redact(url)}{way_in}")
    return parts


def redact(url: str) -> str:
    """Return the URL without what may be secret: user name, password, query and fragment.

    ``***`` stands where something was, so that the reader sees that it was there. Of text that is not a URL nothing
    behind the scheme is shown.
    """
    try:
        parts = urlsplit(url)
        netloc = parts.netloc
        _ = parts.port
    except ValueError:
        # What stands where a port should be may be a password with a "/" or "#" in it.
        scheme, _, _ = url.partition("://")
        return f"{scheme}://***" if scheme in _SCHEMES else "***"
    if "@" in netloc:
        netloc = "***@" + _without_userinfo(netloc)
    elif "@" in parts.path and not netloc and parts.scheme != "file":
        return "***"
    return parts._replace(netloc=netloc, query="***" if parts.query else "", fragment="").geturl()


def _without_userinfo(netloc: str) -> str:
    return netloc.rpartition("@")[2]


def _fragment_hashes(fragment: str) -> list[tuple[str, str]]:
    """Read the hashes of ``#sha256=<hex>&...``; other parts of a fragment, such as ``egg=``, are passed over."""
    parts = (part.partition("=") for part in fragment.split("&"))
    return [_hashes.checked(name, value) for name, _, value in parts if _hashes.is_known(name.lower())]


def text_key(text: str) -> str:
    """Return the name on disk of something that cannot be one itself: the sha256 of its UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
