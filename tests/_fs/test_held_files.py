"""Files that a real scanner holds on Windows: the library uses methods that need no wait, and nothing fails.

A scanner here holds a file forever, so an operation that ends has not waited for it. If an operation must wait, the
clock is a fake one that counts the seconds without waiting, or the scanner closes the file in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import Both, Doing, FaultyFiles, FileCall, Refuse, Refusing
from folders import blobs, quarantined, records, unfinished
from machines import Machine
from marks import with_scanner
from scanner import SHARES, Scanner, holding, watching
from wheels import Wheel

from wheelcache import Cache, Cause, CommitError, LinkMode, Status
from wheelcache._os.system import System

pytestmark = with_scanner


@pytest.fixture
def files() -> FaultyFiles:
    """The file layer of ``machine``."""
    return FaultyFiles()


@pytest.fixture
def machine(files: FaultyFiles) -> Machine:
    """A machine whose clock never waits, and whose file operations follow a plan."""
    return Machine(files)


@pytest.fixture
def scanners() -> Iterator[ExitStack]:
    """Scanners that start in the middle of a test and end with it."""
    with ExitStack() as stack:
        yield stack


def hold_at_commit(scanners: ExitStack, share: str, ms: int | str = "forever") -> Doing:
    """Hold the finished temporary file just before it is renamed."""

    def hold(call: FileCall) -> None:
        scanners.enter_context(holding(call.path, share=share, ms=ms))

    return Doing("rename", hold)


def real_cache(files: FaultyFiles, path: Path, **options: object) -> Cache:
    """Open a cache with this file layer and a real clock."""

    class RealCache(Cache):
        _system = replace(System(), files=files)

    return RealCache(path, **options)


def put(cache: Cache, wheel: Wheel, folder: Path):
    source = folder / wheel.filename
    source.write_bytes(wheel.data)
    return cache.put(source)


@pytest.mark.parametrize("share", SHARES)
def test_a_held_temporary_file_is_committed_at_once(
    share: str, files: FaultyFiles, machine: Machine, cache: Cache, wheel: Wheel, scanners: ExitStack, tmp_path: Path
) -> None:
    """A temporary file that is held forever in any way is committed at once, and deleted later."""
    files.plan = hold_at_commit(scanners, share)
    added = put(cache, wheel, tmp_path)
    assert machine.clock.slept == []
    left = unfinished(cache)
    assert len(left) == (0 if share == "rwd" else 1)
    scanners.close()
    assert added.path.read_bytes() == wheel.data
    for name in left:
        (cache.path / name).unlink()
    assert added.path.read_bytes() == wheel.data


def test_without_links_a_file_that_can_be_read_is_copied_at_once(
    files: FaultyFiles, machine: Machine, cache: Cache, wheel: Wheel, scanners: ExitStack, tmp_path: Path
) -> None:
    """Without hard links, a file whose holder shares reading is copied without a wait."""
    files.plan = Both(Refusing(Refuse("link", 50)), hold_at_commit(scanners, "r"))
    added = put(cache, wheel, tmp_path)
    assert machine.clock.slept == []
    assert added.path.read_bytes() == wheel.data


@pytest.mark.parametrize(
    "ms", [2000, pytest.param(12_000, marks=pytest.mark.slow), pytest.param(46_000, marks=pytest.mark.slow)]
)
def test_a_commit_waits_for_a_holder_that_closes_the_file(
    ms: int, files: FaultyFiles, wheel: Wheel, scanners: ExitStack, tmp_path: Path
) -> None:
    """Without hard links, the commit waits for a holder that shares nothing, and succeeds when the file is closed."""
    files.plan = Both(Refusing(Refuse("link", 50)), hold_at_commit(scanners, "none", ms))
    with real_cache(files, tmp_path / "cache") as cache:
        added = put(cache, wheel, tmp_path)
        assert added.path.read_bytes() == wheel.data
        assert files.count("rename") > 1
        assert unfinished(cache) == []


def test_a_file_that_is_held_forever_is_an_error_at_the_timeout(
    files: FaultyFiles, machine: Machine, cache: Cache, wheel: Wheel, scanners: ExitStack, tmp_path: Path
) -> None:
    """After 60 s the error has both paths, the code, the rounds, the seconds, every method, and the holder."""
    machine.holders = ("MsMpEng.exe (pid 4711)",)
    files.plan = Both(Refusing(Refuse("link", 50)), hold_at_commit(scanners, "none"))
    with pytest.raises(CommitError) as caught:
        put(cache, wheel, tmp_path)
    error = caught.value
    assert error.winerror == 32
    assert error.cause is Cause.HELD
    assert error.elapsed == pytest.approx(60, abs=0.5)
    assert error.attempts > 100
    assert dict(error.steps) == {"rename": "winerror 32", "copy": "winerror 32"}
    assert error.holders == machine.holders
    for fact in (error.path, error.target, "winerror 32", "MsMpEng.exe (pid 4711)", f"{error.attempts} attempts"):
        assert fact in str(error)
    scanners.close()
    files.plan = Refusing()
    assert put(cache, wheel, tmp_path).path.read_bytes() == wheel.data


@pytest.mark.parametrize("share", SHARES)
def test_everything_is_held_as_it_appears(share: str, wheel: Wheel, server, tmp_path: Path) -> None:
    """If every new file and folder is held forever, a wheel is fetched, hit and linked out without a wait."""
    root, out = tmp_path / "cache", tmp_path / "out"
    root.mkdir()
    # One second suffices: an operation that waits for the scanner would fail after it.
    with watching(root, share=share) as scanner, Cache(root, io_timeout=1.0) as cache:
        fetched = cache.fetch(wheel.on(server), hashes=wheel.digest)
        assert fetched.status is Status.DOWNLOADED
        assert cache.fetch(wheel.on(server), hashes=wheel.digest).status is Status.HIT
        # By path: listing a folder that is held without sharing would wait.
        assert cache.get(wheel.digest, filename=wheel.filename) is not None
        assert cache.link(fetched, out / "linked.whl") is LinkMode.HARDLINK
        if share != "none":
            # A record that is held without sharing cannot be read, so the next process waits.
            assert cache.link(fetched, out / "copied.whl", mode="copy") is LinkMode.COPY
            with Cache(root, io_timeout=1.0) as second:
                assert second.fetch(wheel.on(server), hashes=wheel.digest).status is Status.HIT
        scanner.wait_for(f"held {fetched.path.with_suffix('.json')}")
    with Cache(root) as after:
        assert after.fetch(wheel.on(server), hashes=wheel.digest).status is Status.HIT
        assert [entry.digest for entry in after.entries()] == [wheel.digest]
    assert fetched.path.read_bytes() == wheel.data
    assert {path.read_bytes() for path in out.iterdir()} == {wheel.data}


@pytest.mark.parametrize("share", SHARES)
def test_everything_is_held_and_pruned(
    share: str, machine: Machine, cache: Cache, wheel: Wheel, tmp_path: Path
) -> None:
    """If every new file and folder is held forever, prune removes the others at once and reports the held ones."""
    with watching(cache.path / "v1", share=share) as scanner:
        added = put(cache, wheel, tmp_path)
        tree = cache.unpack(added) if share != "none" else None
        scanner.wait_for(f"held {added.path.with_suffix('.json')}")
        if share == "none":
            # The scanner's own handle on the temporary name may keep it from opening the final name of the same file.
            scanner.wait_for(f"held {added.path.parent}")
        else:
            for path in (added.path, tree.path, *(tree.path / name for name in tree.files), f"{tree.path}.json"):
                scanner.wait_for(f"held {path}")
        report = cache.prune(max_size=0)
        assert machine.clock.slept == []
        assert [gone.digest for gone in report.removed] == ([wheel.digest] if share == "rwd" else [])
        assert {skipped.reason for skipped in report.skipped}
        # A wheel that cannot be deleted is unchanged.
        if share in {"r", "rw"}:
            assert cache.get(wheel.digest) == replace(added, status=Status.HIT)
            assert cache.unpack(added).path == tree.path
    left = cache.prune(max_size=0)
    assert [gone.digest for gone in left.removed] == ([] if share == "rwd" else [wheel.digest])
    assert left.skipped == ()
    assert blobs(cache) == records(cache) == []
    assert list((cache.path / "v1" / "trees").rglob("*.json")) == []
    assert put(cache, wheel, tmp_path).path.read_bytes() == wheel.data


@pytest.mark.parametrize("share", SHARES)
def test_the_right_target_is_there_and_held(
    share: str, machine: Machine, cache: Cache, wheel: Wheel, tmp_path: Path
) -> None:
    """If another process has stored the same bytes and they are held, the commit succeeds without a wait."""
    there = put(cache, wheel, tmp_path)
    records(cache)[0].unlink()
    with machine.cache(cache.path) as second, holding(there.path, share=share):
        added = put(second, wheel, tmp_path)
        assert machine.clock.slept == []
        # A file that cannot be read could have any contents: the wheel gets a place of its own.
        assert (added.path == there.path) is (share != "none")
    assert added.path.read_bytes() == wheel.data


@pytest.mark.parametrize("share", SHARES)
def test_a_wrong_target_is_there_and_held(
    share: str, machine: Machine, cache: Cache, wheel: Wheel, other_wheel: Wheel, tmp_path: Path
) -> None:
    """If other bytes with the wheel's name are held, they are quarantined or left, and never returned."""
    there = put(cache, wheel, tmp_path)
    records(cache)[0].unlink()
    there.path.write_bytes(other_wheel.data)
    with machine.cache(cache.path) as second, holding(there.path, share=share):
        added = put(second, wheel, tmp_path)
        assert machine.clock.slept == []
        if share == "rwd":
            assert added.path == there.path
            assert [path.name.endswith(wheel.filename) for path in quarantined(cache)] == [True]
        else:
            assert added.path != there.path
    assert added.path.read_bytes() == wheel.data
    with machine.cache(cache.path) as third:
        found = third.get(wheel.digest)
        assert found is not None
        assert found.path.read_bytes() == wheel.data


def test_a_blob_that_cannot_be_read_is_waited_for_and_told(
    machine: Machine, cache: Cache, wheel: Wheel, tmp_path: Path
) -> None:
    """A hit that must hash a blob that is held without sharing ends in an error that names the holder."""
    there = put(cache, wheel, tmp_path)
    machine.reboot()
    machine.holders = ("SearchIndexer.exe (pid 5)",)
    with (
        machine.cache(cache.path, io_timeout=5.0) as second,
        holding(there.path, share="none"),
        pytest.raises(CommitError) as caught,
    ):
        second.get(wheel.digest)
    assert caught.value.winerror == 32
    assert caught.value.holders == machine.holders
    assert caught.value.elapsed == pytest.approx(5, abs=0.5)
    with machine.cache(cache.path) as third:
        assert third.get(wheel.digest) is not None
    assert len(blobs(cache)) == 1


@pytest.mark.parametrize("share", SHARES)
def test_a_held_folder_stops_nothing(share: str, cache: Cache, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """Handles on the cache's folders, as an indexer has, do not prevent adding a wheel."""
    folders = [cache.path, cache.path / "v1"]
    with holding(*folders, share=share):
        added = put(cache, wheel, tmp_path)
    assert machine.clock.slept == []
    assert added.path.read_bytes() == wheel.data


def test_the_scanner_is_a_process_of_its_own(tmp_path: Path) -> None:
    """The scanner of the tests reports the files that it holds."""
    file = tmp_path / "file"
    file.touch()
    with holding(file, share="none") as scanner:
        assert isinstance(scanner, Scanner)
        assert scanner.held() == [str(file)]
        with pytest.raises(PermissionError):
            file.read_bytes()
    assert file.read_bytes() == b""
