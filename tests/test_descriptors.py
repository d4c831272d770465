"""No public call leaves a file or folder of the cache open in this process."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from archives import Entry, archive, wheel_entries
from folders import open_below
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import AsyncCache, Cache, CachedWheel, CommitError, ProgressEvent, WheelCacheError, WheelRequest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the list of open files in /proc")

OTHER = Wheel(wheel_filename("other"), make_wheel("other", size=40_000))
# Its size makes several threads unpack it.
LARGE = Wheel(
    wheel_filename("large"),
    archive(
        wheel_entries(
            [Entry(f"large/{number // 15}/{number}.py", os.urandom(9000)) for number in range(300)],
            info="large-1.0.dist-info",
        )
    ),
)

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""The name of a method, and its arguments."""


def every_call(server: Server, wheel: Wheel, known: CachedWheel, folder: Path) -> list[Call]:
    """Return calls of every method, so that most find something to do."""
    url, source = wheel.on(server), folder / OTHER.filename
    source.write_bytes(OTHER.data)
    requests = [WheelRequest(OTHER.on(server), OTHER.digest), wheel.on(server)]
    return [
        ("fetch", (url,), {"hashes": wheel.digest}),
        ("fetch", (url,), {}),
        ("metadata", (url,), {}),
        ("fetch_all", (requests,), {"jobs": 2}),
        ("put", (source,), {}),
        ("put", (io.BytesIO(LARGE.data),), {"filename": LARGE.filename}),
        ("get", (wheel.digest,), {}),
        ("stats", (), {}),
        ("link", (known, folder / "out" / "one.whl"), {}),
        ("link", (known, folder / "out" / "two.whl"), {"mode": "copy"}),
        ("export", (folder / "exported",), {}),
        ("unpack", (known,), {}),
        ("unpack", (known, folder / "site"), {}),
        ("unpack", (known, folder / "copied"), {"mode": "copy"}),
        ("verify", (), {}),
        ("verify", (), {"repair": True}),
        ("doctor", (), {}),
        ("prune", (), {"max_age": 1e6}),
        ("remove", (wheel.digest,), {}),
        ("clear", (), {}),
    ]


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer with the large wheel."""
    with Cache(tmp_path / "layer") as cache:
        cache.put(io.BytesIO(LARGE.data), filename=LARGE.filename)
    return tmp_path / "layer"


def test_no_call_leaves_a_folder_open(server: Server, wheel: Wheel, layer: Path, tmp_path: Path) -> None:
    """After each call of a Cache, also of one that unpacks or checks in several threads, nothing is open."""
    root = tmp_path / "cache"
    with Cache(root, layers=[layer]) as cache:
        assert open_below(root) == []
        known = cache.put(io.BytesIO(LARGE.data), filename=LARGE.filename)
        assert open_below(tmp_path) == []
        for name, arguments, options in every_call(server, wheel, known, tmp_path):
            getattr(cache, name)(*arguments, **options)
            assert open_below(tmp_path) == [], name
            if name == "export":
                for _ in cache.entries():
                    assert open_below(tmp_path) == []
    assert open_below(tmp_path) == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_awaited_call_leaves_a_folder_open(
    backend: str, server: Server, wheel: Wheel, layer: Path, tmp_path: Path
) -> None:
    """The threads of an AsyncCache have nothing open while they wait for the next call."""
    root = tmp_path / "cache"

    async def run() -> None:
        async with AsyncCache(root, layers=[layer]) as cache:
            known = await cache.put(io.BytesIO(LARGE.data), filename=LARGE.filename)
            for name, arguments, options in every_call(server, wheel, known, tmp_path):
                await getattr(cache, name)(*arguments, **options)
                assert open_below(tmp_path) == [], name
                if name == "export":
                    async for _ in cache.entries():
                        assert open_below(tmp_path) == []
        assert open_below(tmp_path) == []

    anyio.run(run, backend=backend)


def refuse(event: ProgressEvent) -> None:
    raise RuntimeError(event.phase)


REFUSED: dict[str, Callable[[Cache, Wheel, str], object]] = {
    "another hash": lambda cache, _, url: cache.fetch(url, hashes=OTHER.digest),
    "no such wheel": lambda cache, _, url: cache.fetch(f"{url}.whl"),
    "not a wheel": lambda cache, wheel, _: cache.put(io.BytesIO(b"text"), filename=wheel.filename),
    "the listener of a fetch": lambda cache, wheel, url: cache.fetch(url, hashes=wheel.digest, progress=refuse),
    "the listener of a check": lambda cache, _, __: cache.verify(progress=refuse),
    "the listener of a clear": lambda cache, _, __: cache.clear(progress=refuse),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_failed_call_leaves_nothing_open(reason: str, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """While the exception of a call is handled, nothing is open."""
    with Cache(tmp_path / "cache") as cache:
        cache.put(io.BytesIO(LARGE.data), filename=LARGE.filename)
        with pytest.raises((WheelCacheError, RuntimeError)):
            REFUSED[reason](cache, wheel, wheel.on(server))
        assert open_below(tmp_path) == []


def test_a_refused_folder_leaves_nothing_open(wheel: Wheel, tmp_path: Path) -> None:
    """After a link in the cache was refused, nothing is open."""
    with Cache(tmp_path / "cache") as cache:
        cache.put(io.BytesIO(LARGE.data), filename=LARGE.filename)
        (tmp_path / "elsewhere").mkdir()
        shutil.rmtree(cache.path / "v1" / "tmp")
        (cache.path / "v1" / "tmp").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CommitError):
            cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
        assert open_below(tmp_path) == []
        cache.clear()
        assert open_below(tmp_path) == []


def test_an_abandoned_iteration_leaves_nothing_open(wheel: Wheel, tmp_path: Path) -> None:
    """A caller who stops iterating over the entries holds nothing open, even if it keeps the iterator."""
    with Cache(tmp_path / "cache") as cache:
        for each in (wheel, OTHER, LARGE):
            cache.put(io.BytesIO(each.data), filename=each.filename)
        entries = cache.entries()
        next(entries)
        assert open_below(tmp_path) == []
        del entries
        assert open_below(tmp_path) == []


def test_a_hit_opens_no_folder(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit in another object and a repeated hit each make calls by path, and none by descriptor."""
    with Cache(tmp_path / "cache") as cache:
        cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
    opened: list[str] = []
    really_open = os.open

    def watched(path: str, flags: int, *arguments: int, **options: Any) -> int:
        if flags & os.O_DIRECTORY:
            opened.append(path)
        return really_open(path, flags, *arguments, **options)

    with Cache(tmp_path / "cache") as cache:
        monkeypatch.setattr(os, "open", watched)
        for _ in range(2):
            assert cache.get(wheel.digest, filename=wheel.filename) is not None
            assert cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert opened == []
        assert cache.stats().wheels == 1
        assert opened
