"""Test AsyncCache: the behaviour of Cache on asyncio and trio, and cancellation."""

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
    """Run each test on every backend."""
    return request.param


def async_cache(machine: Machine, folder: Path, **options: Any) -> AsyncCache:
    class MachineAsyncCache(AsyncCache):
        _cache_class = machine.cache_class

    # Waiting takes no time on this machine, so the default timeout would expire during a download.
    return MachineAsyncCache(folder, **{"lock_timeout": float("inf"), **options})


@pytest.fixture(params=["own client", "their client"])
async def cached(
    request: pytest.FixtureRequest, machine: Machine, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[AsyncCache]:
    """Yield an empty cache, with its own client and with an AsyncClient."""
    if request.param == "own client":
        async with async_cache(machine, tmp_path / "cache") as cache:
            yield cache
    else:
        # Without a timeout, only wheelcache itself can end a wait.
        async with (
            httpx.AsyncClient(timeout=None) as client,
            async_cache(machine, tmp_path / "cache", client=client) as cache,
        ):
            yield cache


async def test_a_client_that_raises_for_status(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """An HTTPStatusError that a hook of an AsyncClient raises is retried according to its status."""

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
    """Yield an event that a stalled server waits for until the test ends."""
    event = threading.Event()
    yield event
    event.set()


async def test_methods_behave_like_those_of_cache(
    server: Server, cached: AsyncCache, wheel: Wheel, tmp_path: Path
) -> None:
    """fetch, get, put, link, entries, stats and close do the same as the methods of Cache."""
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


async def test_the_default_thread_limiter_is_not_used(server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """Neither a cache nor a transport uses, or waits for, the threads of anyio's default limiter."""
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
    """A transport that never responds, and sets an event at a given number of requests."""

    def __init__(self, enough: int) -> None:
        self.left = enough
        self.asked = anyio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.left -= 1
        if self.left == 0:
            self.asked.set()
        await anyio.sleep_forever()
        raise AssertionError


async def test_disk_calls_do_not_wait_for_downloads(
    anyio_backend: str, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """Wheels can be put and looked up while all network threads wait for a server, and close() ends the downloads."""
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
    """Two threads with an event loop each use one cache at the same time."""
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


async def test_entries_hashes_wheels_after_a_reboot(cached: AsyncCache, machine: Machine, tmp_path: Path) -> None:
    """entries() yields every wheel even if each one must be hashed again, as after a reboot."""
    names = {wheel_filename(f"many{n}") for n in range(3)}
    for n, name in enumerate(sorted(names)):
        (tmp_path / name).write_bytes(make_wheel(f"many{n}"))
        await cached.put(tmp_path / name)
    machine.reboot()
    async with async_cache(machine, cached.path) as again:
        assert {each.filename async for each in again.entries()} == names


class CancelReading(Plan):
    """Cancel a scope at the first read of a wheel, and continue once the thread's token is cancelled."""

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


async def test_cancellation_ends_a_later_step_of_entries(anyio_backend: str, tmp_path: Path) -> None:
    """Cancelling entries() while it hashes the second wheel ends it before the next read."""
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


def test_every_method_of_cache_exists(anyio_backend: str) -> None:
    """AsyncCache has every method of Cache, with the same parameters and a docstring."""
    for name, method in inspect.getmembers(Cache, inspect.isfunction):
        if name.startswith("_"):
            continue
        theirs = getattr(AsyncCache, name, None)
        assert theirs is not None, f"AsyncCache has no {name}"
        assert list(inspect.signature(theirs).parameters) == list(inspect.signature(method).parameters), name
        assert theirs.__doc__


@pytest.mark.parametrize("fault", [truncated(5000), status(503), gzipped, redirect("/there")])
async def test_transient_faults_are_retried(fault, server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """Transient faults are retried with either client."""
    url = wheel.on(server)
    server.serve("/there", wheel.data)
    server.script(url, fault)
    assert (await cached.fetch(url, hashes=wheel.digest)).path.read_bytes() == wheel.data


async def test_errors_are_not_wrapped(server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """An error is the same as that of Cache, and is not wrapped in a group."""
    url = wheel.on(server, how=status(404))
    with pytest.raises(DownloadError) as caught:
        await cached.fetch(url, hashes=wheel.digest)
    assert caught.value.status == 404
    with pytest.raises(HashMismatchError):
        await cached.fetch(wheel.on(server), hashes="sha256:" + "0" * 64)
    with pytest.raises(ValueError, match="nonsense"):
        await cached.fetch("nonsense")


async def test_credentials_of_the_url_are_sent(server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """The user name and password in a URL are sent."""
    wheel.on(server, how=asks_for("me", "hunter2"))
    url = server.url(wheel.path, userinfo="me:hunter2")
    assert (await cached.fetch(url, hashes=wheel.digest)).path.read_bytes() == wheel.data


async def test_fetch_all(server: Server, cached: AsyncCache) -> None:
    """fetch_all returns wheels in the order of the requests, and raises failures as one group."""
    many = [Wheel(wheel_filename(f"many{n}"), make_wheel(f"many{n}", size=3000 + n)) for n in range(20)]
    requests = [WheelRequest(wheel.on(server), wheel.digest, wheel.size) for wheel in many]
    assert [found.digest for found in await cached.fetch_all(requests, jobs=4)] == [wheel.digest for wheel in many]
    server.serve(many[3].path, how=status(404))
    with pytest.raises(ExceptionGroup, match="1 of 20"):
        await cached.fetch_all([WheelRequest(requests[3].url), *requests[:19]])


async def test_tasks_share_one_download(server: Server, cached: AsyncCache, wheel: Wheel) -> None:
    """Ten tasks that fetch the same wheel send one request."""
    url = wheel.on(server)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(lambda: cached.fetch(url, hashes=wheel.digest))
    assert server.count() == 1


# httpx leaves its generators open if a body is not read to its end, and trio warns of them.
@pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")
@pytest.mark.parametrize("many", [False, True])
async def test_cancellation_ends_a_blocked_transfer(
    many: bool, never, server: Server, cached: AsyncCache, wheel: Wheel
) -> None:
    """A cancelled fetch ends although the server sends nothing more, and leaves no lock or unfinished file."""
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


async def test_cancellation_ends_the_wait_for_another_task(
    never, server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """A task that waits for the download of another one can be cancelled alone."""
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
    """Cancellation by asyncio itself, without a scope, leaves no unfinished file."""
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
    """Work that was cancelled before its thread started is not done."""
    done: list[Cache] = []
    work = _Work(done.append, cache, CancelToken())
    work.token.cancel()
    copy_context().run(work)
    assert done == []
    assert not work.is_running


async def test_a_cancelled_download_is_resumed(never, server: Server, cached: AsyncCache) -> None:
    """The next fetch of a large wheel resumes the cancelled one."""
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
    """An AsyncClient of the caller's sends the requests, and is not closed."""
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
    """A synchronous client, or an object that is not a client, raises TypeError with the expected class."""
    with (
        httpx.Client() as client,
        pytest.raises(TypeError, match=r"must be an httpx\.AsyncClient or httpx2\.AsyncClient, not httpx\.Client"),
    ):
        AsyncCache(tmp_path / "cache", client=client)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"httpx2\.AsyncClient, not int"):
        AsyncCache(tmp_path / "cache", client=5)  # type: ignore[arg-type]
    assert not (tmp_path / "cache").exists()


async def test_any_object_with_the_methods_is_a_client(
    machine: Machine, server: Server, wheel: Wheel, tmp_path
) -> None:
    """An object of any class with the methods of an AsyncClient is accepted."""
    async with httpx.AsyncClient() as client:
        like = SimpleNamespace(auth=None, build_request=client.build_request, send=client.send)
        async with async_cache(machine, tmp_path / "cache", client=like) as cached:
            assert (await cached.fetch(wheel.on(server))).digest == wheel.digest
