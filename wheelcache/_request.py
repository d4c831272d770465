"""What is asked for: a URL, the hashes its bytes must have, its size and the wheel's file name.

Everything that must not leak is taken off here: the URL that later stations see in errors and records is the redacted
one, and the credentials travel beside it, not in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from . import _digest
from ._digest import Hashes
from ._errors import InvalidWheelError

# The characters of wheel file names: those of names, versions (with epoch and local part), build and platform tags:
# https://packaging.python.org/en/latest/specifications/binary-distribution-format/#file-name-convention
# Checked before any path is formed, so that no file name can leave its folder on any system.
_WHEEL_NAME = re.compile(r"[a-z0-9_.+!]+(?:-[a-z0-9_.+!]+){4,5}\.whl", re.ASCII | re.IGNORECASE)
_SCHEMES = {"https", "http", "file"}
# 255 is the longest name of common file systems; the record adds ".json".
_LONGEST_NAME = 250


@dataclass(frozen=True)
class WheelRequest:
    """One wheel that is wanted: what ``fetch`` and ``fetch_all`` take.

    Args:
        url: where its bytes are: ``https:``, ``http:`` or ``file:``; a ``#sha256=...`` fragment counts as a hash.
        hashes: what its bytes must have, see ``Cache.fetch``.
        size: its size in bytes, where known.
        filename: its wheel file name, where the URL does not end in it.
    """

    url: str
    hashes: Hashes | None = None
    size: int | None = None
    filename: str | None = None

    def __repr__(self) -> str:
        shown = (f"{redact(self.url)!r}", f"hashes={self.hashes!r}", f"size={self.size}", f"filename={self.filename!r}")
        return f"WheelRequest({', '.join(shown)})"


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


class Wanted(NamedTuple):
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
        return _digest.naming_hash(self.hashes) or self.url


def parse_request(
    url: str, hashes: Hashes | None, size: int | None, filename: str | None, mirrors: Iterable[str] = ()
) -> Wanted:
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
    wanted = _digest.merged([*_digest.parse_hashes(hashes).items(), *fragments])
    _digest.require_strong(wanted)
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise ValueError(f"size is a number of bytes, not {size!r}")
    source = _source(url, parts)
    if filename is None:
        filename = unquote(parts.path.rpartition("/")[2])
    check_filename(filename, operation="fetch", url=source.shown)
    return Wanted(
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
    return [_digest.checked(name, value) for name, _, value in parts if _digest.is_known(name.lower())]


def check_filename(filename: str, *, operation: str, url: str | None = None) -> None:
    """Refuse a file name with anything that is not allowed in a wheel's.

    It is the cheap check, made before any path is formed. :func:`check_wheel_name` reads the name in full, on a miss.

    Raises:
        InvalidWheelError: where it is not a wheel's file name.
    """
    if len(filename) > _LONGEST_NAME or not _WHEEL_NAME.fullmatch(filename):
        raise _no_wheel_name(filename, operation, url, "")


def check_wheel_name(filename: str, *, operation: str, url: str | None = None) -> None:
    """Refuse a file name that packaging cannot read as a wheel's.

    Raises:
        InvalidWheelError: where it is not a wheel's file name.
    """
    # On a miss only: a file name that has a record was checked when it came, and the import costs a hit 30 ms.
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        parse_wheel_filename(filename)
    except InvalidWheelFilename as error:
        raise _no_wheel_name(filename, operation, url, f" ({error})") from None


def _no_wheel_name(filename: str, operation: str, url: str | None, why: str) -> InvalidWheelError:
    return InvalidWheelError(
        f"{filename[:300]!r} is not the file name of a wheel{why}",
        operation=operation,
        url=url,
        advice=(
            "Check the name: a wheel's is <name>-<version>-<python>-<abi>-<platform>.whl."
            " In Python, filename= gives one where the source has another."
        ),
    )


def text_key(text: str) -> str:
    """Return the name on disk of something that cannot be one itself: the sha256 of its UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
