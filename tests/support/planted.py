"""A cache in which somebody replaced one file or folder by another kind of object, and all calls that meet it.

A :class:`Scene` has a cache with every kind of file, and a folder outside of it. That folder contains private files,
and copies of the cache's own files that differ in their contents. A planted link leads to such a copy, so that a call
which follows the link finds names and sizes as expected, and returns or changes the contents of the copy.

    scene = Scene(folder, USERS["alone"])
    faults = scene.run(Combination("urls", "link to a folder", "prune"))

The module needs no pytest, because ``children/plant.py`` uses it as other users.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import functools
import gc
import hashlib
import importlib
import io
import os
import pickle
import pkgutil
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from traces import BY_HAND
from wheels import Wheel, make_wheel, wheel_filename

import wheelcache
from wheelcache import AsyncCache, Cache, CachedWheel, CacheTransport, Stats, Status, Unpacked, WheelCacheError
from wheelcache._fs.tempnames import OwnerTag
from wheelcache._store.layout import Layout
from wheelcache._store.records import decode, decode_record, encode, encode_record

ANNE, BERT, TEAM = 41_001, 41_002, 41_100

CANARY = "outsidecanary"
"""A word in the contents, and in some names, of all files outside. It is also the name of a project."""
_GIANT = 10**11
"""The size of a sparse file outside. Any sum that contains it is recognised."""
_LEVELS = 1200
"""The levels of nested folders that are planted. A function that calls itself for each would fail."""
_HUGE = 1 << 30
"""The size of a sparse file that is planted in place of a small file."""

_SECONDS = 20.0
"""The time after which a call counts as hanging."""
_MEMORY = 1 << 29
"""The bytes by which the address space may grow during a call."""
# From <linux/fcntl.h> and <linux/fs.h>.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_LONG_AGO = 1_000_000_000
_INDEX = "https://example.org/files/"
_REGULAR = (WheelCacheError, OSError, ValueError)


class Users(NamedTuple):
    """The users of a cache: its owner and mode, the user who plants, and the user who calls."""

    owner: int
    group: int
    mode: int
    planter: int
    caller: int
    groups: tuple[int, ...] = ()


_SELF = os.geteuid()
USERS = {
    "alone": Users(_SELF, os.getegid(), 0o700, _SELF, _SELF),
    "root in a user's cache": Users(ANNE, ANNE, 0o755, ANNE, 0),
    "a member of a group": Users(0, TEAM, 0o2775, ANNE, BERT, (TEAM,)),
    "root in a group's cache": Users(0, TEAM, 0o2775, ANNE, 0, (TEAM,)),
}
"""Only root can be other users than ``alone``."""


class Combination(NamedTuple):
    """One planted object and one call.

    Attributes:
        area: the place of the object, one of :data:`AREAS`.
        kind: the object, one of :data:`KINDS`.
        call: one of :data:`CALLS`.
        is_open: whether the cache object is opened, and used, before the object is planted.
    """

    area: str
    kind: str
    call: str
    is_open: bool = False


def _wheel(name: str, size: int = 6000) -> Wheel:
    return Wheel(wheel_filename(name), make_wheel(name, size=size))


ALPHA, BETA, GAMMA = _wheel("alpha"), _wheel("beta"), _wheel("gamma")
"""A wheel with a tree and pointers, a wheel in a numbered place, and a wheel that is not in the cache."""
DELTA, EPSILON = _wheel("delta", 200_000), _wheel("epsilon")
"""A wheel of which a part was downloaded, and a wheel of which only METADATA is in the cache."""
WHEELS = {wheel.filename: wheel for wheel in (ALPHA, BETA, GAMMA, DELTA, EPSILON)}
_BY_DIGEST = {wheel.digest: wheel for wheel in WHEELS.values()}


@functools.cache
def canary_wheel() -> Wheel:
    """Return a wheel that is only outside, and whose digest has the first digits of ALPHA's."""
    for size in range(3000, 20_000):
        wheel = _wheel(CANARY, size)
        if wheel.hex()[:2] == ALPHA.hex()[:2]:
            return wheel
    raise AssertionError("no such wheel")


def members(wheel: Wheel) -> dict[str, bytes]:
    """Return the files in a wheel."""
    with contextlib.closing(io.BytesIO(wheel.data)) as file, zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def url_of(wheel: Wheel) -> str:
    return _INDEX + wheel.filename


class _Slowly(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in pieces, so that a download can be interrupted."""

    def __init__(self, body: bytes) -> None:
        self._parts = [body[start : start + 20_000] for start in range(0, len(body), 20_000)]

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts

    async def __aiter__(self) -> Any:
        for part in self._parts:
            yield part


def answer(request: httpx.Request) -> httpx.Response:
    """Answer as an index does that has all wheels and their METADATA."""
    name = request.url.path.rpartition("/")[2]
    wheel = WHEELS.get(name.removesuffix(".metadata"))
    if wheel is None:
        return httpx.Response(404)
    body = metadata_of(wheel) if name.endswith(".metadata") else wheel.data
    headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:16]}"', "Cache-Control": "max-age=31536000"}
    status, wanted = 200, request.headers.get("range", "")
    if wanted.startswith("bytes="):
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(body) - int(last)
        end = int(last) + 1 if first and last else len(body)
        headers["Content-Range"] = f"bytes {start}-{min(end, len(body)) - 1}/{len(body)}"
        status, body = 206, body[start:end]
    return httpx.Response(status, headers={**headers, "Content-Length": str(len(body))}, stream=_Slowly(body))


def metadata_of(wheel: Wheel) -> bytes:
    return next(data for name, data in members(wheel).items() if name.endswith(".dist-info/METADATA"))


def client_of_index() -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(answer), trust_env=False)


class _StopError(Exception):
    pass


def build(root: Path) -> None:
    """Fill a cache with a file of every kind."""
    layout = Layout(str(root))
    with client_of_index() as client, Cache(root, client=client) as cache:
        cache.unpack(cache.fetch(url_of(ALPHA)))
        cache.fetch(url_of(ALPHA), hashes=f"sha512:{ALPHA.hex('sha512')}")
        cache.fetch(url_of(BETA), hashes=BETA.digest)
        cache.metadata(url_of(EPSILON), hashes=EPSILON.digest)

        def stop(event: Any) -> None:
            if event.done > 50_000:
                raise _StopError

        with contextlib.suppress(_StopError):
            cache.fetch(url_of(DELTA), hashes=DELTA.digest, progress=stop)
        cache.stats()
    with by_hand():
        _add_by_hand(root, layout)


@contextlib.contextmanager
def by_hand() -> Iterator[None]:
    """Mark the system calls of a test itself, so that they are skipped in a trace."""
    _mark("begin")
    try:
        yield
    finally:
        _mark("end")


def _mark(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(f"{BY_HAND}/{name}")


def _add_by_hand(root: Path, layout: Layout) -> None:
    record = Path(layout.record(BETA.hex(), BETA.filename))
    found = decode_record(record.read_bytes(), BETA.hex())
    assert found is not None
    place = Path(layout.blob(BETA.hex(), BETA.filename, 1))
    place.parent.mkdir()
    os.rename(layout.blob(BETA.hex(), BETA.filename, 0), place)
    record.write_bytes(encode_record(found._replace(place=1)))
    owner = OwnerTag.new(_LONG_AGO, "an earlier boot")
    for name in ("tmp", "locks", "quarantine"):
        (root / "v1" / name).mkdir(exist_ok=True)
    for path in (layout.new_temporary(owner), layout.lock(_lock_key()), layout.quarantined(owner, "bad.whl")):
        Path(path).write_bytes(b"")
        os.utime(path, (_LONG_AGO, _LONG_AGO))


def _lock_key() -> str:
    from wheelcache._request import parse_request

    return parse_request(url_of(GAMMA), GAMMA.digest, None, None).key


_ALPHA_ENTRY = f"v1/wheels/{ALPHA.hex()[:2]}/{ALPHA.hex()[2:]}"
_BETA_ENTRY = f"v1/wheels/{BETA.hex()[:2]}/{BETA.hex()[2:]}"
_TREE_SHARD = f"v1/trees/{ALPHA.hex()[:2]}"

# The places of planted objects, as patterns below the cache folder. A missing one is created, and then replaced.
FOLDERS = {
    "v1": "v1",
    "wheels": "v1/wheels",
    "a shard of wheels": f"v1/wheels/{ALPHA.hex()[:2]}",
    "the shard of a new wheel": f"v1/wheels/{GAMMA.hex()[:2]}",
    "an entry": _ALPHA_ENTRY,
    "the entry of a new wheel": f"v1/wheels/{GAMMA.hex()[:2]}/{GAMMA.hex()[2:]}",
    "a numbered place": f"{_BETA_ENTRY}/1",
    "trees": "v1/trees",
    "a shard of trees": _TREE_SHARD,
    "the shard of a new tree": f"v1/trees/{BETA.hex()[:2]}",
    "a tree": f"{_TREE_SHARD}/{ALPHA.hex()[2:22]}-0",
    "a new tree": f"v1/trees/{BETA.hex()[:2]}/{BETA.hex()[2:22]}-0",
    "a folder in a tree": f"{_TREE_SHARD}/{ALPHA.hex()[2:22]}-0/alpha-1.0.dist-info",
    "urls": "v1/urls",
    "a shard of urls": "v1/urls/??",
    "metadata": "v1/metadata",
    "a shard of metadata": "v1/metadata/??",
    "partial": "v1/partial",
    "a shard of partial": "v1/partial/??",
    "tmp": "v1/tmp",
    "locks": "v1/locks",
    "quarantine": "v1/quarantine",
}
FILES = {
    "a record": f"{_ALPHA_ENTRY}/*.json",
    "a blob": f"{_ALPHA_ENTRY}/*.whl",
    "the record of a place": f"{_BETA_ENTRY}/*.json",
    "the blob of a place": f"{_BETA_ENTRY}/1/*.whl",
    "a marker": f"{_TREE_SHARD}/*.json",
    "a file in a tree": f"{_TREE_SHARD}/*-0/alpha.py",
    "the pointer of a URL": "v1/urls/{url}",
    "the pointer of a hash": "v1/urls/{sha512}",
    "a metadata file": "v1/metadata/*/*.json",
    "a partial file": "v1/partial/*/*.part",
    "an origin file": "v1/partial/*/*.json",
    "a lock file": "v1/locks/*.lock",
    "a temporary file": "v1/tmp/*.tmp",
    "a file in quarantine": "v1/quarantine/*",
    "the tally file": "v1/tally.log",
    "a sealed tally file": f"v1/tally-{OwnerTag.new(_LONG_AGO, 'an earlier boot')}.log",
    "CACHEDIR.TAG": "CACHEDIR.TAG",
    ".gitignore": ".gitignore",
}
AREAS = {**FOLDERS, **FILES}
NEW = {
    "a new tree": FOLDERS["a new tree"],
    "a folder in a new tree": f"{FOLDERS['a new tree']}/beta-1.0.dist-info",
}
"""Folders that a call creates, and that another process exchanges as soon as they exist."""
SWAPPED = {
    "put": ["v1", "wheels", "the shard of a new wheel", "the entry of a new wheel", "tmp"],
    "unpack to a new tree": ["trees", "the shard of a new tree", *NEW],
    "unpack": ["trees", "a shard of trees", "a tree", "a folder in a tree"],
    "remove a digest": ["wheels", "a shard of wheels", "an entry", "a tree", "a folder in a tree", "a shard of urls"],
}
SWAPPED |= {
    call: [area for area in FOLDERS if "new" not in area]
    for call in ("fetch with max_size", "prune to a size", "clear", "verify with repair")
}
SWAPPED |= {
    "unpack as hard links": ["a folder in a tree"],
    "link as a hard link": ["a blob", "an entry"],
    "export": ["a blob", "the blob of a place", "an entry"],
    "stats": ["the tally file", "quarantine", "partial"],
    "kept metadata": ["a metadata file", "a shard of metadata"],
    "fetch by URL": ["a record", "a blob", "the pointer of a URL"],
    "fetch and resume": ["a partial file", "an origin file", "a shard of partial"],
}
SWAPPED["unpack"] += ["a marker"]
"""The calls that are made while a file or folder is exchanged with a link, and these files and folders."""

SWAPPED_BY_OTHERS = {call: areas[::3] for call, areas in SWAPPED.items()}
# In a private cache, only the same user can exchange a file. There, a file is not checked again after it was linked.
SWAPPED_BY_OTHERS["unpack"] += ["a file in a tree"]
SWAPPED_BY_OTHERS["unpack as hard links"] += ["a file in a tree"]
"""The same, for files and folders that another user exchanges."""


# Planting: each function gets the scene and the path, which has been moved away.


def _link_to(target: str) -> Callable[[Scene, Path], None]:
    return lambda scene, path: os.symlink(scene.outside / target, path)


def _socket(scene: Scene, path: Path) -> None:
    # The path of a socket is short. The socket is bound in a short folder, and moved.
    short = scene.folder / "s"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(short))
    os.rename(short, path)


def _device(scene: Scene, path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def _folder(scene: Scene, path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("a file in a folder in place of a file")


def _huge(scene: Scene, path: Path) -> None:
    path.touch()
    os.truncate(path, _HUGE)


def _deep_folder(scene: Scene, path: Path) -> None:
    """Create so many nested folders that a recursion would be too deep."""
    path.mkdir()
    folder = os.open(path, os.O_RDONLY)
    for _ in range(_LEVELS):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)


def _odd_folder(scene: Scene, path: Path) -> None:
    """Restore a folder, and add objects of all kinds under names that the cache uses, and under invalid names."""
    copy(scene.folder / "old", path)
    tag = OwnerTag.new(_LONG_AGO, "an earlier boot")
    names = [
        "ff", "f" * 62, "f" * 62 + ".json", "f" * 20 + "-0", "f" * 20 + "-0.json", f"{ALPHA.hex()[2:22]}-1", "2", "3",
        f"{ALPHA.hex()[2:22]}-1.json", f"{tag}.tmp", "f" * 32 + f".{tag}.ffffffff.part", "f" * 32 + ".lock",
        f"tally-{tag}.log", f"{tag}-bad.whl", "beta-1.0-py3-none-any.whl", "beta-1.0-py3-none-any.json", ".whl",
        ".json", "a\nb.json", "a\\b.whl", "x" * 255, os.fsdecode(b"\xff.whl"), os.fsdecode(b"\xff.json"), "gamma.py",
    ]  # fmt: skip
    plants = [_link_to("twin folder"), _link_to("twin file"), _link_to("missing"), _pipe, _socket, Path.mkdir]
    start = sorted(FOLDERS.values()).index(scene.pattern) if scene.pattern in FOLDERS.values() else 0
    for number, name in enumerate(names):
        plant = plants[(start + number) % len(plants)]
        target = path / name
        if not os.path.lexists(target):
            if plant is Path.mkdir:
                target.mkdir()
                _pipe(scene, target / f"{tag}.tmp")
                (target / "private.txt").symlink_to(scene.outside / "twin file")
            else:
                plant(scene, target)


def _pipe(scene: Scene, path: Path) -> None:
    os.mkfifo(path, 0o666)


class Kind(NamedTuple):
    """A kind of planted object, and whether it replaces folders and files."""

    plant: Callable[[Scene, Path], None]
    for_folders: bool = True
    for_files: bool = True


KINDS = {
    "link to a folder": Kind(_link_to("twin folder")),
    "link to a copy": Kind(_link_to("same")),
    "link to a file": Kind(_link_to("twin file")),
    "dangling link": Kind(_link_to("missing")),
    "FIFO": Kind(_pipe),
    "device": Kind(_device),
    "link to a device": Kind(lambda _, path: os.symlink("/dev/zero", path)),
    "socket": Kind(_socket),
    "folder": Kind(_folder, for_folders=False),
    "file": Kind(lambda _, path: path.write_text("a file in place of a folder"), for_files=False),
    "huge file": Kind(_huge, for_folders=False),
    "deep folder": Kind(_deep_folder),
    "folder of odd names": Kind(_odd_folder, for_files=False),
}


_USES = {
    "cache": ["v1", "CACHEDIR.TAG", ".gitignore", "the tally file", "a sealed tally file"],
    "entry": ["a record", "a blob", "an entry", "a shard of wheels", "wheels"],
    "place": ["the record of a place", "the blob of a place", "a numbered place"],
    "new": ["the entry of a new wheel", "the shard of a new wheel", "tmp", "wheels"],
    "lock": ["a lock file", "locks"],
    "tree": ["a marker", "a file in a tree", "a tree", "a folder in a tree", "a shard of trees", "trees"],
    "new tree": ["a new tree", "the shard of a new tree", "trees"],
    "URL": ["the pointer of a URL", "a shard of urls", "urls"],
    "hash": ["the pointer of a hash", "a shard of urls", "urls"],
    "metadata": ["a metadata file", "a shard of metadata", "metadata"],
    "partial": ["a partial file", "an origin file", "a shard of partial", "partial"],
    "rest": ["a temporary file", "a file in quarantine", "quarantine", "tmp"],
}
_USES["everything"] = list(dict.fromkeys(area for areas in _USES.values() for area in areas))
# The first word or words of calls, and the areas that they use.
_CALLS_BY_USE = {
    "open": "cache",
    "fetch a hit in a place": "place",
    "fetch a hit": "entry",
    "fetch a new wheel by URL": "new URL lock",
    "fetch a new wheel": "new lock",
    "fetch by sha512": "hash entry",
    "fetch and resume": "partial",
    "fetch by URL": "URL entry",
    "fetch and refresh": "URL entry",
    "put again in a place": "place",
    "put again": "entry",
    "put with sha512": "new hash",
    "put": "new",
    "get from a place": "place",
    "get by sha512": "hash entry",
    "get": "entry",
    "entries": "entry place",
    "link from a place": "place",
    "link": "entry",
    "unpack to a new tree": "new_tree place",
    "unpack a new tree": "new_tree place",
    "unpack": "tree",
    "export": "entry place",
    "metadata": "entry",
    "kept metadata": "metadata",
    "new metadata": "metadata",
}


def areas_of(call: str) -> list[str]:
    """Return the areas that a call uses."""
    uses = next((uses for start, uses in _CALLS_BY_USE.items() if call.startswith(start)), "everything")
    return [area for use in uses.split() for area in _USES[use.replace("_", " ")]]


def selection(kind: str) -> list[Combination]:
    """Return combinations with every call and every area."""
    chosen: list[Combination] = []
    possible = [area for area in AREAS if applies(area, kind)]
    missing = set(possible)
    turn = list(KINDS).index(kind)
    for number, call in enumerate(CALLS):
        areas = [area for area in areas_of(call) if applies(area, kind)] or possible
        first = next((area for area in areas if area in missing), None)
        start = (turn + number) % len(areas)
        area = first or areas[start]
        missing.discard(area)
        chosen.append(Combination(area, kind, call, len(chosen) % 2 == 0))
    assert not missing, missing
    return chosen


def product(kind: str) -> list[Combination]:
    """Return all combinations."""
    return [
        Combination(area, kind, call, (number + len(call)) % 2 == 0)
        for number, area in enumerate(AREAS)
        if applies(area, kind)
        for call in CALLS
    ]


def applies(area: str, kind: str) -> bool:
    """Return whether this kind of object can replace the file or folder of this area."""
    return KINDS[kind].for_folders if area in FOLDERS else KINDS[kind].for_files


def can_make_devices(folder: Path) -> bool:
    """Return whether a device can be created, and opened, in a folder."""
    try:
        _device(None, folder / "device")  # type: ignore[arg-type]
        with open(folder / "device", "rb", buffering=0) as file:
            return file.read(1) == b"\0"
    except OSError:
        return False


# Calls: each gets the open cache and the scene.

_Call = Callable[[Cache, "Scene"], Any]
CALLS: dict[str, _Call] = {}
OPTIONS: dict[str, dict[str, Any]] = {}


def _call(name: str, **options: Any) -> Callable[[_Call], _Call]:
    def register(function: _Call) -> _Call:
        CALLS[name], OPTIONS[name] = function, options
        return function

    return register


def _requests(*wheels: Wheel) -> list[str]:
    return [f"{url_of(wheel)}#{wheel.digest.replace(':', '=')}" for wheel in wheels]


_call("open")(lambda cache, scene: None)
_call("fetch a hit")(lambda cache, scene: _only(cache.fetch(url_of(ALPHA), hashes=ALPHA.digest), ALPHA))
_call("fetch a hit, fully", verify="full")(
    lambda cache, scene: _only(cache.fetch(url_of(ALPHA), hashes=ALPHA.digest), ALPHA)
)
_call("fetch a hit in a place")(lambda cache, scene: _only(cache.fetch(url_of(BETA), hashes=BETA.digest), BETA))
_call("fetch a new wheel")(lambda cache, scene: _only(cache.fetch(url_of(GAMMA), hashes=GAMMA.digest), GAMMA))
_call("fetch by sha512")(
    lambda cache, scene: _only(cache.fetch(url_of(ALPHA), hashes=f"sha512:{ALPHA.hex('sha512')}"), ALPHA)
)
_call("fetch by URL")(lambda cache, scene: _only(cache.fetch(url_of(ALPHA)), ALPHA))
_call("fetch a new wheel by URL")(lambda cache, scene: _only(cache.fetch(url_of(GAMMA)), GAMMA))
_call("fetch and refresh")(lambda cache, scene: _only(cache.fetch(url_of(ALPHA), refresh=True), ALPHA))
_call("fetch and resume")(lambda cache, scene: _only(cache.fetch(url_of(DELTA), hashes=DELTA.digest), DELTA))
_call("fetch with max_size", max_size=1)(
    lambda cache, scene: _only(cache.fetch(url_of(GAMMA), hashes=GAMMA.digest), GAMMA)
)
_call("fetch_all")(
    lambda cache, scene: cache.fetch_all(
        [url_of(ALPHA), *_requests(ALPHA, BETA, GAMMA, DELTA)], jobs=2, return_exceptions=True
    )
)
_call("put")(lambda cache, scene: _only(cache.put(scene.source(GAMMA)), GAMMA))
_call("put with sha512")(
    lambda cache, scene: _only(cache.put(scene.source(GAMMA), hashes=f"sha512:{GAMMA.hex('sha512')}"), GAMMA)
)
_call("put again")(lambda cache, scene: _only(cache.put(scene.source(ALPHA)), ALPHA))
_call("put again in a place")(lambda cache, scene: _only(cache.put(scene.source(BETA)), BETA))
_call("get")(lambda cache, scene: _only(cache.get(ALPHA.digest), ALPHA))
_call("get from a place")(lambda cache, scene: _only(cache.get(BETA.digest), BETA))
_call("get by sha512")(lambda cache, scene: _only(cache.get(f"sha512:{ALPHA.hex('sha512')}"), ALPHA))
_call("contains")(lambda cache, scene: [wheel.digest in cache for wheel in WHEELS.values()])
_call("entries")(lambda cache, scene: list(cache.entries()))
_call("stats")(lambda cache, scene: cache.stats())
_call("link")(lambda cache, scene: cache.link(scene.known[0], scene.out))
_call("link as a hard link")(lambda cache, scene: cache.link(scene.known[0], scene.out, mode="hardlink"))
_call("link from a place")(lambda cache, scene: cache.link(scene.known[1], scene.out))
_call("unpack to a tree")(lambda cache, scene: cache.unpack(scene.known[0]))
_call("unpack")(lambda cache, scene: cache.unpack(scene.known[0], scene.out))
_call("unpack as hard links")(lambda cache, scene: cache.unpack(scene.known[0], scene.out, mode="hardlink"))
_call("unpack to a new tree")(lambda cache, scene: cache.unpack(scene.known[1]))
_call("unpack a new tree")(lambda cache, scene: cache.unpack(scene.known[1], scene.out, mode="copy"))
_call("export")(lambda cache, scene: cache.export(scene.out))
_call("export some")(lambda cache, scene: cache.export(scene.out, scene.known))
_call("metadata")(lambda cache, scene: _metadata(cache.metadata(url_of(ALPHA), hashes=ALPHA.digest), ALPHA))
_call("kept metadata")(lambda cache, scene: _metadata(cache.metadata(url_of(EPSILON), hashes=EPSILON.digest), EPSILON))
_call("new metadata")(lambda cache, scene: _metadata(cache.metadata(url_of(GAMMA), hashes=GAMMA.digest), GAMMA))
_call("verify")(lambda cache, scene: cache.verify())
_call("verify with repair")(lambda cache, scene: cache.verify(repair=True))
_call("prune")(lambda cache, scene: cache.prune())
_call("prune to a size")(lambda cache, scene: cache.prune(max_size=0))
_call("prune by age")(lambda cache, scene: cache.prune(max_age=0))
_call("prune with keep")(lambda cache, scene: cache.prune(keep=BETA.digest))
_call("prune in a dry run")(lambda cache, scene: cache.prune(max_size=0, dry_run=True))
_call("remove a digest")(lambda cache, scene: cache.remove(ALPHA.digest))
_call("remove a project")(lambda cache, scene: cache.remove("beta"))
_call("clear")(lambda cache, scene: cache.clear())
_call("doctor")(lambda cache, scene: cache.doctor())


@_call("requests through CacheTransport")
def _transport(cache: Cache, scene: Scene) -> object:
    transport = CacheTransport(cache, next=httpx.MockTransport(answer))
    with httpx.Client(transport=transport, trust_env=False) as client:
        for wheel in (ALPHA, GAMMA):
            for url in (url_of(wheel), *_requests(wheel)):
                response = client.get(url)
                if response.status_code != 200 or response.content != wheel.data:
                    raise WrongResultError(f"a response of {response.status_code} with other bytes")
    return None


@_call("AsyncCache")
def _asynchronous(cache: Cache, scene: Scene) -> object:
    async def main() -> object:
        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(answer), trust_env=False) as client,
            AsyncCache(scene.root, client=client) as other,
        ):
            results: list[object] = []
            for start in (
                lambda: other.fetch(url_of(GAMMA), hashes=GAMMA.digest),
                lambda: other.fetch_all(_requests(ALPHA, DELTA), return_exceptions=True),
                lambda: other.unpack(scene.known[0], scene.out),
                lambda: other.put(scene.source(GAMMA)),
                lambda: other.get(ALPHA.digest),
                other.verify,
                lambda: other.prune(max_size=0),
                other.clear,
            ):
                try:
                    results.append(await start())
                except _REGULAR as error:
                    results.append(error)
            # The wheels and the tree of the first calls were removed by the last ones.
            return [result for result in results if not isinstance(result, list | CachedWheel)]

    return asyncio.run(main())


@_call("use as a layer")
def _layer(cache: Cache, scene: Scene) -> object:
    results: list[object] = []
    with client_of_index() as client, Cache(scene.own, client=client, layers=[scene.root]) as other:
        for start in (
            lambda: other.fetch(url_of(ALPHA), hashes=ALPHA.digest),
            lambda: other.fetch(url_of(BETA), hashes=BETA.digest),
            lambda: other.fetch(url_of(ALPHA)),
            lambda: other.unpack(scene.known[0], scene.out),
            lambda: other.unpack(scene.known[0]),
            lambda: other.export(scene.out, scene.known),
        ):
            try:
                results.append(start())
            except _REGULAR as error:
                results.append(error)
    return results


@_call("use read-only", read_only=True)
def _read_only(cache: Cache, scene: Scene) -> object:
    results: list[object] = []
    for start in (
        lambda: cache.get(ALPHA.digest),
        lambda: cache.fetch(url_of(BETA), hashes=BETA.digest),
        lambda: cache.unpack(scene.known[0], scene.out),
        lambda: list(cache.entries()),
        cache.stats,
        cache.verify,
        lambda: cache.clear(dry_run=True),
    ):
        try:
            results.append(start())
        except _REGULAR as error:
            results.append(error)
    return results


class WrongResultError(Exception):
    """A call returned anything from outside of the cache."""


def _only(wheel: CachedWheel | None, expected: Wheel) -> CachedWheel | None:
    if wheel is not None and wheel.digest != expected.digest:
        raise WrongResultError(f"the wheel {wheel.filename} for {expected.filename}")
    return wheel


def _metadata(data: bytes, wheel: Wheel) -> None:
    if data != metadata_of(wheel):
        raise WrongResultError(f"METADATA {data!r}")


class Scene:
    """A folder with a cache, private files outside of it, sources of wheels, and an empty folder for results.

    Attributes:
        root: the cache.
        outside: the folder of private files. It belongs to the user who calls, and nobody else can read it.
        out: the folder for the results of a call.
        own: another cache, for calls that use ``root`` as a layer.
        known: the wheels of ALPHA and BETA, as the cache returned them.
        pattern: the path of the planted object, as in :data:`AREAS`.
    """

    def __init__(self, folder: Path, users: Users) -> None:
        self.folder = folder
        self.users = users
        self.root = folder / "cache"
        self.outside = folder / "outside"
        self.out = folder / "out"
        self.own = folder / "own"
        self.known: list[CachedWheel] = []
        self.pattern = ""
        self._template = folder / "template"
        self._other = folder / "other"
        folder.chmod(0o755)
        (folder / "sources").mkdir()
        for wheel in WHEELS.values():
            self.source(wheel).write_bytes(wheel.data)
        load_everything()
        for encoding in ("ascii", "cp437", "idna", "latin-1", "utf-8", "utf-8-sig"):
            codecs.lookup(encoding)  # each is loaded by its first use
        self._make_folder(folder / "first", _SELF, os.getegid(), 0o700)
        build(folder / "first")
        self._make_folder(self._template, users.owner, users.group, users.mode)
        self._make_folder(self._other, users.caller, users.caller, 0o700)
        builder = users.caller if users.groups else users.owner
        self._as_user(lambda: build(self._template), builder)
        self._as_user(self._build_other, users.caller)

    def source(self, wheel: Wheel) -> Path:
        """Return the path of a wheel outside of the cache."""
        return self.folder / "sources" / wheel.filename

    def _build_other(self) -> None:
        wheel = canary_wheel()
        with Cache(self._other / "cache") as cache:
            cache.unpack(cache.put(io.BytesIO(wheel.data), filename=wheel.filename))

    @staticmethod
    def _make_folder(path: Path, owner: int, group: int, mode: int) -> None:
        path.mkdir()
        if _SELF == 0:
            os.chown(path, owner, group)
        path.chmod(mode)

    def _as_user(self, action: Callable[[], object], user: int) -> None:
        child = _Child(action, user, self.users)
        result = child.result()
        if result:
            raise RuntimeError(result)

    def run(self, combination: Combination, seconds: float = _SECONDS) -> list[str]:
        """Plant an object, make a call, and return the descriptions of everything that is wrong."""
        self._reset()
        ready, go = os.pipe(), os.pipe()

        def perform() -> str:
            call, options = CALLS[combination.call], OPTIONS[combination.call]
            with client_of_index() as client, Cache(self.root, client=client) as cache:
                self.known = [self._use(cache, wheel) for wheel in (ALPHA, BETA)]
                cache.unpack(self.known[0])
            opened: Cache | None = None
            client = client_of_index()
            options = {"client": client, "lock_timeout": 5, "io_timeout": 5, **options}
            if combination.is_open:
                opened = Cache(self.root, **options)
                for wheel in self.known:
                    opened.get(wheel.digest)
                opened.unpack(self.known[0], self.own.parent / "own" / "first", mode="copy")
            os.write(ready[1], b"1")
            os.read(go[0], 1)
            return self._call(call, opened, options)

        child = _Child(perform, self.users.caller, self.users)
        try:
            if not child.wait_for(ready[0], seconds):
                return [f"the cache could not be used before: {child.result()}"]
            self.plant(combination.area, combination.kind)
            before = self.snapshot()
            os.write(go[1], b"1")
            result = child.result(seconds)
        finally:
            child.kill()
            for handle in (*ready, *go):
                os.close(handle)
        changes = differences(before, self.snapshot())
        return [*([result] if result else []), *changes]

    def swap(self, area: str, call: str, seconds: float = _SECONDS) -> list[str]:
        """Make a call while another process exchanges a file or folder, and a link to its copy outside, all the time.

        The folder contains a file of the same name as the folder outside, so that there is a reason to remove it.
        """
        self._reset()
        path = self.path_of(area)
        aside = self.root / "v1" / "aside" if area != "v1" else self.root / "aside"
        if area in FOLDERS and not path.exists():
            self._make_folder(path, self.users.planter, self.users.group, self.users.mode)
        self._fill_outside(area, path)
        if area in FOLDERS:
            path.joinpath("private.txt").write_text("a foreign file")
        aside.symlink_to(self.outside / ("twin file" if area in FILES else "twin folder"))
        before = self.snapshot()
        started = os.pipe()
        self.known = [self._known(wheel) for wheel in (ALPHA, BETA)]
        swapping = _Child(lambda: exchange(path, aside, started[1]), self.users.planter, self.users)
        try:
            swapping.wait_for(started[0], seconds)
            child = _Child(lambda: self._call_while_swapped(call), self.users.caller, self.users)
            try:
                result = child.result(seconds)
            finally:
                child.kill()
        finally:
            swapping.kill()
            for handle in started:
                os.close(handle)
        return [*([result] if result else []), *differences(before, self.snapshot())]

    def _known(self, wheel: Wheel) -> CachedWheel:
        return CachedWheel(
            self.root / "v1" / "wheels" / wheel.hex()[:2] / wheel.hex()[2:] / wheel.filename,
            wheel.filename, wheel.digest, wheel.size, {"sha256": wheel.hex()}, None, Status.HIT,
        )  # fmt: skip

    def _call_while_swapped(self, call: str) -> str:
        _limit_memory()
        try:
            with (
                client_of_index() as client,
                Cache(self.root, **{"client": client, "io_timeout": 1, **OPTIONS[call]}) as cache,
            ):
                result = CALLS[call](cache, self)
        except _REGULAR:
            result = None
        except BaseException as error:
            return "".join(traceback.format_exception(error)[-3:])
        found = [f"a result with contents from outside: {result!r}"] if CANARY in repr(result) else []
        return "; ".join([*found, *self.complaints(None)])

    @staticmethod
    def _use(cache: Cache, wheel: Wheel) -> CachedWheel:
        found = cache.get(wheel.digest)
        assert found is not None, wheel.filename
        return found

    def _call(self, call: _Call, opened: Cache | None, options: dict[str, Any]) -> str:
        _limit_memory()
        try:
            with opened or Cache(self.root, **options) as cache:
                result = call(cache, self)
        except _REGULAR as error:
            result = error
        except BaseException as error:
            return "".join(traceback.format_exception(error)[-3:])
        return "; ".join(self.complaints(result))

    def complaints(self, result: object) -> list[str]:
        """Return everything in a result, and in the folder for results, that must not be there."""
        found = [*self._in_result(result)]
        for path in _everything(self.out):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                with path.open("rb") as file:
                    if CANARY.encode() in file.read(1 << 20):
                        found.append(f"{path} has contents from outside")
            elif not stat.S_ISDIR(status.st_mode):
                found.append(f"{path} is not a regular file")
        return found

    def _in_result(self, result: object) -> Iterator[str]:
        if isinstance(result, list | tuple):
            for each in result:
                yield from self._in_result(each)
            return
        if isinstance(result, BaseException):
            if not isinstance(result, _REGULAR):
                yield f"raised {result!r}"
            if CANARY in str(result):
                yield f"an error with contents from outside: {result!r}"
            return
        if CANARY in repr(result) or str(self.outside) in repr(result):
            yield f"a result with contents from outside: {result!r}"
        if isinstance(result, CachedWheel):
            yield from self._in_wheel(result)
        elif isinstance(result, Unpacked):
            yield from self._in_tree(result)
        elif isinstance(result, Stats):
            numbers = [getattr(result, field.name) for field in fields(result)]
            if max(number for number in numbers if isinstance(number, int)) > _GIANT // 2:
                yield f"sums with files from outside: {result!r}"
        elif is_dataclass(result):
            for field in fields(result):
                value = getattr(result, field.name)
                if field.name == "removed":
                    for wheel in value:
                        if wheel.digest not in _BY_DIGEST:
                            yield f"removed {wheel!r}"
                elif field.name == "freed" and value > _GIANT // 2:
                    yield f"freed {value} bytes"
                elif isinstance(value, tuple):
                    yield from self._in_result(value)

    def _in_wheel(self, wheel: CachedWheel) -> Iterator[str]:
        known = _BY_DIGEST.get(wheel.digest)
        if known is None:
            yield f"an unknown wheel: {wheel!r}"
            return
        yield from self._linked(wheel.path)
        try:
            if not stat.S_ISREG(os.lstat(wheel.path).st_mode):
                yield f"{wheel.path} is not a regular file"
            elif Path(wheel.path).read_bytes() != known.data:
                yield f"{wheel.path} has other bytes"
        except FileNotFoundError:
            yield f"{wheel.path} is missing"

    def _in_tree(self, unpacked: Unpacked) -> Iterator[str]:
        expected = next(
            (members(wheel) for wheel in WHEELS.values() if set(members(wheel)) == set(unpacked.files)), None
        )
        if expected is None:
            yield f"unknown files were unpacked: {unpacked.files}"
            return
        yield from self._linked(unpacked.path)
        for name in unpacked.files:
            path = unpacked.path / name
            yield from self._linked(path)
            try:
                if path.read_bytes() != expected[name]:
                    yield f"{path} has other bytes"
            except OSError as error:
                yield f"{path} cannot be read: {error}"

    def _linked(self, path: Path) -> Iterator[str]:
        """Yield a complaint if a link is on the way from the folder of the scene to a path."""
        for each in (path, *path.parents):
            if each == self.folder:
                return
            if each.is_symlink():
                yield f"{each} is a link"

    def plant(self, area: str, kind: str) -> None:
        """Replace a file or folder of the cache by an object, and create its copies outside."""
        path = self.path_of(area)
        old = self.folder / "old"
        if path.exists():
            os.rename(path, old)
        elif area in FOLDERS:
            old.mkdir()
        else:
            old.write_bytes(b"")
        self._fill_outside(area, old)
        self.pattern = AREAS[area]
        KINDS[kind].plant(self, path)
        if _SELF == 0:
            os.lchown(path, self.users.planter, self.users.group)

    def path_of(self, area: str) -> Path:
        """Return the path of an area in the cache. Its parents are created."""
        layout = Layout(str(self.root))
        pattern = {**AREAS, **NEW}[area].format(
            url=os.path.relpath(layout.pointer(url_of(ALPHA)), layout.urls),
            sha512=os.path.relpath(layout.pointer(f"sha512:{ALPHA.hex('sha512')}"), layout.urls),
        )
        found = sorted(self.root.glob(pattern))
        path = found[0] if found else self.root / pattern
        if not found:
            assert "*" not in pattern, f"the cache has no {area}: {pattern}"
            assert "?" not in pattern, f"the cache has no {area}: {pattern}"
            # The call creates the tree itself.
            parents = [parent for parent in path.parents if area not in NEW or not parent.name.endswith("-0")]
            for parent in reversed(parents):
                if not parent.exists():
                    self._make_folder(parent, self.users.planter, self.users.group, self.users.mode)
        return path

    def _fill_outside(self, area: str, old: Path) -> None:
        self._make_folder(self.outside, self.users.caller, self.users.caller, 0o700)
        twin, same = self.outside / "twin folder", self.outside / "same"
        if area in NEW:
            twin.mkdir()
        elif area in FOLDERS:
            copy(old, twin)
            copy(old, same)
            self._add_canaries(area, twin)
            (self.outside / "twin file").write_text(f"{CANARY}: a private file")
        else:
            twin.mkdir()
            copy(old, same)
            copy(old, self.outside / "twin file")
            _alter(self.outside / "twin file")
        for folder in [twin, *(path for path in _everything(twin) if path.is_dir())]:
            (folder / "private.txt").write_text(f"{CANARY}: a private file")
            (folder / "deep").mkdir()
            (folder / "deep" / "private.txt").write_text(f"{CANARY}: another private file")
            (folder / f"{CANARY}-2.0-py3-none-any.whl").touch()
            os.truncate(folder / f"{CANARY}-2.0-py3-none-any.whl", _GIANT)
        keeps_times = "wheel" in area or "tree" in area or "entry" in area or "place" in area or area == "v1"
        for path in [*_everything(self.outside), self.outside]:
            if _SELF == 0:
                os.lchown(path, self.users.caller, self.users.caller)
            if not keeps_times:
                os.utime(path, (_LONG_AGO, _LONG_AGO), follow_symlinks=False)

    def _add_canaries(self, area: str, twin: Path) -> None:
        """Change the contents of all files, and add a wheel and its tree that are only here."""
        for path in list(_everything(twin)):
            if path.is_file():
                _alter(path)
        other = self._other / "cache" / "v1"
        shard = canary_wheel().hex()[:2]
        source = {
            "v1": other,
            "wheels": other / "wheels",
            "a shard of wheels": other / "wheels" / shard,
            "trees": other / "trees",
            "a shard of trees": other / "trees" / shard,
        }.get(area)
        if source is not None:
            copy(source, twin)

    def snapshot(self) -> dict[str, tuple[int, ...]]:
        """Return the status of everything outside, including the times of the last change of contents or status."""
        folders = (self.outside, self.folder / "sources", self._other)
        paths = [self.folder, *folders, *(path for folder in folders for path in _everything(folder))]
        found = {}
        for path in paths:
            status = os.lstat(path)
            # Only its owner can access the folder of the scene, whose other contents change.
            changing = (status.st_mtime_ns, status.st_ctime_ns, status.st_size) if path != self.folder else ()
            found[str(path.relative_to(self.folder))] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_ino, *changing,
            )  # fmt: skip
        return found

    def clear(self) -> None:
        """Remove everything that belongs to one combination."""
        for path in (self.root, self.outside, self.out, self.own, self.folder / "old"):
            _remove(path)

    def _reset(self) -> None:
        self.clear()
        copy(self._template, self.root)
        for path in (self.out, self.own):
            self._make_folder(path, self.users.caller, self.users.caller, 0o755)


def exchange(path: Path, other: Path, started: int) -> None:
    """Exchange two names as fast as possible, until this process is killed. Either may be missing for a while."""
    import ctypes

    rename = ctypes.CDLL(None, use_errno=True).renameat2
    first, second = os.fsencode(path), os.fsencode(other)
    rename(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE)
    os.write(started, b"1")
    while True:
        rename(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE)


def load_everything() -> None:
    """Import all modules once, since each call has a process of its own, and other users may not read the modules."""
    for module in pkgutil.walk_packages(wheelcache.__path__, "wheelcache."):
        with contextlib.suppress(ImportError):  # a module for another platform, or for an extra
            importlib.import_module(module.name)
    for name in ("anyio._backends._asyncio", "filelock", "tenacity", "encodings.idna", "httpx"):
        importlib.import_module(name)
    gc.freeze()


def differences(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> list[str]:
    """Return a description of each change outside."""
    return [
        f"outside: {name!r} " + ("appeared" if name not in before else "is gone" if name not in after else "changed")
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _alter(path: Path) -> None:
    """Change the contents of a copy, so that they are recognised, and keep its form, its size and its times."""
    status = path.stat()
    data = path.read_bytes()
    record = decode(data) if path.suffix == ".json" else None
    if record is not None and "seen" in record:
        changed = encode({**record, "url": f"https://{CANARY}.example.org/"})
    elif record is not None and "sha256" in record:
        changed = encode({**record, "sha256": BETA.hex()})
    elif record is not None:
        changed = encode({key: _altered(value) for key, value in record.items()})
    elif path.suffix == ".log":
        changed = f"\n{_GIANT} {_GIANT} {_GIANT} ={_GIANT}\n".encode()
    elif path.suffix == ".json":
        changed = data
    else:
        changed = (CANARY.encode() * (len(data) // len(CANARY) + 1))[: len(data)]
    path.chmod(0o600)
    path.write_bytes(changed)
    path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _altered(value: object) -> object:
    return value.replace("Name: epsilon", f"Name: {CANARY}") if isinstance(value, str) else value


def _everything(folder: Path) -> Iterator[Path]:
    """Yield every path below a folder, and follow no link."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _everything(Path(entry.path))


def copy(source: Path, target: Path) -> None:
    """Copy a file or folder with owners, modes and times. An existing folder is merged with the copy."""
    status = source.stat()
    if stat.S_ISDIR(status.st_mode):
        target.mkdir(exist_ok=True)
        for entry in os.scandir(source):
            copy(Path(entry.path), target / entry.name)
    elif status.st_size < _GIANT:
        shutil.copyfile(source, target)
    if _SELF == 0:
        os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except (RecursionError, OSError):  # a deep folder, or one without permissions
        subprocess.run(["rm", "-rf", path], check=True)


def _limit_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))


class _Child:
    """A forked process that performs an action as a user, and returns text."""

    def __init__(self, action: Callable[[], object], user: int, users: Users) -> None:
        assert threading.active_count() == 1
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._reader)
            try:
                os.umask(0o022)
                if _SELF == 0:
                    os.setgroups(users.groups)
                    os.setresgid(user, user, user)
                    os.setresuid(user, user, user)
                result = action()
            except BaseException:
                result = traceback.format_exc()
            with open(writer, "wb") as file:
                pickle.dump(str(result or ""), file)
            os._exit(0)
        os.close(writer)

    def wait_for(self, handle: int, seconds: float) -> bool:
        """Wait until a pipe of the child has contents. Return whether it has."""
        ready, _, _ = select.select([handle, self._reader], [], [], seconds)
        return handle in ready

    def result(self, seconds: float = 120.0) -> str:
        """Return the text, or a description if there is none in time."""
        end = time.monotonic() + seconds
        data = b""
        while True:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return f"the call did not end within {seconds:.0f} seconds"
            part = os.read(self._reader, 1 << 16)
            if not part:
                return pickle.loads(data) if data else "the process ended without a result"
            data += part

    def kill(self) -> None:
        """End the process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._reader)
