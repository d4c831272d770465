"""``metadata`` and ``unpack`` agree on which wheels are refused, whether a wheel is read from the disk or by ranges."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import DEFLATED, FILENAME, INFO, Entry, archive, deflate, record_of, wheel, wheel_entries
from hostile import INVALID, NAMES, ODD, STRUCTURES
from marks import any_system
from server import Server, status
from wheels import Wheel

from wheelcache import Cache, InvalidWheelError, UnsafeWheelError
from wheelcache._fetch import remote_wheel

pytestmark = any_system

NAMED = {
    f"name: {title}": lambda name=name: wheel([Entry(name, b"", recorded=not name.endswith("/"))])
    for title, name in NAMES.items()
}

METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"


def with_metadata(entry: Entry) -> bytes:
    """Return a wheel with other METADATA."""
    others = [other for other in wheel_entries([Entry("demo.py")])[:-1] if "METADATA" not in str(other.name)]
    entries = [*others, entry]
    return archive([*entries, Entry(f"{INFO}/RECORD", record_of(entries).encode())])


def metadata_entry(**options: object) -> Entry:
    return Entry(f"{INFO}/METADATA", METADATA, **options)  # type: ignore[arg-type]


OF_METADATA = {
    "METADATA, deflated": lambda: with_metadata(metadata_entry(method=DEFLATED)),
    "METADATA with another checksum": lambda: with_metadata(metadata_entry(local={"crc": 1}, central={"crc": 1})),
    "METADATA with another local size": lambda: with_metadata(metadata_entry(local={"size": 7})),
    "METADATA with another local name": lambda: with_metadata(metadata_entry(local={"name": b"x" * 28})),
    "METADATA that deflates to more": lambda: with_metadata(
        metadata_entry(method=DEFLATED, packed=deflate(METADATA * 2))
    ),
    "METADATA that is cut off": lambda: with_metadata(metadata_entry(method=DEFLATED, packed=deflate(METADATA)[:-2])),
    "METADATA and hidden bytes": lambda: with_metadata(metadata_entry(after=b"hidden")),
    "METADATA packed by bzip2": lambda: with_metadata(metadata_entry(method=12)),
    "METADATA that is a link": lambda: with_metadata(metadata_entry(mode=0o120777)),
    "METADATA twice": lambda: wheel([metadata_entry()]),
    "METADATA of another case": lambda: wheel([Entry(f"{INFO}/metadata", METADATA)]),
    "vendored METADATA": lambda: wheel([Entry("demo/_vendor/other-2.0.dist-info/METADATA", b"Name: other\n")]),
    "dist-info of another version": lambda: archive(wheel_entries([Entry("demo.py")], info="demo-2.0.dist-info")),
}

ALL: dict[str, Callable[[], bytes]] = {**NAMED, **STRUCTURES, **INVALID, **ODD, **OF_METADATA}

# Refused because of RECORD, or because of the header or contents of a member other than METADATA: only unpack reads
# them.
ONLY_UNPACK_READS = {
    *("local name", "local method", "local size", "local packed size", "local checksum", "local flags"),
    *("local signature", "second name, locally", "sizes in two places of its own header", "between"),
    *("between, as a member", "before the directory", "bytes that hide in a folder", "folder whose headers disagree"),
    *("goes on after its end", "stream without end", "no stream", "checksum", "deflated to more than it says"),
    *("deflated to less than it says", "descriptor that lies", "descriptor nobody announced"),
    *("no RECORD", "RECORD lists what is not there", "RECORD tells two things", "unlisted", "other hash"),
    *("link in a field of libarchive, locally", "extra field 0x756e, locally", "newer format, locally"),
    *("descriptor that is too wide", "descriptor that is too narrow"),
    *("descriptor of a stored file without a signature",),
    *("RECORD with more rows than files", "RECORD with many more rows than files"),
    *("RECORD with rows of folders that do not exist", "RECORD with a row of two lines"),
    *("RECORD with the same folder in many rows", "RECORD that consists of empty lines"),
    *("RECORD with a line without end", "RECORD with an endless hash"),
    *("other size", "weak hash", "no hash", "RECORD that is no table", "RECORD that is no text"),
}


def outcome(call: Callable[[], bytes]) -> bytes | tuple[type[Exception], str]:
    try:
        return call()
    except InvalidWheelError as error:
        return type(error), error.problem


@pytest.mark.parametrize("tail", [None, 23], ids=["whole", "in pieces"])
@pytest.mark.parametrize("title", ALL)
def test_metadata_and_unpack_agree(
    title: str, tail: int | None, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both refuse the same wheels, unless the fault is in bytes that metadata does not read."""
    if tail is not None:
        monkeypatch.setattr(remote_wheel, "LONGEST_TAIL", tail)
    made = Wheel(FILENAME, ALL[title]())
    url = made.on(server)
    server.serve(made.path + ".metadata", how=status(404))
    with Cache(tmp_path / "cache") as cache:
        by_ranges = outcome(lambda: cache.metadata(url))
        assert list(cache.entries()) == []
        found = cache.put(io.BytesIO(made.data), filename=FILENAME, hashes=made.digest)
        local = outcome(lambda: cache.metadata(url, hashes=made.digest))
        unpacked = outcome(lambda: next(cache.unpack(found).path.glob("*.dist-info/METADATA")).read_bytes())
    assert by_ranges == local
    if title in ONLY_UNPACK_READS:
        assert isinstance(local, bytes)
        assert isinstance(unpacked, tuple)
    else:
        assert local == unpacked


@pytest.mark.parametrize("local", [True, False], ids=["cached", "by ranges"])
def test_a_wheel_without_metadata_has_none(local: bool, server: Server, cache: Cache) -> None:
    """A wheel without METADATA can be unpacked, and its metadata is InvalidWheelError."""
    entries = [Entry("demo.py"), Entry(f"{INFO}/WHEEL", b"Wheel-Version: 1.0\n")]
    made = Wheel(FILENAME, archive([*entries, Entry(f"{INFO}/RECORD", record_of(entries).encode())]))
    url = made.on(server)
    if local:
        cache.unpack(cache.put(io.BytesIO(made.data), filename=FILENAME))
    with pytest.raises(InvalidWheelError, match="no METADATA") as caught:
        cache.metadata(url, hashes=made.digest)
    assert not isinstance(caught.value, UnsafeWheelError)
