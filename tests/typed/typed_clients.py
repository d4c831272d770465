"""Uses of the public API with the clients of both libraries. mypy checks this module, and nothing runs it."""

from __future__ import annotations

import httpx
import httpx2

from wheelcache import AsyncCache, Cache, CacheTransport


def sync(cache: Cache) -> None:
    with httpx.Client(transport=CacheTransport(cache)) as client:
        client.get("https://example.org/")
    with httpx2.Client(transport=CacheTransport(cache)) as client2:
        client2.get("https://example.org/")
    CacheTransport(cache, next=httpx.HTTPTransport())
    CacheTransport(cache, next=httpx2.HTTPTransport())
    CacheTransport(cache, next=CacheTransport(cache))
    httpx.Client(mounts={"https://": CacheTransport(cache)})
    httpx2.Client(mounts={"https://": CacheTransport(cache)})


async def asynchronous(cache: AsyncCache) -> None:
    async with httpx.AsyncClient(transport=CacheTransport(cache)) as client:
        await client.get("https://example.org/")
    async with httpx2.AsyncClient(transport=CacheTransport(cache)) as client2:
        await client2.get("https://example.org/")
    CacheTransport(cache, next=httpx.AsyncHTTPTransport())
    CacheTransport(cache, next=httpx2.AsyncHTTPTransport())


def direct(transport: CacheTransport, request: httpx.Request, request2: httpx2.Request) -> int:
    response: httpx.Response = transport.handle_request(request)
    response2: httpx2.Response = transport.handle_request(request2)
    return response.status_code + response2.status_code


CacheTransport("not a cache")  # type: ignore[arg-type]
CacheTransport(Cache(), next="not a transport")  # type: ignore[arg-type]
