"""Every public call of both classes, cancelled in every way while it waits or works.

``close()`` from another thread or task, the cancellation of a task, and Ctrl-C each end a call long before its own
time-out of 60 s, with the right exception, and leave nothing locked, lost or running.
"""

from __future__ import annotations

import _thread
import inspect
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from faulty import Plan
from marks import not_on_windows
from scenarios import quick_folder
from scenes import CALLS, PATIENCE, SOON, Call, Hold, Moment, Pause, Scene
from server import Exchange, Server, stalled

from wheelcache import AsyncCache, Cache
from wheelcache._operation import CURRENT_TOKEN, CancelToken, OperationCancelledError

BACKENDS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "trio"]  # trio does not start under Wine

# Public names that are not calls, and close(), which is the cause.
_NO_CALLS = {"path", "close"}


def test_every_public_call_has_a_scene() -> None:
    """A new public method of either class needs a line in the table of calls."""
    for each in (Cache, AsyncCache):
        methods = {name for name, _ in inspect.getmembers(each, inspect.isfunction) if not name.startswith("_")}
        assert methods - _NO_CALLS == set(CALLS), each


def interrupt_main() -> None:
    """Interrupt the main thread like Ctrl-C."""
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def is_closed(cache: Cache) -> bool:
    """Whether calls of this cache fail."""
    try:
        cache.__enter__()
    except ValueError:
        return True
    return False


def close_beside(cache: Cache) -> threading.Thread:
    """Close a cache in another thread, which may wait for the end of running calls. Return when it is closed."""
    closing = threading.Thread(target=cache.close)
    closing.start()
    end = time.monotonic() + SOON
    while not is_closed(cache) and time.monotonic() < end:
        time.sleep(0.001)
    return closing


def made_in_thread(cause: str, cache: Cache, scene: Scene, call: Call, moment: Moment) -> BaseException | None:
    """Make a call in another thread, close or cancel it at the moment, and return the exception."""
    token = CancelToken()

    def make() -> None:
        CURRENT_TOKEN.set(token)
        call.on(cache, scene)

    with ThreadPoolExecutor(1) as threads:
        made = threads.submit(make)
        made.add_done_callback(lambda _: moment.reached.set())
        assert moment.reached.wait(PATIENCE)
        begun = time.monotonic()
        closing = None
        if cause == "close":
            closing = close_beside(cache)
        else:
            token.cancel()
        moment.tell(scene)
        error = made.exception(PATIENCE)
        if closing is not None:
            closing.join()
        assert time.monotonic() - begun < SOON
    return error


def interrupted(scene: Scene, moment: Moment, act: Callable[[], object]) -> BaseException | None:
    """Make a call in the main thread, press Ctrl-C at the moment, and return the exception."""
    over = threading.Event()
    begun: list[float] = []

    def press() -> None:
        assert moment.reached.wait(PATIENCE)
        begun.append(time.monotonic())
        if not over.is_set():
            interrupt_main()
        moment.tell(scene)

    pressing = threading.Thread(target=press)
    try:
        pressing.start()
        try:
            act()
        finally:
            over.set()
            moment.reached.set()
            pressing.join()
    except BaseException as error:
        assert time.monotonic() - begun[0] < SOON
        return error
    return None


def cancelled(cause: str, scene: Scene, call: Call, moment: Moment) -> BaseException | None:
    """Make a call of a ``Cache``, cancel it at the moment, check the type of the exception, and return it."""
    cache = scene.cache()
    scene.files.plan = moment
    if cause == "interrupt":
        error = interrupted(scene, moment, lambda: call.on(cache, scene))
        kind: type[BaseException] = KeyboardInterrupt
    else:
        error = made_in_thread(cause, cache, scene, call, moment)
        kind = ValueError if cause == "close" else OperationCancelledError
    cache.close()
    if cause == "close" and call.name == "fetch_all" and isinstance(error, ExceptionGroup):
        (error, *_) = error.exceptions
    assert error is None or isinstance(error, kind), repr(error)
    return error


async def cancelled_task(cause: str, scene: Scene, call: Call, moment: Moment) -> BaseException | None:
    """Make a call of an ``AsyncCache``, close or cancel it at the moment, and return the exception."""
    cached = scene.async_cache()
    scene.files.plan = moment
    raised: list[BaseException] = []
    scope = anyio.CancelScope()

    async def make() -> None:
        try:
            with scope:
                await call.awaited_on(cached, scene)
        except Exception as error:
            raised.append(error)
        finally:
            moment.reached.set()

    async with anyio.create_task_group() as group:
        group.start_soon(make)
        assert await anyio.to_thread.run_sync(moment.reached.wait, PATIENCE)
        begun = time.monotonic()
        if cause == "close":
            group.start_soon(cached.close)
            while not is_closed(cached._cache) and time.monotonic() - begun < SOON:  # noqa: ASYNC110  - no event says so
                await anyio.sleep(0.001)
        else:
            scope.cancel()
            # The tasks that cancel the thread are ready now, and must run before the test continues.
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
        moment.tell(scene)
    assert time.monotonic() - begun < SOON
    await cached.close()
    if scope.cancelled_caught:
        assert raised == []
        return OperationCancelledError(CancelToken())  # replaces the exception of the event loop
    if not raised:
        return None
    (error,) = raised
    if cause == "close" and call.name == "fetch_all" and isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert cause == "close", repr(error)
    assert isinstance(error, ValueError), repr(error)
    return error


def cancelled_run(cause: str, backend: str, scene: Scene, call: Call, moment: Moment) -> BaseException | None:
    """Make a call of an ``AsyncCache`` in its own event loop, cancel it at the moment, and return the exception."""
    if cause != "interrupt":
        return anyio.run(cancelled_task, cause, scene, call, moment, backend=backend)

    async def main() -> None:
        async with scene.async_cache() as cached:
            scene.files.plan = moment
            await call.awaited_on(cached, scene)

    error = interrupted(scene, moment, lambda: anyio.run(main, backend=backend))
    scene.files.plan = Plan()
    assert error is None or type(error) is KeyboardInterrupt, repr(error)
    return error


def some_of(table: Iterable[Call], windows: Iterable[str] = ()) -> list[object]:
    """Return calls as parameters. On Windows, return only the named ones, since file operations are slow under Wine."""
    return [pytest.param(call, id=call.name) for call in table if sys.platform != "win32" or call.name in windows]


# On Windows, Ctrl-C cannot be sent to the main thread of a test. tests/test_ctrl_c_windows.py uses a terminal instead.
CAUSES = ["close", "cancel"] if sys.platform == "win32" else ["close", "cancel", "interrupt"]
HELD = some_of((call for call in CALLS.values() if call.held), ("fetch", "put", "unpack"))
ASKING = some_of((call for call in CALLS.values() if call.asks), ("fetch", "fetch_all"))
BUSY = some_of(call for call in CALLS.values() if call.busy[1] > 1 or call.busy[0] != "*")

many_file_operations = not_on_windows("thousands of file operations, each of which costs half a millisecond there")


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """Yield an event that a server waits for until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def stall(scene: Scene, never: threading.Event, at: int | None) -> Moment:
    """Let the server send nothing after this many bytes, or no response at all. The moment is that of the request."""
    moment = Moment()
    answer = stalled(at, never)

    def answering(exchange: Exchange) -> None:
        moment.reached.set()
        answer(exchange)

    for new in scene.new:
        new.on(scene.server, how=answering)
    return moment


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("call", HELD)
def test_a_call_that_waits_for_a_holder(call: Call, cause: str, server: Server, tmp_path: Path) -> None:
    """A call that waits for a file that is never closed ends when it is cancelled."""
    scene = Scene(tmp_path, server)
    assert cancelled(cause, scene, call, Hold(call.held)) is not None
    scene.check(call)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("call", HELD)
def test_a_task_that_waits_for_a_holder(call: Call, cause: str, backend: str, server: Server, tmp_path: Path) -> None:
    """A task that waits for a file that is never closed ends when it is cancelled."""
    scene = Scene(tmp_path, server)
    assert cancelled_run(cause, backend, scene, call, Hold(call.held)) is not None
    scene.check(call)


@pytest.mark.parametrize("at", [None, 2000])
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("call", ASKING)
def test_a_call_that_waits_for_a_server(
    call: Call, cause: str, at: int | None, never: threading.Event, server: Server, tmp_path: Path
) -> None:
    """A call that waits for a server that sends nothing more ends when it is cancelled."""
    scene = Scene(tmp_path, server)
    moment = stall(scene, never, at)
    assert cancelled(cause, scene, call, moment) is not None
    never.set()
    scene.check(call)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("call", ASKING)
def test_a_task_that_waits_for_a_server(
    call: Call, cause: str, backend: str, never: threading.Event, server: Server, tmp_path: Path
) -> None:
    """A task that waits for a server that does not respond ends when it is cancelled."""
    scene = Scene(tmp_path, server)
    moment = stall(scene, never, None)
    assert cancelled_run(cause, backend, scene, call, moment) is not None
    never.set()
    scene.check(call)


def stop_in_the_middle(call: Call, cause: str, scene: Scene, run: Callable[[Moment], BaseException | None]) -> None:
    """Cancel a call in the middle of its work, and check that it performs few further file operations."""
    moment = Pause(call.busy[1], call.busy[0])
    assert run(moment) is not None
    assert moment.hit is not None
    # The main thread or event loop needs some milliseconds to pass Ctrl-C on to a working thread.
    assert len(scene.files.trace) - moment.calls < (1000 if cause == "interrupt" else 200)
    scene.check(call, torn=cause == "interrupt")


@many_file_operations
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("call", BUSY)
def test_a_call_that_has_much_to_do(call: Call, cause: str, server: Server, tmp_path: Path) -> None:
    """A call in the middle of a thousand entries, or of a large file, ends when it is cancelled."""
    scene = Scene(tmp_path, server, many=1000 if call.removes else 300)
    stop_in_the_middle(call, cause, scene, lambda moment: cancelled(cause, scene, call, moment))


@many_file_operations
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("call", BUSY)
def test_a_task_that_has_much_to_do(call: Call, cause: str, backend: str, server: Server, tmp_path: Path) -> None:
    """A task in the middle of many entries, or of a large file, ends when it is cancelled."""
    scene = Scene(tmp_path, server, many=300)
    stop_in_the_middle(call, cause, scene, lambda moment: cancelled_run(cause, backend, scene, call, moment))


# The number of moments that are tried for each call, evenly spread over its file operations. doctor() is slow, so fewer
# are tried for it.
_MOMENTS = 12
_FEW_MOMENTS = 3


@many_file_operations
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("call", some_of(CALLS.values()))
def test_at_any_moment(call: Call, cause: str, server: Server, tmp_path: Path) -> None:
    """A call that is cancelled at any moment raises the right exception or completes, and leaves no trace."""
    with quick_folder() as folder:
        unharmed = Scene(folder / "unharmed", server)
        with unharmed.cache() as cache:
            begun = len(unharmed.files.trace)
            call.on(cache, unharmed)
            total = len(unharmed.files.trace) - begun
        moments = _FEW_MOMENTS if call.name == "doctor" else _MOMENTS
        raised = 0
        for number in range(1, total + 1, -(-total // moments)):
            scene = Scene(folder / str(number), server)
            raised += cancelled(cause, scene, call, Pause(number)) is not None
            try:
                scene.check(call, torn=cause == "interrupt")
            except BaseException as error:
                error.add_note(f"cancelled at file operation {number} of {total}")
                raise
        assert raised
