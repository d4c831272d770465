"""Receive the body of a response into a partial file, within limits, and remove its content coding.

The received bytes are written unchanged. If the server has labelled them with a content coding and they are not the
requested wheel, they are decoded into a second file. Some servers label a plain wheel as gzip. Others compress a wheel
although the request forbids it: https://github.com/pypa/pip/blob/main/src/pip/_internal/network/utils.py.
"""

from __future__ import annotations

from http import HTTPStatus

from .._exceptions import HashMismatchError, InvalidWheelError, SizeMismatchError
from .._http.body import iter_body
from .._http.coding import (
    DecodedSizeError,
    InvalidBodyError,
    TruncatedBodyError,
    UnsupportedCodingError,
    decode,
    parse_codings,
)
from .._http.errors import FailedRequestError
from .._http.headers import declared_length
from .._http.response import Response
from .._models import Phase
from .._operation import Operation
from .._request import ResolvedRequest
from .partial import PartialDownload

# A wheel is already compressed. A second compression adds a header, and a few bytes per block.
_CODING_OVERHEAD_PART, _CODING_OVERHEAD_BYTES = 16, 1 << 16
# The end record does not identify a plain archive here, because it also occurs in a stream of stored blocks.
_ARCHIVE_START = b"PK\x03\x04"

_LIMIT_ADVICE = (
    "If the wheel is really this large, request it with its size (size=...), or raise the limit with "
    "Cache(limits=DownloadLimits(max_bytes=...))."
)
_CODING_ADVICE = "Ask the operator of the server to send wheels without a content coding."


class BodyReceiver:
    """Receives the bodies of one download.

    Args:
        op: the operation.
        partial: the file.
        request: the request.
        max_bytes: the maximum size in bytes of a body if the request has no size, or ``None`` for no limit.

    Attributes:
        partial: the file.
    """

    def __init__(
        self, op: Operation, partial: PartialDownload, request: ResolvedRequest, max_bytes: int | None
    ) -> None:
        self.partial = partial
        self._op = op
        self._request = request
        self._max_bytes = max_bytes

    def receive(self, response: Response) -> tuple[str, ...]:
        """Append a body to the file, as it was received, and return its content codings.

        Raises:
            FailedRequestError: if the body ends before its declared end, or exceeds ``max_bytes``.
            SizeMismatchError: if the body exceeds the requested size.
            CommitError: if the bytes cannot be written.
        """
        op, partial, stage = self._op, self.partial, self.partial.stage
        # A transport or an event hook of the caller may have read the body. Such a body is decoded and complete.
        is_in_memory = response.body.is_decoded
        codings = () if is_in_memory else parse_codings(response.headers)
        declared = None if is_in_memory else declared_length(response.headers)
        partial.is_encoded = bool(codings)
        total = declared if codings else partial.total
        start = stage.written
        op.report(Phase.DOWNLOADING, start, total)
        self._check_limit(start + (declared or 0))
        for chunk in iter_body(op, response):
            self._check_limit(stage.written + len(chunk))
            partial.write(chunk)
            op.report(Phase.DOWNLOADING, stage.written, total)
        received = stage.written - start
        if declared is not None and received != declared:
            raise FailedRequestError(f"the body ended after {received} of {declared} bytes", is_transient=True)
        if response.status_code == HTTPStatus.PARTIAL_CONTENT and stage.written < (partial.total or 0):
            # A server may send only a part of the requested range.
            raise FailedRequestError(f"received {stage.written} of {partial.total} bytes", is_transient=True)
        return codings

    def _check_limit(self, size: int) -> None:
        """Raise an error if a file of this size exceeds its limit.

        Without a content coding, the staged file itself compares its size with the requested one.
        """
        expected = self._request.size
        if expected is None:
            if self._max_bytes is not None and size > self._max_bytes:
                raise self._too_large(self._max_bytes)
            return
        most = expected + expected // _CODING_OVERHEAD_PART + _CODING_OVERHEAD_BYTES
        if self.partial.is_encoded and size > most:
            url = self._request.display_url
            raise SizeMismatchError(operation="download", url=url, expected=expected, actual=size)

    def _too_large(self, limit: int) -> FailedRequestError:
        # A file of this size must not remain in the cache as a partial download.
        self.partial.restart()
        problem = f"the body has more than {limit} bytes, the limit for a request without a size"
        return FailedRequestError(problem, is_transient=False, hint=_LIMIT_ADVICE)

    def check(self, codings: tuple[str, ...]) -> None:
        """Check the received bytes, and decode them if they are not the requested wheel.

        Args:
            codings: the content codings of the body.

        Raises:
            HashMismatchError, SizeMismatchError, InvalidWheelError: if the bytes are not the requested ones.
            FailedRequestError: if the bytes cannot be decoded, or exceed ``max_bytes`` when decoded.
            CommitError: if the file cannot be read or written.
        """
        stage = self.partial.stage
        if not codings:
            stage.check()
            return
        mismatch = self._mismatch_of_received()
        if mismatch is None:
            return
        try:
            self.partial.rewrite(lambda chunks: decode(chunks, codings, self._decoded_limit))
        except InvalidBodyError:
            # The server declared a wrong content coding. The received bytes are those of the file.
            raise mismatch from None
        except TruncatedBodyError as error:
            raise FailedRequestError(str(error), is_transient=True) from None
        except UnsupportedCodingError as error:
            problem = f"the body has a content coding: {error}"
            raise FailedRequestError(problem, is_transient=False, hint=_CODING_ADVICE) from None
        except DecodedSizeError:
            raise self._too_large(self._max_bytes or 0) from None
        stage.check()

    @property
    def _decoded_limit(self) -> int | None:
        return self._max_bytes if self._request.size is None else None

    def _mismatch_of_received(self) -> HashMismatchError | SizeMismatchError | InvalidWheelError | None:
        """Return the reason why the received bytes are not the requested wheel, or ``None`` if they are the wheel."""
        stage = self.partial.stage
        try:
            stage.check()
        except (HashMismatchError, SizeMismatchError, InvalidWheelError) as error:
            return error
        if self._request.hashes or stage.starts_with(_ARCHIVE_START):
            return None
        return InvalidWheelError(
            "the file is not a zip archive, because it does not begin with a member",
            operation="check",
            url=self._request.display_url,
            advice="Check the response of this URL.",
        )
