"""Translate the errors of one request, add advice, and decide whether a retry can help.

The texts of the HTTP library may quote URLs with credentials. Only the few known to contain nothing but numbers are
passed on.
"""

from __future__ import annotations

import re
import ssl
from http import HTTPStatus

from .adapters.library import httpx
from .headers import parse_retry_after

# If a server requests a longer delay than this, the download fails, and its error contains the delay.
_LONGEST_RETRY_AFTER = 60.0

_TRANSIENT_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
    # Unregistered: Cloudflare responds with these if the server behind it fails.
    # https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/
    *range(520, 525),
}

_ADVICE: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "The server requires credentials: put them into the URL, a netrc file, or the client.",
    HTTPStatus.FORBIDDEN: "The server refuses these credentials, or this URL has expired.",
    HTTPStatus.NOT_FOUND: "Check the URL: the server has no such file.",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: (
        "The proxy requires credentials: put them into its URL, in HTTP_PROXY or in the client."
    ),
    HTTPStatus.GONE: "Check the URL: the file was removed.",
    HTTPStatus.TOO_MANY_REQUESTS: "The server limits requests: wait, or run fewer jobs.",
}

_PROXY_ADVICE: dict[int, str] = {
    HTTPStatus.FORBIDDEN: ("The proxy does not connect to this host: ask its operator, or add the host to NO_PROXY."),
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: (
        "The proxy requires credentials: put them into its URL, in HTTPS_PROXY or in the client."
    ),
}
_CHECK_PROXY = "Check the proxy settings of the environment or the client."
_CHECK_CERTIFICATE = (
    "Check the certificate of the server. If a private authority issued it, name that authority's file in "
    "SSL_CERT_FILE or, in Python, pass client=httpx.Client(verify=...)."
)

# httpx's messages for the most frequent failures. Their only variable parts are numbers.
_SAFE_MESSAGE = re.compile(
    r"peer closed connection without sending complete message body"
    r" \((?:received \d+ bytes, expected \d+|incomplete chunked read)\)"
    r"|Server disconnected without sending a response\."
)


class FailedRequestError(Exception):
    """A request failed.

    Attributes:
        problem: the reason.
        is_transient: whether another attempt may succeed.
        pause: whether to wait before the next attempt.
        status: the HTTP status; ``None`` if there was no response.
        retry_after: the delay in seconds that the server requested, or ``None``.
        hint: advice for this error; if it is empty, the status determines the advice.
        at: the redacted URL that failed, which redirects may have led to.
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
        """The delay in seconds that the server requested, if it is longer than wheelcache waits; else ``None``."""
        return self.retry_after if (self.retry_after or 0.0) > _LONGEST_RETRY_AFTER else None

    @property
    def can_retry(self) -> bool:
        """Whether the request may be sent again, after a wait of acceptable length."""
        return self.is_transient and self.excessive_wait is None

    @property
    def advice(self) -> str:
        """A suggestion for the user."""
        if self.excessive_wait is not None:
            return f"The server asks to wait {self.excessive_wait:.0f} s: try again after that."
        return self.hint or _ADVICE.get(self.status or 0, "Check the network and the server, and try again.")


def failed_response(response: httpx.Response, now: float) -> FailedRequestError:
    """Return the error for a response without the requested content.

    Args:
        response: the response.
        now: seconds since the epoch.
    """
    status = response.status_code
    is_transient = status in _TRANSIENT_STATUSES
    return FailedRequestError(
        f"the server responded with {status} {response.reason_phrase}".rstrip(),
        is_transient=is_transient,
        status=status,
        retry_after=parse_retry_after(response.headers.get("Retry-After"), now) if is_transient else None,
    )


def to_failure(error: Exception, received: int = 0) -> FailedRequestError:
    """Translate an error of the HTTP library.

    Args:
        error: the error.
        received: the number of bytes of the body that were received before the error.
    """
    # If a proxy refuses to connect, httpx gives its status in the message only. SOCKS proxies send no status.
    refused = re.match(r"\d{3}\b", str(error), re.ASCII) if isinstance(error, httpx.ProxyError) else None
    if refused is not None:
        status = int(refused[0])
        return FailedRequestError(
            f"ProxyError: the proxy refuses to connect, with status {status}",
            is_transient=status in _TRANSIENT_STATUSES,
            status=status,
            hint=_PROXY_ADVICE.get(status, _CHECK_PROXY),
        )
    problem = explain(error, received)
    if isinstance(error, httpx.ProxyError):
        return FailedRequestError(problem, is_transient=False, hint=_CHECK_PROXY)
    if isinstance(system_error(error), ssl.SSLCertVerificationError):
        return FailedRequestError(problem, is_transient=False, hint=_CHECK_CERTIFICATE)
    # LocalProtocolError is transient too: over HTTP/2, a request on a connection that has ended raises it.
    is_transient = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
    return FailedRequestError(problem, is_transient=is_transient)


def system_error(error: BaseException) -> OSError | None:
    """Return the error of the operating system that caused this one, if any."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause


def explain(error: Exception, received: int = 0) -> str:
    """Return a description without secrets: the operating system's, else that of the error's class."""
    kind = type(error)
    system = system_error(error)
    if _SAFE_MESSAGE.fullmatch(str(error)):
        return f"{kind.__name__}: {error}"
    # The first line of the docstring of each class of httpx describes the error.
    words = (system.strerror if system else None) or (kind.__doc__ or "").strip().partition("\n")[0]
    position = f" (after {received} bytes)" if received else ""
    return f"{kind.__name__}: {words}".rstrip(": ") + position
