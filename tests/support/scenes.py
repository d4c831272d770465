"""Scenes of cancellation: every public call, its initial cache, and the invariants after a cancellation.

A scene has a moment. :class:`Pause` pauses the call at its Nth file operation; :class:`Hold` refuses an operation
forever, as a holder does, so that the call waits. At that moment, the test cancels the call.

    scene = Scene(tmp_path, server)
    call = CALLS["put"]
    scene.files.plan = hold = Hold(call.held)
    with scene.cache() as cache:
        ...
    scene.check(call)
"""

from __future__ import annotations

import inspect
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock
from faulty import FaultyFiles, FileCall, Plan, Refuse, os_error
from many import Tiny, build
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import AsyncCache, Cache, CachedWheel, ProblemKind, ProgressEvent
from wheelcache._os.system import System

PATIENCE = 60.0
"""The seconds that a call may wait by its own time-outs."""
SOON = 10.0
"""The seconds within which a cancelled call must have ended."""

# The names of temporary files carry their owner: time, boot, process and a random part.
_OWNED = re.compile(r"\d{10,}-[0-9a-f]{8}-\d+-[0-9a-f]{8}")


def _wheel(name: str, size: int = 5000) -> Wheel:
    return Wheel(wheel_filename(name), make_wheel(name, size=size))


class Moment(Plan):
    """A moment of a call.

    Attributes:
        reached: set when the call reaches the moment.
        told: set by the test when it has cancelled the call.
        calls: the number of file operations before the moment.
    """

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.told = threading.Event()
        self.calls = 0

    def tell(self, scene: Scene) -> None:
        """Let the call continue, now that it was cancelled."""
        self.calls = len(scene.files.trace)
        self.told.set()


class Hold(Moment):
    """Refuse some operations forever, as a holder without share-delete does. The moment is the third refusal."""

    def __init__(self, operations: str) -> None:
        super().__init__()
        self._rule = Refuse(operations, 32)

    def before(self, call: FileCall) -> None:
        if self._rule.wants(call):
            self._rule.count += 1
            if self._rule.count == 3:
                self.reached.set()
            raise os_error(32, call.path, call.target or None)


class Pause(Moment):
    """Pause before the Nth operation with one of these names until the call is cancelled, then continue.

    Attributes:
        hit: that operation, if there was one.
    """

    def __init__(self, number: int, operations: str = "*") -> None:
        super().__init__()
        self._number = number
        self._rule = Refuse(operations, 32)
        self._lock = threading.Lock()
        self.hit: FileCall | None = None

    def before(self, call: FileCall) -> None:
        with self._lock:
            self._rule.count += self._rule.wants(call)
            is_there = self._rule.count == self._number and self.hit is None
            if is_there:
                self.hit = call
                self.reached.set()
        if is_there:
            self.told.wait(PATIENCE)


@dataclass(frozen=True)
class Call:
    """A public call.

    Attributes:
        name: the method.
        arguments: its positional arguments.
        options: its keyword arguments.
        held: a file operation that it retries while it is refused; empty if it waits for no holder.
        asks: whether it sends requests to a server.
        removes: whether it removes entries.
        busy: the operation that it repeats, and the number of repetitions at the moment of cancelling.
    """

    name: str
    arguments: Callable[[Scene], tuple[Any, ...]] = lambda _: ()
    options: Callable[[Scene], dict[str, Any]] = lambda _: {}
    held: str = ""
    asks: bool = False
    removes: bool = False
    busy: tuple[str, int] = ("*", 1)

    def _prepare(self, cache: Cache | AsyncCache, scene: Scene) -> Any:
        options = self.options(scene)
        method = getattr(cache, self.name)
        if self.removes and "progress" in inspect.signature(method).parameters:
            options["progress"] = scene.removed.append
        return method(*self.arguments(scene), **options)

    def on(self, cache: Cache, scene: Scene) -> object:
        """Make the call."""
        result = self._prepare(cache, scene)
        return list(result) if self.name == "entries" else result

    async def awaited_on(self, cache: AsyncCache, scene: Scene) -> object:
        """Make the call, and await it."""
        result = self._prepare(cache, scene)
        return [each async for each in result] if self.name == "entries" else await result


CALLS = {
    call.name: call
    for call in (
        Call(
            "fetch",
            lambda scene: (scene.urls[0],),
            lambda scene: {"hashes": scene.new[0].digest},
            held="create",
            asks=True,
        ),
        Call(
            "fetch_all",
            lambda scene: ([f"{url}#{new.digest.replace(':', '=')}" for url, new in scene.pairs()],),
            lambda _: {"jobs": 2},
            held="create",
            asks=True,
        ),
        Call("put", lambda scene: (scene.source,), held="create"),
        Call(
            "metadata",
            lambda scene: (scene.urls[0],),
            lambda scene: {"hashes": scene.new[0].digest},
            held="scan",
            asks=True,
        ),
        Call("get", lambda scene: (scene.old[0].digest,), held="stat"),
        Call("entries", held="scan", busy=("stat", 100)),
        Call("stats", held="scan", busy=("scan", 100)),
        Call(
            "link",
            lambda scene: (scene.entries[0], scene.out / scene.old[0].filename),
            lambda _: {"mode": "copy"},
            held="create",
            busy=("copy", 1),
        ),
        Call(
            "unpack",
            lambda scene: (scene.entries[1], scene.out),
            lambda _: {"mode": "copy"},
            held="create",
            busy=("file.write", 3),
        ),
        Call("export", lambda scene: (scene.out,), lambda _: {"mode": "copy"}, held="create", busy=("create", 100)),
        Call("verify", busy=("open_read", 100)),
        Call("prune", options=lambda _: {"max_size": 0}, removes=True, busy=("unlink", 100)),
        Call("remove", lambda scene: tuple(old.digest for old in scene.old[:2]), removes=True, busy=("unlink", 2)),
        Call("clear", removes=True, busy=("unlink", 100)),
        Call("doctor", held="rename"),
    )
}
"""Every public call of both classes that does work."""


class Scene:
    """A cache with three wheels, of which one is unpacked, and two more wheels on a server and in a folder.

    Attributes:
        files: the file layer of the cache.
        removed: the events of removed entries.

    Args:
        many: the number of tiny entries that the cache has besides.
    """

    def __init__(self, folder: Path, server: Server, *, many: int = 0) -> None:
        self.folder = folder
        self.root = folder / "cache"
        self.out = folder / "out"
        self.server = server
        self.files = FaultyFiles()
        self.old = [_wheel(name) for name in ("alpha", "beta", "gamma")]
        self.new = [_wheel(name) for name in ("delta", "epsilon")]
        self.urls = [new.on(server) for new in self.new]
        self.source = folder / "new" / self.new[0].filename
        self.source.parent.mkdir(parents=True)
        self.source.write_bytes(self.new[0].data)
        self.removed: list[ProgressEvent] = []
        self.entries: list[CachedWheel] = []
        self.many = many
        if many:
            self.root.mkdir()
            build(self.root, many, System().boot())
        with Cache(self.root) as cache:
            for old in self.old:
                path = folder / old.filename
                path.write_bytes(old.data)
                self.entries.append(cache.put(path))
            cache.unpack(self.entries[0])

    def pairs(self) -> list[tuple[str, Wheel]]:
        """Return the new wheels with their URLs."""
        return list(zip(self.urls, self.new, strict=True))

    def _class(self) -> type[Cache]:
        class SceneCache(Cache):
            _system = replace(System(), files=self.files)

        return SceneCache

    def cache(self) -> Cache:
        """Open the cache on the file layer of the scene."""
        return self._class()(self.root, io_timeout=PATIENCE, lock_timeout=PATIENCE)

    def async_cache(self) -> AsyncCache:
        """Open the asynchronous cache on the file layer of the scene."""

        class SceneAsyncCache(AsyncCache):
            _cache_class = self._class()

        return SceneAsyncCache(self.root, io_timeout=PATIENCE, lock_timeout=PATIENCE)

    def check(self, call: Call, *, torn: bool = False) -> None:
        """Check that nothing is lost, open, locked, incomplete or running, and that the call now succeeds.

        Args:
            call: the call that was cancelled.
            torn: whether it may have been interrupted in the middle of a step.
        """
        self.files.plan = Plan()
        # A thread whose start was interrupted is not waited for, and ends by itself.
        end = time.monotonic() + SOON
        while names := [thread.name for thread in threading.enumerate() if thread.name.startswith("wheelcache")]:
            assert time.monotonic() < end, names
            time.sleep(0.001)
        assert [handle.path for handle in self.files.open_handles] == []
        self._check_leftovers()
        # A blob without its record is a miss, and the next caller who wants it uses it. So is one with half a record,
        # and a record without its blob.
        fine = {ProblemKind.ORPHANED} | ({ProblemKind.TORN, ProblemKind.MISSING} if torn else set())
        with Cache(self.root, io_timeout=1, lock_timeout=1) as again:
            assert {problem.kind for problem in again.verify().problems} <= fine
            gone = set()
            for old in self.old:
                found = again.get(old.digest)
                if found is None:
                    gone.add(old.filename)
                else:
                    assert found.path.read_bytes() == old.data
            there = {path.name for path in self.root.joinpath("v1", "wheels").rglob("*.whl")}
            gone |= {tiny.filename for tiny in map(Tiny, range(self.many))} - there
            reported = [event.wheel for event in self.removed]
            assert len(reported) == len(set(reported))
            assert call.removes or not gone
            assert gone >= set(reported)
            # Ctrl-C can hit the main thread between the removal of an entry and its event.
            assert len(gone) - len(reported) <= torn
            # Names of entries that were already removed are an error.
            if not self.many and not (gone and call.name == "remove"):
                call.on(again, self)

    def _check_leftovers(self) -> None:
        """Check that each unfinished file has an owner or can be resumed, and that no lock is held."""
        version = self.root / "v1"
        for name in ("tmp", "partial"):
            for path in version.joinpath(name).rglob("*"):
                assert path.is_dir() or _OWNED.search(path.name), path
        for path in version.joinpath("locks").glob("*"):
            with filelock.FileLock(path, timeout=0):
                pass
        assert list(version.joinpath("quarantine").glob("*")) == []
        for path in self.out.rglob("*"):
            assert not path.name.startswith(".wheelcache-") or _OWNED.search(path.name), path
