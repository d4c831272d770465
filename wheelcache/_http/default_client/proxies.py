"""Read the proxies from the environment, or else from the settings of the system.

The variables are those of httpx and curl: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in uppercase
or lowercase. An unreadable entry of ``NO_PROXY`` is ignored, as in httpx2, curl and Go. A proxy that cannot be used is
an error only for the requests that need it.

https://www.python-httpx.org/environment_variables/#proxies, https://curl.se/libcurl/c/CURLOPT_NOPROXY.html
"""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

from ..._request import redact
from ..errors import FailedRequestError

_SOCKS_SCHEMES = {"socks5", "socks5h"}
_SCHEMES = {"http", "https"} | _SOCKS_SCHEMES
_DEFAULT_PORTS = {"http": 80, "https": 443}

# A host with an optional port. The host is a name, an IPv4 address, or an IPv6 address in brackets.
_HOST_AND_PORT = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^\[\]:/@]+))(?::(?P<port>\d{1,5}))?")
_BRACKETED_NETWORK = re.compile(r"\[([^\[\]]+)\](/\d+)")


class Proxy(NamedTuple):
    """A proxy that the environment or the system names.

    Attributes:
        source: the variable that names the proxy, or "the settings of the system". Errors quote it.
        url: the URL of the proxy. It may contain a password.
    """

    source: str
    url: str

    def __repr__(self) -> str:
        return f"Proxy({self.source!r}, {self.display_url!r})"

    @property
    def display_url(self) -> str:
        """The URL without credentials. For a malformed URL, this contains at most the scheme."""
        if self._is_malformed():
            return f"{self.scheme}://***" if self.scheme in _SCHEMES else "***"
        return redact(self.url)

    @property
    def scheme(self) -> str:
        """The scheme of the URL, in lowercase."""
        return self.url.partition("://")[0].lower()

    @property
    def is_socks(self) -> bool:
        """Whether this is a SOCKS proxy."""
        return self.scheme in _SOCKS_SCHEMES

    def check(self) -> None:
        """Check that the proxy can be used.

        Raises:
            FailedRequestError: if the URL is malformed or has an unknown scheme.
        """
        if self._is_malformed():
            raise self.malformed()
        if self.scheme not in _SCHEMES:
            raise self.unusable(
                f"the scheme {self.scheme}:// is not supported", "Use http://, https://, socks5:// or socks5h://."
            )

    def _is_malformed(self) -> bool:
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError:
            return True
        # An unescaped character in a password may end the host. The rest of the password and the real host follow it.
        is_cut = "@" in parts.path + parts.query + parts.fragment
        has_space = any(map(str.isspace, self.url))
        return is_cut or has_space or not parts.hostname or self.scheme != parts.scheme

    def malformed(self) -> FailedRequestError:
        """Return the error for a URL that cannot be parsed."""
        return self.unusable(
            "its URL is malformed",
            "Escape special characters in its user name and password: %23 for #, %2F for /, %3F for ?, %40 for @.",
        )

    def unusable(self, reason: str, hint: str) -> FailedRequestError:
        """Return the error for a request that needs this proxy."""
        return FailedRequestError(
            f"the proxy in {self.source} ({self.display_url}) cannot be used: {reason}",
            is_transient=False,
            hint=f"{hint} If this host needs no proxy, add it to NO_PROXY.",
        )


class ProxySettings:
    """The proxies at the time of creation, and the hosts that are requested directly."""

    def __init__(self) -> None:
        settings = getproxies()
        # getproxies() also returns other variables with similar names, such as "foo_proxy".
        self._proxies = {
            scheme: Proxy(_source(scheme, value), value if "://" in value else f"http://{value}")
            for scheme in ("http", "https", "all")
            if (value := settings.get(scheme, "").strip())
        }
        entries = re.split(r"[\s,]+", settings.get("no", ""))
        self._exceptions = [entry for entry in map(_parse_exception, entries) if entry is not None]

    def choose(self, scheme: str, hosts: Collection[str], port: int | None) -> Proxy | None:
        """Return the proxy for a URL, or ``None`` if the URL is requested directly.

        Args:
            scheme: the scheme of the URL.
            hosts: the spellings of the host of the URL, such as an international name and its ASCII form.
            port: the port of the URL, or ``None`` for the default port of the scheme.
        """
        port = port or _DEFAULT_PORTS.get(scheme)
        names = {host.lower().strip("[]").removesuffix(".") for host in hosts}
        if any(exception.matches(scheme, names, port) for exception in self._exceptions):
            return None
        return self._proxies.get(scheme) or self._proxies.get("all")


def _source(scheme: str, value: str) -> str:
    """Return the name of the proxy variable that has this value."""
    found = [name for name in os.environ if name.lower().split("_") == [scheme, "proxy"] and os.environ[name] == value]
    # The lowercase variable has precedence.
    return max(found, default="the settings of the system")


class _Exception(NamedTuple):
    """An entry of NO_PROXY. An attribute that is ``None`` matches everything."""

    scheme: str | None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    name: re.Pattern[str] | None
    port: int | None

    def matches(self, scheme: str, hosts: Collection[str], port: int | None) -> bool:
        if self.scheme not in {None, scheme} or self.port not in {None, port}:
            return False
        if self.name is not None:
            return any(map(self.name.fullmatch, hosts))
        return self.network is None or any(_is_in(self.network, host) for host in hosts)


def _is_in(network: ipaddress.IPv4Network | ipaddress.IPv6Network, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False  # the host is a name


def _parse_exception(entry: str) -> _Exception | None:
    """Parse an entry of NO_PROXY. Return ``None`` if the entry is empty or unreadable."""
    scheme, found, rest = entry.lower().rpartition("://")
    only = scheme if scheme not in {"", "all"} else None
    if found:
        rest = rest.removesuffix("/")
    network = _parse_network(_BRACKETED_NETWORK.sub(r"\1\2", rest))
    if network is not None:
        return _Exception(only, network, None, None)
    parts = _HOST_AND_PORT.fullmatch(rest)
    if parts is None:
        return None
    port = int(parts["port"]) if parts["port"] else None
    network = _parse_network(parts["address"] or parts["name"])
    if network is not None:
        return _Exception(only, network, None, port)
    return None if parts["address"] else _parse_name(only, parts["name"], port)


def _parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _parse_name(scheme: str | None, name: str, port: int | None) -> _Exception | None:
    """Parse a domain. The result matches its subdomains, and the domain itself unless it begins with a dot."""
    if name == "*":
        return _Exception(scheme, None, None, port)
    name = name.removesuffix(".")
    domain = (name[1:] if name.startswith("*.") else name).removeprefix(".")
    if domain in {"", "*"}:
        return None
    if "*" in domain:
        pattern = fnmatch.translate(name)
    else:
        pattern = (r"(?:.+\.)?" if domain == name else r".+\.") + re.escape(domain)
    return _Exception(scheme, None, re.compile(pattern), port)
