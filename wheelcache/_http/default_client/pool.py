"""A transport of httpx or httpx2 over a pool of connections that can be interrupted (:mod:`.network`)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from ..adapters.library import Library
from ..response import READ_BODY
from .detached_body import BodyReader, restore_headers
from .network import InterruptibleBackend

# These are httpx's defaults. The number of connections is not limited, because a wait for the pool could not be
# interrupted. Callers limit their jobs.
_KEPT_CONNECTIONS, _KEPT_SECONDS = 20, 5.0


class PoolTransport:
    """Sends requests over a pool of connections that can be interrupted.

    Args:
        library: the library of the client.
        context: the TLS settings, with the trusted authorities, or ``None`` if no request uses TLS.
        proxy: the proxy for all requests, or ``None``.
    """

    def __init__(self, library: Library, context: ssl.SSLContext | None, proxy: Any = None) -> None:
        self._library = library
        self._pool = _create_pool(library.httpcore, context, proxy)

    def handle_request(self, request: Any) -> Any:
        """Send a request."""
        sent = self._library.httpcore.Request(
            method=request.method,
            url=_core_url(self._library.httpcore, request.url),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _translated_errors(self._library):
            response = self._pool.handle_request(sent)
            _check_expected(response)
        body = _body_class(self._library)(sent, response)
        return self._library.httpx.Response(
            status_code=response.status,
            headers=restore_headers(response),
            stream=body,
            extensions=response.extensions | {READ_BODY: body.read},
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def _check_expected(response: Any) -> None:
    """Check that a response was received after its request was sent.

    The parser keeps bytes that follow the end of a chunked body, and parses them as the response to the next request.

    Raises:
        httpcore.RemoteProtocolError: if the response was received earlier. The connection is then closed.
    """
    stream = response.extensions["network_stream"]
    if stream.expects_head:
        response.close()
        raise stream.httpcore.RemoteProtocolError("the server sent a response without a request")


@cache
def _body_class(library: Library) -> Any:
    class Body(library.httpx.SyncByteStream):  # type: ignore[misc, name-defined]  # the client requires this base class
        def __init__(self, request: Any, response: Any) -> None:
            self._response = response
            self._reader = BodyReader(request, response)

        def read(self) -> bytes | memoryview | None:
            with _translated_errors(library):
                return self._reader.read()

        def __iter__(self) -> Iterator[bytes]:
            while (chunk := self.read()) is not None:
                yield bytes(chunk)

        def close(self) -> None:
            self._response.close()

    return Body


def _create_pool(httpcore: Any, context: ssl.SSLContext | None, proxy: Any) -> Any:
    options: dict[str, Any] = {
        "ssl_context": context,
        "max_connections": None,
        "max_keepalive_connections": _KEPT_CONNECTIONS,
        "keepalive_expiry": _KEPT_SECONDS,
        "network_backend": InterruptibleBackend(httpcore),
    }
    if proxy is None:
        return httpcore.ConnectionPool(**options)
    options |= {"proxy_url": _core_url(httpcore, proxy.url), "proxy_auth": proxy.raw_auth}
    if proxy.url.scheme in {"http", "https"}:
        return httpcore.HTTPProxy(proxy_headers=proxy.headers.raw, proxy_ssl_context=proxy.ssl_context, **options)
    return httpcore.SOCKSProxy(**options)


def _core_url(httpcore: Any, url: Any) -> Any:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


# The error classes of httpcore and httpx have the same names.
_TRANSLATED = (
    *("ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout", "TimeoutException"),
    *("ConnectError", "ReadError", "WriteError", "NetworkError", "ProxyError", "UnsupportedProtocol"),
    *("LocalProtocolError", "RemoteProtocolError", "ProtocolError"),
)


@contextmanager
def _translated_errors(library: Library) -> Iterator[None]:
    """Translate the errors of httpcore into those of httpx."""
    try:
        yield
    except Exception as error:
        for name in _TRANSLATED:
            if isinstance(error, getattr(library.httpcore, name)):
                raise getattr(library.httpx, name)(str(error)) from error
        raise
