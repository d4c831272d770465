"""A scene: the answers of the servers, the fetches, and the expected outcome.

    scene = Scene("truncated, then fine", "resumed", [truncated(5000)], requests=2)

The texts of a scene contain placeholders, since ports differ in each run: ``{url}`` is the URL of the wheel,
``{path}`` its path, ``{server}`` and ``{other}`` two origins, ``{closed}`` a port where nobody listens.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest
from machines import FakeClock, Machine
from server import Answer, Request, Server, plain
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Phase, ProgressEvent

WHEEL = Wheel(wheel_filename(), make_wheel(size=20_000))
"""The wheel that most scenes fetch."""
OTHER_WHEEL = Wheel(wheel_filename(), make_wheel("other", size=20_000))
"""Another wheel of the same size, in whose place a server may send it."""

METADATA = b"Metadata-Version: 2.1\nName: large\nVersion: 1.0\n"
"""The METADATA of the wheel in the scenes of ``metadata()``."""
RESOLVER_TEXT = "Name or service not known"
"""The text of the resolver."""
STOPPED_AT = 17_000
"""The number of bytes after which the caller stops a fetch. So many are kept for the next one."""
TRIES = 5
"""The attempts that a source has without progress."""
QUICK_SECONDS = 0.5
"""The read timeout of a quick client."""
PATIENT_SECONDS = 30.0
"""The read timeout of other clients, which no scene reaches."""


@dataclass(frozen=True)
class ClientSettings:
    """The settings of a caller's client. Our own client has only the read timeout.

    Attributes:
        auth: the user name and password.
        headers: further header fields of each request.
        hook: ``"raise"`` for an event hook that raises an error if the status is one, ``"read"`` for one that reads
            the body.
        reads_ahead: whether the transport reads each body before it returns the response.
        read_seconds: the read timeout.
    """

    auth: tuple[str, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hook: str = ""
    reads_ahead: bool = False
    read_seconds: float = PATIENT_SECONDS

    @property
    def needs_caller(self) -> bool:
        """Whether only a client of the caller's can have these settings."""
        return bool(self.auth or self.headers or self.hook or self.reads_ahead)


@dataclass(frozen=True)
class Fetch:
    """The arguments of one fetch.

    Attributes:
        url: the URL.
        hashed: whether the hash of the wheel is given.
        size: the size of the wheel, if given.
        mirrors: further URLs.
        is_metadata: whether the METADATA of the wheel is requested, and not the wheel.
        before: changes the stage before the fetch.
        stops: whether the caller's progress listener stops the fetch after :data:`STOPPED_AT` bytes.
    """

    url: str = "{url}"
    hashed: bool = True
    size: int | None = None
    mirrors: Sequence[str] = ()
    is_metadata: bool = False
    before: Callable[[Stage], object] | None = None
    stops: bool = False


@dataclass(frozen=True)
class Difference:
    """A difference that one library makes.

    Attributes:
        reason: why the outcome cannot be the same.
        expected: another outcome of the fetch, if it differs.
        requests: the targets of the requests, if they differ.
    """

    reason: str
    expected: str = ""
    requests: Sequence[str] = ()


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        name: the name.
        expected: the outcome of each fetch: the status of the wheel; ``"metadata"``; ``"stopped"`` if the caller
            stopped the fetch; or the error type and message. ``T`` is the elapsed time; ``<refused>`` and ``<reset>``
            are the texts of the system for these errors.
        answers: the answers to the first requests for the wheel.
        how: the answer to all later requests for the wheel.
        prepare: prepares the stage otherwise.
        requests: the number of requests that the servers receive, or their targets. A negative number is a minimum.
        tried: the texts of the failed attempts of the last fetch, if they differ from its error.
        fetches: the fetches.
        client: the settings of the client.
        stored: the wheels in the cache at the end. The default is the wheel if the last fetch succeeded, else nothing.
        keeps_partial: whether the received bytes remain for a later fetch.
        waits: the least number of simulated seconds that the fetches wait for the server.
        with_requests: the difference with the library requests, if there is one.
    """

    name: str
    expected: str | tuple[str, ...]
    answers: Sequence[Answer] = ()
    how: Answer = plain
    prepare: Callable[[Stage], object] | None = None
    requests: int | Sequence[str] = 1
    tried: Sequence[str] | None = None
    fetches: Sequence[Fetch] = (Fetch(),)
    client: ClientSettings = field(default_factory=ClientSettings)
    stored: Sequence[Wheel] | None = None
    keeps_partial: bool = False
    waits: float = 0.0
    with_requests: Difference | None = None

    @property
    def outcomes(self) -> list[str]:
        """The expected outcome of each fetch."""
        return [self.expected] if isinstance(self.expected, str) else list(self.expected)

    def by(self, library: str) -> Scene:
        """Return the scene as it is with this library."""
        if library != "requests" or self.with_requests is None:
            return self
        expected, requests = self.with_requests.expected, self.with_requests.requests
        return replace(self, expected=expected or self.expected, requests=requests or self.requests)


def fail_unknown_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every lookup of a name in ``.invalid`` fail, without a resolver."""
    resolve = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode("ascii") if isinstance(host, bytes) else str(host)
        if name.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, RESOLVER_TEXT)
        return resolve(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


class StoppedError(Exception):
    """Raised by a progress listener of the caller."""


def _stop(event: ProgressEvent) -> None:
    if event.phase is Phase.DOWNLOADING and event.done >= STOPPED_AT:
        raise StoppedError


class Stage:
    """The servers of a scene, and the machine that runs it.

    Attributes:
        server: the server with the wheel.
        never: an event that is set only when the stage is closed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Its clock agrees with the Date header of the servers.
        self.machine = Machine(clock=FakeClock(time.time()))
        self.never = threading.Event()
        self._stack = ExitStack()
        self.server = self._stack.enter_context(Server())
        self.url = WHEEL.on(self.server)
        self._other: Server | None = None
        self._closed = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.never.set()
        self._stack.close()

    @property
    def other(self) -> Server:
        """A server on another origin, with the wheel."""
        if self._other is None:
            self._other = self._stack.enter_context(Server())
            WHEEL.on(self._other)
        return self._other

    @property
    def closed(self) -> str:
        """An origin whose port refuses connections."""
        if not self._closed:
            # As long as a socket is bound to the port, no other process can listen on it.
            bound = self._stack.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))
            self._closed = f"http://127.0.0.1:{bound.getsockname()[1]}"
        return self._closed

    def set(self, scene: Scene) -> None:
        """Prepare the servers."""
        WHEEL.on(self.server, how=scene.how)
        self.server.script(self.url, *scene.answers)
        if scene.prepare is not None:
            scene.prepare(self)

    def fill(self, text: str) -> str:
        """Replace the placeholders of a text."""
        for name, value in (("{url}", "{server}{path}"), ("{path}", WHEEL.path), ("{server}", self.server.origin)):
            text = text.replace(name, value)
        if "{other}" in text:
            text = text.replace("{other}", self.other.origin)
        if "{closed}" in text:
            text = text.replace("{closed}", self.closed)
        return text.replace("{server:}", f"127.0.0.1:{self.server.port}").replace("{port}", str(self.server.port))

    def arguments(self, fetch: Fetch) -> tuple[str, dict[str, Any]]:
        """Return the arguments of a fetch."""
        if fetch.before is not None:
            fetch.before(self)
        if fetch.is_metadata:
            return self.fill(fetch.url), {}
        options: dict[str, Any] = {"mirrors": [self.fill(mirror) for mirror in fetch.mirrors]}
        if fetch.stops:
            options["progress"] = _stop
        if fetch.hashed:
            options["hashes"] = WHEEL.digest
        if fetch.size is not None:
            options["size"] = fetch.size
        return self.fill(fetch.url), options

    def requests(self) -> list[Request]:
        """Return the requests that the servers received."""
        servers = [self.server] if self._other is None else [self.server, self._other]
        return [request for server in servers for request in server.requests()]

    def normalize(self, text: str) -> str:
        """Replace the ports, the elapsed time and the texts of the system in a text."""
        text = text.replace(self.url, "{url}").replace(self.server.origin, "{server}")
        text = text.replace(f"127.0.0.1:{self.server.port}", "{server:}")
        if self._other is not None:
            text = text.replace(self._other.origin, "{other}")
        if self._closed:
            text = text.replace(self._closed, "{closed}")
        for name, code in _SYSTEM_ERRORS.items():
            text = text.replace(_system_text(code), f"<{name}>")
        return re.sub(r"(attempts?), \d+\.\d s\)", r"\1, T s)", text)


_SYSTEM_ERRORS = {"refused": errno.ECONNREFUSED, "reset": errno.ECONNRESET}


def _system_text(code: int) -> str:
    """Return the text of the system for an error of a socket."""
    if sys.platform == "win32":
        return socket.errorTab[code].rstrip(".")
    return os.strerror(code)
