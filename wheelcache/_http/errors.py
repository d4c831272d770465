"""Describe the errors of one request, add advice, and decide whether a retry can help.

The messages of the HTTP libraries differ from each other and may quote URLs with credentials. wheelcache therefore
writes its own messages.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from enum import StrEnum
from http import HTTPStatus

from .headers import parse_retry_after
from .response import Response

# If a server requests a longer delay than this many seconds, the download fails. Its error contains the delay.
_LONGEST_RETRY_AFTER = 60.0

# Errors show this many characters of the reason phrase.
_LONGEST_PHRASE = 80

_TRANSIENT_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
    # These statuses are not registered. Cloudflare responds with them if the server behind it fails.
    # https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/
    *range(520, 525),
}

_ADVICE: dict[int, str] = {
    HTTPStatus.NON_AUTHORITATIVE_INFORMATION: (
        "A proxy on the way to the server changed the response. Pass the wheel's hash to accept the same bytes."
    ),
    HTTPStatus.UNAUTHORIZED: "The server requires credentials. Put them into the URL, a netrc file, or the client.",
    HTTPStatus.FORBIDDEN: "The server refuses these credentials, or this URL has expired.",
    HTTPStatus.NOT_FOUND: "Check the URL. The server has no such file.",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: (
        "The proxy requires credentials. Put them into its URL, in HTTP_PROXY or in the client."
    ),
    HTTPStatus.GONE: "Check the URL. The file was removed.",
    HTTPStatus.TOO_MANY_REQUESTS: "The server limits requests. Wait, or run fewer jobs.",
}

_PROXY_ADVICE: dict[int, str] = {
    HTTPStatus.FORBIDDEN: ("The proxy does not connect to this host. Ask its operator, or add the host to NO_PROXY."),
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: (
        "The proxy requires credentials. Put them into its URL, in HTTPS_PROXY or in the client."
    ),
}
_CHECK_PROXY = "Check the proxy settings of the environment or the client."
_CHECK_CERTIFICATE = (
    "Check the certificate of the server. If a private authority issued it, add the authority to the certificates of "
    "the system, or name its file in SSL_CERT_FILE. That file replaces the certificates of the system. A client of "
    "your own has its own setting, such as httpx.Client(verify=...)."
)


class FailureKind(StrEnum):
    """A way in which a request fails, with its error text. The HTTP libraries have classes for most of them."""

    CONNECT = "the connection failed"
    CONNECT_TIMEOUT = "the connection was not established in time"
    READ = "the connection broke while reading"
    READ_TIMEOUT = "the server sent nothing in time"
    WRITE = "the connection broke while sending the request"
    WRITE_TIMEOUT = "the request could not be sent in time"
    POOL_TIMEOUT = "no connection of the client's pool became free in time"
    CERTIFICATE = "the server's certificate is not trusted"
    PROXY = "the proxy failed"
    PROTOCOL = "the server violated HTTP"
    LOCAL_PROTOCOL = "the request was sent on a connection that had ended"
    NO_RESPONSE = "the server closed the connection without a response"
    CUT_BODY = "the body ended before its declared end"
    DECODING = "the body cannot be decoded"
    INVALID_URL = "the URL cannot be requested"
    INVALID_LOCATION = "redirected to an invalid URL"
    OTHER = "the request failed"


_PERMANENT = {
    FailureKind.CERTIFICATE,
    FailureKind.PROXY,
    FailureKind.DECODING,
    FailureKind.INVALID_URL,
    FailureKind.INVALID_LOCATION,
    FailureKind.OTHER,
}
_KIND_HINTS = {FailureKind.CERTIFICATE: _CHECK_CERTIFICATE, FailureKind.PROXY: _CHECK_PROXY}


class FailedRequestError(Exception):
    """A request failed.

    Attributes:
        problem: the reason.
        is_transient: whether another attempt may succeed.
        pause: whether to wait before the next attempt.
        status: the HTTP status, or ``None`` if there was no response.
        retry_after: the delay in seconds that the server requested, or ``None``.
        hint: advice for this error. If it is empty, the status determines the advice.
        at: the redacted URL of the failed request. After redirects, it is not the URL that was requested first.
    """

    def __init__(
        self,
        problem: str,
        *,
        is_transient: bool,
        pause: bool = True,
        status: int | None = None,
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.is_transient = is_transient
        self.pause = pause
        self.status = status
        self.retry_after = retry_after
        self.hint = hint
        self.at = ""

    @property
    def excessive_wait(self) -> float | None:
        """The delay in seconds that the server requested, if wheelcache does not wait that long, or else ``None``."""
        return self.retry_after if (self.retry_after or 0.0) > _LONGEST_RETRY_AFTER else None

    @property
    def can_retry(self) -> bool:
        """Whether the request may be sent again, after a wait of acceptable length."""
        return self.is_transient and self.excessive_wait is None

    @property
    def advice(self) -> str:
        """A suggestion for the user."""
        if self.excessive_wait is not None:
            return f"The server asks to wait {self.excessive_wait:.0f} s. Try again after that."
        return self.hint or _ADVICE.get(self.status or 0, "Check the network and the server, and try again.")


def failed_response(response: Response, now: float) -> FailedRequestError:
    """Return the error for a response without the requested content.

    Args:
        response: the response.
        now: seconds since the epoch.
    """
    status = response.status_code
    is_transient = status in _TRANSIENT_STATUSES
    return FailedRequestError(
        f"the server responded with {status} {_displayable(response.reason_phrase)}".rstrip(),
        is_transient=is_transient,
        status=status,
        retry_after=parse_retry_after(response.headers.get("Retry-After"), now) if is_transient else None,
    )


def _displayable(words: str) -> str:
    """Shorten words of a server, and replace control characters, since they may be commands for a terminal."""
    return "".join(character if character.isprintable() else "?" for character in words[:_LONGEST_PHRASE])


def failed_request(kind: FailureKind, error: BaseException | None = None, received: int = 0) -> FailedRequestError:
    """Return the error for a request without a complete response.

    Args:
        kind: the reason.
        error: the error of the HTTP library. Only the operating system's error that caused it is quoted.
        received: the number of bytes of the body that were received before the error.
    """
    system = None if error is None else system_error(error)
    if isinstance(system, ssl.SSLCertVerificationError):
        kind = FailureKind.CERTIFICATE
    reason = _reason(system)
    position = f" (after {received} bytes)" if received else ""
    return FailedRequestError(
        f"{kind}{reason}{position}", is_transient=kind not in _PERMANENT, hint=_KIND_HINTS.get(kind, "")
    )


def refused_by_proxy(status: int) -> FailedRequestError:
    """Return the error for a proxy that refuses to connect to the server."""
    return FailedRequestError(
        f"the proxy refuses to connect, with status {status}",
        is_transient=status in _TRANSIENT_STATUSES,
        status=status,
        hint=_PROXY_ADVICE.get(status, _CHECK_PROXY),
    )


def system_error(error: BaseException) -> OSError | None:
    """Return the error of the operating system that caused this one, if any."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None or cause.errno is not None:
        return cause
    # anyio and trio connect to all addresses of a host. Their error has no code. The errors with a code are its cause:
    # https://anyio.readthedocs.io/en/stable/api.html#anyio.connect_tcp
    inner = cause.__cause__
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[-1]
    return inner if isinstance(inner, OSError) else cause


def _reason(system: OSError | None) -> str:
    """Return the message of the operating system after a colon, or an empty string."""
    if isinstance(system, ssl.SSLCertVerificationError) and not system.strerror:
        # The errors that truststore raises on Windows and macOS have no other text.
        return f": {system.verify_message}" if hasattr(system, "verify_message") else ""
    if system is None or not system.strerror:
        return ""
    if isinstance(system, ssl.SSLError | socket.gaierror) or system.errno is None:
        return f": {system.strerror}"
    # asyncio and trio replace the message of the system by their own. On Windows, the message depends on the language.
    if sys.platform == "win32":
        return f": {socket.errorTab.get(system.winerror or 0, system.strerror)}".rstrip(".")
    return f": {os.strerror(system.errno)}"
