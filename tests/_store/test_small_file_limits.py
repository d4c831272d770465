"""Small files that are too large to be read are not written, and their readers survive one of another program."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import files_in
from wheels import Wheel

from wheelcache import Cache, UnsafeWheelError
from wheelcache._fs.robustio import RobustIO
from wheelcache._operation import Operation
from wheelcache._os.system import System
from wheelcache._store.index import MAX_POINTER, Index, UrlEntry
from wheelcache._store.layout import Layout
from wheelcache._store.records import MAX_RECORD, Record, StatFingerprint, decode_record, encode_record


def make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def test_a_record_without_its_long_url_can_be_read() -> None:
    """A URL that would make the record too large is left out."""
    seen = StatFingerprint(0, 0, None)
    short = Record("demo-1.0-py3-none-any.whl", "0" * 64, 5, seen, url="https://example.org/" + "x" * 60_000)
    assert decode_record(encode_record(short), "0" * 64) == short
    data = encode_record(short._replace(url="https://example.org/" + "x" * MAX_RECORD))
    assert decode_record(data, "0" * 64) == short._replace(url=None)


def test_a_long_pointer_is_not_written(tmp_path: Path) -> None:
    """A response whose pointer could not be read again is not stored."""
    fs, index = RobustIO(Operation(System())), Index(Layout(str(tmp_path)))
    entry = UrlEntry("0" * 64, 1.0, may_be_stale=False, headers={}, place="x" * MAX_POINTER)
    index.write_url(fs, "https://example.org/a.whl", entry)
    assert files_in(tmp_path) == {}
    index.write_url(fs, "https://example.org/a.whl", entry._replace(place=""))
    assert index.find_url(fs, "https://example.org/a.whl") is not None


def test_a_wheel_with_a_marker_that_is_too_large_is_refused(
    cache: Cache, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a wheel is unsafe to unpack, and leaves no tree."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    found = cache.put(source)
    monkeypatch.setattr("wheelcache._unpack.trees.MAX_MARKER", 100)
    for dest in (None, tmp_path / "dest"):
        with pytest.raises(UnsafeWheelError, match="more than the limit"):
            cache.unpack(found, dest)
    assert [name for name in files_in(cache.path) if name.startswith("v1/trees/")] == []
    assert not (tmp_path / "dest").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("make", [make_huge, make_pipe, make_link])
def test_unusable_counters_harm_no_call(make: Callable[[Path], None], wheel: Wheel, tmp_path: Path) -> None:
    """Each call works without its counters, and needs no memory for them."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with Cache(tmp_path / "cache") as cache:
        cache.put(source)
    counters = tmp_path / "cache" / "v1" / "tally.log"
    counters.unlink(missing_ok=True)
    make(counters)
    tracemalloc.start()
    try:
        with Cache(tmp_path / "cache", max_size=10**9) as cache:
            wheel_found = cache.put(source)
            assert cache.get(wheel_found.digest) is not None
            assert cache.stats().wheels == 1
            cache.prune()
            assert cache.verify() is not None
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
