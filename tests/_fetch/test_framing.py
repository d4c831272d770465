"""The end of a body: the last chunk decides, and not a length beside it."""

from __future__ import annotations

import httpx
import pytest
from folders import assert_nothing_came
from machines import Machine
from marks import any_system
from server import Answer, Exchange, Server, truncated
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, CacheTransport, DownloadError, Status

pytestmark = any_system

# Differences between the declared and the true length.
LENGTHS = ["+0", "-5", "-9999", "+100000"]


def chunked_with(length: str, *, cut: bool = False) -> Answer:
    """Answer correctly, in chunks, with a Content-Length beside them. ``cut`` ends the connection before the last."""

    def answer(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        is_difference = length[0] in "+-" and length != "-1"
        declared = str(max(0, len(body) + int(length))) if is_difference else length
        exchange.start(code, {**headers, "Transfer-Encoding": "chunked", "Content-Length": declared})
        for start in range(0, len(body), 4000):
            part = body[start : start + 4000]
            exchange.write_raw(b"%x\r\n" % len(part))
            exchange.write(part)
            exchange.write_raw(b"\r\n")
        if cut:
            exchange.hang_up()
        else:
            exchange.write_raw(b"0\r\n\r\n")

    return answer


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("sized", [True, False])
def test_a_length_beside_chunks_is_ignored(
    length: str, hashed: bool, sized: bool, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A wheel in chunks is complete after the last one, whatever its Content-Length, also if its size is requested."""
    url = wheel.on(server, how=chunked_with(length))
    options = {"hashes": wheel.digest if hashed else None, "size": wheel.size if sized else None}
    assert cache.fetch(url, **options).path.read_bytes() == wheel.data
    assert server.count() == 1


@pytest.mark.parametrize("length", LENGTHS)
def test_chunks_without_an_end_are_not_complete(length: str, server: Server, cache: Cache, wheel: Wheel) -> None:
    """If the connection ends before the last chunk, the wheel is not complete, even if it has the declared length."""
    url = wheel.on(server, how=chunked_with(length, cut=True), ETag="", Last_Modified="")
    with pytest.raises(DownloadError):
        cache.fetch(url)
    assert_nothing_came(cache)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("hashed", [True, False])
def test_a_length_beside_a_chunked_range_is_ignored(length: str, hashed: bool, server: Server, cache: Cache) -> None:
    """The rest of a wheel may be sent in chunks, too, and its Content-Range states its length."""
    big = Wheel(wheel_filename("big"), make_wheel("big", size=500_000))
    url = big.on(server, how=chunked_with(length))
    server.script(url, truncated(300_000))
    found = cache.fetch(url, hashes=big.digest if hashed else None)
    assert (found.status, found.path.read_bytes()) == (Status.RESUMED, big.data)
    assert server.sent() <= 1.1 * big.size


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("beside", [True, False])
def test_metadata_in_chunks(length: str, beside: bool, server: Server, cache: Cache, wheel: Wheel) -> None:
    """METADATA is read from chunks with any Content-Length, from the file beside the wheel and from ranges."""
    url = wheel.on(server, how=chunked_with(length))
    metadata = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
    if beside:
        server.serve(wheel.path + ".metadata", metadata, how=chunked_with(length))
    assert b"Name: demo" in cache.metadata(url, hashes=wheel.digest)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_transport_stores_chunks_with_any_length(length: str, server: Server, cache: Cache, wheel: Wheel) -> None:
    """CacheTransport stores such a body as well."""
    url = wheel.on(server, how=chunked_with(length))
    with httpx.Client(transport=CacheTransport(cache, next=httpx.HTTPTransport())) as client:
        assert client.get(url).content == wheel.data
    assert cache.get(wheel.digest) is not None


@pytest.mark.parametrize("by", [-1, 1])
def test_a_length_without_chunks_counts(by: int, machine: Machine, cache: Cache, wheel: Wheel) -> None:
    """An empty Transfer-Encoding is no reason to ignore a length."""

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"Content-Length": str(wheel.size + by), "Transfer-Encoding": ""}
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(wheel.data))

    url = f"https://example.org/{wheel.filename}"
    with httpx.Client(transport=CacheTransport(cache, next=httpx.MockTransport(answer))) as client:
        client.get(url)
    assert_nothing_came(cache)
