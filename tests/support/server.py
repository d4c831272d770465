"""A real HTTP/1.1 server on loopback that serves given bytes, and misbehaves on request.

    with Server() as server:
        url = server.serve("/demo-1.0-py3-none-any.whl", wheel)
        server.script("/demo-1.0-py3-none-any.whl", truncated(100), status(503))    # one request each, then fine
        ...
        server.count(url), server.sent(url), server.requests(url)[0].headers["accept"]

A response is made by a function of an :class:`Exchange`: :func:`plain` is the correct one, the others are faults.
``script`` lists those for the next requests of a path; ``serve(..., how=...)`` sets the one for all other requests.
Functions that wait do so for an event, never for a time, and ``close`` ends the wait.

:func:`plain` supports ranges and validators of RFC 9110: ``Range`` (one range), ``If-Range``, ``If-None-Match``,
``If-Modified-Since``, ``ETag``, ``Last-Modified``, 206, 304 and 416.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import socket
import socketserver
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Self
from urllib.parse import urlsplit

# A safeguard against a client that has ended, never reached in a passing test.
_BACKSTOP_SECONDS = 60
_POLL_SECONDS = 0.05
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Request:
    """A received request: its target as sent, and its headers, with lowercase names."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass
class File:
    """The file at a path; ``how`` answers every request without a scripted fault."""

    body: bytes
    how: Answer
    modified: float = 1_600_000_000.0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'


class Exchange:
    """One request, and the means to answer it."""

    def __init__(self, handler: _Handler, request: Request, file: File) -> None:
        self.request = request
        self.file = file
        self.server = handler.server.owner
        self.client: tuple[str, int] = handler.client_address
        self._handler = handler

    @property
    def body(self) -> bytes:
        """The bytes of the file."""
        return self.file.body

    def right_answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return the status, headers and body of the correct response."""
        headers = {
            "ETag": self.file.etag,
            "Last-Modified": formatdate(self.file.modified, usegmt=True),
            "Accept-Ranges": "bytes",
            **self.file.headers,
        }
        if self._not_modified():
            return 304, headers, b""
        body = self.body
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.request.headers.get("range", ""))
        if found is None or found[0] == "bytes=-" or not self._range_holds():
            return 200, headers, body
        first = int(found[1]) if found[1] else max(0, len(body) - int(found[2]))
        last = min(int(found[2]) if found[1] and found[2] else len(body) - 1, len(body) - 1)
        if first > last:
            return 416, {**headers, "Content-Range": f"bytes */{len(body)}"}, b""
        return 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(body)}"}, body[first : last + 1]

    def _not_modified(self) -> bool:
        tags = self.request.headers.get("if-none-match")
        if tags is not None:
            return self.file.etag in [tag.strip().removeprefix("W/") for tag in tags.split(",")] or tags == "*"
        since = self.request.headers.get("if-modified-since")
        return since is not None and parsedate_to_datetime(since).timestamp() >= self.file.modified

    def _range_holds(self) -> bool:
        condition = self.request.headers.get("if-range")
        return condition in {None, self.file.etag, formatdate(self.file.modified, usegmt=True)}

    def start(self, status: int, headers: dict[str, str] | None = None, *, length: int | None = None) -> None:
        """Send the head. Without a length, the body ends with the connection unless ``headers`` say otherwise."""
        headers = {"Content-Type": "application/octet-stream", **(headers or {})}
        if length is not None and status != HTTPStatus.NOT_MODIFIED:
            headers["Content-Length"] = str(length)
        elif "Transfer-Encoding" not in headers and status != HTTPStatus.NOT_MODIFIED:
            self.hang_up()
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name, value)
        if self._handler.close_connection:
            self._handler.send_header("Connection", "close")
        self._handler.end_headers()

    def write(self, data: bytes) -> None:
        """Send bytes of the body, and count them."""
        if self.request.method == "HEAD":
            return
        for start in range(0, len(data), _CHUNK):
            part = data[start : start + _CHUNK]
            self.server._count(self.request, len(part))
            self._handler.wfile.write(part)

    def write_raw(self, data: bytes) -> None:
        """Send bytes that do not belong to the body."""
        self._handler.wfile.write(data)

    def send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Send a whole response."""
        self.start(status, headers, length=len(body))
        self.write(body)

    def hang_up(self) -> None:
        """Close the connection after this response."""
        self._handler.close_connection = True

    def reset(self) -> None:
        """Drop the connection now, so that the client sees a reset."""
        self.hang_up()
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        socket.close(self._handler.connection.detach())

    def wait(self, event: threading.Event) -> None:
        """Wait for an event, or for the end of the server."""
        self.server._wait(event)


Answer = Callable[[Exchange], None]


def plain(exchange: Exchange) -> None:
    """The correct response."""
    exchange.send(*exchange.right_answer())


def truncated(at: int) -> Answer:
    """The correct head, the first bytes of the body, and an orderly close of the connection."""

    def answer(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        exchange.start(code, headers, length=len(body))
        exchange.write(body[:at])
        exchange.hang_up()

    return answer


def reset(at: int | None = None) -> Answer:
    """The first bytes of the body, or not even a head, and then a reset of the connection."""

    def answer(exchange: Exchange) -> None:
        if at is not None:
            code, headers, body = exchange.right_answer()
            exchange.start(code, headers, length=len(body))
            exchange.write(body[:at])
        exchange.reset()

    return answer


def stalled(at: int | None, until: threading.Event) -> Answer:
    """The first bytes of the body, or not even a head. The rest once an event is set."""

    def answer(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        if at is None:
            exchange.wait(until)
        exchange.start(code, headers, length=len(body))
        exchange.write(body[: at or 0])
        if at is not None:
            exchange.wait(until)
        exchange.write(body[at or 0 :])

    return answer


def paced(parts: int, gate: threading.Semaphore) -> Answer:
    """The body in this many parts, each sent when the gate is released."""

    def answer(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        exchange.start(code, headers, length=len(body))
        step = -(-len(body) // parts)
        for start in range(0, len(body), step):
            gate.acquire(timeout=_BACKSTOP_SECONDS)
            exchange.write(body[start : start + step])

    return answer


def wrong_bytes(body: bytes) -> Answer:
    """The bytes of another file in an otherwise correct response."""
    return lambda exchange: exchange.send(200, {}, body)


def html(exchange: Exchange) -> None:
    """A login page instead of the file."""
    exchange.send(200, {"Content-Type": "text/html"}, b"<!doctype html><title>Log in</title><p>Who are you?")


def wrong_length(by: int) -> Answer:
    """A Content-Length that is wrong by this many bytes. The body has its true length."""

    def answer(exchange: Exchange) -> None:
        exchange.hang_up()
        exchange.start(200, {}, length=len(exchange.body) + by)
        exchange.write(exchange.body)

    return answer


def status(code: int, retry_after: str | None = None) -> Answer:
    """A status with a body, and a Retry-After header if given."""
    headers = {"Content-Type": "text/plain"} | ({} if retry_after is None else {"Retry-After": retry_after})
    return lambda exchange: exchange.send(code, headers, b"not this time")


def redirect(to: str, code: int = 302) -> Answer:
    """A redirect to the given Location."""
    return lambda exchange: exchange.send(code, {"Location": to}, b"over there")


def gzipped(exchange: Exchange) -> None:
    """The body with a Content-Encoding that was not requested."""
    exchange.send(200, {"Content-Encoding": "gzip"}, gzip.compress(exchange.body, 1, mtime=0))


def chunked(exchange: Exchange) -> None:
    """The body in chunks, without a length."""
    exchange.start(200, {"Transfer-Encoding": "chunked"})
    for start in range(0, len(exchange.body), 1000):
        part = exchange.body[start : start + 1000]
        exchange.write_raw(f"{len(part):x}\r\n".encode())
        exchange.write(part)
        exchange.write_raw(b"\r\n")
    exchange.write_raw(b"0\r\n\r\n")


def chunked_cut(at: int) -> Answer:
    """The body in chunks, with the connection closed in the middle of one."""

    def answer(exchange: Exchange) -> None:
        exchange.hang_up()
        exchange.start(200, {"Transfer-Encoding": "chunked"})
        exchange.write_raw(f"{len(exchange.body):x}\r\n".encode())
        exchange.write(exchange.body[:at])

    return answer


def until_closed(exchange: Exchange) -> None:
    """The body as in HTTP/1.0: it ends with the connection."""
    exchange.start(200)
    exchange.write(exchange.body)


def endless(exchange: Exchange) -> None:
    """A body that continues until the client closes the connection."""
    exchange.start(200)
    while True:
        exchange.write(b"x" * _CHUNK)


def not_http(exchange: Exchange) -> None:
    """Bytes that are not HTTP."""
    exchange.hang_up()
    exchange.write_raw(b"220 mail.example.org ESMTP\r\n")


def without_ranges(exchange: Exchange) -> None:
    """The whole body, ignoring any requested range."""
    exchange.send(200, {"ETag": exchange.file.etag}, exchange.body)


def without_validators(exchange: Exchange) -> None:
    """The correct response without ETag and Last-Modified."""
    code, headers, body = exchange.right_answer()
    exchange.send(code, {k: v for k, v in headers.items() if k not in {"ETag", "Last-Modified"}}, body)


def wrong_range(by: int) -> Answer:
    """A 206 that begins this many bytes after the requested offset, and says so. Otherwise the correct response."""

    def answer(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        if code == HTTPStatus.PARTIAL_CONTENT:
            first = max(0, len(exchange.body) - len(body) + by)
            body = exchange.body[first:]
            headers["Content-Range"] = f"bytes {first}-{len(exchange.body) - 1}/{len(exchange.body)}"
        exchange.send(code, headers, body)

    return answer


def refused_range(exchange: Exchange) -> None:
    """416 to any range. Otherwise the correct response."""
    if "range" in exchange.request.headers:
        exchange.send(416, {"Content-Range": f"bytes */{len(exchange.body)}"})
    else:
        plain(exchange)


def asks_for(user: str, password: str, then: Answer = plain) -> Answer:
    """401 to requests without these credentials."""
    due = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")

    def answer(exchange: Exchange) -> None:
        if exchange.request.headers.get("authorization") == due:
            then(exchange)
        else:
            exchange.send(401, {"WWW-Authenticate": 'Basic realm="wheels"'})

    return answer


class Server:
    """The server, in a thread of its own. Paths have no query. Every method also accepts a URL."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        self._scripts: dict[str, list[Answer]] = defaultdict(list)
        self._requests: list[Request] = []
        self._sent: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._events: set[threading.Event] = set()
        self._closing = False
        self._http = _Listener(self)
        self.port: int = self._http.server_address[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), name="test server")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def serve(self, path: str, body: bytes = b"", *, how: Answer = plain, **headers: str) -> str:
        """Serve bytes at a path, replacing others, and return the URL. ``Cache_Control=...`` is a header."""
        path = _path(path)
        with self._lock:
            self._files[path] = File(
                body, how, headers={name.replace("_", "-"): text for name, text in headers.items()}
            )
        return self.origin + path

    def script(self, path: str, *answers: Answer) -> None:
        """Set the responses to the next requests of a path, one each."""
        with self._lock:
            self._scripts[_path(path)] += answers

    def url(self, path: str, *, host: str = "127.0.0.1", userinfo: str = "") -> str:
        """Return a URL of this server, optionally with another host name, or with credentials."""
        return f"http://{userinfo}{'@' if userinfo else ''}{host}:{self.port}{path}"

    def requests(self, path: str | None = None) -> list[Request]:
        """Return the received requests of one path or of all, oldest first."""
        with self._lock:
            wanted = self._requests
            return [request for request in wanted if path is None or _path(request.target) == _path(path)]

    def count(self, path: str | None = None) -> int:
        """Return the number of received requests."""
        return len(self.requests(path))

    def sent(self, path: str | None = None) -> int:
        """Return the number of body bytes that were sent."""
        with self._lock:
            return sum(self._sent.values()) if path is None else self._sent[_path(path)]

    def forget(self) -> None:
        """Forget all requests."""
        with self._lock:
            self._requests.clear()
            self._sent.clear()

    def close(self) -> None:
        """Stop the server: end all waits and connections, and join all threads."""
        with self._lock:
            self._closing = True
            for event in self._events:
                event.set()
        self._http.shutdown()
        self._thread.join()
        self._http.hang_up_all()
        self._http.server_close()

    def _take(self, request: Request) -> tuple[File, Answer]:
        path = _path(request.target)
        with self._lock:
            self._requests.append(request)
            file = self._files.get(path) or File(b"", status(404))
            script = self._scripts[path]
            return file, script.pop(0) if script else file.how

    def _count(self, request: Request, count: int) -> None:
        with self._lock:
            # A response to a request from before the reset does not count.
            if any(known is request for known in self._requests):
                self._sent[_path(request.target)] += count

    def _wait(self, event: threading.Event) -> None:
        with self._lock:
            self._events.add(event)
            if self._closing:
                return
        event.wait(_BACKSTOP_SECONDS)


def _path(target: str) -> str:
    return urlsplit(target).path


class _Listener(socketserver.ThreadingMixIn, HTTPServer):
    # Threads are joined when the server closes, after hang_up_all has ended what they wait for.
    daemon_threads = False
    # A full queue of connections would be an unintended fault.
    request_queue_size = 128

    def __init__(self, owner: Server) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        self.hanging_up = False
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own method looks up the name of this machine, which can take long.
        socketserver.TCPServer.server_bind(self)

    @contextmanager
    def tracked(self, connection: socket.socket) -> Iterator[None]:
        with self._open_lock:
            self._open.add(connection)
            if self.hanging_up:
                _hang_up(connection)
        try:
            yield
        finally:
            with self._open_lock:
                self._open.discard(connection)

    def hang_up_all(self) -> None:
        with self._open_lock:
            self.hanging_up = True
            for connection in self._open:
                _hang_up(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        # Clients that disconnect are part of these tests; any other error is a bug of the server.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the client disconnected first


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    timeout = _BACKSTOP_SECONDS
    # Head and body are sent at once, without waiting for an acknowledgement.
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with self.server.tracked(self.connection):
            self.close_connection = not self._is_asked()
            while not self.close_connection:
                self.handle_one_request()
                self.close_connection = self.close_connection or not self._is_asked()

    def _is_asked(self) -> bool:
        """Wait for the next request; tell whether there is one, and not the end of the connection or of the server.

        Polls, because not every system ends a recv() when another thread shuts down the socket.
        """
        self.connection.settimeout(_POLL_SECONDS)
        while not self.server.hanging_up:
            try:
                begun = bool(self.connection.recv(1, socket.MSG_PEEK))
            except TimeoutError:
                continue
            self.connection.settimeout(self.timeout)
            return begun
        return False

    def do_GET(self) -> None:
        headers: Message = self.headers
        request = Request(self.command, self.path, {name.lower(): text for name, text in headers.items()})
        file, answer = self.server.owner._take(request)
        answer(Exchange(self, request, file))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        # Only requests without a body are sent.
        self.do_GET()

    def do_CONNECT(self) -> None:
        # Act as a proxy that refuses: the target of the request is "host:port".
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass
