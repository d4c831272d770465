"""Bodies, over a client of each kind: the same bytes and the same errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from folders import unfinished
from machines import Machine
from server import (
    Answer,
    Exchange,
    Server,
    chunked,
    gzipped,
    plain,
    reset,
    stalled,
    status,
    truncated,
    until_closed,
    wrong_length,
)
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import (
    AsyncCache,
    DownloadError,
    HashMismatchError,
    ProgressEvent,
    SizeMismatchError,
    Status,
    WheelCacheError,
)
from wheelcache._http.default_client import create as transport

LARGE, MEDIUM = (
    Wheel(wheel_filename(name), make_wheel(name, size=size)) for name, size in (("large", 2 << 20), ("medium", 300_000))
)


class NoSocket(httpx.BaseTransport):
    """A transport of the caller's that does not pass the socket on."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        response.extensions.pop("network_stream", None)
        return response

    def close(self) -> None:
        self._inner.close()


@pytest.fixture(params=[LARGE, MEDIUM], ids=["large", "medium"])
def wheel(request: pytest.FixtureRequest) -> Wheel:
    """One that is read in many chunks, and one that is read in a few."""
    return request.param


@pytest.fixture(params=["own", "callers", "no socket"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client | None]:
    """A client of each kind, which does not wait long for the next byte."""
    if request.param == "own":
        monkeypatch.setattr(transport, "_READ_SECONDS", 2.0)
        yield None
        return
    chosen = NoSocket() if request.param == "no socket" else httpx.HTTPTransport()
    with httpx.Client(transport=chosen, timeout=httpx.Timeout(10, read=2)) as client:
        yield client


CONNECTIONS: list[tuple[str, int]] = []


def noted(exchange: Exchange) -> None:
    """The right answer; the connection that it was sent over is noted."""
    CONNECTIONS.append(exchange.client)
    plain(exchange)


def test_the_connection_is_used_for_the_next_request(client, server: Server, machine: Machine, tmp_path: Path) -> None:
    """After a body was read to its end, the next request is sent over the same connection."""
    CONNECTIONS.clear()
    with machine.cache(tmp_path / "cache", client=client) as cache:
        for wheel in (LARGE, MEDIUM):
            assert cache.fetch(wheel.on(server, how=noted), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert len(CONNECTIONS) == 2
    assert len(set(CONNECTIONS)) == 1


def test_a_connection_with_half_a_body_is_never_used_again(
    client, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """A download that ends in the middle leaves bytes on its connection, and no other request is sent over it."""
    CONNECTIONS.clear()

    def leave(event: ProgressEvent) -> None:
        if event.done:
            raise LookupError

    with machine.cache(tmp_path / "cache", client=client) as cache:
        with pytest.raises(LookupError):
            cache.fetch(LARGE.on(server, how=noted), hashes=LARGE.digest, progress=leave)
        assert cache.fetch(MEDIUM.on(server, how=noted), hashes=MEDIUM.digest).path.read_bytes() == MEDIUM.data
    assert len(set(CONNECTIONS)) == 2


@pytest.mark.parametrize("error", [httpx.ConnectError("mine"), httpx.InvalidURL("mine"), TimeoutError("mine")])
def test_an_exception_of_a_listener_is_no_failure_of_the_download(
    error: Exception, client, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """A listener that raises an error of the HTTP library gets that error back, after one request."""

    def listen(event: ProgressEvent) -> None:
        if event.done:
            raise error

    with machine.cache(tmp_path / "cache", client=client) as cache:
        with pytest.raises(type(error)) as caught:
            cache.fetch(LARGE.on(server), hashes=LARGE.digest, progress=listen)
        assert caught.value is error
        assert server.count() == 1


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # httpx's generators of a body warn under trio if it is left
@pytest.mark.parametrize("whose", ["own", "callers"])
async def test_an_exception_of_a_listener_of_an_async_cache(whose: str, server: Server, tmp_path: Path) -> None:
    """A listener of an AsyncCache gets its exception back, too, after one request."""
    error = httpx.ConnectError("mine")

    def listen(event: ProgressEvent) -> None:
        if event.done:
            raise error

    async with (
        httpx.AsyncClient() as theirs,
        AsyncCache(tmp_path / "cache", client=theirs if whose == "callers" else None) as cache,
    ):
        with pytest.raises(httpx.ConnectError) as caught:
            await cache.fetch(LARGE.on(server), hashes=LARGE.digest, progress=listen)
        assert caught.value is error
    assert server.count() == 1


class Listening(httpx.SyncByteStream):
    """A body that somebody else wants to see: as much like the one behind it as can be."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._behind = stream
        self.seen = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._behind, name)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._behind:
            self.seen += len(chunk)
            yield chunk

    def close(self) -> None:
        self._behind.close()


def test_a_transport_that_listens_sees_every_byte(wheel: Wheel, server: Server, machine: Machine, tmp_path) -> None:
    """The caller's transport may keep, count or check what goes through it, and hand the socket's extension on."""
    streams: list[Listening] = []

    class Transport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            streams.append(Listening(response.stream))
            return httpx.Response(
                response.status_code, headers=response.headers, stream=streams[-1], extensions=response.extensions
            )

    with httpx.Client(transport=Transport()) as client, machine.cache(tmp_path / "cache", client=client) as cache:
        assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert [stream.seen for stream in streams] == [wheel.size]


@pytest.mark.parametrize("how", [plain, chunked, gzipped, until_closed], ids=lambda how: how.__name__)
def test_every_way_of_sending(how: Answer, wheel, client, server: Server, machine: Machine, tmp_path: Path) -> None:
    """However it travels, the bytes are the right ones, and the client goes on to work."""
    small = Wheel(wheel_filename("small"), make_wheel("small", size=5000))
    with machine.cache(tmp_path / "cache", client=client) as cache:
        found = cache.fetch(wheel.on(server, how=how), hashes=wheel.digest)
        assert (found.path.read_bytes(), found.status) == (wheel.data, Status.DOWNLOADED)
        assert cache.fetch(small.on(server), hashes=small.digest).path.read_bytes() == small.data
        assert unfinished(cache) == []


@pytest.mark.parametrize("at", [0, 1, 70_000, -150_000, -1])
@pytest.mark.parametrize("ending", [truncated, reset])
def test_cuts_are_gone_on_with(
    at: int, ending: Callable[[int], Answer], wheel, client, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """A body that breaks off anywhere is gone on with where it was."""
    url = wheel.on(server)
    server.script(url, ending(at % wheel.size))
    with machine.cache(tmp_path / "cache", client=client) as cache:
        assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert ending is reset or server.sent() <= wheel.size + 1


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (truncated(0), DownloadError),
        (wrong_length(+1), DownloadError),
        (wrong_length(-1), HashMismatchError),
        (status(404), DownloadError),
    ],
)
def test_errors_are_the_same(how, error: type[WheelCacheError], wheel, client, server, machine, tmp_path) -> None:
    """The errors are the same with each client."""
    with machine.cache(tmp_path / "cache", client=client) as cache:
        with pytest.raises(error):
            cache.fetch(wheel.on(server, how=how), hashes=wheel.digest)
        with pytest.raises(SizeMismatchError):
            cache.fetch(wheel.on(server), hashes=wheel.digest, size=wheel.size - 1)


def test_a_body_that_stalls_is_left_after_the_read_timeout(wheel, client, server, machine, tmp_path: Path) -> None:
    """The client's read time-out holds for every read, how far it came is told, and the rest is asked for anew."""
    never = threading.Event()
    url = wheel.on(server)
    server.script(url, stalled(wheel.size // 2, never))
    said: list[str] = []
    with machine.cache(tmp_path / "cache", client=client) as cache:
        found = cache.fetch(url, hashes=wheel.digest, progress=lambda event: said.append(event.detail))
        assert (found.path.read_bytes(), found.status) == (wheel.data, Status.RESUMED)
    never.set()
    assert server.count() == 2
    assert any(f"(after {wheel.size // 2} bytes)" in detail for detail in said)
