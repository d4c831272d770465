"""Read a wheel on a server by range requests.

The end of the wheel is requested first. It contains the central directory of the archive, and in most wheels METADATA
too, since build tools write METADATA last:
https://packaging.python.org/en/latest/specifications/binary-distribution-format/#recommended-archiver-features
Other parts are requested when they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from .._archive.wheel import LARGEST_METADATA
from .._archive.zip import LONGEST_HEADER, LONGEST_TAIL
from .._http.body import iter_body
from .._http.client import HttpClient
from .._http.coding import CodingError, TruncatedBodyError, decode, parse_codings
from .._http.errors import FailedRequestError, failed_response
from .._http.headers import parse_content_range
from .._http.response import Response
from .._operation import Operation
from .._request import ResolvedRequest
from .download import is_private_response

# The size of METADATA with its header and descriptor.
_LARGEST_PART = LARGEST_METADATA + 2 * LONGEST_HEADER


class NoRangesError(Exception):
    """The server does not support range requests."""


class RefusedRangeError(FailedRequestError):
    """The server responded to a range request with an error status.

    The status does not show whether the server has the file. Some servers respond with 403, 404 or 500 to every range
    of a wheel that they have: https://github.com/sonatype/nexus-public/issues/346.
    """

    @classmethod
    def of(cls, failure: FailedRequestError) -> RefusedRangeError:
        """Return the error for a failure with an HTTP status."""
        return cls(
            failure.problem,
            is_transient=failure.is_transient,
            status=failure.status,
            retry_after=failure.retry_after,
        )


class RemoteWheel:
    """A wheel on a server, read by range requests. No byte is requested twice.

    Args:
        op: the operation that the requests belong to.
        http: sends the requests.
        request: the wheel. Its mirrors are not used.

    Attributes:
        size: the size of the wheel in bytes.
        is_private: whether only this user may use the parts that were received.

    Raises:
        NoRangesError: if the server does not support range requests.
        RefusedRangeError: if the server responds with an error status.
        FailedRequestError: if a request fails.
    """

    def __init__(self, op: Operation, http: HttpClient, request: ResolvedRequest) -> None:
        self._op = op
        self._http = http
        self._source = request.sources[0]
        self.is_private = False
        self._first, self._data, self.size = self._request(f"bytes=-{LONGEST_TAIL}")

    def read_at(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from an offset, or fewer at the end of the wheel.

        Raises:
            NoRangesError: if the server sends other bytes than the requested ones, or fewer bytes.
            RefusedRangeError: if the server responds with an error status.
            FailedRequestError: if a request fails.
        """
        end = min(offset + count, self.size)
        data = bytearray()
        while (start := offset + len(data)) < end:
            data += self._known_part(start, end) or self._requested_part(start, end)
        return bytes(data)

    def _known_part(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` that the first response contained."""
        return self._data[start - self._first : end - self._first] if start >= self._first else b""

    def _requested_part(self, start: int, end: int) -> bytes:
        if start < self._first < end:
            end = self._first
        first, data, size = self._request(f"bytes={start}-{end - 1}")
        part = data[start - first : end - first] if first <= start else b""
        # With a server that sends one byte for each request, the loop in read_at() would take too long.
        if size != self.size or len(part) < end - start:
            raise NoRangesError
        return part

    def _request(self, requested: str) -> tuple[int, bytes, int]:
        """Return the offset and the bytes of a range, and the size of the wheel."""
        with self._http.get(self._op, self._source, {"Range": requested}) as response:
            if response.status_code in {HTTPStatus.OK, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
                raise NoRangesError
            if response.status_code != HTTPStatus.PARTIAL_CONTENT:
                raise RefusedRangeError.of(failed_response(response, self._op.system.now()))
            sent = parse_content_range(response.headers.get("Content-Range"))
            if sent is None or sent.first is None or sent.total is None or parse_codings(response.headers):
                raise NoRangesError
            if sent.length > _LARGEST_PART:
                raise NoRangesError
            self.is_private = self.is_private or is_private_response(response)
            data = read_received(self._op, response, _LARGEST_PART)
        if len(data) != sent.length:
            raise NoRangesError
        return sent.first, data, sent.total


def read_body(op: Operation, response: Response, limit: int, is_content: Callable[[bytes], bool]) -> bytes:
    """Return the body of a response. If the server has labelled it with a content coding, decode it.

    Args:
        op: the operation.
        response: the response.
        limit: the maximum number of bytes of the body, and of the decoded body.
        is_content: returns whether the received bytes are the requested ones. If they are, the label is wrong.

    Raises:
        FailedRequestError: if the body has too many bytes, or cannot be decoded.
    """
    data = read_received(op, response, limit)
    codings = () if response.body.is_decoded else parse_codings(response.headers)
    if not codings or is_content(data):
        return data
    try:
        return b"".join(decode([data], codings, limit))
    except CodingError as error:
        is_transient = isinstance(error, TruncatedBodyError)
        raise FailedRequestError(f"the body cannot be decoded: {error}", is_transient=is_transient) from None


def read_received(op: Operation, response: Response, limit: int) -> bytes:
    """Return the body of a response as it was received.

    Raises:
        FailedRequestError: if the body has more than ``limit`` bytes.
    """
    data = bytearray()
    for chunk in iter_body(op, response):
        data += chunk
        if len(data) > limit:
            raise FailedRequestError(f"the response has more than {limit} bytes", is_transient=False)
    return bytes(data)
