"""The operations that the fault and kill tests run, each with an initial cache and the expected state."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from faulty import FaultyFiles
from machines import Machine
from wheels import hex_of, make_wheel, wheel_filename

from wheelcache import Cache, CachedWheel, LinkMode, Status

# With the drive letter under which Wine has the folder.
_IN_MEMORY = os.path.abspath("/dev/shm")

OLD, NEW = wheel_filename("old"), wheel_filename("new")
OLD_DATA, NEW_DATA = make_wheel("old", size=4000), make_wheel("new", size=5000)
SECOND_NAME = wheel_filename("new", "1.0.0")
HASHES = {"sha256": hex_of(NEW_DATA), "sha512": hex_of(NEW_DATA, "sha512")}


@contextmanager
def quick_folder() -> Iterator[Path]:
    """Return a temporary folder, in memory if possible: thousands of caches are made in it."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


class World:
    """One cache folder on one machine, with everything that a scenario needs."""

    def __init__(self, folder: Path, url: str, client: httpx.Client) -> None:
        self.folder = folder
        self.root = folder / "cache"
        self.out = folder / "out"
        self.source = folder / NEW
        self.url = url
        self.client = client
        self.files = FaultyFiles()
        self.machine = Machine(self.files)
        self.wheel: CachedWheel | None = None

    def cache(self, **options: object) -> Cache:
        return self.machine.cache(self.root, client=self.client, io_timeout=1.0, lock_timeout=1.0, **options)

    def make_ready(self, scenario: Scenario) -> None:
        """Make the folder and what the scenario finds in it."""
        self.folder.mkdir()
        self.source.write_bytes(NEW_DATA)
        if scenario.kept:
            self.put(OLD_DATA, OLD)
        scenario.before(self)

    def put(self, data: bytes, filename: str) -> Path:
        """Put a wheel into the cache, and return the path of its blob."""
        source = self.folder / filename
        source.write_bytes(data)
        with self.cache() as cache:
            self.wheel = cache.put(source)
            return self.wheel.path


def nothing(world: World) -> None:
    """An empty folder."""


@dataclass(frozen=True)
class Scenario:
    """An operation, and the cache that it starts from.

    Attributes:
        act: runs the operation, and checks its result.
        before: prepares the cache, without faults.
        options: the options of the cache on which the operation runs.
        kept: the entries that must exist afterwards in any case.
        gained: the entries that must exist after a success.
        documented: other exceptions that it may raise, about the caller's own paths.
        sure: whether a success in spite of a fault has created the entry; otherwise the next call creates it.
    """

    act: Callable[[Cache, World], None]
    before: Callable[[World], object] = nothing
    options: dict[str, object] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=lambda: {OLD: OLD_DATA})
    gained: dict[str, bytes] = field(default_factory=lambda: {NEW: NEW_DATA})
    documented: tuple[type[OSError], ...] = ()
    sure: bool = True


def seen(path: object, data: bytes = NEW_DATA) -> None:
    """Check that a file has these bytes."""
    assert Path(path).read_bytes() == data  # type: ignore[arg-type]


def put_new(cache: Cache, world: World) -> None:
    seen(cache.put(world.source))


def fetch(cache: Cache, world: World) -> None:
    seen(cache.fetch(world.url, hashes={"sha256": HASHES["sha256"]}))


def fetch_by_sha512(cache: Cache, world: World) -> None:
    seen(cache.fetch(world.url, hashes={"sha512": HASHES["sha512"]}))


def fetch_without_hash(cache: Cache, world: World) -> None:
    seen(cache.fetch(world.url))


def fetch_encoded(cache: Cache, world: World) -> None:
    seen(cache.fetch(world.url.replace("/" + NEW, "/encoded/" + NEW), hashes={"sha256": HASHES["sha256"]}))


def fetch_second_name(cache: Cache, world: World) -> None:
    wheel = cache.fetch(world.url, hashes={"sha256": HASHES["sha256"]}, filename=SECOND_NAME)
    assert wheel.filename == wheel.path.name == SECOND_NAME
    seen(wheel)


def hit(cache: Cache, world: World) -> None:
    wheel = cache.fetch("https://example.org/" + NEW, hashes={"sha256": HASHES["sha256"]})
    assert wheel.status is Status.HIT
    seen(wheel)


def look(cache: Cache, world: World) -> None:
    for wheel in cache.entries():
        seen(wheel, {OLD: OLD_DATA, NEW: NEW_DATA}[wheel.filename])
    assert cache.stats().wheels >= 1


def link_out(mode: LinkMode) -> Callable[[Cache, World], None]:
    def act(cache: Cache, world: World) -> None:
        assert world.wheel is not None
        used = cache.link(world.wheel, world.out / NEW, mode=mode)
        assert mode in {LinkMode.AUTO, used}
        seen(world.out / NEW)

    return act


def with_new(world: World) -> Path:
    return world.put(NEW_DATA, NEW)


def booted(world: World) -> None:
    with_new(world)
    world.machine.reboot()


def damaged(world: World) -> None:
    path = with_new(world)
    path.write_bytes(NEW_DATA[:-1] + b"?")
    os.utime(path, ns=(1, 1))


def without_record(world: World) -> None:
    with_new(world).with_suffix(".json").unlink()


def damaged_without_record(world: World) -> None:
    damaged(world)
    assert world.wheel is not None
    world.wheel.path.with_suffix(".json").unlink()


def with_torn_record(world: World) -> None:
    record = with_new(world).with_suffix(".json")
    record.write_bytes(record.read_bytes()[:60])


def with_target_out(world: World) -> None:
    with_new(world)
    world.out.mkdir()
    (world.out / NEW).write_bytes(NEW_DATA)


NEW_TOO = {OLD: OLD_DATA, NEW: NEW_DATA}
# Under Windows, the tests that sweep over all file operations run these scenarios, one of each kind.
UNDER_WINDOWS = (
    "open and put",
    "put over a damaged blob",
    "fetch",
    "repair",
    "hit after a boot",
    "link by hard link",
    "link by copy",
)
SCENARIOS = {
    "open and put": Scenario(put_new, kept={}, gained={NEW: NEW_DATA}),
    "put": Scenario(put_new),
    "put again": Scenario(put_new, with_new, kept=NEW_TOO),
    "put beside its blob": Scenario(put_new, without_record),
    "put over a torn record": Scenario(put_new, with_torn_record),
    "put over a damaged blob": Scenario(put_new, damaged),
    "fetch": Scenario(fetch),
    "fetch by sha512": Scenario(fetch_by_sha512),
    "fetch without hash": Scenario(fetch_without_hash),
    "fetch an encoded body": Scenario(fetch_encoded),
    "fetch a second name": Scenario(fetch_second_name, with_new, kept=NEW_TOO, gained={SECOND_NAME: NEW_DATA}),
    "repair": Scenario(fetch, damaged),
    "adopt": Scenario(fetch, without_record, sure=False),
    "fetch over a damaged blob without record": Scenario(fetch, damaged_without_record),
    "hit": Scenario(hit, with_new, kept=NEW_TOO),
    "hit after a boot": Scenario(hit, booted, kept=NEW_TOO),
    "hit read-only": Scenario(hit, booted, options={"read_only": True}, kept=NEW_TOO),
    "hit with full verification": Scenario(hit, with_new, options={"verify": "full"}, kept=NEW_TOO),
    "look": Scenario(look, with_new, kept=NEW_TOO),
    "look at a damaged one": Scenario(look, damaged, gained={}),
    "link": Scenario(
        link_out(LinkMode.AUTO),
        with_new,
        kept=NEW_TOO,
        documented=(FileNotFoundError,),
    ),
    "link by hard link": Scenario(link_out(LinkMode.HARDLINK), with_new, kept=NEW_TOO),
    "link by copy": Scenario(
        link_out(LinkMode.COPY),
        with_new,
        kept=NEW_TOO,
        documented=(FileNotFoundError,),
    ),
    "link onto the same": Scenario(link_out(LinkMode.AUTO), with_target_out, kept=NEW_TOO),
}


def deaths(world: World, scenario: Scenario) -> list[tuple[int, str]]:
    """Run an operation without faults, and return every moment at which its process can be killed.

    These are before each call, and halfway through those that can be divided. After a call is before the next one.
    """
    world.make_ready(scenario)
    begun = len(world.files.trace)
    with world.cache(**scenario.options) as cache:
        scenario.act(cache, world)
    calls = world.files.trace[begun:]
    moments = [
        (number, moment)
        for number, call in enumerate(calls, 1)
        for moment in (["before"] if call.half is None else ["before", "half"])
    ]
    return [*moments, (len(calls), "after")]
