"""Small files of a cache with random changes: each call survives them, and nothing outside the cache changes.

A failure names its seed and its number. ``WHEELCACHE_FUZZ_SEED`` sets the first seed, and ``WHEELCACHE_FUZZ_COUNT`` the
number of iterations.
"""

from __future__ import annotations

import random
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from folders import files_in, listing
from machines import Machine
from marks import any_system
from mutations import change_file, described, first_seed, iterations
from scenarios import quick_folder
from server import Server
from wheels import Wheel, hex_of, make_wheel, wheel_filename

from wheelcache import Cache, CachedWheel, ProgressEvent, Status, WheelCacheError
from wheelcache._store.counters import _sum
from wheelcache._store.index import digest_in_pointer
from wheelcache._store.records import decode, decode_record
from wheelcache._unpack.marker import decode_marker

pytestmark = any_system

ALLOWED = (WheelCacheError, OSError, ValueError)


class StoppedError(Exception):
    """Stops a download."""


def stop(event: ProgressEvent) -> None:
    if event.done > 1 << 16:
        raise StoppedError


@dataclass
class World:
    """A cache folder that contains a small file of every kind, and the calls that read them."""

    folder: Path
    machine: Machine
    client: httpx.Client
    hashed: Wheel
    by_url: Wheel
    hashed_url: str
    url: str
    cut_url: str

    @property
    def template(self) -> Path:
        return self.folder / "template"

    @property
    def cache_folder(self) -> Path:
        return self.folder / "world" / "cache"

    def cache(self, folder: Path, **options: object) -> Cache:
        return self.machine.cache(folder, client=self.client, io_timeout=1.0, lock_timeout=1.0, **options)

    def small_files(self) -> list[Path]:
        """Return the small files of the template, relative to it."""
        found = [path for path in self.template.rglob("*") if path.is_file() and path.suffix in {".json", ".log"}]
        return sorted(path.relative_to(self.template) for path in found if ".dist-info" not in str(path))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Yield a world whose template was created once."""
    with quick_folder() as folder, Server() as server, httpx.Client(trust_env=False) as client:
        hashed, by_url = (Wheel(wheel_filename(name), make_wheel(name)) for name in ("demo", "other"))
        cut = Wheel(wheel_filename("cut"), make_wheel("cut", size=1 << 19))
        made = World(folder, Machine(), client, hashed, by_url, hashed.on(server), by_url.on(server), "")
        made.cut_url = cut.on(server)
        server.serve(hashed.path + ".metadata", b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        with made.cache(made.template) as cache:
            cache.metadata(made.hashed_url, hashes=hashed.digest)
            both = {"sha256": hashed.hex(), "sha512": hex_of(hashed.data, "sha512")}
            cache.unpack(cache.fetch(made.hashed_url, hashes=both))
            cache.unpack(cache.fetch(made.url))
            with pytest.raises(StoppedError):
                cache.fetch(made.cut_url, hashes=cut.digest, progress=stop)
        (folder / "world" / "outside" / "sub").mkdir(parents=True)
        (folder / "world" / "outside" / "file").write_bytes(b"outside")
        yield made


def calls(world: World, wheels: list[CachedWheel]) -> list[Callable[[Cache], object]]:
    """Return the calls that read small files. The later ones remove files."""
    dest = world.folder / "world" / "dest"
    return [
        lambda cache: cache.get(world.hashed.digest),
        lambda cache: cache.get(world.hashed.digest, filename=world.hashed.filename),
        lambda cache: cache.get("sha512:" + hex_of(world.hashed.data, "sha512")),
        lambda cache: list(cache.entries()),
        lambda cache: cache.stats(),
        lambda cache: cache.unpack(wheels[0]),
        lambda cache: cache.unpack(wheels[0], dest),
        lambda cache: cache.verify(),
        lambda cache: cache.fetch(world.hashed_url, hashes=world.hashed.digest),
        lambda cache: cache.fetch(world.url),
        lambda cache: cache.metadata(world.hashed_url, hashes=world.hashed.digest),
        lambda cache: cache.fetch(world.cut_url, hashes={"sha256": "0" * 64}),
        lambda cache: cache.prune(max_size=10**9),
        lambda cache: cache.verify(repair=True),
        lambda cache: cache.unpack(wheels[1], dest),
        lambda cache: cache.remove("demo"),
        lambda cache: cache.clear(),
    ]


def run_calls(world: World, path: Path, data: bytes) -> None:
    """Replace one small file in a copy of the template, and make all calls. Check that only the cache changes."""
    shutil.rmtree(world.cache_folder, ignore_errors=True)
    shutil.rmtree(world.folder / "world" / "dest", ignore_errors=True)
    shutil.copytree(world.template, world.cache_folder)
    (world.cache_folder / path).write_bytes(data)
    outside = listing(world.folder / "world" / "outside")
    wheels = [wheel_at(world.cache_folder, wheel) for wheel in (world.hashed, world.by_url)]
    installed = {Path(name).name for name in files_in(world.template)}
    for call in calls(world, wheels):
        with world.cache(world.cache_folder) as cache:
            try:
                call(cache)
            except ALLOWED:
                pass
    assert listing(world.folder / "world" / "outside") == outside
    assert {path.name for path in (world.folder / "world").iterdir()} <= {"cache", "dest", "outside"}
    assert {path.name for path in world.folder.iterdir()} == {"template", "world"}
    dest = world.folder / "world" / "dest"
    assert {Path(name).name for name in files_in(dest)} <= installed if dest.exists() else True


def wheel_at(folder: Path, wheel: Wheel) -> CachedWheel:
    digest = wheel.hex()
    path = folder / "v1" / "wheels" / digest[:2] / digest[2:] / wheel.filename
    return CachedWheel(path, wheel.filename, wheel.digest, wheel.size, {"sha256": digest}, None, Status.HIT)


def fuzz(world: World, seed: int, count: int) -> None:
    rng = random.Random(seed)
    paths = world.small_files()
    for number in range(count):
        path = paths[number % len(paths)]
        data = change_file(rng, (world.template / path).read_bytes())
        with described("seed", seed, "number", number, path, data=data):
            run_calls(world, path, data)


def test_the_world_has_small_files_of_every_kind(world: World) -> None:
    """There are records, markers, pointers, metadata, an origin file and counters."""
    areas = {path.parts[1] for path in world.small_files()}
    assert areas == {"wheels", "trees", "urls", "metadata", "partial", "tally.log"}


def test_changed_small_files_harm_no_call(world: World) -> None:
    """Whatever a small file contains, each call succeeds or raises a documented error, and writes only to the cache."""
    fuzz(world, first_seed(), iterations(40))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_changed_small_files_harm_no_call(seed: int, world: World) -> None:
    """The same holds for thousands of changes."""
    fuzz(world, first_seed() + seed, iterations(1000))


DECODERS: dict[str, Callable[[World, bytes], object]] = {
    "wheels": lambda world, data: decode_record(data, world.hashed.hex()),
    "trees": lambda world, data: decode_marker(data),
    "urls": lambda world, data: digest_in_pointer(data),
    "metadata": lambda world, data: decode(data),
    "tally.log": lambda world, data: _sum(data),
}


def decode_many(world: World, area: str, seed: int, count: int) -> None:
    rng = random.Random(f"{area} {seed}")
    paths = [path for path in world.small_files() if path.parts[1] == area]
    originals = [(world.template / path).read_bytes() for path in paths]
    for number in range(count):
        data = change_file(rng, rng.choice(originals))
        with described("seed", seed, "number", number, area, data=data):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            DECODERS[area](world, data)
            assert tracemalloc.get_traced_memory()[1] - before < (1 << 20) + 40 * len(data)


@pytest.mark.parametrize("area", DECODERS)
def test_changed_small_files_are_decoded_or_missing(area: str, world: World) -> None:
    """No content of a small file raises an error when it is decoded, or needs much memory."""
    tracemalloc.start()
    try:
        decode_many(world, area, first_seed(), iterations(400))
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("area", DECODERS)
def test_many_changed_small_files_are_decoded_or_missing(area: str, world: World) -> None:
    """The same holds for many thousands of changes."""
    tracemalloc.start()
    try:
        decode_many(world, area, first_seed() + 1, iterations(50_000))
    finally:
        tracemalloc.stop()
