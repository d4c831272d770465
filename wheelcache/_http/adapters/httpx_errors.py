"""Translate the errors of httpx and httpx2."""

from __future__ import annotations

import re
from typing import Any

from ..errors import FailedRequestError, FailureKind, failed_request, refused_by_proxy
from .library import Library

# The order is from the most specific class to the most general one.
_KINDS = (
    ("ConnectTimeout", FailureKind.CONNECT_TIMEOUT),
    ("ReadTimeout", FailureKind.READ_TIMEOUT),
    ("WriteTimeout", FailureKind.WRITE_TIMEOUT),
    ("PoolTimeout", FailureKind.POOL_TIMEOUT),
    ("ConnectError", FailureKind.CONNECT),
    ("ReadError", FailureKind.READ),
    ("WriteError", FailureKind.WRITE),
    ("UnsupportedProtocol", FailureKind.INVALID_URL),
    # Over HTTP/2, a request on a connection that has ended raises this error.
    ("LocalProtocolError", FailureKind.LOCAL_PROTOCOL),
    ("RemoteProtocolError", FailureKind.PROTOCOL),
    ("DecodingError", FailureKind.DECODING),
    ("InvalidURL", FailureKind.INVALID_URL),
    ("TransportError", FailureKind.READ),
)
# The library has one class for these errors. Only the message distinguishes them.
_NO_RESPONSE = "Server disconnected without sending a response."
_INVALID_LOCATION = "Invalid URL in location header"  # httpx only
_CUT_BODY = "peer closed connection without sending complete message body"
_INVALID_FIELD = "Illegal header"


def errors_of(library: Library) -> tuple[type[Exception], ...]:
    """Return the classes of the errors that the library raises for a failed request."""
    httpx = library.httpx
    # Some URLs and host names cannot be encoded. The libraries do not translate that error.
    return httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError, OSError


def to_failure(library: Library, error: Exception, received: int = 0) -> FailedRequestError:
    """Translate an error of the library.

    Args:
        library: the library.
        error: the error.
        received: the number of bytes of the body that were received before the error.
    """
    if isinstance(error, library.httpx.ProxyError):
        # If a proxy refuses to connect, only the message of httpx contains its status. SOCKS proxies send no status.
        refused = re.match(r"\d{3}\b", str(error), re.ASCII)
        return failed_request(FailureKind.PROXY, error) if refused is None else refused_by_proxy(int(refused[0]))
    if isinstance(error, library.httpx.LocalProtocolError) and str(error).startswith(_INVALID_FIELD):
        problem = "a header field of the client has characters that cannot be sent"
        return FailedRequestError(problem, is_transient=False, hint="Check the headers and the auth of the client.")
    return failed_request(_kind_of(library.httpx, error), error, received)


def _kind_of(httpx: Any, error: Exception) -> FailureKind:
    if isinstance(error, OSError):
        # On Windows, truststore raises one if the system cannot check a certificate. httpx does not translate it.
        return FailureKind.CONNECT
    if isinstance(error, UnicodeError):
        return FailureKind.INVALID_URL
    if isinstance(error, httpx.RemoteProtocolError):
        if str(error) == _NO_RESPONSE:
            return FailureKind.NO_RESPONSE
        if str(error).startswith(_CUT_BODY):
            return FailureKind.CUT_BODY
        if str(error).startswith(_INVALID_LOCATION):
            return FailureKind.INVALID_LOCATION
    return next((kind for name, kind in _KINDS if isinstance(error, getattr(httpx, name))), FailureKind.OTHER)
