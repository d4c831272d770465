"""Receive: the body of an answer into the partial file that waits for it.

Of the time that httpx takes for a body most is h11's copies and events, five copies of every byte, and all of it while
no other thread can run. Where all of the following hold, the rest of a body is read from its socket into one buffer
that is used again and again, and h11 never sees it:

- The answer is HTTP/1.1 with a Content-Length, and travels as it is.
- Between the answer and h11 is nothing but httpx's own: no transport of the caller's that wants to see the bytes. Then
  h11 can be told that the body has come (:func:`_unread`), and the connection is good for the next request. One whose
  body was not read to its end is closed by httpcore when the answer is, since h11 still waits for the rest.
- The socket is the connection's own: plain, or TLS straight on it. TLS within the TLS of a proxy has an object of its
  own that decrypts (``ssl.SSLObject``), and other transports (MockTransport, HTTP/2, an async client's) have no socket.
- What h11 has read ahead came first: the first chunk of ``iter_raw()`` is all that it has of the body, since a reader
  of a known length hands out everything it has buffered.

The client's read time-out holds for each read, as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._fetch.partial import PartialDownload
from .._fs.robustio import RobustIO
from .._models import Phase
from .client import FailedRequestError, length
from .interrupt import socket_of

if TYPE_CHECKING:
    import socket

    import httpx


_PARTIAL_CONTENT = 206
# What comes with the head and in the first read is not worth a buffer.
_SMALL = 1 << 17
_BUFFER = 1 << 18
# From an answer to what counts the rest of its body. None of it is promised: where another release of theirs has it
# elsewhere, bodies are read in the plain way, and a test fails.
_WAY_TO_READER = ("stream", "_stream", "_httpcore_stream", "_stream", "_connection", "_h11_state", "_reader")
_THEIRS = {"httpx", "httpcore", "h11"}


def is_encoded(response: httpx.Response) -> bool:
    """Whether the body travels in another form than it is stored in."""
    return response.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}


def receive(response: httpx.Response, partial: PartialDownload, fs: RobustIO) -> None:
    """Write a body where the partial file stands.

    Raises:
        FailedTryError: where it ends before its declared end.
    """
    encoded = is_encoded(response)
    declared = length(response.headers.get("Content-Length"))
    # A transport or a hook of the caller's may have read the body; then it is there, decoded and whole.
    there = response.is_stream_consumed
    partial.resumable = not encoded
    fs.op.report(Phase.DOWNLOADING, partial.stage.written, partial.total)
    begun = partial.stage.written
    for chunk in _chunks(response, declared, encoded=encoded):
        partial.write(chunk)
        fs.op.report(Phase.DOWNLOADING, partial.stage.written, partial.total)
    received = response.num_bytes_downloaded if encoded else partial.stage.written - begun
    if declared is not None and not there and received != declared:
        raise FailedRequestError(f"the body ended after {received} of {declared} bytes", passing=True)
    if response.status_code == _PARTIAL_CONTENT and partial.stage.written < (partial.total or 0):
        # A server may give less than the rest that was asked for.
        raise FailedRequestError(f"{partial.stage.written} of {partial.total} bytes came", passing=True)


def _chunks(response: httpx.Response, declared: int | None, *, encoded: bool) -> Iterator[bytes | memoryview]:
    if encoded or response.is_stream_consumed:
        yield from response.iter_bytes()
        return
    connection = unread = None
    if declared is not None and declared >= _SMALL and "Transfer-Encoding" not in response.headers:
        connection, unread = _socket_of(response), _unread(response, declared)
    chunks = response.iter_raw()
    if connection is None or declared is None or unread is None:
        yield from chunks
        return
    first = next(chunks, b"")
    yield first
    if not first:
        return
    left = declared - len(first)
    for chunk in _straight(connection, left, response):
        left -= len(chunk)
        response._num_bytes_downloaded += len(chunk)  # noqa: SLF001  - httpx gives it to who asks how far it came
        yield chunk
    if left == 0:
        unread._remaining = 0  # noqa: SLF001  - looked for and compared just before: there is no other way to say it
        yield from chunks


def _socket_of(response: httpx.Response) -> socket.socket | None:
    """Return the socket that the body comes from as it is, ``None`` where there is none such."""
    import ssl

    stream = response.extensions.get("network_stream")
    if response.http_version != "HTTP/1.1" or stream is None:
        return None
    return None if isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject) else socket_of(stream)


def _unread(response: httpx.Response, declared: int) -> Any:
    """Return h11's reader of a body that has not begun, whose ``_remaining`` are the bytes that it still waits for.

    ``None`` where it is not found just so, on a way of theirs alone.
    """
    found: Any = response
    for name in _WAY_TO_READER:
        found = getattr(found, name, None)
        if type(found).__module__.partition(".")[0] not in _THEIRS:
            return None
    return found if getattr(found, "_remaining", None) == declared else None


def _straight(connection: socket.socket, left: int, response: httpx.Response) -> Iterator[memoryview]:
    """Read so many bytes from a socket, in pieces that are good until the next one is asked for."""
    import httpx

    connection.settimeout(response.request.extensions.get("timeout", {}).get("read"))
    buffer = memoryview(bytearray(_BUFFER))
    while left > 0:
        try:
            count = connection.recv_into(buffer, min(left, _BUFFER))
        except TimeoutError as error:
            raise httpx.ReadTimeout("", request=response.request) from error
        except OSError as error:
            raise httpx.ReadError("", request=response.request) from error
        if count == 0:
            return
        left -= count
        yield buffer[:count]
