"""Send a request, follow its redirects, and choose the credentials of each.

This module and not the client follows redirects: at most 20, never from https to http, and with credentials for their
own origin only. URLs in errors are redacted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from netrc import NetrcParseError
from typing import TYPE_CHECKING

from .._operation import Operation
from .._request import Source, redact
from .adapters.library import httpx
from .errors import FailedRequestError, system_error, to_failure
from .interrupt import ReadInterrupter, running

if TYPE_CHECKING:
    from .client import Client


_MAX_REDIRECTS = 20
# A pool may have fewer connections than there are jobs, so a request waits up to an hour for one. Each wait is short,
# since cancelling the operation does not end it.
_POOL_WAITS, _POOL_SECONDS = 3600, 1.0


class RequestSender:
    """Sends requests with one client.

    Args:
        client: the HTTP client.
        interrupter: interrupts the reads of a caller's client; ``None`` for our own client, whose
            connections check for cancellation themselves.
    """

    def __init__(self, client: Client, interrupter: ReadInterrupter | None) -> None:
        self._client = client
        self._interrupter = interrupter
        self._is_own = interrupter is None

    @contextmanager
    def get(self, op: Operation, source: Source, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Send a GET request, follow its redirects, and keep the last response open within the block.

        Raises:
            FailedRequestError: if there is no response, or its redirects cannot be followed.
            OperationCancelledError: if the operation is cancelled.
        """
        locations = [source.display_url]
        try:
            with self._follow(op, source, headers, locations) as response:
                yield response
        except FailedRequestError as failure:
            failure.at = locations[-1]
            raise

    @contextmanager
    def _follow(
        self, op: Operation, source: Source, headers: Mapping[str, str], locations: list[str]
    ) -> Iterator[httpx.Response]:
        request = self._build(source, headers)
        auth = self._auth(source)
        visited = {_identity(request)}
        hops: list[httpx.Response] = []
        while True:
            response = self._send(op, request, auth)
            response.history = hops
            try:
                next_request = response.next_request
                if next_request is None:
                    with self._reading(op, response):
                        yield response
                    return
            finally:
                response.close()
            hops.append(response)
            _check_redirect(response, next_request, visited)
            visited.add(_identity(next_request))
            locations.append(redact(str(next_request.url)))
            if _origin(next_request.url) != _origin(request.url):
                # The credentials belong to the first origin. httpx keeps the header when http redirects to https.
                next_request.headers.pop("Authorization", None)
                auth = _default_auth(use_netrc=self._is_own)
            request = next_request

    def _build(self, source: Source, headers: Mapping[str, str]) -> httpx.Request:
        try:
            # A wheel is compressed already, and its hash is that of the decoded bytes.
            fields = {"Accept-Encoding": "identity", **headers}
            request = self._client.build_request("GET", source.url, headers=fields)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise to_failure(error) from system_error(error)
        # The client's pool timeout is too short here: downloads keep their connections for a long time.
        request.extensions["timeout"] = {**request.extensions.get("timeout", {}), "pool": _POOL_SECONDS}
        return request

    def _send(self, op: Operation, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
        """Send one request as soon as the client's pool has a connection for it."""
        waits = 0
        while True:
            op.check()
            try:
                with running(op), self._waiting(op, request):
                    return self._send_once(request, auth)
            except httpx.PoolTimeout as error:
                waits += 1
                if waits == _POOL_WAITS:
                    raise to_failure(error) from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if isinstance(error, httpx.HTTPStatusError) and not error.response.is_success:
                    return _response_of(error, request)
                op.check()
                # The operating system's error is kept as the cause; httpx's is not, since its text may quote a URL.
                raise to_failure(error) from system_error(error)

    def _send_once(self, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
        if auth is None:
            return self._client.send(request, stream=True, follow_redirects=False)
        return self._client.send(request, stream=True, follow_redirects=False, auth=auth)

    @contextmanager
    def _waiting(self, op: Operation, request: httpx.Request) -> Iterator[None]:
        if self._interrupter is None:
            yield
        else:
            with self._interrupter.waiting(op, request):
                yield

    @contextmanager
    def _reading(self, op: Operation, response: httpx.Response) -> Iterator[None]:
        if self._interrupter is None:
            yield
        else:
            with self._interrupter.reading(op, response):
                yield

    def _auth(self, source: Source) -> httpx.Auth | None:
        """Return the credentials: the client's own (``None``), else those in the URL, else those of the netrc file.

        Credentials are removed from the URL, since httpx logs the URLs of requests.
        """
        if self._client.auth is None and source.auth is not None:
            return httpx.BasicAuth(*source.auth)
        return _default_auth(use_netrc=True) if self._is_own else None


def _check_redirect(
    response: httpx.Response, next_request: httpx.Request, visited: set[tuple[str, str | None]]
) -> None:
    """Remove credentials from the location of a redirect, and check that it may be followed.

    Raises:
        FailedRequestError: if it must not be followed.
    """
    target, status = redact(str(next_request.url)), response.status_code
    if next_request.url.userinfo:
        # A server must not choose the credentials, and httpx logs the URLs of requests.
        next_request.url = next_request.url.copy_with(userinfo=b"")
    if response.request.url.scheme == "https" and next_request.url.scheme != "https":
        raise FailedRequestError(f"redirected from https to {target}", is_transient=False, status=status)
    if _identity(next_request) in visited:
        raise FailedRequestError(f"redirect loop, last to {target}", is_transient=False, status=status)
    if len(visited) > _MAX_REDIRECTS:
        problem = f"redirected more than {_MAX_REDIRECTS} times, last to {target}"
        raise FailedRequestError(problem, is_transient=False, status=status)


def _response_of(error: httpx.HTTPStatusError, request: httpx.Request) -> httpx.Response:
    """Return the response that an event hook of the caller's client rejected, without its body.

    httpx documents such a hook: https://www.python-httpx.org/advanced/event-hooks/. The status decides as usual: a 503
    is transient, and a mirror may have the file if the status is 404.
    """
    rejected = error.response
    headers = [(name, text) for name, text in rejected.headers.raw if name.lower() != b"content-encoding"]
    # The other extensions name a connection that may already serve another request.
    extensions = {"reason_phrase": rejected.reason_phrase.encode("ascii")}
    return httpx.Response(rejected.status_code, headers=headers, request=request, extensions=extensions)


def _default_auth(*, use_netrc: bool) -> httpx.Auth:
    """Return no credentials or, with ``use_netrc``, those in the user's netrc file for the host of each request."""
    if use_netrc:
        path = os.environ.get("NETRC")
        # pip reads the same files. They are named here because Python refuses its default if others can read it.
        for candidate in [path] if path else ["~/.netrc", "~/_netrc"]:
            try:
                return httpx.NetRCAuth(os.path.expanduser(candidate))
            except (OSError, ValueError, NetrcParseError):
                continue  # most users have no such file, and a bad one must not fail the request
    return httpx.Auth()


def _identity(request: httpx.Request) -> tuple[str, str | None]:
    """Return the parts of a request that decide its response. The same URL with another cookie is not a loop."""
    return str(request.url), request.headers.get("Cookie")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
