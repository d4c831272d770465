"""AsyncCache: the same as Cache, awaited, under asyncio and trio; cancelled, it leaves everything in order."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest
from faulty import FaultyFiles, FileCall, Plan
from folders import unfinished
from machines import Machine
from server import Server, asks_for, gzipped, redirect, stalled, status, truncated
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import (
    AsyncCache,
    Cache,
    CacheTransport,
    DownloadError,
    HashMismatchError,
    Phase,
    ProgressEvent,
    Status,
    WheelRequest,
)
from wheelcache._async_cache import _Work
from wheelcache._operation import CURRENT_TOKEN, CancelToken

BACKENDS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "trio"]  # trio does not start under Wine

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every test runs under each."""
    return request.param


def async_cache(machine: Machine, folder: Path, **options: Any) -> AsyncCache:
    class MachineAsyncCache(AsyncCache):
        _cache_class = machine.cache_class

    # On this machine waiting takes no time, and a download that takes some would be a stopped one.
    return MachineAsyncCache(folder, **{"lock_timeout": float("inf"), **options})


@pytest.fixture(params=["own client", "their client"])
async def cached(
    request: pytest.FixtureRequest, machine: Machine, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[AsyncCache]:
    """An empty cache, with a client of its own, and with an AsyncClient."""
    if request.param == "own client":
        async with async_cache(machine, tmp_path / "cache") as cache:
            yield cache
    else:
        # What ends is ended: this client waits for ever.
        async with (
            httpx.AsyncClient(timeout=None) as client,
            async_cache(machine, tmp_path / "cache", client=client) as cache,
        ):
            yield cache


async def test_a_client_that_raises_for_status(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """What a hook of an AsyncClient raises for a status is that status: it is tried again."""

    async def raise_for_status(response: httpx.Response) -> None:
        response.raise_for_status()

    url = wheel.on(server)
    server.script(url, status(503))
    async with (
        httpx.AsyncClient(event_hooks={"response": [raise_for_status]}) as client,
        async_cache(machine, tmp_path / "cache", client=client) as cached,
    ):
        assert (await cached.fetch(url, hashes=wheel.digest)).path.read_bytes() == wheel.data


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that a stalled server waits for in vain, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


async def test_the_same_as_the_other(server: Server, cached: AsyncCache, wheel: Wheel, tmp_path: Path) -> None:
    """Fetch, get, put, link, entries, stats and close do what those of Cache do."""
    url = wheel.on(server)
    found = await cached.fetch(url, hashes=wheel.digest)
    assert (found.status, found.path.read_bytes()) == (Status.DOWNLOADED, wheel.data)
    assert (await cached.fetch(url, hashes=wheel.digest)).status is Status.HIT
    assert await cached.get(wheel.digest) == found
    assert await cached.get("sha256:" + "0" * 64) is None
    assert [each async for each in cached.entries()] == [found]
    assert (await cached.stats()).wheels == 1
    await cached.link(found, tmp_path / wheel.filename)
    assert (await cached.put(tmp_path / wheel.filename)).digest == wheel.digest
    await cached.close()
    with pytest.raises(ValueError, match="closed"):
        await cached.fetch(url)


async def test_the_threads_of_the_application_are_its_own(server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """Neither a cache nor a transport takes a worker thread of the event loop's, or waits for one."""
    url = wheel.on(server)
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    transport = CacheTransport(cached._cache)
    async with limiter, httpx.AsyncClient(transport=transport) as client:
        with anyio.fail_after(60):
            assert (await cached.fetch(url, hashes=wheel.digest)).status is Status.DOWNLOADED
            assert [each.digest async for each in cached.entries()] == [wheel.digest]
            assert (await client.get(f"{url}#{wheel.digest.replace(':', '=')}")).content == wheel.data
            assert (await client.get(url)).content == wheel.data
            await cached.close()


class Unanswered(httpx.AsyncBaseTransport):
    """A transport that answers nothing, and tells when it was asked often enough."""

    def __init__(self, enough: int) -> None:
        self.left = enough
        self.asked = anyio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.left -= 1
        if self.left == 0:
            self.asked.set()
        await anyio.sleep_forever()
        raise AssertionError


async def test_what_is_there_does_not_wait_behind_what_is_not(
    anyio_backend: str, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """However many downloads wait for a server, a wheel can be put in and had, and closing the cache ends them all."""
    (tmp_path / wheel.filename).write_bytes(wheel.data)
    transport = Unanswered(100)
    async with httpx.AsyncClient(transport=transport) as client:
        cached = async_cache(machine, tmp_path / "cache", client=client)

        async def fetch(number: int) -> None:
            with pytest.raises(ValueError, match="closed"):
                await cached.fetch(f"https://example.org/{number}/{wheel.filename}")

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for number in range(101):
                    group.start_soon(fetch, number)
                await transport.asked.wait()
                await cached.put(tmp_path / wheel.filename)
                assert await cached.get(wheel.digest) is not None
                await cached.close()


def test_a_cache_in_two_event_loops(server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """Two threads, each with an event loop of its own, use one cache at once."""
    urls = [wheel.on(server), server.serve("/other/" + wheel.filename, wheel.data)]
    cached = AsyncCache(tmp_path / "cache")

    async def fetch(url: str) -> int:
        async with anyio.create_task_group() as group:
            for n in range(150):
                group.start_soon(cached.fetch, f"{url}?{n}")
        return 1

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda url: anyio.run(fetch, url), urls, timeout=60)) == [1, 1]
    anyio.run(cached.close)


async def test_entries_that_are_hashed_on_the_way(cached: AsyncCache, machine: Machine, tmp_path: Path) -> None:
    """entries() yields every wheel where each has to be hashed again, too, as after a reboot."""
    names = {wheel_filename(f"many{n}") for n in range(3)}
    for n, name in enumerate(sorted(names)):
        (tmp_path / name).write_bytes(make_wheel(f"many{n}"))
        await cached.put(tmp_path / name)
    machine.reboot()
    async with async_cache(machine, cached.path) as again:
        assert {each.filename async for each in again.entries()} == names


class CancelReading(Plan):
    """Cancel a scope at the first reading of a wheel, and go on when the thread has been told."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.scope = scope
        self.reads = 0

    def before(self, call: FileCall) -> None:
        if call.operation != "file.read" or not call.path.endswith(".whl"):
            return
        self.reads += 1
        stop = CURRENT_TOKEN.get()
        if self.reads == 1 and stop is not None:
            told = threading.Event()
            with stop.on_cancel(told.set):
                anyio.from_thread.run_sync(self.scope.cancel)
                assert told.wait(60)


async def test_cancelling_stops_later_entries_too(anyio_backend: str, tmp_path: Path) -> None:
    """Whoever is cancelled while entries() hashes the second wheel does not wait until that is done."""
    machine = Machine(files := FaultyFiles())
    with machine.cache(tmp_path / "cache") as cache:
        for n in range(2):
            (tmp_path / wheel_filename(f"many{n}")).write_bytes(make_wheel(f"many{n}"))
            cache.put(tmp_path / wheel_filename(f"many{n}"))
    machine.reboot()
    async with async_cache(machine, tmp_path / "cache") as cached:
        entries = cached.entries()
        await anext(entries)
        with anyio.CancelScope() as scope:
            files.plan = plan = CancelReading(scope)
            await anext(entries)
        assert scope.cancelled_caught
        assert plan.reads == 1


def test_every_method_is_there(anyio_backend: str) -> None:
    """What Cache can, AsyncCache can, with the same parameters."""
    for name, method in inspect.getmembers(Cache, inspect.isfunction):
        if name.startswith("_"):
            continue
        theirs = getattr(AsyncCache, name, None)
        assert theirs is not None, f"AsyncCache has no {name}"
        assert list(inspect.signature(theirs).parameters) == list(inspect.signature(method).parameters), name
        assert theirs.__doc__


@pytest.mark.parametrize("fault", [truncated(5000), status(503), gzipped, redirect("/there")])
async def test_faults_pass(fault, server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """What can pass does, through either client."""
    url = wheel.on(server)
    server.serve("/there", wheel.data)
    server.script(url, fault)
    assert (await cached.fetch(url, hashes=wheel.digest)).path.read_bytes() == wheel.data


async def test_errors_come_as_they_are(server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """An error is the one that Cache raises, and no group around it."""
    url = wheel.on(server, how=status(404))
    with pytest.raises(DownloadError) as caught:
        await cached.fetch(url, hashes=wheel.digest)
    assert caught.value.status == 404
    with pytest.raises(HashMismatchError):
        await cached.fetch(wheel.on(server), hashes="sha256:" + "0" * 64)
    with pytest.raises(ValueError, match="nonsense"):
        await cached.fetch("nonsense")


async def test_credentials_of_the_url_go_along(server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """User name and password in the URL are used."""
    wheel.on(server, how=asks_for("me", "hunter2"))
    url = server.url(wheel.path, userinfo="me:hunter2")
    assert (await cached.fetch(url, hashes=wheel.digest)).path.read_bytes() == wheel.data


async def test_many(server: Server, cached: AsyncCache) -> None:
    """fetch_all keeps the order, and its failures come as one group when the others are there."""
    many = [Wheel(wheel_filename(f"many{n}"), make_wheel(f"many{n}", size=3000 + n)) for n in range(20)]
    requests = [WheelRequest(wheel.on(server), wheel.digest, wheel.size) for wheel in many]
    assert [found.digest for found in await cached.fetch_all(requests, jobs=4)] == [wheel.digest for wheel in many]
    server.serve(many[3].path, how=status(404))
    with pytest.raises(ExceptionGroup, match="1 of 20"):
        await cached.fetch_all([WheelRequest(requests[3].url), *requests[:19]])


async def test_tasks_share_one_download(server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """Ten tasks that want the same wheel make one request."""
    url = wheel.on(server)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(lambda: cached.fetch(url, hashes=wheel.digest))
    assert server.count() == 1


@pytest.mark.parametrize("many", [False, True])
async def test_cancelling_stops_a_transfer_that_hangs(
    many: bool, never, server: Server, cached: AsyncCache, wheel: Wheel
) -> None:
    """A cancelled fetch ends although no byte comes any more, and leaves neither lock nor thread nor file."""
    url = wheel.on(server, how=stalled(5000, never))
    begun = anyio.Event()

    def listen(event: ProgressEvent) -> None:
        if event.phase is Phase.DOWNLOADING and event.done:
            anyio.from_thread.run_sync(begun.set)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            if many:
                group.start_soon(lambda: cached.fetch_all([WheelRequest(url, wheel.digest)], progress=listen))
            else:
                group.start_soon(lambda: cached.fetch(url, hashes=wheel.digest, progress=listen))
            await begun.wait()
            group.cancel_scope.cancel()
    with Cache(cached.path) as cache:
        assert unfinished(cache) == []
    server.serve(wheel.path, wheel.data)
    assert (await cached.fetch(url, hashes=wheel.digest)).path.read_bytes() == wheel.data


async def test_cancelling_ends_the_waiting_for_another(
    never, server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """A task that waits for another's download can be cancelled alone; the other one goes on."""
    gate = threading.Event()
    url = wheel.on(server, how=stalled(5000, gate))
    async with async_cache(machine, tmp_path / "cache") as cached:
        waiting, begun = anyio.Event(), anyio.Event()
        found = []

        def first(event: ProgressEvent) -> None:
            if event.done:
                anyio.from_thread.run_sync(begun.set)

        def second(event: ProgressEvent) -> None:
            if event.phase is Phase.WAITING:
                anyio.from_thread.run_sync(waiting.set)

        async def fetch() -> None:
            found.append(await cached.fetch(url, hashes=wheel.digest, progress=first))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(fetch)
                await begun.wait()
                async with anyio.create_task_group() as inner:
                    inner.start_soon(lambda: cached.fetch(url, hashes=wheel.digest, progress=second))
                    await waiting.wait()
                    inner.cancel_scope.cancel()
                gate.set()
        assert found[0].path.read_bytes() == wheel.data
        assert server.count() == 1


async def test_a_task_cancelled_by_asyncio_itself(
    never, anyio_backend: str, server: Server, cached: AsyncCache, wheel: Wheel
) -> None:
    """Cancelling by asyncio itself, which knows no scopes, ends just as cleanly."""
    if anyio_backend != "asyncio":
        return
    import asyncio

    url = wheel.on(server, how=stalled(5000, never))
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listen(event: ProgressEvent) -> None:
        if event.done:
            loop.call_soon_threadsafe(begun.set)

    task = asyncio.create_task(cached.fetch(url, hashes=wheel.digest, progress=listen))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    with Cache(cached.path) as cache:
        assert unfinished(cache) == []


def test_a_thread_that_starts_late_does_nothing(cache: Cache, anyio_backend: str) -> None:
    """What was cancelled before its thread began is not begun any more: nobody waits for it."""
    done: list[Cache] = []
    work = _Work(done.append, cache, CancelToken())
    work.token.cancel()
    copy_context().run(work)
    assert done == []
    assert not work.is_running


async def test_what_was_cancelled_is_gone_on_with(never, server: Server, cached: AsyncCache) -> None:
    """A large wheel goes on where the cancelled fetch was."""
    big = Wheel(wheel_filename("big"), make_wheel("big", size=300_000))
    url = big.on(server)
    server.script(url, stalled(200_000, never))
    begun = anyio.Event()

    def listen(event: ProgressEvent) -> None:
        if event.done >= 100_000:
            anyio.from_thread.run_sync(begun.set)

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: cached.fetch(url, hashes=big.digest, progress=listen))
        await begun.wait()
        group.cancel_scope.cancel()
    server.forget()
    found = await cached.fetch(url, hashes=big.digest)
    assert (found.status, found.path.read_bytes()) == (Status.RESUMED, big.data)
    assert server.sent() <= 200_000


async def test_the_callers_client_stays_open(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """An AsyncClient of the caller's is used with its transport, and not closed."""
    seen = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200, content=wheel.data)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        async with async_cache(machine, tmp_path / "cache", client=client) as cached:
            await cached.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert not client.is_closed
    assert seen == [f"/{wheel.filename}"]


async def test_a_client_of_another_kind(tmp_path: Path) -> None:
    """A client that blocks, or is none, is told at once, by the name of the class that belongs there."""
    with httpx.Client() as client, pytest.raises(TypeError, match=r"must be an httpx\.AsyncClient, not httpx\.Client"):
        AsyncCache(tmp_path / "cache", client=client)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"httpx\.AsyncClient, not int"):
        AsyncCache(tmp_path / "cache", client=5)  # type: ignore[arg-type]
    assert not (tmp_path / "cache").exists()


async def test_what_is_used_like_a_client_is_one(machine: Machine, server: Server, wheel: Wheel, tmp_path) -> None:
    """Any object with the names that are used will do, whatever its class."""
    async with httpx.AsyncClient() as client:
        like = SimpleNamespace(auth=None, build_request=client.build_request, send=client.send)
        async with async_cache(machine, tmp_path / "cache", client=like) as cached:
            assert (await cached.fetch(wheel.on(server))).digest == wheel.digest
