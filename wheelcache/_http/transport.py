"""Our own HTTP client: httpx over a transport whose connections can be interrupted (:mod:`.network`).

The client uses the same environment variables as httpx: https://www.python-httpx.org/environment_variables/. httpx
reads the proxies only for its own transports, so this module reads them.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.request import getproxies

from .. import __version__
from .errors import FailedRequestError, explain, system_error
from .library import httpcore, httpx
from .network import InterruptibleBackend

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0
# httpx's defaults. The number of connections is not limited: callers limit their jobs, and a wait for the pool could
# not be interrupted.
_KEPT_CONNECTIONS, _KEPT_SECONDS = 20, 5.0

# httpx's errors do not name these variables, and may quote the value of a proxy, with its password.
_PATH_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def create_client() -> httpx.Client:
    """Create a client from the environment.

    Raises:
        FailedRequestError: if the settings of the environment are not valid.
    """
    try:
        context = httpx.create_ssl_context()
        mounts = {
            pattern: None if proxy is None else PoolTransport(context, httpx.Proxy(proxy))
            for pattern, proxy in environment_proxies().items()
        }
        return httpx.Client(
            transport=PoolTransport(context),
            mounts=mounts,
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            headers={"User-Agent": f"wheelcache/{__version__}"},
        )
    except (OSError, ValueError, httpx.InvalidURL) as error:
        paths = [f"{name}={os.environ[name]}" for name in _PATH_VARIABLES if os.environ.get(name)]
        proxies = [name for name in _PROXY_VARIABLES if os.environ.get(name) or os.environ.get(name.lower())]
        variables = ", ".join(paths + proxies) or "the system's proxies"
        raise FailedRequestError(
            f"cannot create an HTTP client from the environment ({variables}): {explain(error)}",
            is_transient=False,
            hint="Check these variables or, in Python, pass a client of your own: client=httpx.Client(...).",
        ) from system_error(error)


def environment_proxies() -> dict[str, str | None]:
    """Return the proxies of the environment, else those of the system, as mounts: the proxy's URL for each pattern.

    ``None`` stands for no proxy: https://www.python-httpx.org/advanced/proxies/#routing
    """
    settings = getproxies()
    mounts: dict[str, str | None] = {}
    # getproxies() also returns other variables with names like these, such as "foo_proxy".
    for scheme in ("http", "https", "all"):
        if proxy := settings.get(scheme):
            mounts[f"{scheme}://"] = proxy if "://" in proxy else f"http://{proxy}"
    exceptions = [host.strip() for host in settings.get("no", "").split(",")]
    if "*" in exceptions:
        return {}
    return mounts | dict.fromkeys(map(_pattern, filter(None, exceptions)))


def _pattern(host: str) -> str:
    """Return the pattern of an entry of NO_PROXY. A domain includes its subdomains."""
    if "://" in host:
        return host
    if host.lower() == "localhost":
        return f"all://{host}"
    try:
        address = ipaddress.ip_address(host.partition("/")[0])
    except ValueError:
        return f"all://*{host}"
    return f"all://[{host}]" if isinstance(address, ipaddress.IPv6Address) else f"all://{host}"


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
