"""Inflate with zlib-ng if it is installed, or else with zlib. zlib-ng takes about half the time."""

from __future__ import annotations

import zlib
from typing import Any, Protocol


class Inflater(Protocol):
    """A decompressor of one raw deflate stream."""

    eof: bool

    @property
    def unconsumed_tail(self) -> bytes:
        """The input that was not consumed because the output reached its limit."""
        ...

    @property
    def unused_data(self) -> bytes:
        """The input after the end of the stream."""
        ...

    def decompress(self, data: bytes | memoryview, max_length: int = 0, /) -> bytes:
        """Return the next bytes of the output, at most ``max_length`` unless ``max_length`` is 0."""
        ...


def _choose() -> Any:
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return zlib
    return zlib_ng


_engine = _choose()
FAST: bool = _engine is not zlib
"""Whether zlib-ng is installed."""
ERRORS: tuple[type[Exception], ...] = (zlib.error, _engine.error)


def inflater() -> Inflater:
    """Return a decompressor for a new stream."""
    stream: Inflater = _engine.decompressobj(-zlib.MAX_WBITS)
    return stream


def crc32(data: bytes | memoryview, value: int = 0) -> int:
    """Return the CRC-32 of the data, where ``value`` is the CRC-32 of all earlier data."""
    checksum: int = _engine.crc32(data, value)
    return checksum
