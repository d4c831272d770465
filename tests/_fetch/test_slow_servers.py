"""Servers that keep a connection open and send almost nothing: the download fails, and a mirror is used."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from folders import unfinished
from http_clients import LIBRARIES
from machines import FakeClock, Machine
from marks import any_system
from server import Answer, Exchange, Server, chunked, plain
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import AsyncCache, CachedWheel, DownloadError, DownloadLimits, Status
from wheelcache._fetch import download, metadata

# Far above the rate of the servers here, and far below the rate of the correct answers.
LIMITS = DownloadLimits(min_rate=5000, window=1.0)
ATTEMPTS = 2
WHEEL = Wheel(wheel_filename(), make_wheel(size=400_000))
KINDS = ["own", *LIBRARIES, "requests", "async"]


class Clock(FakeClock):
    """The real time, except that pauses between attempts end at once. ``ahead`` are seconds that a listener takes."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def dribble(exchange: Exchange, data: bytes) -> None:
    """Send one byte now and then, until the client or the server ends the connection."""
    never = threading.Event()
    for position in range(len(data)):
        exchange.write_raw(data[position : position + 1])
        if never.wait(0.05):
            return


def slow_body(exchange: Exchange) -> None:
    code, headers, body = exchange.right_answer()
    exchange.hang_up()
    exchange.start(code, headers, length=len(body))
    dribble(exchange, body)


def slow_body_after_a_fast_start(exchange: Exchange) -> None:
    code, headers, body = exchange.right_answer()
    exchange.hang_up()
    exchange.start(code, headers, length=len(body))
    exchange.write(body[:100_000])
    dribble(exchange, body[100_000:])


def slow_chunk_size(exchange: Exchange) -> None:
    exchange.hang_up()
    exchange.start(200, {"Transfer-Encoding": "chunked"})
    exchange.write_raw(b"3e8\r\n" + exchange.body[:1000] + b"\r\n3e8")
    dribble(exchange, b";extension=" + b"x" * 10_000)


def silent_body(exchange: Exchange) -> None:
    exchange.hang_up()
    exchange.start(200, length=len(exchange.body))
    exchange.write(exchange.body[:100])
    exchange.wait(threading.Event())


def silent(exchange: Exchange) -> None:
    exchange.hang_up()
    exchange.wait(threading.Event())


def slow_head(exchange: Exchange) -> None:
    exchange.hang_up()
    dribble(exchange, b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 10_000)


def endless_early_hints(exchange: Exchange) -> None:
    exchange.hang_up()
    for _ in range(10_000):
        exchange.write_raw(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        time.sleep(0.005)


def endless_continue(exchange: Exchange) -> None:
    exchange.hang_up()
    while True:
        exchange.write_raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


HEADS: list[Answer] = [silent, slow_head, endless_early_hints, endless_continue]
BODIES: list[Answer] = [slow_body, slow_chunk_size, silent_body]


class World:
    """A cache with a client of one kind, whose own timeouts are long."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.clock = Clock()
        cache_class = Machine(clock=self.clock).cache_class

        class SlowAsyncCache(AsyncCache):
            _cache_class = cache_class

        self.cache_class = cache_class
        self.async_class: type[AsyncCache] = SlowAsyncCache

    def run(self, method: str, url: str, *, limits: DownloadLimits = LIMITS, **options: Any) -> Any:
        """Call a method of a new cache."""
        if self.kind == "async":
            return anyio.run(lambda: self._run_async(method, url, limits, **options))
        with self._client() as client, self.cache_class(self.folder, client=client, limits=limits) as cache:
            return getattr(cache, method)(url, **options)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        if self.kind == "own":
            yield None
        elif self.kind == "requests":
            import requests

            from wheelcache import requests_client

            with requests.Session() as session:
                yield requests_client(session, timeout=None)
        else:
            with importlib.import_module(self.kind).Client(timeout=None) as client:
                yield client

    async def _run_async(self, method: str, url: str, limits: DownloadLimits, **options: Any) -> Any:
        async with (
            importlib.import_module(LIBRARIES[-1]).AsyncClient(timeout=None) as client,
            self.async_class(self.folder, client=client, limits=limits) as cache,
        ):
            return await getattr(cache, method)(url, **options)

    def fetch(self, url: str, **options: Any) -> CachedWheel:
        """Fetch a wheel with a new cache."""
        wheel: CachedWheel = self.run("fetch", url, **options)
        return wheel


@pytest.fixture
def world(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which downloads have few attempts."""
    monkeypatch.setattr(download, "_ATTEMPTS", ATTEMPTS)
    monkeypatch.setattr(metadata, "_ATTEMPTS", ATTEMPTS)
    return World(kind, tmp_path / "cache")


every_kind = pytest.mark.parametrize("kind", KINDS)
# The documented limit of requests: it does not name the socket on which it waits for a response.
SLOW = [(kind, how) for kind in KINDS for how in (*BODIES, *(HEADS if kind != "requests" else ()))]


def marked(pairs: list[tuple[str, Answer]]) -> list[object]:
    """Return pairs as parameters, of which Windows runs all with our own client, and one with each other client."""
    return [
        pytest.param(kind, how, marks=[] if kind == "own" or how is slow_body else any_system) for kind, how in pairs
    ]


@pytest.mark.parametrize(("kind", "how"), marked(SLOW))
def test_a_slow_server_fails(how: Answer, world: World, server: Server) -> None:
    """A head or a body that arrives too slowly ends the attempt, and the error says how much was received."""
    url = WHEEL.on(server, how=how)
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"received only \d+ bytes? of the body in 1 s") as caught:
        world.fetch(url, hashes=WHEEL.digest)
    assert time.monotonic() - began < 60
    assert "limits=" in caught.value.advice
    assert caught.value.attempts == ATTEMPTS
    assert server.count() <= ATTEMPTS  # under load, an attempt may end before the server has read its request
    assert not any("wheelcache" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("kind", "how"),
    marked(
        [
            (kind, how)
            for kind, how in [*SLOW, *((kind, slow_body_after_a_fast_start) for kind in KINDS)]
            if how in {slow_head, slow_body_after_a_fast_start}
        ]
    ),
)
def test_a_mirror_is_used_after_a_slow_server(how: Answer, world: World, server: Server) -> None:
    """After one slow attempt, the mirror delivers the rest."""
    mirror = server.serve(f"/mirror/{WHEEL.filename}", WHEEL.data)
    url = WHEEL.on(server, how=how)
    found = world.fetch(url, hashes=WHEEL.digest, mirrors=[mirror])
    assert found.path.read_bytes() == WHEEL.data
    assert (server.count(url), server.count(mirror)) == (1, 1)
    assert found.status == (Status.DOWNLOADED if how is slow_head else Status.RESUMED)


@every_kind
def test_a_slow_download_is_continued_by_a_later_attempt(world: World, server: Server) -> None:
    """The bytes of a slow attempt are kept, and the next attempt requests the rest."""
    url = WHEEL.on(server)
    server.script(url, slow_body_after_a_fast_start)
    assert world.fetch(url, hashes=WHEEL.digest).status == Status.RESUMED
    first, second = server.requests()
    assert "range" not in first.headers
    assert int(second.headers["range"].removeprefix("bytes=").removesuffix("-")) >= 100_000


@pytest.mark.parametrize(("kind", "how"), marked([pair for pair in SLOW if pair[1] in {slow_head, slow_body}]))
def test_slow_metadata_fails(how: Answer, world: World, server: Server) -> None:
    """The limit holds for every request, also for METADATA."""
    url = WHEEL.on(server, how=how)
    server.serve(f"{url}.metadata", how=how)
    with pytest.raises(DownloadError, match="received only"):
        world.run("metadata", url)


@every_kind
@pytest.mark.parametrize("how", [plain, chunked])
def test_a_slow_listener_does_not_count(how: Answer, world: World, server: Server) -> None:
    """Only the waits for the network are measured: a listener may take longer than the window."""
    calls: list[int] = []

    def listen(event: Any) -> None:
        if event.done and len(calls) < 3:
            calls.append(event.done)
            world.clock.ahead += 1.2

    found = world.fetch(WHEEL.on(server, how=how), hashes=WHEEL.digest, progress=listen)
    assert found.status == Status.DOWNLOADED
    assert server.count() == 1


def gateway(exchange: Exchange) -> None:
    """A few bytes while the gateway scans, and then everything."""
    code, headers, body = exchange.right_answer()
    exchange.start(code, headers, length=len(body))
    for position in range(5):
        exchange.write(body[position : position + 1])
        time.sleep(0.1)
    exchange.write(body[5:])


@every_kind
def test_a_gateway_may_scan_for_less_than_the_window(world: World, server: Server) -> None:
    """A server that sends a few bytes for half a second, and then everything, is fast enough for a long window."""
    limits = DownloadLimits(min_rate=1000, window=60)
    assert world.fetch(WHEEL.on(server, how=gateway), limits=limits).status == Status.DOWNLOADED
    assert server.count() == 1


@every_kind
def test_no_minimum_rate_is_no_limit(world: World, server: Server) -> None:
    """With a minimum rate of 0, the client's own timeouts are the only ones."""
    limits = DownloadLimits(min_rate=0, window=0.01)
    assert world.fetch(WHEEL.on(server, how=gateway), limits=limits).status == Status.DOWNLOADED


@pytest.mark.parametrize("is_async", [False, True])
def test_waiting_for_a_free_connection_does_not_count(is_async: bool, server: Server, tmp_path: Path) -> None:
    """A request that waits until another download of the client's only connection ends is not too slow."""
    world = World("async" if is_async else "httpx", tmp_path / "cache")
    limits = DownloadLimits(min_rate=5000, window=2.0)
    one = httpx.Limits(max_connections=1)

    def steady(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        exchange.start(code, headers, length=len(body))
        for start in range(0, len(body), 10_000):
            exchange.write(body[start : start + 10_000])
            time.sleep(0.1)

    other = Wheel(wheel_filename("other"), make_wheel("other", size=5000))
    urls = [WHEEL.on(server, how=steady), other.on(server)]

    async def fetch_async() -> list[CachedWheel]:
        async with (
            httpx.AsyncClient(timeout=30, limits=one) as client,
            world.async_class(world.folder, client=client, limits=limits) as cache,
        ):
            return await cache.fetch_all(urls, jobs=2)

    def fetch() -> list[CachedWheel]:
        with (
            httpx.Client(timeout=30, limits=one) as client,
            world.cache_class(world.folder, client=client, limits=limits) as cache,
        ):
            return cache.fetch_all(urls, jobs=2)

    found = anyio.run(fetch_async) if is_async else fetch()
    assert [wheel.size for wheel in found] == [WHEEL.size, other.size]
    assert server.count() == 2


def test_a_slow_name_lookup_fails(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name lookup is a wait for the network, too. It cannot be ended, and is left behind."""
    never = threading.Event()
    world = World("own", tmp_path / "cache")
    url = WHEEL.on(server)

    def look_up(*_: object, **options: object) -> list[Any]:
        if options.get("flags"):
            raise network.socket.gaierror
        never.wait(60)
        return []

    from wheelcache._http.default_client import network

    monkeypatch.setattr(network.socket, "getaddrinfo", look_up)
    try:
        with pytest.raises(DownloadError, match="received only 0 bytes"):
            world.fetch(url)
    finally:
        never.set()


@every_kind
def test_cancelling_a_slow_download_is_no_failure(world: World, server: Server) -> None:
    """A listener's exception ends a slow download, and its rate is not judged any more."""

    def leave(event: Any) -> None:
        if event.done:
            raise LookupError

    with pytest.raises(LookupError):
        world.fetch(WHEEL.on(server, how=slow_body), progress=leave)
    with world.cache_class(world.folder) as cache:
        assert unfinished(cache) == []
