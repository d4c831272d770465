"""Content codings of servers that were asked for none: the wheel is the same, or the error is clear."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from folders import assert_nothing_came, unfinished
from machines import Machine
from marks import any_system
from server import Answer, Exchange, Server, plain, status
from wheels import Wheel, make_wheel, sha256, wheel_filename

from wheelcache import (
    AsyncCache,
    Cache,
    CachedWheel,
    DownloadError,
    DownloadLimits,
    HashMismatchError,
    InvalidWheelError,
    Phase,
    ProgressEvent,
    SizeMismatchError,
    Status,
    requests_client,
)

pytestmark = any_system

OTHER_CODINGS = ["br", "zstd", "compress", "x-compress", "utf-8", "gzip, gzip", "br, gzip"]
ALL_CODINGS = ["gzip", "GZip", "x-gzip", "deflate", "identity", "", *OTHER_CODINGS]


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


def gzipped(data: bytes, level: int = 9) -> bytes:
    # Without the time, so that the bytes are the same in every second.
    return gzip.compress(data, level, mtime=0)


def stored(data: bytes) -> bytes:
    return gzipped(data, 0)


def members_and_garbage(data: bytes) -> bytes:
    return gzipped(data[:5000]) + gzipped(data[5000:]) + b"\0" * 100


def unchanged(data: bytes) -> bytes:
    return data


def labelled(*codings: str, encode: Callable[[bytes], bytes] = unchanged, length: bool = True) -> Answer:
    """Return the answer with the encoded body, and a field for each coding. Ranges are ignored."""

    def answer(exchange: Exchange) -> None:
        body = encode(exchange.body)
        fields = [("ETag", exchange.file.etag), *(("Content-Encoding", coding) for coding in codings)]
        fields.append(("Content-Length", str(len(body))) if length else ("Connection", "close"))
        if not length:
            exchange.hang_up()
        head = "".join(f"{name}: {text}\r\n" for name, text in fields)
        exchange.write_raw(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
        exchange.write(body)

    return answer


@pytest.fixture(params=["own", "callers", "async", "requests"])
def fetch(request: pytest.FixtureRequest, machine: Machine, tmp_path: Path) -> Callable[..., CachedWheel]:
    """A function that fetches with a client of each kind."""

    def fetch_sync(url: str, **options: Any) -> CachedWheel:
        with client() as chosen, machine.cache(tmp_path / "cache", client=chosen) as cache:
            return cache.fetch(url, **options)

    @contextmanager
    def client() -> Iterator[Any]:
        if request.param == "own":
            yield None
        elif request.param == "requests":
            import requests

            with requests.Session() as session:
                yield requests_client(session)
        else:
            with httpx.Client() as client:
                yield client

    async def fetch_async(url: str, **options: Any) -> CachedWheel:
        async with httpx.AsyncClient() as client, AsyncCache(tmp_path / "cache", client=client) as cache:
            return await cache.fetch(url, **options)

    def fetch(url: str, **options: Any) -> CachedWheel:
        if request.param == "async":
            return anyio.run(lambda: fetch_async(url, **options))
        return fetch_sync(url, **options)

    return fetch


WITH = [{}, {"hashes": True}, {"hashes": True, "size": True}, {"size": True}]


def options_for(wheel: Wheel, given: dict[str, bool]) -> dict[str, Any]:
    """Return the options of a request that names the hash, the size, both or neither."""
    known: dict[str, Any] = {"hashes": wheel.digest, "size": wheel.size}
    return {name: known[name] for name in given}


@pytest.mark.parametrize("given", WITH, ids="-".join)
@pytest.mark.parametrize(
    "how",
    [
        labelled("gzip", encode=gzipped),
        labelled("X-GZIP", encode=gzipped),
        labelled("gzip, identity", encode=members_and_garbage),
        labelled("gzip", encode=stored),
        labelled("gzip", encode=gzipped, length=False),
        labelled("deflate", encode=zlib.compress),
        labelled("deflate", encode=raw_deflate),
        labelled("Deflate", encode=raw_deflate, length=False),
        labelled("identity", "gzip", encode=gzipped),
    ],
    ids=[
        *("gzip", "x-gzip", "two members", "stored", "gzip until closed", "zlib", "deflate", "deflate until closed"),
        "two fields",
    ],
)
def test_one_coding_is_decoded(how: Answer, given, fetch, server: Server, wheel: Wheel) -> None:
    """The codings gzip and deflate are decoded, in every form and under every name, with and without hash and size."""
    found = fetch(wheel.on(server, how=how), **options_for(wheel, given))
    assert (found.path.read_bytes(), found.size, found.status) == (wheel.data, wheel.size, Status.DOWNLOADED)
    assert found.digest == wheel.digest
    assert server.count() == 1


@pytest.mark.parametrize("given", WITH, ids="-".join)
@pytest.mark.parametrize("coding", ALL_CODINGS)
def test_a_wrong_label_is_ignored(coding: str, given, fetch, server: Server, wheel: Wheel) -> None:
    """A plain wheel is used whichever coding its response names."""
    found = fetch(wheel.on(server, how=labelled(coding)), **options_for(wheel, given))
    assert (found.path.read_bytes(), found.status) == (wheel.data, Status.DOWNLOADED)
    assert server.count() == 1


@pytest.mark.parametrize("given", [{}, {"hashes": True}], ids="-".join)
@pytest.mark.parametrize("coding", OTHER_CODINGS)
def test_other_codings_are_refused(coding: str, given, fetch, server: Server, wheel: Wheel) -> None:
    """A body that really has another coding, or several, is a permanent error that names the codings."""
    with pytest.raises(DownloadError) as caught:
        fetch(wheel.on(server, how=labelled(coding, encode=stored)), **options_for(wheel, given))
    assert f"wheelcache does not decode '{coding.removeprefix('x-')}'" in str(caught.value)
    assert "without a content coding" in caught.value.advice
    assert server.count() == 1


def test_a_mirror_is_used_after_a_coding_that_is_refused(cache: Cache, server: Server, wheel: Wheel) -> None:
    """The mirror may send the plain wheel."""
    mirror = server.serve(f"/mirror/{wheel.filename}", wheel.data)
    found = cache.fetch(wheel.on(server, how=labelled("br", encode=stored)), mirrors=[mirror])
    assert found.path.read_bytes() == wheel.data
    assert unfinished(cache) == []


def test_an_archive_within_another_coding_is_not_a_wheel(cache: Cache, server: Server, wheel: Wheel) -> None:
    """Without a hash, a body that only ends like an archive is not taken for a plain wheel."""
    url = wheel.on(server, how=labelled("zstd", encode=lambda data: b"\x28\xb5\x2f\xfd" + data))
    with pytest.raises(DownloadError, match="zstd"):
        cache.fetch(url)
    assert_nothing_came(cache)


PAGE = b"<!doctype html><title>Log in</title>" * 50


@pytest.mark.parametrize("body", [PAGE, b"", b"\x1f", make_wheel()[:-30]], ids=["page", "empty", "one byte", "cut"])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_other_plain_bytes_are_mismatches(coding: str, body: bytes, fetch, server: Server, wheel: Wheel) -> None:
    """Bytes that are neither the wheel nor encoded are the same errors as without a label."""
    url = server.serve(f"/{wheel.filename}", body, how=labelled(coding))
    if body != b"\x1f":
        with pytest.raises(InvalidWheelError):
            fetch(url)
        with pytest.raises(HashMismatchError):
            fetch(url, hashes=wheel.digest)
    with pytest.raises((SizeMismatchError, DownloadError)):
        fetch(url, size=wheel.size)


def test_an_encoded_page_is_not_a_wheel(fetch, server: Server, wheel: Wheel) -> None:
    """The decoded bytes are checked like any others."""
    url = server.serve(f"/{wheel.filename}", PAGE, how=labelled("gzip", encode=gzipped))
    with pytest.raises(InvalidWheelError):
        fetch(url)
    with pytest.raises(HashMismatchError):
        fetch(url, hashes=wheel.digest)
    with pytest.raises(SizeMismatchError):
        fetch(url, size=len(PAGE) - 1)


def test_the_hash_of_the_encoded_bytes_counts_too(fetch, server: Server, wheel: Wheel) -> None:
    """A hash of the received bytes is the requested one, even if they could be decoded: hashes decide."""
    url = wheel.on(server, how=labelled("gzip", encode=stored))
    assert fetch(url, hashes=sha256(stored(wheel.data))).path.read_bytes() == stored(wheel.data)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("given", [{}, {"hashes": True}], ids="-".join)
def test_a_body_that_ends_within_its_coding_is_requested_again(
    coding: str, given, cache: Cache, server: Server, wheel: Wheel
) -> None:
    """Without a declared length, only the coding shows that the body was cut. The whole body is requested again."""
    encode = {"gzip": gzipped, "deflate": zlib.compress}[coding]
    url = wheel.on(server)
    cut = labelled(coding, encode=lambda data: encode(data)[:9000], length=False)
    server.script(url, cut, labelled(coding, encode=lambda data: encode(data)[:-1], length=False), plain)
    assert cache.fetch(url, **options_for(wheel, given)).path.read_bytes() == wheel.data
    assert ["range" in request.headers for request in server.requests()] == [False] * 3
    assert unfinished(cache) == []


def test_an_encoded_body_is_not_resumed_later(server: Server, machine: Machine, tmp_path: Path) -> None:
    """A download that ends within an encoded body keeps nothing, since no range continues these bytes."""
    wheel = Wheel(wheel_filename(), make_wheel(size=3 << 20))
    url = wheel.on(server)
    server.script(url, labelled("gzip", encode=gzipped))

    def leave(event: ProgressEvent) -> None:
        if event.done > 2 << 20:
            raise LookupError

    with machine.cache(tmp_path / "cache") as cache:
        with pytest.raises(LookupError):
            cache.fetch(url, progress=leave)
        assert unfinished(cache) == []
        assert cache.fetch(url).status == Status.DOWNLOADED


def test_a_range_with_a_coding_is_not_appended(cache: Cache, server: Server) -> None:
    """A range of encoded bytes does not continue plain ones: the whole file is requested."""
    wheel = Wheel(wheel_filename(), make_wheel(size=100_000))
    url = wheel.on(server)

    def cut(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        exchange.start(code, headers, length=len(body))
        exchange.write(body[:50_000])
        exchange.hang_up()

    def encoded_range(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        assert code == 206
        exchange.send(code, {**headers, "Content-Encoding": "gzip"}, body)

    server.script(url, cut, encoded_range)
    assert cache.fetch(url).path.read_bytes() == wheel.data
    assert ["range" in request.headers for request in server.requests()] == [False, True, False]


def test_progress_has_the_declared_length_of_an_encoded_body(cache: Cache, server: Server, wheel: Wheel) -> None:
    """The received bytes never exceed the total of an event."""
    events: list[ProgressEvent] = []
    body = stored(wheel.data)
    cache.fetch(
        wheel.on(server, how=labelled("gzip", encode=stored)),
        hashes=wheel.digest,
        size=wheel.size,
        progress=events.append,
    )
    received = [event for event in events if event.phase is Phase.DOWNLOADING]
    assert (received[-1].done, received[-1].total) == (len(body), len(body))
    assert (events[-1].phase, events[-1].done) == (Phase.DONE, wheel.size)


ENDLESS = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\0\xff\xff\0\0" + b"\xff" * 0xFFFF


def test_an_endless_encoded_body_ends_at_the_size(cache: Cache, server: Server, wheel: Wheel) -> None:
    """With a size, not much more than that is received, although an encoded body may be a little larger."""

    def endless(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Encoding": "gzip"})
        while True:
            exchange.write(ENDLESS)

    with pytest.raises(SizeMismatchError):
        cache.fetch(wheel.on(server, how=endless), size=wheel.size)
    assert_nothing_came(cache)


def test_a_declared_length_of_an_encoded_body_is_checked_at_once(cache: Cache, server: Server, wheel: Wheel) -> None:
    """An encoded body that declares far more than the requested size is refused before it is received."""

    def large(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Encoding": "gzip"}, length=10**9)
        exchange.hang_up()

    with pytest.raises(SizeMismatchError):
        cache.fetch(wheel.on(server, how=large), size=wheel.size)
    assert server.count() == 1


def zeros(size: int) -> bytes:
    """Return gzip data of zeros, a thousandth of their size."""
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(stream.compress(bytes(1 << 20)) for _ in range(size >> 20)), stream.flush()])


def test_a_bomb_ends_at_the_limit(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A decoded body is limited as a received one is: by the requested size, else by ``max_bytes``."""
    url = server.serve(f"/{wheel.filename}", zeros(64 << 20), how=labelled("gzip"))
    with machine.cache(tmp_path / "cache", limits=DownloadLimits(max_bytes=1 << 20)) as cache:
        with pytest.raises(DownloadError, match="more than 1048576 bytes") as caught:
            cache.fetch(url)
        assert "size=" in caught.value.advice
        assert "limits=" in caught.value.advice
        with pytest.raises(SizeMismatchError):
            cache.fetch(url, size=wheel.size)
        assert_nothing_came(cache)


METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nSummary: from the index\n"


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        labelled("gzip", encode=gzipped),
        labelled("x-gzip", encode=members_and_garbage),
        labelled("deflate", encode=raw_deflate),
        *(labelled(coding) for coding in ALL_CODINGS),
    ],
    ids=["gzip", "x-gzip", "raw deflate", *(f"plain, labelled {coding!r}" for coding in ALL_CODINGS)],
)
def test_metadata_is_decoded(how: Answer, hashed: bool, cache: Cache, server: Server, wheel: Wheel) -> None:
    """A .metadata file is decoded in the same way as a wheel, and a wrong label is ignored."""
    url = wheel.on(server)
    server.serve(f"{url}.metadata", METADATA, how=how)
    assert cache.metadata(url, metadata_hashes=sha256(METADATA) if hashed else None) == METADATA
    assert server.count() == 1


@pytest.mark.parametrize(
    "how",
    [
        labelled("gzip", encode=lambda _: zeros(64 << 20)),
        labelled("gzip, gzip", encode=lambda data: gzipped(gzipped(data))),
        labelled("br", encode=stored),
    ],
    ids=["bomb", "two codings", "br"],
)
def test_metadata_that_cannot_be_decoded(how: Answer, cache: Cache, server: Server, wheel: Wheel) -> None:
    """Instead of a .metadata file that cannot be decoded, the wheel itself is read."""
    url = wheel.on(server)
    server.serve(f"{url}.metadata", METADATA, how=how)
    assert b"Name: demo" in cache.metadata(url)
    assert server.count(f"{url}.metadata") == 1


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_range_of_a_wheel_with_a_label(coding: str, cache: Cache, server: Server, wheel: Wheel) -> None:
    """METADATA is read by ranges if they have no coding, else from the whole wheel."""
    url = wheel.on(server, Content_Encoding=coding)
    server.serve(f"{url}.metadata", how=status(404))
    assert b"Name: demo" in cache.metadata(url)


CHILD = """
import re, sys
import httpx
from wheelcache import Cache, DownloadError, InvalidWheelError

def peak():
    # Unlike the maximum of getrusage, this one does not include the parent.
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])

url, folder, kind = sys.argv[1:]
with Cache(folder + "/first") as cache:
    try:
        cache.fetch("http://127.0.0.1:1/demo-1.0-py3-none-any.whl#md5=" + "0" * 32 + "&sha256=" + "0" * 64)
    except (DownloadError, ValueError):
        pass  # everything that a download needs is now imported
before = peak()
with httpx.Client() as client, Cache(folder, client=client if kind == "callers" else None) as cache:
    for call in (cache.fetch, cache.metadata):
        try:
            call(url)
        except (DownloadError, InvalidWheelError) as error:
            print(error)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the peak memory of a process in this file")
@pytest.mark.parametrize("kind", ["own", "callers"])
def test_a_bomb_of_two_codings_needs_no_memory(kind: str, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """A body of a few kilobytes that would expand to 4 GB ends with an error, and in little memory."""
    bomb = gzipped(zeros(64 << 20) * 64)
    assert len(bomb) < 30_000
    url = server.serve(f"/{wheel.filename}", bomb, how=labelled("gzip, gzip"))
    server.serve(f"{url}.metadata", bomb, how=labelled("gzip, gzip"))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, url, str(tmp_path), kind], capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 0, child.stderr
    *errors, memory = child.stdout.splitlines()
    assert any("does not decode 'gzip, gzip'" in error for error in errors)
    assert int(memory) < 30_000  # kilobytes
