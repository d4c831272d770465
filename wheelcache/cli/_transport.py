"""Create the transports of the command line's HTTP client, with the certificates and proxies of the library.

The first request that needs a proxy reads its setting. An invalid setting therefore fails no other request.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import sys
from urllib.request import getproxies, proxy_bypass

import httpx

from ._errors import CommandError
from ._redact import redact


def create_default_context() -> ssl.SSLContext:
    """Return TLS settings that trust the authorities of the system and of certifi.

    ``SSL_CERT_FILE``, or else ``SSL_CERT_DIR``, replaces these authorities.
    """
    cafile, capath = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if cafile or capath:
        return ssl.create_default_context(cafile=cafile or None, capath=None if cafile else capath)
    context = _create_system_context()
    try:
        import certifi
    except ImportError:
        return context  # httpx depends on certifi today, but wheelcache does not
    context.load_verify_locations(certifi.where())
    return context


def _create_system_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Certificates of private authorities often violate details of RFC 5280. pip accepts them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # truststore reads all authorities again for each connection, unless the system is Windows or macOS.
    if sys.platform not in {"win32", "darwin"} and context.cert_store_stats()["x509_ca"]:
        return context
    try:
        import truststore
    except (ImportError, OSError, AttributeError):
        return context  # Python has no ctypes, or the system lacks a function that truststore calls
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class EnvironmentTransport(httpx.AsyncBaseTransport):
    """Sends each request directly, or through the proxy that the environment names for its URL.

    Args:
        context: the TLS settings.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._proxies = getproxies()
        self._transports: dict[str | None, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            CommandError: if the request needs a proxy that cannot be used.
        """
        proxy = self._choose_proxy(request.url)
        if proxy not in self._transports:
            self._transports[proxy] = httpx.AsyncHTTPTransport(
                verify=self._context, proxy=None if proxy is None else create_proxy(proxy, self._context)
            )
        return await self._transports[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        for transport in self._transports.values():
            await transport.aclose()

    def _choose_proxy(self, url: httpx.URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        return None if proxy is None or self._is_excepted(url) else proxy

    def _is_excepted(self, url: httpx.URL) -> bool:
        """Return whether NO_PROXY covers a URL. urllib supports neither networks nor addresses in brackets."""
        entries = self._proxies.get("no", "").replace(",", " ").split()
        if "*" in entries or any(_is_in_network(url.host, entry) for entry in entries):
            return True
        port = url.port or {"http": 80}.get(url.scheme, 443)
        return bool(proxy_bypass(f"{url.raw_host.decode('ascii')}:{port}"))


def create_proxy(value: str, context: ssl.SSLContext) -> httpx.Proxy:
    """Return a proxy of httpx. A value without a scheme names an HTTP proxy.

    Raises:
        CommandError: if the proxy cannot be used.
    """
    value = value.strip()
    url = value if "://" in value else f"http://{value}"
    try:
        proxy = httpx.Proxy(url, ssl_context=context if url.lower().startswith("https:") else None)
        tail = proxy.url.path + proxy.url.query.decode("ascii", "replace") + proxy.url.fragment
        if proxy.url.scheme.startswith("socks"):
            import socksio  # type: ignore[import-not-found, unused-ignore]  # noqa: F401  - httpx needs it
    except (ValueError, httpx.InvalidURL):
        reason = "its URL is malformed or has an unknown scheme. Escape special characters, such as # by %23"
    except ImportError:
        reason = "the package socksio is not installed: pip install httpx[socks]"
    else:
        if "@" not in tail and proxy.url.host:
            return proxy
        reason = "its URL is malformed. Escape special characters in its password, such as # by %23"
        url = url.partition("://")[0] + "://***"
    raise CommandError(f"the proxy {redact(url)} cannot be used: {reason}")


def _is_in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False
