"""Bodies that a session of requests receives: progress, cancellation, memory, hooks, and the adapters of callers."""

from __future__ import annotations

import io
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
import requests
from folders import unfinished
from machines import Machine
from marks import not_on_windows
from requests.adapters import BaseAdapter, HTTPAdapter
from server import Answer, Exchange, Server, chunked, gzipped, plain, redirect, status, truncated, until_closed
from tls_server import AUTHORITY, TlsServer
from urllib3 import HTTPResponse
from urllib3.util import Retry
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import AsyncCache, Cache, DownloadError, InvalidWheelError, ProgressEvent, Status, requests_client

BACKENDS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "trio"]  # trio does not start under Wine
LARGE = Wheel(wheel_filename("large"), make_wheel("large", size=300_000))


@pytest.fixture
def session() -> Iterator[Any]:
    """A session with the settings of requests."""
    with requests.Session() as session:
        yield session


class Stalled:
    """The start of a body, whose rest follows at the end of the test."""

    def __init__(self, framing: str) -> None:
        self.framing = framing
        self.never = threading.Event()
        self.ended = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        body, length = exchange.body, len(exchange.body)
        if self.framing == "chunked":
            exchange.start(200, {"Transfer-Encoding": "chunked"})
            exchange.write_raw(f"{length:x}\r\n".encode())
        else:
            exchange.start(200, length=length if self.framing == "length" else None)
        exchange.write(body[:500])
        exchange.wait(self.never)
        self.ended.set()


@pytest.fixture(params=["length", "chunked", "until closed"])
def stalled(request: pytest.FixtureRequest) -> Iterator[Stalled]:
    """Stall a body of each framing, until the end of the test."""
    stalled = Stalled(request.param)
    yield stalled
    stalled.never.set()


def test_closing_ends_a_download(stalled: Stalled, session: Any, server: Server, tmp_path: Path) -> None:
    """Closing a cache ends a read that blocks without a timeout, and leaves nothing unfinished or open."""
    cache = Cache(tmp_path / "cache", client=requests_client(session, timeout=None))
    url = LARGE.on(server, how=stalled)
    arrived = threading.Event()

    def listen(event: ProgressEvent) -> None:
        if event.done == 500:
            arrived.set()

    with ThreadPoolExecutor(1) as threads:
        fetching = threads.submit(cache.fetch, url, hashes=LARGE.digest, progress=listen)
        assert arrived.wait(60)  # the first bytes are reported although the server sends no more
        cache.close()
        error = fetching.exception(60)
    assert isinstance(error, ValueError)
    assert "closed" in str(error)
    assert not stalled.ended.is_set()
    assert unfinished(cache) == []
    server.serve("/other", b"other")
    assert session.get(server.url("/other"), timeout=60).content == b"other"


@pytest.mark.parametrize("stalled", ["length", "chunked"], indirect=True)
def test_closing_uses_the_socket_of_the_connection(
    stalled: Stalled, session: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a body that ends with its connection needs a duplicate of the socket."""
    monkeypatch.setattr(socket, "fromfd", None)
    test_closing_ends_a_download(stalled, session, server, tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_cancelling_ends_a_download(stalled: Stalled, session: Any, server: Server, tmp_path: Path) -> None:
    """A cancelled task ends although the server sends nothing, and the session serves other requests of the cache."""
    url = LARGE.on(server, how=stalled)
    arrived = threading.Event()

    def listen(event: ProgressEvent) -> None:
        if event.done == 500:
            arrived.set()

    async with AsyncCache(tmp_path / "cache", client=requests_client(session, timeout=None)) as cache:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: cache.fetch(url, hashes=LARGE.digest, progress=listen))
            assert await anyio.to_thread.run_sync(arrived.wait, 60)
            group.cancel_scope.cancel()
        assert not stalled.ended.is_set()
        server.script(url, plain)
        found = await cache.fetch(url, hashes=LARGE.digest)
        assert found.path.read_bytes() == LARGE.data


def test_closing_ends_a_download_with_tls(session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a cache ends a read over TLS."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    session.verify = str(AUTHORITY)
    arrived, never = threading.Event(), threading.Event()

    class StalledServer(TlsServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            request.do_handshake()
            request.recv(10_000)
            request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
            never.wait(60)

    cache = Cache(tmp_path / "cache", client=requests_client(session, timeout=None))
    with StalledServer(b"") as server, ThreadPoolExecutor(1) as threads:
        fetching = threads.submit(
            cache.fetch, server.url(LARGE.filename), progress=lambda event: event.done == 500 and arrived.set()
        )
        assert arrived.wait(60)
        cache.close()
        with pytest.raises(ValueError, match="closed"):
            fetching.result(60)
        assert not never.is_set()
        never.set()


def test_a_private_authority(session: Any, wheel: Wheel, machine: Machine, tmp_path: Path) -> None:
    """The session's own certificates decide, and the advice for an unknown authority names its setting."""
    session.trust_env = False
    with (
        TlsServer(wheel.data) as server,
        machine.cache(tmp_path / "cache", client=requests_client(session)) as cache,
    ):
        url = server.url(wheel.filename)
        with pytest.raises(DownloadError) as caught:
            cache.fetch(url)
        assert "the server's certificate is not trusted" in str(caught.value)
        assert "session's verify" in caught.value.advice
        assert caught.value.attempts == 1
        session.verify = str(tmp_path / "no such file")
        with pytest.raises(DownloadError) as caught:
            cache.fetch(url)
        assert "certificates cannot be read" in str(caught.value)
        session.verify = str(AUTHORITY)
        assert cache.fetch(url).path.read_bytes() == wheel.data


MEASURE = """
import resource, sys
from requests import Session
from requests.adapters import HTTPAdapter
import wheelcache._http.adapters.requests_adapter
from wheelcache import Cache, requests_client
url, folder = sys.argv[1:]
with Session() as session, Cache(folder, client=requests_client(session)) as cache:
    cache.fetch(url.replace("large", "small"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = cache.fetch(url).size
print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@not_on_windows("the module resource measures the memory")
def test_a_large_wheel_needs_little_memory(server: Server, tmp_path: Path) -> None:
    """A download of 200 MB needs less than 16 MiB."""
    import subprocess

    part = bytes(1 << 20)
    end = make_wheel("large")

    def answer(exchange: Exchange) -> None:
        exchange.start(200, length=200 * len(part) + len(end))
        for _ in range(200):
            exchange.write(part)
        exchange.write(end)

    url = server.serve(f"/{wheel_filename('large')}", how=answer)
    server.serve(f"/{wheel_filename('small')}", make_wheel("small"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, url, str(tmp_path / "cache")], capture_output=True, text=True, check=True
    )
    size, mebibytes = map(int, done.stdout.split())
    assert size == 200 * len(part) + len(end)
    assert mebibytes < 16


def raise_for_status(response: Any, **_: object) -> None:
    response.raise_for_status()


def retry_statuses(session: Any) -> None:
    session.mount("http://", HTTPAdapter(max_retries=Retry(1, status_forcelist=[503, 404], backoff_factor=0)))


@pytest.mark.parametrize("rejects", ["hook", "retries"])
def test_a_response_that_the_session_rejects(
    rejects: str, session: Any, server: Server, wheel: Wheel, machine: Machine, tmp_path: Path
) -> None:
    """A status that a hook or the retries of the session turned into an exception decides as usual."""
    if rejects == "hook":
        session.hooks["response"].append(raise_for_status)
    else:
        retry_statuses(session)
    mirror = wheel.on(server)
    first = server.serve(f"/from/{wheel.filename}", how=status(404))
    with machine.cache(tmp_path / "cache", client=requests_client(session)) as cache:
        with pytest.raises(DownloadError) as caught:
            cache.fetch(first, hashes=wheel.digest)
        assert (caught.value.status, caught.value.attempts) == (404, 1)
        assert "the server responded with 404 Not Found" in str(caught.value)
        server.script(mirror, *[status(503)] * 2)
        assert cache.fetch(first, hashes=wheel.digest, mirrors=[mirror]).path.read_bytes() == wheel.data


@pytest.mark.parametrize("how", [plain, gzipped])
def test_a_hook_may_read_the_body(
    how: Answer, session: Any, server: Server, wheel: Wheel, machine: Machine, tmp_path: Path
) -> None:
    """A body that a hook has read is used as the hook saw it."""
    seen: list[bytes] = []
    session.hooks["response"].append(lambda response, **_: seen.append(response.content))
    with machine.cache(tmp_path / "cache", client=requests_client(session)) as cache:
        assert cache.fetch(wheel.on(server, how=how), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert seen == [wheel.data]


def read_a_part(response: Any, **_: object) -> None:
    next(response.iter_content(1000))


def read_a_part_and_close(response: Any, **_: object) -> None:
    next(response.iter_content(1000))
    response.close()


def read_in_pieces(response: Any, **_: object) -> None:
    for _piece in response.iter_content(1000):
        pass


@pytest.mark.parametrize("hook", [read_a_part, read_a_part_and_close, read_in_pieces])
@pytest.mark.parametrize("how", [plain, gzipped, chunked, until_closed])
def test_a_hook_that_does_not_keep_the_body(
    hook: Callable[..., None], how: Answer, session: Any, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """A body that a hook has read without keeping it is an error, and not a wheel without its start."""
    session.hooks["response"].append(hook)
    # urllib3 closes a body in chunks if its reader stops. An empty body remains.
    is_closed = hook is read_a_part_and_close or (hook is read_a_part and how is chunked)
    with (
        machine.cache(tmp_path / "cache", client=requests_client(session)) as cache,
        pytest.raises((DownloadError, InvalidWheelError) if is_closed else DownloadError),
    ):
        cache.fetch(LARGE.on(server, how=how))


def test_a_hook_may_replace_the_response(
    session: Any, server: Server, wheel: Wheel, machine: Machine, tmp_path: Path
) -> None:
    """The response that a hook returns instead of a redirect is used."""
    url = server.serve(f"/from/{wheel.filename}", how=redirect("/nowhere"))
    target = wheel.on(server)

    def replace(response: Any, **options: Any) -> Any:
        if response.status_code == 200:
            return response
        response.close()
        return session.get(target, **options)

    session.hooks["response"].append(replace)
    with machine.cache(tmp_path / "cache", client=requests_client(session)) as cache:
        assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


class OwnAdapter(BaseAdapter):
    """An adapter without a network.

    Args:
        create_raw: returns the body of each response.
    """

    def __init__(self, create_raw: Callable[[], Any], headers: dict[str, str]) -> None:
        super().__init__()
        self.create_raw = create_raw
        self.headers = headers

    def send(self, request: Any, **_: Any) -> Any:
        response = requests.Response()
        response.status_code = 200
        response.raw = self.create_raw()
        response.url = request.url
        response.headers.update(self.headers)
        return response

    def close(self) -> None:
        pass


class WithoutRead1(io.RawIOBase):
    """A body with the method ``read`` only."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)


def test_a_redirect_cannot_use_an_adapter_for_files(
    session: Any, server: Server, wheel: Wheel, machine: Machine, tmp_path: Path
) -> None:
    """A redirect to another scheme fails even if the session has an adapter for it."""
    session.mount("file://", OwnAdapter(lambda: io.BytesIO(wheel.data), {}))
    url = wheel.on(server, how=redirect(f"file://localhost/secret/{wheel.filename}"))
    with (
        machine.cache(tmp_path / "cache", client=requests_client(session)) as cache,
        pytest.raises(DownloadError, match="the URL cannot be requested"),
    ):
        cache.fetch(url)


RAW: dict[str, Callable[[bytes], Any]] = {
    "BytesIO": io.BytesIO,
    "read only": WithoutRead1,
    "urllib3": lambda data: HTTPResponse(body=io.BytesIO(data), preload_content=False, status=200),
    "urllib3 over read only": lambda data: HTTPResponse(body=WithoutRead1(data), preload_content=False, status=200),
}


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("kind", RAW)
def test_bodies_of_own_adapters(kind: str, declared: bool, session: Any, machine: Machine, tmp_path: Path) -> None:
    """An adapter may have any file-like object as a body, and its response need not name its request."""
    headers = {"Content-Length": str(LARGE.size)} if declared else {}
    session.mount("http://", OwnAdapter(lambda: RAW[kind](LARGE.data), headers))
    with machine.cache(tmp_path / "cache", client=requests_client(session)) as cache:
        found = cache.fetch(f"http://example.org/{LARGE.filename}")
    assert found.path.read_bytes() == LARGE.data


@pytest.mark.parametrize("kind", RAW)
def test_cut_bodies_of_own_adapters(kind: str, session: Any, machine: Machine, tmp_path: Path) -> None:
    """A body that is shorter than declared is an error, also where requests does not notice."""
    session.mount("http://", OwnAdapter(lambda: RAW[kind](LARGE.data[:1000]), {"Content-Length": str(LARGE.size)}))
    with (
        machine.cache(tmp_path / "cache", client=requests_client(session)) as cache,
        pytest.raises(DownloadError, match=r"the body ended before its declared end \(after 1000 bytes\)"),
    ):
        cache.fetch(f"http://example.org/{LARGE.filename}")


def test_a_body_in_memory(session: Any, machine: Machine, tmp_path: Path) -> None:
    """A response may have no raw body, as the responses of test doubles."""
    session.mount("http://", OwnAdapter(lambda: None, {}))
    session.hooks["response"].append(lambda response, **_: vars(response).update(_content=LARGE.data))
    with machine.cache(tmp_path / "cache", client=requests_client(session)) as cache:
        assert cache.fetch(f"http://example.org/{LARGE.filename}").path.read_bytes() == LARGE.data


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), OSError(5, "broken"), ValueError("closed file")])
def test_errors_of_own_bodies(error: Exception, session: Any, machine: Machine, tmp_path: Path) -> None:
    """An error of a body that is not one of requests is a failed read, which is repeated."""

    class Broken(WithoutRead1):
        def read(self, size: int = -1) -> bytes:
            if self._data.tell():
                raise error
            return super().read(1000)

    session.mount("http://", OwnAdapter(lambda: Broken(LARGE.data), {}))
    with (
        machine.cache(tmp_path / "cache", client=requests_client(session)) as cache,
        pytest.raises(DownloadError, match="the connection broke while reading") as caught,
    ):
        cache.fetch(f"http://example.org/{LARGE.filename}")
    assert caught.value.attempts == 5


def test_connections_are_used_again(session: Any, server: Server, machine: Machine, tmp_path: Path) -> None:
    """After a body, a redirect without a body, and a wheel in chunks, the connection serves the next request."""
    clients: set[tuple[str, int]] = set()

    def noting(how: Answer) -> Answer:
        def answer(exchange: Exchange) -> None:
            clients.add(exchange.client)
            how(exchange)

        return answer

    wheels = [Wheel(wheel_filename(f"w{n}"), make_wheel(f"w{n}", size=10_000)) for n in range(3)]
    with machine.cache(tmp_path / "cache", client=requests_client(session)) as cache:
        for wheel in wheels:
            wheel.on(server, how=noting(plain))
            url = server.serve(
                f"/from/{wheel.filename}",
                how=noting(lambda exchange, wheel=wheel: exchange.send(302, {"Location": wheel.path})),
            )
            assert cache.fetch(url, hashes=wheel.digest).status is Status.DOWNLOADED
    assert len(clients) == 1


@pytest.mark.parametrize("code", [101, 103])
def test_an_interim_response(code: int, session: Any, server: Server, machine: Machine, tmp_path: Path) -> None:
    """The session takes an interim response for the last one. Its connection is not used again."""
    clients: list[tuple[str, int]] = []

    def early(exchange: Exchange) -> None:
        clients.append(exchange.client)
        exchange.write_raw(f"HTTP/1.1 {code} Early\r\nLink: </a>\r\n\r\n".encode())
        plain(exchange)

    url = LARGE.on(server)
    server.script(url, early)
    with machine.cache(tmp_path / "cache", client=requests_client(session)) as cache:
        with pytest.raises(DownloadError, match=f"an interim response, {code}"):
            cache.fetch(url)
        other = Wheel(wheel_filename("other"), make_wheel("other"))

        def answer(exchange: Exchange) -> None:
            clients.append(exchange.client)
            plain(exchange)

        assert cache.fetch(other.on(server, how=answer)).path.read_bytes() == other.data
    assert len(set(clients)) == 2


def test_a_cookie_jar_that_another_thread_changes(
    session: Any, server: Server, wheel: Wheel, machine: Machine, tmp_path: Path
) -> None:
    """A session cannot copy its cookies while another thread stores one, so the request is prepared again."""

    class Jar(requests.cookies.RequestsCookieJar):
        attempts = 0

        def __iter__(self) -> Iterator[Any]:
            self.attempts += 1
            if self.attempts < 3:
                raise RuntimeError("dictionary changed size during iteration")
            return super().__iter__()

    session.cookies = Jar()
    session.cookies.set("a", "b")
    with machine.cache(tmp_path / "cache", client=requests_client(session)) as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    assert server.requests()[0].headers["cookie"] == "a=b"


def test_many_threads_share_a_session(session: Any, server: Server, tmp_path: Path) -> None:
    """Many downloads at once, each of which stores cookies, use one session."""
    wheels = [Wheel(wheel_filename(f"w{n}"), make_wheel(f"w{n}", size=3000)) for n in range(60)]
    session.mount("http://", HTTPAdapter(pool_maxsize=16))

    def answer(exchange: Exchange) -> None:
        name = exchange.request.target.rpartition("/")[2]
        exchange.send(200, {"Set-Cookie": f"{name}=1; Path=/{name}"}, exchange.body)

    urls = [wheel.on(server, how=answer) for wheel in wheels]
    for url in urls[::3]:
        server.script(url, truncated(100))
    with Cache(tmp_path / "cache", client=requests_client(session)) as cache:
        found = cache.fetch_all(urls, jobs=16)
    assert [each.path.read_bytes() for each in found] == [each.data for each in wheels]
