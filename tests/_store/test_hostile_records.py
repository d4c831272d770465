"""Records and pointers that another program wrote, with a valid checksum: unusual values make them missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from folders import records
from machines import Machine
from mutations import with_check, without_check
from server import Server
from wheels import Wheel, hex_of, make_wheel, wheel_filename

from wheelcache import Status
from wheelcache._fs.robustio import RobustIO
from wheelcache._operation import Operation
from wheelcache._os.system import System
from wheelcache._store.index import Index
from wheelcache._store.layout import Layout
from wheelcache._store.records import MAX_RECORD, decode_record

# The raw JSON text of one field at a time.
FIELDS = {
    "created": ["true", "-1.5", "1e9", '"1"', "null", "[" * 900 + "]" * 900, "9" * 5000, str(2**128)],
    "filename": [
        *("null", "1", '""', '"demo.whl"', '"../demo-1.0-py3-none-any.whl"', '"a/demo-1.0-py3-none-any.whl"'),
        *('"demo-1.0-py3-none-any.whl\\u0000"', '"d\\\\emo-1.0-py3-none-any.whl"', '"demo-1.0-py3-none-any.whl/"'),
        *('"C:demo-1.0-py3-none-any.whl"', '"other-1.0-py3-none-any.whl"', '"' + "x" * 300 + '"', '"\\ud800"'),
    ],
    "hashes": [
        *("null", "[]", '{"sha512":1}', '{"unknown":"00"}', '{"sha512":"00"}', '{"":""}', '{"\\ud800":"00"}'),
        *('{"sha256":"' + "0" * 64 + '"}', '{"md5":"' + "A" * 32 + '"}', '{"md5":' + "[" * 900 + "]" * 900 + "}"),
    ],
    "place": ["-1", "true", "0.0", "1000", "9" * 4000, "null", '"0"'],
    "seen": [
        "null",
        "[]",
        "{}",
        '{"boot":null,"inode":0}',
        '{"boot":1,"inode":0,"mtime_ns":0}',
        "[" * 2000 + "]" * 2000,
    ],
    "sha256": ["null", '""', '"' + "0" * 64 + '"', "0"],
    "size": ["true", "-1", "1.0", "NaN", "Infinity", str(2**200), "null"],
    "url": ["1", "[]", '"\\ud800"', '{"a":' * 900 + "1" + "}" * 900],
}
CASES = [(field, text) for field, texts in FIELDS.items() for text in texts]


def replaced(data: bytes, field: str, text: str) -> bytes:
    """Return a record with another raw value of one field."""
    body = without_check(data)
    assert body is not None
    return with_check(json.dumps({**json.loads(body), field: "<<>>"}, separators=(",", ":")).replace('"<<>>"', text))


@pytest.fixture
def folder(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> Path:
    """A cache folder with one wheel, which no Cache has open."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    return tmp_path / "cache"


@pytest.mark.parametrize(("field", "text"), CASES, ids=[f"{field}-{text[:40]}" for field, text in CASES])
def test_a_record_with_an_unusual_value_is_a_miss(
    field: str, text: str, folder: Path, machine: Machine, wheel: Wheel, server: Server
) -> None:
    """Such a record is reported as torn, and the wheel is found by its bytes when it is fetched."""
    with machine.cache(folder) as cache:
        (path,) = records(cache)
        path.write_bytes(replaced(path.read_bytes(), field, text))
        assert decode_record(path.read_bytes(), wheel.hex()) is None or field == "filename"
        assert cache.get(wheel.digest) is None
        assert list(cache.entries()) == []
        assert [problem.path for problem in cache.verify().problems] == [path]
        assert cache.fetch(server.url(wheel.path), hashes=wheel.digest).path.read_bytes() == wheel.data
        assert cache.verify().ok


@pytest.mark.parametrize(
    "body",
    [
        *("[" * depth + "]" * depth for depth in (1, 900, 1000, 100_000, 500_000)),
        *('{"a":' * depth + "1" + "}" * depth for depth in (900, 100_000)),
        *("", "{}", "null", "1" * 100_000, '{"size":1,"size":1}', '{"a":NaN}', '"' + "x" * MAX_RECORD + '"'),
    ],
    ids=lambda body: f"{body[:20]}-{len(body)}",
)
def test_a_small_file_without_the_right_fields_is_a_miss(
    body: str, folder: Path, machine: Machine, wheel: Wheel
) -> None:
    """Deeply nested, doubled and non-standard values are missing for every call."""
    with machine.cache(folder) as cache:
        (path,) = records(cache)
        path.write_bytes(with_check(body) if body else b"")
        assert cache.get(wheel.digest, filename=wheel.filename) is None
        assert list(cache.entries()) == []
        assert len(cache.verify(repair=True).problems) == 1
        assert cache.get(wheel.digest) is not None


POINTER_FIELDS = {
    "headers": ["[]", '{"etag":1}', '{"etag":"\\ud800"}', '{"cache-control":' + "[" * 900 + "]" * 900 + "}", "null"],
    "may_be_stale": ["1", "null", '"true"'],
    "place": ["null", "[]", '"\\ud800"'],
    "sha256": ["null", "1", "[]", '"x"', '"' + "é" * 64 + '"', "{}"],
    "until": ["true", "NaN", "1e999", "9" * 400, "null", '"1"'],
}
POINTER_CASES = [(field, text) for field, texts in POINTER_FIELDS.items() for text in texts]


@pytest.mark.parametrize(
    ("field", "text"), POINTER_CASES, ids=[f"{field}-{text[:40]}" for field, text in POINTER_CASES]
)
def test_a_pointer_with_an_unusual_value_is_a_miss(
    field: str, text: str, machine: Machine, wheel: Wheel, server: Server, tmp_path: Path
) -> None:
    """The URL is then downloaded again, which replaces the pointer."""
    url = wheel.on(server)
    fs = RobustIO(Operation(System()))
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(url)
        layout = Layout(str(cache.path))
        path = Path(layout.pointer(url))
        assert Index(layout).find_url(fs, url) is not None
        path.write_bytes(replaced(path.read_bytes(), field, text))
        assert Index(layout).find_url(fs, url) is None
        assert cache.fetch(url).status is Status.DOWNLOADED
        assert Index(layout).find_url(fs, url) is not None
        assert cache.verify().ok


def test_a_pointer_of_a_hash_with_an_unusual_value_is_a_miss(machine: Machine, server: Server, tmp_path: Path) -> None:
    """A wheel is not found by its sha512 if the pointer does not contain a sha256."""
    data = make_wheel()
    wheel = Wheel(wheel_filename(), data)
    key = f"sha512:{hex_of(data, 'sha512')}"
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=key)
        path = Path(Layout(str(cache.path)).pointer(key))
        for text in POINTER_FIELDS["sha256"]:
            path.write_bytes(replaced(path.read_bytes(), "sha256", text))
            assert cache.get(key) is None
