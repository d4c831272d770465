"""Iterate over the body of a response. The caller stores it."""

from __future__ import annotations

from collections.abc import Iterator

from .._operation import Operation
from .rate import current_watch
from .response import Response


def iter_body(op: Operation, response: Response) -> Iterator[bytes | memoryview]:
    """Yield the body in chunks, as it was received. A chunk is valid until the next one is read.

    If the client has already read the body, the chunks are decoded: see :class:`.Body`.

    Raises:
        FailedRequestError: if the body cannot be read to its end. Errors of the consumer are not translated.
        TooSlowError: if the body is received too slowly.
        OperationCancelledError: if the operation is cancelled.
    """
    watch = current_watch()
    while True:
        with watch.waiting():
            chunk = response.body.read(op)
        # A socket that was shut down to interrupt the read looks like the end of the body.
        op.check()
        watch.receive(len(chunk or b""))
        if chunk is None:
            return
        yield chunk
