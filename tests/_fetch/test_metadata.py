"""METADATA without the wheel: from the cache, from the index's file, from the wheel's end, from the whole wheel."""

from __future__ import annotations

import bz2
import io
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from archives import DEFLATED, Entry, archive, deflate
from hypothesis import given
from hypothesis import strategies as st
from machines import Machine
from server import (
    Answer,
    Exchange,
    Server,
    endless,
    html,
    plain,
    redirect,
    refused_range,
    reset,
    status,
    truncated,
    without_ranges,
    wrong_range,
)
from wheels import Wheel, hex_of, make_wheel, wheel_filename

from wheelcache import Cache, DownloadError, HashMismatchError, InvalidWheelError, OfflineError, ReadOnlyError
from wheelcache._fetch.metadata import read_metadata
from wheelcache._request import parse_request

SIZE = 500_000


@pytest.fixture
def big() -> Wheel:
    """A wheel much larger than its metadata."""
    return Wheel(wheel_filename("big"), make_wheel("big", size=SIZE))


def metadata_of(wheel: Wheel) -> bytes:
    with zipfile.ZipFile(io.BytesIO(wheel.data)) as archive:
        return archive.read("big-1.0.dist-info/METADATA")


def test_from_the_cached_wheel(server: Server, cache: Cache, big: Wheel) -> None:
    """A wheel that is there is read, and nobody is asked."""
    url = big.on(server)
    cache.fetch(url, hashes=big.digest)
    server.forget()
    assert cache.metadata(url, hashes=big.digest) == metadata_of(big)
    assert server.count() == 0


@pytest.mark.parametrize("hashed", [True, False])
def test_from_the_file_beside_it(hashed: bool, server: Server, machine: Machine, big: Wheel, tmp_path) -> None:
    """The index's .metadata file is one request; under a hash it is kept, offline as well."""
    url = big.on(server)
    server.serve(big.path + ".metadata", metadata_of(big))
    options = {"metadata_hashes": {"sha256": hex_of(metadata_of(big))}} if hashed else {"hashes": big.digest}
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.metadata(url, **options) == metadata_of(big)
        assert server.count() == 1
    with machine.cache(tmp_path / "cache", offline=True) as cache:
        assert cache.metadata(url, **options) == metadata_of(big)
        with pytest.raises(OfflineError):
            cache.metadata(url)


@pytest.mark.parametrize("verify", ["auto", "records", "full"])
@pytest.mark.parametrize("hashed", [True, False])
def test_kept_bytes_of_other_users_are_checked(
    verify: str, hashed: bool, server: Server, machine: Machine, big: Wheel, tmp_path
) -> None:
    """In a shared cache, kept METADATA without a hash of its own is only used if the records of others are trusted."""
    url = big.on(server)
    server.serve(big.path + ".metadata", metadata_of(big))
    options = {"metadata_hashes": {"sha256": hex_of(metadata_of(big))}} if hashed else {"hashes": big.digest}
    machine.is_private = False
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.metadata(url, **options) == metadata_of(big)
    with machine.cache(tmp_path / "cache", offline=True, verify=verify) as cache:
        if hashed or verify == "records":
            assert cache.metadata(url, **options) == metadata_of(big)
            return
        with pytest.raises(OfflineError):
            cache.metadata(url, **options)


def test_the_index_file_must_have_its_hash(server: Server, cache: Cache, big: Wheel) -> None:
    """Another file than the one that the index tells of is an error, and is not kept."""
    url = big.on(server)
    server.serve(big.path + ".metadata", b"Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    hashes = {"sha256": hex_of(metadata_of(big))}
    with pytest.raises(HashMismatchError):
        cache.metadata(url, metadata_hashes=hashes)
    server.serve(big.path + ".metadata", metadata_of(big))
    assert cache.metadata(url, metadata_hashes=hashes) == metadata_of(big)


def test_what_was_kept_must_have_every_hash(server: Server, cache: Cache, big: Wheel) -> None:
    """Where several hashes are given, what was kept under one of them must have the others as well."""
    url = big.on(server)
    server.serve(big.path + ".metadata", metadata_of(big))
    right = {name: hex_of(metadata_of(big), name) for name in ("sha256", "sha512")}
    cache.metadata(url, metadata_hashes={"sha256": right["sha256"]})
    with pytest.raises(HashMismatchError):
        cache.metadata(url, metadata_hashes={**right, "sha512": "0" * 128})
    server.forget()
    assert cache.metadata(url, metadata_hashes=right) == metadata_of(big)
    assert server.count() == 0


def test_what_a_mirror_tells_is_its_own(server: Server, cache: Cache, big: Wheel) -> None:
    """Without a hash of the metadata, what one server tells of a wheel is not taken for what another one would."""
    url = big.on(server)
    server.serve(big.path + ".metadata", metadata_of(big))
    mirror = server.serve(f"/mirror/{big.filename}", big.data)
    evil = metadata_of(big) + b"Requires-Dist: evil\n"
    server.serve(f"/mirror/{big.filename}.metadata", evil)
    for _ in range(2):
        assert cache.metadata(mirror, hashes=big.digest) == evil
        assert cache.metadata(url, hashes=big.digest) == metadata_of(big)
    assert server.count() == 2


@pytest.mark.parametrize("where", ["the wheel's end", "the whole wheel", "the cached wheel"])
def test_what_the_index_tells_holds_wherever_it_is_from(where: str, server: Server, cache: Cache, big: Wheel) -> None:
    """Without a .metadata file, too, the metadata must have the hash that the index tells; else nothing is kept."""
    url = big.on(server, how=without_ranges if where == "the whole wheel" else plain)
    if where == "the cached wheel":
        cache.fetch(url, hashes=big.digest)
    for _ in range(2):
        with pytest.raises(HashMismatchError):
            cache.metadata(url, hashes=big.digest, metadata_hashes={"sha256": "0" * 64})
    right = {"sha256": hex_of(metadata_of(big))}
    assert cache.metadata(url, hashes=big.digest, metadata_hashes=right) == metadata_of(big)


def test_ranges_that_never_fit(server: Server, cache: Cache, big: Wheel) -> None:
    """A server that answers with another range than the one asked for, again and again, gives the whole wheel."""

    def first_bytes(exchange: Exchange) -> None:
        if "range" in exchange.request.headers:
            exchange.send(206, {"Content-Range": f"bytes 0-9/{SIZE}"}, exchange.body[:10])
        else:
            plain(exchange)

    url = big.on(server, how=first_bytes)
    assert cache.metadata(url, hashes=big.digest) == metadata_of(big)
    assert server.count(url) == 3


@pytest.mark.parametrize("beside", [status(404), status(403), html])
@pytest.mark.parametrize("redirected", [False, True])
def test_from_the_end_of_the_wheel(beside, redirected: bool, server: Server, cache: Cache, big: Wheel) -> None:
    """Without a file beside it, a few ranges of the wheel are enough, behind a redirect as well."""
    url = big.on(server)
    server.serve(big.path + ".metadata", how=beside)
    if redirected:
        server.serve("/elsewhere", big.data)
        server.serve(big.path, how=redirect("/elsewhere"))
    assert cache.metadata(url, hashes=big.digest) == metadata_of(big)
    assert server.sent() < SIZE / 2
    server.forget()
    assert cache.metadata(url, hashes=big.digest) == metadata_of(big)
    assert server.count() == 0
    assert list(cache.entries()) == []


def test_metadata_at_the_beginning_of_the_wheel(server: Server, cache: Cache) -> None:
    """An archive whose METADATA is far from its end is read by one range more."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: big\n" * 100)
        archive.writestr(zipfile.ZipInfo("big.bin"), bytes(300_000))
        archive.writestr("big/vendored-2.dist-info/METADATA", b"Metadata-Version: 2.1\nName: vendored\n")
    wheel = Wheel(wheel_filename("big"), buffer.getvalue())
    assert cache.metadata(wheel.on(server), hashes=wheel.digest) == b"Metadata-Version: 2.1\nName: big\n" * 100
    assert server.sent() < 200_000


def fails_at_ranges(code: int) -> Answer:
    """A status to any range; a plain answer to none."""

    def answer(exchange: Exchange) -> None:
        (status(code) if "range" in exchange.request.headers else plain)(exchange)

    return answer


def fails_at_suffixes(code: int) -> Answer:
    """A status to a range without a first position; a plain answer to others."""

    def answer(exchange: Exchange) -> None:
        is_suffix = exchange.request.headers.get("range", "").startswith("bytes=-")
        (status(code) if is_suffix else plain)(exchange)

    return answer


REFUSALS = [*range(201, 206), 226, 300, 304, *range(400, 432), 451, 499, *range(500, 512), *range(520, 527), 599]
TRANSIENT = {408, 425, 429, 500, 502, 503, 504, *range(520, 525)}


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("refuses", [fails_at_ranges, fails_at_suffixes])
def test_refused_ranges_do_not_mean_that_the_wheel_is_missing(
    refuses, code: int, server: Server, cache: Cache, big: Wheel
) -> None:
    """Whatever status a server gives to a range, the whole wheel is requested, and METADATA is read from it."""
    url = big.on(server, how=refuses(code))
    assert cache.metadata(url, hashes=big.digest) == metadata_of(big)
    assert cache.get(big.digest) is not None
    assert server.count(url) == (3 if code in TRANSIENT else 2)


@pytest.mark.parametrize("code", [401, 403, 404, 407, 410, 451, 501])
def test_the_status_of_the_whole_wheel_is_reported(code: int, server: Server, cache: Cache, big: Wheel) -> None:
    """If the whole wheel is refused as well, that is the error, after one request for each."""
    url = big.on(server, how=status(code))
    server.script(url, status(400))
    with pytest.raises(DownloadError) as caught:
        cache.metadata(url, hashes=big.digest)
    assert (caught.value.status, server.count(url)) == (code, 2)


def test_a_range_in_the_middle_may_be_refused_too(server: Server, cache: Cache) -> None:
    """A server that sends the end of a wheel, and refuses the part with METADATA, sends the whole wheel."""
    entries = [Entry("big-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: big\n"), Entry("a", bytes(300_000))]
    wheel = Wheel(wheel_filename("big"), archive(entries))
    url = wheel.on(server)
    server.script(url, plain, status(404))
    assert b"Name: big" in cache.metadata(url)
    assert server.count(url) == 3


@pytest.mark.parametrize("code", [429, 503])
def test_the_requested_wait_is_kept_before_each_request(
    code: int, server: Server, machine: Machine, cache: Cache, big: Wheel
) -> None:
    """After a refused range, Retry-After applies to the next range and to the request for the whole wheel."""
    times = []

    def answer(exchange: Exchange) -> None:
        times.append(machine.clock.monotonic())
        (status(code, retry_after="7") if "range" in exchange.request.headers else plain)(exchange)

    assert cache.metadata(big.on(server, how=answer), hashes=big.digest) == metadata_of(big)
    first, second, third = times
    assert second - first >= 7
    assert third - second >= 7


@pytest.mark.parametrize("code", [429, 503])
def test_a_long_wait_is_an_error_and_not_a_request(code: int, server: Server, cache: Cache, big: Wheel) -> None:
    """If the server asks to wait longer than a minute, the whole wheel is not requested before that."""
    url = big.on(server, how=status(code, retry_after="3600"))
    with pytest.raises(DownloadError) as caught:
        cache.metadata(url)
    assert (caught.value.status, caught.value.retry_after, server.count(url)) == (code, 3600.0, 1)


@pytest.mark.parametrize(("code", "error"), [(200, ReadOnlyError), (404, DownloadError), (403, DownloadError)])
def test_a_read_only_cache_reports_a_missing_wheel_as_missing(
    code: int, error: type[Exception], server: Server, machine: Machine, big: Wheel, tmp_path
) -> None:
    """A cache that cannot fetch the wheel requests its status, so that a missing wheel is no error of the cache."""
    url = big.on(server, how=fails_at_ranges(404) if code == 200 else status(code))
    machine.cache(tmp_path / "cache").close()
    with machine.cache(tmp_path / "cache", read_only=True) as cache, pytest.raises(error) as caught:
        cache.metadata(url)
    assert server.count(url) == 2
    assert getattr(caught.value, "status", 200) == code


def test_a_range_longer_than_any_part_is_not_read(server: Server, cache: Cache, big: Wheel) -> None:
    """A server that sends far more than the requested end, as a range, is asked for the whole wheel."""

    def much(exchange: Exchange) -> None:
        if "range" in exchange.request.headers:
            exchange.start(206, {"Content-Range": f"bytes 0-{1 << 30}/{1 << 31}"}, length=(1 << 30) + 1)
            exchange.hang_up()
        else:
            plain(exchange)

    assert cache.metadata(big.on(server, how=much), hashes=big.digest) == metadata_of(big)


@pytest.mark.parametrize(
    "beside",
    [status(503), status(503, retry_after="3600"), reset(), endless],
    ids=["busy", "busy for long", "reset", "endless"],
)
def test_a_file_beside_it_that_cannot_be_had(beside: Answer, server: Server, cache: Cache, big: Wheel) -> None:
    """Where the .metadata file fails to the last, the wheel is read all the same."""
    url = big.on(server)
    server.serve(big.path + ".metadata", how=beside)
    assert cache.metadata(url) == metadata_of(big)


@pytest.mark.parametrize("how", [without_ranges, refused_range, wrong_range(-10)])
def test_from_the_whole_wheel(how, server: Server, cache: Cache, big: Wheel) -> None:
    """A server that gives no ranges gives the wheel, which is in the cache from then on."""
    url = big.on(server, how=how)
    assert cache.metadata(url, hashes=big.digest) == metadata_of(big)
    assert (cache.get(big.digest) is not None) or how not in {without_ranges, refused_range}


def test_what_can_pass_is_tried_again(server: Server, machine: Machine, cache: Cache, big: Wheel) -> None:
    """A server that fails now and then is asked again; one that only fails is DownloadError."""
    url = big.on(server)
    server.script(big.path + ".metadata", status(503), status(404))
    server.script(url, truncated(10), plain)
    assert cache.metadata(url) == metadata_of(big)
    for path in (big.path, big.path + ".metadata"):
        server.serve(path, how=status(503))
    server.forget()
    with pytest.raises(DownloadError) as caught:
        cache.metadata(f"{url}?secret=1")
    assert (caught.value.status, caught.value.attempts, len(caught.value.tried)) == (503, 5, 5)
    assert (server.count(url), server.count(f"{url}.metadata")) == (2 + 5, 4)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "how",
    [*map(status, (401, 403, 404, 407, 410, 500)), status(429, retry_after="3600"), status(503, retry_after="7")],
    ids=["401", "403", "404", "407", "410", "500", "429 and wait long", "503 and wait"],
)
def test_what_cannot_be_had_is_told_as_fetch_tells_it(how: Answer, server: Server, cache: Cache, big: Wheel) -> None:
    """Whoever wants the metadata gets the same advice and figures as who wants the wheel."""
    url = big.on(server, how=how)
    server.serve(big.path + ".metadata", how=status(404))
    told = []
    for call in (cache.fetch, cache.metadata):
        with pytest.raises(DownloadError) as caught:
            call(url)
        told.append((caught.value.problem, caught.value.status, caught.value.retry_after, caught.value.advice))
    assert told[0] == told[1]


def test_no_wheel_is_no_metadata(server: Server, cache: Cache, big: Wheel) -> None:
    """A page in the place of a wheel, and a wheel without METADATA, are InvalidWheelError."""

    def page(exchange: Exchange) -> None:
        exchange.file.body = b"<html>" * 50_000
        plain(exchange)

    with pytest.raises(InvalidWheelError):
        cache.metadata(big.on(server, how=page))


@contextmanager
def little_memory(most: int = 32 << 20) -> Iterator[None]:
    """Fail where more than so many bytes were in use at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


BZIP2, LZMA = 12, 14
ZEROS = bytes(64 << 20)


@pytest.mark.parametrize(
    ("method", "packed"),
    [
        pytest.param(DEFLATED, deflate(ZEROS), id="deflate"),
        pytest.param(BZIP2, bz2.compress(ZEROS), id="bzip2"),
        pytest.param(BZIP2, b"none of it", id="broken bzip2"),
        pytest.param(LZMA, b"\x09\x04\x05\x00\x5d\x00\x00\x80\x00" + b"\xff" * 50, id="broken LZMA"),
    ],
)
def test_no_more_is_made_than_is_said(method: int, packed: bytes, server: Server, cache: Cache) -> None:
    """A METADATA that would be far larger than it is said to be, or is packed as none is, is InvalidWheelError."""
    told = {"size": 100}
    entry = Entry("big-1.0.dist-info/METADATA", ZEROS, method, packed=packed, local=told, central=told)
    url = Wheel(wheel_filename("big"), archive([entry])).on(server)
    with little_memory(), pytest.raises(InvalidWheelError):
        cache.metadata(url)


def test_a_directory_too_large_to_be_one(server: Server, cache: Cache, big: Wheel) -> None:
    """A directory that is said to have more bytes than there is memory is not asked for."""
    total, length = 10**17, 10**15
    data = bytearray(bytes(1 << 17) + archive([Entry("big-1.0.dist-info/METADATA")], zip64=True))
    end64 = len(data) - 22 - 20 - 56
    struct.pack_into("<2Q", data, end64 + 40, length, total - length - 22 - 20 - 56)

    def huge(exchange: Exchange) -> None:
        exchange.send(206, {"Content-Range": f"bytes {total - len(data)}-{total - 1}/{total}"}, bytes(data))

    url = big.on(server, how=huge)
    with pytest.raises(InvalidWheelError):
        cache.metadata(url)
    assert server.count(url) == 1


def test_ranges_that_give_less_than_requested_are_not_collected(server: Server, cache: Cache) -> None:
    """If a server sends much and only a part of each requested range, the whole wheel is read, in little memory."""
    much, little = 1 << 20, 1 << 14
    contents = b"Metadata-Version: 2.1\nName: big\n" + bytes(much)
    wheel = Wheel(
        wheel_filename("big"), archive([Entry("a", bytes(much)), Entry("big-1.0.dist-info/METADATA", contents)])
    )

    def crabwise(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        if found := re.fullmatch(r"bytes=(\d+)-\d+", exchange.request.headers.get("range", "")):
            first, end = max(0, int(found[1]) - much), min(int(found[1]) + little, len(exchange.body))
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(exchange.body)}"
            body = exchange.body[first:end]
        exchange.send(code, headers, body)

    url = wheel.on(server, how=crabwise)
    server.serve(wheel.path + ".metadata", how=status(404))
    with little_memory():
        assert cache.metadata(url, hashes=wheel.digest) == contents
    assert "range" not in server.requests(url)[-1].headers
    assert server.count(url) <= 3


@given(data=st.binary(max_size=200), where=st.integers(0, 3000))
def test_damaged_archives_are_told(data: bytes, where: int) -> None:
    """Whatever is damaged in a wheel, it is its METADATA, or some other, or InvalidWheelError."""
    whole = bytearray(make_wheel("big", size=3000))
    whole[where : where + len(data)] = data
    wanted = parse_request(f"https://example.org/{wheel_filename('big')}", None, None, None)
    try:
        assert isinstance(
            read_metadata(lambda offset, count: bytes(whole[offset : offset + count]), len(whole), wanted), bytes
        )
    except InvalidWheelError:
        pass


def test_a_file_url(cache: Cache, big: Wheel, tmp_path) -> None:
    """A wheel of this machine is put in, and read."""
    (tmp_path / big.filename).write_bytes(big.data)
    assert cache.metadata((tmp_path / big.filename).as_uri()) == metadata_of(big)
