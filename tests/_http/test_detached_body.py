"""Our own client reads bodies of a declared size without the parser of its pool, and keeps its connections."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import h11
import httpcore
import httpx
import pytest

from wheelcache._http.adapters.library import load
from wheelcache._http.body import iter_body
from wheelcache._http.client import HttpClient
from wheelcache._http.default_client import network
from wheelcache._http.default_client.detached_body import detach_body
from wheelcache._http.default_client.network import InterruptibleBackend
from wheelcache._http.default_client.pool import PoolTransport
from wheelcache._operation import Operation
from wheelcache._options import DownloadLimits
from wheelcache._os.system import System
from wheelcache._request import Source

CERTIFICATE = Path(__file__).parent.parent / "cli" / "loopback.pem"
BODY = bytes(range(256)) * 512
# No two pieces of it are the same.
LARGE_BODY = b"".join(number.to_bytes(4, "big") for number in range(1 << 20))


def parse(data: bytes) -> list[Any]:
    """Return what h11 reads from these bytes after a GET request: the fields of the head, and the bytes of the body."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("Host", "example.org")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(data)
    head = parser.next_event()
    assert isinstance(head, h11.Response)
    return [(name, text) for name, text in head.headers if name != b"content-length"] + [type(parser.next_event())]


@pytest.mark.parametrize("status", ["200 OK", "200", "203 Non-Authoritative Information", "206 Partial Content"])
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
@pytest.mark.parametrize(
    "field",
    ["Content-Length: 131072", "content-length:131072", "CONTENT-LENGTH: \t131072 \t", "Content-Length: 0131072"],
)
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_body_of_a_declared_size_is_detached(status: str, version: str, field: str, end: str) -> None:
    """The parser sees the same fields and an empty body, and the body begins after the head."""
    lines = [f"{version} {status}", 'ETag: "a"', field, "Last-Content-Length: 5"]
    head = end.join([*lines, "", ""]).encode()
    detached = detach_body(head + BODY)
    assert detached is not None
    changed, body, size = detached
    assert (body, size) == (BODY, len(BODY))
    assert parse(changed) == [*parse(head)[:-1], h11.EndOfMessage]


@pytest.mark.parametrize(
    "head",
    [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 131072\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200\n\r\nContent-Length: 131072\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 131072\r\n\r\n",
        "HTTP/1.1 302 Found\r\nContent-Length: 131072\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 131072\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 131072\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 131072\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 131072\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 131072\r\nContent-Length: 131072\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 131072, 131072\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 131072\r\n 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 131072\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1234567890123456789\r\n\r\n",
    ],
)
def test_other_responses_are_left_to_the_parser(head: str) -> None:
    """A response that is incomplete, has another status, or declares its size in another way is not changed."""
    assert detach_body(head.encode()) is None


class Server:
    """A server that sends the same bytes in response to each request.

    Args:
        response: the bytes.
        context: the TLS settings, or ``None`` for plain connections.
        keep: whether a connection remains open after a response.
    """

    def __init__(self, response: bytes, context: ssl.SSLContext | None = None, *, keep: bool = True) -> None:
        self._response = response
        self._context = context
        self._keep = keep
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.accepted: list[socket.socket] = []
        self.thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._is_closed:
                connection.close()
                return
            self.accepted.append(connection)
            threading.Thread(target=self._answer, args=(connection,)).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            stream = connection if self._context is None else self._context.wrap_socket(connection, server_side=True)
            with stream:
                while stream.recv(1 << 16):
                    stream.sendall(self._response)
                    if not self._keep:
                        return

    def close(self) -> None:
        """Stop accepting connections."""
        self._is_closed = True
        socket.create_connection(self._listener.getsockname()).close()
        self.thread.join(60)
        self._listener.close()


@pytest.fixture
def own_client() -> Iterator[HttpClient]:
    """The client of a cache without a client of the caller."""
    client = HttpClient(None, lambda _: None, DownloadLimits())
    yield client
    client.close(lambda _: None)


@contextmanager
def serving(response: bytes, *, tls: bool = False, keep: bool = True) -> Iterator[tuple[Server, httpx.Client]]:
    """Start a server, and yield it and a client with our transport."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
    server = Server(response, context, keep=keep)
    server.thread.start()
    trusted = ssl.create_default_context(cafile=str(CERTIFICATE))
    with closing(server), closing(httpx.Client(transport=PoolTransport(load("httpx"), trusted))) as client:
        yield server, client


def response_with(body: bytes, fields: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n{fields}\r\n".encode() + body


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_is_used_again_after_a_body(method: str, *, tls: bool) -> None:
    """The body of each response is complete, its headers are those of the server, and one connection is enough."""
    with serving(response_with(BODY), tls=tls) as (server, client):
        for _ in range(3):
            response = client.request(method, server.url)
            assert response.content == BODY
            assert response.headers["Content-Length"] == str(len(BODY))
        assert len(server.accepted) == 1


def test_the_pool_sees_no_byte_of_a_body() -> None:
    """The parser of the pool sees an empty body, so it does not copy a large one."""
    seen: list[tuple[bytes, bytes]] = []

    def trace(event: str, info: dict[str, Any]) -> None:
        if event == "http11.receive_response_headers.complete":
            seen.extend(info["return_value"][3])

    with serving(response_with(BODY)) as (server, client):
        assert client.get(server.url, extensions={"trace": trace}).content == BODY
    assert seen == [(b"Content-Length", b"0")]


def test_a_response_to_a_head_request_has_no_body() -> None:
    """The declared size of a body that is not sent is reported, and not waited for."""
    with serving(response_with(b"")) as (server, client):
        for _ in range(2):
            response = client.head(server.url)
            assert response.headers["Content-Length"] == str(len(BODY))
        assert len(server.accepted) == 1


@pytest.mark.parametrize("fields", ["", "Transfer-Encoding: chunked\r\n"])
def test_our_own_client_reads_a_large_body_into_one_buffer(fields: str, own_client: HttpClient) -> None:
    """A body of any size needs one buffer of 1 MiB, and the pool parses a body that declares no single size."""
    body = LARGE_BODY
    framing = fields or f"Content-Length: {len(body)}\r\n"
    sent = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n" if fields else body
    op = Operation(System())
    with serving(f"HTTP/1.1 200 OK\r\n{framing}\r\n".encode() + sent) as (server, _):
        for _ in range(2):
            received, buffers = bytearray(), set()
            with own_client.get(op, Source(server.url, server.url, None, server.url), {}) as response:
                for chunk in iter_body(op, response):
                    received += chunk
                    if isinstance(chunk, memoryview):
                        buffers.add((id(chunk.obj), len(memoryview(chunk.obj))))
            assert received == body
            if not fields:
                # The first bytes may have been received with the head.
                assert [size for _, size in buffers if size > 1 << 16] == [1 << 20]
        assert len(server.accepted) == 1


def test_httpx_receives_a_copy_of_each_chunk() -> None:
    """Bytes that httpx keeps are not overwritten by the next read."""
    response = f"HTTP/1.1 200 OK\r\nContent-Length: {len(LARGE_BODY)}\r\n\r\n".encode()
    with serving(response + LARGE_BODY) as (server, client):
        assert client.get(server.url).content == LARGE_BODY


def read_a_part(client: httpx.Client, url: str) -> None:
    with client.stream("GET", url) as response:
        assert next(response.iter_raw())


def read_the_head(client: httpx.Client, url: str) -> None:
    with client.stream("GET", url) as response:
        assert response.status_code == 200


@pytest.mark.parametrize("read", [read_a_part, read_the_head])
def test_a_connection_with_an_unread_body_is_closed(read: Callable[[httpx.Client, str], None]) -> None:
    """The next request has a new connection if the body of the last response was not read completely."""
    with serving(response_with(BODY)) as (server, client):
        read(client, server.url)
        assert client.get(server.url).content == BODY
        assert len(server.accepted) == 2


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_with_more_bytes_than_declared_is_closed(*, tls: bool) -> None:
    """Bytes after the declared end are not mistaken for the next response."""
    # All of them arrive at once.
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra"
    with serving(response, tls=tls) as (server, client):
        for _ in range(2):
            assert client.get(server.url).content == b"body"
        assert len(server.accepted) == 2


def test_a_connection_that_the_server_closes_is_not_used_again() -> None:
    """A response with "Connection: close" is complete, and the next request has a new connection."""
    with serving(response_with(BODY, "Connection: close\r\n"), keep=False) as (server, client):
        for _ in range(2):
            assert client.get(server.url).content == BODY
        assert len(server.accepted) == 2


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("length", [0, 1, len(BODY) - 1])
def test_a_body_that_is_cut_is_an_error_of_the_library(length: int, *, tls: bool) -> None:
    """A body that ends before its declared end is the same error as one that the pool reads."""
    with serving(response_with(BODY[:length]), tls=tls, keep=False) as (server, client):
        with pytest.raises(httpx.RemoteProtocolError, match=f"received {length} bytes, expected {len(BODY)}"):
            client.get(server.url)
        with pytest.raises(httpx.RemoteProtocolError, match=f"received {length} bytes, expected {len(BODY)}"):
            client.post(server.url)


def test_a_body_that_stalls_is_a_timeout_of_the_library() -> None:
    """The client's read timeout ends the wait for the rest of a body."""
    with serving(response_with(BODY[:1])) as (server, client), pytest.raises(httpx.ReadTimeout):
        client.get(server.url, timeout=httpx.Timeout(60, read=0.3))


def test_a_head_in_two_pieces_is_left_to_the_parser() -> None:
    """If the first read returns a part of the head, the pool parses the response."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = InterruptibleBackend(httpcore).connect_tcp(*listener.getsockname(), timeout=60)
        accepted, _ = listener.accept()
        with accepted, closing(stream):
            stream.write(b"GET / HTTP/1.1\r\n\r\n", 60)
            data = response_with(BODY[:100])
            accepted.sendall(data[:20])
            assert stream.read(1 << 16, 60) == data[:20]
            accepted.sendall(data[20:])
            assert stream.read(1 << 16, 60) == data[20:]
            assert stream.body_size is None


def test_no_byte_is_lost_between_the_head_and_the_body() -> None:
    """A read of fewer bytes than there are returns exactly these, and the next read continues after them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = InterruptibleBackend(httpcore).connect_tcp(*listener.getsockname(), timeout=60)
        accepted, _ = listener.accept()
        with accepted, closing(stream):
            stream.write(b"GET / HTTP/1.1\r\n\r\n", 60)
            accepted.sendall(response_with(BODY[:100]))
            assert stream.read(1 << 16, 60) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            assert stream.body_size == len(BODY)
            accepted.sendall(BODY[100:200])
            assert stream.read_body(60, 60) == BODY[:60]
            assert stream.read_body(60, 60) == BODY[60:100]
            assert stream.read_body(60, 60) == BODY[100:160]
            assert stream.get_extra_info("is_readable")
            stream.write(b"POST / HTTP/1.1\r\n\r\n", 60)
            assert stream.body_size is None


class TlsPeer:
    """A connection to a TLS server in memory. Each read returns all bytes that the server has sent since the last."""

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        self.httpcore = httpcore
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.reads = 0

    def receive_into(self, buffer: memoryview, _: object) -> int:
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.reads += 1
        data = self.outgoing.read()
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes, _: object) -> None:
        self.incoming.write(data)

    def get_extra_info(self, _: str) -> bool:
        return False


@pytest.fixture
def tls_peer() -> tuple[Any, network.TlsStream]:
    """A TLS connection that is ready for data, and its peer."""
    below: Any = TlsPeer()
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    stream = network.TlsStream(below, context, "127.0.0.1", network._TimeBudget(60))
    below.tls.do_handshake()
    return below, stream


def test_one_read_returns_all_tls_records_that_were_received(tls_peer: tuple[Any, network.TlsStream]) -> None:
    """OpenSSL returns one record of 16 KiB per call. A larger read returns more of them, which costs less per byte."""
    below, stream = tls_peer
    below.tls.write(BODY)
    before = below.reads
    assert stream.read_body(1 << 20, 60) == BODY
    assert below.reads == before + 1


def test_a_small_read_leaves_the_rest_of_the_tls_records(tls_peer: tuple[Any, network.TlsStream]) -> None:
    """A read never returns more bytes than it was asked for, and the connection counts as readable until the end."""
    below, stream = tls_peer
    below.tls.write(BODY)
    assert stream.read_body(100_000, 60) == BODY[:100_000]
    assert stream.get_extra_info("is_readable")
    assert stream.read_body(100, 60) == BODY[100_000:100_100]
    assert stream.read_body(1 << 20, 60) == BODY[100_100:]
    assert not stream.get_extra_info("is_readable")
    below.tls.write(b"one record")
    assert stream.read_body(3, 60) == b"one"
    assert stream.get_extra_info("is_readable")
    assert stream.read_body(1 << 20, 60) == b" record"


@pytest.mark.parametrize("is_closed_cleanly", [True, False])
def test_the_records_before_the_end_of_a_tls_connection_are_read(
    tls_peer: tuple[Any, network.TlsStream], *, is_closed_cleanly: bool
) -> None:
    """The end of the connection is reported after the last byte, with and without the alert that TLS requires."""
    below, stream = tls_peer
    below.tls.write(BODY)
    if is_closed_cleanly:
        with suppress(ssl.SSLWantReadError):
            below.tls.unwrap()
    assert stream.read_body(1 << 20, 60) == BODY
    assert stream.read_body(1 << 20, 60) == b""
