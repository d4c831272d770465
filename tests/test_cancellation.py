"""Cancel calls while a server does not respond, before the response headers and during the body."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest
from folders import unfinished
from machines import Machine
from server import Exchange, Server, plain, redirect, stalled, status
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import AsyncCache, Cache, Phase, ProgressEvent, WheelRequest
from wheelcache._cache import core_of
from wheelcache._http.adapters.library import default_library, load
from wheelcache._os.system import System

MANY = [Wheel(wheel_filename(f"many{n}"), make_wheel(f"many{n}", size=2000)) for n in range(4)]
BACKENDS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "trio"]  # trio does not start under Wine


class Silent:
    """A response that does not begin until the test is over, and the requests that wait for it."""

    def __init__(self, at: int | None = None) -> None:
        self.never = threading.Event()
        self.reached = threading.Semaphore(0)
        self.let_go: list[Exchange] = []
        self.clients: set[tuple[str, int]] = set()
        self.at = at

    def __call__(self, exchange: Exchange) -> None:
        self.clients.add(exchange.client)
        self.reached.release()
        try:
            stalled(self.at, self.never)(exchange)
        finally:
            self.let_go.append(exchange)

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.reached.acquire(timeout=60)


@pytest.fixture
def silent() -> Iterator[Silent]:
    """Answer the waiting requests at the end of the test."""
    silent = Silent()
    yield silent
    silent.never.set()


@pytest.fixture(params=["httpx"] if sys.platform == "win32" else ["httpx", "httpx2"])
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """Yield a client of each library, without timeouts."""
    with load(request.param).httpx.Client(timeout=None) as client:
        yield client


def connected(server: Server, fetch_all: Callable[[list[WheelRequest]], object]) -> set[tuple[str, int]]:
    """Fetch other wheels at once, so that the pool has a connection for each of ``MANY``. Return the connections."""
    together = threading.Barrier(len(MANY))
    clients: set[tuple[str, int]] = set()

    def answer(exchange: Exchange) -> None:
        clients.add(exchange.client)
        together.wait(60)
        plain(exchange)

    before = [Wheel(wheel_filename(f"before{n}"), make_wheel(f"before{n}", size=2000)) for n in range(len(MANY))]
    fetch_all([WheelRequest(wheel.on(server, how=answer), wheel.digest) for wheel in before])
    return clients


@pytest.mark.parametrize(("whose", "reused"), [("own", False), ("own", True), ("callers", False)])
def test_an_interrupt(
    whose: str, reused: bool, silent: Silent, client: httpx.Client, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """Ctrl-C ends a fetch of many wheels without a response, on new and, with our own client, reused connections."""
    answered = MANY[3].filename

    def interrupt(event: ProgressEvent) -> None:
        if event.wheel == answered:
            silent.wait_for(3)
            raise KeyboardInterrupt

    with machine.cache(tmp_path / "cache", client=client if whose == "callers" else None) as cache:
        clients = connected(server, cache.fetch_all) if reused else set()
        wanted = [WheelRequest(wheel.on(server, how=silent), wheel.digest) for wheel in MANY[:3]]
        wanted.append(WheelRequest(MANY[3].on(server), MANY[3].digest))
        with pytest.raises(KeyboardInterrupt):
            cache.fetch_all(wanted, progress=interrupt)
        assert silent.let_go == []  # the server still waits, so it did not end the call
        assert not reused or silent.clients <= clients
        assert unfinished(cache) == []


@pytest.mark.parametrize("at", [None, 500])
@pytest.mark.parametrize("whose", ["own", "callers"])
@pytest.mark.parametrize("many", [False, True])
def test_closing_in_another_thread(
    at: int | None, whose: str, many: bool, client: httpx.Client, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """Closing a cache ends waits for a server in other threads with its own error, and leaves no trace."""
    silent = Silent(at)
    wheel = MANY[0]
    url = wheel.on(server, how=silent)
    cache = machine.cache(tmp_path / "cache", client=client if whose == "callers" else None)

    arrived = threading.Event()

    def listen(event: ProgressEvent) -> None:
        if event.done:
            arrived.set()

    def fetch() -> None:
        if many:
            cache.fetch_all([WheelRequest(url, wheel.digest)], progress=listen)
        else:
            cache.fetch(url, hashes=wheel.digest, progress=listen)

    with ThreadPoolExecutor(1) as threads:
        fetching = threads.submit(fetch)
        silent.wait_for(1)
        assert at is None or arrived.wait(60)
        cache.close()
        error = fetching.exception(60)
    assert silent.let_go == []
    assert server.count() == 1
    assert isinstance(error, ValueError)
    assert "closed" in str(error)
    assert unfinished(cache) == []
    silent.never.set()


class DeafAtFirst:
    """An interruption that has no effect the first time, as if the thread were only about to wait."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, connection: socket.socket) -> None:
        self.calls += 1
        if self.calls > 1:
            System().interrupt_read(connection)


class Paused(threading.Event):
    """An event that is set while a call sleeps."""

    def __call__(self, seconds: float, look_up: Callable[[], object] = lambda: None) -> None:
        self.set()
        System().sleep(seconds, look_up)


def deaf_at_first() -> type[Cache]:
    class DeafCache(Cache):
        _system = replace(System(), interrupt_read=DeafAtFirst())

    return DeafCache


def test_closing_between_two_redirects(server: Server, machine: Machine, tmp_path: Path) -> None:
    """Closing a cache between a redirect and the next request raises the error of a closed cache."""
    cache = machine.cache(tmp_path / "cache")

    class Closing(logging.Handler):
        # The library logs each response before the redirect is followed.
        def emit(self, record: logging.LogRecord) -> None:
            closing = threading.Thread(target=cache.close)
            closing.start()
            closing.join()

    log, handler = logging.getLogger(default_library().name), Closing()
    url = server.serve(f"/from/{MANY[0].filename}", how=redirect(MANY[0].on(server)))
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        with pytest.raises(ValueError, match="closed"):
            cache.fetch(url, hashes=MANY[0].digest)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    assert server.count() == 1
    assert unfinished(cache) == []


def test_closing_is_said_again(silent: Silent, client: httpx.Client, server: Server, tmp_path: Path) -> None:
    """A call that was only about to wait when the cache was closed is interrupted, too."""
    url = MANY[0].on(server, how=silent)
    cache = deaf_at_first()(tmp_path / "cache", client=client)
    with ThreadPoolExecutor(1) as threads:
        fetching = threads.submit(cache.fetch, url, hashes=MANY[0].digest)
        silent.wait_for(1)
        cache.close()
        with pytest.raises(ValueError, match="closed"):
            fetching.result(60)
    assert silent.let_go == []


@pytest.mark.parametrize("call", [Cache.fetch, Cache.metadata])
def test_closing_ends_the_pause_before_the_next_try(
    call: Callable[..., object], server: Server, tmp_path: Path
) -> None:
    """Closing a cache ends the wait before the next attempt, and no further request is sent."""
    url = MANY[0].on(server, how=status(503, retry_after="59"))
    cache = Cache(tmp_path / "cache")
    paused = Paused()
    core_of(cache).system = replace(core_of(cache).system, sleep=paused)
    with ThreadPoolExecutor(1) as threads:
        fetching = threads.submit(call, cache, url)
        assert paused.wait(60)
        asked = server.count()
        cache.close()
        with pytest.raises(ValueError, match="closed"):
            fetching.result(30)
    assert server.count() == asked
    assert unfinished(cache) == []


def test_closing_ends_the_waiting_for_another_download(silent: Silent, server: Server, tmp_path: Path) -> None:
    """Closing a cache ends its wait for another cache's download, which continues."""
    silent.at = 500
    url = MANY[0].on(server, how=silent)
    waiting = threading.Event()

    def listen(event: ProgressEvent) -> None:
        if event.phase is Phase.WAITING:
            waiting.set()

    with Cache(tmp_path / "cache") as other, ThreadPoolExecutor(2) as threads:
        downloading = threads.submit(other.fetch, url, hashes=MANY[0].digest)
        silent.wait_for(1)
        cache = Cache(tmp_path / "cache")
        fetching = threads.submit(cache.fetch, url, hashes=MANY[0].digest, progress=listen)
        assert waiting.wait(60)
        cache.close()
        with pytest.raises(ValueError, match="closed"):
            fetching.result(30)
        assert not downloading.done()
        silent.never.set()
        assert downloading.result(60).path.read_bytes() == MANY[0].data
    assert server.count() == 1


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.parametrize("whose", ["own", "callers"])
@pytest.mark.parametrize("at", [None, 500])
async def test_closing_in_another_task(
    at: int | None, whose: str, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """Closing an AsyncCache ends the wait for a server in another task, even with an AsyncClient of the caller."""
    silent = Silent(at)
    url = MANY[0].on(server, how=silent)
    arrived = anyio.Event()

    def listen(event: ProgressEvent) -> None:
        if event.done:
            anyio.from_thread.run_sync(arrived.set)

    class MachineAsyncCache(AsyncCache):
        _cache_class = machine.cache_class

    async with httpx.AsyncClient(timeout=None) as client:
        cached = MachineAsyncCache(tmp_path / "cache", client=client if whose == "callers" else None)

        async def fetch() -> None:
            with pytest.raises(ValueError, match="closed"):
                await cached.fetch(url, hashes=MANY[0].digest, progress=listen)

        async with anyio.create_task_group() as group:
            group.start_soon(fetch)
            await anyio.to_thread.run_sync(silent.wait_for, 1)
            if at is not None:
                await arrived.wait()
            await cached.close()
        assert silent.let_go == []
        assert server.count() == 1
        silent.never.set()
        assert (await client.get(url)).content == MANY[0].data
    with Cache(cached.path) as cache:
        assert unfinished(cache) == []


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_cancelling_is_said_again(silent: Silent, client: httpx.Client, server: Server, tmp_path: Path) -> None:
    """A task that is cancelled while its thread is only about to wait ends, too."""

    class PatientCache(deaf_at_first()):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "client": client})

    class DeafAsyncCache(AsyncCache):
        _cache_class = PatientCache

    url = MANY[0].on(server, how=silent)
    async with DeafAsyncCache(tmp_path / "cache") as cached, anyio.create_task_group() as group:
        group.start_soon(lambda: cached.fetch(url, hashes=MANY[0].digest))
        await anyio.to_thread.run_sync(silent.wait_for, 1)
        group.cancel_scope.cancel()
    assert silent.let_go == []


def test_closing_ends_no_request_of_the_callers(
    silent: Silent, client: httpx.Client, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """Closing a cache does not end a request of the caller on a connection that the cache has opened."""
    server.serve("/theirs", b"their answer", how=silent)
    with machine.cache(tmp_path / "cache", client=client) as cache, ThreadPoolExecutor(1) as threads:
        clients = connected(server, cache.fetch_all)
        asking = threads.submit(client.get, server.url("/theirs"))
        silent.wait_for(1)
        assert silent.clients <= clients
        cache.close()
        silent.never.set()
        assert asking.result().content == b"their answer"
    assert client.get(server.url("/theirs")).content == b"their answer"


def test_closing_ends_the_waiting_for_a_connection_of_the_pool(machine: Machine, tmp_path: Path) -> None:
    """Closing a cache ends the wait for a connection of a client whose connections are all in use."""
    asked: list[httpx.Request] = []

    def closed_meanwhile(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        closing = threading.Thread(target=cache.close)
        closing.start()
        closing.join()
        raise httpx.PoolTimeout("", request=request)

    with httpx.Client(transport=httpx.MockTransport(closed_meanwhile)) as client:
        cache = machine.cache(tmp_path / "cache", client=client)
        with pytest.raises(ValueError, match="closed"):
            cache.fetch(f"https://example.org/{MANY[0].filename}", hashes=MANY[0].digest)
    assert len(asked) == 1


def test_closing_while_metadata_is_waited_for(
    silent: Silent, client: httpx.Client, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """Closing a cache ends the wait for the end of a wheel, without an error about the wheel."""
    url = MANY[0].on(server, how=silent)
    cache = machine.cache(tmp_path / "cache", client=client)
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(cache.metadata, url)
        silent.wait_for(1)
        cache.close()
        with pytest.raises(ValueError, match="closed"):
            asking.result(60)
    assert silent.let_go == []


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.parametrize("whose", ["own", "callers"])
@pytest.mark.parametrize("reused", [False, True])
async def test_cancelling(
    reused: bool, whose: str, silent: Silent, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """A cancelled task ends although the server has not responded, and other tasks continue."""

    class MachineAsyncCache(AsyncCache):
        _cache_class = machine.cache_class

    async with httpx.AsyncClient(timeout=None) as theirs:
        cached = MachineAsyncCache(
            tmp_path / "cache", client=theirs if whose == "callers" else None, lock_timeout=float("inf")
        )
        async with cached:
            if reused:
                clients: set[tuple[str, int]] = set()
                together = threading.Barrier(2)

                def answer(exchange: Exchange) -> None:
                    clients.add(exchange.client)
                    together.wait(60)
                    plain(exchange)

                before = [WheelRequest(wheel.on(server, how=answer), wheel.digest) for wheel in MANY[2:]]
                await cached.fetch_all(before)
            first = MANY[0].on(server, how=silent)
            other = MANY[1].on(server, how=silent)
            found = []

            async def fetch_other() -> None:
                found.append(await cached.fetch(other, hashes=MANY[1].digest))

            async with anyio.create_task_group() as group:
                group.start_soon(fetch_other)
                async with anyio.create_task_group() as inner:
                    inner.start_soon(lambda: cached.fetch(first, hashes=MANY[0].digest))
                    await anyio.to_thread.run_sync(silent.wait_for, 2)
                    inner.cancel_scope.cancel()
                assert silent.let_go == []
                assert not reused or silent.clients <= clients
                silent.never.set()
            assert found[0].path.read_bytes() == MANY[1].data
            assert server.count(other) == 1
    with Cache(cached.path) as cache:
        assert unfinished(cache) == []
