"""Connect the requests that another HTTP client sends for one wheel when it follows redirects.

Such a client sends each redirected request separately. Many servers redirect a download to a URL whose name is a digest
and whose query is a new signature each time. The first request therefore identifies the wheel. Each later request
carries the :class:`Redirect` that it follows.

A redirect is kept in memory only. It contains no credentials. Its ``repr`` is redacted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from .._exceptions import WheelCacheError
from .._filenames import is_same_wheel
from .._http.cache_control import KEPT
from .._http.credentials import is_credential
from .._request import ResolvedRequest, parse_request, split_url, text_key

# This is the limit of fetch(). A client may follow thousands of redirects. Each one refers to the previous ones.
_MAX_REDIRECTS = 20


@dataclass(frozen=True, repr=False)
class RedirectChain:
    """The first request for a wheel, and the redirects that led to the current request.

    Attributes:
        request: the first request, without credentials. If it had no hashes, it has those that a redirect added.
        requested_at: when the first request was sent, in seconds since the epoch.
        url: the URL of the current request, without credentials and fragment.
        with_credentials: whether the current request or an earlier one was sent with credentials.
        redirect: the last redirect, or ``None`` if the current request is the first one.
    """

    request: ResolvedRequest
    requested_at: float
    url: str
    with_credentials: bool
    redirect: Redirect | None = None

    def __repr__(self) -> str:
        return f"RedirectChain({self.request!r})"

    @property
    def place(self) -> str:
        """The key of the current URL without its query, as in the index. Empty for the first request."""
        return "" if self.redirect is None else text_key(urlsplit(self.url)._replace(query="").geturl())

    @property
    def stored_urls(self) -> tuple[str, ...]:
        """The URLs under which the last response is stored if no hash identifies it.

        The response is often fresh although a redirect to it is not. It is therefore stored under the current URL too,
        unless that URL has a query. A query may be a signature that is never used again.
        """
        first = self.request.url
        is_used_again = self.url != first and not self.request.hashes and not urlsplit(self.url).query
        return (first, self.url) if is_used_again else (first,)

    @property
    def hops(self) -> tuple[Mapping[str, str], ...]:
        """The header fields of the redirects. They limit how long the last response is fresh."""
        return () if self.redirect is None else self.redirect.hops


@dataclass(frozen=True, repr=False)
class Redirect:
    """A redirect that a client may follow.

    Attributes:
        chain: the chain of the redirected request.
        hops: the header fields of this redirect and the previous ones that determine freshness, with lowercase names.
        source: the key of the redirected URL.
        target: the key of the URL to which this redirect leads.
        is_downgrade: whether this redirect or an earlier one leads from https to another scheme.
    """

    chain: RedirectChain
    hops: tuple[Mapping[str, str], ...]
    source: str
    target: str
    is_downgrade: bool

    def __repr__(self) -> str:
        return f"Redirect({self.chain.request!r})"

    @classmethod
    def of(cls, chain: RedirectChain, url: str, target: str, headers: Mapping[str, str]) -> Redirect:
        """Return the redirect of a response.

        Args:
            chain: the chain of the redirected request.
            url: the redirected URL.
            target: the URL to which the redirect leads.
            headers: the header fields of the response, with lowercase names.

        Raises:
            ValueError: if ``target`` is not an https, http or file URL.
        """
        was_downgraded = chain.redirect is not None and chain.redirect.is_downgrade
        is_downgrade = split_url(url).scheme == "https" and split_url(target).scheme != "https"
        kept = {name: headers[name] for name in KEPT if name in headers}
        return cls(
            chain=chain,
            hops=(*chain.hops, kept),
            source=text_key(_bare(url)),
            target=text_key(_bare(target)),
            is_downgrade=was_downgraded or is_downgrade,
        )


def chain_of(url: str, headers: Iterable[str], carried: object, now: float) -> RedirectChain | None:
    """Return the chain that a request belongs to, or ``None`` if the request is not for a wheel.

    A request that does not follow the redirect that it carries begins a new chain.

    Args:
        url: the URL of the request.
        headers: the names of the header fields of the request.
        carried: the :class:`Redirect` that the request carries. Any other object is ignored.
        now: seconds since the epoch.
    """
    with_credentials = any(map(is_credential, headers))
    try:
        while isinstance(carried, Redirect):
            key = text_key(_bare(url))
            if key == carried.target:
                return _continue(carried, url, with_credentials) or _begin(url, now, with_credentials)
            # The redirected request may be sent again, for example with credentials.
            carried = carried.chain.redirect if key == carried.source else None
        return _begin(url, now, with_credentials)
    except (WheelCacheError, ValueError):
        return None  # the URL does not end in a wheel file name, or has another scheme


def _begin(url: str, now: float, with_credentials: bool) -> RedirectChain:
    request = parse_request(url, None, None, None)._replace(auth=None)
    return RedirectChain(request, now, request.url, with_credentials)


def _continue(redirect: Redirect, url: str, with_credentials: bool) -> RedirectChain | None:
    """Return the chain of a redirected request, or ``None`` if its response must not be stored for the first URL."""
    before = redirect.chain
    request = before.request
    if len(redirect.hops) > _MAX_REDIRECTS:
        return None
    if not request.is_pinned:
        if _names_another_wheel(url, request.filename):
            return None
        request = request._replace(hashes=request.hashes or _hashes_in(url, request.filename))
    if redirect.is_downgrade and not request.is_pinned:
        # Anybody on the network can forge a response over http. The cache would later serve it for the https URL.
        return None
    with_credentials = with_credentials or before.with_credentials
    return RedirectChain(request, before.requested_at, _bare(url), with_credentials, redirect)


def _names_another_wheel(url: str, filename: str) -> bool:
    try:
        own = parse_request(url, None, None, None)
    except (WheelCacheError, ValueError):
        return False
    return not is_same_wheel(own.filename, filename)


def _hashes_in(url: str, filename: str) -> Mapping[str, str]:
    try:
        return parse_request(url, None, None, filename).hashes
    except ValueError:
        return {}  # the server sent an invalid hash


def _bare(url: str) -> str:
    """Return a URL without its credentials and fragment."""
    parts = split_url(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
