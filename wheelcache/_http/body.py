"""Iterate over the body of a response. The caller stores it."""

from __future__ import annotations

from collections.abc import Iterator

from .._operation import Operation
from .adapters.library import httpx
from .errors import system_error, to_failure
from .headers import is_encoded
from .interrupt import running


def iter_body(op: Operation, response: httpx.Response) -> Iterator[bytes]:
    """Yield the decoded body in chunks.

    Raises:
        FailedRequestError: if the body breaks off. Errors of the code that consumes the chunks are not translated.
        OperationCancelledError: if the operation is cancelled.
    """
    # An event hook or a transport of the caller's client may have read the body, which is then in memory, decoded.
    plain = not is_encoded(response.headers) and not response.is_stream_consumed
    chunks = response.iter_raw() if plain else response.iter_bytes()
    while True:
        chunk = _next_chunk(op, response, chunks)
        # A socket that was shut down to interrupt the read looks like the end of the body.
        op.check()
        if chunk is None:
            return
        yield chunk


def _next_chunk(op: Operation, response: httpx.Response, chunks: Iterator[bytes]) -> bytes | None:
    try:
        with running(op):
            return next(chunks, None)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        op.check()
        # The operating system's error is kept as the cause; httpx's is not, since its text may quote a URL.
        raise to_failure(error, response.num_bytes_downloaded) from system_error(error)
