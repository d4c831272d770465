"""Connections of our own client: every wait is interrupted, also below TLS within TLS."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpcore
import httpx
import pytest

from wheelcache._http.adapters.library import load
from wheelcache._http.client import HttpClient
from wheelcache._http.default_client import network
from wheelcache._http.default_client.network import InterruptibleBackend
from wheelcache._http.default_client.pool import PoolTransport
from wheelcache._http.interrupt import running
from wheelcache._operation import CancelToken, Operation, OperationCancelledError
from wheelcache._options import DownloadLimits
from wheelcache._os.system import System

CERTIFICATE = Path(__file__).parent.parent / "cli" / "loopback.pem"
# Longer than any test waits: an interrupted wait ends long before.
NEVER = 300.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


@contextmanager
def interrupted(action: Callable[[], object]) -> Iterator[None]:
    """Run an action in a thread, cancel its operation after the block, and see that it ends."""
    token = CancelToken()
    op = Operation(System(), tokens=(token,))

    def run() -> None:
        with running(op):
            action()

    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(run)
        yield
        token.cancel()
        assert isinstance(future.exception(60), OperationCancelledError)


def connect(listener: socket.socket) -> tuple[Any, socket.socket]:
    stream = InterruptibleBackend(httpcore).connect_tcp(*listener.getsockname(), timeout=60)
    accepted, _ = listener.accept()
    return stream, accepted


def test_a_read_is_interrupted(listener: socket.socket) -> None:
    """A read of a server that sends nothing ends when its operation is cancelled."""
    stream, accepted = connect(listener)
    started = threading.Event()

    def read() -> None:
        started.set()
        stream.read(1, NEVER)

    with accepted, interrupted(read):
        assert started.wait(60)
    stream.close()


def test_a_write_is_interrupted(listener: socket.socket) -> None:
    """A write to a server that reads nothing ends when its operation is cancelled."""
    stream, accepted = connect(listener)
    with accepted, interrupted(lambda: stream.write(bytes(1 << 27), NEVER)):
        assert accepted.recv(1)
    stream.close()


def test_a_handshake_is_interrupted(listener: socket.socket) -> None:
    """A TLS handshake with a server that does not answer ends when its operation is cancelled."""
    stream, accepted = connect(listener)
    with accepted, interrupted(lambda: stream.start_tls(ssl.create_default_context(), "127.0.0.1", NEVER)):
        assert accepted.recv(1)
    assert stream.get_extra_info("socket").fileno() < 0


def test_a_name_lookup_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name lookup that takes long is left behind when its operation is cancelled."""
    started, never = threading.Event(), threading.Event()

    def look_up(host: str, *_: object, flags: int = 0, **__: object) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        started.set()
        never.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with interrupted(lambda: InterruptibleBackend(httpcore).connect_tcp("example.org", 80, NEVER)):
        assert started.wait(60)
    never.set()


def test_a_connection_attempt_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt to connect to a host that does not answer ends when its operation is cancelled."""
    started = threading.Event()

    def is_ready(*_: object, **__: object) -> bool:
        started.set()
        return False

    monkeypatch.setattr(network, "_is_ready", is_ready)
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: network.errno.EINPROGRESS)
    with interrupted(lambda: InterruptibleBackend(httpcore).connect_tcp("127.0.0.1", 9, None)):
        assert started.wait(60)


def test_a_connection_whose_options_are_refused_is_closed(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is closed if its options are refused, as macOS does after the server has closed the connection."""
    refused: list[socket.socket] = []

    def setsockopt(self: socket.socket, *_: object) -> None:
        refused.append(self)
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(socket.socket, "setsockopt", setsockopt)
    with pytest.raises(httpcore.ConnectError):
        InterruptibleBackend(httpcore).connect_tcp(*listener.getsockname(), timeout=60)
    assert [connection.fileno() for connection in refused] == [-1]


def test_without_threads_a_name_is_looked_up_directly(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, the name lookup blocks, and works."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    stream = InterruptibleBackend(httpcore).connect_tcp("localhost", listener.getsockname()[1], 60)
    stream.close()


def test_time_outs_are_those_of_the_library(listener: socket.socket) -> None:
    """A wait that is not interrupted ends with the library's error when its timeout has passed."""
    stream, accepted = connect(listener)
    with accepted:
        with pytest.raises(httpcore.ReadTimeout):
            stream.read(1, 0.01)
        with pytest.raises(httpcore.ConnectTimeout):
            stream.start_tls(ssl.create_default_context(), "127.0.0.1", 0.01)


def test_a_refused_connection_is_an_error_of_the_system(listener: socket.socket) -> None:
    """A port that nobody listens on is a ConnectError with the system's error as its cause."""
    address = listener.getsockname()
    listener.close()
    with pytest.raises(httpcore.ConnectError) as caught:
        InterruptibleBackend(httpcore).connect_tcp(*address, timeout=60)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.__cause__.strerror


class TlsProxy:
    """A proxy that is itself reached by TLS, and connects every tunnel to a server that speaks TLS, too."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATE)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.tunnels = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        accepted, _ = self._listener.accept()
        with self._context.wrap_socket(accepted, server_side=True) as outer:
            assert outer.recv(1 << 16).startswith(b"CONNECT ")
            outer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            self.tunnels += 1
            self._answer(outer)

    def _answer(self, outer: ssl.SSLSocket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner = self._context.wrap_bio(incoming, outgoing, server_side=True)

        def run(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    outer.sendall(outgoing.read())
                    incoming.write(outer.recv(1 << 16))
                else:
                    outer.sendall(outgoing.read())
                    return result

        run(inner.do_handshake)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self._body)}\r\n\r\n".encode()
        for _ in range(2):
            assert run(lambda: inner.read(1 << 16)).startswith(b"GET ")
            run(lambda: inner.write(head + self._body))


def test_tls_in_the_tls_of_a_proxy() -> None:
    """Through a proxy that is reached by TLS, a server is reached by TLS, and the connection is used again."""
    body = bytes(range(256)) * 4000
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    with TlsProxy(body) as proxy:
        through = httpx.Proxy(f"https://127.0.0.1:{proxy.port}", ssl_context=context)
        with closing(httpx.Client(transport=PoolTransport(load("httpx"), context, through))) as client:
            for _ in range(2):
                assert client.get("https://127.0.0.1/").content == body
    assert proxy.tunnels == 1


class HastyPeer:
    """A connection to a TLS server that sends its certificate and no longer receives anything."""

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.sent = 0
        self.httpcore = httpcore

    def receive_into(self, buffer: memoryview, _: object) -> int:
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        data = self.outgoing.read()
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes, _: object) -> None:
        self.sent += 1
        if self.sent > 1:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.incoming.write(data)


def test_a_closed_connection_does_not_hide_an_untrusted_certificate() -> None:
    """If the peer no longer receives why its certificate is refused, the error still says it."""
    below: Any = HastyPeer()
    with pytest.raises(ssl.SSLCertVerificationError):
        network.TlsStream(below, ssl.create_default_context(), "127.0.0.1", network._TimeBudget(60))
    assert below.sent == 2


def test_a_client_that_was_in_use_at_a_fork_is_closed_in_the_child() -> None:
    """A request that the child inherits within a listener is not counted twice, so closing neither waits nor leaks."""
    waits: list[float] = []
    client = HttpClient(None, lambda _: None, DownloadLimits())
    with client._borrow():
        client.after_fork()
    with client._borrow():
        own = client._own
    client.close(waits.append)
    assert own.is_closed
    assert waits == []
