"""Check and parse requests: a URL, and the expected hashes, size and file name of its wheel.

Credentials are separated from the URL here. Errors and records contain only the redacted URL.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from . import _hashes
from ._filenames import check_filename
from ._hashes import Hashes

_SCHEMES = {"https", "http", "file"}

# This matches a path that begins at the root, a drive or a dot. Text that begins with a name may be a user name and a
# password.
_LOCAL_PATH = re.compile(r"(?:[A-Za-z]:[\\/]|\.{0,2}[\\/])[^:]*")
# This matches an "@" that may follow a password. The name of a folder or file may begin with "@".
_INNER_AT = re.compile(r"(?:^|[^/\\])@")


@dataclass(frozen=True)
class WheelRequest:
    """A request for one wheel, for ``fetch_all``.

    Args:
        url: an ``https:``, ``http:`` or ``file:`` URL. A ``#sha256=...`` fragment counts as a hash.
        hashes: the hashes that the wheel must have: see ``Cache.fetch``.
        size: the size in bytes that the wheel must have, if known.
        filename: the file name of the wheel, if the URL does not end in it.
        mirrors: further URLs of the same wheel: see ``Cache.fetch``.
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
    """A URL from which a wheel can be downloaded.

    Attributes:
        url: the URL without credentials and fragment, as it is requested.
        display_url: the redacted URL, for display and storage.
        auth: the user name and password of the URL, or ``None``.
        trusted_url: the URL of the request, even for a mirror. The client's credentials are sent only to its origin.
    """

    url: str
    display_url: str
    auth: tuple[str, str] | None
    trusted_url: str

    def __repr__(self) -> str:
        return f"Source({self.display_url!r})"


class ResolvedRequest(NamedTuple):
    """A request after its arguments were checked and parsed.

    Attributes:
        url: the URL without credentials and fragment, as it is requested.
        display_url: the redacted URL, for display and storage.
        auth: the user name and password of the URL, or ``None``.
        filename: the wheel's file name.
        hashes: the requested hashes, by algorithm, in hex.
        size: the requested size in bytes, or ``None``.
        mirrors: further URLs of the same wheel, in the order in which they are tried.
    """

    url: str
    display_url: str
    auth: tuple[str, str] | None
    filename: str
    hashes: Mapping[str, str]
    size: int | None
    mirrors: tuple[Source, ...] = ()

    def __repr__(self) -> str:
        return f"ResolvedRequest({self.filename!r}, {self.display_url!r})"

    @property
    def sources(self) -> tuple[Source, ...]:
        """The URL and the mirrors, in the order in which they are tried."""
        return (Source(self.url, self.display_url, self.auth, self.url), *self.mirrors)

    @property
    def is_pinned(self) -> bool:
        """Whether a strong hash decides which bytes are accepted, regardless of the server."""
        return _hashes.naming_hash(self.hashes) is not None

    @property
    def key(self) -> str:
        """The hash that identifies the wheel, or else the URL. Requests with the same key share one download."""
        return _hashes.naming_hash(self.hashes) or self.url


def parse_request(
    url: str, hashes: Hashes | None, size: int | None, filename: str | None, mirrors: Iterable[str] = ()
) -> ResolvedRequest:
    """Check and parse the arguments of a request.

    Raises:
        TypeError: if the URL is not a ``str``, or ``mirrors`` is one URL and not several.
        ValueError: if a URL, hash or size is invalid, or all hashes are weak.
        InvalidWheelError: if the file name is not a valid wheel file name.
    """
    parts = split_url(url)
    if isinstance(mirrors, str):
        raise TypeError("mirrors must be a list of URLs, not one URL")
    mirror_parts = {mirror: split_url(mirror) for mirror in mirrors}
    all_parts = (parts, *mirror_parts.values())
    if mirror_parts and any(each.scheme == "file" for each in all_parts):
        raise ValueError("a file: URL cannot have mirrors or be a mirror")
    fragments = [pair for each in all_parts for pair in _fragment_hashes(each.fragment)]
    expected = _hashes.merge_hashes([*_hashes.parse_hashes(hashes).items(), *fragments])
    _hashes.require_strong(expected)
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise ValueError(f"size must be a number of bytes, not {size!r}")
    source = _to_source(url, parts, trusted=None)
    if filename is None:
        filename = unquote(parts.path.rpartition("/")[2])
    check_filename(filename, operation="fetch", url=source.display_url)
    return ResolvedRequest(
        url=source.url,
        display_url=source.display_url,
        auth=source.auth,
        filename=filename,
        hashes=expected,
        size=size,
        mirrors=tuple(_to_source(mirror, each, trusted=source.url) for mirror, each in mirror_parts.items()),
    )


def _to_source(url: str, parts: SplitResult, trusted: str | None) -> Source:
    plain = parts._replace(netloc=_without_userinfo(parts.netloc), fragment="").geturl()
    return Source(
        url=plain,
        display_url=redact(url),
        auth=None if parts.username is None else (unquote(parts.username), unquote(parts.password or "")),
        trusted_url=plain if trusted is None else trusted,
    )


def split_url(url: str) -> SplitResult:
    """Split a URL into its parts.

    Raises:
        TypeError: if ``url`` is not a ``str``.
        ValueError: if ``url`` is not an absolute ``https:``, ``http:`` or ``file:`` URL. The message is redacted.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        _ = parts.port  # urllib checks the port only when this property is read
    except ValueError:
        # The message of urllib quotes the invalid part. That part may contain a part of a password.
        raise ValueError(f"the URL has an invalid host or port: {redact(url)}") from None
    if parts.scheme not in _SCHEMES or (parts.scheme != "file" and not parts.hostname):
        advice = "" if parts.scheme and not _has_drive(parts) else " (use put for a local file)"
        raise ValueError(f"not an https:, http: or file: URL: {redact(url)}{advice}")
    return parts


def redact(url: str) -> str:
    """Return a URL without its user name, password, query and fragment, since they may be secret.

    ``***`` replaces the user name and password, and the query. The path is kept, even if it contains an "@". A local
    path is kept too. If the text is not a URL, or may contain a password with unescaped special characters, only a
    known scheme is kept.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # The text in place of the port may be a password that contains "/" or "#".
        scheme, _, _ = url.partition("://")
        return _hide(scheme)
    if _may_show_a_password(parts, url):
        return _hide(parts.scheme)
    netloc = parts.netloc
    if "@" in netloc:
        netloc = "***@" + _without_userinfo(netloc)
    shown = _escape(parts._replace(netloc=netloc, query="***" if parts.query else "", fragment="").geturl())
    # urlsplit parses a drive as a scheme, and converts it to lowercase.
    return shown[0].upper() + shown[1:] if _has_drive(parts) else shown


def _escape(url: str) -> str:
    """Escape control characters, since a server may redirect to a URL with commands for a terminal."""
    if url.isprintable():
        return url
    return "".join(each if each.isprintable() else quote(each, errors="replace") for each in url)


def _hide(scheme: str) -> str:
    return f"{scheme}://***" if scheme in _SCHEMES else "***"


def _may_show_a_password(parts: SplitResult, url: str) -> bool:
    """Return whether the host, path, query or fragment may contain a part of a password.

    The characters "@", "/", "?" and "#" of a password must be escaped. Otherwise, the rest of the password is parsed as
    the host, path, query or fragment. An "@" and the real host follow.
    """
    if not parts.netloc:
        is_path = _LOCAL_PATH.fullmatch(url) or not (":" in url or _INNER_AT.search(url))
        return "@" in url and parts.scheme != "file" and not is_path
    userinfo, _, host = parts.netloc.rpartition("@")
    if "%40" in host:  # the "@" between password and host was escaped by mistake
        return True
    if parts.path in {"", "/"}:
        return "@" in parts.query or "@" in parts.fragment
    # In a requirement of a version control system, the path ends in "@" and a revision.
    is_repository = "+" in parts.scheme
    return bool(userinfo) and not is_repository and not set(".:") & set(host) and bool(_INNER_AT.search(parts.path))


def _has_drive(parts: SplitResult) -> bool:
    return len(parts.scheme) == 1 and not parts.netloc


def _without_userinfo(netloc: str) -> str:
    return netloc.rpartition("@")[2]


def _fragment_hashes(fragment: str) -> list[tuple[str, str]]:
    """Return the hashes in a fragment ``#sha256=<hex>&...``. Other parts, such as ``egg=``, are ignored."""
    parts = (part.partition("=") for part in fragment.split("&"))
    return [_hashes.normalize_hash(name, value) for name, _, value in parts if _hashes.is_known(name.lower())]


def text_key(text: str) -> str:
    """Return the sha256 of the UTF-8 bytes of a text, in hex, for use as a file name."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
