"""Scenes of bodies: cut, slow, wrong, encoded, and of unexpected lengths."""

from __future__ import annotations

import gzip
import sys
import threading
import zlib
from collections.abc import Callable

from server import (
    Answer,
    Exchange,
    chunked,
    chunked_cut,
    gzipped,
    html,
    not_http,
    paced,
    reset,
    stalled,
    truncated,
    until_closed,
    without_ranges,
    without_validators,
    wrong_bytes,
    wrong_length,
)

from http_scenes.messages import (
    DISCONNECTED,
    NOT_A_WHEEL,
    RESET,
    TIMED_OUT,
    VIOLATED,
    cut,
    failed,
    undecodable,
    wrong_hash,
    wrong_size,
)
from http_scenes.scene import OTHER_WHEEL, QUICK_SECONDS, TRIES, WHEEL, ClientSettings, Difference, Fetch, Scene, Stage

QUICK = ClientSettings(read_seconds=QUICK_SECONDS)
# The server never answers, so a shorter timeout cannot end a request too early.
QUICKEST = ClientSettings(read_seconds=0.1)
UNHASHED = (Fetch(hashed=False),)
PAGE = b"<!doctype html><title>Log in</title><p>Who are you?"
OPEN_GATE = threading.Semaphore(1_000_000)


def gzipped_and_cut(exchange: Exchange) -> None:
    """The first half of a body with a Content-Encoding."""
    body = gzip.compress(exchange.body, 1, mtime=0)
    exchange.start(200, {"Content-Encoding": "gzip"}, length=len(body))
    exchange.write(body[: len(body) // 2])
    exchange.hang_up()


GZIPPED = gzip.compress(WHEEL.data, 1)
RAW_DEFLATED = zlib.compress(WHEEL.data, 1, -zlib.MAX_WBITS)


def not_http_head(exchange: Exchange) -> None:
    """A head that is not of HTTP."""
    exchange.hang_up()
    exchange.write_raw(b"220 mail.example.org ESMTP\r\n\r\n")


def encoded(coding: str, body: bytes) -> Answer:
    """A body with this Content-Encoding."""
    return lambda exchange: exchange.send(200, {"Content-Encoding": coding}, body)


def encoded_twice(exchange: Exchange) -> None:
    """A body with two fields that each name a coding."""
    body = gzip.compress(GZIPPED)
    head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n"
    exchange.write_raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def chunked_beside_a_length(exchange: Exchange) -> None:
    """The body in chunks, with a Content-Length that does not count: RFC 9112, 6.3."""
    exchange.start(200, {"Transfer-Encoding": "chunked", "Content-Length": "7"})
    exchange.write_raw(f"{len(exchange.body):x}\r\n".encode() + exchange.body + b"\r\n0\r\n\r\n")


def truncated_without_ranges(exchange: Exchange) -> None:
    """The first half of the body, ignoring any requested range."""
    exchange.start(200, {}, length=len(exchange.body))
    exchange.write(exchange.body[:5000])
    exchange.hang_up()


def sized(size: int) -> tuple[Fetch]:
    return (Fetch(size=size),)


def stalls(at: int | None, *, always: bool = False) -> Callable[[Stage], None]:
    """Let the server stall once or always."""

    def prepare(stage: Stage) -> None:
        answer = stalled(at, stage.never)
        stage.server.script(stage.url, *[answer] * (100 if always else 1))

    return prepare


SCENES = [
    Scene("plain", "downloaded"),
    Scene("plain, without a hash", "downloaded", fetches=UNHASHED),
    Scene("paced", "downloaded", [paced(10, OPEN_GATE)]),
    # Cut, with the connection closed in an orderly way
    Scene("truncated at 0, then fine", "downloaded", [truncated(0)], requests=2),
    Scene("truncated at 1, then fine", "resumed", [truncated(1)], requests=2),
    Scene("truncated in the middle, then fine", "resumed", [truncated(5000)], requests=2),
    Scene("truncated at the last byte, then fine", "resumed", [truncated(19_999)], requests=2),
    Scene("truncated, without a hash, then fine", "resumed", [truncated(5000)], requests=2, fetches=UNHASHED),
    Scene("truncated three times, then fine", "resumed", [truncated(2000)] * 3, requests=4),
    Scene("truncated, then without ranges", "downloaded", [truncated(5000)], how=without_ranges, requests=2),
    Scene("truncated, then without validators", "resumed", [truncated(5000)], how=without_validators, requests=2),
    Scene("always truncated at 0", failed(cut(), TRIES), how=truncated(0), requests=TRIES),
    Scene(
        "always truncated in the middle, without ranges",
        failed(cut(5000), TRIES),
        how=truncated_without_ranges,
        requests=TRIES,
    ),
    # Cut by a reset of the connection
    Scene("reset before the head, then fine", "downloaded", [reset()], requests=2),
    Scene("reset after the head, then fine", "downloaded", [reset(0)], requests=2),
    Scene("reset in the body, then fine", "resumed", [reset(5000)], requests=2),
    # Without a length
    Scene("chunked", "downloaded", how=chunked),
    Scene("chunked, without a hash", "downloaded", how=chunked, fetches=UNHASHED),
    Scene("chunks cut, then fine", "resumed", [chunked_cut(5000)], requests=2),
    Scene("chunks always cut", failed(cut(), TRIES), how=chunked_cut(0), requests=TRIES),
    Scene("until closed", "downloaded", how=until_closed),
    Scene("until closed, without a hash", "downloaded", how=until_closed, fetches=UNHASHED),
    # With a wrong length
    Scene("length too large, then fine", "downloaded", [wrong_length(1)], requests=2),
    Scene(
        "length always too large",
        failed(cut(20_000), TRIES),
        how=wrong_length(1),
        requests=TRIES,
        keeps_partial=True,
    ),
    Scene("length too small", wrong_hash(WHEEL.data[:-1]), how=wrong_length(-1)),
    Scene("length too small, without a hash", NOT_A_WHEEL, how=wrong_length(-30), fetches=UNHASHED),
    # With another encoding or protocol
    Scene("gzipped", "downloaded", how=gzipped),
    Scene("gzipped, without a hash", "downloaded", how=gzipped, fetches=UNHASHED),
    Scene("gzipped and cut, then fine", "downloaded", [gzipped_and_cut], requests=2),
    Scene("gzipped, labelled x-gzip", "downloaded", how=encoded("x-gzip", GZIPPED)),
    Scene("deflated", "downloaded", how=encoded("deflate", zlib.compress(WHEEL.data))),
    Scene("deflated, without a header", "downloaded", how=encoded("deflate", RAW_DEFLATED)),
    Scene("plain, labelled gzip", "downloaded", how=encoded("gzip", WHEEL.data)),
    Scene("plain, labelled gzip, without a hash", "downloaded", how=encoded("gzip", WHEEL.data), fetches=UNHASHED),
    Scene("plain, labelled deflate", "downloaded", how=encoded("deflate", WHEEL.data)),
    Scene("plain, labelled br", "downloaded", how=encoded("br", WHEEL.data)),
    Scene("gzipped twice", undecodable("gzip, gzip"), how=encoded("gzip, gzip", gzip.compress(GZIPPED))),
    Scene("gzipped twice, in two fields", undecodable("gzip, gzip"), how=encoded_twice),
    Scene("an unknown coding", undecodable("br"), how=encoded("br", b"\x0b\x02\x80" + WHEEL.data)),
    Scene("gzipped page", wrong_hash(PAGE), how=encoded("gzip", gzip.compress(PAGE))),
    Scene("chunked, beside a length", "downloaded", how=chunked_beside_a_length),
    Scene("not HTTP, then fine", "downloaded", [not_http], requests=2),
    Scene(
        "never HTTP",
        failed(DISCONNECTED, TRIES),
        how=not_http,
        requests=TRIES,
        with_requests=Difference("it parses the first line before it has the others", failed(VIOLATED, TRIES)),
    ),
    Scene("never HTTP, with an empty line", failed(VIOLATED, TRIES), how=not_http_head, requests=TRIES),
    # With other content
    Scene("wrong bytes", wrong_hash(OTHER_WHEEL.data), how=wrong_bytes(OTHER_WHEEL.data)),
    Scene(
        "wrong bytes, without a hash",
        "downloaded",
        how=wrong_bytes(OTHER_WHEEL.data),
        fetches=UNHASHED,
        stored=[OTHER_WHEEL],
    ),
    Scene("no bytes", wrong_hash(b""), how=wrong_bytes(b"")),
    Scene("no bytes, without a hash", NOT_A_WHEEL, how=wrong_bytes(b""), fetches=UNHASHED),
    Scene("html", wrong_hash(PAGE), how=html),
    Scene("html, without a hash", NOT_A_WHEEL, how=html, fetches=UNHASHED),
    # With a requested size
    Scene("size is right", "downloaded", fetches=sized(20_000)),
    Scene("size is right, chunked", "downloaded", how=chunked, fetches=sized(20_000)),
    Scene("size is right, gzipped", "downloaded", how=gzipped, fetches=sized(20_000)),
    Scene("size is too small", wrong_size(19_999, is_declared=True), fetches=sized(19_999)),
    Scene("size is too large", wrong_size(20_001, is_declared=True), fetches=sized(20_001)),
    Scene("size is too small, chunked", wrong_size(19_999, is_declared=False), how=chunked, fetches=sized(19_999)),
    Scene("size is too large, chunked", wrong_size(20_001, is_declared=False), how=chunked, fetches=sized(20_001)),
    Scene("size is too small, gzipped", wrong_size(19_999, is_declared=False), how=gzipped, fetches=sized(19_999)),
    # Stalled until the client's read timeout. On a busy machine, the second response may be late, too.
    Scene("stalled before the head, then fine", "downloaded", prepare=stalls(None), client=QUICK, requests=-2),
    Scene("stalled in the body, then fine", "resumed", prepare=stalls(5000), client=QUICK, requests=-2),
    Scene(
        "always stalled before the head",
        failed(TIMED_OUT, TRIES),
        prepare=stalls(None, always=True),
        client=QUICKEST,
        requests=TRIES,
    ),
    Scene(
        "always stalled after the head",
        failed(TIMED_OUT, TRIES),
        prepare=stalls(0, always=True),
        client=QUICKEST,
        requests=TRIES,
    ),
]

if sys.platform != "win32":
    # Wine closes the connection in an orderly way instead.
    SCENES += [
        Scene("always reset before the head", failed(RESET, TRIES), how=reset(), requests=TRIES),
        Scene("always reset after the head", failed(RESET, TRIES), how=reset(0), requests=TRIES),
    ]
