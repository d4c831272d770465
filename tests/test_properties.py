"""Check properties that hold for every input and every order of events, with hypothesis.

The examples are the same in every run, so that a failure can be reproduced.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import FaultyFiles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from machines import Machine
from oracle import leftovers
from scenarios import quick_folder
from wheels import hex_of, make_wheel, sha256, wheel_filename

from wheelcache import Cache, HashMismatchError, LinkMode, OfflineError, SizeMismatchError
from wheelcache._fs.robustio import RobustIO
from wheelcache._operation import Operation
from wheelcache._os.system import System
from wheelcache._store.records import Record, StatFingerprint, decode, decode_record, encode, encode_record
from wheelcache._store.staging import StagedFile

SAME_EVERY_TIME = settings(derandomize=True, deadline=None, database=None)


def hex_digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=count, max_size=count)


HEX = hex_digits(64)


# Staging


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yield a folder for this module."""
    with quick_folder() as folder:
        yield folder


def stage_at(path: Path, **options: object) -> StagedFile:
    system = System()
    return StagedFile(RobustIO(Operation(system, io_timeout=0.0)), str(path), **{"expected": {}, **options})


@given(chunks=st.lists(st.binary(max_size=300), max_size=20), algorithms=st.sets(st.sampled_from(["sha512", "md5"])))
@settings(SAME_EVERY_TIME, max_examples=100)
def test_any_chunks(folder: Path, chunks: list[bytes], algorithms: set[str]) -> None:
    """A file that is received in any chunks has the right bytes and hashes."""
    data, path = b"".join(chunks), folder / "staged"
    expected = {name: hex_of(data, name) for name in ("sha256", *algorithms)}
    with stage_at(path, expected=expected) as stage:
        for chunk in chunks:
            stage.write(chunk)
        sealed = stage.seal()
        stage.mark_moved()
    assert path.read_bytes() == data
    assert sealed.size == len(data)
    assert sealed.hashes == expected
    path.unlink()


@given(
    tries=st.lists(st.lists(st.binary(max_size=300), max_size=5), min_size=1, max_size=5),
)
@settings(SAME_EVERY_TIME, max_examples=100)
def test_any_tries(folder: Path, tries: list[list[bytes]]) -> None:
    """Only the bytes of the last attempt count, whatever earlier attempts received."""
    path = folder / "staged"
    data = b"".join(tries[-1])
    with stage_at(path, expected={"sha256": hex_of(data)}) as stage:
        for number, chunks in enumerate(tries):
            if number:
                stage.restart()
            for chunk in chunks:
                stage.write(chunk)
        sealed = stage.seal()
        stage.mark_moved()
    assert path.read_bytes() == data
    assert sealed.size == len(data)
    path.unlink()


@given(
    data=st.binary(min_size=1, max_size=500), chunk=st.integers(1, 100), size=st.integers(0, 600), flip=st.booleans()
)
@settings(SAME_EVERY_TIME, max_examples=150)
def test_any_other_bytes(folder: Path, data: bytes, chunk: int, size: int, flip: bool) -> None:
    """Bytes with another size or hash are refused, and leave no file."""
    path = folder / "staged"
    due = bytes([data[0] ^ 1]) + data[1:] if flip else data
    right = size == len(data) and not flip

    def fill() -> None:
        with stage_at(path, expected={"sha256": hex_of(due)}, size=size) as stage:
            for start in range(0, len(data), chunk):
                stage.write(data[start : start + chunk])
            stage.seal()

    if right:
        fill()
    else:
        with pytest.raises(HashMismatchError if size == len(data) else SizeMismatchError):
            fill()
    assert not path.exists()


# Records

SEEN = st.builds(StatFingerprint, st.integers(0, 2**63), st.integers(0, 2**64), st.none() | st.text(max_size=40))
RECORDS = st.builds(
    Record,
    filename=st.from_regex(re.compile(r"\A[A-Za-z0-9_.]{1,40}(?:-[a-z0-9_.+!]{1,20}){4}\.whl\Z", re.ASCII)),
    sha256=HEX,
    size=st.integers(0, 2**40),
    seen=SEEN,
    hashes=st.fixed_dictionaries(
        {}, optional={"sha512": hex_digits(128), "sha1": hex_digits(40), "md5": hex_digits(32)}
    ),
    url=st.none() | st.text(max_size=80),
    created=st.integers(0, 2**40),
    place=st.integers(0, 9),
)


@given(record=RECORDS)
@settings(SAME_EVERY_TIME, max_examples=200)
def test_a_record_comes_back(record: Record) -> None:
    """An encoded record is decoded to the same record, and is not a record of another wheel."""
    data = encode_record(record)
    assert decode_record(data, record.sha256) == record
    assert decode_record(data, "0" * 64) is None or record.sha256 == "0" * 64
    assert data.isascii()
    assert data.count(b"\n") == 1


@given(record=RECORDS, where=st.floats(0, 1, exclude_max=True))
@settings(SAME_EVERY_TIME, max_examples=150)
def test_a_short_record_is_none(record: Record, where: float) -> None:
    """A record that is cut anywhere, even if it is padded with zeros, is not a record."""
    data = encode_record(record)
    cut = int(where * len(data))
    assert decode(data[:cut]) is None
    assert decode(data[:cut].ljust(len(data), b"\0")) is None
    assert decode(data + data[:cut]) is None or cut == 0


@given(record=RECORDS, where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(SAME_EVERY_TIME, max_examples=200)
def test_a_flipped_bit_makes_no_record(record: Record, where: float, bit: int) -> None:
    """A record with one flipped bit is not a record."""
    data = bytearray(encode_record(record))
    data[int(where * len(data))] ^= 1 << bit
    assert decode(bytes(data)) is None
    assert decode_record(bytes(data), record.sha256) is None


def test_every_flipped_bit_and_every_cut() -> None:
    """The same is true for every bit and every cut of one record."""
    record = Record(
        wheel_filename(), "ab" * 32, 10_000, StatFingerprint(1, 2, "boot"), {"md5": "0" * 32}, "https://example.org/"
    )
    data = encode_record(record)
    for at in range(len(data)):
        assert decode(data[:at]) is None
        for bit in range(8):
            assert decode(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]) is None


@given(first=RECORDS, second=RECORDS, where=st.floats(0, 1))
@settings(SAME_EVERY_TIME, max_examples=150)
def test_two_records_mixed_make_none(first: Record, second: Record, where: float) -> None:
    """A record that was partly written over another one is one of the two, or not a record."""
    old, new = encode_record(first), encode_record(second)
    cut = int(where * len(new))
    mixed = new[:cut] + old[cut:]
    assert decode(mixed) is None or mixed in (old, new)


@given(data=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@settings(SAME_EVERY_TIME, max_examples=150)
def test_anything_else_is_no_record(data: bytes) -> None:
    """Any bytes in place of a record are read without an error."""
    assert decode(data) is None
    assert decode_record(data, "ab" * 32) is None


@given(
    fields=st.dictionaries(
        st.text(max_size=10), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5), max_size=5
    )
)
@settings(SAME_EVERY_TIME, max_examples=100)
def test_other_fields_are_no_record(fields: dict[str, object]) -> None:
    """Fields that are not a record are refused despite a valid checksum, since another version may write them."""
    assert decode(encode(fields)) == fields
    assert decode_record(encode(fields), "ab" * 32) is None


@given(field=st.sampled_from(Record._fields), value=st.none() | st.booleans())
@settings(SAME_EVERY_TIME, max_examples=50)
def test_a_record_with_a_field_missing(field: str, value: object) -> None:
    """A record with a missing or invalid field is not a record."""
    record = Record(wheel_filename(), "ab" * 32, 10_000, StatFingerprint(1, 2, "boot"))
    fields = decode(encode_record(record))
    assert fields is not None
    assert decode_record(encode({**fields, "more": value}), record.sha256) is None
    if field in {"filename", "sha256", "size", "seen"}:
        del fields[field]
        assert decode_record(encode(fields), record.sha256) is None


# Any order of events

NAMES = [wheel_filename("one"), wheel_filename("two"), wheel_filename("three")]
DATA = {name: make_wheel(name.split("-")[0], size=2500 + number) for number, name in enumerate(NAMES)}
ALIASES = {name: name.replace("-1.0-", "-1.0.0-") for name in NAMES}
BOTH = [*NAMES, *ALIASES.values()]
WHEELS = st.sampled_from(NAMES)
OFFLINE = "https://example.org/"


class AnyOrder(RuleBasedStateMachine):
    """A cache, the events that can happen to it in any order, and the properties that it must keep.

    The undamaged entries are in ``good``, and must exist. Other entries may exist, but never with wrong bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder = quick_folder()
        base = self._folder.__enter__()
        self.base = base
        self.root = base / "cache"
        self.files = FaultyFiles()
        self.machine = Machine(self.files)
        self.cache = self.open()
        self.good: set[str] = set()
        self.number = 0

    def open(self, **options: object) -> Cache:
        return self.machine.cache(self.root, offline=True, **options)

    def teardown(self) -> None:
        self.cache.close()
        assert not self.files.open_handles
        self._folder.__exit__(None, None, None)

    def data(self, name: str) -> bytes:
        return DATA[name.replace("-1.0.0-", "-1.0-")]

    def place(self, name: str) -> Path:
        digest = hex_of(self.data(name))
        return self.root / "v1" / "wheels" / digest[:2] / digest[2:] / name

    def touch(self, path: Path) -> None:
        """Change the time stamp of a written file, since the clock of the file system may be too coarse."""
        self.number += 1
        os.utime(path, (self.number, self.number))  # in seconds: Windows counts by 100 ns

    def damaged(self, path: Path) -> None:
        """Record that a file was written to, which damages it under all of its names."""
        inode = path.stat().st_ino
        for name in BOTH:
            if self.place(name).exists() and self.place(name).stat().st_ino == inode:
                self.good.discard(name)

    def is_there(self, name: str) -> None:
        """Record that a wheel was found.

        It is an entry only if it has a record, since an object remembers trusted entries.
        """
        path = self.place(name).with_suffix(".json")
        record = decode_record(path.read_bytes(), hex_of(self.data(name))) if path.exists() else None
        if record is not None and record.filename == name:
            self.good.add(name)

    # Calls

    @rule(name=WHEELS)
    def put(self, name: str) -> None:
        source = self.base / name
        source.write_bytes(DATA[name])
        wheel = self.cache.put(source)
        assert wheel.path.read_bytes() == DATA[name]
        self.good.add(name)

    @rule(name=st.sampled_from(BOTH), algorithm=st.sampled_from(["sha256", "sha512"]))
    def get(self, name: str, algorithm: str) -> None:
        found = self.cache.get(f"{algorithm}:{hex_of(self.data(name), algorithm)}", filename=name)
        if found is not None:
            assert found.path.read_bytes() == self.data(name)
            assert found.digest == sha256(self.data(name))
            if found.filename == name:
                self.is_there(name)
        if algorithm == "sha256":
            assert found is not None or name not in self.good

    @rule(name=WHEELS, alias=st.booleans())
    def fetch(self, name: str, alias: bool) -> None:
        """Fetch offline, which is a hit or an OfflineError."""
        filename = ALIASES[name] if alias else name
        try:
            wheel = self.cache.fetch(OFFLINE + filename, hashes=sha256(DATA[name]))
        except OfflineError:
            assert filename not in self.good
        else:
            assert wheel.path.read_bytes() == DATA[name]
            assert wheel.path.name == wheel.filename == filename
            self.is_there(filename)

    @rule(name=WHEELS)
    def fetch_from_a_file(self, name: str) -> None:
        source = self.base / name
        source.write_bytes(DATA[name])
        wheel = self.cache.fetch(source.as_uri(), hashes=sha256(DATA[name]))
        assert wheel.path.read_bytes() == DATA[name]
        self.is_there(name)

    @rule(name=WHEELS, mode=st.sampled_from([LinkMode.AUTO, LinkMode.HARDLINK, LinkMode.COPY]))
    def link(self, name: str, mode: LinkMode) -> None:
        wheel = self.cache.get(sha256(DATA[name]))
        if wheel is not None:
            self.number += 1
            target = self.base / "out" / f"{self.number}.whl"
            self.cache.link(wheel, target, mode=mode)
            assert target.read_bytes() == DATA[name]

    @rule(full=st.booleans())
    def open_again(self, full: bool) -> None:
        self.cache.close()
        self.cache = self.open(verify="full" if full else "auto")

    @rule()
    def look_read_only(self) -> None:
        with self.open(read_only=True) as cache:
            for name in self.good:
                found = cache.get(sha256(self.data(name)), filename=name)
                assert found is not None
                assert found.path.read_bytes() == self.data(name)

    # Events

    @rule()
    def reboot(self) -> None:
        self.machine.reboot()

    @rule(name=st.sampled_from(BOTH))
    def somebody_touches(self, name: str) -> None:
        if self.place(name).exists():
            self.touch(self.place(name))

    @rule(name=st.sampled_from(BOTH))
    def somebody_deletes_the_blob(self, name: str) -> None:
        self.place(name).unlink(missing_ok=True)
        self.good.discard(name)

    @rule(name=st.sampled_from(BOTH))
    def somebody_deletes_the_record(self, name: str) -> None:
        self.place(name).with_suffix(".json").unlink(missing_ok=True)
        self.good.discard(name)

    @rule(name=st.sampled_from(BOTH), where=st.floats(0, 1))
    def somebody_cuts_the_record(self, name: str, where: float) -> None:
        record = self.place(name).with_suffix(".json")
        if record.exists():
            os.truncate(record, int(where * (record.stat().st_size - 1)))
            self.good.discard(name)

    @rule(name=st.sampled_from(BOTH), where=st.floats(0, 1), secretly=st.booleans())
    def somebody_cuts_the_blob(self, name: str, where: float, secretly: bool) -> None:
        path = self.place(name)
        if path.exists() and path.stat().st_size:
            self.damaged(path)
            before = path.stat()
            os.truncate(path, int(where * (before.st_size - 1)))
            if secretly:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            else:
                self.touch(path)

    @rule(name=st.sampled_from(BOTH), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def a_bit_flips(self, name: str, where: float, bit: int) -> None:
        path = self.place(name)
        if path.exists() and path.stat().st_size:
            self.damaged(path)
            data = bytearray(path.read_bytes())
            data[int(where * len(data))] ^= 1 << bit
            path.write_bytes(data)
            self.touch(path)

    @rule(name=st.sampled_from(BOTH), other=st.sampled_from(BOTH))
    def records_are_mixed_up(self, name: str, other: str) -> None:
        record, wrong = self.place(name).with_suffix(".json"), self.place(other).with_suffix(".json")
        if name != other and record.exists() and wrong.exists():
            record.write_bytes(wrong.read_bytes())
            self.good.discard(name)

    @rule()
    def moved_and_restored(self) -> None:
        """Move the folder, like an archive from another machine, so that inodes are new and time stamps old."""
        self.cache.close()
        away = self.base / "away"
        shutil.copytree(self.root, away)
        shutil.rmtree(self.root)
        shutil.copytree(away, self.root)
        shutil.rmtree(away)
        self.machine.boot = f"boot {self.number} of another machine"
        self.number += 1
        self.cache = self.open()

    # Invariants

    @invariant()
    def nothing_is_wrong_or_lost(self) -> None:
        with self.open() as fresh:
            entries = {wheel.filename: wheel for wheel in fresh.entries()}
            for name, wheel in entries.items():
                assert wheel.path.read_bytes() == self.data(name), f"{name} has wrong bytes"
                assert wheel.digest == sha256(self.data(name))
            assert self.good <= set(entries), f"lost: {self.good - set(entries)}"

    @invariant()
    def nothing_is_left_over(self) -> None:
        assert leftovers(self.root) == []


# Under Wine, an example takes seconds.
ORDERS = 15 if sys.platform == "win32" else 100
TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    SAME_EVERY_TIME,
    max_examples=ORDERS,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow],
)
