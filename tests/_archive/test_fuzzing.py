"""Random archives are refused, or read as other readers read them. The seeds make every run the same.

There are two kinds. Wheels with random names and header fields are built, and many of them are accepted. Other wheels,
and a real one, are changed in random places, and most of them are refused.
"""

from __future__ import annotations

import importlib.util
import io
import random
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from archives import DEFLATED, DESCRIPTOR, FILENAME, Entry, descriptor, record_of, wheel, wheel_entries
from folders import files_in
from hostile import ODD, with_extra
from marks import any_system
from zip_readers import READERS, RefusedError, composed, files_by, files_by_zipfile, is_installed, our_files

from wheelcache import Cache, WheelCacheError

pytestmark = any_system

# In every structure of a zip archive, the offset and size of each field.
_FIELDS = {
    b"PK\3\4": [(4, 2), (6, 2), (8, 2), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)],
    b"PK\1\2": [
        *((4, 1), (5, 1), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2)),
        *((34, 2), (36, 2), (38, 1), (39, 1), (40, 2), (42, 4)),
    ],
    b"PK\5\6": [(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)],
    b"PK\6\6": [(4, 8), (12, 2), (14, 2), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8), (48, 8)],
    b"PK\6\7": [(4, 4), (8, 8), (16, 4)],
}
_NUMBERS = [0, 1, 2, 3, 8, 10, 16, 20, 45, 0x40, 0x0800, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63, 2**64 - 1]
_PARTS = [
    *("a", "A", "demo", "é", "e\u0301", "日本", "._a", "__MACOSX", "a;1", "a;b", "~1", "a b", "-rf", "@a", "#U00e9"),
    *("..", ".", "", "nul", "a.", " ", "$HOME", "%41", "*", "[a]", "a\\b", "\u200c", "\u0131", "I", "C:", "n" * 254),
]
_EXTRA_FIELDS = [1, 0x0A, 0x0D, 0x5455, 0x5855, 0x6375, 0x6C78, 0x7075, 0x756E, 0x7855, 0x7875, 0xCAFE, 0xD935, 0x9901]
_MODES = [0, 0o644, 0o755, 0o100644, 0o100755, 0o104755, 0o40755, 0o120777, 0o10644, 0o20666]


def random_extra(rng: random.Random) -> bytes:
    """Return no extra field, or one or two.

    Fields that are accepted have contents that are correct, since bsdtar ends with an error for others.
    """
    correct = {
        0x0A: bytes(4) + with_extra(1, rng.randbytes(24)),
        0x5455: b"\1" + rng.randbytes(4),
        0x5855: rng.randbytes(8),
        0x7855: rng.randbytes(4),
        0x7875: b"\1\4" + bytes(4) + b"\4" + bytes(4),
    }
    fields = b""
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        kind = rng.choice(_EXTRA_FIELDS)
        fields += with_extra(kind, correct.get(kind) or rng.randbytes(rng.choice([0, 4, 5, 8, 11, 12, 16, 28])))
    return fields


def random_entry(rng: random.Random) -> Entry:
    """Return a member that is usually a correct file, with one or two unusual properties."""
    name = "/".join(rng.choice(_PARTS[: rng.choice([12, len(_PARTS)])]) for _ in range(rng.randint(1, 3)))
    entry = Entry(name, rng.choice([b"", b"x = 1\n" * 9, rng.randbytes(20)]), rng.choice([0, DEFLATED]))
    for property_ in rng.sample(["mode", "system", "attributes", "flags", "extra", "descriptor", "folder"], 2):
        match property_:
            case "mode":
                entry.mode = rng.choice(_MODES)
            case "system":
                entry.central["system"] = rng.choice([0, 0, 1, 2, 3, 6, 7, 10, 11, 14, 19, 255])
            case "attributes":
                entry.central["attributes"] = rng.choice([1 << rng.randrange(16), 0x20, 0x21, 0x80])
            case "flags":
                entry.flags |= 1 << rng.choice([1, 2, 11, rng.randrange(16)])
            case "extra":
                entry.extra, entry.local_extra = random_extra(rng), random_extra(rng)
            case "descriptor" if not entry.after:
                entry.flags |= DESCRIPTOR
                entry.local = rng.choice([{"crc": 0, "packed": 0, "size": 0}, {}])
                entry.after = descriptor(entry, signature=rng.random() < 0.7, wide=rng.random() < 0.3)
            case "folder" if rng.random() < 0.3:
                entry.name, entry.data, entry.mode = name + "/", b"", rng.choice([0, 0o40755, entry.mode])
    return entry


def built(rng: random.Random) -> bytes:
    """Return a wheel with a few random members."""
    entries = [random_entry(rng) for _ in range(rng.randint(1, 3))]
    record = record_of(wheel_entries(entries)[:-1])
    return wheel(entries, record=record, zip64=rng.random() < 0.1, comment=rng.choice([b"", b"", b"text"]))


@cache
def seeds() -> list[bytes]:
    """Return small wheels, and pip's if this Python contains it."""
    ensurepip = importlib.util.find_spec("ensurepip")
    bundled = Path(ensurepip.origin or "").parent / "_bundled" if ensurepip else Path()
    small = [data for data in (make() for make in ODD.values()) if len(data) < 1 << 16]
    return [*small, *(path.read_bytes() for path in bundled.glob("pip-*.whl"))]


def changed(rng: random.Random) -> bytes:
    """Return a wheel with a few changes: of fields, of bytes, or of whole parts."""
    data = bytearray(rng.choice(seeds()[: rng.choice([-1, -1, -1, len(seeds())])]))
    for _ in range(rng.randint(1, 2)):
        match rng.choice(["field", "field", "field", "byte", "cut", "double", "part"]):
            case "field":
                signature = rng.choice(list(_FIELDS))
                at = data.find(signature, rng.randrange(len(data))) if data else -1
                if at >= 0:
                    offset, size = rng.choice(_FIELDS[signature])
                    old = int.from_bytes(data[at + offset : at + offset + size], "little")
                    new = rng.choice([*_NUMBERS, old ^ 1 << rng.randrange(8 * size), old + 1]) % (1 << 8 * size)
                    data[at + offset : at + offset + size] = new.to_bytes(size, "little")
            case "byte" if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
            case "cut" if data:
                at = rng.randrange(len(data))
                del data[at : at + rng.choice([1, 4, 22, len(data)])]
            case "double" if data:
                at = rng.randrange(len(data))
                data[at:at] = data[at : at + rng.choice([1, 4, 22, 100])]
            case _:
                other = rng.choice(seeds()[:-1])
                at = rng.randrange(len(data) + 1)
                data[at:at] = other[rng.randrange(len(other)) :]
    return bytes(data)


KINDS: dict[str, Callable[[random.Random], bytes]] = {"built": built, "changed": changed}


def check_many(kind: str, seed: int, count: int, folder: Path) -> int:
    """Read archives, compare the accepted ones with all readers, and return how many were accepted."""
    rng = random.Random(f"{kind} {seed}")
    source = folder / FILENAME
    accepted = 0
    readers = list(filter(is_installed, READERS))
    for number in range(count):
        data = KINDS[kind](rng)
        try:
            ours = our_files(data)
        except (WheelCacheError, OSError, ValueError):
            continue
        accepted += 1
        source.write_bytes(data)
        description = f"{kind} {seed}, {number}: {data[:9999]!r}"
        assert ours == files_by_zipfile(source), description
        if len(data) < 1 << 16:
            for reader in readers:
                if reader == "unzip" and not "".join(ours).isascii():
                    # unzip decodes names that were made on DOS from code page 437, even if they are flagged as UTF-8.
                    # Python on Windows writes such names.
                    continue
                try:
                    theirs = files_by(reader, source, folder / f"{seed}-{number}-{reader}")
                except RefusedError:
                    # A visible error is not another content. unzip refuses versions that deflate does not need.
                    continue
                assert composed(ours) == theirs, (reader, description)
    return accepted


@pytest.mark.parametrize("kind", KINDS)
def test_random_archives_are_refused_or_the_same_for_all_readers(kind: str, tmp_path: Path) -> None:
    """Only documented errors occur, memory is bounded, and accepted archives have the same files for all readers."""
    seeds()
    tracemalloc.start()
    try:
        assert check_many(kind, 0, 250, tmp_path) > 9
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("kind", KINDS)
def test_more_random_archives_are_refused_or_the_same_for_all_readers(kind: str, seed: int, tmp_path: Path) -> None:
    """The same holds for thousands of archives."""
    assert check_many(kind, seed, 2000, tmp_path) > 99


@pytest.mark.parametrize("kind", KINDS)
def test_random_archives_write_nothing_outside(kind: str, tmp_path: Path) -> None:
    """A refused archive leaves nothing in the destination, and an accepted one has its files only there."""
    rng = random.Random(f"outside, {kind}")
    with Cache(tmp_path / "cache") as cache:
        for number in range(40):
            data = KINDS[kind](rng)
            dest = tmp_path / "dest" / f"{number}"
            try:
                found = cache.put(io.BytesIO(data), filename=FILENAME)
                files = cache.unpack(found, dest, mode="copy").files
            except (WheelCacheError, OSError, ValueError):
                assert not dest.exists()
            else:
                assert files_in(dest) == our_files(data)
                assert sorted(files) == sorted(our_files(data))
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "dest"}
