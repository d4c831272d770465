"""Create an HTTP client with pip's settings for certificates, proxies, timeout, index credentials and netrc."""

from __future__ import annotations

import base64
import math
import os
import ssl
from collections.abc import Mapping

import httpx

from wheelcache import __version__

from ._errors import CommandError
from ._redact import redact
from ._transport import EnvironmentTransport, create_default_context, create_proxy
from .resolve.credentials import Credentials

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0


def create_http_client(settings: Mapping[str, str], credentials: Credentials) -> httpx.AsyncClient:
    """Create a client from pip's settings.

    Args:
        settings: pip's settings by their long names: ``cert``, ``client-cert``, ``proxy``, ``timeout``,
            ``trusted-host``.
        credentials: user names and passwords by server.

    Raises:
        CommandError: if a setting cannot be applied.
    """

    async def authorize(request: httpx.Request) -> None:
        # This hook is also called for each redirect. Every server therefore receives only its own credentials.
        if "Authorization" not in request.headers:
            login = credentials.choose(str(request.url))
            if login is not None:
                token = base64.b64encode(":".join(login).encode()).decode("ascii")
                request.headers["Authorization"] = f"Basic {token}"

    try:
        client = _create_client(settings)
    except (OSError, ValueError, httpx.InvalidURL) as error:
        # OSError and ssl.SSLError do not name the file.
        named = ", ".join(f"{name} = {settings[name]}" for name in ("cert", "client-cert", "proxy") if name in settings)
        raise CommandError(redact(f"cannot apply pip's settings ({named or 'proxies'}): {error}")) from error
    client.event_hooks = {"request": [authorize]}
    return client


def _create_client(settings: Mapping[str, str]) -> httpx.AsyncClient:
    context = _tls_context(settings)
    unverified = _unverified_context()
    hosts = settings.get("trusted-host", "").split()
    return httpx.AsyncClient(
        transport=_create_transport(settings, context),
        mounts={f"https://{host}": _create_transport(settings, unverified) for host in hosts},
        timeout=httpx.Timeout(_read_seconds(settings), connect=_CONNECT_SECONDS, pool=None),
        headers={"User-Agent": f"wheelcache/{__version__}"},
    )


def _tls_context(settings: Mapping[str, str]) -> ssl.SSLContext:
    """Return TLS settings that trust the same certificates as pip: the configured ones, or else the default ones."""
    named = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if named and os.path.isdir(named):
        context = ssl.create_default_context(capath=named)
    elif named:
        context = ssl.create_default_context(cafile=named)
    else:
        context = create_default_context()
    if settings.get("client-cert"):
        context.load_cert_chain(settings["client-cert"])
    return context


def _create_transport(settings: Mapping[str, str], context: ssl.SSLContext) -> httpx.AsyncBaseTransport:
    """Return a transport with pip's proxy, or else those of the environment. An empty setting disables proxies."""
    if "proxy" not in settings:
        return EnvironmentTransport(context)
    proxy = create_proxy(settings["proxy"], context) if settings["proxy"] else None
    return httpx.AsyncHTTPTransport(verify=context, proxy=proxy)


def _unverified_context() -> ssl.SSLContext:
    """Return the TLS settings for trusted hosts. Their certificates are not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _read_seconds(settings: Mapping[str, str]) -> float:
    """Return the longer of pip's timeout and our own, in seconds. Users raise pip's timeout for slow servers."""
    try:
        seconds = float(settings.get("timeout") or settings.get("default-timeout") or 0)
    except ValueError:
        return _READ_SECONDS
    return max(_READ_SECONDS, seconds) if math.isfinite(seconds) else _READ_SECONDS
