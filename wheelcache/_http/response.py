"""A response, independent of the HTTP library that received it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from .._operation import Operation
from .credentials import is_credential

READ_BODY = "wheelcache_read_body"
"""The extension of our own client's responses that contains a function to read the body: see :meth:`Body.read`."""


class Headers(Mapping[str, str]):
    """Header fields with lowercase names. A name is looked up in any case. Repeated fields are joined by commas.

    Args:
        fields: names and values, in the order in which they were received.
    """

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, str] = {}
        for name, text in fields:
            key = name.lower()
            self._fields[key] = f"{self._fields[key]}, {text}" if key in self._fields else text

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Body(Protocol):
    """The body of a response.

    Attributes:
        is_decoded: whether the client has read the whole body into memory and decoded its content coding. Otherwise,
            the bytes are those that the server sent.
    """

    is_decoded: bool

    def interruptible(self, op: Operation) -> AbstractContextManager[None]:
        """Within the block, interrupt a blocked read if the operation is cancelled."""
        ...

    def read(self, op: Operation) -> bytes | memoryview | None:
        """Return the next bytes, or ``None`` at the end. The bytes are valid until the next call.

        Raises:
            FailedRequestError: if the body cannot be read to its end.
        """
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


class EmptyBody:
    """The body of a response that the client rejected. It cannot be read."""

    is_decoded = True

    def interruptible(self, op: Operation) -> AbstractContextManager[None]:  # noqa: ARG002 - see Body
        """Do nothing, since no read blocks."""
        return nullcontext()

    def read(self, op: Operation) -> bytes | None:  # noqa: ARG002 - see Body
        """Return ``None``."""
        return None

    def close(self) -> None:
        """Do nothing."""


@dataclass
class Response:
    """A response.

    Attributes:
        status_code: the status.
        reason_phrase: the words after the status, or an empty string if the server sent no words.
        headers: the header fields of the response.
        url: the URL of the request, without credentials and fragment.
        request_headers: the header fields of the request as it was sent.
        location: the URL in the Location field of a redirect, as the server sent it. ``None`` for other responses.
        body: the body.
        history: the redirects that led to this response, oldest first.
        has_params: whether the client added parameters to the URL. They may be credentials.
    """

    status_code: int
    reason_phrase: str
    headers: Headers
    url: str
    request_headers: Headers
    location: str | None
    body: Body
    history: list[Response] = field(default_factory=list)
    has_params: bool = False

    @property
    def with_credentials(self) -> bool:
        """Whether the request of this response, or of a redirect that led to it, was sent with credentials."""
        return any(hop.has_params or any(map(is_credential, hop.request_headers)) for hop in (*self.history, self))
