"""Responses that are changed at random: each exchange ends in the right bytes or in an error of the package."""

from __future__ import annotations

import gzip
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from machines import Machine
from marks import any_system
from raw_server import RawServer, chunked, response
from wheels import Wheel, make_wheel

from wheelcache import Cache, CacheTransport, WheelCacheError, requests_client
from wheelcache._http.adapters.library import load
from wheelcache._http.default_client import create

pytestmark = any_system

# Under Windows, one library is installed.
LIBRARIES = ["httpx"] if sys.platform == "win32" else ["httpx", "httpx2"]
EXCHANGES = 100
SECONDS = 0.1
# Bytes that decide where a message ends, and how its body is read.
PIECES = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
        b"\0",
        b"\xff",
        b" : \r\n",
        b" folded\r\n",
        b"0\r\n\r\n",
        b"5;ext\r\n",
    ),
    *(b"ffffffffffffffff\r\n", b"1" * 30, b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 103 C\r\nA: b\r\n\r\n"),
    *(b"HTTP/1.1 101 S\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Transfer-Encoding: gzip\r\n", b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n"),
    *(b"Content-Range: bytes 0-9/10\r\n", b"Content-Range: bytes */3000\r\n", b"Retry-After: 1\r\n"),
    *(b"Location: /x\r\n", b"Location: http://[\r\n", b"Location: http://[::1]@b]/\r\n", b"Location: http://a..b/\r\n"),
    *(b'ETag: "a"\r\n', b"ETag: \xe9\r\n", b"Last-Modified: x\r\n", b"Set-Cookie: a=b; expires=x\r\n"),
    *(b"Date: Mon, 99 Foo 99999 99:99:99 +99999999\r\n", b"Cache-Control: max-age=9999999999999999\r\n"),
    *(b"Age: -1\r\n", b"Expires: 0\r\n", b'WWW-Authenticate: Digest realm="\r\n', b"Proxy-Authenticate: Basic\r\n"),
]
STATUSES = [b"100", b"101", b"203", b"204", b"206", b"301", b"302", b"304", b"307", b"401", b"412", b"416", b"503"]


class Mutator:
    """Answers requests for a wheel with correct responses that are changed at random.

    Args:
        wheel: the wheel.
        seed: decides all choices.
    """

    def __init__(self, wheel: Wheel, seed: int) -> None:
        self._wheel = wheel
        self._other = response(make_wheel("other"))
        self._random = random.Random(seed)

    def __call__(self, head: bytes) -> bytes:
        message = bytearray(self._correct(head))
        for _ in range(self._random.choice([0, 1, 1, 2, 3, 5])):
            self._change(message)
        return bytes(message)

    def keeps(self) -> bool:
        """Return whether to keep a connection. Otherwise, most exchanges would wait for the rest of a body."""
        return self._random.random() < 0.25

    def _correct(self, head: bytes) -> bytes:
        data, size = self._wheel.data, self._wheel.size
        found = re.search(rb"range: bytes=(\d+)-", head, re.IGNORECASE)
        if found is not None and int(found[1]) < size and self._random.random() < 0.7:
            first = int(found[1])
            field = f"Content-Range: bytes {first}-{size - 1}/{size}"
            return response(data[first:], "206 Partial Content", field, 'ETag: "a"')
        cached = response(data, "200 OK", 'ETag: "a"', "Cache-Control: max-age=9")
        others = [
            chunked(data),
            response(b"", "302 Found", f"Location: /{self._wheel.filename}?{self._random.randrange(3)}"),
            response(gzip.compress(data), "200 OK", "Content-Encoding: gzip"),
            b'HTTP/1.1 304 Not Modified\r\nETag: "b"\r\n\r\n',
            b"HTTP/1.0 200 OK\r\n\r\n" + data,
        ]
        return self._random.choice([*others, *[cached] * 4])

    def _change(self, message: bytearray) -> None:
        choose = self._random
        head = message.find(b"\r\n\r\n") + 4
        at = choose.randrange((head if choose.random() < 0.75 else len(message)) or 1)
        match choose.randrange(7):
            case 0:
                message[at : at + 1] = choose.randbytes(1)
            case 1:
                del message[at : at + choose.choice([1, 1, 3, 20])]
            case 2:
                message[at:at] = choose.choice(PIECES)
            case 3:
                line = message.find(b"\r\n") + 2
                message[line:line] = choose.choice(PIECES)
            case 4:
                del message[at + choose.randrange(200) :]
            case 5:
                message += choose.choice(PIECES) + choose.choice([b"", self._other])
            case 6:
                message[9:12] = choose.choice(STATUSES)


@pytest.fixture
def small_wheel() -> Wheel:
    return Wheel("demo-1.0-py3-none-any.whl", make_wheel(size=3000))


@pytest.fixture(params=["own", *LIBRARIES, "requests"])
def cache(
    request: pytest.FixtureRequest, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cache]:
    """A cache with each kind of client, which does not wait long."""
    monkeypatch.setattr(create, "_READ_SECONDS", SECONDS)
    client: Any = None
    if request.param == "requests":
        client = requests_client(requests.Session(), timeout=SECONDS)
    elif request.param != "own":
        client = load(request.param).httpx.Client(timeout=SECONDS)
    with machine.cache(tmp_path / "cache", client=client) as opened:
        yield opened
    if client is not None:
        getattr(client, "wrapped", client).close()


def test_a_changed_response_is_the_right_wheel_or_an_error(cache: Cache, small_wheel: Wheel) -> None:
    """With a hash, only the right bytes are returned; without one, each outcome is a wheel or an error."""
    mutator, choose = Mutator(small_wheel, 11), random.Random(11)
    with RawServer(mutator, mutator.keeps) as server:
        for _ in range(EXCHANGES):
            url = server.url(f"/{choose.randrange(20)}/{small_wheel.filename}")
            hashes = small_wheel.digest if choose.random() < 0.5 else None
            try:
                if choose.random() < 0.15:
                    cache.metadata(url, hashes=hashes)
                    continue
                wheel = cache.fetch(url, hashes=hashes, refresh=choose.random() < 0.3)
            except WheelCacheError as error:
                assert str(error).isprintable()  # noqa: PT017 - most exchanges raise no error
                continue
            if hashes is not None:
                assert wheel.path.read_bytes() == small_wheel.data
                cache.remove(wheel)


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_changed_response_is_not_stored_under_a_hash(
    name: str, machine: Machine, small_wheel: Wheel, tmp_path: Path
) -> None:
    """A client with a ``CacheTransport`` gets errors of its library only, and the cache keeps the right bytes only."""
    mutator, choose = Mutator(small_wheel, 12), random.Random(12)
    library = load(name).httpx
    errors = (library.HTTPError, library.InvalidURL, library.StreamError, UnicodeError)
    with (
        machine.cache(tmp_path / "cache") as cache,
        library.Client(transport=CacheTransport(cache), timeout=SECONDS, follow_redirects=True) as client,
        RawServer(mutator, mutator.keeps) as server,
    ):
        for _ in range(EXCHANGES):
            fragment = f"#{small_wheel.digest.replace(':', '=')}" if choose.random() < 0.5 else ""
            try:
                client.get(server.url(f"/{choose.randrange(20)}/{small_wheel.filename}{fragment}"))
            except errors:
                pass
            wheel = cache.get(small_wheel.digest)
            if wheel is not None:
                assert wheel.path.read_bytes() == small_wheel.data
                cache.remove(wheel)
