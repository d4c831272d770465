"""What is handed from those who find out what is wanted to those who get it: wheels to get, and problems."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from wheelcache import WheelRequest

from .._errors import text_of
from .._redact import redact

# The cache refuses a set of these alone, since they do not say which bytes are meant.
_WEAK = {"md5", "sha1", "sha224"}


@dataclass(frozen=True)
class Item:
    """A wheel to get.

    Attributes:
        request: as the cache takes it.
        asked: what asked for it, as people know it: ``six==1.17.0``, or a file; without credentials.
        digest: of a local file that came without a hash: where the cache has it already, it need not be copied in.
    """

    request: WheelRequest
    asked: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The file name, as far as it can be told without asking the cache."""
        return self.request.filename or unquote(urlsplit(self.request.url).path.rpartition("/")[2])


@dataclass(frozen=True)
class Problem:
    """Something that was asked for and is not to be had.

    Attributes:
        asked: as for :class:`Item`; ``None`` where it is a URL.
        url: without credentials and query, or ``None``.
        error: the kind: the name of an exception.
        message: one line for people.
    """

    asked: str | None
    url: str | None
    error: str
    message: str

    @classmethod
    def of(cls, error: Exception, asked: str | None = None) -> Problem:
        """Make one of an exception."""
        url = getattr(error, "url", None)
        return cls(
            asked=asked and redact(asked),
            url=redact(url) if isinstance(url, str) else None,
            error=type(error).__name__,
            message=redact(" ".join(text_of(error).split())),
        )


def item(
    url: str,
    hashes: Mapping[str, str] | None = None,
    *,
    asked: str | None = None,
    size: int | None = None,
    filename: str | None = None,
) -> Item:
    """Make an item that is a hit the second time, where that can be had.

    Weak hashes alone are left out: pip takes a wheel with such a one, and the cache computes a good one. Where no hash
    is left and the wheel is a local file, it is hashed now, since reading it costs less than copying it in again. That
    hash is not asked for: with one, the cache would take the file for what it is to be, even if it is no wheel.
    """
    if hashes and all(name.lower() in _WEAK for name in hashes):
        hashes = None
    digest = _local_digest(url) if not hashes and url.startswith("file:") and "#" not in url else None
    return Item(WheelRequest(url, hashes or None, size, filename), asked, digest)


def _local_digest(url: str) -> str | None:
    # It pulls in all of http.client, which nothing else here needs.
    from urllib.request import url2pathname

    parts = urlsplit(url)
    host = "" if parts.netloc == "localhost" else parts.netloc
    try:
        with open(url2pathname(f"//{host}{parts.path}" if host else parts.path), "rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return None  # the cache will say why it cannot be read, and better
