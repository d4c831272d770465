"""Status 203: a proxy changed the response. Only a strong hash shows that the bytes of the wheel are the right ones."""

from __future__ import annotations

import httpx
import pytest
from folders import assert_nothing_came
from marks import any_system
from server import Answer, Exchange, Server, gzipped, plain, status, truncated
from wheels import Wheel, hex_of, make_wheel, wheel_filename

from wheelcache import Cache, CacheTransport, DownloadError, HashMismatchError, SizeMismatchError, Status

pytestmark = any_system

METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
OTHERS = [201, 202, 204, 205, 207, 208, 226]


def changed(code: int = 203, then: Answer = plain, *, with_ranges: bool = False) -> Answer:
    """Give the response another status. Like most servers that do so, this one ignores ranges by default."""

    def answer(exchange: Exchange) -> None:
        start = exchange.start

        def start_with_code(status: int, *args, **options) -> None:
            start(code if status == 200 else status, *args, **options)

        exchange.start = start_with_code  # type: ignore[method-assign]
        if not with_ranges:
            exchange.request.headers.pop("range", None)
        then(exchange)

    return answer


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake2s"])
@pytest.mark.parametrize("then", [plain, gzipped])
def test_a_changed_response_is_accepted_with_a_hash(
    then: Answer, algorithm: str, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """With a requested hash, 203 is as good as 200, also if it is compressed."""
    url = wheel.on(server, how=changed(then=then))
    found = cache.fetch(url, hashes=f"{algorithm}:{wheel.hex(algorithm)}", size=wheel.size)
    assert (found.status, found.path.read_bytes()) == (Status.DOWNLOADED, wheel.data)
    assert server.count() == 1


def test_a_changed_response_is_refused_without_a_hash(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Without a hash, 203 is an error, which says that a proxy changed the response, and advises to pass a hash."""
    url = wheel.on(server, how=changed())
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, size=wheel.size)
    assert (caught.value.status, caught.value.attempts) == (203, 1)
    assert "proxy" in caught.value.advice
    assert "hash" in caught.value.advice
    assert_nothing_came(cache)


@pytest.mark.parametrize("code", OTHERS)
@pytest.mark.parametrize("hashed", [True, False])
def test_other_statuses_are_refused(code: int, hashed: bool, server: Server, cache: Cache, wheel: Wheel) -> None:
    """No other status between 200 and 299 is a wheel, whatever the body is."""
    with pytest.raises(DownloadError) as caught:
        cache.fetch(wheel.on(server, how=changed(code)), hashes=wheel.digest if hashed else None)
    assert caught.value.status == code
    assert_nothing_came(cache)


def test_changed_bytes_are_a_mismatch(server: Server, cache: Cache, wheel: Wheel, other_wheel: Wheel) -> None:
    """A proxy that changed the bytes or the size, too, is reported as such."""
    url = server.serve(wheel.path, other_wheel.data, how=changed())
    with pytest.raises(HashMismatchError):
        cache.fetch(url, hashes=wheel.digest)
    with pytest.raises(SizeMismatchError):
        cache.fetch(url, hashes=wheel.digest, size=wheel.size - 1)
    assert_nothing_came(cache)


@pytest.mark.parametrize("with_ranges", [True, False])
def test_a_changed_response_that_is_cut(with_ranges: bool, server: Server, cache: Cache) -> None:
    """The rest is requested as after 200, and 203 to that request is the whole wheel."""
    big = Wheel(wheel_filename("big"), make_wheel("big", size=900_000))
    url = big.on(server, how=changed(with_ranges=with_ranges))
    server.script(url, changed(then=truncated(450_000)))
    found = cache.fetch(url, hashes=big.digest)
    assert found.path.read_bytes() == big.data
    assert found.status is (Status.RESUMED if with_ranges else Status.DOWNLOADED)
    assert server.count() == 2


def test_a_mirror_replaces_a_changed_response(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Without a hash, a mirror that sends 200 is used."""
    mirror = server.serve(f"/mirror/{wheel.filename}", wheel.data)
    found = cache.fetch(wheel.on(server, how=changed()), mirrors=[mirror])
    assert found.path.read_bytes() == wheel.data


@pytest.mark.parametrize(("code", "hashed", "used"), [(203, True, True), (203, False, False), (202, True, False)])
def test_the_metadata_file(code: int, hashed: bool, used: bool, server: Server, cache: Cache, wheel: Wheel) -> None:
    """A changed .metadata file is used with the hash of the index. Otherwise, METADATA is read from the wheel."""
    url = wheel.on(server)
    with_comment = METADATA + b"Summary: beside\n"
    server.serve(wheel.path + ".metadata", with_comment, how=changed(code))
    hashes = {"sha256": hex_of(with_comment)} if hashed else None
    if used or not hashed:
        data = cache.metadata(url, metadata_hashes=hashes)
        assert (b"Summary: beside" in data) is used
    else:
        with pytest.raises(HashMismatchError):
            cache.metadata(url, metadata_hashes=hashes)
    assert (server.count(url) == 0) is used


@pytest.mark.parametrize("hashed", [True, False])
def test_metadata_of_a_changed_wheel(hashed: bool, server: Server, cache: Cache, wheel: Wheel) -> None:
    """If the whole wheel is changed, its METADATA is returned with the wheel's hash, and is an error without one."""
    url = wheel.on(server, how=changed())
    if hashed:
        assert b"Name: demo" in cache.metadata(url, hashes=wheel.digest)
        return
    with pytest.raises(DownloadError) as caught:
        cache.metadata(url)
    assert caught.value.status == 203


@pytest.mark.parametrize("code", [203, *OTHERS])
@pytest.mark.parametrize("hashed", [True, False])
def test_a_transport_stores_a_changed_response_with_a_hash(
    code: int, hashed: bool, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """CacheTransport passes every status on, and stores 200, and 203 if the URL has a hash."""
    url = wheel.on(server, how=changed(code))
    with httpx.Client(transport=CacheTransport(cache, next=httpx.HTTPTransport())) as client:
        response = client.get(f"{url}#sha256={wheel.hex()}" if hashed else url)
    assert response.status_code == code
    assert (cache.get(wheel.digest) is not None) is (hashed and code == 203)


def test_a_wrong_hash_is_not_stored_by_a_transport(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Changed bytes are passed on, and not stored."""
    url = wheel.on(server, how=changed())
    with httpx.Client(transport=CacheTransport(cache, next=httpx.HTTPTransport())) as client:
        assert client.get(f"{url}#sha256={'0' * 64}").content == wheel.data
    assert_nothing_came(cache)


def test_an_error_before_is_still_one(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A server that is busy first, and then sends 203, delivers the wheel."""
    url = wheel.on(server, how=changed())
    server.script(url, status(503))
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
