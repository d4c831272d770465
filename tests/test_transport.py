"""CacheTransport: wheels of any httpx client come from the cache and go to it; all else passes through untouched."""

from __future__ import annotations

import gzip
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate

import anyio
import httpx
import pytest
from faulty import FailNth, FaultyFiles, Plan
from folders import unfinished
from machines import Machine
from server import Server
from wheels import Wheel, hex_of

from wheelcache import AsyncCache, Cache, CacheTransport, Status

BACKENDS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "trio"]  # trio does not start under Wine


@dataclass
class Next(httpx.BaseTransport):
    """The transport behind: what it was asked, and what it answers."""

    machine: Machine
    wheel: Wheel
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    requests: list[httpx.Request] = field(default_factory=list)
    cut: int | None = None
    closed: bool = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(httpx.Request(request.method, request.url, headers=request.headers))
        headers = {"Date": formatdate(self.machine.clock.now(), usegmt=True), "ETag": '"1"', **self.headers}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return httpx.Response(304, headers=headers)
        return httpx.Response(self.status, headers=headers, stream=Body(self.wheel.data, self.cut))

    def close(self) -> None:
        self.closed = True


@dataclass
class Body(httpx.SyncByteStream):
    """A body in pieces, which may break off."""

    data: bytes
    cut: int | None

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), 1000):
            if self.cut is not None and start >= self.cut:
                raise httpx.ReadError("cut")
            yield self.data[start : start + 1000]


@pytest.fixture
def behind(machine: Machine, wheel: Wheel) -> Next:
    """The transport behind."""
    return Next(machine, wheel)


@pytest.fixture
def client(cache: Cache, behind: Next) -> Iterator[httpx.Client]:
    """A client with the cache in between."""
    with httpx.Client(transport=CacheTransport(cache, next=behind)) as client:
        yield client


def url_of(wheel: Wheel, more: str = "") -> str:
    return f"https://example.org/{wheel.filename}{more}"


def test_a_wheel_goes_in_and_comes_out(client: httpx.Client, behind: Next, cache: Cache, machine: Machine) -> None:
    """The first download is kept; a fresh one comes from the file; a stale one after a 304."""
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


def test_what_the_cache_fetched_the_client_has(
    client: httpx.Client, behind: Next, cache: Cache, wheel: Wheel, tmp_path
) -> None:
    """A hash in the fragment is enough: no request is made for what was put in by anybody."""
    (tmp_path / wheel.filename).write_bytes(wheel.data)
    cache.put(tmp_path / wheel.filename)
    assert client.get(url_of(wheel, f"#sha256={hex_of(wheel.data)}")).content == wheel.data
    assert behind.requests == []


def test_other_bytes_than_those_of_the_hash_pass_and_are_not_kept(
    client: httpx.Client, behind: Next, cache: Cache, other_wheel: Wheel
) -> None:
    """The client gets what the server sent; the cache keeps nothing of it."""
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
def test_all_else_passes_through_untouched(
    method: str, path: str, headers, client: httpx.Client, behind, cache
) -> None:
    """Other methods, other files and special requests reach the next transport as they are, and nothing is kept."""
    for _ in range(2):
        response = client.request(method, f"https://example.org{path}", headers=headers)
        assert "wheelcache" not in response.extensions
    assert len(behind.requests) == 2
    assert behind.requests[0].headers == behind.requests[1].headers
    assert list(cache.entries()) == []


@pytest.mark.parametrize("status", [203, 206, 302, 401, 404, 500])
def test_other_answers_pass_through(status: int, client: httpx.Client, behind: Next, cache: Cache) -> None:
    """Whatever is not the file is the client's to deal with."""
    behind.status = status
    assert client.get(url_of(behind.wheel)).status_code == status
    assert list(cache.entries()) == []


def test_a_body_that_breaks_off_or_is_not_read_is_not_kept(client: httpx.Client, behind: Next, cache: Cache) -> None:
    """The client meets the error that it would meet without; nothing is left, and the next download is whole."""
    behind.cut = 5000
    with pytest.raises(httpx.ReadError):
        client.get(url_of(behind.wheel))
    behind.cut = None
    with client.stream("GET", url_of(behind.wheel)) as response:
        next(response.iter_raw())
    assert list(cache.entries()) == []
    assert unfinished(cache) == []
    assert client.get(url_of(behind.wheel)).content == behind.wheel.data
    assert len(list(cache.entries())) == 1


def test_encoded_bodies_and_pages_are_not_kept(client: httpx.Client, behind: Next, cache: Cache, wheel: Wheel) -> None:
    """What travels in another form, or is no archive at all, passes and is not kept."""
    behind.headers = {"Content-Encoding": "gzip"}
    behind.wheel = Wheel(wheel.filename, gzip.compress(wheel.data))
    assert client.get(url_of(wheel)).content == wheel.data
    behind.headers, behind.wheel = {}, Wheel(wheel.filename, b"<html>log in</html>" * 200)
    assert client.get(url_of(wheel)).content == behind.wheel.data
    assert list(cache.entries()) == []
    assert unfinished(cache) == []


def test_what_may_not_be_stored_is_not(client: httpx.Client, behind: Next, cache: Cache) -> None:
    """With no-store neither the wheel nor the URL is kept, and what was known of the URL is forgotten."""
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


def test_what_has_the_hash_is_stored(client: httpx.Client, behind: Next, cache: Cache) -> None:
    """Under a hash no-store is no reason to download a wheel again, as for fetch()."""
    behind.headers = {"Cache-Control": "no-store"}
    for _ in range(2):
        client.get(url_of(behind.wheel, f"#sha256={behind.wheel.hex()}"))
    assert len(behind.requests) == 1


@pytest.mark.parametrize("told", ["no-cache", "max-age=0", "Max-Age = 0"])
def test_refreshing_asks(told: str, client: httpx.Client, behind: Next) -> None:
    """A client that says so gets the server's word."""
    behind.headers = {"Cache-Control": "max-age=60"}
    client.get(url_of(behind.wheel))
    response = client.get(url_of(behind.wheel), headers={"Cache-Control": told})
    assert response.extensions["wheelcache"] is Status.REVALIDATED
    assert behind.requests[-1].headers["Cache-Control"] == told


def test_the_clients_request_stays_as_it_is(cache: Cache, wheel: Wheel, other_wheel: Wheel) -> None:
    """What the cache asks goes nowhere else: a redirect that a client follows brings the file, and no bare 304."""
    moved = False

    def answer(request: httpx.Request) -> httpx.Response:
        if moved and request.url.path == f"/{wheel.filename}":
            return httpx.Response(302, headers={"Location": f"/there/{wheel.filename}"})
        if request.headers.get("If-None-Match") == '"1"':
            return httpx.Response(304, headers={"ETag": '"1"'})
        return httpx.Response(200, headers={"ETag": '"1"'}, content=(other_wheel if moved else wheel).data)

    transport = CacheTransport(cache, next=httpx.MockTransport(answer))
    with httpx.Client(transport=transport, follow_redirects=True) as client:
        assert client.get(url_of(wheel)).content == wheel.data
        again = client.get(url_of(wheel))
        assert again.extensions["wheelcache"] is Status.REVALIDATED
        assert "If-None-Match" not in again.request.headers
        moved = True
        found = client.get(url_of(wheel))
        assert (found.status_code, found.content) == (200, other_wheel.data)


@dataclass
class ClosesCache(httpx.BaseTransport):
    """The transport behind, while whose answer the cache is closed."""

    behind: Next
    cache: Cache

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.behind.handle_request(request)
        self.cache.close()
        return response


@pytest.mark.parametrize("known", [True, False])
def test_closing_the_cache_during_an_answer_does_not_reach_the_client(
    known: bool, client: httpx.Client, behind: Next, cache: Cache, machine: Machine
) -> None:
    """The client gets an answer or a confirmation that came while the cache was closed; nothing of it is kept."""
    if known:
        client.get(url_of(behind.wheel))
        machine.clock.advance(40 * 86_400)
    other = machine.cache(cache.path)
    with httpx.Client(transport=CacheTransport(other, next=ClosesCache(behind, other))) as hasty:
        assert hasty.get(url_of(behind.wheel)).content == behind.wheel.data
    assert len(list(cache.entries())) == known
    assert unfinished(cache) == []


def test_an_early_close_leaves_nothing(client: httpx.Client, behind: Next, cache: Cache) -> None:
    """Who closes an answer and still holds its iterator leaves no temporary file."""
    with client.stream("GET", url_of(behind.wheel)) as response:
        chunks = response.iter_raw()
        next(chunks)
    assert unfinished(cache) == []
    del chunks


def test_less_than_was_declared_is_not_kept(cache: Cache, machine: Machine, wheel: Wheel) -> None:
    """A body that a transport lets end too soon is not kept, even where it looks like an archive."""
    behind = Next(machine, Wheel(wheel.filename, wheel.data[5000:]), {"Content-Length": str(wheel.size)})
    with httpx.Client(transport=CacheTransport(cache, next=behind)) as client:
        client.get(url_of(wheel))
    assert list(cache.entries()) == []
    assert unfinished(cache) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_cache_that_fails_is_passed_by(there: bool, wheel: Wheel, tmp_path) -> None:
    """Whatever the disk refuses, the client gets its bytes, of a wheel that is cached, too."""
    for number in range(200):
        machine = Machine(files := FaultyFiles())
        with machine.cache(tmp_path / str(number), io_timeout=0.1) as cache:
            behind = Next(machine, wheel, {"Cache-Control": "max-age=60"})
            plan = FailNth(number, "EIO")
            with httpx.Client(transport=CacheTransport(cache, next=behind)) as client:
                if there:
                    client.get(url_of(wheel))
                files.plan = plan
                assert client.get(url_of(wheel)).content == wheel.data
            files.plan = Plan()
        if not plan.met:
            break
    else:
        pytest.fail("never came through")


def test_it_closes_the_next_one_and_not_the_cache(behind: Next, cache: Cache) -> None:
    """The client's close reaches the next transport; the cache stays open."""
    with httpx.Client(transport=CacheTransport(cache, next=behind)) as client:
        client.get(url_of(behind.wheel))
    assert behind.closed
    assert cache.get(behind.wheel.digest) is not None


def test_an_async_cache_serves_as_well(behind: Next, cache: Cache, wheel: Wheel) -> None:
    """An AsyncCache can be given, too, and stays the caller's; once it is closed, it is passed by."""
    cached = AsyncCache(cache.path)
    url = url_of(wheel, f"#sha256={wheel.hex()}")
    with httpx.Client(transport=CacheTransport(cached, next=behind)) as client:
        assert client.get(url).content == wheel.data
        assert client.get(url).extensions["wheelcache"] is Status.HIT
        assert cache.get(wheel.digest) is not None
        anyio.run(cached.close)
        assert "wheelcache" not in client.get(url).extensions
    assert len(behind.requests) == 2


def test_what_is_no_cache_is_told(tmp_path) -> None:
    """A path in the place of a cache is an error when the transport is made, not at the first wheel."""
    with pytest.raises(TypeError, match="needs a Cache or an AsyncCache, not str"):
        CacheTransport(str(tmp_path))  # type: ignore[arg-type]


def test_a_read_only_cache_gives_and_does_not_take(behind: Next, cache: Cache, machine: Machine) -> None:
    """With read_only nothing is written, neither a wheel nor what the server said."""
    with (
        machine.cache(cache.path, read_only=True) as frozen,
        httpx.Client(transport=CacheTransport(frozen, next=behind)) as client,
    ):
        assert client.get(url_of(behind.wheel)).content == behind.wheel.data
    assert list(cache.entries()) == []


@pytest.mark.parametrize("path", ["/demo-1.0-py3-none-any.whl", "/not-a-wheel.whl"])
def test_an_offline_cache_asks_nobody(path: str, behind: Next, cache: Cache, machine: Machine) -> None:
    """A wheel that an offline cache does not have is an error that shows no secret, and no request is made."""
    with (
        machine.cache(cache.path, offline=True) as offline,
        httpx.Client(transport=CacheTransport(offline, next=behind)) as client,
    ):
        with pytest.raises(httpx.ConnectError, match="offline") as caught:
            client.get(f"https://me:hunter2@example.org{path}?token=hunter2")
        assert path in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert behind.requests == []
        assert client.get("https://example.org/simple/").content == behind.wheel.data


def test_an_offline_cache_gives_what_it_has(client: httpx.Client, behind: Next, cache: Cache, machine: Machine) -> None:
    """What a URL gave is taken although it no longer holds, as by fetch(); who wants it asked for gets an error."""
    client.get(url_of(behind.wheel))
    with (
        machine.cache(cache.path, offline=True) as offline,
        httpx.Client(transport=CacheTransport(offline, next=behind)) as other,
    ):
        assert other.get(url_of(behind.wheel)).content == behind.wheel.data
        with pytest.raises(httpx.ConnectError, match="offline"):
            other.get(url_of(behind.wheel), headers={"Cache-Control": "no-cache"})
    assert len(behind.requests) == 1


def test_an_offline_cache_that_fails_asks_nobody(behind: Next, wheel: Wheel, tmp_path) -> None:
    """Whatever the disk refuses, an offline cache is no way to the network."""
    machine = Machine(files := FaultyFiles())
    with machine.cache(tmp_path / "cache", io_timeout=0.1, offline=True) as cache:
        (tmp_path / wheel.filename).write_bytes(wheel.data)
        cache.put(tmp_path / wheel.filename)
        files.plan = FailNth(1, "EIO", forever=True)
        transport = CacheTransport(cache, next=behind)
        with httpx.Client(transport=transport) as client, pytest.raises(httpx.ConnectError, match="offline"):
            client.get(url_of(wheel, f"#sha256={wheel.hex()}"))
        files.plan = Plan()
    assert behind.requests == []


@dataclass
class AsyncBody(httpx.AsyncByteStream):
    """A body in pieces."""

    data: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), 1000):
            yield self.data[start : start + 1000]


@dataclass
class AsyncNext(httpx.AsyncBaseTransport):
    """The transport behind an async client: it answers as the other one."""

    behind: Next
    closed: bool = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.behind.handle_request(request)
        stream = AsyncBody(self.behind.wheel.data if answer.status_code != 304 else b"")
        return httpx.Response(answer.status_code, headers=answer.headers, stream=stream)

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_an_async_client(behind: Next, cache: Cache, machine: Machine) -> None:
    """Under an AsyncClient it is the same: kept, taken from the file, revalidated, passed by, and not kept unread."""
    behind.headers = {"Cache-Control": "max-age=60"}
    transport = CacheTransport(cache, next=(next_one := AsyncNext(behind)))
    async with httpx.AsyncClient(transport=transport) as client:
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
async def test_a_transport_of_its_own(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Without a next transport there is one of the client's kind, and one of the other kind is told."""
    url = wheel.on(server)
    async with httpx.AsyncClient(transport=CacheTransport(cache)) as client:
        assert (await client.get(url)).content == wheel.data
    with httpx.Client(transport=CacheTransport(cache)) as client:
        assert client.get(f"{url}#{wheel.digest.replace(':', '=')}").extensions["wheelcache"] is Status.HIT
    transport = CacheTransport(cache, next=httpx.AsyncHTTPTransport())
    with pytest.raises(TypeError, match="synchronous"), httpx.Client(transport=transport) as client:
        client.get(url)
