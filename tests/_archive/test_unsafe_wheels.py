"""Wheels that are refused, and unusual ones that are accepted.

A wheel is refused if it would write outside its folder, if two readers could see different wheels in it, or if its
stated sizes are false. Nothing of it is written, in the cache or outside. An unusual but correct wheel is unpacked as
by pypa/installer.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import itertools
import os
import stat
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from archives import (
    DEFLATED,
    FILENAME,
    INFO,
    Entry,
    archive,
    deflate,
    record_of,
    urlsafe,
    wheel,
    wheel_entries,
)
from folders import files_in
from hostile import INVALID, NAMES, ODD, STRUCTURES, ZEROS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
from marks import any_system

from wheelcache import Cache, InvalidWheelError, TreeSource, UnsafeWheelError
from wheelcache._archive import inflate
from wheelcache._archive.names import are_plain, problem_of_name

LIBRARIES = ["zlib", *(["zlib_ng.zlib_ng"] if importlib.util.find_spec("zlib_ng") else [])]


@pytest.fixture(autouse=True, params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with zlib and with zlib-ng: both refuse and accept the same wheels."""
    monkeypatch.setattr(inflate, "_engine", importlib.import_module(request.param))
    return request.param


@pytest.mark.skipif(len(LIBRARIES) < 2, reason="only zlib is tried: the extra 'fast' is not installed")
def test_the_faster_library_is_tried_too(library: str) -> None:
    """All tests of this file run with every installed library."""
    assert inflate.inflater().decompress(deflate(b"x" * 99)) == b"x" * 99


def refuse(tmp_path: Path, data: bytes, kind: type[InvalidWheelError] = UnsafeWheelError) -> InvalidWheelError:
    """Unpack a wheel that must be refused, and check that nothing of it is written anywhere."""
    source = tmp_path / FILENAME
    source.write_bytes(data)
    with Cache(tmp_path / "cache") as cache:
        found = cache.put(source, hashes={"sha256": hashlib.sha256(data).hexdigest()})
        before = files_in(tmp_path)
        dest = tmp_path / "site"
        with pytest.raises(kind) as caught:
            cache.unpack(found, dest)
        with pytest.raises(kind):
            cache.unpack(found)
        assert not dest.exists()
        assert files_in(tmp_path) == before
        assert list((tmp_path / "cache" / "v1").rglob("*-0*")) == []
    assert caught.value.path == str(found.path)
    assert str(found.path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_unsafe_names(name: str, tmp_path: Path) -> None:
    """A name that leads outside, or that systems interpret differently, is refused."""
    refuse(tmp_path, wheel([Entry(name, recorded=not name.endswith("/"), data=b"" if name.endswith("/") else b"x\n")]))


@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
def test_unsafe_structures(make, tmp_path: Path) -> None:
    """An archive that two readers could read differently, or with false sizes, is refused."""
    refuse(tmp_path, make())


@pytest.mark.parametrize("make", INVALID.values(), ids=INVALID)
def test_invalid_wheels(make, tmp_path: Path) -> None:
    """A wheel that is broken, or does not match its RECORD, is refused."""
    refuse(tmp_path, make(), InvalidWheelError)


def test_a_record_mismatch_names_the_file(tmp_path: Path) -> None:
    """The error of a RECORD mismatch names the file."""
    record = record_of([Entry("demo/odd.py", b"y = 1\n"), *wheel_entries()[:-1]])
    assert "demo/odd.py" in str(refuse(tmp_path, wheel([Entry("demo/odd.py")], record=record), InvalidWheelError))


def test_a_bomb_by_what_it_says(tmp_path: Path) -> None:
    """A wheel that claims to expand to hundreds of times its size is refused before it is inflated."""
    packed = deflate(ZEROS)
    bombs = [Entry(f"demo/{n}", ZEROS, DEFLATED, packed=packed) for n in range(300)]
    assert "times its size" in str(refuse(tmp_path, wheel(bombs)))


@pytest.mark.parametrize("size", [100, 5 << 20], ids=["small", "large"])
def test_a_bomb_by_what_it_is(size: int, tmp_path: Path) -> None:
    """A member that expands beyond its claimed size is refused at that point, and never held in memory."""
    data = bytes(64 << 20)
    bomb = Entry("demo/a", b"", DEFLATED, packed=deflate(data), recorded=False)
    bomb.local = bomb.central = {"size": size, "crc": zlib.crc32(data)}
    record = record_of(wheel_entries()[:-1]) + f"demo/a,sha256={urlsafe(data)},{size}\n"
    made = wheel([bomb], record=record)
    tracemalloc.start()
    try:
        refuse(tmp_path, made)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


# Unusual but correct


def installed(path: Path, folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files that pypa/installer installs, without RECORD, which describes the installation."""
    schemes = {name: str(folder / name) for name in ("purelib", "platlib", "scripts", "data", "headers")}
    schemes["platlib"] = schemes["purelib"]
    with WheelFile.open(path) as source:
        source.validate_record()
        install(source, SchemeDictionaryDestination(schemes, sys.executable, "posix"), {})
    return contents(folder / "purelib")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in folder.rglob("*")
        if path.is_file() and path.name != "RECORD"
    }


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_odd_wheels_unpack_as_installer_unpacks_them(make, tmp_path: Path) -> None:
    """Files and modes are the same as with pypa/installer, in the mode that copies."""
    source = tmp_path / FILENAME
    source.write_bytes(make())
    with Cache(tmp_path / "cache") as cache:
        unpacked = cache.unpack(cache.put(source), tmp_path / "site", mode="copy")
    ours = {name.replace("demo-1.0.data/purelib/", ""): file for name, file in contents(tmp_path / "site").items()}
    assert ours == installed(source, tmp_path / "other")
    with zipfile.ZipFile(source) as archived:
        assert sorted(unpacked.files) == sorted(name for name in archived.namelist() if not name.endswith("/"))


@pytest.mark.parametrize(
    ("filename", "info"),
    [
        ("demo-1!2.0+local.1-py3-none-any.whl", "demo-1!2.0+local.1.dist-info"),
        ("demo-1.0-7abc-py3-none-any.whl", INFO),
        ("De.Mo_x-1.0-py3-none-any.whl", "de_mo_x-1.0.dist-info"),
        ("de_mo-1.0-py3-none-any.whl", "de-mo-1.0.dist-info"),
    ],
    ids=["epoch and local version", "build tag", "spelled differently", "spelled with a dash"],
)
def test_odd_wheel_names(filename: str, info: str, tmp_path: Path) -> None:
    """Epochs, local versions, build tags and other spellings of a name are accepted."""
    source = tmp_path / filename
    source.write_bytes(archive(wheel_entries([Entry("demo.py")], info=info)))
    with Cache(tmp_path / "cache") as cache:
        cache.unpack(cache.put(source), tmp_path / "site", mode="copy")
    assert contents(tmp_path / "site") == installed(source, tmp_path / "other")


def test_a_wheel_under_the_name_of_another_project_is_refused_whatever_was_unpacked_before(tmp_path: Path) -> None:
    """The name of another project is refused, even if a tree of the same bytes exists under the right name."""
    data = archive(wheel_entries([Entry("demo.py")]))
    with Cache(tmp_path / "cache") as cache:
        cache.unpack(cache.put(io.BytesIO(data), filename=FILENAME))
        other = cache.put(io.BytesIO(data), filename="other-1.0-py3-none-any.whl")
        for dest in (None, tmp_path / "site"):
            with pytest.raises(UnsafeWheelError, match="another project"):
                cache.unpack(other, dest)
        with pytest.raises(UnsafeWheelError, match="another project"):
            TreeSource(cache, other)
    assert not (tmp_path / "site").exists()


PIECES = ["demo", "/", ".", " ", "con", "NUL", "lpt¹", "com7", "conin$", "\n", "\x1f", ":", ".wheelcache-", ".tmp"]


def test_names_looked_at_together_are_refused_as_one_by_one() -> None:
    """The quick check of all names together accepts and refuses exactly the same names as the single check."""
    names = ["".join(pieces) for count in range(5) for pieces in itertools.product(PIECES, repeat=count)]
    refused = list(filter(problem_of_name, names))
    assert [name for name in refused if are_plain(["demo", name, "demo"])] == []
    assert are_plain([name for name in names if ".wheelcache-" not in name and not problem_of_name(name)])


def honest() -> bytes:
    """A wheel as zipfile writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for entry in wheel_entries([Entry("demo/__init__.py", b""), Entry("demo/a.py", b"x = 1\n" * 50)]):
            made.writestr(str(entry.name), entry.data)
    return buffer.getvalue()


HONEST = honest()


@any_system
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.tuples(st.integers(0, len(HONEST)), st.integers(0, 40))),
)
def test_a_wheel_with_wrong_bytes_is_refused_or_read_as_others_read_it(changes, cut, tmp_path_factory) -> None:
    """With bytes changed, removed or doubled, a wheel is refused, or unpacked as zipfile reads it, inside the folder.

    If the wheel is unpacked, its METADATA is what zipfile sees.
    """
    data = bytearray(HONEST)
    for place, value in changes:
        data[place] = value
    if cut is not None:
        data[cut[0] : cut[0]] = data[max(cut[0] - cut[1], 0) : cut[0]]
    folder = tmp_path_factory.mktemp("fuzz")
    source = folder / FILENAME
    source.write_bytes(data)
    with Cache(folder / "cache") as cache:
        found = cache.put(source, hashes={"sha256": hashlib.sha256(data).hexdigest()})
        url = f"https://example.org/{FILENAME}"
        try:
            metadata = cache.metadata(url, hashes=found.digest)
        except InvalidWheelError:
            metadata = None
        try:
            cache.unpack(found, folder / "site", mode="copy")
        except InvalidWheelError:
            assert not (folder / "site").exists()
        else:
            with zipfile.ZipFile(source) as archived:
                names = [name for name in archived.namelist() if not name.endswith("/")]
                assert files_in(folder / "site") == {name: archived.read(name) for name in names}
                assert metadata == archived.read(f"{INFO}/METADATA")
    assert set(os.listdir(folder)) <= {FILENAME, "cache", "site"}
