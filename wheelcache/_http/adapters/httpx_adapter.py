"""Send requests with the caller's client of httpx or httpx2, or with our own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from netrc import NetrcParseError
from typing import Any

from ..._operation import Operation
from ..credentials import is_credential
from ..errors import system_error
from ..interrupt import ReadInterrupter, running
from ..rate import current_watch
from ..response import READ_BODY, Body, EmptyBody, Headers, Response
from .httpx_errors import errors_of, to_failure
from .interface import PreparedRequest
from .library import Library, default_library, library_of

# A request waits up to an hour for a connection, because the pool may have fewer connections than there are jobs. Each
# single wait is short, since cancelling the operation does not end it.
_POOL_WAITS, _POOL_SECONDS = 3600, 1.0


class HttpxAdapter:
    """Sends requests with one client.

    Args:
        client: any object with the methods of ``httpx.Client``.
        interrupter: interrupts the reads of a client. ``None`` for a client whose reads check for cancellation.
        is_own: whether this is our own client. Our own client uses the user's netrc file.
    """

    def __init__(self, client: Any, interrupter: ReadInterrupter | None, *, is_own: bool = False) -> None:
        self._client = client
        self._interrupter = interrupter
        self._is_own = is_own
        self._library = library_of(client)

    def prepare(
        self, url: str, headers: Mapping[str, str], *, auth: tuple[str, str] | None, is_own_origin: bool
    ) -> PreparedRequest:
        """Build a GET request: see :class:`.interface.Adapter`."""
        # A wheel is already compressed. Its hash is the hash of the decoded bytes.
        fields = {"Accept-Encoding": "identity", **headers}
        library = self._library or default_library()
        try:
            request = self._client.build_request("GET", url, headers=fields)
            request.url = self._url_of(request, url, is_own_origin=is_own_origin)
        except errors_of(library) as error:
            raise to_failure(library, error) from system_error(error)
        if self._library is None:
            # The client is an object that only has the methods of a client. Its requests belong to a library.
            self._library = library_of(request)
        # The client's pool timeout is too short here, because downloads use their connections for a long time.
        request.extensions["timeout"] = {**request.extensions.get("timeout", {}), "pool": _POOL_SECONDS}
        if not is_own_origin:
            self._remove_credentials(request)
        native_auth = self._choose_auth(auth, is_own_origin=is_own_origin)
        has_params = is_own_origin and bool(getattr(self._client, "params", None))
        return PreparedRequest(str(request.url), _headers(request), request, native_auth, has_params)

    def _url_of(self, request: Any, url: str, *, is_own_origin: bool) -> Any:
        """Return the URL of a request without credentials.

        httpx replaces the query of the URL by the ``params`` of the client, although the query may contain the
        signature of a redirect. Here, ``params`` are only added to the query. They may be credentials and are not sent
        to another origin.
        """
        params = getattr(self._client, "params", None)
        chosen = request.url
        if params:
            chosen = type(chosen)(url)
            missing = {name: params.get_list(name) for name in params if name not in chosen.params}
            if is_own_origin and missing:
                chosen = chosen.copy_merge_params(missing)
        # A server must not choose the credentials. Besides, httpx logs the URLs of requests.
        return chosen.copy_with(userinfo=b"", fragment=None)

    @property
    def _httpx(self) -> Any:
        return self._require_library().httpx

    def _require_library(self) -> Library:
        return self._library or default_library()

    def _remove_credentials(self, request: Any) -> None:
        """Remove the fields that the client adds to each request, and keep the cookies of this request's own host."""
        for name in [name for name in request.headers if is_credential(name)]:
            del request.headers[name]
        cookies = getattr(self._client, "cookies", None)
        own_cookies = self._httpx.Cookies()
        for cookie in () if cookies is None else cookies.jar:
            # Cookies that the caller passed have no domain. httpx sends them to each host.
            if cookie.domain_specified or cookie.domain:
                own_cookies.jar.set_cookie(cookie)
        own_cookies.set_cookie_header(request)

    def _choose_auth(self, auth: tuple[str, str] | None, *, is_own_origin: bool) -> Any:
        """Return ``None`` for the client's credentials, or else those of the URL, or else those of the netrc file."""
        httpx, own = self._httpx, self._client.auth
        # A netrc file or a class of the caller decides for each URL which credentials to send.
        decides_for_each_url = not isinstance(own, httpx.BasicAuth | httpx.DigestAuth)
        if own is not None and (is_own_origin or decides_for_each_url):
            return None
        if auth is not None:
            return httpx.BasicAuth(*auth)
        return _netrc_auth(httpx) if self._is_own else httpx.Auth()

    def send(self, op: Operation, request: PreparedRequest) -> Response:
        """Send a request as soon as the client's pool has a connection for it: see :class:`.interface.Adapter`."""
        library = self._require_library()
        waits = 0
        while True:
            op.check()
            try:
                with running(op), self._waiting(op, request):
                    return self._to_response(request, self._send_native(request))
            except library.httpx.PoolTimeout as error:
                waits += 1
                if waits == _POOL_WAITS:
                    raise to_failure(library, error) from None
                current_watch().restart_wait()
            except errors_of(library) as error:
                if isinstance(error, library.httpx.HTTPStatusError) and not error.response.is_success:
                    return self._rejected(request, error.response)
                op.check()
                raise to_failure(library, error) from system_error(error)

    def _send_native(self, request: PreparedRequest) -> Any:
        return self._client.send(request.native, **self._options(request))

    def _options(self, request: PreparedRequest) -> dict[str, Any]:
        options = {"stream": True, "follow_redirects": False}
        return options if request.auth is None else {**options, "auth": request.auth}

    def _waiting(self, op: Operation, request: PreparedRequest) -> AbstractContextManager[None]:
        return nullcontext() if self._interrupter is None else self._interrupter.waiting(op, request.native)

    def _to_response(self, request: PreparedRequest, native: Any) -> Response:
        return Response(
            status_code=native.status_code,
            reason_phrase=native.reason_phrase,
            headers=Headers(native.headers.multi_items()),
            url=request.url,
            request_headers=_headers(native.request),
            location=native.headers.get("Location") if native.has_redirect_location else None,
            body=self._create_body(native),
            has_params=request.has_params,
        )

    def _rejected(self, request: PreparedRequest, native: Any) -> Response:
        """Return a response that an event hook of the caller's client rejected, without its body.

        httpx documents such a hook: https://www.python-httpx.org/advanced/event-hooks/. The status has its usual
        effect. A 503 is transient. After a 404, a mirror may have the file.
        """
        return replace(self._to_response(request, native), location=None, body=EmptyBody())

    def _create_body(self, native: Any) -> Body:
        return HttpxBody(self._require_library(), native, self._interrupter)


class HttpxBody:
    """The body of a response of httpx: see :class:`..response.Body`."""

    def __init__(self, library: Library, native: Any, interrupter: ReadInterrupter | None) -> None:
        self._library = library
        self._native = native
        self._interrupter = interrupter
        self._received = 0
        # An event hook or a transport of the caller's client may already have read the body.
        self.is_decoded: bool = native.is_stream_consumed
        self._chunks: Iterator[bytes] | None = None
        # Our own client reads without copying, and bypasses the layers of httpx.
        self._read_body: Callable[[], bytes | memoryview | None] = native.extensions.get(READ_BODY, self._next_chunk)

    def interruptible(self, op: Operation) -> AbstractContextManager[None]:
        """Within the block, interrupt a blocked read if the operation is cancelled."""
        return nullcontext() if self._interrupter is None else self._interrupter.reading(op, self._native)

    def read(self, op: Operation) -> bytes | memoryview | None:
        """Return the next bytes, or ``None`` at the end."""
        try:
            with running(op):
                chunk = self._read_body()
        except errors_of(self._library) as error:
            op.check()
            raise to_failure(self._library, error, self._received) from system_error(error)
        self._received += len(chunk or b"")
        return chunk

    def _next_chunk(self) -> bytes | None:
        if self._chunks is None:
            self._chunks = iter(self._native.iter_bytes() if self.is_decoded else self._native.iter_raw())
        return next(self._chunks, None)

    def close(self) -> None:
        """Release the connection."""
        self._native.close()


def _headers(request: Any) -> Headers:
    return Headers(request.headers.multi_items())


def _netrc_auth(httpx: Any) -> Any:
    """Return an auth object that sends the credentials in the user's netrc file for the host of each request."""
    path = os.environ.get("NETRC")
    # pip reads the same files. They are listed here because Python refuses its default file if others can read it.
    for candidate in [path] if path else ["~/.netrc", "~/_netrc"]:
        try:
            return httpx.NetRCAuth(os.path.expanduser(candidate))
        except (OSError, ValueError, NetrcParseError):
            continue  # Most users have no such file. An invalid file must not fail the request.
    return httpx.Auth()
