"""Trust: when a wheel is believed as it is, when it is hashed again, and that a damaged one is never handed out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import blobs, files_in, listing, quarantined, records, unfinished
from machines import Machine
from server import Server
from wheels import Wheel

from wheelcache import Cache, Phase, ProgressEvent, Status


@pytest.fixture
def folder(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> Path:
    """A cache folder with one wheel, and nobody who has it open."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    machine.files.forget()
    server.forget()
    return tmp_path / "cache"


def the_blob(folder: Path) -> Path:
    (path,) = (folder / "v1" / "wheels").rglob("*.whl")
    return path


def hashed(machine: Machine) -> int:
    """How often a wheel was read since the last time this was asked."""
    count = len(machine.files.calls("open_read", ".whl"))
    machine.files.forget()
    return count


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10_000_000_000))


# What a hit costs


def test_a_hit_is_one_read_and_one_stat(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """A hit of a fresh Cache reads the record and looks at the wheel once; every further one only looks."""
    with machine.cache(folder) as cache:
        blob, record = the_blob(folder), records(cache)[0]
        machine.files.forget()
        cache.fetch(server.url(wheel.path), hashes=wheel.digest)
        assert machine.files.log == [("read_with_mtime", str(record)), ("stat", str(blob))]
        machine.files.forget()
        cache.fetch(server.url(wheel.path), hashes=wheel.digest)
        assert machine.files.log == [("stat", str(blob))]
        machine.files.forget()
        assert cache.get(wheel.digest, filename=wheel.filename) is not None
        assert machine.files.log == [("stat", str(blob))]


def test_what_was_just_fetched_costs_one_stat(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """A wheel that this object put there itself is not read again."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
        machine.files.forget()
        cache.fetch(wheel.on(server), hashes=wheel.digest)
        assert [name for name, _ in machine.files.log] == ["stat"]


# When it is hashed again


def test_after_a_reboot_it_is_hashed_once(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """The first use after a reboot hashes, renews the record, and every later one of any process trusts again."""
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
    """A machine that slept to disk and started again is a reboot for a process that went on."""
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
        machine.reboot()
        assert cache.get(wheel.digest) is not None
        assert cache.get(wheel.digest) is not None
    assert hashed(machine) == 1


def test_without_a_boot_identity_each_process_hashes_once(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """Where the system does not say when it started, a wheel is hashed once by each Cache."""
    machine.boot = None
    for _ in range(2):
        with machine.cache(folder) as cache:
            for _ in range(3):
                assert cache.get(wheel.digest) is not None
        assert hashed(machine) == 1


def test_a_touched_wheel_is_hashed_once(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """Another time stamp with the same bytes costs one hash, also where the Cache trusted the wheel before."""
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
    """A file that was put in the place of the wheel, with its size and its time stamp, is another file all the same."""
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
    """A hit that must have another hash as well is hashed for it, and the record has it from then on."""
    hashes = {"sha256": wheel.hex(), "md5": wheel.hex("md5"), "sha512": wheel.hex("sha512")}
    for times in (1, 0):
        with machine.cache(folder) as cache:
            found = cache.fetch(server.url(wheel.path), hashes=hashes)
            assert (found.status, found.hashes) == (Status.HIT, hashes)
        assert hashed(machine) == times
    assert server.count() == 0


def test_verify_full_hashes_on_every_hit(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """With verify="full" every look reads the wheel, and a change that no stamp shows is found."""
    with machine.cache(folder, verify="full") as cache:
        for _ in range(3):
            assert cache.get(wheel.digest) is not None
        assert hashed(machine) == 3
        change_in_secret(the_blob(folder))
        assert cache.get(wheel.digest) is None
        assert cache.fetch(server.url(wheel.path), hashes=wheel.digest).status is Status.REPAIRED


def change_in_secret(blob: Path) -> None:
    """Flip a bit and set the time stamp back: the one thing that is not noticed within a boot, as the docs say."""
    stat = blob.stat()
    data = bytearray(blob.read_bytes())
    data[500] ^= 1
    with blob.open("r+b") as file:
        file.write(data)
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_hidden_change_is_found_after_a_reboot(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """A flipped bit behind an unchanged stamp, as a power cut leaves it, does not outlive the boot."""
    change_in_secret(the_blob(folder))
    machine.reboot()
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is None


def test_hashing_again_is_told(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """A listener hears that a wheel is checked, up to its size, and then that it is there."""
    machine.reboot()
    events: list[ProgressEvent] = []
    with machine.cache(folder) as cache:
        cache.fetch(server.url(wheel.path), hashes=wheel.digest, progress=events.append)
    assert {event.phase for event in events[:-1]} == {Phase.CHECKING}
    assert (events[-2].done, events[-2].total) == (wheel.size, wheel.size)
    assert events[-1].phase is Phase.DONE


def test_a_listener_may_stop_the_hashing(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """What a listener raises while a wheel is checked leaves the entry as it was."""
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
    """Whatever became of the bytes, no look gives them: they are put aside, and the wheel is fetched again."""
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
    """A fetch that meets a damaged wheel gives a good one, and says that it repaired."""
    DAMAGE[kind](the_blob(folder), wheel.data)
    machine.reboot()
    with machine.cache(folder) as cache:
        found = cache.fetch(server.url(wheel.path), hashes=wheel.digest)
        assert (found.status, found.path.read_bytes()) == (Status.REPAIRED, wheel.data)
        assert len(quarantined(cache)) == 1


def test_a_missing_blob_is_a_miss(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """A record without its wheel is nothing, and the wheel is fetched again."""
    the_blob(folder).unlink()
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is None
        assert list(cache.entries()) == []
        assert cache.fetch(server.url(wheel.path), hashes=wheel.digest).path.read_bytes() == wheel.data
        assert server.count() == 1


def test_a_folder_in_the_place_of_a_wheel_is_never_handed_out(folder: Path, machine: Machine, wheel: Wheel) -> None:
    """What is no file is no wheel."""
    blob = the_blob(folder)
    blob.unlink()
    blob.mkdir()
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is None
        assert list(cache.entries()) == []


# Records that say nothing


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
    """What is no record is a miss; a fetch hashes the wheel that is there and writes a record that is one."""
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
    """A fetch finds it where it stands, beside a damaged one or alone, hashes it and writes its record."""
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
    """A record with a good checksum and odd content gives the right bytes or none, and stays within its folder."""
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
    """A record that was copied to another digest's folder, with or without its wheel, leads to nothing."""
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
    """Whatever lies about in the folders of a cache is no wheel and no error."""
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


# Caches that travel


def test_a_cache_can_be_moved(folder: Path, machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """A copy of the whole folder elsewhere, as CI restores it, is the same cache, and hashes each wheel once."""
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
    """No file of a cache says where the cache is."""
    for name, content in files_in(folder).items():
        assert str(tmp_path).encode() not in content, name
        assert tmp_path.name.encode() not in content, name


def test_a_cache_is_plain_files_and_folders(folder: Path) -> None:
    """There is no symbolic link nor anything else that an archive could lose."""
    assert all(path.is_file() or path.is_dir() for path in folder.rglob("*"))
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_empty_folders_may_be_lost(
    folder: Path, machine: Machine, server: Server, wheel: Wheel, other_wheel: Wheel
) -> None:
    """An archive that leaves out empty folders, or everything but the wheels, loses nothing that matters."""
    for name in ("partial", "tmp", "locks", "quarantine", "urls"):
        shutil.rmtree(folder / "v1" / name, ignore_errors=True)
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
        assert cache.fetch(other_wheel.on(server), hashes=other_wheel.digest).status is Status.DOWNLOADED
        assert len(blobs(cache)) == 2


def test_a_cache_that_vanished_is_empty(folder: Path, machine: Machine, server: Server, wheel: Wheel) -> None:
    """Whoever deletes the folder under an open Cache gets a miss, a new folder and the wheel, and no error."""
    with machine.cache(folder) as cache:
        assert cache.get(wheel.digest) is not None
        shutil.rmtree(folder)
        assert cache.get(wheel.digest) is None
        assert list(cache.entries()) == []
        assert cache.stats().wheels == 0
        assert cache.fetch(server.url(wheel.path), hashes=wheel.digest).path.read_bytes() == wheel.data
        assert len(list(cache.entries())) == 1


def test_two_objects_see_each_others_wheels(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """What one Cache of a folder puts there, another one that is open finds."""
    with machine.cache(tmp_path / "cache") as one, machine.cache(tmp_path / "cache") as two:
        assert two.get(wheel.digest) is None
        one.fetch(wheel.on(server), hashes=wheel.digest)
        assert two.get(wheel.digest) is not None


def test_a_record_that_cannot_be_renewed_costs_only_time(folder: Path, wheel: Wheel, machine: Machine) -> None:
    """Where the record cannot be replaced just now, the wheel is handed out, and the next process hashes again."""
    from wheelcache._os.files import native

    class Refusing:
        def __getattr__(self, name: str):
            action = getattr(native(), name)

            def refused(path: str, *rest: str):
                if name in {"replace", "open_write"}:
                    raise PermissionError(13, "Permission denied", path)
                return action(path, *rest)

            return refused

    other = Machine(Refusing())  # type: ignore[arg-type]
    other.reboot()
    for _ in range(2):
        with other.cache(folder) as cache:
            assert cache.get(wheel.digest) is not None
            assert unfinished(cache) == []
        assert hashed(other) == 1
    assert other.clock.slept == []


def test_the_machines_own_clock_and_boot_do_it_too(server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """With nothing replaced, a second Cache of this boot trusts what the first one fetched."""
    with Cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    events: list[ProgressEvent] = []
    with Cache(tmp_path / "cache") as cache:
        cache.fetch(server.url(wheel.path), hashes=wheel.digest, progress=events.append)
    assert [event.phase for event in events] == [Phase.DONE]
