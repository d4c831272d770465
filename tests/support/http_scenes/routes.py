"""Routes: the ways to fetch a wheel, with every library, synchronously and asynchronously.

On Linux, a missing library is an error and not a reason to skip its routes.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest

from http_scenes.scene import ClientSettings, Scene, Stage, StoppedError
from wheelcache import AsyncCache, Cache, CachedWheel, WheelCacheError, requests_client
from wheelcache._http.adapters.library import load

# The libraries whose clients have the same methods.
LIBRARIES: dict[str, ModuleType] = {"httpx": httpx}
if sys.platform != "win32":
    import httpx2
    import requests

    LIBRARIES["httpx2"] = httpx2


@dataclass(frozen=True)
class Outcome:
    """The end of a fetch: a wheel, its METADATA, an error, or nothing if the caller stopped it."""

    wheel: CachedWheel | None = None
    metadata: bytes | None = None
    error: WheelCacheError | None = None


@dataclass(frozen=True)
class Route:
    """A way to fetch a wheel.

    Attributes:
        library: the library of the client.
        is_own: whether the client is our own.
        backend: the event loop of the AsyncCache; empty for a Cache.
    """

    library: str
    is_own: bool
    backend: str = ""

    @property
    def name(self) -> str:
        """The name, such as ``"own httpx asyncio"``."""
        return " ".join(part for part in ("own" if self.is_own else "caller's", self.library, self.backend) if part)

    @property
    def leaves_generators(self) -> bool:
        """Whether trio warns of asynchronous generators that httpx leaves open if a body is not read to its end."""
        return self.backend == "trio" and not self.is_own and self.library in LIBRARIES

    def can_run(self, scene: Scene) -> bool:
        """Return whether the client of this route can have the settings of a scene."""
        return not (self.is_own and scene.client.needs_caller)

    def run(self, scene: Scene, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
        """Run the fetches of a scene."""
        if self.is_own:
            library = load(self.library)
            monkeypatch.setattr("wheelcache._http.default_client.create.default_library", lambda: library)
            monkeypatch.setattr("wheelcache._http.default_client.create._READ_SECONDS", scene.client.read_seconds)
        if not self.backend:
            return self._run(scene, stage)
        outcomes = anyio.run(self._run_async, scene, stage, backend=self.backend)
        if self.leaves_generators and scene.client.hook:
            # A hook may have left a body. The warnings belong to this test, and not to a later one.
            gc.collect()
        return outcomes

    def _run(self, scene: Scene, stage: Stage) -> list[Outcome]:
        outcomes = []
        with self._client(scene.client) as client, stage.machine.cache(stage.folder, client=client) as cache:
            for fetch in scene.fetches:
                url, options = stage.arguments(fetch)
                try:
                    if fetch.is_metadata:
                        outcomes.append(Outcome(metadata=cache.metadata(url)))
                    else:
                        outcomes.append(Outcome(wheel=cache.fetch(url, **options)))
                except WheelCacheError as error:
                    outcomes.append(Outcome(error=error))
                except StoppedError:
                    outcomes.append(Outcome())
        return outcomes

    async def _run_async(self, scene: Scene, stage: Stage) -> list[Outcome]:
        class MachineCache(AsyncCache):
            _cache_class: type[Cache] = stage.machine.cache_class

        outcomes = []
        async with self._async_client(scene.client) as client, MachineCache(stage.folder, client=client) as cache:
            for fetch in scene.fetches:
                url, options = stage.arguments(fetch)
                try:
                    if fetch.is_metadata:
                        outcomes.append(Outcome(metadata=await cache.metadata(url)))
                    else:
                        outcomes.append(Outcome(wheel=await cache.fetch(url, **options)))
                except WheelCacheError as error:
                    outcomes.append(Outcome(error=error))
                except StoppedError:
                    outcomes.append(Outcome())
        return outcomes

    @contextmanager
    def _client(self, settings: ClientSettings) -> Iterator[Any]:
        if self.is_own:
            yield None
        elif self.library == "requests":
            with create_session(settings) as session:
                yield requests_client(session, timeout=(10, settings.read_seconds))
        else:
            with create_client(LIBRARIES[self.library], settings) as client:
                yield client

    @asynccontextmanager
    async def _async_client(self, settings: ClientSettings) -> AsyncIterator[Any]:
        if self.is_own or self.library == "requests":
            # A session serves worker threads, so there is no asynchronous one.
            with self._client(settings) as client:
                yield client
        else:
            async with create_async_client(LIBRARIES[self.library], settings) as client:
                yield client


def create_client(library: Any, settings: ClientSettings, around: Callable[[Any], Any] | None = None) -> Any:
    """Create a synchronous client of httpx or httpx2, whose transport ``around`` may wrap."""

    class ReadingTransport(library.HTTPTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            response = super().handle_request(request)
            # As a transport that retries or logs does: the response is passed on with its body in memory.
            response.request = request
            response.read()
            return response

    hooks = {
        "": [],
        "raise": [lambda response: response.raise_for_status()],
        "read": [lambda response: response.read()],
    }
    transport = ReadingTransport() if settings.reads_ahead else None
    return library.Client(
        auth=settings.auth,
        headers=settings.headers,
        event_hooks={"response": hooks[settings.hook]},
        transport=around(transport) if around else transport,
        timeout=library.Timeout(10, read=settings.read_seconds),
    )


def create_async_client(library: Any, settings: ClientSettings, around: Callable[[Any], Any] | None = None) -> Any:
    """Create an asynchronous client of httpx or httpx2, whose transport ``around`` may wrap."""

    class ReadingTransport(library.AsyncHTTPTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            response.request = request
            await response.aread()
            return response

    async def raise_for_status(response: Any) -> None:
        response.raise_for_status()

    async def read(response: Any) -> None:
        await response.aread()

    hooks = {"": [], "raise": [raise_for_status], "read": [read]}
    transport = ReadingTransport() if settings.reads_ahead else None
    return library.AsyncClient(
        auth=settings.auth,
        headers=settings.headers,
        event_hooks={"response": hooks[settings.hook]},
        transport=around(transport) if around else transport,
        timeout=library.Timeout(10, read=settings.read_seconds),
    )


def create_session(settings: ClientSettings) -> Any:
    """Create a session of requests."""

    class ReadingAdapter(requests.adapters.HTTPAdapter):
        def send(self, *args: Any, **options: Any) -> Any:
            response = super().send(*args, **options)
            _ = response.content
            return response

    def raise_for_status(response: Any, **_: object) -> None:
        response.raise_for_status()

    def read(response: Any, **_: object) -> None:
        _ = response.content

    session = requests.Session()
    session.auth = settings.auth
    session.headers.update(settings.headers)
    hooks = {"": [], "raise": [raise_for_status], "read": [read]}
    session.hooks["response"] = hooks[settings.hook]
    if settings.reads_ahead:
        session.mount("http://", ReadingAdapter())
    return session


def _routes() -> list[Route]:
    if sys.platform == "win32":
        # A test takes ten times as long there.
        return [Route("httpx", is_own=True), Route("httpx", is_own=False)]
    # The work is done in threads, so most of it does not depend on the event loop.
    backends = {True: ("", "asyncio"), False: ("", "asyncio", "trio")}
    return [
        *(
            Route(library, is_own, backend)
            for library in LIBRARIES
            for is_own in (True, False)
            for backend in backends[is_own]
        ),
        *(Route("requests", is_own=False, backend=backend) for backend in ("", "asyncio")),
    ]


ROUTES = _routes()
"""The routes of this platform."""
