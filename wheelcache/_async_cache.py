"""AsyncCache: the operations of :class:`Cache`, awaitable, under asyncio and trio.

There is one implementation, the sync one: each method runs whole in a worker thread. Cancelling stops it at its next
step, at the latest between two chunks of a transfer, and wakes it where it waits for a server; the awaiting task goes
on when the thread has left everything in order, so that nothing is locked or half there afterwards.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, cast, overload

import anyio
import anyio.lowlevel

from ._cache import Cache, core_of
from ._fetch.batch import Batch, BatchItem, Request
from ._http.async_client import BlockingAsyncClient, EventLoopToken
from ._models import CachedWheel, Progress
from ._operation import CURRENT_TOKEN, CancelToken
from ._options import check_client
from ._threads import ThreadLimiter

if TYPE_CHECKING:
    from typing import Self

    import httpx


_P = ParamSpec("_P")
_R = TypeVar("_R")

# How often the end of a thread is looked for that was told to stop.
_POLL_SECONDS = 0.002

# What may wait for a server: it needs no processor meanwhile, but a connection, and an httpx client has 100 of them
# (https://www.python-httpx.org/advanced/resource-limits/). More threads would wait for those, too, and a client of the
# caller's gives up waiting for one after five seconds.
_NETWORK_THREADS = 100
_NETWORK_METHODS = (Cache.fetch, Cache.metadata)
# What needs the disk alone never waits behind that; as many at a time as anyio lets work.
_DISK_THREADS = 40


def _awaitable(
    method: Callable[Concatenate[Cache, _P], _R],
) -> Callable[[Callable[[AsyncCache], None]], Callable[Concatenate[AsyncCache, _P], Coroutine[Any, Any, _R]]]:
    """Make the method of this name do what ``method`` does, in a worker thread, with its parameters and its words."""

    def decorate(_: Callable[[AsyncCache], None]) -> Callable[Concatenate[AsyncCache, _P], Coroutine[Any, Any, _R]]:
        @functools.wraps(method)
        async def run(self: AsyncCache, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            threads = self._network_threads if method in _NETWORK_METHODS else self._disk_threads
            return await self._run(lambda cache: method(cache, *args, **kwargs), threads)

        return run

    return decorate


class AsyncCache:
    """A :class:`Cache` whose operations are awaited, under asyncio or trio.

    The parameters are those of :class:`Cache`, and so is what its methods do, return and raise. Many tasks may use one
    object; 100 calls that may ask a server go on at a time and 40 others, in worker threads that are not taken from
    anyio's default limiter. Listeners (``progress``) are called in those.

    Cancelling a call ends it at its next file operation, ends its wait for the network, and leaves nothing locked.

    Args:
        client: an :class:`httpx.AsyncClient`, which is used as it is and never closed; ``None`` for a client of the
            cache's own, which is the fastest way.

    Example::

        async with AsyncCache() as cache:
            wheels = await cache.fetch_all(requests)
    """

    _cache_class: type[Cache] = Cache

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        client: httpx.AsyncClient | None = None,
        layers: Iterable[str | os.PathLike[str]] = (),
        offline: bool = False,
        read_only: bool = False,
        verify: Literal["auto", "full"] = "auto",
        io_timeout: float = 60.0,
        lock_timeout: float = 60.0,
        max_size: int | None = None,
    ) -> None:
        check_client(client, is_async=True)
        self._client = None if client is None else BlockingAsyncClient(client)
        self._cache = self._cache_class(
            path,
            # It has the names of an httpx.Client that are used.
            client=cast("httpx.Client | None", self._client),
            layers=layers,
            offline=offline,
            read_only=read_only,
            verify=verify,
            io_timeout=io_timeout,
            lock_timeout=lock_timeout,
            max_size=max_size,
        )
        self.path: Path = self._cache.path
        self._network_threads = ThreadLimiter(_NETWORK_THREADS)
        self._disk_threads = ThreadLimiter(_DISK_THREADS)
        self._close_threads = ThreadLimiter(math.inf)

    # In

    @_awaitable(Cache.fetch)
    def fetch(self) -> None: ...

    @overload
    async def fetch_all(
        self,
        requests: Iterable[Request],
        *,
        jobs: int | None = None,
        progress: Progress | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[CachedWheel]: ...

    @overload
    async def fetch_all(
        self,
        requests: Iterable[Request],
        *,
        jobs: int | None = None,
        progress: Progress | None = None,
        return_exceptions: bool,
    ) -> list[CachedWheel | Exception]: ...

    async def fetch_all(
        self,
        requests: Iterable[Request],
        *,
        jobs: int | None = None,
        progress: Progress | None = None,
        return_exceptions: bool = False,
    ) -> list[CachedWheel] | list[CachedWheel | Exception]:
        """As :meth:`Cache.fetch_all`. Cancelling the call cancels every download."""
        batch = Batch(requests, jobs, progress, return_exceptions=return_exceptions)
        core = core_of(self._cache)
        core.begin()

        async def work() -> None:
            while (item := batch.take()) is not None:
                try:
                    batch.finish(item, await self._run(lambda _, item=item: fetch(item), self._network_threads))  # type: ignore[misc]
                except Exception as error:
                    batch.finish(item, error)

        def fetch(item: BatchItem) -> CachedWheel:
            with core.begin() as op:
                return core.fetch_item(op, item)

        try:
            async with anyio.create_task_group() as group:
                for _ in range(batch.jobs):
                    group.start_soon(work)
        except BaseExceptionGroup as errors:
            # The tasks raise nothing. Trio raised KeyboardInterrupt in this one, and put it into a group.
            raise errors.exceptions[0] from None
        return batch.outcomes() if return_exceptions else batch.wheels()

    @_awaitable(Cache.put)
    def put(self) -> None: ...

    @_awaitable(Cache.metadata)
    def metadata(self) -> None: ...

    # Look

    @_awaitable(Cache.get)
    def get(self) -> None: ...

    async def entries(self) -> AsyncIterator[CachedWheel]:
        """As :meth:`Cache.entries`."""
        found = self._cache.entries()
        # The first step takes its stop for all of them.
        token = EventLoopToken()
        while (wheel := await self._run(lambda _: next(found, None), self._disk_threads, token)) is not None:
            yield wheel

    @_awaitable(Cache.stats)
    def stats(self) -> None: ...

    # Out

    @_awaitable(Cache.link)
    def link(self) -> None: ...

    @_awaitable(Cache.unpack)
    def unpack(self) -> None: ...

    @_awaitable(Cache.export)
    def export(self) -> None: ...

    # Keep

    @_awaitable(Cache.verify)
    def verify(self) -> None: ...

    @_awaitable(Cache.prune)
    def prune(self) -> None: ...

    @_awaitable(Cache.remove)
    def remove(self) -> None: ...

    @_awaitable(Cache.clear)
    def clear(self) -> None: ...

    @_awaitable(Cache.doctor)
    def doctor(self) -> None: ...

    async def close(self) -> None:
        """As :meth:`Cache.close`."""
        if self._client is not None:
            self._client.close()
        # It ends what waits, and must not wait for that to end.
        await self._run(Cache.close, self._close_threads)

    async def __aenter__(self) -> Self:
        self._cache.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing is short, and must be done where the task was cancelled, too.
        with anyio.CancelScope(shield=True):
            await self.close()

    def __repr__(self) -> str:
        return f"AsyncCache({str(self.path)!r})"

    async def _run(self, action: Callable[[Cache], _R], threads: ThreadLimiter, token: CancelToken | None = None) -> _R:
        """Do something in a worker thread; whoever cancels gets the thread's end, not the thread."""
        work = _Work(action, self._cache, token or EventLoopToken())
        ended = anyio.Event()

        async def run_in_thread() -> None:
            try:
                await threads.run(work)
            finally:
                ended.set()

        try:
            # Trio raises KeyboardInterrupt in the main task, but not while that waits for a thread itself.
            async with anyio.create_task_group() as group:
                group.start_soon(work.cancel_with_task)
                group.start_soon(run_in_thread)
                await ended.wait()
                group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            # The thread raises nothing: this is the one exception that was raised in this task while it waited.
            raise errors.exceptions[0] from None
        finally:
            work.cancel()
            with anyio.CancelScope(shield=True):
                # A task that is cancelled by asyncio itself, and not by a scope, does not wait for its thread.
                while work.is_running:
                    work.cancel()
                    await anyio.sleep(_POLL_SECONDS)
                if self._client is not None:
                    await self._client.close_remaining(work.token)
        await anyio.lowlevel.checkpoint_if_cancelled()
        return work.result()


def sync_cache_of(cache: AsyncCache) -> Cache:
    """Return the cache whose operations an AsyncCache runs in worker threads."""
    return cache._cache  # noqa: SLF001 - the one place that reaches into an AsyncCache


class _Work(Generic[_R]):
    """One operation in a worker thread. What it raises is kept, and raised where it is awaited."""

    def __init__(self, action: Callable[[Cache], _R], cache: Cache, token: CancelToken) -> None:
        self.token = token
        self.is_running = False
        self._has_ended = False
        self._action = action
        self._cache = cache
        self._value: _R | None = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        # The thread runs in a copy of the task's context: this reaches no other call.
        CURRENT_TOKEN.set(self.token)
        # In this order: who stops it says so first and looks then, and a thread may start late.
        self.is_running = True
        try:
            self.token.check()
            self._value = self._action(self._cache)
        except BaseException as error:
            self._error = error
        finally:
            self._has_ended = True
            self.is_running = False

    def cancel(self) -> None:
        """Stop what is not over. What is may have left something to go on with under the same stop."""
        if not self._has_ended:
            self.token.cancel()

    async def cancel_with_task(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.cancel()
            with anyio.CancelScope(shield=True):
                # A thread that was only about to wait for a socket was not woken.
                while self.is_running:
                    await anyio.sleep(_POLL_SECONDS)
                    self.cancel()

    def result(self) -> _R:
        if self._error is not None:
            raise self._error
        return cast("_R", self._value)
