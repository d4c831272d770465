"""A source that refuses the rest of a wheel with an error status may still have the whole wheel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from folders import unfinished
from machines import Machine
from marks import any_system
from server import Answer, Exchange, Server, plain, reset, status, truncated
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, DownloadError, Status

pytestmark = any_system

SIZE = 900_000
PERMANENT = [201, 202, 204, 205, 226, 300, *range(400, 408), 409, 410, 411, 413, 417, 418, 421, 451, 499, 501, 505, 599]
TRANSIENT = [408, 425, 429, 500, 502, 503, 504, *range(520, 525)]


@pytest.fixture
def big() -> Wheel:
    """A wheel that is worth resuming."""
    return Wheel(wheel_filename("big"), make_wheel("big", size=SIZE))


@pytest.fixture
def second() -> Iterator[Server]:
    """A second server."""
    with Server() as server:
        yield server


def refusing(code: int, **options: str) -> Answer:
    """A status to every range, else the correct response."""

    def answer(exchange: Exchange) -> None:
        (status(code, **options) if "range" in exchange.request.headers else plain)(exchange)

    return answer


def ranges(server: Server, url: str) -> list[bool]:
    """Return whether each request for a URL had a range."""
    return ["range" in request.headers for request in server.requests(url)]


# With a hash, the body of a response with status 203 is the whole wheel.
@pytest.mark.parametrize(("code", "hashed"), [*itertools.product(PERMANENT, [True, False]), (203, False)])
def test_a_permanent_status_is_checked_without_a_range(
    code: int, hashed: bool, server: Server, cache: Cache, big: Wheel
) -> None:
    """A permanent refusal of the rest is followed at once by a request for the whole wheel, from the same source."""
    url = big.on(server, how=refusing(code))
    server.script(url, truncated(SIZE // 2))
    found = cache.fetch(url, hashes=big.digest if hashed else None)
    assert (found.status, found.path.read_bytes()) == (Status.DOWNLOADED, big.data)
    assert ranges(server, url) == [False, True, False]
    assert unfinished(cache) == []


@pytest.mark.parametrize("code", TRANSIENT)
@pytest.mark.parametrize("hashed", [True, False])
def test_a_transient_status_is_checked_without_a_range_at_last(
    code: int, hashed: bool, server: Server, cache: Cache, big: Wheel
) -> None:
    """A source that refuses each range as if it were busy is asked for the whole wheel in the last attempt."""
    url = big.on(server, how=refusing(code))
    server.script(url, truncated(SIZE // 2))
    assert cache.fetch(url, hashes=big.digest if hashed else None).path.read_bytes() == big.data
    assert ranges(server, url) == [False, True, True, True, True, False]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_busy_source_loses_no_bytes(times: int, server: Server, cache: Cache, big: Wheel) -> None:
    """If a source is busy only for a moment, the bytes from before are not requested again."""
    url = big.on(server)
    server.script(url, truncated(SIZE // 2), *[status(503)] * times)
    assert cache.fetch(url, hashes=big.digest).status is Status.RESUMED
    assert server.sent() < 1.1 * SIZE


def test_the_requested_wait_is_kept(server: Server, machine: Machine, cache: Cache, big: Wheel) -> None:
    """A request for the whole wheel is not sent before the time that a Retry-After of a refused range names."""
    times = []

    def answer(exchange: Exchange) -> None:
        times.append(machine.clock.monotonic())
        refusing(429, retry_after="30")(exchange)

    url = big.on(server, how=answer)
    server.script(url, truncated(SIZE // 2))
    assert cache.fetch(url, hashes=big.digest).path.read_bytes() == big.data
    assert [later - earlier >= 30 for earlier, later in itertools.pairwise(times)] == [True] * 4


@pytest.mark.parametrize("code", [401, 403, 404, 407, 410])
def test_the_status_of_the_whole_wheel_is_reported(code: int, server: Server, cache: Cache, big: Wheel) -> None:
    """If the whole wheel is refused too, its status is the error, and the attempts say which request had a range."""
    url = big.on(server, how=status(code))
    server.script(url, truncated(SIZE // 2), status(400))
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, hashes=big.digest)
    assert caught.value.status == code
    assert "range" not in caught.value.problem
    assert caught.value.tried[1].endswith("responded with 400 Bad Request to a range request")
    assert ranges(server, url) == [False, True, False]


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_mirror_continues_after_a_refusal(
    code: int, server: Server, second: Server, cache: Cache, big: Wheel
) -> None:
    """The bytes of a source that no longer has the wheel are kept, and a mirror continues them."""
    url, mirror = big.on(server, how=status(code)), big.on(second)
    server.script(url, truncated(SIZE // 2))
    assert cache.fetch(url, hashes=big.digest, mirrors=[mirror]).status is Status.RESUMED
    assert server.sent(url) + second.sent(mirror) < 1.1 * SIZE


def test_a_refusal_in_the_last_attempt_is_checked_too(server: Server, cache: Cache, big: Wheel) -> None:
    """After four lost connections, a refused range is not the last word."""
    url = big.on(server, how=refusing(404))
    server.script(url, truncated(SIZE // 2), *[reset()] * 4)
    assert cache.fetch(url, hashes=big.digest).path.read_bytes() == big.data


@pytest.mark.parametrize("code", [404, 503])
def test_every_source_that_refuses_ranges_is_asked_for_the_whole_wheel(
    code: int, server: Server, second: Server, cache: Cache, big: Wheel
) -> None:
    """With mirrors, each source gets its request without a range."""
    url, mirror = big.on(server, how=status(503)), big.on(second, how=refusing(code))
    server.script(url, truncated(SIZE // 2))
    assert cache.fetch(url, hashes=big.digest, mirrors=[mirror]).path.read_bytes() == big.data


@pytest.mark.parametrize("code", [404, 503])
def test_a_source_that_is_cut_and_refuses_ranges_is_given_up(
    code: int, server: Server, cache: Cache, big: Wheel
) -> None:
    """A source that never sends a whole wheel, and no rest either, ends in DownloadError after a few requests."""

    def cut(exchange: Exchange) -> None:
        (status(code) if "range" in exchange.request.headers else truncated(SIZE // 2))(exchange)

    url = big.on(server, how=cut)
    with pytest.raises(DownloadError):
        cache.fetch(url, hashes=big.digest)
    assert server.count(url) <= 12
