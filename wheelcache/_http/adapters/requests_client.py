"""Let a session of requests serve as the client of a cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..._imports import third_party_import_lock
from ..interrupt import ReadInterrupter

if TYPE_CHECKING:
    import socket


Timeout: TypeAlias = float | tuple[float | None, float | None] | None

# The seconds to wait for a connection and for the next bytes, as in our own client. A session has no timeouts.
_DEFAULT_TIMEOUT = (10.0, 30.0)
_METHODS = ("headers", "auth", "prepare_request", "merge_environment_settings", "get_redirect_target", "send")


class Session(Protocol):
    """The methods of ``requests.Session`` that wheelcache calls."""

    def prepare_request(self, request: Any) -> Any:
        """Return a request with the session's defaults."""
        ...

    def get_redirect_target(self, resp: Any) -> Any:
        """Return the URL that a response redirects to."""
        ...

    def send(self, request: Any, **kwargs: Any) -> Any:
        """Send a request, and return the response."""
        ...


class RequestsClient:
    """A session that can be passed to a cache as its client. :func:`requests_client` creates it.

    Attributes:
        wrapped: the session.

    Args:
        session: the session.
        timeout: the timeout in the form of requests.
    """

    def __init__(self, session: Session, timeout: Timeout) -> None:
        self.wrapped = session
        self._timeout = timeout

    def create_adapter(self, interrupt_read: Callable[[socket.socket], None]) -> Any:
        """Return an adapter that sends its requests with this session: see :class:`.interface.AdaptedClient`."""
        with third_party_import_lock:
            from .requests_adapter import RequestsAdapter

        return RequestsAdapter(self.wrapped, ReadInterrupter(interrupt_read), self._timeout)


def requests_client(session: Session, *, timeout: Timeout = _DEFAULT_TIMEOUT) -> RequestsClient:
    """Let a :class:`requests.Session` serve as the ``client`` of a :class:`Cache` or an :class:`AsyncCache`.

    The session is used as it is, with its auth, headers, cookies, proxies, certificates, hooks and adapters. The cache
    never closes it. Its credentials, cookies and ``params`` are sent to the origin of the requested URL only. The cache
    follows redirects itself, and sends requests from several threads at once. requests does not guarantee that this is
    safe. Change neither the session nor its headers meanwhile, and use only custom auth classes that are thread-safe.

    By default, a session keeps ten connections to a host, and logs a warning for each further connection. To use more
    threads, mount an adapter with more connections: ``session.mount("https://", HTTPAdapter(pool_maxsize=100))``.

    urllib3 before 2.2 delivers a body in full pieces of 64 KiB. The last piece of an interrupted download is then
    requested again, and a very slow one counts as no progress.

    Cancellation ends the download of a body at once. The waits for a connection and for the headers of a response last
    until their timeouts.

    Args:
        session: the session.
        timeout: the seconds to wait for a connection, and the seconds to wait for the next bytes, as one number or a
            pair. ``None`` waits without limit, unless an adapter of the session has a timeout of its own.

    Raises:
        TypeError: if ``session`` is not a session.
        ValueError: if the timeout is not positive.

    Example::

        with requests.Session() as session, Cache(client=requests_client(session)) as cache:
            session.auth = ("user", "password")
            cache.fetch(url)
    """
    if isinstance(session, type) or not all(hasattr(session, name) for name in _METHODS):
        kind = type(session)
        raise TypeError(f"requests_client needs a requests.Session, not {kind.__module__}.{kind.__qualname__}")
    both = timeout if isinstance(timeout, tuple) and len(timeout) == len(_DEFAULT_TIMEOUT) else (timeout,)
    if not all(seconds is None or _is_positive(seconds) for seconds in both):
        raise ValueError(f"the timeout must be a positive number of seconds, a pair of them, or None, not {timeout!r}")
    return RequestsClient(session, timeout)


def _is_positive(seconds: object) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < math.inf
