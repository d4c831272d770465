"""AsyncCache: the methods of :class:`Cache`, awaitable, on asyncio and trio.

The only implementation is the synchronous one. Each of its methods runs as a whole in a worker thread. Cancellation
ends a method at its next file operation, and ends its wait for a server. The awaiting task continues after the thread
has cleaned up, so that nothing is locked or incomplete afterwards.
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
from ._http.adapters.async_client import BlockingAsyncClient, EventLoopToken
from ._models import CachedWheel, Progress
from ._operation import CURRENT_TOKEN, CancelToken
from ._options import DownloadLimits, Verify, check_client
from ._threads import ThreadLimiter

if TYPE_CHECKING:
    from typing import Self

    from ._http.adapters.interface import AdaptedClient
    from ._http.client import AsyncClient


_P = ParamSpec("_P")
_R = TypeVar("_R")

# Seconds between two checks whether a cancelled thread has ended.
_POLL_SECONDS = 0.002

# The number of threads for methods that may wait for a server. Each thread needs a connection. An httpx client has 100
# connections (https://www.python-httpx.org/advanced/resource-limits/). More threads would wait for a connection. With a
# client of the caller, that wait fails after five seconds.
_NETWORK_THREADS = 100
_NETWORK_METHODS = (Cache.fetch, Cache.metadata)
# The other methods only use the disk, and must not wait behind downloads. anyio allows this many threads by default.
_DISK_THREADS = 40


def _run_in_thread(
    method: Callable[Concatenate[Cache, _P], _R],
) -> Callable[[Callable[[AsyncCache], None]], Callable[Concatenate[AsyncCache, _P], Coroutine[Any, Any, _R]]]:
    """Replace the decorated method by one that runs ``method`` in a worker thread, with its signature and docstring."""

    def decorate(_: Callable[[AsyncCache], None]) -> Callable[Concatenate[AsyncCache, _P], Coroutine[Any, Any, _R]]:
        @functools.wraps(method)
        async def run(self: AsyncCache, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            threads = self._network_threads if method in _NETWORK_METHODS else self._disk_threads
            return await self._run(lambda cache: method(cache, *args, **kwargs), threads)

        return run

    return decorate


class AsyncCache:
    """A :class:`Cache` whose methods are awaited, on asyncio or trio.

    The parameters, methods, results and errors are those of :class:`Cache`. Many tasks may use one object. At most 100
    calls that may use the network run at a time, and 40 others. Their worker threads do not count against anyio's
    default limiter. Progress listeners are called in these threads.

    Cancelling a call ends it at its next file operation, ends its wait for the network, and leaves nothing locked.

    Args:
        client: an ``AsyncClient`` of httpx or httpx2, or :func:`requests_client` of a session. A session is used in the
            worker threads. The client is used as it is and never closed. With ``None``, the cache creates a client.
            That client is faster.

    Example::

        async with AsyncCache() as cache:
            wheels = await cache.fetch_all(requests)
    """

    _cache_class: type[Cache] = Cache

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        client: AsyncClient | AdaptedClient | None = None,
        layers: Iterable[str | os.PathLike[str]] = (),
        offline: bool = False,
        read_only: bool = False,
        verify: Verify = "auto",
        io_timeout: float = 60.0,
        lock_timeout: float = 60.0,
        max_size: int | None = None,
        limits: DownloadLimits | None = None,
    ) -> None:
        check_client(client, is_async=True)
        # A client that creates its own adapter, such as that of requests, is used in the worker threads.
        is_async = client is not None and not hasattr(client, "create_adapter")
        self._client = BlockingAsyncClient(client) if is_async else None
        self._cache = self._cache_class(
            path,
            client=self._client or cast("AdaptedClient | None", client),
            layers=layers,
            offline=offline,
            read_only=read_only,
            verify=verify,
            io_timeout=io_timeout,
            lock_timeout=lock_timeout,
            max_size=max_size,
            limits=limits,
        )
        self.path: Path = self._cache.path
        self._network_threads = ThreadLimiter(_NETWORK_THREADS)
        self._disk_threads = ThreadLimiter(_DISK_THREADS)
        self._close_threads = ThreadLimiter(math.inf)

    # Add wheels

    @_run_in_thread(Cache.fetch)
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
        """Like :meth:`Cache.fetch_all`. Cancelling the call cancels every download."""
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
            # The child tasks do not raise. Trio raised KeyboardInterrupt in this task. The task group wrapped it.
            raise errors.exceptions[0] from None
        return batch.outcomes() if return_exceptions else batch.wheels()

    @_run_in_thread(Cache.put)
    def put(self) -> None: ...

    @_run_in_thread(Cache.metadata)
    def metadata(self) -> None: ...

    # Look up wheels

    @_run_in_thread(Cache.get)
    def get(self) -> None: ...

    async def entries(self) -> AsyncIterator[CachedWheel]:
        """Like :meth:`Cache.entries`."""
        entries = self._cache.entries()
        # The first step creates the operation with its token, so every step must use that token.
        token = EventLoopToken()
        while (wheel := await self._run(lambda _: next(entries, None), self._disk_threads, token)) is not None:
            yield wheel

    @_run_in_thread(Cache.stats)
    def stats(self) -> None: ...

    # Use wheels

    @_run_in_thread(Cache.link)
    def link(self) -> None: ...

    @_run_in_thread(Cache.unpack)
    def unpack(self) -> None: ...

    @_run_in_thread(Cache.export)
    def export(self) -> None: ...

    # Maintain the cache

    @_run_in_thread(Cache.verify)
    def verify(self) -> None: ...

    @_run_in_thread(Cache.prune)
    def prune(self) -> None: ...

    @_run_in_thread(Cache.remove)
    def remove(self) -> None: ...

    @_run_in_thread(Cache.clear)
    def clear(self) -> None: ...

    @_run_in_thread(Cache.doctor)
    def doctor(self) -> None: ...

    async def close(self) -> None:
        """Like :meth:`Cache.close`."""
        if self._client is not None:
            self._client.close()
        # Closing ends the running calls, so it must not wait for one of their threads to become free.
        await self._run(Cache.close, self._close_threads)

    async def __aenter__(self) -> Self:
        self._cache.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing is short, and is necessary even if the task was cancelled.
        with anyio.CancelScope(shield=True):
            await self.close()

    def __repr__(self) -> str:
        return f"AsyncCache({str(self.path)!r})"

    async def _run(self, action: Callable[[Cache], _R], threads: ThreadLimiter, token: CancelToken | None = None) -> _R:
        """Run a function in a worker thread. If the task is cancelled, cancel the function and wait for its end."""
        work = _Work(action, self._cache, token or EventLoopToken())
        ended = anyio.Event()

        async def run_in_thread() -> None:
            try:
                await threads.run(work)
            finally:
                ended.set()

        try:
            # Trio raises KeyboardInterrupt in the main task, but not while that task itself waits for a thread.
            async with anyio.create_task_group() as group:
                group.start_soon(work.cancel_with_task)
                group.start_soon(run_in_thread)
                await ended.wait()
                group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            # The worker thread does not raise. The group contains the one exception that was raised in this task while
            # it waited.
            raise errors.exceptions[0] from None
        finally:
            work.cancel()
            with anyio.CancelScope(shield=True):
                # A task that was cancelled by asyncio itself, and not by a scope of anyio, did not wait for its thread.
                while work.is_running:
                    work.cancel()
                    await anyio.sleep(_POLL_SECONDS)
                if self._client is not None:
                    await self._client.close_remaining(work.token)
        await anyio.lowlevel.checkpoint_if_cancelled()
        return work.result()


def sync_cache_of(cache: AsyncCache) -> Cache:
    """Return the cache whose methods an AsyncCache runs in worker threads."""
    return cache._cache  # noqa: SLF001 - the one place that reaches into an AsyncCache


class _Work(Generic[_R]):
    """A function that runs in a worker thread, and its result or exception, for the task that awaits it."""

    def __init__(self, action: Callable[[Cache], _R], cache: Cache, token: CancelToken) -> None:
        self.token = token
        self.is_running = False
        self._has_ended = False
        self._action = action
        self._cache = cache
        self._value: _R | None = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        # The thread runs in a copy of the task's context, so setting the token does not affect other calls.
        CURRENT_TOKEN.set(self.token)
        # is_running is set before the token is checked. A canceller cancels the token before it reads is_running, so a
        # thread that starts late is not missed.
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
        """Cancel the token, unless the function has ended. The next function may use the same token."""
        if not self._has_ended:
            self.token.cancel()

    async def cancel_with_task(self) -> None:
        """Wait until this task is cancelled, then cancel the thread and wait for its end."""
        try:
            await anyio.sleep_forever()
        finally:
            self.cancel()
            with anyio.CancelScope(shield=True):
                # The cancellation is repeated, because a single one does not interrupt a thread that is about to block
                # on a socket.
                while self.is_running:
                    await anyio.sleep(_POLL_SECONDS)
                    self.cancel()

    def result(self) -> _R:
        """Return the function's result, or raise its exception."""
        if self._error is not None:
            raise self._error
        return cast("_R", self._value)
