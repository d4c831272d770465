"""The limits of downloads: their values, and bodies that are larger than they may be."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import httpx
import pytest
from folders import assert_nothing_came, unfinished
from machines import Machine
from server import Answer, Exchange, Server, chunked, endless, plain, truncated, until_closed
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import AsyncCache, Cache, CacheTransport, DownloadError, DownloadLimits, Phase, Status

LIMIT = 20_000
BACKENDS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "trio"]  # trio does not start under Wine
SMALL, EXACT, LARGE = (
    Wheel(wheel_filename(name), make_wheel(name, size=size))
    for name, size in (("small", LIMIT - 1), ("exact", LIMIT), ("large", LIMIT + 1))
)


@pytest.fixture
def cache(machine: Machine, tmp_path: Path) -> Iterator[Cache]:
    """A cache with a low limit."""
    with machine.cache(tmp_path / "cache", limits=DownloadLimits(max_bytes=LIMIT)) as cache:
        yield cache


# Values


def test_the_limits_by_default() -> None:
    """The default limits are those of the documentation."""
    assert DownloadLimits() == DownloadLimits(max_bytes=16 * 2**30, min_rate=1.0, window=900.0)


@pytest.mark.parametrize(
    "valid",
    [{"max_bytes": 0}, {"max_bytes": None}, {"min_rate": 0}, {"min_rate": 1e9}, {"window": 0.5}, {"window": 10**6}],
)
def test_valid_limits(valid: dict[str, Any]) -> None:
    """Limits may be switched off by None and 0, and any positive window is allowed."""
    limits = DownloadLimits(**valid)
    assert pickle.loads(pickle.dumps(limits)) == limits


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ({"max_bytes": -1}, "max_bytes must be a number of bytes"),
        ({"min_rate": 10**400}, "min_rate must be a number of bytes per second"),
        ({"window": 10**400}, "window must be a positive number of seconds"),
        ({"max_bytes": 1.5}, "max_bytes must be a number of bytes"),
        ({"max_bytes": True}, "max_bytes must be a number of bytes"),
        ({"max_bytes": "1GB"}, "max_bytes must be a number of bytes"),
        ({"min_rate": -1.0}, "min_rate must be a number of bytes per second"),
        ({"min_rate": None}, "min_rate must be a number of bytes per second"),
        ({"min_rate": float("nan")}, "min_rate must be a number of bytes per second"),
        ({"min_rate": float("inf")}, "min_rate must be a number of bytes per second"),
        ({"min_rate": True}, "min_rate must be a number of bytes per second"),
        ({"window": 0}, "window must be a positive number of seconds"),
        ({"window": -1}, "window must be a positive number of seconds"),
        ({"window": float("nan")}, "window must be a positive number of seconds"),
        ({"window": float("inf")}, "window must be a positive number of seconds"),
        ({"window": None}, "window must be a positive number of seconds"),
    ],
)
def test_invalid_limits(invalid: dict[str, Any], message: str) -> None:
    """A limit that makes no sense is an error at once, which names it."""
    with pytest.raises(ValueError, match=message):
        DownloadLimits(**invalid)


def test_limits_cannot_be_changed() -> None:
    """A cache cannot be given other limits after it was opened."""
    with pytest.raises(FrozenInstanceError):
        DownloadLimits().max_bytes = 1  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Cache, AsyncCache])
def test_other_objects_are_not_limits(kind: type, tmp_path: Path) -> None:
    """A number instead of the limits is an error of the argument."""
    with pytest.raises(TypeError, match="limits must be a DownloadLimits, not int"):
        kind(tmp_path / "cache", limits=10)
    assert not (tmp_path / "cache").exists()


# Large bodies


@pytest.mark.parametrize("how", [plain, chunked, until_closed])
@pytest.mark.parametrize("wheel", [SMALL, EXACT], ids=lambda wheel: wheel.filename)
def test_a_body_within_the_limit(how: Answer, wheel: Wheel, cache: Cache, server: Server) -> None:
    """A body of exactly the limit is stored."""
    assert cache.fetch(wheel.on(server, how=how)).size == wheel.size


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("how", [plain, chunked, until_closed])
def test_a_body_above_the_limit(how: Answer, hashed: bool, cache: Cache, server: Server) -> None:
    """One byte more is a permanent error whose advice names both remedies, and nothing remains on the disk."""
    with pytest.raises(DownloadError, match=f"the body has more than {LIMIT} bytes") as caught:
        cache.fetch(LARGE.on(server, how=how), hashes=LARGE.digest if hashed else None)
    assert "size=" in caught.value.advice
    assert "limits=DownloadLimits(max_bytes=...)" in caught.value.advice
    assert server.count() == 1
    assert_nothing_came(cache)


def test_a_declared_length_above_the_limit_is_refused_at_once(cache: Cache, server: Server) -> None:
    """A body that declares too many bytes is refused before a byte of it is received."""
    received: list[int] = []

    def declare(exchange: Exchange) -> None:
        exchange.start(200, length=10**15)
        exchange.hang_up()

    with pytest.raises(DownloadError, match="more than"):
        cache.fetch(
            LARGE.on(server, how=declare),
            progress=lambda event: received.append(event.done if event.phase is Phase.DOWNLOADING else 0),
        )
    assert set(received) == {0}
    assert server.count() == 1


def test_an_endless_body_ends_at_the_limit(cache: Cache, server: Server) -> None:
    """No more than the limit is written of a body without an end."""
    written: list[int] = []
    with pytest.raises(DownloadError, match="more than"):
        cache.fetch(LARGE.on(server, how=endless), progress=lambda event: written.append(event.done))
    assert max(written) <= LIMIT
    assert_nothing_came(cache)


def test_a_requested_size_replaces_the_limit(cache: Cache, server: Server) -> None:
    """With a size, the wheel may be larger than the limit."""
    assert cache.fetch(LARGE.on(server), size=LARGE.size).path.read_bytes() == LARGE.data


@pytest.mark.parametrize("limits", [None, DownloadLimits(max_bytes=None)])
def test_without_a_low_limit_the_body_is_stored(
    limits: DownloadLimits | None, machine: Machine, server: Server, tmp_path: Path
) -> None:
    """The default limit is high, and None is no limit."""
    with machine.cache(tmp_path / "cache", limits=limits) as cache:
        assert cache.fetch(LARGE.on(server)).size == LARGE.size


def test_the_bytes_of_earlier_responses_count(cache: Cache, server: Server) -> None:
    """A body that is resumed must not exceed the limit in total, and the file of it is deleted."""
    url = LARGE.on(server)
    server.script(url, truncated(17_000))
    with pytest.raises(DownloadError, match="more than"):
        cache.fetch(url, hashes=LARGE.digest)
    assert_nothing_came(cache)


def test_a_mirror_is_used_instead(cache: Cache, server: Server) -> None:
    """A mirror with the right file is used after a source with too many bytes."""
    url = server.serve(f"/wrong/{SMALL.filename}", LARGE.data)
    found = cache.fetch(url, mirrors=[SMALL.on(server)])
    assert (found.size, found.status) == (SMALL.size, Status.DOWNLOADED)


# CacheTransport


@pytest.mark.parametrize("how", [plain, chunked, until_closed])
def test_a_transport_does_not_store_a_body_above_the_limit(how: Answer, cache: Cache, server: Server) -> None:
    """The client gets the whole body, and the cache stores nothing of it."""
    with httpx.Client(transport=CacheTransport(cache)) as client:
        assert client.get(LARGE.on(server, how=how, Cache_Control="max-age=600")).content == LARGE.data
        assert list(cache.entries()) == []
        assert unfinished(cache) == []
        exact = f"{EXACT.on(server, how=how)}#{EXACT.digest.replace(':', '=')}"
        assert client.get(exact).content == EXACT.data
    assert [wheel.digest for wheel in cache.entries()] == [EXACT.digest]


@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.anyio
async def test_an_asynchronous_transport_does_not_store_one_either(tmp_path: Path, server: Server) -> None:
    """An AsyncCache has the same limits."""
    async with (
        AsyncCache(tmp_path / "cache", limits=DownloadLimits(max_bytes=LIMIT)) as cache,
        httpx.AsyncClient(transport=CacheTransport(cache)) as client,
    ):
        url = f"{LARGE.on(server, how=chunked)}#{LARGE.digest.replace(':', '=')}"
        assert (await client.get(url)).content == LARGE.data
        assert [wheel async for wheel in cache.entries()] == []
        with pytest.raises(DownloadError, match="more than"):
            await cache.fetch(url)
