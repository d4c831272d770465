"""Send requests with the caller's session of requests.

``Session.send`` reads the whole body of each redirect into memory, even with ``allow_redirects=False``. A response hook
therefore hides the Location field from the session.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urldefrag, urlsplit

import requests
from requests.auth import HTTPBasicAuth, HTTPDigestAuth
from requests.cookies import RequestsCookieJar
from requests.utils import get_netrc_auth

from ..._operation import Operation
from ..credentials import is_credential
from ..errors import FailedRequestError, FailureKind, failed_request
from ..headers import declared_length
from ..interrupt import ReadInterrupter
from ..response import EmptyBody, Headers, Response
from .interface import PreparedRequest
from .requests_errors import ERRORS, final_status, nested_system_error, to_failure

if TYPE_CHECKING:
    from .requests_client import Timeout


# The maximum number of bytes that one read returns. A read returns as soon as any bytes are available.
_READ_SIZE = 1 << 18
# A read from a raw body of urllib3 1 or of a custom adapter may wait for all of these bytes.
_BLOCKING_READ_SIZE = 1 << 16
# The iteration of requests over the cookies raises a RuntimeError if another thread stores a cookie meanwhile.
_PREPARE_ATTEMPTS = 10
_INTERIM = range(100, 200)
# Responses with these statuses have no body, whatever length they declare.
_EMPTY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


class RequestsAdapter:
    """Sends requests with one session: see :class:`.interface.Adapter`.

    Args:
        session: the session.
        interrupter: interrupts the reads of the session.
        timeout: the timeout in the form of requests.
    """

    def __init__(self, session: Any, interrupter: ReadInterrupter, timeout: Timeout) -> None:
        self._session = session
        self._interrupter = interrupter
        self._timeout = timeout

    def prepare(
        self, url: str, headers: Mapping[str, str], *, auth: tuple[str, str] | None, is_own_origin: bool
    ) -> PreparedRequest:
        """Build a GET request: see :class:`.interface.Adapter`."""
        # A session omits its defaults for the names whose value is None here. Its credentials are then not sent to
        # another origin. Its parameters do not replace those of the URL.
        hidden = [] if is_own_origin else [name for name in self._session.headers if is_credential(_text(name))]
        # A wheel is already compressed. Its hash is the hash of the decoded bytes.
        fields: dict[Any, str | None] = {**dict.fromkeys(hidden), "Accept-Encoding": "identity", **headers}
        request = requests.Request(
            "GET",
            urldefrag(url)[0],
            headers=fields,  # type: ignore[arg-type] # the documentation of sessions names None
            params=self._hidden_params(url, is_own_origin=is_own_origin),
            auth=self._choose_auth(url, auth, is_own_origin=is_own_origin),
        )
        try:
            prepared = self._prepare_native(request)
        except ERRORS as error:
            raise to_failure(error) from nested_system_error(error)
        has_params = is_own_origin and bool(self._session.params)
        return PreparedRequest(prepared.url, _headers(prepared), prepared, None, has_params)

    def _prepare_native(self, request: requests.Request) -> Any:
        for _ in range(_PREPARE_ATTEMPTS - 1):
            try:
                return self._session.prepare_request(request)
            except RuntimeError:
                continue
        return self._session.prepare_request(request)

    def _hidden_params(self, url: str, *, is_own_origin: bool) -> dict[str, None]:
        """Return the session's parameters that the URL already has. For another origin, return all of them."""
        params = self._session.params
        existing = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
        return {name: None for name in params or () if not is_own_origin or name in existing}

    def _choose_auth(self, url: str, auth: tuple[str, str] | None, *, is_own_origin: bool) -> Any:
        """Return ``None`` for the session's credentials, or else those of the URL, or else those of the netrc file."""
        own = self._session.auth
        # requests encodes text as Latin-1. That encoding lacks characters of some user names and passwords.
        of_url = None if auth is None else HTTPBasicAuth(*(text.encode() for text in auth))
        if is_own_origin:
            return None if own else of_url  # the session reads the netrc file
        if isinstance(own, tuple | HTTPBasicAuth | HTTPDigestAuth):
            own = None
        own = own or of_url
        if not own and self._session.trust_env:
            netrc = get_netrc_auth(url)
            own = None if netrc is None else HTTPBasicAuth(*netrc)
        return _OtherOriginAuth(self._session.cookies, own or None)

    def send(self, op: Operation, request: PreparedRequest) -> Response:
        """Send a request: see :class:`.interface.Adapter`."""
        op.check()
        if urlsplit(request.url).scheme not in {"http", "https"}:
            raise failed_request(FailureKind.INVALID_URL)  # the session may have adapters for other schemes
        hook = _RedirectHook(self._session)
        request.native.register_hook("response", hook)
        try:
            native = self._send_native(request)
        except ERRORS as error:
            rejected = _rejected(error, request)
            if rejected is not None:
                return rejected
            op.check()
            raise to_failure(error) from nested_system_error(error)
        try:
            return self._to_response(request, native, hook.restore(native))
        except BaseException:
            native.close()
            raise

    def _send_native(self, request: PreparedRequest) -> Any:
        received: list[Any] = []
        request.native.hooks["response"].insert(0, lambda response, **_: received.append(response))
        settings = self._session.merge_environment_settings(request.url, {}, True, None, None)
        try:
            return self._session.send(request.native, **settings, timeout=self._timeout, allow_redirects=False)
        except BaseException:
            # requests does not close a response if a hook raises an error.
            for response in received:
                response.close()
            raise

    def _to_response(self, request: PreparedRequest, native: Any, location: str | None) -> Response:
        if native.status_code in _INTERIM:
            # http.client skips 100 only. The next request on the connection would receive the real response.
            problem = f"the server sent an interim response, {native.status_code}, which requests cannot skip"
            raise FailedRequestError(problem, is_transient=False)
        headers = _headers(native)
        return Response(
            status_code=native.status_code,
            reason_phrase=_text(native.reason or ""),
            headers=headers,
            url=request.url,
            request_headers=_headers(native.request or request.native),
            location=location,
            body=RequestsBody(native, headers, self._interrupter),
            has_params=request.has_params,
        )


class RequestsBody:
    """The body of a response of requests: see :class:`..response.Body`."""

    def __init__(self, native: Any, headers: Headers, interrupter: ReadInterrupter) -> None:
        self._native = native
        self._raw = native.raw
        self._interrupter = interrupter
        self._interruptions = ExitStack()
        self._received = 0
        self._length = 0 if native.status_code in _EMPTY else declared_length(headers)
        # A hook or an adapter of the session may already have read the body.
        self.is_decoded: bool = self._raw is None or _is_closed(self._raw) or _position(self._raw) > 0
        if self.is_decoded and "Content-Encoding" in headers:
            self._length = None  # the declared length is that of the encoded bytes
        self._has_read1 = hasattr(self._raw, "read1")
        # Objects other than responses of urllib3 have no such option.
        self._options = {"decode_content": False} if hasattr(self._raw, "stream") else {}

    @contextmanager
    def interruptible(self, op: Operation) -> Iterator[None]:
        """Within the block, interrupt a blocked read if the operation is cancelled."""
        with self._interruptions:
            if not self.is_decoded:
                connection = self._interruptions.enter_context(_borrow_socket(self._raw))
                self._interruptions.enter_context(self._interrupter.interrupting(op, connection))
            yield

    def read(self, op: Operation) -> bytes | None:
        """Return the next bytes, or ``None`` at the end."""
        try:
            chunk = self._next_chunk()
        except (*ERRORS, ValueError) as error:
            op.check()
            raise to_failure(error, received=self._received) from nested_system_error(error)
        self._received += len(chunk or b"")
        if not self.is_decoded and _is_closed(self._raw):
            # The pool has the connection again. Another request may use it now.
            self._interruptions.close()
        if not chunk and self._received < (self._length or 0):
            op.check()
            raise failed_request(FailureKind.CUT_BODY, received=self._received)
        return chunk or None

    def _next_chunk(self) -> bytes | None:
        if not self.is_decoded:
            return self._read_raw()
        return None if self._received else self._read_content()

    def _read_content(self) -> bytes:
        """Return the body that was already read.

        Raises:
            FailedRequestError: if only a part of the body was read, since that part is lost.
        """
        try:
            is_partial = self._raw is not None and not _is_closed(self._raw) and self._raw.read(1)
            content: bytes | None = None if is_partial else self._native.content
        except RuntimeError:  # requests and urllib3 cannot read the rest
            is_partial, content = True, None
        if is_partial:
            raise failed_request(FailureKind.OTHER)
        return content or b""

    def _read_raw(self) -> bytes | None:
        chunk: bytes | None
        if self._has_read1:
            try:
                chunk = self._raw.read1(_READ_SIZE, **self._options)
            except AttributeError:
                self._has_read1 = False  # the file object below the response of urllib3 lacks the method
            else:
                return chunk
        chunk = self._raw.read(_BLOCKING_READ_SIZE, **self._options)
        return chunk

    def close(self) -> None:
        """Release the connection."""
        if self._raw is None:
            return
        try:
            if self._length == 0 and not self.is_decoded:
                self._read_raw()  # This never waits. urllib3 reuses the connection only afterwards.
            if _is_closed(self._raw) and hasattr(self._raw, "release_conn"):
                # The body was read to its end, but requests would close the connection.
                self._raw.release_conn()
        except ERRORS:
            pass  # the response is not used any more
        finally:
            self._native.close()


class _RedirectHook:
    """Hides the Location field of a response from its session.

    Attributes:
        location: the URL in the Location field of a redirect, or ``None``.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._field: str | None = None
        self.location: str | None = None

    def __call__(self, response: Any, **_: object) -> Any:
        """Remove the field. Hooks of the session and of its auth class have already run."""
        try:
            self.location = self._session.get_redirect_target(response)
        except UnicodeError:
            self.location = response.headers["Location"]  # The field is not UTF-8. Each character is a byte.
        if self.location is not None:
            self._field = response.headers.pop("Location", None)
        return response

    def restore(self, response: Any) -> str | None:
        """Restore the field, and return its URL if the response is a redirect."""
        if self._field is not None:
            response.headers["Location"] = self._field
        return self.location


class _OtherOriginAuth:
    """Prepares the cookies and credentials of a request to another origin.

    Args:
        cookies: the cookies of the session.
        auth: applies the credentials. ``None`` for a request without credentials.
    """

    def __init__(self, cookies: Any, auth: Any) -> None:
        self._cookies = cookies
        self._auth = auth

    def __call__(self, request: Any) -> Any:
        """Apply the credentials, and remove the cookies without a domain. requests sends such cookies to each host."""
        jar = RequestsCookieJar()
        jar.update(self._cookies)
        if "" in jar.list_domains():
            jar.clear("")
        request.headers.pop("Cookie", None)
        request.prepare_cookies(jar)
        return request if self._auth is None else self._auth(request)


def _rejected(error: Exception, request: PreparedRequest) -> Response | None:
    """Return a response that a hook or the retries of the session rejected, without its body.

    A hook rejects a response with ``raise_for_status``. The status has its usual effect. A 503 is transient. After a
    404, a mirror may have the file.
    """
    native = error.response if isinstance(error, requests.HTTPError) else None
    if native is not None:
        native.close()
    status = final_status(error) if native is None else native.status_code
    if status is None or status < HTTPStatus.BAD_REQUEST:
        return None
    return Response(
        status_code=status,
        reason_phrase=_phrase(status) if native is None else _text(native.reason or ""),
        headers=Headers([]) if native is None else _headers(native),
        url=request.url,
        request_headers=request.headers,
        location=None,
        body=EmptyBody(),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


@contextmanager
def _borrow_socket(raw: Any) -> Iterator[socket.socket | None]:
    """Yield the socket of a body, or a duplicate of the socket, or ``None`` if the body has no socket."""
    connection = getattr(getattr(raw, "connection", None), "sock", None)
    if isinstance(connection, socket.socket):
        yield connection
        return
    try:
        # If the body ends with the connection, only the body refers to the socket. The descriptor alone must not be
        # kept, because it may belong to another file once the body has ended.
        duplicate = socket.fromfd(raw.fileno(), socket.AF_INET, socket.SOCK_STREAM)
    except (AttributeError, OSError, ValueError):
        yield None  # the body is in memory, for example
        return
    with duplicate:
        yield duplicate


def _is_closed(raw: Any) -> bool:
    return bool(getattr(raw, "closed", False))


def _position(raw: Any) -> int:
    """Return the number of bytes that were read, or 0 if the object does not report it."""
    try:
        position: int = raw.tell()
    except (AttributeError, OSError, ValueError):
        return 0
    return position


def _headers(message: Any) -> Headers:
    return Headers((_text(name), _text(value)) for name, value in message.headers.items())


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
