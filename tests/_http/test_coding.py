"""Content codings: every name, every form, and bodies that expand to gigabytes, decoded piece by piece."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from marks import any_system

from wheelcache._http.coding import (
    PIECE,
    DecodedSizeError,
    InvalidBodyError,
    TruncatedBodyError,
    UnsupportedCodingError,
    decode,
    describe,
    parse_codings,
)

pytestmark = any_system

NOISE = random.Random(11).randbytes(300_000)
TEXT = b"a line of text that can be compressed\n" * 20_000
LARGE = {"text": TEXT, "noise": NOISE}


def zlib_deflate(data: bytes) -> bytes:
    return zlib.compress(data)


def raw_deflate(data: bytes) -> bytes:
    return deflated(data, -zlib.MAX_WBITS)


def stored_deflate(data: bytes) -> bytes:
    return deflated(data, -zlib.MAX_WBITS, level=0)


def deflated(data: bytes, window_bits: int, level: int = 6) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, window_bits)
    return stream.compress(data) + stream.flush()


def one_member(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def three_members(data: bytes) -> bytes:
    third = len(data) // 3 + 1
    return b"".join(gzip.compress(data[start : start + third]) for start in range(0, 3 * third, third))


def with_name_and_garbage(data: bytes) -> bytes:
    body = gzip.compress(data, mtime=0)
    return body[:3] + b"\x08" + body[4:10] + b"demo.whl\0" + body[10:] + b"\0" * 600 + b"garbage"


FORMS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", one_member),
    ("gzip", three_members),
    ("gzip", with_name_and_garbage),
    ("deflate", zlib_deflate),
    ("deflate", raw_deflate),
    ("deflate", stored_deflate),
]


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Yield bytes in chunks of these sizes, again and again."""
    position, turn = 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        yield data[position : position + size]
        position, turn = position + size, turn + 1
        if turn % len(sizes) == 0:
            yield b""


@pytest.mark.parametrize(
    ("field", "codings"),
    [
        ("", ()),
        (" ", ()),
        ("identity", ()),
        ("Identity, ,", ()),
        ("gzip", ("gzip",)),
        ("GZip ", ("gzip",)),
        ("x-gzip", ("gzip",)),
        ("X-GZIP, identity", ("gzip",)),
        ("x-compress", ("compress",)),
        ("deflate", ("deflate",)),
        ("br", ("br",)),
        ("gzip, gzip", ("gzip", "gzip")),
        ("gzip,br\t, ", ("gzip", "br")),
        ("UTF-8", ("utf-8",)),
        ("gzip;q=1", ("gzip;q=1",)),
    ],
)
def test_the_names_of_codings(field: str, codings: tuple[str, ...]) -> None:
    """Names are compared in lower case, aliases are resolved, and identity is no coding."""
    assert parse_codings({"Content-Encoding": field}) == codings


def test_a_body_without_the_field_has_no_coding() -> None:
    """Most responses have no Content-Encoding."""
    assert parse_codings({}) == ()


@pytest.mark.parametrize("data", [b"", b"x", TEXT, NOISE], ids=["empty", "one byte", "text", "noise"])
@pytest.mark.parametrize(("coding", "encode"), FORMS)
def test_every_form_is_decoded(coding: str, encode: Callable[[bytes], bytes], data: bytes) -> None:
    """Each form of gzip and deflate gives the original bytes."""
    is_same = b"".join(decode([encode(data)], (coding,))) == data
    assert is_same


@given(
    data=st.binary(max_size=2000) | st.sampled_from(sorted(LARGE)),
    form=st.sampled_from(FORMS),
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=4),
)
@example(data=b"abc", form=FORMS[1], sizes=[1])
@example(data=b"abc", form=FORMS[2], sizes=[1])
@example(data=b"", form=FORMS[3], sizes=[1])
def test_any_chunks_give_the_same_bytes(data: bytes | str, form, sizes: list[int]) -> None:
    """Any data, in any form and cut into any chunks, is decoded to the original bytes."""
    coding, encode = form
    data = LARGE[data] if isinstance(data, str) else data
    body = encode(data)
    if len(body) / min(sizes) > 5000:
        sizes = [size + len(body) // 5000 for size in sizes]
    pieces = list(decode(cut(body, sizes), (coding,)))
    is_same = b"".join(pieces) == data  # a comparison of large bytes in an assertion takes seconds
    assert is_same
    assert all(0 < len(piece) <= PIECE for piece in pieces)


@given(data=st.binary(max_size=500), form=st.sampled_from(FORMS), limit=st.integers(0, 600))
def test_no_more_bytes_than_the_limit(data: bytes, form, limit: int) -> None:
    """No more bytes than the limit are yielded, and exactly as many are no error."""
    coding, encode = form
    received = bytearray()
    try:
        for piece in decode([encode(data)], (coding,), limit):
            received += piece
    except DecodedSizeError:
        assert len(data) > limit
        assert len(received) <= limit
    else:
        assert bytes(received) == data
        assert len(data) <= limit


@given(data=st.binary(max_size=300), form=st.sampled_from([*FORMS[:2], *FORMS[3:]]), share=st.floats(0, 1))
def test_a_cut_body_is_truncated(data: bytes, form, share: float) -> None:
    """A body that ends anywhere before its end is truncated, unless nothing but whole members was received."""
    coding, encode = form
    body = encode(data)
    at = int(share * (len(body) - 1))
    members = [encode(b"")] if encode is one_member else []
    if at == 0 or any(body[:at].endswith(member) for member in members) or encode is three_members:
        return
    with pytest.raises(TruncatedBodyError):
        b"".join(decode([body[:at]], (coding,)))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_empty_body_is_empty(coding: str) -> None:
    """A body without any bytes is decoded to no bytes: proxies label empty bodies, too."""
    assert list(decode([], (coding,))) == []
    assert list(decode([b"", b""], (coding,))) == []


@given(body=st.binary(min_size=1, max_size=300), coding=st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_decoded_or_refused(body: bytes, coding: str) -> None:
    """Bytes that are not in their coding are an error of this module, never another one."""
    try:
        list(decode([body], (coding,), 10_000))
    except (InvalidBodyError, TruncatedBodyError, DecodedSizeError):
        pass


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("body", [b"PK\x03\x04" + NOISE, b"<!doctype html><title>Log in</title>"])
def test_plain_bytes_are_invalid(body: bytes, coding: str) -> None:
    """An archive or a page that is labelled with a coding is not in that coding."""
    with pytest.raises(InvalidBodyError):
        list(decode([body], (coding,)))


@pytest.mark.parametrize("position", [-1, -5, 1000])
def test_a_damaged_body_is_invalid(position: int) -> None:
    """A changed bit is found by the checksum, the length, or the decoder itself."""
    body = bytearray(gzip.compress(TEXT + NOISE))
    body[position] ^= 0xFF
    with pytest.raises(InvalidBodyError):
        list(decode([bytes(body)], ("gzip",)))


def test_a_damaged_second_member_is_invalid() -> None:
    """Bytes with the magic number of gzip are another member, and must be one."""
    with pytest.raises(InvalidBodyError):
        list(decode([gzip.compress(b"first") + b"\x1f\x8bno"], ("gzip",)))


@pytest.mark.parametrize(
    "codings",
    [("br",), ("zstd",), ("compress",), ("utf-8",), ("gzip", "gzip"), ("deflate", "gzip"), ("gzip",) * 1000, ()],
    ids=lambda codings: "-".join(codings)[:20],
)
def test_other_codings_are_refused(codings: tuple[str, ...]) -> None:
    """Other codings and lists are refused before a byte is read."""

    def unread() -> Iterator[bytes]:
        raise AssertionError
        yield b""

    with pytest.raises(UnsupportedCodingError, match="does not decode") as caught:
        next(decode(unread(), codings))
    assert len(str(caught.value)) < 120


def test_names_in_errors_have_no_control_characters() -> None:
    """A server chooses the name, and must not write to a terminal with it."""
    assert describe(["\x1b[31mred\x07", "\u202e"]) == r"'\x1b[31mred\x07, \u202e'"


def bomb(coding: str, size: int) -> Iterator[bytes]:
    """Yield a body of zeros that expands by a factor of a thousand, in one chunk of all its bytes."""
    stream = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15}[coding])
    zeros = bytes(1 << 20)
    body = bytearray()
    for _ in range(size >> 20):
        body += stream.compress(zeros)
    yield bytes(body + stream.flush())


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_needs_little_memory(coding: str) -> None:
    """A chunk that expands to 256 MB is decoded with a few megabytes of memory."""
    chunks = list(bomb(coding, 256 << 20))
    tracemalloc.start()
    try:
        total = sum(map(len, decode(chunks, (coding,))))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 256 << 20
    assert peak < 4 << 20


def test_a_bomb_ends_at_the_limit() -> None:
    """Decoding ends at the limit, and the rest of the body is not read."""
    body = next(bomb("gzip", 64 << 20))
    parts = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    read = []

    def chunks() -> Iterator[bytes]:
        for part in parts:
            read.append(part)
            yield part

    with pytest.raises(DecodedSizeError):
        list(decode(chunks(), ("gzip",), 1 << 20))
    assert len(read) < len(parts) / 10


def test_many_empty_members_give_no_bytes() -> None:
    """Members without content need no memory and end."""
    assert list(decode([gzip.compress(b"") * 50_000], ("gzip",))) == []
