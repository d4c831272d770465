"""Test CacheTransport: wheels from the cache and into it, and unchanged requests otherwise."""

from __future__ import annotations

import gzip
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import anyio
import pytest
from faulty import FailNth, FaultyFiles, Plan
from folders import unfinished
from http_clients import LIBRARIES, classes, library_of
from machines import Machine
from server import Server
from wheels import Wheel, hex_of

from wheelcache import AsyncCache, Cache, CacheTransport, Status
from wheelcache._fetch.passthrough import Passthrough

BACKENDS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "trio"]  # trio does not start under Wine


@pytest.fixture(params=LIBRARIES)
def lib(request: pytest.FixtureRequest) -> Any:
    """Return the module of each HTTP library."""
    return importlib.import_module(request.param)


@dataclass
class Next(*classes("BaseTransport")):
    """The next transport: records its requests, and returns a configured response of their library."""

    machine: Machine
    wheel: Wheel
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    requests: list[Any] = field(default_factory=list)
    cut: int | None = None
    closed: bool = False

    def handle_request(self, request: Any) -> Any:
        lib = library_of(request)
        self.requests.append(lib.Request(request.method, request.url, headers=request.headers))
        headers = {"Date": formatdate(self.machine.clock.now(), usegmt=True), "ETag": '"1"', **self.headers}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return lib.Response(304, headers=headers)
        return lib.Response(self.status, headers=headers, stream=Body(self.wheel.data, lib.ReadError, self.cut))

    def close(self) -> None:
        self.closed = True


@dataclass
class Body(*classes("SyncByteStream")):
    """A body in chunks, which may be cut off by an error."""

    data: bytes
    error: type[Exception]
    cut: int | None

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), 1000):
            if self.cut is not None and start >= self.cut:
                raise self.error("cut")
            yield self.data[start : start + 1000]


@pytest.fixture
def behind(machine: Machine, wheel: Wheel) -> Next:
    """Return the next transport."""
    return Next(machine, wheel)


@pytest.fixture
def client(cache: Cache, behind: Next, lib: Any) -> Iterator[Any]:
    """Yield a client of each library whose transport is a CacheTransport."""
    with lib.Client(transport=CacheTransport(cache, next=behind)) as client:
        yield client


def url_of(wheel: Wheel, more: str = "") -> str:
    return f"https://example.org/{wheel.filename}{more}"


def test_a_wheel_is_stored_and_served(client: Any, behind: Next, cache: Cache, machine: Machine) -> None:
    """A download is stored, a fresh wheel is served from its file, and a stale one after a 304 response."""
    behind.headers = {"Cache-Control": "max-age=60"}
    url = url_of(behind.wheel)
    assert client.get(url).content == behind.wheel.data
    assert cache.get(behind.wheel.digest) is not None
    second = client.get(url)
    assert (second.content, second.extensions["wheelcache"]) == (behind.wheel.data, Status.HIT)
    assert second.headers["Content-Length"] == str(behind.wheel.size)
    assert len(behind.requests) == 1
    machine.clock.advance(61)
    third = client.get(url)
    assert (third.status_code, third.content) == (200, behind.wheel.data)
    assert third.extensions["wheelcache"] is Status.REVALIDATED
    assert client.get(url).extensions["wheelcache"] is Status.HIT
    assert len(behind.requests) == 2
    assert unfinished(cache) == []


def test_a_wheel_in_the_cache_needs_no_request(client: Any, behind: Next, cache: Cache, wheel: Wheel, tmp_path) -> None:
    """A wheel that is in the cache is served without a request if the URL has its hash."""
    (tmp_path / wheel.filename).write_bytes(wheel.data)
    cache.put(tmp_path / wheel.filename)
    assert client.get(url_of(wheel, f"#sha256={hex_of(wheel.data)}")).content == wheel.data
    assert behind.requests == []


def test_bytes_with_another_hash_are_not_stored(client: Any, behind: Next, cache: Cache, other_wheel: Wheel) -> None:
    """The client receives bytes that do not have the hash of the URL, and they are not stored."""
    response = client.get(url_of(behind.wheel, f"#sha256={hex_of(other_wheel.data)}"))
    assert response.content == behind.wheel.data
    assert list(cache.entries()) == []
    assert unfinished(cache) == []


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/simple/demo/", {}),
        ("GET", "/not-a-wheel.whl", {}),
        ("GET", "/demo-1.0.tar.gz", {}),
        ("POST", "/demo-1.0-py3-none-any.whl", {}),
        ("HEAD", "/demo-1.0-py3-none-any.whl", {}),
        ("GET", "/demo-1.0-py3-none-any.whl", {"Range": "bytes=0-9"}),
        ("GET", "/demo-1.0-py3-none-any.whl", {"If-None-Match": '"2"'}),
        ("GET", "/demo-1.0-py3-none-any.whl", {"Cache-Control": "no-store"}),
    ],
)
def test_other_requests_are_passed_on_unchanged(method: str, path: str, headers, client: Any, behind, cache) -> None:
    """Other methods, files and special requests reach the next transport unchanged, and nothing is stored."""
    for _ in range(2):
        response = client.request(method, f"https://example.org{path}", headers=headers)
        assert "wheelcache" not in response.extensions
    assert len(behind.requests) == 2
    assert behind.requests[0].headers == behind.requests[1].headers
    assert list(cache.entries()) == []


@pytest.mark.parametrize("status", [203, 206, 302, 401, 404, 500])
def test_other_responses_are_passed_on(status: int, client: Any, behind: Next, cache: Cache) -> None:
    """A response with another status than 200 is passed on, and nothing is stored."""
    behind.status = status
    assert client.get(url_of(behind.wheel)).status_code == status
    assert list(cache.entries()) == []


def test_an_incomplete_body_is_not_stored(lib: Any, client: Any, behind: Next, cache: Cache) -> None:
    """A body that is cut off or not read completely is not stored, and the error reaches the client."""
    behind.cut = 5000
    with pytest.raises(lib.ReadError):
        client.get(url_of(behind.wheel))
    behind.cut = None
    with client.stream("GET", url_of(behind.wheel)) as response:
        next(response.iter_raw())
    assert list(cache.entries()) == []
    assert unfinished(cache) == []
    assert client.get(url_of(behind.wheel)).content == behind.wheel.data
    assert len(list(cache.entries())) == 1


def test_encoded_bodies_and_pages_are_not_stored(client: Any, behind: Next, cache: Cache, wheel: Wheel) -> None:
    """A body with a content encoding, or that is not an archive, is passed on and not stored."""
    behind.headers = {"Content-Encoding": "gzip"}
    behind.wheel = Wheel(wheel.filename, gzip.compress(wheel.data))
    assert client.get(url_of(wheel)).content == wheel.data
    behind.headers, behind.wheel = {}, Wheel(wheel.filename, b"<html>log in</html>" * 200)
    assert client.get(url_of(wheel)).content == behind.wheel.data
    assert list(cache.entries()) == []
    assert unfinished(cache) == []


def test_no_store_is_respected(client: Any, behind: Next, cache: Cache) -> None:
    """With no-store, the wheel is not stored, and the previous response for the URL is forgotten."""
    behind.headers = {"Cache-Control": "no-store, max-age=60"}
    assert client.get(url_of(behind.wheel)).content == behind.wheel.data
    assert list(cache.entries()) == []
    behind.headers = {"Cache-Control": "max-age=60"}
    client.get(url_of(behind.wheel))
    behind.headers = {"Cache-Control": "no-store", "ETag": '"2"'}
    assert "wheelcache" not in client.get(url_of(behind.wheel), headers={"Cache-Control": "no-cache"}).extensions
    assert "wheelcache" not in client.get(url_of(behind.wheel)).extensions
    assert len(behind.requests) == 4
    assert unfinished(cache) == []


def test_no_store_does_not_apply_under_a_hash(client: Any, behind: Next, cache: Cache) -> None:
    """A wheel with the hash of the URL is stored even with no-store, as with fetch()."""
    behind.headers = {"Cache-Control": "no-store"}
    for _ in range(2):
        client.get(url_of(behind.wheel, f"#sha256={behind.wheel.hex()}"))
    assert len(behind.requests) == 1


@pytest.mark.parametrize("told", ["no-cache", "max-age=0", "Max-Age = 0"])
def test_a_client_can_force_revalidation(told: str, client: Any, behind: Next) -> None:
    """A request with no-cache or max-age=0 is revalidated."""
    behind.headers = {"Cache-Control": "max-age=60"}
    client.get(url_of(behind.wheel))
    response = client.get(url_of(behind.wheel), headers={"Cache-Control": told})
    assert response.extensions["wheelcache"] is Status.REVALIDATED
    assert behind.requests[-1].headers["Cache-Control"] == told


def test_the_clients_request_is_not_changed(lib: Any, cache: Cache, wheel: Wheel, other_wheel: Wheel) -> None:
    """Conditional headers are not added to the client's request, so a redirect returns the file and not a 304."""
    moved = False

    def answer(request: Any) -> Any:
        if moved and request.url.path == f"/{wheel.filename}":
            return lib.Response(302, headers={"Location": f"/there/{wheel.filename}"})
        if request.headers.get("If-None-Match") == '"1"':
            return lib.Response(304, headers={"ETag": '"1"'})
        return lib.Response(200, headers={"ETag": '"1"'}, content=(other_wheel if moved else wheel).data)

    transport = CacheTransport(cache, next=lib.MockTransport(answer))
    with lib.Client(transport=transport, follow_redirects=True) as client:
        assert client.get(url_of(wheel)).content == wheel.data
        again = client.get(url_of(wheel))
        assert again.extensions["wheelcache"] is Status.REVALIDATED
        assert "If-None-Match" not in again.request.headers
        moved = True
        found = client.get(url_of(wheel))
        assert (found.status_code, found.content) == (200, other_wheel.data)


@dataclass
class ClosesCache(*classes("BaseTransport")):
    """A next transport that closes the cache before it returns its response."""

    behind: Next
    cache: Cache

    def handle_request(self, request: Any) -> Any:
        response = self.behind.handle_request(request)
        self.cache.close()
        return response


@pytest.mark.parametrize("known", [True, False])
def test_closing_the_cache_during_a_request_does_not_affect_the_client(
    lib: Any, known: bool, client: Any, behind: Next, cache: Cache, machine: Machine
) -> None:
    """If the cache is closed during a request, the client gets the response, and nothing is stored."""
    if known:
        client.get(url_of(behind.wheel))
        machine.clock.advance(40 * 86_400)
    other = machine.cache(cache.path)
    with lib.Client(transport=CacheTransport(other, next=ClosesCache(behind, other))) as other_client:
        assert other_client.get(url_of(behind.wheel)).content == behind.wheel.data
    assert len(list(cache.entries())) == known
    assert unfinished(cache) == []


def test_ctrl_c_during_the_lookup_closes_the_response(lib: Any, cache: Cache, wheel: Wheel, monkeypatch) -> None:
    """If Ctrl-C interrupts the work of the cache on a response, its connection is released."""
    closed: list[bool] = []

    class Stream(lib.SyncByteStream):
        def close(self) -> None:
            closed.append(True)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Passthrough, "is_whole_wheel", interrupt)
    behind = lib.MockTransport(lambda _: lib.Response(200, stream=Stream()))
    with lib.Client(transport=CacheTransport(cache, behind)) as client, pytest.raises(KeyboardInterrupt):
        client.get(f"https://example.org/{wheel.filename}")
    assert closed == [True]


def test_an_early_close_leaves_no_file(client: Any, behind: Next, cache: Cache) -> None:
    """Closing a response early leaves no temporary file, even if its iterator still exists."""
    with client.stream("GET", url_of(behind.wheel)) as response:
        chunks = response.iter_raw()
        next(chunks)
    assert unfinished(cache) == []
    del chunks


def test_a_body_shorter_than_declared_is_not_stored(lib: Any, cache: Cache, machine: Machine, wheel: Wheel) -> None:
    """A body that is shorter than declared is not stored, even if it looks like an archive."""
    behind = Next(machine, Wheel(wheel.filename, wheel.data[5000:]), {"Content-Length": str(wheel.size)})
    with lib.Client(transport=CacheTransport(cache, next=behind)) as client:
        client.get(url_of(wheel))
    assert list(cache.entries()) == []
    assert unfinished(cache) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_failing_cache_does_not_affect_the_client(lib: Any, there: bool, wheel: Wheel, tmp_path) -> None:
    """The client receives its bytes whichever file operation fails, also for a cached wheel."""
    for number in range(200):
        machine = Machine(files := FaultyFiles())
        with machine.cache(tmp_path / str(number), io_timeout=0.1) as cache:
            behind = Next(machine, wheel, {"Cache-Control": "max-age=60"})
            plan = FailNth(number, "EIO")
            with lib.Client(transport=CacheTransport(cache, next=behind)) as client:
                if there:
                    client.get(url_of(wheel))
                files.plan = plan
                assert client.get(url_of(wheel)).content == wheel.data
            files.plan = Plan()
        if not plan.met:
            break
    else:
        pytest.fail("never came through")


def test_closing_closes_the_next_transport_only(lib: Any, behind: Next, cache: Cache) -> None:
    """Closing the client closes the next transport, and the cache remains open."""
    with lib.Client(transport=CacheTransport(cache, next=behind)) as client:
        client.get(url_of(behind.wheel))
    assert behind.closed
    assert cache.get(behind.wheel.digest) is not None


def test_an_async_cache_is_accepted(lib: Any, behind: Next, cache: Cache, wheel: Wheel) -> None:
    """An AsyncCache is used like a Cache, and ignored once it is closed."""
    cached = AsyncCache(cache.path)
    url = url_of(wheel, f"#sha256={wheel.hex()}")
    with lib.Client(transport=CacheTransport(cached, next=behind)) as client:
        assert client.get(url).content == wheel.data
        assert client.get(url).extensions["wheelcache"] is Status.HIT
        assert cache.get(wheel.digest) is not None
        anyio.run(cached.close)
        assert "wheelcache" not in client.get(url).extensions
    assert len(behind.requests) == 2


def test_an_argument_that_is_not_a_cache_is_a_type_error(tmp_path) -> None:
    """A path in place of a cache raises TypeError when the transport is created."""
    with pytest.raises(TypeError, match="needs a Cache or an AsyncCache, not str"):
        CacheTransport(str(tmp_path))  # type: ignore[arg-type]


def test_a_read_only_cache_is_not_written(lib: Any, behind: Next, cache: Cache, machine: Machine) -> None:
    """With a read-only cache, the wheel is passed on and not stored."""
    with (
        machine.cache(cache.path, read_only=True) as frozen,
        lib.Client(transport=CacheTransport(frozen, next=behind)) as client,
    ):
        assert client.get(url_of(behind.wheel)).content == behind.wheel.data
    assert list(cache.entries()) == []


@pytest.mark.parametrize("path", ["/demo-1.0-py3-none-any.whl", "/not-a-wheel.whl"])
def test_an_offline_miss_sends_no_request(lib: Any, path: str, behind: Next, cache: Cache, machine: Machine) -> None:
    """A wheel that an offline cache does not have raises an error without secrets, and no request is sent."""
    with (
        machine.cache(cache.path, offline=True) as offline,
        lib.Client(transport=CacheTransport(offline, next=behind)) as client,
    ):
        with pytest.raises(lib.ConnectError, match="offline") as caught:
            client.get(f"https://me:hunter2@example.org{path}?token=hunter2")
        assert path in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert behind.requests == []
        assert client.get("https://example.org/simple/").content == behind.wheel.data


def test_an_offline_cache_serves_stale_wheels(
    lib: Any, client: Any, behind: Next, cache: Cache, machine: Machine
) -> None:
    """An offline cache serves a stale wheel, as with fetch(), and raises an error if revalidation is requested."""
    client.get(url_of(behind.wheel))
    with (
        machine.cache(cache.path, offline=True) as offline,
        lib.Client(transport=CacheTransport(offline, next=behind)) as other,
    ):
        assert other.get(url_of(behind.wheel)).content == behind.wheel.data
        with pytest.raises(lib.ConnectError, match="offline"):
            other.get(url_of(behind.wheel), headers={"Cache-Control": "no-cache"})
    assert len(behind.requests) == 1


def test_a_failing_offline_cache_sends_no_request(lib: Any, behind: Next, wheel: Wheel, tmp_path) -> None:
    """An offline cache sends no request even if the disk fails."""
    machine = Machine(files := FaultyFiles())
    with machine.cache(tmp_path / "cache", io_timeout=0.1, offline=True) as cache:
        (tmp_path / wheel.filename).write_bytes(wheel.data)
        cache.put(tmp_path / wheel.filename)
        files.plan = FailNth(1, "EIO", forever=True)
        transport = CacheTransport(cache, next=behind)
        with lib.Client(transport=transport) as client, pytest.raises(lib.ConnectError, match="offline"):
            client.get(url_of(wheel, f"#sha256={wheel.hex()}"))
        files.plan = Plan()
    assert behind.requests == []


@dataclass
class AsyncBody(*classes("AsyncByteStream")):
    """An asynchronous body in chunks."""

    data: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), 1000):
            yield self.data[start : start + 1000]


@dataclass
class AsyncNext(*classes("AsyncBaseTransport")):
    """The next transport of an asynchronous client, which returns the responses of the synchronous one."""

    behind: Next
    closed: bool = False

    async def handle_async_request(self, request: Any) -> Any:
        answer = self.behind.handle_request(request)
        stream = AsyncBody(self.behind.wheel.data if answer.status_code != 304 else b"")
        return library_of(request).Response(answer.status_code, headers=answer.headers, stream=stream)

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_an_async_client(lib: Any, behind: Next, cache: Cache, machine: Machine) -> None:
    """An AsyncClient gets stored, cached and revalidated wheels, and a body that it does not read is not stored."""
    behind.headers = {"Cache-Control": "max-age=60"}
    transport = CacheTransport(cache, next=(next_one := AsyncNext(behind)))
    async with lib.AsyncClient(transport=transport) as client:
        url = url_of(behind.wheel)
        async with client.stream("GET", url):
            pass
        assert list(cache.entries()) == []
        assert (await client.get(url)).content == behind.wheel.data
        second = await client.get(url)
        assert (second.content, second.extensions["wheelcache"]) == (behind.wheel.data, Status.HIT)
        machine.clock.advance(61)
        third = await client.get(url)
        assert (third.content, third.extensions["wheelcache"]) == (behind.wheel.data, Status.REVALIDATED)
        assert (await client.get("https://example.org/simple/")).content == behind.wheel.data
        assert len(behind.requests) == 4
        assert not next_one.closed
    assert next_one.closed
    assert unfinished(cache) == []


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_a_default_next_transport(lib: Any, server: Server, cache: Cache, wheel: Wheel) -> None:
    """Without a next transport, one of the client's kind is created, and one of the other kind raises TypeError."""
    url = wheel.on(server)
    async with lib.AsyncClient(transport=CacheTransport(cache)) as client:
        assert (await client.get(url)).content == wheel.data
    with lib.Client(transport=CacheTransport(cache)) as client:
        assert client.get(f"{url}#{wheel.digest.replace(':', '=')}").extensions["wheelcache"] is Status.HIT
    transport = CacheTransport(cache, next=lib.AsyncHTTPTransport())
    with pytest.raises(TypeError, match="synchronous"), lib.Client(transport=transport) as client:
        client.get(url)


@pytest.mark.parametrize("etag", ['"2"', 'W/"2"'])
def test_a_304_response_with_another_strong_etag_is_not_used(
    etag: str,
    client: Any,
    behind: Next,
    machine: Machine,
    lib: Any,
    other_wheel: Wheel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a 304 response names another file by a strong ETag, the client gets the response to its own request."""
    url = url_of(behind.wheel)
    first = behind.wheel.data
    assert client.get(url).content == first

    def answer(request: Any) -> Any:
        if "If-None-Match" in request.headers:
            return lib.Response(304, headers={"ETag": etag})
        return lib.Response(200, content=other_wheel.data)

    monkeypatch.setattr(behind, "handle_request", answer)
    assert client.get(url).content == (other_wheel.data if etag == '"2"' else first)
