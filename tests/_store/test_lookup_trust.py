"""Trust: when a wheel is returned unchecked, when it is hashed again, and that a damaged one is never returned."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import FaultyFiles, Refuse, Refusing
from folders import blobs, files_in, listing, quarantined, records, unfinished
from machines import Machine
from marks import not_on_windows
from server import Server
from wheels import Wheel

from wheelcache import Cache, Phase, ProgressEvent, Status
from wheelcache._os.system import System


@pytest.fixture
def folder(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> Path:
    """A cache folder with one wheel, which no Cache has open."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    machine.files.forget()
    server.forget()
    return tmp_path / "cache"


def the_blob(folder: Path) -> Path:
    (path,) = (folder / "v1" / "wheels").rglob("*.whl")
    return path


def hashed(machine: Machine) -> int:
    """Return how often a wheel was read since the last call."""
    count = len(machine.files.calls("open_read", ".whl"))
    machine.files.forget()
    return count


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10_000_000_000))


# The cost of a hit


def test_a_hit_is_one_read_and_one_stat(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """The first hit of a new Cache reads the record and stats the wheel once. Every further one only stats."""
    with machine.cache(folder) as cache:
        blob, record = the_blob(folder), records(cache)[0]
        machine.files.forget()
        cache.fetch(server.url(wheel.path), hashes=wheel.digest)
        assert machine.files.log == [("read_small_with_mtime", str(record)), ("stat", str(blob))]
        machine.files.forget()
        cache.fetch(server.url(wheel.path), hashes=wheel.digest)
        assert machine.files.log == [("stat", str(blob))]
        machine.files.forget()
        assert cache.get(wheel.digest, filename=wheel.filename) is not None
        assert machine.files.log == [("stat", str(blob))]


def test_a_wheel_of_this_object_costs_one_stat(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """A wheel that this object committed itself is not read again."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
        machine.files.forget()
        cache.fetch(wheel.on(server), hashes=wheel.digest)
        assert [name for name, _ in machine.files.log] == ["stat"]


# Reasons to hash again


@not_on_windows("an access list decides there")
@pytest.mark.parametrize("shared", ["wheels", "partial", "tmp", "trees", "urls", "metadata", "locks", "quarantine"])
def test_a_record_is_accepted_if_only_other_areas_are_shared(
    shared: str, folder: Path, machine: Machine, wheel: Wheel
) -> None:
    """Only a user who can write to wheels, or to the areas of files that become wheels, can forge a wheel."""
    for path in (folder, folder / "v1", folder / "v1" / "wheels", folder / "v1" / shared):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
    (folder / "v1" / shared).chmod(0o777)
    machine.cache_class._system = replace(machine.cache_class._system, is_private=System().is_private)
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest, filename=wheel.filename) is not None
    assert hashed(machine) == (shared in {"wheels", "partial", "tmp"})


def test_after_a_reboot_it_is_hashed_once(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """The first use after a reboot hashes the wheel and renews the record. Every process then trusts it."""
    machine.reboot()
    with machine.cache(folder) as cache:
        for _ in range(2):
            assert cache.get(wheel.digest, filename=wheel.filename) is not None
    assert hashed(machine) == 1
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
        assert unfinished(cache) == []
    assert hashed(machine) == 0
    machine.reboot()
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
    assert hashed(machine) == 1


def test_a_reboot_counts_for_an_open_cache_too(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """If the boot identity changes under an open Cache, the wheel is hashed again."""
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
        machine.reboot()
        assert cache.get(wheel.digest) is not None
        assert cache.get(wheel.digest) is not None
    assert hashed(machine) == 1


def test_without_a_boot_identity_each_process_hashes_once(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """If the system has no boot identity, every Cache hashes a wheel once."""
    machine.boot = None
    for _ in range(2):
        with machine.cache(folder) as cache:
            for _ in range(3):
                assert cache.get(wheel.digest) is not None
        assert hashed(machine) == 1


def test_a_touched_wheel_is_hashed_once(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """A new time stamp with the same bytes costs one hash, even if the Cache trusted the wheel before."""
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
        touch(the_blob(folder))
        for _ in range(2):
            assert cache.get(wheel.digest) is not None
    assert hashed(machine) == 1
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
    assert hashed(machine) == 0


def test_a_replaced_wheel_with_the_same_stamp_is_hashed(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """A file that replaces the wheel with the same size and time stamp has another inode, and is hashed."""
    blob = the_blob(folder)
    stat = blob.stat()
    spare = blob.with_suffix(".new")
    spare.write_bytes(wheel.data[::-1])
    os.utime(spare, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    spare.replace(blob)
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is None


def test_a_hash_that_is_not_recorded_is_computed_once(
    folder: Path, machine: Machine, server: Server, wheel: Wheel
) -> None:
    """A hit that requires another hash computes it, and the record contains it from then on."""
    hashes = {"sha256": wheel.hex(), "md5": wheel.hex("md5"), "sha512": wheel.hex("sha512")}
    for times in (1, 0):
        with machine.cache(folder) as cache:
            found = cache.fetch(server.url(wheel.path), hashes=hashes)
            assert (found.status, found.hashes) == (Status.HIT, hashes)
        assert hashed(machine) == times
    assert server.count() == 0


def test_verify_full_hashes_on_every_hit(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """With verify="full" every lookup reads the wheel, and finds a change that no time stamp shows."""
    with machine.cache(folder, verify="full") as cache:
        for _ in range(3):
            assert cache.get(wheel.digest) is not None
        assert hashed(machine) == 3
        change_in_secret(the_blob(folder))
        assert cache.get(wheel.digest) is None
        assert cache.fetch(server.url(wheel.path), hashes=wheel.digest).status is Status.REPAIRED


def change_in_secret(blob: Path) -> None:
    """Flip a bit and reset the time stamp: the one documented change that is not noticed within a boot."""
    stat = blob.stat()
    data = bytearray(blob.read_bytes())
    data[500] ^= 1
    with blob.open("r+b") as file:
        file.write(data)
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_hidden_change_is_found_after_a_reboot(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """A flipped bit behind an unchanged time stamp, as after a power cut, is found in the next boot."""
    change_in_secret(the_blob(folder))
    machine.reboot()
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is None


def test_hashing_again_is_told(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """The listener receives CHECKING events up to the wheel's size, and then DONE."""
    machine.reboot()
    events: list[ProgressEvent] = []
    with machine.cache(folder) as cache:
        cache.fetch(server.url(wheel.path), hashes=wheel.digest, progress=events.append)
    assert {event.phase for event in events[:-1]} == {Phase.CHECKING}
    assert (events[-2].done, events[-2].total) == (wheel.size, wheel.size)
    assert events[-1].phase is Phase.DONE


def test_a_listener_may_stop_the_hashing(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """An exception of the listener while a wheel is hashed leaves the entry unchanged."""
    machine.reboot()
    before = listing(folder / "v1" / "wheels")

    def stop(event: ProgressEvent) -> None:
        raise KeyboardInterrupt

    with machine.cache(folder) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.fetch(server.url(wheel.path), hashes=wheel.digest, progress=stop)
        assert listing(folder / "v1" / "wheels") == before
        assert cache.get(wheel.digest) is not None


# Damaged wheels

Damage = Callable[[Path, bytes], object]
DAMAGE: dict[str, Damage] = {
    "empty": lambda path, data: path.write_bytes(b""),
    "cut": lambda path, data: path.write_bytes(data[:-1]),
    "half": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "longer": lambda path, data: path.write_bytes(data + b"\0"),
    "zeros": lambda path, data: path.write_bytes(bytes(len(data))),
    "zeros at the end": lambda path, data: path.write_bytes(data[:5000] + bytes(len(data) - 5000)),
    "one bit": lambda path, data: path.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:]),
    "another wheel": lambda path, data: path.write_bytes(data[::-1]),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("when", ["reboot", "same boot", "open"])
def test_a_damaged_wheel_is_never_handed_out(
    kind: str, when: str, folder: Path, machine: Machine, server: Server, wheel: Wheel
) -> None:
    """No lookup returns damaged bytes: they are quarantined, and the wheel is fetched again."""
    blob = the_blob(folder)

    def damage() -> bytes:
        DAMAGE[kind](blob, wheel.data)
        touch(blob)  # file systems whose stamps are coarse must not hide the change within this test's first second
        return blob.read_bytes()

    if when != "open":
        damaged = damage()
    if when == "reboot":
        machine.reboot()
    with machine.cache(folder) as cache:
        if when == "open":
            assert cache.get(wheel.digest) is not None
            damaged = damage()
        assert cache.get(wheel.digest) is None
        assert wheel.digest not in cache
        assert list(cache.entries()) == []
        (aside,) = quarantined(cache)
        assert aside.read_bytes() == damaged
        assert aside.name.endswith(wheel.filename)
        found = cache.fetch(server.url(wheel.path), hashes=wheel.digest)
        assert found.status is Status.REPAIRED
        assert found.path.read_bytes() == wheel.data
        assert list(cache.entries()) == [found]
        assert server.count() == 1
        assert cache.fetch(server.url(wheel.path), hashes=wheel.digest).status is Status.HIT
        assert unfinished(cache) == []


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_fetch_repairs_in_one_go(kind: str, folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """A fetch that finds a damaged wheel returns a good one, and reports the repair."""
    DAMAGE[kind](the_blob(folder), wheel.data)
    machine.reboot()
    with machine.cache(folder) as cache:
        found = cache.fetch(server.url(wheel.path), hashes=wheel.digest)
        assert (found.status, found.path.read_bytes()) == (Status.REPAIRED, wheel.data)
        assert len(quarantined(cache)) == 1


def test_a_missing_blob_is_a_miss(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """A record without its blob is a miss, and the wheel is fetched again."""
    the_blob(folder).unlink()
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is None
        assert list(cache.entries()) == []
        assert cache.fetch(server.url(wheel.path), hashes=wheel.digest).path.read_bytes() == wheel.data
        assert server.count() == 1


def test_a_folder_in_the_place_of_a_wheel_is_never_handed_out(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """A folder with the name of a wheel is never returned."""
    blob = the_blob(folder)
    blob.unlink()
    blob.mkdir()
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is None
        assert list(cache.entries()) == []


# Invalid records


def test_any_cut_of_a_record_is_a_miss(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """A record that was torn at any byte, zero-filled from any byte, or empty is a miss and never an error."""
    with machine.cache(folder) as cache:
        (record,) = records(cache)
    whole = record.read_bytes()
    for length in range(len(whole)):
        for content in (whole[:length], whole[:length] + bytes(len(whole) - length)):
            record.write_bytes(content)
            with machine.cache(folder) as cache:
                assert cache.get(wheel.digest) is None, content
    record.write_bytes(whole)
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None


def test_any_wrong_byte_of_a_record_is_a_miss(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """A record with one byte changed, or with bytes after its end, is a miss and never an error."""
    with machine.cache(folder) as cache:
        (record,) = records(cache)
    whole = record.read_bytes()
    for position in range(len(whole)):
        record.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with machine.cache(folder) as cache:
            assert cache.get(wheel.digest) is None, position
    record.write_bytes(whole + b" ")
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is None


FOREIGN = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"not json",
    b"\xff\xfe\x00",
    b"{" * 5000,
    b'{"check":"00000000"}\n',
    json.dumps({"sha256": "0" * 64, "filename": "x"}).encode(),
]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_record_costs_no_download(
    content: bytes, folder: Path, machine: Machine, server: Server, wheel: Wheel
) -> None:
    """An invalid record is a miss. A fetch hashes the existing blob and writes a valid record."""
    with machine.cache(folder) as cache:
        (record,) = records(cache)
    record.write_bytes(content)
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is None
        assert list(cache.entries()) == []
        found = cache.fetch(server.url(wheel.path), hashes=wheel.digest)
        assert found.path.read_bytes() == wheel.data
    assert server.count() == 0
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) == found


def test_a_wheel_in_a_numbered_place_that_lost_its_record_costs_no_download(
    folder: Path, machine: Machine, server: Server, wheel: Wheel
) -> None:
    """A fetch finds a blob in a numbered place, beside a damaged one or alone, and writes its record."""
    blob = the_blob(folder)
    numbered = blob.parent / "1" / blob.name
    numbered.parent.mkdir()
    blob.rename(numbered)
    for damaged in (True, False):
        blob.with_suffix(".json").unlink()
        if damaged:
            blob.write_bytes(bytes(wheel.size))
        with machine.cache(folder) as cache:
            found = cache.fetch(server.url(wheel.path), hashes=wheel.digest)
            assert (found.path, found.status) == (numbered, Status.HIT)
            assert len(quarantined(cache)) == 1
        with machine.cache(folder) as cache:
            assert cache.get(wheel.digest) == found
    assert server.count() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"sha256": 7},
        {"size": "10000"},
        {"size": None},
        {"size": -1},
        {"filename": None},
        {"filename": "../../other.whl"},
        {"filename": "other-1.0-py3-none-any.whl"},
        {"seen": None},
        {"seen": {}},
        {"seen": {"mtime_ns": 1, "inode": 2, "boot": "x", "more": 3}},
        {"hashes": None},
        {"hashes": []},
        {"hashes": {"sha512": 5}},
        {"place": "../.."},
        {"place": 99},
        {"place": None},
        {"url": 5},
        {"created": "today"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_record_that_says_odd_things_is_never_an_error(
    wrong: dict, folder: Path, machine: Machine, server: Server, wheel: Wheel
) -> None:
    """A record with a valid checksum and odd fields never leads to wrong bytes or out of its folder."""
    from wheelcache._store.records import decode, encode

    with machine.cache(folder) as cache:
        (record,) = records(cache)
    fields = decode(record.read_bytes())
    assert fields is not None
    record.write_bytes(encode(fields | wrong))
    machine.reboot()
    with machine.cache(folder) as cache:
        for found in (cache.get(wheel.digest), *cache.entries()):
            assert found is None or found.path.read_bytes() == wheel.data
        found = cache.fetch(server.url(wheel.path), hashes=wheel.digest)
        assert found.path.read_bytes() == wheel.data
        assert found.path.is_relative_to(folder / "v1" / "wheels")
        assert (found.size, found.digest, found.filename) == (wheel.size, wheel.digest, wheel.filename)


def test_a_record_from_another_digest_is_not_believed(
    folder: Path, machine: Machine, server: Server, wheel: Wheel, other_wheel: Wheel
) -> None:
    """A record that was copied to another digest's folder, with or without its wheel, is a miss."""
    with machine.cache(folder) as cache:
        mine = records(cache)[0].parent
        cache.fetch(other_wheel.on(server), hashes=other_wheel.digest)
        (theirs,) = {record.parent for record in records(cache)} - {mine}
    for path in theirs.iterdir():
        shutil.copy(path, mine / path.name)
    the = {path.name for path in mine.iterdir()}
    assert len(the) == 4
    with machine.cache(folder) as cache:
        found = cache.get(wheel.digest)
        assert found is not None
        assert found.path.read_bytes() == wheel.data
        assert cache.get(wheel.digest, filename=other_wheel.filename) is not None
        assert {entry.path.read_bytes() for entry in cache.entries()} == {wheel.data, other_wheel.data}
        for entry in cache.entries():
            assert (
                entry.path.read_bytes()
                == {wheel.digest: wheel.data, other_wheel.digest: other_wheel.data}[entry.digest]
            )
    (mine / wheel.filename).unlink()
    with machine.cache(folder) as cache:
        found = cache.get(wheel.digest)
        assert found is None or found.path.read_bytes() == wheel.data


def test_files_that_are_not_ours_are_passed_over(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """Foreign files in the folders of a cache are neither wheels nor errors."""
    for place in (
        folder,
        folder / "v1",
        folder / "v1" / "wheels",
        the_blob(folder).parent.parent,
        the_blob(folder).parent,
    ):
        for name in ("desktop.ini", ".DS_Store", "Thumbs.db.json", "x.whl"):
            (place / name).write_bytes(b"mine")
        (place / "a folder").mkdir()
        (place / "a folder.json").mkdir()
    with machine.cache(folder) as cache:
        assert [entry.digest for entry in cache.entries()] == [wheel.digest]
        assert cache.get(wheel.digest) is not None
        assert cache.stats().wheels >= 1


# Caches that are moved


def test_a_cache_can_be_moved(folder: Path, machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """A copy of the whole folder, as CI restores it, is the same cache, and hashes each wheel once."""
    shutil.copytree(folder, tmp_path / "elsewhere" / "cache")
    shutil.rmtree(folder)
    for times in (1, 0):
        with machine.cache(tmp_path / "elsewhere" / "cache", offline=True) as cache:
            found = cache.fetch(server.url(wheel.path), hashes=wheel.digest)
            assert found.status is Status.HIT
            assert found.path.is_relative_to(tmp_path / "elsewhere")
            assert found.path.read_bytes() == wheel.data
        assert hashed(machine) == times


def test_a_cache_has_no_path_of_its_machine_in_it(folder: Path, tmp_path: Path) -> None:
    """No file of a cache contains the path of the cache."""
    for name, content in files_in(folder).items():
        assert str(tmp_path).encode() not in content, name
        assert tmp_path.name.encode() not in content, name


def test_a_cache_is_plain_files_and_folders(folder: Path) -> None:
    """A cache contains no symbolic link or anything else that an archive could lose."""
    assert all(path.is_file() or path.is_dir() for path in folder.rglob("*"))
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_empty_folders_may_be_lost(
    folder: Path, machine: Machine, server: Server, wheel: Wheel, other_wheel: Wheel
) -> None:
    """An archive without the empty folders, or with nothing but the wheels, loses nothing important."""
    for name in ("partial", "tmp", "locks", "quarantine", "urls"):
        shutil.rmtree(folder / "v1" / name, ignore_errors=True)
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
        assert cache.fetch(other_wheel.on(server), hashes=other_wheel.digest).status is Status.DOWNLOADED
        assert len(blobs(cache)) == 2


def test_a_cache_that_vanished_is_empty(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """If the folder is deleted under an open Cache, fetch creates it again and returns the wheel."""
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
        shutil.rmtree(folder)
        assert cache.get(wheel.digest) is None
        assert list(cache.entries()) == []
        assert cache.stats().wheels == 0
        assert cache.fetch(server.url(wheel.path), hashes=wheel.digest).path.read_bytes() == wheel.data
        assert len(list(cache.entries())) == 1


def test_two_objects_see_each_others_wheels(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """A wheel that one Cache of a folder adds is found by another one that is already open."""
    with machine.cache(tmp_path / "cache") as one, machine.cache(tmp_path / "cache") as two:
        assert two.get(wheel.digest) is None
        one.fetch(wheel.on(server), hashes=wheel.digest)
        assert two.get(wheel.digest) is not None


def test_a_record_that_cannot_be_renewed_costs_only_time(folder: Path, wheel: Wheel, machine: Machine) -> None:
    """If the record cannot be replaced, the wheel is returned, and the next process hashes it again."""
    other = Machine(FaultyFiles(Refusing(Refuse("replace open_write", "EACCES"))))
    other.reboot()
    for _ in range(2):
        with other.cache(folder) as cache:
            assert cache.get(wheel.digest) is not None
            assert unfinished(cache) == []
        assert hashed(other) == 1
    assert other.clock.slept == []


def test_the_machines_own_clock_and_boot_do_it_too(server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """With the real system, a second Cache of this boot trusts the wheel that the first one fetched."""
    with Cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    events: list[ProgressEvent] = []
    with Cache(tmp_path / "cache") as cache:
        cache.fetch(server.url(wheel.path), hashes=wheel.digest, progress=events.append)
    assert [event.phase for event in events] == [Phase.DONE]
