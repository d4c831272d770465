"""The results of resolving the user's arguments: requests for the cache, and failures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from .._errors import error_text
from .._redact import redact

# The cache refuses a request that has only weak hashes, since they do not identify the bytes.
_WEAK = {"md5", "sha1", "sha224"}


@dataclass(frozen=True)
class FetchRequest:
    """A wheel to fetch, in the form that :meth:`wheelcache.Cache.fetch_all` accepts.

    Attributes:
        url: the URL.
        hashes: the hashes by algorithm, or ``None``.
        size: the size in bytes, or ``None``.
        filename: the file name, or ``None`` for the one in the URL.
        requirement: the requirement, such as ``six==1.17.0``, or the file that requests the wheel, for messages and
            without credentials. ``None`` for a URL.
        local_digest: the digest of a local file that was given without a hash, as :func:`make_request` explains.
    """

    url: str
    hashes: Mapping[str, str] | str | None = None
    size: int | None = None
    filename: str | None = None
    requirement: str | None = None
    local_digest: str | None = None

    @property
    def display_name(self) -> str:
        """The file name of the request, or the last part of its URL."""
        return self.filename or unquote(urlsplit(self.url).path.rpartition("/")[2])


@dataclass(frozen=True)
class Failure:
    """A part of the user's request that failed.

    Attributes:
        requirement: as in :class:`FetchRequest`.
        url: the URL without credentials and query, or ``None``.
        error: the name of the exception class.
        message: the message for the user, as one line.
    """

    requirement: str | None
    url: str | None
    error: str
    message: str

    @classmethod
    def from_error(cls, error: Exception, requirement: str | None = None) -> Failure:
        """Create a failure from an exception."""
        url = getattr(error, "url", None)
        return cls(
            requirement=requirement and redact(requirement),
            url=redact(url) if isinstance(url, str) else None,
            error=type(error).__name__,
            message=redact(" ".join(error_text(error).split())),
        )


def make_request(
    url: str,
    hashes: Mapping[str, str] | None = None,
    *,
    requirement: str | None = None,
    size: int | None = None,
    filename: str | None = None,
) -> FetchRequest:
    """Create a request that, if possible, is a hit when it is repeated.

    Weak hashes without a strong one are dropped, since pip accepts such a wheel. The cache computes a strong hash.

    A local file without a hash is hashed here, because reading it takes less time than copying it into the cache again.
    This digest only shows whether the cache already contains the wheel. It must not be part of the request, because the
    cache would then accept any file that matches, even one that is not a wheel.
    """
    if hashes and all(name.lower() in _WEAK for name in hashes):
        hashes = None
    local_digest = _hash_local_file(url) if not hashes and url.startswith("file:") and "#" not in url else None
    return FetchRequest(url, hashes or None, size, filename, requirement, local_digest)


def _hash_local_file(url: str) -> str | None:
    # urllib.request imports http.client, which other requests do not need.
    from urllib.request import url2pathname

    parts = urlsplit(url)
    host = "" if parts.netloc == "localhost" else parts.netloc
    path = url2pathname(f"//{host}{parts.path}" if host else parts.path)
    try:
        if not os.path.isfile(path):
            return None  # the content of a pipe can be read only once
        with open(path, "rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return None  # the cache reports the error with more detail
