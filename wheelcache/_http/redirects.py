"""Send a request, follow its redirects, and choose the credentials of each hop.

This module follows redirects itself, instead of the client. It follows at most 20, and never one from https to http.
Credentials are sent to their own origin only. URLs in errors are redacted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from .._operation import Operation
from .._request import Source, redact
from .credentials import Origin, origin_of
from .errors import FailedRequestError, FailureKind, failed_request
from .rate import current_watch
from .response import Response

if TYPE_CHECKING:
    from .adapters.interface import Adapter, PreparedRequest


_MAX_REDIRECTS = 20


class RequestSender:
    """Sends requests with one client.

    Args:
        adapter: the adapter of the client.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    @contextmanager
    def get(self, op: Operation, source: Source, headers: Mapping[str, str]) -> Iterator[Response]:
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
    ) -> Iterator[Response]:
        origins = [origin_of(source.url)]
        request = self._prepare(source, source.url, headers, origins)
        visited = {_identity(request)}
        history: list[Response] = []
        while True:
            with current_watch().waiting():
                response = self._adapter.send(op, request)
            response.history = history
            try:
                if response.location is None:
                    with response.body.interruptible(op):
                        yield response
                    return
            finally:
                response.body.close()
            history = [*history, response]
            target = _resolve(response, response.location)
            origins.append(origin_of(target))
            try:
                request = self._prepare(source, target, headers, origins)
            except FailedRequestError:
                # The library has already accepted these header fields, so the URL has caused the error.
                raise failed_request(FailureKind.INVALID_LOCATION) from None
            _check_visited(response, request, visited)
            visited.add(_identity(request))
            locations.append(redact(request.url))

    def _prepare(self, source: Source, url: str, headers: Mapping[str, str], origins: list[Origin]) -> PreparedRequest:
        # Another origin must not choose to which URLs of the first origin the credentials are sent.
        never_left = len(set(origins)) == 1
        return self._adapter.prepare(
            url,
            headers,
            auth=source.auth if never_left else None,
            is_own_origin=never_left and origins[0] == origin_of(source.trusted_url),
        )


def _resolve(response: Response, location: str) -> str:
    """Return the absolute URL that a Location field names, without credentials and fragment.

    The libraries resolve it in different ways. Not all of them report an invalid URL.

    Raises:
        FailedRequestError: if the field is not a valid URL, or names an http URL after an https one.
    """
    try:
        parts = urlsplit(urljoin(response.url, location))
        # A server must not choose the credentials.
        target = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        # The host may have become invalid when the credentials were removed.
        parts = urlsplit(target)
        _ = parts.port  # urllib checks the port only when this property is read
    except ValueError:
        raise failed_request(FailureKind.INVALID_LOCATION) from None
    if not parts.hostname:
        raise failed_request(FailureKind.INVALID_LOCATION)
    if urlsplit(response.url).scheme == "https" and parts.scheme != "https":
        problem = f"redirected from https to {redact(target)}"
        raise FailedRequestError(problem, is_transient=False, status=response.status_code)
    return target


def _check_visited(response: Response, request: PreparedRequest, visited: set[tuple[str, str | None]]) -> None:
    target, status = redact(request.url), response.status_code
    if _identity(request) in visited:
        raise FailedRequestError(f"redirect loop, last to {target}", is_transient=False, status=status)
    if len(visited) > _MAX_REDIRECTS:
        problem = f"redirected more than {_MAX_REDIRECTS} times, last to {target}"
        raise FailedRequestError(problem, is_transient=False, status=status)


def _identity(request: PreparedRequest) -> tuple[str, str | None]:
    """Return the parts of a request that determine its response. The same URL with another cookie is not a loop."""
    return request.url, request.headers.get("Cookie")
