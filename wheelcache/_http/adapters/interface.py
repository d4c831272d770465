"""The interface of an adapter, between the redirects of a request and one HTTP library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..._operation import Operation
from ..response import Headers, Response

if TYPE_CHECKING:
    import socket


class PreparedRequest(NamedTuple):
    """A request that can be sent.

    Attributes:
        url: the URL, without credentials and fragment.
        headers: the header fields. The client may add credentials when it sends the request.
        native: the request object of the library.
        auth: the credentials in the library's form, or ``None`` for those of the client.
        has_params: whether the client added parameters to the URL. They may be credentials.
    """

    url: str
    headers: Headers
    native: Any
    auth: Any
    has_params: bool


class Adapter(Protocol):
    """Sends requests with a client of one HTTP library, without following redirects."""

    def prepare(
        self, url: str, headers: Mapping[str, str], *, auth: tuple[str, str] | None, is_own_origin: bool
    ) -> PreparedRequest:
        """Build a GET request with the client's defaults.

        Args:
            url: the URL, without credentials.
            headers: further header fields.
            auth: a user name and password to use if the client has no credentials.
            is_own_origin: whether the client's credentials may be sent to this URL.

        Raises:
            FailedRequestError: if the URL or a header field is not valid.
        """
        ...

    def send(self, op: Operation, request: PreparedRequest) -> Response:
        """Send a request, and return its response with the body still unread.

        Raises:
            FailedRequestError: if there is no response.
            OperationCancelledError: if the operation is cancelled.
        """
        ...


class AdaptedClient(Protocol):
    """A client that creates its own adapter. Synchronous clients of httpx and httpx2 do not need to."""

    @property
    def wrapped(self) -> object:
        """The object that the caller passed."""
        ...

    def create_adapter(self, interrupt_read: Callable[[socket.socket], None]) -> Any:
        """Return an :class:`Adapter` that sends its requests with this client.

        The declared type is ``Any``, because a precise type would make the classes of this package public API.

        Args:
            interrupt_read: ends a read from a socket that blocks another thread.
        """
        ...
