"""Scenes of clients whose transport is a CacheTransport, and the routes by which they run.

An outcome is the status of the response, the origin of its body (``network`` or a status of the wheel), and whether the
body is the wheel; or the class of an error of the client. The texts of such errors are those of the library.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import anyio
from server import (
    Exchange,
    asks_for,
    chunked,
    chunked_cut,
    gzipped,
    html,
    not_http,
    plain,
    redirect,
    reset,
    stalled,
    status,
    truncated,
    until_closed,
    without_validators,
    wrong_bytes,
    wrong_length,
)

from http_scenes.routes import LIBRARIES, create_async_client, create_client
from http_scenes.scene import OTHER_WHEEL, QUICK_SECONDS, WHEEL, ClientSettings, Fetch, Scene, Stage
from wheelcache import CacheTransport

NETWORK = "200 network, the wheel"
HIT = "200 hit, the wheel"
REVALIDATED = "200 revalidated, the wheel"
BROKEN = "RemoteProtocolError"
OTHER = "200 network, another body"
HASH = f"{{url}}#sha256={WHEEL.hex()}"
ONCE = (Fetch(hashed=False),)
TWICE = (Fetch(hashed=False), Fetch(hashed=False))
HASHED = (Fetch(HASH),)
HASHED_TWICE = (Fetch(HASH), Fetch(HASH))
GUARDED = asks_for("alice", "hunter2")
QUICK = ClientSettings(read_seconds=QUICK_SECONDS)


def no_store(exchange: Exchange) -> None:
    """The correct response, which must not be stored."""
    code, headers, body = exchange.right_answer()
    exchange.send(code, {**headers, "Cache-Control": "no-store"}, body)


def fresh(exchange: Exchange) -> None:
    """The correct response, which need not be validated for a minute."""
    code, headers, body = exchange.right_answer()
    exchange.send(code, {**headers, "Cache-Control": "max-age=60"}, body)


def moved(stage: Stage) -> None:
    """Redirect to the wheel on another origin."""
    stage.server.serve(WHEEL.path, how=redirect(stage.other.url(WHEEL.path)))


def stall(stage: Stage) -> None:
    """Let the body stall."""
    stage.server.script(stage.url, stalled(5000, stage.never))


def stored(stage: Stage) -> None:
    """Redirect to a URL without the name of the wheel, and with another query each time."""
    path = "/blobs/0b74ee"
    stage.server.serve(path, WHEEL.data)

    def sign(exchange: Exchange) -> None:
        redirect(f"{path}?signature={stage.server.count()}")(exchange)

    stage.server.serve(WHEEL.path, how=sign)


SCENES = [
    Scene("plain", NETWORK, fetches=ONCE),
    Scene("with a hash", (NETWORK, HIT), fetches=HASHED_TWICE),
    Scene("fresh", (NETWORK, HIT), how=fresh, fetches=TWICE),
    Scene("stale", (NETWORK, REVALIDATED), fetches=TWICE, requests=2),
    Scene("no-store", (NETWORK, NETWORK), how=no_store, fetches=TWICE, requests=2, stored=[]),
    Scene("without validators", (NETWORK, NETWORK), how=without_validators, fetches=TWICE, requests=2),
    Scene(
        "status 404 to a validation",
        (NETWORK, "404 network, another body"),
        [plain],
        how=status(404),
        fetches=TWICE,
        requests=2,
        stored=[WHEEL],
    ),
    *[
        Scene(f"status {code}", f"{code} network, another body", how=status(code), fetches=HASHED)
        for code in (201, 203, 206, 304, 401, 403, 404, 407, 410, 429, 500, 502, 503, 504, 520)
    ],
    Scene("chunked", NETWORK, how=chunked, fetches=HASHED),
    Scene("until closed", NETWORK, how=until_closed, fetches=HASHED),
    # The bytes on the wire have another hash.
    Scene("gzipped", NETWORK, how=gzipped, fetches=HASHED, stored=[]),
    Scene("wrong bytes, with a hash", OTHER, how=wrong_bytes(OTHER_WHEEL.data), fetches=HASHED, stored=[]),
    Scene("wrong bytes, without a hash", OTHER, how=wrong_bytes(OTHER_WHEEL.data), fetches=ONCE, stored=[OTHER_WHEEL]),
    Scene("html, without a hash", OTHER, how=html, fetches=ONCE, stored=[]),
    Scene("length too small", OTHER, how=wrong_length(-30), fetches=ONCE, stored=[]),
    Scene("length too large", BROKEN, how=wrong_length(1), fetches=HASHED),
    *[Scene(f"truncated at {at}", BROKEN, how=truncated(at), fetches=HASHED) for at in (0, 1, 19_999)],
    Scene("truncated, then fine", (BROKEN, NETWORK), [truncated(5000)], fetches=HASHED_TWICE, requests=2),
    Scene("chunks cut", BROKEN, how=chunked_cut(5000), fetches=HASHED),
    Scene("not HTTP", BROKEN, how=not_http, fetches=HASHED),
    Scene(
        "stalled in the body",
        "ReadTimeout",
        prepare=lambda stage: stage.server.script(stage.url, stalled(5000, stage.never)),
        client=QUICK,
        fetches=HASHED,
    ),
    Scene("closed port", "ConnectError", fetches=(Fetch("{closed}{path}"),), requests=0),
    Scene("unknown host", "ConnectError", fetches=(Fetch("http://host.invalid{path}"),), requests=0),
    Scene("redirect", NETWORK, [redirect("?a")], fetches=ONCE, requests=("{path}", "{path}?a")),
    Scene("redirect to another origin", (NETWORK, REVALIDATED), prepare=moved, fetches=TWICE, requests=4),
    Scene(
        "credentials in the URL",
        NETWORK,
        how=asks_for("alice", "hunter2"),
        fetches=(Fetch("http://alice:hunter2@{server:}{path}"),),
    ),
    Scene(
        "credentials of the client",
        NETWORK,
        how=asks_for("alice", "hunter2"),
        client=ClientSettings(auth=("alice", "hunter2")),
        fetches=ONCE,
    ),
    Scene("hook that raises", "HTTPStatusError", how=status(404), client=ClientSettings(hook="raise"), fetches=ONCE),
    Scene("hook that reads", (NETWORK, HIT), client=ClientSettings(hook="read"), fetches=HASHED_TWICE),
    Scene("next transport that reads", (NETWORK, HIT), client=ClientSettings(reads_ahead=True), fetches=HASHED_TWICE),
]

if sys.platform != "win32":
    # Wine closes the connection in an orderly way instead.
    SCENES += [
        Scene("reset before the head", "ReadError", how=reset(), fetches=HASHED),
        Scene("reset in the body", "ReadError", how=reset(5000), fetches=HASHED),
    ]


@dataclass(frozen=True)
class TransportRoute:
    """A client of a library with a CacheTransport.

    Attributes:
        library: the library of the client.
        backend: the event loop of an AsyncClient; empty for a Client.
    """

    library: str
    backend: str = ""

    @property
    def name(self) -> str:
        """The name, such as ``"httpx2 asyncio"``."""
        return f"{self.library} {self.backend}".rstrip()

    def run(self, scene: Scene, stage: Stage) -> list[str]:
        """Run the requests of a scene."""
        if self.backend:
            return anyio.run(self._run_async, scene, stage, backend=self.backend)
        return self._run(scene, stage)

    def _run(self, scene: Scene, stage: Stage) -> list[str]:
        library = LIBRARIES[self.library]
        outcomes = []
        with (
            stage.machine.cache(stage.folder) as cache,
            create_client(library, scene.client, around=lambda transport: CacheTransport(cache, transport)) as client,
        ):
            for fetch in scene.fetches:
                url, _ = stage.arguments(fetch)
                try:
                    outcomes.append(_describe(client.get(url, follow_redirects=True)))
                except library.HTTPError as error:
                    outcomes.append(type(error).__name__)
        return outcomes

    async def _run_async(self, scene: Scene, stage: Stage) -> list[str]:
        library = LIBRARIES[self.library]
        outcomes = []
        with stage.machine.cache(stage.folder) as cache:
            async with create_async_client(
                library, scene.client, around=lambda transport: CacheTransport(cache, transport)
            ) as client:
                for fetch in scene.fetches:
                    url, _ = stage.arguments(fetch)
                    try:
                        outcomes.append(_describe(await client.get(url, follow_redirects=True)))
                    except library.HTTPError as error:
                        outcomes.append(type(error).__name__)
        return outcomes


def _describe(response: Any) -> str:
    body = "the wheel" if response.content == WHEEL.data else "another body"
    return f"{response.status_code} {response.extensions.get('wheelcache', 'network')}, {body}"


def _routes() -> list[TransportRoute]:
    if sys.platform == "win32":
        return [TransportRoute("httpx")]
    return [TransportRoute(library, backend) for library in LIBRARIES for backend in ("", "asyncio", "trio")]


ROUTES = _routes()
"""The routes of this platform."""
