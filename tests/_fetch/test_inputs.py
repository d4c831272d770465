"""Files that a caller names may be pipes: reading them is bounded and can be interrupted."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import assert_nothing_came
from wheels import Wheel, make_wheel

from wheelcache import AsyncCache, Cache, DownloadError, DownloadLimits, InvalidWheelError, Phase, ProgressEvent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")

CALLS: dict[str, Callable[[Cache, Path], object]] = {
    "put": lambda cache, path: cache.put(path, filename="demo-1.0-py3-none-any.whl"),
    "file URL": lambda cache, path: cache.fetch(path.as_uri()),
    "lock file": lambda cache, path: cache.prune(keep=path),
}


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe without a writer."""
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    os.mkfifo(path)
    return path


def in_thread(action: Callable[[], object]) -> tuple[threading.Thread, list[BaseException | None]]:
    """Run a function in a thread, and return the thread and a list that receives its exception or ``None``."""
    outcomes: list[BaseException | None] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            outcomes.append(error)
        else:
            outcomes.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcomes


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("with_writer", [False, True])
def test_closing_ends_the_wait_for_a_pipe(call: str, with_writer: bool, pipe: Path, tmp_path: Path) -> None:
    """A call waits for the writer, or for its next bytes, until the cache is closed. The progress reports the wait."""
    waiting = threading.Event()

    def listen(event: ProgressEvent) -> None:
        if event.phase is Phase.WAITING:
            waiting.set()

    cache = Cache(tmp_path / "cache")
    cache_calls = {
        "put": lambda: cache.put(pipe),
        "file URL": lambda: cache.fetch(pipe.as_uri(), progress=listen),
        "lock file": lambda: cache.prune(keep=pipe),
    }
    writer = os.open(pipe, os.O_RDWR) if with_writer else None
    thread, outcomes = in_thread(cache_calls[call])
    if call == "file URL":
        assert waiting.wait(60)
    cache.close()
    thread.join(60)
    if writer is not None:
        os.close(writer)
    assert not thread.is_alive()
    assert isinstance(outcomes[0], ValueError)
    with Cache(tmp_path / "cache") as cache:
        assert_nothing_came(cache)


def test_a_cancelled_task_ends_the_wait_for_a_pipe(pipe: Path, tmp_path: Path) -> None:
    """The cancellation of an asynchronous call ends it although no writer opens the pipe."""

    async def main() -> None:
        async with AsyncCache(tmp_path / "cache") as cache:
            await asyncio.wait_for(cache.put(pipe), 0.3)

    with pytest.raises(TimeoutError):
        asyncio.run(main())


@pytest.mark.parametrize("call", ["put", "file URL"])
def test_a_wheel_is_read_from_a_pipe(call: str, pipe: Path, wheel: Wheel, tmp_path: Path) -> None:
    """A writer that opens the pipe later, and writes more than a pipe holds, is read to its end."""
    data = make_wheel(size=1 << 20)
    writer, _ = in_thread(lambda: pipe.write_bytes(data))
    with Cache(tmp_path / "cache") as cache:
        found = CALLS[call](cache, pipe)
        assert found.path.read_bytes() == data  # type: ignore[attr-defined]
    writer.join(60)


@pytest.mark.parametrize("call", ["put", "file URL"])
def test_a_pipe_without_an_end_is_bounded(call: str, pipe: Path, tmp_path: Path) -> None:
    """A source of unknown size is refused when it exceeds the limit of a download."""

    def write() -> None:
        with pipe.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))

    writer, outcomes = in_thread(write)
    with Cache(tmp_path / "cache", limits=DownloadLimits(max_bytes=1 << 20)) as cache:
        with pytest.raises(InvalidWheelError, match="1048576 bytes"):
            CALLS[call](cache, pipe)
        assert_nothing_came(cache)
    writer.join(60)
    assert isinstance(outcomes[0], BrokenPipeError)


def test_a_file_object_without_an_end_is_bounded(tmp_path: Path) -> None:
    """The same limit applies to a file object."""

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(1 << 16)

    with Cache(tmp_path / "cache", limits=DownloadLimits(max_bytes=1 << 20)) as cache:
        with pytest.raises(InvalidWheelError, match="1048576 bytes"):
            cache.put(Endless(), filename="demo-1.0-py3-none-any.whl")  # type: ignore[arg-type]
        assert_nothing_came(cache)


def test_a_file_may_be_larger_than_the_limit(tmp_path: Path, wheel: Wheel) -> None:
    """A regular file has a known size, so the limit does not apply."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with Cache(tmp_path / "cache", limits=DownloadLimits(max_bytes=10)) as cache:
        assert cache.put(source).path.read_bytes() == wheel.data


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(target: str, tmp_path: Path) -> None:
    """A device is an error that names the path, and nothing is read from it."""
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    path.symlink_to(target)
    with Cache(tmp_path / "cache") as cache:
        with pytest.raises(OSError, match="device") as caught:
            cache.put(path)
        assert str(path) in str(caught.value)
        with pytest.raises(DownloadError, match="device"):
            cache.fetch(path.as_uri())
        with pytest.raises(OSError, match="device"):
            cache.prune(keep=path)
        assert_nothing_came(cache)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder is an error that names the path."""
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    path.mkdir()
    with Cache(tmp_path / "cache") as cache:
        with pytest.raises(IsADirectoryError) as caught:
            cache.put(path)
        assert caught.value.filename == str(path)
        with pytest.raises(DownloadError):
            cache.fetch(path.as_uri())
