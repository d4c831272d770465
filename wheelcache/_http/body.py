"""Iterate over the body of a response. The caller stores it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from .._operation import Operation
from .errors import FailureKind, failed_request
from .headers import is_encoded
from .response import Response


def iter_body(op: Operation, response: Response) -> Iterator[bytes]:
    """Yield the decoded body in chunks.

    Raises:
        FailedRequestError: if the body breaks off. Errors of the code that consumes the chunks are not translated.
        OperationCancelledError: if the operation is cancelled.
    """
    inflater = None if response.body.is_decoded or not is_encoded(response.headers) else zlib.decompressobj(47)
    while True:
        chunk = response.body.read(op)
        # A socket that was shut down to interrupt the read looks like the end of the body.
        op.check()
        if chunk is None:
            return
        try:
            yield chunk if inflater is None else inflater.decompress(chunk)
        except zlib.error as error:
            raise failed_request(FailureKind.DECODING) from error
