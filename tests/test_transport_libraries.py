"""Test CacheTransport with the clients, transports and classes of httpx and httpx2, and for type checkers."""

from __future__ import annotations

import importlib
import subprocess
import sys
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from http_clients import KINDS, LIBRARIES, Kind
from marks import any_system
from server import Server
from wheels import Wheel

from wheelcache import Cache, CacheTransport, Status

pytestmark = any_system


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return each kind of client."""
    return request.param


def test_it_is_a_transport_of_each_library(cache: Cache) -> None:
    """Other code may check that it is a transport of the libraries, synchronous and asynchronous."""
    transport = CacheTransport(cache)
    for name in LIBRARIES:
        library = importlib.import_module(name)
        assert isinstance(transport, library.BaseTransport)
        assert isinstance(transport, library.AsyncBaseTransport)


def test_a_response_belongs_to_the_library_of_the_client(
    kind: Kind, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A downloaded, a cached and a revalidated response have the classes of the client's library."""
    url = wheel.on(server)
    stream = kind.library.AsyncByteStream if kind.is_async else kind.library.SyncByteStream
    for each in (url, url, f"{url}#sha256={wheel.hex()}"):
        with kind.client(transport=CacheTransport(cache)) as client:
            response = client.get(each)
            assert response.content == wheel.data
            assert type(response) is kind.library.Response
            assert isinstance(response.stream, stream)
            assert type(response.request) is kind.library.Request
    assert server.sent() == wheel.size


def test_several_clients_in_turn(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A wheel that one kind of client has downloaded is a hit for each other kind."""
    url = f"{wheel.on(server)}#sha256={wheel.hex()}"
    for kind in KINDS:
        with kind.client(transport=CacheTransport(cache)) as client:
            assert client.get(url).content == wheel.data
    assert server.sent() == wheel.size


class Records:
    """An object with the methods of a transport, but of no library."""

    def __init__(self, behind: Any) -> None:
        self.behind = behind
        self.urls: list[str] = []

    def handle_request(self, request: Any) -> Any:
        self.urls.append(str(request.url))
        return self.behind.handle_request(request)

    async def handle_async_request(self, request: Any) -> Any:
        self.urls.append(str(request.url))
        return await self.behind.handle_async_request(request)


def test_an_object_with_the_methods_of_a_transport_is_accepted(
    kind: Kind, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """``next`` may be any object that has the method for the client's kind, even without a method to close it."""
    url = wheel.on(server)
    default = kind.library.AsyncHTTPTransport if kind.is_async else kind.library.HTTPTransport
    records = Records(behind := default())
    with kind.client(
        transport=CacheTransport(cache, next=records), mounts={"all://other.example.org": behind}
    ) as client:
        assert client.get(url).content == wheel.data
        assert client.get(url).extensions["wheelcache"] is Status.REVALIDATED
    assert records.urls == [url, url]


def test_a_transport_behind_another_cache(kind: Kind, server: Server, cache: Cache, wheel: Wheel, tmp_path) -> None:
    """Two of these transports in a row each store the wheel."""
    url = wheel.on(server)
    with Cache(tmp_path / "behind") as other:
        transport = CacheTransport(cache, next=CacheTransport(other))
        with kind.client(transport=transport) as client:
            assert client.get(url).content == wheel.data
        assert [each.digest for each in (*cache.entries(), *other.entries())] == [wheel.digest] * 2


def test_a_transport_of_another_library_is_a_type_error(kind: Kind, cache: Cache) -> None:
    """A next transport of another library than the client's is refused with the names of both."""
    others = [each for each in KINDS if each.name != kind.name and each.is_async == kind.is_async]
    if not others:
        pytest.skip("only one library is installed")
    [other] = others
    behind = other.library.AsyncHTTPTransport() if kind.is_async else other.library.HTTPTransport()
    needed = f"needs a transport of {kind.name}, not .*, which is a transport of {other.name}"
    with kind.client(transport=CacheTransport(cache, next=behind)) as client, pytest.raises(TypeError, match=needed):
        client.get("https://example.org/")


@pytest.mark.parametrize("behind", [SimpleNamespace(close=None), "https://example.org"])
def test_an_object_without_the_methods_of_a_transport_is_a_type_error(behind: Any, kind: Kind, cache: Cache) -> None:
    """A next transport that is none is refused when the client sends its first request."""
    needed = f"{kind.client_name} needs an? (a)?synchronous transport"
    with kind.client(transport=CacheTransport(cache, next=behind)) as client, pytest.raises(TypeError, match=needed):
        client.get("https://example.org/")


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


USE = """
import sys
from wheelcache import Cache, CacheTransport
folder, url = sys.argv[1:]
with Cache(folder) as cache:
    for _ in range(2):
        with {library}.Client(transport=CacheTransport(cache)) as client:
            print(client.get(url).extensions.get("wheelcache"))
print(*(name for name in ("httpx", "httpx2") if sys.modules.get(name)))
"""


@pytest.mark.parametrize("hidden", LIBRARIES)
def test_one_library_is_enough(hidden: str, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """The transport works if only one of the libraries is installed."""
    others = [name for name in LIBRARIES if name != hidden]
    if not others:
        pytest.skip("only one library is installed")
    [other] = others
    code = f"import sys; sys.modules[{hidden!r}] = None\nimport {other}\n{USE.format(library=other)}"
    url = f"{wheel.on(server)}#sha256={wheel.hex()}"
    assert run(code, str(tmp_path / "cache"), url).split() == ["None", "hit", other]


@pytest.mark.skipif("httpx2" not in LIBRARIES, reason="httpx2 is not installed")
def test_httpx_as_an_alias_of_httpx2(server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """The transport works in a process in which ``httpx`` is another name of httpx2."""
    code = f"import httpx2; httpx2.alias_httpx()\nimport httpx; assert httpx is httpx2\n{USE.format(library='httpx')}"
    url = f"{wheel.on(server)}#sha256={wheel.hex()}"
    assert run(code, str(tmp_path / "cache"), url).split() == ["None", "hit", "httpx", "httpx2"]


def test_annotations_can_be_resolved() -> None:
    """The annotations of the public methods are available at run time."""
    for method in (CacheTransport.__init__, CacheTransport.close, CacheTransport.aclose):
        assert "return" in typing.get_type_hints(method)
