"""Bodies that are read straight from their socket: the same bytes and the same errors as by the plain way."""

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

from wheelcache import DownloadError, HashMismatchError, SizeMismatchError, Status, WheelCacheError
from wheelcache._http import body

LARGE, MEDIUM = (
    Wheel(wheel_filename(name), make_wheel(name, size=size)) for name, size in (("large", 2 << 20), ("medium", 300_000))
)


class NoSocket(httpx.BaseTransport):
    """The same answers without their socket: nothing but the plain way is left."""

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
    """One that is read in many pieces, and one that is read in a few."""
    return request.param


@pytest.fixture(params=["straight", "no reader", "no socket"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A client of each kind, which does not wait long for the next byte."""
    if request.param == "no reader":
        monkeypatch.setattr(body, "_WAY_TO_READER", ("stream", "_elsewhere"))
    transport = NoSocket() if request.param == "no socket" else httpx.HTTPTransport()
    with httpx.Client(transport=transport, timeout=httpx.Timeout(10, read=2)) as client:
        yield client


@pytest.fixture
def chunks(server: Server) -> Callable[[httpx.Client, Wheel], Iterator[bytes | memoryview]]:
    """Ask for a wheel, and return the pieces of the body."""

    def asked(client: httpx.Client, wheel: Wheel) -> Iterator[bytes | memoryview]:
        with client.stream("GET", wheel.on(server, how=noted)) as response:
            yield from body._chunks(response, wheel.size, encoded=False)

    return asked


CONNECTIONS: list[tuple[str, int]] = []


def noted(exchange: Exchange) -> None:
    """The right answer; the connection that it went over is taken down."""
    CONNECTIONS.append(exchange.client)
    plain(exchange)


def test_the_connection_is_good_for_the_next_request(chunks, wheel: Wheel) -> None:
    """What was read straight from the socket, as is seen by its pieces, leaves it to the next request of the client."""
    CONNECTIONS.clear()
    with httpx.Client() as client:
        for _ in range(3):
            pieces = [(type(piece), bytes(piece)) for piece in chunks(client, wheel)]
            assert b"".join(data for _, data in pieces) == wheel.data
            assert memoryview in {kind for kind, _ in pieces}
    assert len(CONNECTIONS) == 3
    assert len(set(CONNECTIONS)) == 1


def test_a_connection_with_half_a_body_is_never_used_again(chunks, wheel: Wheel) -> None:
    """Who stops in the middle leaves bytes on the connection that would be taken for the next answer."""
    CONNECTIONS.clear()
    with httpx.Client() as client:
        begun = chunks(client, wheel)
        assert next(begun)
        assert type(next(begun)) is memoryview
        begun.close()
        assert b"".join(bytes(piece) for piece in chunks(client, wheel)) == wheel.data
    assert len(set(CONNECTIONS)) == 2


def test_without_the_reader_it_is_the_plain_way(chunks, wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where h11 cannot be told, as with a release that keeps its reader elsewhere, it sees every byte."""
    CONNECTIONS.clear()
    monkeypatch.setattr(body, "_WAY_TO_READER", ("stream", "_elsewhere"))
    with httpx.Client() as client:
        for _ in range(2):
            assert {type(piece) for piece in chunks(client, wheel)} == {bytes}
    assert len(set(CONNECTIONS)) == 1


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
    """What cannot be had is the error that the plain way gives."""
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
