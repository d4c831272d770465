"""Large bodies, which are read straight from their socket: the same bytes and the same errors as by the plain way."""

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

SIZE = 9 << 20
LARGE = Wheel(wheel_filename("large"), make_wheel("large", size=SIZE))


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


@pytest.fixture(params=[httpx.HTTPTransport, NoSocket], ids=["straight", "plain"])
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of each kind, which does not wait long for the next byte."""
    with httpx.Client(transport=request.param(), timeout=httpx.Timeout(10, read=2)) as client:
        yield client


@pytest.mark.parametrize("how", [plain, chunked, gzipped, until_closed], ids=lambda how: how.__name__)
def test_every_way_of_sending(how: Answer, client, server: Server, machine: Machine, tmp_path: Path) -> None:
    """However it travels, the bytes are the right ones, and the client goes on to work."""
    small = Wheel(wheel_filename("small"), make_wheel("small", size=5000))
    with machine.cache(tmp_path / "cache", client=client) as cache:
        found = cache.fetch(LARGE.on(server, how=how), hashes=LARGE.digest)
        assert (found.path.read_bytes(), found.status) == (LARGE.data, Status.DOWNLOADED)
        assert cache.fetch(small.on(server), hashes=small.digest).path.read_bytes() == small.data
        assert unfinished(cache) == []


@pytest.mark.parametrize("at", [0, 1, 70_000, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("ending", [truncated, reset])
def test_cuts_are_gone_on_with(
    at: int, ending: Callable[[int], Answer], client, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """A body that breaks off anywhere is gone on with where it was."""
    url = LARGE.on(server)
    server.script(url, ending(at))
    with machine.cache(tmp_path / "cache", client=client) as cache:
        assert cache.fetch(url, hashes=LARGE.digest).path.read_bytes() == LARGE.data
    assert ending is reset or server.sent() <= SIZE + 1


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (truncated(0), DownloadError),
        (wrong_length(+1), DownloadError),
        (wrong_length(-1), HashMismatchError),
        (status(404), DownloadError),
    ],
    ids=str,
)
def test_errors_are_the_same(how, error: type[WheelCacheError], client, server, machine, tmp_path: Path) -> None:
    """What cannot be had is the error that the plain way gives."""
    with machine.cache(tmp_path / "cache", client=client) as cache:
        with pytest.raises(error):
            cache.fetch(LARGE.on(server, how=how), hashes=LARGE.digest)
        with pytest.raises(SizeMismatchError):
            cache.fetch(LARGE.on(server), hashes=LARGE.digest, size=SIZE - 1)


def test_a_body_that_stalls_is_left_after_the_read_timeout(client, server, machine: Machine, tmp_path: Path) -> None:
    """The client's read time-out holds for every read, and the rest is asked for anew."""
    never = threading.Event()
    url = LARGE.on(server)
    server.script(url, stalled(SIZE // 2, never))
    with machine.cache(tmp_path / "cache", client=client) as cache:
        found = cache.fetch(url, hashes=LARGE.digest)
        assert (found.path.read_bytes(), found.status) == (LARGE.data, Status.RESUMED)
    never.set()
    assert server.count() == 2
