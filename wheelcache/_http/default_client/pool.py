"""An httpx transport over a pool of connections that can be interrupted (:mod:`.network`)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from ..adapters.library import httpcore, httpx
from ..errors import FailedRequestError
from .network import InterruptibleBackend

# httpx's defaults. The number of connections is not limited: callers limit their jobs, and a wait for the pool could
# not be interrupted.
_KEPT_CONNECTIONS, _KEPT_SECONDS = 20, 5.0


class PoolTransport(httpx.BaseTransport):
    """Sends requests over a pool of connections that can be interrupted.

    Args:
        context: the TLS settings, with the trusted authorities.
        proxy: the proxy for all requests, if any.
    """

    def __init__(self, context: ssl.SSLContext, proxy: httpx.Proxy | None = None) -> None:
        self._pool = _create_pool(context, proxy)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        assert isinstance(request.stream, httpx.SyncByteStream)
        sent = httpcore.Request(
            method=request.method,
            url=_core_url(request.url),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _translated_errors():
            response = self._pool.handle_request(sent)
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _translated_errors():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


def _create_pool(context: ssl.SSLContext, proxy: httpx.Proxy | None) -> httpcore.ConnectionPool:
    options: dict[str, Any] = {
        "ssl_context": context,
        "max_connections": None,
        "max_keepalive_connections": _KEPT_CONNECTIONS,
        "keepalive_expiry": _KEPT_SECONDS,
        "network_backend": InterruptibleBackend(),
    }
    if proxy is None:
        return httpcore.ConnectionPool(**options)
    options |= {"proxy_url": _core_url(proxy.url), "proxy_auth": proxy.raw_auth}
    if proxy.url.scheme in {"http", "https"}:
        return httpcore.HTTPProxy(proxy_headers=proxy.headers.raw, proxy_ssl_context=proxy.ssl_context, **options)
    if find_spec("socksio") is None:
        raise FailedRequestError(
            "the environment names a SOCKS proxy, but the package socksio is not installed",
            is_transient=False,
            hint="Install it: pip install httpx[socks].",
        )
    return httpcore.SOCKSProxy(**options)


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


# The classes of the two libraries have the same names.
_TRANSLATED = {
    getattr(httpcore, name): getattr(httpx, name)
    for name in (
        *("TimeoutException", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout"),
        *("NetworkError", "ConnectError", "ReadError", "WriteError", "ProxyError", "UnsupportedProtocol"),
        *("ProtocolError", "LocalProtocolError", "RemoteProtocolError"),
    )
}


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Translate the errors of httpcore into those of httpx."""
    try:
        yield
    except Exception as error:
        for kind in type(error).__mro__:
            if kind in _TRANSLATED:
                raise _TRANSLATED[kind](str(error)) from error
        raise
