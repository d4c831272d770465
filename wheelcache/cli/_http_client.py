"""An HTTP client that downloads as pip would: its certificates, proxy and time-out, its indexes' credentials, netrc."""

from __future__ import annotations

import base64
import math
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from wheelcache import __version__

from ._errors import CommandError
from ._redact import redact
from .resolve.credentials import Credentials

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0


class Line:
    """The way to the network, which can be cut: a thread that waits for a server that stalls is free at once."""

    def __init__(self, client: httpx.Client, credentials: Credentials) -> None:
        self.client = client
        self._credentials = credentials
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        client.event_hooks = {"request": [self._prepare]}

    def cut(self) -> None:
        """Break every connection. What was waiting for one fails."""
        with self._lock:
            for connection in self._sockets:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it is closed already

    def _prepare(self, request: httpx.Request) -> None:
        """Give a request its credentials. Redirects pass here, too: each server gets those that are meant for it."""
        if "Authorization" not in request.headers:
            login = self._credentials.choose(str(request.url))
            if login is not None:
                token = base64.b64encode(":".join(login).encode()).decode("ascii")
                request.headers["Authorization"] = f"Basic {token}"
        request.extensions["trace"] = self._trace

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember connections as they are made: https://www.encode.io/httpcore/extensions/#trace."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            connection = info["return_value"].get_extra_info("socket")
            if connection is not None:
                with self._lock:
                    self._sockets = [one for one in self._sockets if one.fileno() != -1]
                    self._sockets.append(connection)


@contextmanager
def line(settings: Mapping[str, str], credentials: Credentials) -> Iterator[Line]:
    """Make a client by pip's settings, and close it.

    Args:
        settings: pip's, by their long names: ``cert``, ``client-cert``, ``proxy``, ``timeout``, ``trusted-host``.
        credentials: for servers that want them.

    Raises:
        CommandError: where a setting cannot be followed.
    """
    try:
        client = _client(settings)
    except (OSError, ValueError, ImportError) as error:
        # OSError and ssl.SSLError name no file, and the others may quote a proxy's URL.
        named = ", ".join(f"{name} = {settings[name]}" for name in ("cert", "client-cert", "proxy") if name in settings)
        raise CommandError(redact(f"cannot apply pip's settings ({named or 'proxies'}): {error}")) from error
    with client:
        yield Line(client, credentials)


def _client(settings: Mapping[str, str]) -> httpx.Client:
    proxy = _with_scheme(settings["proxy"]) if settings.get("proxy") else None
    hosts = settings.get("trusted-host", "").split()
    return httpx.Client(
        verify=_tls(settings),
        proxy=proxy,
        # A proxy that was set to nothing means that those of the environment do not count.
        trust_env="proxy" not in settings,
        mounts={f"https://{host}": _unverified(host, proxy) for host in hosts},
        timeout=httpx.Timeout(_read_seconds(settings), connect=_CONNECT_SECONDS, pool=None),
        headers={"User-Agent": f"wheelcache/{__version__}"},
    )


def _tls(settings: Mapping[str, str]) -> ssl.SSLContext:
    """Trust whom pip trusts: who it is told to, else the system and certifi."""
    named = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if named and os.path.isdir(named):
        context = ssl.create_default_context(capath=named)
    elif named:
        context = ssl.create_default_context(cafile=named)
    else:
        context = ssl.create_default_context()
        try:
            import certifi
        except ImportError:
            pass  # httpx brings it along, so far
        else:
            context.load_verify_locations(certifi.where())
    if settings.get("client-cert"):
        context.load_cert_chain(settings["client-cert"])
    return context


def _unverified(host: str, proxy: str | None) -> httpx.HTTPTransport:
    """The way to a host whose certificate pip is told not to check."""
    if proxy is None and not proxy_bypass(host):
        proxies = getproxies()
        found = proxies.get("https") or proxies.get("all")
        proxy = _with_scheme(found) if found else None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return httpx.HTTPTransport(verify=context, proxy=proxy)


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _read_seconds(settings: Mapping[str, str]) -> float:
    """The time-out of pip where it is longer than ours: who raised it has a slow server."""
    try:
        seconds = float(settings.get("timeout") or settings.get("default-timeout") or 0)
    except ValueError:
        return _READ_SECONDS
    return max(_READ_SECONDS, seconds) if math.isfinite(seconds) else _READ_SECONDS
