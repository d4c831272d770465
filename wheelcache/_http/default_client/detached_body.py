"""Read the bodies of responses without the HTTP parser of the pool.

The parser (h11) copies each byte four times, and holds Python's global interpreter lock meanwhile. For a large wheel,
this takes as long as its sha256. Parallel downloads wait for each other. A body of a declared size needs no parser.

The connection therefore passes the head of such a response to the pool with a Content-Length of 0. The transport
restores the field. It reads the body into one buffer from the connection. The response names its connection
(https://www.encode.io/httpcore/extensions/#network_stream).

The pool still manages its connections. It reuses a connection if the body was read completely, and closes it otherwise.
Only the pool's log shows the changed field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .network import InterruptibleStream

_READ_SIZE = 1 << 20

# This finds the same end of the head as h11 does. Bodies of other statuses are not stored.
_HEAD = re.compile(rb"HTTP/1\.[01] 20[036](?=[ \r\n]).*?\n\r?\n", re.DOTALL)
_FRAMING = re.compile(rb"\n(?:content-length|transfer-encoding)", re.IGNORECASE)
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r?\n(?![ \t])", re.IGNORECASE)


def detach_body(data: bytes) -> tuple[bytes, bytes, int] | None:
    """Return the changed head of a response, the first bytes of its body, and the body's size.

    Returns ``None`` if the head is incomplete, or does not declare the size in one valid field.

    Args:
        data: the first bytes of the response.
    """
    if (found := _HEAD.match(data)) is None:
        return None
    head = found[0]
    length = _LENGTH.search(head)
    if length is None or len(_FRAMING.findall(head)) > 1:
        return None
    return head[: length.start(1)] + b"0" + head[length.end(1) :], data[len(head) :], int(length[1])


def restore_headers(response: Any) -> list[tuple[bytes, bytes]]:
    """Return the header fields of a response of the pool as the server sent them."""
    stream: InterruptibleStream = response.extensions["network_stream"]
    headers: list[tuple[bytes, bytes]] = response.headers
    if stream.body_size is None:
        return headers
    size = str(stream.body_size).encode()
    return [(name, size if name.lower() == b"content-length" else text) for name, text in headers]


class BodyReader:
    """Reads the body of a response of the pool.

    Args:
        request: the request.
        response: the response, with its body still unread.
    """

    def __init__(self, request: Any, response: Any) -> None:
        self._stream: InterruptibleStream = response.extensions["network_stream"]
        self._size = self._remaining = self._stream.body_size or 0
        self._timeout: float | None = request.extensions.get("timeout", {}).get("read")
        # The body that the pool parses. If the body is detached, this one is empty. Reading it ends the response.
        self._parsed: Iterator[bytes] = iter(response.iter_stream())

    def read(self) -> bytes | memoryview | None:
        """Return the next bytes, or ``None`` at the end. The bytes are valid until the next call.

        Raises:
            httpcore.RemoteProtocolError: if the server closes the connection before the end.
        """
        if not self._remaining:
            return next(self._parsed, None)
        data = self._stream.read_body(min(self._remaining, _READ_SIZE), self._timeout)
        if not data:
            raise self._stream.httpcore.RemoteProtocolError(
                "peer closed connection without sending complete message body "
                f"(received {self._size - self._remaining} bytes, expected {self._size})"
            )
        self._remaining -= len(data)
        return data
