"""Wire: one request and its answer, by the caller's httpx client or by one of our own.

The caller's client is used as it is, with its authentication, proxies and transport. Redirects are followed here and
not by the client: 20 at most, never from https to http, and with credentials only for the origin they were meant for.
What an error gets to see of a URL is redacted; httpx's own texts, which may quote a URL, never pass.

Imports of what only the network needs stand in the functions: this module is loaded for every hit, they are not.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from .. import __version__
from .._operation import CancelToken, ClosedError
from .._request import Source, redact
from .interrupt import ReadInterrupter, socket_of

if TYPE_CHECKING:
    import socket

    import httpx


_REDIRECTS = 20
_TOLD_AGAIN, _TOLD_AGAIN_SECONDS = 50, 0.02
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0
# A pool with fewer connections than there are jobs is no failure: one is waited for in so many turns of so many
# seconds, an hour in all. Between two of them a stop is heard, which cannot end the waiting itself.
_POOL_TURNS, _POOL_SECONDS = 720, 5.0
# A server may ask for more patience than this; then it is the caller who decides, with the figure in the error.
_LONGEST_RETRY_AFTER = 60.0

_ADVICE = {
    401: "The server wants credentials: put them into the URL, a netrc file, or the client.",
    403: "The server refuses these credentials, or this URL has expired.",
    404: "Check the URL: there is no such file.",
    407: "The proxy wants credentials: put them into its URL, in HTTP_PROXY or in the client.",
    410: "Check the URL: the file was removed.",
    429: "The server limits requests: wait, or run fewer jobs.",
}

# What httpx says of the most frequent failures, and may be passed on: it never has more in it than numbers.
_HARMLESS = re.compile(
    r"peer closed connection without sending complete message body"
    r" \((?:received \d+ bytes, expected \d+|incomplete chunked read)\)"
    r"|Server disconnected without sending a response\."
)

_LENGTH = re.compile(r"\d{1,18}", re.ASCII)


class FailedRequestError(Exception):
    """A request that did not bring what it was made for.

    Attributes:
        problem: what went wrong.
        passing: whether it can pass.
        pause: whether trying again at once is of no use.
        status: the HTTP status, or ``None`` where no answer came.
        retry_after: the seconds that the server asks to wait.
        hint: what to do about it, where the status does not say; empty where that is nothing in particular.
        at: where redirects had led, redacted.
    """

    def __init__(
        self,
        problem: str,
        *,
        passing: bool,
        pause: bool = True,
        status: int | None = None,
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.passing = passing
        self.pause = pause
        self.status = status
        self.retry_after = retry_after
        self.hint = hint
        self.at = ""

    @property
    def asked(self) -> float | None:
        """The seconds that the server asks to wait, where it asks for more than is waited."""
        return self.retry_after if (self.retry_after or 0.0) > _LONGEST_RETRY_AFTER else None

    @property
    def advice(self) -> str:
        """What the caller can do, where no more is tried."""
        if self.asked is not None:
            return f"The server asks to wait {self.asked:.0f} s: try again after that."
        return self.hint or _ADVICE.get(self.status or 0, "Check the network and the server, and try again.")


class Client(Protocol):
    """What is needed of an :class:`httpx.Client`; :mod:`._async` lends an ``AsyncClient`` the same names."""

    @property
    def auth(self) -> httpx.Auth | None:
        """The credentials that the caller gave the client."""
        ...

    def build_request(
        self, method: str, url: str, *, headers: Mapping[str, str], extensions: dict[str, Any]
    ) -> httpx.Request:
        """Make a request with what the client adds to every one."""
        ...

    def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: httpx.Auth | None = ...,
        follow_redirects: bool = ...,
    ) -> httpx.Response:
        """Send it."""
        ...


def leave_connections(client: Client | None) -> None:
    """Take from a caller's client, in a child process, the connections that are its parent's.

    Two that ask through one socket get each other's answers. To close it here leaves the parent's descriptor open, and
    says nothing to the server. None of the names on the way is promised: where another release of httpx has the pool
    elsewhere, a test fails.
    """
    with _leaving:
        transport = getattr(client, "_transport", None)
        if client is None or transport is None or _left.get(client) == os.getpid():
            return
        # Once, whatever the number of caches: what was made since is this process's.
        _left[client] = os.getpid()
    for each in (transport, *getattr(client, "_mounts", {}).values()):
        if getattr(getattr(each, "_pool", None), "connections", ()):
            each.close()


_leaving = threading.Lock()
_left: MutableMapping[Client, int] = WeakKeyDictionary()


class HttpClient:
    """The way to the network.

    Attributes:
        closing: the stop of all that goes this way.

    Args:
        client: the caller's, or ``None`` for one of our own, made at the first request and closed by :meth:`close`.
        wake: ends the reading of a socket in another thread.
    """

    def __init__(self, client: Client | None, wake: Callable[[socket.socket], None]) -> None:
        self._client = client
        self._own: httpx.Client | None = None
        self._lock = threading.Lock()
        self.closing = CancelToken(lambda: ClosedError("the cache is closed"))
        self._waker = ReadInterrupter(wake, self.closing)

    def after_fork(self) -> None:
        """Leave to the parent its connections, through which two processes must not talk."""
        leave_connections(self._client)
        self._own = None
        self._lock = threading.Lock()

    def client(self) -> Client:
        """The caller's client, or our own.

        Raises:
            ClosedError: after :meth:`close`.
            FailedTryError: where our own cannot be made.
        """
        with self._lock:
            self.closing.check()
            if self._client is not None:
                return self._client
            if self._own is None:
                self._own = _own_client()
            return self._own

    def close(self, sleep: Callable[[float], None]) -> None:
        """Stop what is under way, and close our own client. The caller's is the caller's.

        Args:
            sleep: waits so many seconds, between telling those again who were only about to wait for a socket and so
                were not woken. It takes a second at most.
        """
        self.closing.cancel()
        for _ in range(_TOLD_AGAIN):
            if not self.closing.has_callbacks:
                break
            sleep(_TOLD_AGAIN_SECONDS)
            self.closing.cancel()
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    @contextmanager
    def get(self, source: Source, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Send a request, follow its redirects, and hold the last answer open.

        Raises:
            FailedTryError: where no answer comes, or its body breaks off.
            StoppedError, ClosedError: where nobody wants it any more.
        """
        import httpx

        way: list[str] = [source.shown]
        response = None
        try:
            with self._following(source, headers, way) as response:
                yield response
        except FailedRequestError as failure:
            failure.at = way[-1]
            raise
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._waker.check()
            received = 0 if response is None else response.num_bytes_downloaded
            failed = _failed(error, received)
            failed.at = way[-1]
            # What the system said stays as the cause; httpx's error does not, since its text may quote a URL.
            raise failed from _system_error(error)

    @contextmanager
    def _following(self, source: Source, headers: Mapping[str, str], way: list[str]) -> Iterator[httpx.Response]:
        client = self.client()
        own = self._client is None
        # Encoded bytes would have to be decoded before they can be hashed, and a wheel is compressed already.
        request = client.build_request(
            "GET",
            source.url,
            headers={"Accept-Encoding": "identity", **headers},
            extensions={"trace": self._waker.trace()},
        )
        # The client's limit is for requests of which each is answered in a moment; wheels hold connections for long.
        request.extensions["timeout"] = {**request.extensions.get("timeout", {}), "pool": _POOL_SECONDS}
        auth = _auth(client, source, own=own)
        seen = {_asked(request)}
        hops: list[httpx.Response] = []
        while True:
            with self._waker.waiting():
                response = self._send(client, request, auth)
            response.history = hops
            try:
                if response.next_request is None:
                    with self._waker.reading(_alone(response)):
                        yield response
                    return
                following = response.next_request
            finally:
                response.close()
            hops.append(response)
            target = redact(str(following.url))
            if following.url.userinfo:
                # No credentials are taken from there, and httpx writes the URL of a request into its log.
                following.url = following.url.copy_with(userinfo=b"")
            status = response.status_code
            if request.url.scheme == "https" and following.url.scheme != "https":
                raise FailedRequestError(f"redirected from https to {target}", passing=False, status=status)
            if _asked(following) in seen or len(seen) > _REDIRECTS:
                why = "in a circle" if _asked(following) in seen else f"more than {_REDIRECTS} times"
                raise FailedRequestError(f"redirected {why}, last to {target}", passing=False, status=status)
            seen.add(_asked(following))
            way.append(target)
            if _origin(following.url) != _origin(request.url):
                # Credentials were meant for the first origin. httpx takes the header off, but not from http to https.
                following.headers.pop("Authorization", None)
                auth = _no_auth(own=own)
            request = following

    def _send(self, client: Client, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
        """Send a request, as soon as the client's pool has a connection for it."""
        import httpx

        turns = _POOL_TURNS
        while True:
            try:
                return _sent(client, request, auth)
            except httpx.PoolTimeout:
                self._waker.check()
                turns -= 1
                if turns == 0:
                    raise
            except httpx.HTTPStatusError as error:
                return _refused(error, request)
            except RuntimeError:
                # So httpx says that a client is closed: ours is when the cache was closed since the last redirect.
                self._waker.check()
                raise


def _own_client() -> httpx.Client:
    """Make a client of our own, by the settings of the environment.

    Raises:
        FailedTryError: where these cannot be followed.
    """
    import httpx

    try:
        return httpx.Client(
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            headers={"User-Agent": f"wheelcache/{__version__}"},
        )
    except (OSError, ValueError, httpx.InvalidURL) as error:
        paths = [f"{name}={os.environ[name]}" for name in _PATHS if os.environ.get(name)]
        proxies = [name for name in _PROXIES if os.environ.get(name) or os.environ.get(name.lower())]
        named = ", ".join(paths + proxies) or "the system's proxies"
        raise FailedRequestError(
            f"no client can be made by the settings of the environment ({named}): {_explain(error, 0)}",
            passing=False,
            hint="Check what these variables say or, in Python, give a client of your own: client=httpx.Client(...).",
        ) from _system_error(error)


# What httpx follows: https://www.python-httpx.org/environment_variables/. Its errors do not name them, and may quote
# what is in those of a proxy, a password among it.
_PATHS = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def _alone(response: httpx.Response) -> socket.socket | None:
    """Return the socket that an answer comes from and nothing else does, ``None`` where there is none such."""
    return None if response.http_version != "HTTP/1.1" else socket_of(response.extensions.get("network_stream"))


def failed_response(response: httpx.Response, now: float) -> FailedRequestError:
    """Return what an answer is that brings nothing."""
    status = response.status_code
    wait = retry_after(response.headers.get("Retry-After"), now) if status in _PASSING_STATUSES else None
    problem = f"the server answers {status} {response.reason_phrase}".rstrip()
    return FailedRequestError(problem, passing=status in _PASSING_STATUSES, status=status, retry_after=wait)


# Statuses that can pass: time-out, too early, too many requests, and errors of the server or a proxy before it.
_PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}


def _sent(client: Client, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
    if auth is None:
        return client.send(request, stream=True, follow_redirects=False)
    return client.send(request, stream=True, follow_redirects=False, auth=auth)


def _refused(error: httpx.HTTPStatusError, request: httpx.Request) -> httpx.Response:
    """Return the answer that a hook of the caller's client does not let pass, without its body.

    Such a hook is in httpx's own documentation: https://www.python-httpx.org/advanced/event-hooks/. What the status
    means is known here: a 503 passes, and a mirror may have what is 404.
    """
    import httpx

    if error.response.is_success:
        raise error
    theirs = error.response
    headers = [(name, text) for name, text in theirs.headers.raw if name.lower() != b"content-encoding"]
    # Not the other extensions: the connection that they name may be in use for another request by now.
    kept = {"reason_phrase": theirs.reason_phrase.encode("ascii")}
    return httpx.Response(theirs.status_code, headers=headers, request=request, extensions=kept)


def _auth(client: Client, source: Source, *, own: bool) -> httpx.Auth | None:
    """Choose the credentials: the caller's client rules (``None``), then those in the URL, then the user's netrc.

    They are given here and not in the URL, since httpx writes the URL of a request into its log.
    """
    import httpx

    if client.auth is None and source.auth is not None:
        return httpx.BasicAuth(*source.auth)
    return _no_auth(own=True) if own else None


def _no_auth(*, own: bool) -> httpx.Auth:
    """No credentials but, with our own client, those that the user's netrc file has for the host that is asked."""
    from netrc import NetrcParseError

    import httpx

    if own:
        named = os.environ.get("NETRC")
        # Where pip looks, and named as it does: the file that Python finds by itself must not be readable for others.
        for path in [named] if named else ["~/.netrc", "~/_netrc"]:
            try:
                return httpx.NetRCAuth(os.path.expanduser(path))
            except (OSError, ValueError, NetrcParseError):
                continue  # most people have no such file, and one that cannot be read is not ours to complain of
    return httpx.Auth()


def _asked(request: httpx.Request) -> tuple[str, str | None]:
    """What is asked of a server: who comes back to a URL with a cookie more may get another answer there."""
    return str(request.url), request.headers.get("Cookie")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _failed(error: Exception, received: int) -> FailedRequestError:
    """Return what a try is that httpx ended: will it come again, and what can be done about it."""
    import ssl

    import httpx

    # It says with which status a proxy refuses to connect, and only there: that of SOCKS has none.
    refused = re.match(r"\d{3}\b", str(error), re.ASCII) if isinstance(error, httpx.ProxyError) else None
    if refused is not None:
        status = int(refused[0])
        problem, hint = f"ProxyError: the proxy refuses to connect with {status}", _PROXY_ADVICE.get(status, "")
        return FailedRequestError(problem, passing=status in _PASSING_STATUSES, status=status, hint=hint or _PROXY)
    problem = _explain(error, received)
    if isinstance(error, httpx.ProxyError):
        return FailedRequestError(problem, passing=False, hint=_PROXY)
    if isinstance(_system_error(error), ssl.SSLCertVerificationError):
        return FailedRequestError(problem, passing=False, hint=_UNTRUSTED)
    # A protocol that we violated is no final failure: over HTTP/2 it is what a request gets whose connection ended.
    passing = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
    return FailedRequestError(problem, passing=passing)


_PROXY = "Check the proxy that the environment or the client names."
_PROXY_ADVICE = {
    403: "The proxy does not connect to this host: ask whoever runs it, or name the host in NO_PROXY.",
    407: "The proxy wants credentials: put them into its URL, in HTTPS_PROXY or in the client.",
}
_UNTRUSTED = (
    "Check the certificate of the server. Where its authority is one of your own, name the file of that in "
    "SSL_CERT_FILE or, in Python, give client=httpx.Client(verify=...)."
)


def _system_error(error: BaseException) -> OSError | None:
    """Return what the system said, where that is the reason."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _explain(error: Exception, received: int) -> str:
    """Say what failed: in the system's words, or by its kind, since what httpx says may quote URLs and headers."""
    kind = type(error)
    system = _system_error(error)
    if _HARMLESS.fullmatch(str(error)):
        return f"{kind.__name__}: {error}"
    # Every class of httpx says in the first line of its documentation what it means.
    words = (system.strerror if system else None) or (kind.__doc__ or "").strip().partition("\n")[0]
    where = f" (after {received} bytes)" if received else ""
    return f"{kind.__name__}: {words}".rstrip(": ") + where


def length(header: str | None) -> int | None:
    """Read a Content-Length header; ``None`` where it is none that can be."""
    # int() has a limit, and the bytes of no file are a number of more digits.
    return int(header) if header is not None and _LENGTH.fullmatch(header) else None


def retry_after(header: str | None, now: float) -> float | None:
    """Read a Retry-After header, in seconds or as a date; ``None`` where there is none that can be read."""
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header)
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(header)
        # The zone "-0000" gives a date without one; taken as local time, Windows refuses those before 1970.
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None
