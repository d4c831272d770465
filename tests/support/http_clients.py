"""Clients of both HTTP libraries, synchronous and asynchronous, with the methods of a synchronous one.

@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_something(kind: Kind, cache: Cache) -> None:
    with kind.client(transport=CacheTransport(cache)) as client:
        client.get(url)
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal


@dataclass(frozen=True)
class Kind:
    """A kind of client: the name of its library, and whether it is asynchronous."""

    name: str
    is_async: bool

    def __str__(self) -> str:
        return f"{self.name}-{'async' if self.is_async else 'sync'}"

    @property
    def library(self) -> ModuleType:
        """The module of its library."""
        return importlib.import_module(self.name)

    @property
    def client_name(self) -> str:
        """The name of its class, with that of the library."""
        return f"{self.name}.{'AsyncClient' if self.is_async else 'Client'}"

    @contextmanager
    def client(self, **options: Any) -> Iterator[Any]:
        """Yield a new client. The event loop of an asynchronous one runs in another thread."""
        if not self.is_async:
            with self.library.Client(**options) as client:
                yield client
            return
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(self.library.AsyncClient(**options)) as client,
        ):
            yield _Blocking(portal, client)


class _Blocking:
    def __init__(self, portal: BlockingPortal, client: Any) -> None:
        self._portal = portal
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get(self, url: str, **options: Any) -> Any:
        return self._portal.call(partial(self._client.get, url, **options))

    def request(self, method: str, url: str, **options: Any) -> Any:
        return self._portal.call(partial(self._client.request, method, url, **options))

    def send(self, request: Any, **options: Any) -> Any:
        return self._portal.call(partial(self._client.send, request, **options))


# The Windows Python has one of them.
LIBRARIES = [name for name in ("httpx", "httpx2") if sys.platform != "win32" or find_spec(name)]
KINDS = [Kind(name, is_async) for name in LIBRARIES for is_async in (False, True)]


def library_of(request: Any) -> Any:
    """Return the module of the library that a request belongs to."""
    return importlib.import_module(type(request).__module__.partition(".")[0])


def classes(name: str) -> tuple[type, ...]:
    """Return the classes of all libraries that have this name."""
    return tuple(getattr(importlib.import_module(library), name) for library in LIBRARIES)
