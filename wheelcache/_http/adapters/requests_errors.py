"""Translate the errors of requests, and those of urllib3 and http.client that requests wraps or lets through."""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator

import requests
import urllib3.exceptions as urllib3

from ..errors import FailedRequestError, FailureKind, failed_request, refused_by_proxy

ERRORS = (requests.RequestException, urllib3.HTTPError, http.client.HTTPException, OSError, UnicodeError)
"""The classes of the errors of a failed request, without ``ValueError``, because callers' code may raise it."""

# The order is from the most specific class to the most general one. The first class of any nested error is used.
_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], FailureKind], ...] = (
    (http.client.RemoteDisconnected, FailureKind.NO_RESPONSE),
    (http.client.IncompleteRead, FailureKind.CUT_BODY),
    ((urllib3.ProxySchemeUnknown, requests.exceptions.InvalidProxyURL), FailureKind.PROXY),
    (urllib3.NewConnectionError, FailureKind.CONNECT),  # a subclass of ConnectTimeoutError
    ((urllib3.ConnectTimeoutError, requests.ConnectTimeout), FailureKind.CONNECT_TIMEOUT),
    ((urllib3.ReadTimeoutError, requests.ReadTimeout), FailureKind.READ_TIMEOUT),
    (urllib3.EmptyPoolError, FailureKind.POOL_TIMEOUT),
    ((urllib3.ProxyError, requests.exceptions.ProxyError), FailureKind.PROXY),
    (BrokenPipeError, FailureKind.WRITE),
    (ConnectionError, FailureKind.READ),
    ((ssl.SSLError, urllib3.SSLError, requests.exceptions.SSLError), FailureKind.CONNECT),
    (urllib3.InvalidHeader, FailureKind.PROTOCOL),
    (http.client.HTTPException, FailureKind.PROTOCOL),
    ((urllib3.DecodeError, requests.exceptions.ContentDecodingError), FailureKind.DECODING),
    ((requests.exceptions.InvalidURL, requests.exceptions.MissingSchema), FailureKind.INVALID_URL),
    ((requests.exceptions.InvalidSchema, urllib3.LocationValueError, UnicodeError), FailureKind.INVALID_URL),
    ((requests.ConnectionError, requests.Timeout, urllib3.ProtocolError), FailureKind.READ),
)
_READ_KINDS = {FailureKind.CONNECT: FailureKind.READ, FailureKind.OTHER: FailureKind.READ}

# The libraries have no classes for these errors. Only the messages distinguish them.
_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b", re.ASCII)
_TOO_MANY_RESPONSES = re.compile(r"too many (\d{3}) error responses", re.ASCII)
_NO_FILE = "Could not find"
_NO_SOCKS = "Missing dependencies for SOCKS"

_CHECK_CERTIFICATE = (
    "Check the certificate of the server. If a private authority issued it, name that authority's file in "
    "REQUESTS_CA_BUNDLE or in the session's verify."
)
_CHECK_FILES = "Check verify and cert of the session, and the variables REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE."


def to_failure(error: BaseException, *, received: int | None = None) -> FailedRequestError:
    """Translate an error.

    Args:
        error: the error.
        received: the number of bytes of the body that were received before the error, or ``None`` if there was no
            response.
    """
    errors = list(_nested(error))
    special = None if received is not None else _special_failure(errors)
    if special is not None:
        return special
    kind = _kind_of(errors)
    if received is not None:
        kind = _READ_KINDS.get(kind, kind)
    failure = failed_request(kind, _find_system_error(errors), received or 0)
    if any(isinstance(nested, ssl.SSLCertVerificationError) for nested in errors):
        failure.hint = _CHECK_CERTIFICATE
    return failure


def nested_system_error(error: BaseException) -> OSError | None:
    """Return the error of the operating system that caused this one, if any."""
    return _find_system_error(_nested(error))


def final_status(error: BaseException) -> int | None:
    """Return the status of the last response if the session has used up its retries, or else ``None``."""
    for nested in _nested(error):
        match = _TOO_MANY_RESPONSES.fullmatch(str(nested)) if isinstance(nested, urllib3.ResponseError) else None
        if match is not None:
            return int(match[1])
    return None


def _special_failure(errors: list[BaseException]) -> FailedRequestError | None:
    for nested in errors:
        refused = _REFUSED_TUNNEL.match(str(nested)) if isinstance(nested, OSError) else None
        if refused is not None:
            return refused_by_proxy(int(refused[1]))
    text = str(errors[0])
    if isinstance(errors[0], OSError) and text.startswith(_NO_FILE):
        return FailedRequestError("the session's certificates cannot be read", is_transient=False, hint=_CHECK_FILES)
    if text.startswith(_NO_SOCKS):
        return FailedRequestError(
            "the session uses a SOCKS proxy, but the package PySocks is not installed",
            is_transient=False,
            hint="Install it: pip install requests[socks].",
        )
    if _is_invalid_field(errors):
        problem = "a header field of the session has characters that cannot be sent"
        return FailedRequestError(problem, is_transient=False, hint="Check the headers and the auth of the session.")
    return None


def _is_invalid_field(errors: list[BaseException]) -> bool:
    """Return whether a field of the request is invalid. urllib3 has an error of the same name for responses."""
    if isinstance(errors[0], requests.exceptions.InvalidHeader):
        return not any(isinstance(nested, urllib3.InvalidHeader) for nested in errors)
    # http.client encodes the values of fields with these encodings. Host names are encoded as "idna".
    return isinstance(errors[0], UnicodeEncodeError) and errors[0].encoding in {"latin-1", "iso-8859-1", "ascii"}


def _kind_of(errors: list[BaseException]) -> FailureKind:
    for classes, kind in _KINDS:
        for nested in errors:
            if isinstance(nested, classes):
                return FailureKind.PROTOCOL if _is_invalid_chunk(nested) else kind
    return FailureKind.OTHER


def _is_invalid_chunk(error: BaseException) -> bool:
    """Return whether the length of a chunk is not a number. http.client reports this as an incomplete body."""
    length_error = error.__context__
    return (
        isinstance(error, http.client.IncompleteRead)
        and isinstance(length_error, ValueError)
        and not str(length_error).endswith("b''")  # the connection ended in place of a length
    )


def _find_system_error(errors: Iterator[BaseException] | list[BaseException]) -> OSError | None:
    for nested in errors:
        # The errors of requests are subclasses of OSError that have no number and may quote URLs.
        if isinstance(nested, OSError) and (nested.errno is not None or isinstance(nested, TimeoutError)):
            return nested
    return None


def _nested(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that it wraps, without ``__context__``, since it may be the caller's exception."""
    waiting, found = [error], set[int]()
    while waiting:
        current = waiting.pop(0)
        if id(current) not in found:
            found.add(id(current))
            yield current
            wrapped = (*current.args, getattr(current, "reason", None), current.__cause__)
            waiting += [each for each in wrapped if isinstance(each, BaseException)]
