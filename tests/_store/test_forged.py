"""Forged records and pointers: a requested hash is computed, unless the record is trusted."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from folders import listing, quarantined
from machines import Machine
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, CachedWheel, CacheTransport, OfflineError, ProblemKind, Status, VerifyReport
from wheelcache._store.layout import Layout
from wheelcache._store.records import Record, decode_record, encode, encode_record


@pytest.fixture
def folder(machine: Machine, wheel: Wheel, other_wheel: Wheel, tmp_path: Path) -> Path:
    """A cache folder with two wheels, which were added without another hash than sha256."""
    with machine.cache(tmp_path / "cache") as cache:
        for each in (wheel, other_wheel):
            source = tmp_path / each.filename
            source.write_bytes(each.data)
            cache.put(source, hashes=each.digest)
    machine.files.forget()
    return tmp_path / "cache"


def record_of(folder: Path, wheel: Wheel) -> Record:
    path = Path(Layout(str(folder)).record(wheel.hex(), wheel.filename))
    record = decode_record(path.read_bytes(), wheel.hex())
    assert record is not None
    return record


def change_record(folder: Path, wheel: Wheel, **fields: Any) -> None:
    """Change a record as any program can that may write to the cache."""
    record = record_of(folder, wheel)._replace(**fields)
    Path(Layout(str(folder)).record(wheel.hex(), wheel.filename)).write_bytes(encode_record(record))


def pointer(folder: Path, wheel: Wheel, algorithm: str = "sha512") -> Path:
    return Path(Layout(str(folder)).pointer(f"{algorithm}:{wheel.hex(algorithm)}"))


def forge(folder: Path, wheel: Wheel, other: Wheel, algorithm: str = "sha512") -> None:
    """Let a hash of one wheel lead to another wheel, whose record lists that hash."""
    path = pointer(folder, wheel, algorithm)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode({"sha256": other.hex()}))
    change_record(folder, other, hashes={algorithm: wheel.hex(algorithm)})


def hashed(machine: Machine) -> int:
    """Return how often a wheel was read since the last call."""
    count = len(machine.files.calls("open_read", ".whl"))
    machine.files.forget()
    return count


def is_trusted(is_private: bool, is_same_boot: bool, verify: str) -> bool:
    return is_same_boot and (verify == "records" or (verify == "auto" and is_private))


is_private = pytest.mark.parametrize("is_private", [True, False], ids=["private", "shared"])
is_same_boot = pytest.mark.parametrize("is_same_boot", [True, False], ids=["same boot", "other boot"])
verifies = pytest.mark.parametrize("verify", ["auto", "records", "full"])
is_layer = pytest.mark.parametrize("is_layer", [False, True], ids=["cache", "layer"])


def opened(machine: Machine, folder: Path, *, is_layer: bool, **options: Any) -> Cache:
    """Open the folder as a cache, or as the layer of an empty one."""
    if is_layer:
        return machine.cache(folder.with_name("empty"), layers=[folder], **options)
    return machine.cache(folder, **options)


@is_private
@is_same_boot
@verifies
@is_layer
def test_a_hash_in_a_record_counts_only_if_the_record_is_trusted(
    machine: Machine,
    folder: Path,
    wheel: Wheel,
    other_wheel: Wheel,
    is_private: bool,
    is_same_boot: bool,
    verify: str,
    is_layer: bool,
) -> None:
    """A forged pointer leads to another wheel only where this user, root or an accepted user wrote its record."""
    forge(folder, wheel, other_wheel)
    machine.is_private = is_private
    if not is_same_boot:
        machine.reboot()
    before = listing(folder)
    with opened(machine, folder, is_layer=is_layer, verify=verify) as cache:
        found = cache.get(f"sha512:{wheel.hex('sha512')}")
        if is_trusted(is_private, is_same_boot, verify):
            assert found is not None
            return
        assert found is None
        assert f"sha512:{wheel.hex('sha512')}" not in cache
        other = cache.get(other_wheel.digest)
        assert other is not None
        assert other.hashes == {name: other_wheel.hex(name) for name in ("sha256", "sha512")}
    if is_layer:
        assert listing(folder) == before
    else:
        assert record_of(folder, other_wheel).hashes == {"sha512": other_wheel.hex("sha512")}
        assert not pointer(folder, wheel).exists()
        assert quarantined(cache) == []


@pytest.mark.parametrize("algorithm", ["sha512", "sha384", "blake2b", "blake2s", "sha3_256", "sha3_384", "sha3_512"])
def test_every_strong_hash_is_computed(
    machine: Machine, folder: Path, wheel: Wheel, other_wheel: Wheel, algorithm: str
) -> None:
    """No algorithm is believed from a record of another boot."""
    forge(folder, wheel, other_wheel, algorithm)
    machine.reboot()
    with machine.cache(folder) as cache:
        assert cache.get(f"{algorithm}:{wheel.hex(algorithm)}") is None
        found = cache.get(other_wheel.digest)
        assert found is not None
        assert found.hashes[algorithm] == other_wheel.hex(algorithm)


def test_a_weak_hash_beside_a_strong_one_is_computed(
    machine: Machine, folder: Path, server: Server, wheel: Wheel
) -> None:
    """A false md5 in an untrusted record neither refuses nor answers a request."""
    change_record(folder, wheel, hashes={"md5": "0" * 32})
    machine.is_private = False
    hashes = {"sha256": wheel.hex(), "md5": wheel.hex("md5")}
    with machine.cache(folder, offline=True) as cache:
        assert cache.fetch(server.url(wheel.path), hashes=hashes).hashes == hashes
    assert record_of(folder, wheel).hashes == {"md5": wheel.hex("md5")}


Use = Callable[[Cache, str, str], object]


def _keeps(cache: Cache, url: str, digest: str) -> object:
    """Return whether a prune that keeps a wheel by another hash removes that wheel, which has no pointer any more."""
    kept = {wheel.filename for wheel in cache.prune(keep=digest).removed}
    return None if not any(name.startswith("demo-") for name in kept) else kept


def _refused(action: Callable[[], object], error: type[Exception]) -> object:
    with pytest.raises(error):
        action()
    return None


USES: dict[str, Use] = {
    "get": lambda cache, url, digest: cache.get(digest),
    "in": lambda cache, url, digest: None if digest not in cache else True,
    "fetch": lambda cache, url, digest: _refused(lambda: cache.fetch(url, hashes=digest), OfflineError),
    "fetch_all": lambda cache, url, digest: _refused(
        lambda: cache.fetch_all([f"{url}#{digest.replace(':', '=')}"]), ExceptionGroup
    ),
    "metadata": lambda cache, url, digest: _refused(lambda: cache.metadata(url, hashes=digest), OfflineError),
    "remove": lambda cache, url, digest: _refused(lambda: cache.remove(digest), ValueError),
    "prune": _keeps,
}


@pytest.mark.parametrize("use", USES)
@is_layer
def test_no_call_believes_a_forged_pointer(
    machine: Machine, folder: Path, server: Server, wheel: Wheel, other_wheel: Wheel, use: str, is_layer: bool
) -> None:
    """Each call that takes a hash other than sha256 ignores a pointer to another wheel in a shared cache."""
    forge(folder, wheel, other_wheel)
    machine.is_private = False
    with opened(machine, folder, is_layer=is_layer, offline=True) as cache:
        assert USES[use](cache, server.url(wheel.path), f"sha512:{wheel.hex('sha512')}") is None


def test_the_transport_does_not_believe_a_forged_pointer(
    machine: Machine, folder: Path, server: Server, wheel: Wheel, other_wheel: Wheel
) -> None:
    """A client of another program receives the requested wheel, and not the one that a pointer leads to."""
    forge(folder, wheel, other_wheel)
    machine.is_private = False
    url = f"{wheel.on(server)}#sha512={wheel.hex('sha512')}"
    with machine.cache(folder) as cache, httpx.Client(transport=CacheTransport(cache)) as client:
        assert client.get(url).content == wheel.data


def test_the_true_wheel_is_fetched_despite_a_forged_pointer(
    machine: Machine, folder: Path, server: Server, wheel: Wheel, other_wheel: Wheel
) -> None:
    """A fetch by sha512 downloads the wheel, and the new pointer leads to it."""
    forge(folder, wheel, other_wheel)
    machine.is_private = False
    digest = f"sha512:{wheel.hex('sha512')}"
    with machine.cache(folder) as cache:
        assert cache.fetch(wheel.on(server), hashes=digest).digest == wheel.digest
        found = cache.get(digest)
        assert found is not None
        assert (found.digest, found.status) == (wheel.digest, Status.HIT)


def test_a_pointer_to_the_right_wheel_remains(machine: Machine, folder: Path, wheel: Wheel) -> None:
    """A pointer that another user wrote is used after the hash was computed, and is kept."""
    path = pointer(folder, wheel)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode({"sha256": wheel.hex()}))
    machine.is_private = False
    with machine.cache(folder) as cache:
        for times in (1, 0):
            assert cache.get(f"sha512:{wheel.hex('sha512')}") is not None
            assert hashed(machine) == times
    assert path.exists()


@is_layer
def test_in_a_shared_cache_each_process_hashes_a_wheel_once(
    machine: Machine, folder: Path, wheel: Wheel, is_layer: bool
) -> None:
    """The first hit of an object hashes the wheel. Every further one makes a single stat."""
    machine.is_private = False
    for _ in range(2):
        with opened(machine, folder, is_layer=is_layer) as cache:
            machine.files.forget()
            assert cache.get(wheel.digest, filename=wheel.filename) is not None
            assert hashed(machine) == 1
            assert cache.get(wheel.digest, filename=wheel.filename) is not None
            assert len(machine.files.calls("stat", ".whl")) == 1
            assert hashed(machine) == 0


def test_a_hit_in_a_shared_cache_writes_nothing(machine: Machine, folder: Path, wheel: Wheel) -> None:
    """A record that agrees with the computed hashes is not written again by every process."""
    machine.is_private = False
    before = listing(folder / "v1" / "wheels")
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
    assert listing(folder / "v1" / "wheels") == before


@is_private
@is_same_boot
@verifies
@is_layer
def test_altered_bytes_with_a_forged_record_are_found(
    machine: Machine, folder: Path, wheel: Wheel, is_private: bool, is_same_boot: bool, verify: str, is_layer: bool
) -> None:
    """Other bytes, with a record that has their fingerprint, are returned only where that record is trusted."""
    blob = Path(Layout(str(folder)).blob(wheel.hex(), wheel.filename, 0))
    blob.write_bytes(wheel.data[::-1])
    stat = blob.stat()
    seen = record_of(folder, wheel).seen._replace(mtime_ns=stat.st_mtime_ns, inode=stat.st_ino)
    change_record(folder, wheel, seen=seen)
    machine.is_private = is_private
    if not is_same_boot:
        machine.reboot()
    with opened(machine, folder, is_layer=is_layer, verify=verify) as cache:
        is_found = cache.get(wheel.digest) is not None
    assert is_found is is_trusted(is_private, is_same_boot, verify)


@is_private
@is_same_boot
def test_an_altered_wheel_from_an_archive_is_found(
    machine: Machine, folder: Path, wheel: Wheel, tmp_path: Path, is_private: bool, is_same_boot: bool
) -> None:
    """A restored archive with preserved time stamps is hashed, because its files have other inodes."""
    blob = Path(Layout(str(folder)).blob(wheel.hex(), wheel.filename, 0))
    stat = blob.stat()
    blob.write_bytes(wheel.data[::-1])
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.copytree(folder, tmp_path / "restored")
    machine.is_private = is_private
    if not is_same_boot:
        machine.reboot()
    with machine.cache(tmp_path / "restored") as cache:
        assert cache.get(wheel.digest) is None


@is_private
@verifies
def test_without_a_boot_identity_no_record_is_trusted(
    machine: Machine, folder: Path, wheel: Wheel, is_private: bool, verify: str
) -> None:
    """A record without a boot is not trusted, whoever wrote it."""
    change_record(folder, wheel, seen=record_of(folder, wheel).seen._replace(boot=None))
    machine.boot = None
    machine.is_private = is_private
    with machine.cache(folder, verify=verify) as cache:
        assert cache.get(wheel.digest) is not None
    assert hashed(machine) == 1


def test_each_layer_is_judged_for_itself(machine: Machine, folder: Path, wheel: Wheel, tmp_path: Path) -> None:
    """A private layer of a shared cache is trusted by its records."""
    machine.is_private = False
    machine.private_roots = {str(folder)}
    machine.judged.clear()
    with machine.cache(tmp_path / "empty", layers=[folder]) as cache:
        for _ in range(3):
            assert cache.get(wheel.digest) is not None
    assert hashed(machine) == 0
    assert machine.judged == [Layout(str(folder)).folders_of_wheels()]


# Unstable inodes


class UnstableInodes:
    """A file layer that gives every file a new inode at each lookup, as some user-space file systems do."""

    def __init__(self, files: Any) -> None:
        self._files = files
        self._next = 1 << 40

    def confined_to(self, folder: str, layers: Any = ()) -> UnstableInodes:
        return UnstableInodes(self._files.confined_to(folder, layers))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def stat(self, path: str) -> os.stat_result:
        self._next += 1
        fields = list(self._files.stat(path))
        fields[1] = self._next
        stat = self._files.stat(path)
        return os.stat_result(fields, {"st_mtime_ns": stat.st_mtime_ns, "st_mtime": stat.st_mtime})


def test_an_inode_that_changes_at_each_lookup_is_ignored(folder: Path, wheel: Wheel) -> None:
    """Where two calls of stat report different inodes, the size and the time stamp decide, without a wait."""
    from wheelcache._os.files import native

    machine = Machine(UnstableInodes(native()))
    for _ in range(2):
        with machine.cache(folder) as cache:
            assert cache.get(wheel.digest) is not None
    assert hashed(machine) == 0
    assert machine.clock.slept == []


# Blobs that are not regular files


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "link to a wheel": lambda path, elsewhere: path.symlink_to(elsewhere),
    "dangling link": lambda path, elsewhere: path.symlink_to(elsewhere.with_name("missing")),
    "link to a folder": lambda path, elsewhere: path.symlink_to(elsewhere.parent),
    "pipe": lambda path, elsewhere: os.mkfifo(path),
    "folder": lambda path, elsewhere: path.mkdir(),
}


@pytest.mark.skipif(os.name == "nt", reason="pipes and links need POSIX")
@pytest.mark.parametrize("kind", PLANTED)
@is_private
@verifies
def test_only_a_regular_file_is_a_blob(
    machine: Machine,
    folder: Path,
    server: Server,
    wheel: Wheel,
    tmp_path: Path,
    kind: str,
    is_private: bool,
    verify: str,
) -> None:
    """Anything else in the place of a blob is a miss, is never read, and does not prevent a fetch."""
    blob = Path(Layout(str(folder)).blob(wheel.hex(), wheel.filename, 0))
    blob.unlink()
    PLANTED[kind](blob, tmp_path / wheel.filename)
    stat = blob.lstat()
    seen = record_of(folder, wheel).seen._replace(mtime_ns=stat.st_mtime_ns, inode=stat.st_ino)
    change_record(folder, wheel, size=stat.st_size, seen=seen)
    machine.is_private = is_private
    with machine.cache(folder, verify=verify) as cache:
        machine.files.forget()
        assert cache.get(wheel.digest) is None
        assert machine.files.calls("open_read", ".whl") == []
        found = cache.fetch(wheel.on(server), hashes=wheel.digest)
        assert isinstance(found, CachedWheel)
        assert found.status is Status.REPAIRED
        assert (found.path.is_symlink(), found.path.read_bytes()) == (False, wheel.data)
        assert cache.get(wheel.digest) is not None
        assert cache.fetch(server.url(wheel.path), hashes=wheel.digest).status is Status.HIT
    assert (tmp_path / wheel.filename).read_bytes() == wheel.data


# Verification


def problems(report: VerifyReport) -> set[tuple[str, ProblemKind]]:
    return {(problem.path.name, problem.kind) for problem in report.problems}


@pytest.mark.parametrize("algorithm", ["sha512", "blake2b"])
@pytest.mark.parametrize("size", [10_000, 100_000])
def test_verify_finds_a_forged_pointer_with_its_record(
    machine: Machine, tmp_path: Path, algorithm: str, size: int
) -> None:
    """The false hash in the record and the pointer to it are reported, and both are repaired."""
    wheel, other = (Wheel(wheel_filename(name), make_wheel(name, size=size)) for name in ("demo", "other"))
    folder = tmp_path / "cache"
    with machine.cache(folder) as cache:
        for each in (wheel, other):
            cache.put(io.BytesIO(each.data), filename=each.filename)
    forge(folder, wheel, other, algorithm)
    with machine.cache(folder) as cache:
        record = Path(Layout(str(folder)).record(other.hex(), other.filename))
        expected = {(path.name, ProblemKind.ALTERED) for path in (record, pointer(folder, wheel, algorithm))}
        assert problems(cache.verify()) == expected
        report = cache.verify(repair=True)
        assert problems(report) == expected
        assert report.ok
        assert cache.verify().problems == ()
    assert record_of(folder, other).hashes == {algorithm: other.hex(algorithm)}
    assert not pointer(folder, wheel, algorithm).exists()


@pytest.mark.parametrize("algorithm", ["sha512", "blake2b", "sha3_256"])
def test_verify_accepts_true_pointers(
    machine: Machine, folder: Path, server: Server, wheel: Wheel, algorithm: str
) -> None:
    """The pointers that the cache itself writes, for hashes or URLs, are no problems."""
    with machine.cache(folder) as cache:
        cache.put(io.BytesIO(wheel.data), filename=wheel.filename, hashes=f"{algorithm}:{wheel.hex(algorithm)}")
        cache.fetch(wheel.on(server, headers={"Cache-Control": "max-age=60"}))
        assert pointer(folder, wheel, algorithm).exists()
        assert cache.verify().problems == ()
