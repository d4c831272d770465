"""The order of blob and record on a volume that may disappear and return within one boot."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyFiles, Refuse, Refusing
from folders import blobs, records
from machines import Machine
from marks import not_on_windows
from wheels import Wheel, wheel_filename

from wheelcache import Cause, CommitError, Status
from wheelcache._os.volume import Volume
from wheelcache._store.records import Record, decode_record

if sys.platform != "win32":
    from wheelcache._os import volume_posix

VANISHING = [Volume(remote=True), Volume(removable=True)]


def read_record(path: Path, wheel: Wheel) -> Record:
    record = decode_record(path.read_bytes(), wheel.hex())
    assert record is not None
    return record


def flushes_and_records(machine: Machine) -> list[tuple[str, str]]:
    """Return the names of flushed files and created records, in order."""
    return [
        (name, Path(path).name)
        for name, path in machine.files.log
        if name == "flush" or (name == "create" and "wheels" in Path(path).parts and path.endswith(".json"))
    ]


@pytest.mark.parametrize("volume", VANISHING, ids=["network", "removable"])
def test_a_blob_is_flushed_before_its_record_is_written(
    machine: Machine, tmp_path: Path, wheel: Wheel, volume: Volume
) -> None:
    """A record on a removable or network volume never precedes the bytes of its wheel."""
    machine.volume = volume
    with machine.cache(tmp_path / "cache") as cache:
        for name in (wheel.filename, wheel_filename("alias")):
            machine.files.forget()
            cache.put(io.BytesIO(wheel.data), filename=name)
            assert flushes_and_records(machine) == [("flush", name), ("create", name.replace(".whl", ".json"))]
    assert len(machine.volumes_asked) == 1


def test_a_record_is_renewed_after_a_flush(machine: Machine, tmp_path: Path, wheel: Wheel) -> None:
    """A blob whose record is missing or from another boot is flushed before that record is written."""
    machine.volume = Volume(removable=True)
    with machine.cache(tmp_path / "cache") as cache:
        cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
        (record,) = records(cache)
    for change in (machine.reboot, record.unlink):
        change()
        with machine.cache(tmp_path / "cache") as cache:
            machine.files.forget()
            cache.get(wheel.digest)
            cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
            assert machine.files.calls("flush", wheel.filename) != []


def test_nothing_is_flushed_on_an_ordinary_disk(machine: Machine, tmp_path: Path, wheel: Wheel) -> None:
    """On a local disk, no file is flushed, and the volume is examined once."""
    with machine.cache(tmp_path / "cache") as cache:
        for name in ("one", "two"):
            cache.put(io.BytesIO(wheel.data), filename=wheel_filename(name))
    assert machine.files.calls("flush") == []
    assert len(machine.volumes_asked) == 1


def test_a_hit_does_not_ask_for_the_volume(machine: Machine, tmp_path: Path, wheel: Wheel) -> None:
    """The kind of the volume matters only for a record that is written."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
    machine.volumes_asked.clear()
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.get(wheel.digest) is not None
    assert machine.volumes_asked == []


def refusing(code: Any) -> Machine:
    machine = Machine(FaultyFiles(Refusing(Refuse("flush", code))))
    machine.volume = Volume(removable=True)
    return machine


@pytest.mark.parametrize("code", ["EIO", "ENOSPC", "EDQUOT", 112])
def test_a_wheel_that_the_volume_cannot_store_is_an_error(tmp_path: Path, wheel: Wheel, code: Any) -> None:
    """A flush that fails because bytes were lost ends the call, and no record exists."""
    machine = refusing(code)
    with machine.cache(tmp_path / "cache") as cache:
        with pytest.raises(CommitError) as caught:
            cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
        assert caught.value.cause in {Cause.BROKEN, Cause.FULL}
        assert caught.value.operation == "flush"
        assert records(cache) == []
        assert cache.get(wheel.digest) is None


@pytest.mark.parametrize("code", ["EINVAL", "ENOTSUP", "ENOSYS", "EROFS", 1, 50])
def test_a_volume_that_cannot_flush_is_used_as_it_is(tmp_path: Path, wheel: Wheel, code: Any) -> None:
    """If the volume does not support flushing, the record is written, and accepted by other processes."""
    machine = refusing(code)
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.put(io.BytesIO(wheel.data), filename=wheel.filename).status is Status.ADDED
        (record,) = records(cache)
    assert read_record(record, wheel).seen.boot == machine.boot
    assert machine.clock.slept == []


@pytest.mark.parametrize("code", ["EACCES", 5, 32])
def test_a_wheel_that_is_held_is_not_trusted_by_the_next_process(tmp_path: Path, wheel: Wheel, code: Any) -> None:
    """If a holder prevents the flush, this process trusts the bytes it wrote, and the next one hashes them."""
    machine = refusing(code)
    for times in (0, 1):
        with machine.cache(tmp_path / "cache") as cache:
            cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
            (record,) = records(cache)
            assert read_record(record, wheel).seen.boot is None
            machine.files.forget()
            assert cache.get(wheel.digest) is not None
            assert machine.files.calls("open_read", ".whl") == []
        if times == 0:
            with machine.cache(tmp_path / "cache") as cache:
                machine.files.forget()
                assert cache.get(wheel.digest) is not None
                assert len(machine.files.calls("open_read", ".whl")) == 1
    assert machine.clock.slept == []


def test_zeros_after_a_volume_returned_are_found(machine: Machine, tmp_path: Path, wheel: Wheel) -> None:
    """If the flush was not possible, a blob that lost its bytes within one boot is not returned."""
    machine = refusing(32)
    with machine.cache(tmp_path / "cache") as cache:
        cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
        (blob,) = blobs(cache)
    stat = blob.stat()
    with blob.open("r+b") as file:
        file.write(bytes(wheel.size))
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.get(wheel.digest) is None


def test_the_real_file_layer_flushes(tmp_path: Path) -> None:
    """The system accepts the flush of a file that other programs may have open."""
    from wheelcache._os.files import native

    path = tmp_path / "file"
    path.write_bytes(b"data")
    native().flush(str(path))
    assert path.read_bytes() == b"data"
    with pytest.raises(FileNotFoundError):
        native().flush(str(tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()


@not_on_windows("Windows reports the type of a drive")
@pytest.mark.parametrize(
    ("device", "attributes", "expected"),
    [
        ("8:1", {"/sys/devices/pci0/ata1/block/sda/removable": ["0"]}, False),
        ("8:1", {"/sys/devices/pci0/ata1/block/sda/removable": ["1"]}, True),
        ("8:1", {}, False),
        ("8:17", {}, True),
        ("253:0", {}, True),
        ("0:25", {}, False),
    ],
)
def test_a_removable_device_is_recognised(
    monkeypatch: pytest.MonkeyPatch, device: str, attributes: dict[str, list[str]], expected: bool
) -> None:
    """A disk is removable if Linux says so, or if it or the disk below an encrypted volume is at a USB port."""
    links = {
        "/sys/dev/block/8:1": "/sys/devices/pci0/ata1/block/sda/sda1",
        "/sys/dev/block/8:17": "/sys/devices/pci0/usb2/2-1/block/sdb/sdb1",
        "/sys/dev/block/253:0": "/sys/devices/virtual/block/dm-0",
        "/sys/dev/block/253:0/slaves/sdb1": "/sys/devices/pci0/usb2/2-1/block/sdb/sdb1",
    }
    monkeypatch.setattr(volume_posix.os.path, "realpath", lambda path: links[path])
    monkeypatch.setattr(volume_posix, "_lines_of", lambda path: attributes.get(path, []))
    monkeypatch.setattr(volume_posix, "_names_in", lambda path: ["sdb1"] if "253" in path else [])
    assert volume_posix._is_removable(device) is expected


@pytest.mark.parametrize(
    ("volume", "is_accepted"), [(Volume(), True), (Volume(remote=True), True), (Volume(removable=True), False)]
)
def test_each_process_compares_a_tree_on_a_removable_volume(
    machine: Machine, tmp_path: Path, wheel: Wheel, volume: Volume, is_accepted: bool
) -> None:
    """The files of a tree are not flushed, so only the process that created or compared the tree trusts its marker."""
    machine.volume = volume
    for number in range(2):
        with machine.cache(tmp_path / "cache") as cache:
            found = cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
            for again in (False, True):
                machine.files.forget()
                tree = cache.unpack(found).path
                assert (tree / "demo.py").exists()
                has_read = any(path.startswith(str(tree)) for path in machine.files.calls("open_read"))
                assert has_read is (number == 1 and not again and not is_accepted)
    assert machine.files.calls("flush", ".py") == []
