"""Type-check the calls of users who pass a client. ``mypy`` checks this file with the package, and nothing runs it."""

from __future__ import annotations

import httpx
import httpx2
import requests

from wheelcache import AsyncCache, Cache, CacheTransport, requests_client


def pass_clients() -> None:
    """Pass a client of each library to a Cache."""
    Cache(client=httpx.Client())
    Cache(client=httpx2.Client())
    Cache(client=None)


def pass_async_clients() -> None:
    """Pass an asynchronous client of each library to an AsyncCache."""
    AsyncCache(client=httpx.AsyncClient())
    AsyncCache(client=httpx2.AsyncClient())
    AsyncCache(client=None)


def pass_sessions() -> None:
    """Pass a session of requests to both kinds of cache."""
    Cache(client=requests_client(requests.Session()))
    AsyncCache(client=requests_client(requests.Session(), timeout=(10, 30)))
    Cache(client=requests.Session())  # type: ignore[arg-type]
    AsyncCache(client=requests.Session())  # type: ignore[arg-type]
    requests_client(httpx.Client())  # type: ignore[arg-type]


def refuse_other_objects() -> None:
    """A client of the other kind, or another object, is a type error."""
    Cache(client=httpx.AsyncClient())  # type: ignore[arg-type]
    Cache(client=httpx2.AsyncClient())  # type: ignore[arg-type]
    Cache(client="https://example.org")  # type: ignore[arg-type]
    AsyncCache(client=httpx.Client())  # type: ignore[arg-type]
    AsyncCache(client=httpx2.Client())  # type: ignore[arg-type]
    AsyncCache(client=httpx.AsyncClient)  # type: ignore[arg-type]


def use_as_transport(cache: Cache, async_cache: AsyncCache) -> None:
    """Pass a CacheTransport to a client of each library."""
    httpx.Client(transport=CacheTransport(cache))
    httpx2.Client(transport=CacheTransport(cache))
    httpx.AsyncClient(transport=CacheTransport(async_cache))
    httpx2.AsyncClient(transport=CacheTransport(async_cache))
    httpx.Client(mounts={"https://": CacheTransport(cache)})
    httpx2.Client(mounts={"https://": CacheTransport(cache)})


def choose_the_next_transport(cache: Cache) -> None:
    """Pass a transport of each library to a CacheTransport."""
    CacheTransport(cache, next=httpx.HTTPTransport())
    CacheTransport(cache, next=httpx2.HTTPTransport())
    CacheTransport(cache, next=httpx.AsyncHTTPTransport())
    CacheTransport(cache, next=httpx2.AsyncHTTPTransport())
    CacheTransport(cache, next=CacheTransport(cache))
    CacheTransport(cache, next="https://example.org")  # type: ignore[arg-type]
    CacheTransport("a folder")  # type: ignore[arg-type]


def send_a_request(transport: CacheTransport, request: httpx.Request, request2: httpx2.Request) -> int:
    """A response belongs to the library of the request."""
    response: httpx.Response = transport.handle_request(request)
    response2: httpx2.Response = transport.handle_request(request2)
    return response.status_code + response2.status_code
