"""Decode content codings with bounded memory.

wheelcache requests bodies without a content coding. Some servers and proxies compress them all the same. Others
label plain bytes as gzip. The caller therefore checks first whether the received bytes are already the requested ones.

HTTP libraries inflate each received chunk as a whole. 3.5 kB of ``gzip, gzip`` then become 4 GB of memory. This module
inflates in pieces of at most 256 KiB, up to a limit. It decodes only one coding, since no server has a reason to apply
two.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping

PIECE = 1 << 18
"""The largest piece that :func:`decode` yields, in bytes."""

# The input is divided into parts of this size, because zlib copies the rest of its input in each call.
_INPUT = 1 << 14
# https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1
_ALIASES = {"x-gzip": "gzip", "x-compress": "compress"}
_NO_CODINGS = {"", "identity"}
# https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_BITS = 16 + zlib.MAX_WBITS
# Errors show this many characters of the names in a header. A header may be long.
_SHOWN = 60


class CodingError(Exception):
    """A body cannot be decoded."""


class UnsupportedCodingError(CodingError):
    """The body has several codings, or one that wheelcache does not decode."""


class InvalidBodyError(CodingError):
    """The body is not in its declared coding, or is damaged."""


class TruncatedBodyError(CodingError):
    """The body ends before the end of its coding."""


class DecodedSizeError(CodingError):
    """The decoded body is larger than the limit."""


def parse_codings(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the content codings of a body, in lower case and in the order in which the server applied them.

    Args:
        headers: header fields. The values of repeated fields are joined by commas.
    """
    names = (name.strip().lower() for name in headers.get("Content-Encoding", "").split(","))
    return tuple(_ALIASES.get(name, name) for name in names if name not in _NO_CODINGS)


def describe(codings: Iterable[str]) -> str:
    """Return the names of codings for an error message, shortened and without control characters."""
    text = ascii(", ".join(codings))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...'"


def decode(chunks: Iterable[bytes], codings: tuple[str, ...], limit: int | None = None) -> Iterator[bytes]:
    """Yield a decoded body in pieces of at most 256 KiB.

    A gzip body may have several members. Bytes after the last one are ignored, as by :manpage:`gzip(1)`. Deflate may
    lack its zlib header: https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1.2.

    Args:
        chunks: the body as it was received.
        codings: its codings, from :func:`parse_codings`.
        limit: the maximum number of bytes to yield, or ``None`` for no limit.

    Raises:
        UnsupportedCodingError: if there are several codings, or the coding is neither gzip nor deflate.
        InvalidBodyError: if the bytes are not in this coding.
        TruncatedBodyError: if the body ends too early.
        DecodedSizeError: if the decoded body is larger than the limit.
    """
    pieces = _choose_decoder(codings)(_Input(chunks))
    total = 0
    while True:
        try:
            piece = next(pieces, None)
        except zlib.error as error:
            raise InvalidBodyError(str(error)) from error
        if piece is None:
            return
        total += len(piece)
        if limit is not None and total > limit:
            raise DecodedSizeError(f"the decoded body has more than {limit} bytes")
        yield piece


class _Input:
    """The received bytes in small parts. No part is empty."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._parts = (chunk[start : start + _INPUT] for chunk in chunks for start in range(0, len(chunk), _INPUT))
        self._returned = b""

    def take(self) -> bytes:
        """Return the next part, or no bytes at the end of the body."""
        part, self._returned = self._returned, b""
        return part or next(self._parts, b"")

    def put_back(self, data: bytes) -> None:
        """Put the unused rest of a part back, to be returned again."""
        self._returned = data + self._returned

    def peek(self, count: int) -> bytes:
        """Return the next ``count`` bytes without consuming them, or fewer at the end of the body."""
        while len(self._returned) < count and (part := next(self._parts, b"")):
            self._returned += part
        return self._returned[:count]


def _choose_decoder(codings: tuple[str, ...]) -> Callable[[_Input], Iterator[bytes]]:
    match codings:
        case ("gzip",):
            return _decode_gzip
        case ("deflate",):
            return _decode_deflate
    raise UnsupportedCodingError(f"wheelcache does not decode {describe(codings)}")


def _decode_gzip(body: _Input) -> Iterator[bytes]:
    """Decode all members of a gzip file."""
    is_member = bool(body.peek(1))
    while is_member:
        yield from _inflate(body, _GZIP_BITS)
        # Some writers append zeros or other bytes. Only the magic number begins another member.
        is_member = body.peek(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def _decode_deflate(body: _Input) -> Iterator[bytes]:
    """Decode deflate, with or without the zlib header that RFC 9110 requires."""
    if header := body.peek(2):
        yield from _inflate(body, zlib.MAX_WBITS if _is_zlib_header(header) else -zlib.MAX_WBITS)


def _is_zlib_header(header: bytes) -> bool:
    # The header has method 8 and a check value: https://www.rfc-editor.org/rfc/rfc1950#section-2.2. Deflate without a
    # header would have the same bytes only in a stored block whose padding is not zero. No known encoder writes that.
    return header[0] & 0x0F == zlib.DEFLATED and int.from_bytes(header, "big") % 31 == 0


def _inflate(body: _Input, window_bits: int) -> Iterator[bytes]:
    """Inflate one stream, and put the bytes after it back."""
    stream = zlib.decompressobj(window_bits)
    while not stream.eof:
        data = body.take()
        if not data:
            raise TruncatedBodyError("the body ends before the end of its content coding")
        piece = b""
        # After a full piece, the stream may contain more output even if all input was consumed. At the end of the
        # stream, unconsumed_tail may still contain bytes that unused_data contains too.
        while not stream.eof and (data or len(piece) == PIECE):
            piece = stream.decompress(data, PIECE)
            data = stream.unconsumed_tail
            if piece:
                yield piece
    body.put_back(stream.unused_data)
