"""The messages of the errors that scenes end in."""

from __future__ import annotations

from http import HTTPStatus

from wheels import hex_of

from http_scenes.scene import RESOLVER_TEXT, WHEEL

NETWORK = "Check the network and the server, and try again."
_ADVICE = {
    401: "The server requires credentials. Put them into the URL, a netrc file, or the client.",
    403: "The server refuses these credentials, or this URL has expired.",
    404: "Check the URL. The server has no such file.",
    407: "The proxy requires credentials. Put them into its URL, in HTTP_PROXY or in the client.",
    410: "Check the URL. The file was removed.",
    429: "The server limits requests. Wait, or run fewer jobs.",
}

DISCONNECTED = "the server closed the connection without a response"
REFUSED = "the connection failed: <refused>"
RESET = "the connection broke while reading: <reset>"
TIMED_OUT = "the server sent nothing in time"
VIOLATED = "the server violated HTTP"
UNDECODED = "the body cannot be decoded"
INVALID_URL = "the URL cannot be requested"
UNKNOWN_HOST = f"the connection failed: {RESOLVER_TEXT}"


def cut(received: int = 0) -> str:
    """Return the problem of a body that ended early."""
    return "the body ended before its declared end" + (f" (after {received} bytes)" if received else "")


def responded(code: int, reason: str | None = None) -> str:
    """Return the problem of a status."""
    try:
        phrase = HTTPStatus(code).phrase
    except ValueError:
        phrase = ""
    return f"the server responded with {code} {phrase if reason is None else reason}".rstrip()


def failed(
    problem: str,
    attempts: int = 1,
    *,
    operation: str = "download",
    status: int | None = None,
    url: str = "{url}",
    advice: str = "",
) -> str:
    """Return the message of a DownloadError."""
    advice = advice or _ADVICE.get(status or 0, NETWORK)
    detail = "" if status is None else f" [HTTP {status}]"
    return f"DownloadError: {operation} {url}: {problem}{detail}{_effort(attempts)}. {advice}"


def failed_status(code: int, attempts: int = 1, *, reason: str | None = None, at: str = "", url: str = "{url}") -> str:
    """Return the message of a DownloadError because of a status, which may be that of a redirected request."""
    redirected = f", redirected to {at}" if at else ""
    return failed(responded(code, reason) + redirected, attempts, status=code, url=url)


def undecodable(coding: str) -> str:
    """Return the message of a DownloadError because of a content coding."""
    return failed(
        f"the body has a content coding: wheelcache does not decode {coding!r}",
        advice="Ask the operator of the server to send wheels without a content coding.",
    )


def wrong_hash(content: bytes, attempts: int = 1, *, url: str = "{url}") -> str:
    """Return the message of a HashMismatchError."""
    return (
        f"HashMismatchError: check {url}: the content does not have the requested hash "
        f"[sha256: expected {WHEEL.hex()}, got {hex_of(content)}]{_effort(attempts)}. "
        "The source has another file than the requested one. Check the hash, or the source."
    )


def wrong_size(expected: int, *, is_declared: bool) -> str:
    """Return the message of a SizeMismatchError, from the header of the response or from its body."""
    problem = (
        "the server declares another size than the requested one"
        if is_declared
        else "the content does not have the requested size"
    )
    advice = ". The file at the source is not the requested one. Check the size, or the source." if is_declared else ""
    return (
        f"SizeMismatchError: download {{url}}: {problem} [expected {expected} bytes, got {WHEEL.size}]"
        f"{_effort(1)}{advice}"
    )


NOT_A_WHEEL = (
    "InvalidWheelError: check {url}: the file is not a zip archive, because it has no end record (1 attempt, T s). "
    "Check the response of this URL. It is often a login or error page."
)


def _effort(attempts: int) -> str:
    return f" ({attempts} attempt{'s' if attempts > 1 else ''}, T s)"
