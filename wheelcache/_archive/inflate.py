"""Inflating: with zlib-ng where it is installed, since it takes about half the time, else with zlib."""

from __future__ import annotations

import zlib
from typing import Any, Protocol


class Inflater(Protocol):
    """A raw deflate stream being read."""

    eof: bool

    @property
    def unconsumed_tail(self) -> bytes:
        """The input that was not looked at, since there was enough output."""
        ...

    @property
    def unused_data(self) -> bytes:
        """The input after the end of the stream."""
        ...

    def decompress(self, data: bytes | memoryview, max_length: int = 0, /) -> bytes:
        """Return the next bytes, ``max_length`` at most."""
        ...


def _choose() -> Any:
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return zlib
    return zlib_ng


_engine = _choose()
FAST: bool = _engine is not zlib
"""Whether the faster library is there."""
ERRORS: tuple[type[Exception], ...] = (zlib.error, _engine.error)


def inflater() -> Inflater:
    """Return a new stream."""
    stream: Inflater = _engine.decompressobj(-zlib.MAX_WBITS)
    return stream


def crc32(data: bytes | memoryview, value: int = 0) -> int:
    """Return the checksum of zip archives, going on from that of what came before."""
    checksum: int = _engine.crc32(data, value)
    return checksum
