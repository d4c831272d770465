"""Send each request of our own client directly or through a proxy.

The first request that needs a proxy or certificates reads their settings. An invalid setting therefore fails no other
request. A client that never uses TLS does not read any certificates.
"""

from __future__ import annotations

import ssl
import threading
from importlib.util import find_spec
from typing import Any

from ..adapters.library import Library
from .pool import PoolTransport
from .proxies import Proxy, ProxySettings
from .trust import create_tls_context


class RoutingTransport:
    """A transport of httpx or httpx2 with the proxies of the environment.

    Args:
        library: the library of the client.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._settings = ProxySettings()
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        # There is one pool for each proxy, and one for direct requests. The pools for plain HTTP have no TLS settings.
        self._pools: dict[tuple[Proxy | None, bool], PoolTransport] = {}

    def handle_request(self, request: Any) -> Any:
        """Send a request.

        Raises:
            FailedRequestError: if the request needs a proxy or certificates that cannot be used.
        """
        return self._pool_for(request.url).handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()

    def _pool_for(self, url: Any) -> PoolTransport:
        proxy = self._settings.choose(url.scheme, (url.host, url.raw_host.decode("ascii")), url.port)
        with self._lock:
            needs_tls = "https" in {url.scheme, proxy and proxy.scheme}
            pool = self._pools.get((proxy, needs_tls))
            if pool is None:
                context = self._require_context() if needs_tls else None
                pool = PoolTransport(self._library, context, proxy and self._to_native(proxy, context))
                self._pools[proxy, needs_tls] = pool
            return pool

    def _require_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = create_tls_context()
        return self._context

    def _to_native(self, proxy: Proxy, context: ssl.SSLContext | None) -> Any:
        """Return the proxy as an object of the library."""
        proxy.check()
        if proxy.is_socks:
            _require_socks(proxy, self._library.name)
        httpx = self._library.httpx
        try:
            # The library allows TLS settings only for a proxy with an https URL.
            return httpx.Proxy(proxy.url, ssl_context=context if proxy.scheme == "https" else None)
        except (ValueError, httpx.InvalidURL):
            raise proxy.malformed() from None


def _require_socks(proxy: Proxy, library: str) -> None:
    """Raise an error if the package for SOCKS is not installed. Unlike the pool's own error, it contains advice."""
    if find_spec("socksio") is None:
        raise proxy.unusable(
            "it is a SOCKS proxy, but the package socksio is not installed",
            f"Install it: pip install {library}[socks].",
        )
