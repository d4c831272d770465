"""Wheels that are refused, and odd ones that are not.

A wheel is refused when it would write outside its folder, when two readers could see two wheels in it, or when it lies
about its size. Nothing of it is written, in the cache or outside; and what is odd but right unpacks as pypa/installer
unpacks it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import itertools
import os
import random
import stat
import struct
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from archives import (
    DEFLATED,
    DESCRIPTOR,
    ENCRYPTED,
    FIFO,
    FILENAME,
    FOLDER,
    INFO,
    LINK,
    Entry,
    archive,
    central_header,
    deflate,
    descriptor,
    local_header,
    record_of,
    urlsafe,
    wheel,
    wheel_entries,
)
from folders import files_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile

from wheelcache import Cache, InvalidWheelError, TreeSource, UnsafeWheelError
from wheelcache._archive import inflate
from wheelcache._archive.names import are_plain, problem_of_name

ZEROS = bytes(1 << 20)


def with_extra(kind: int, data: bytes) -> bytes:
    return struct.pack("<2H", kind, len(data)) + data


def deflated(name: str, data: bytes = b"x = 1\n" * 100, **how) -> Entry:
    return Entry(name, data, DEFLATED, **how)


def late(name: str, *, method: int = DEFLATED, signature: bool = True, wide: bool = False) -> Entry:
    """A member whose sizes stand behind it."""
    entry = Entry(name, b"x = 1\n" * 100, method, DESCRIPTOR, local={"crc": 0, "packed": 0, "size": 0})
    entry.after = descriptor(entry, signature=signature, wide=wide)
    return entry


def two_wheels() -> bytes:
    """One file, two archives: a reader that looks for the first end record sees another one than who takes the last."""
    return wheel([Entry("demo.py", b"good\n")]) + wheel([Entry("demo.py", b"evil\n")])


def newer_format() -> bytes:
    """A member that asks for version 6.4 of the format to be read."""
    data = bytearray(wheel([Entry("demo.py")]))
    data[data.index(b"PK\1\2") + 6] = 64
    return bytes(data)


def overlapping() -> bytes:
    inner = Entry("demo/b.py", b"y = 2\n")
    hidden = local_header(inner) + inner.data
    outer = Entry("demo/a.py", b"# " + hidden)
    entries = wheel_entries([outer, Entry("demo/b.py", inner.data)])
    offset = len(local_header(outer)) + 2
    data = archive([entries[0], *entries[2:]])
    start = data.index(b"PK\1\2")
    first = len(central_header(entries[0], 0))
    added = central_header(inner, offset)
    end = data.rindex(b"PK\5\6")
    counts = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(entries), len(entries), end - start + len(added), start, 0)
    return data[: start + first] + added + data[start + first : end] + counts


SIZELESS = f"demo/a.py,sha256={urlsafe(b'x = 1' + bytes([10]))},\n" + record_of(wheel_entries()[:-1])


LIBRARIES = ["zlib", *(["zlib_ng.zlib_ng"] if importlib.util.find_spec("zlib_ng") else [])]


@pytest.fixture(autouse=True, params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With zlib and with the library of the extra, everything is refused, and everything taken, in the same way."""
    monkeypatch.setattr(inflate, "_engine", importlib.import_module(request.param))
    return request.param


@pytest.mark.skipif(len(LIBRARIES) < 2, reason="only zlib is tried: the extra 'fast' is not installed")
def test_the_faster_library_is_tried_too(library: str) -> None:
    """All of this file runs with each of the libraries that are there."""
    assert inflate.inflater().decompress(deflate(b"x" * 99)) == b"x" * 99


NAMES = {
    "of an unfinished file": ".wheelcache-1800000000-00000000-0-00000000.tmp",
    "of an unfinished folder": "demo/.wheelcache-1800000000-00000000-0-00000000.tmp/a.py",
    "parent": "../evil.py",
    "parent inside": "demo/../../evil.py",
    "parent that stays inside": "demo/../evil.py",
    "dot": "demo/./evil.py",
    "only dots": "demo/..",
    "absolute": "/evil.py",
    "double slash": "demo//evil.py",
    "drive": "C:/evil.py",
    "drive relative": "C:evil.py",
    "stream": "demo/evil.py:stream",
    "UNC": "//server/share/evil.py",
    "UNC backslashes": "\\\\server\\share\\evil.py",
    "backslash": "demo\\evil.py",
    "backslash parent": "..\\evil.py",
    "NUL": "demo/evil.py\0.txt",
    "newline": "demo/evil\n.py",
    "question mark": "demo/evil?.py",
    "quote": 'demo/"evil".py',
    "empty": "",
    "CON": "con",
    "NUL device": "demo/NUL.txt",
    "COM1": "demo/com1.py",
    "superscript": "demo/LPT².py",
    "CONIN$": "conin$",
    "reserved folder": "aux/evil.py",
    "reserved and a space": "demo/nul .py",
    "trailing dot": "demo/evil.",
    "trailing space": "demo/evil ",
    "folder with trailing dot": "demo./evil.py",
    "three dots": ".../evil.py",
    "folder upwards": "../",
    "empty folder name": "demo//",
    "16,000 folders": "a/" * 16_000 + "evil.py",
    "101 folders": "a/" * 101 + "evil.py",
    "part of 256 bytes": "demo/" + "n" * 256,
    "path of 4,100 bytes": "/".join(["n" * 204] * 20),
}

STRUCTURES = {
    "symlink": lambda: wheel([Entry("demo/link", b"/etc/passwd", mode=LINK)]),
    "symlink from nowhere": lambda: wheel([Entry("demo", b"..", mode=LINK)]),
    "fifo": lambda: wheel([Entry("demo/pipe", b"", mode=FIFO)]),
    "file that calls itself a folder": lambda: wheel([Entry("demo/x", b"", mode=FOLDER)]),
    "folder with contents": lambda: wheel([Entry("demo/", b"x = 1\n", mode=FOLDER)]),
    "case": lambda: wheel([Entry("demo/a.py"), Entry("demo/A.py")]),
    "case of a folder": lambda: wheel([Entry("demo/a.py"), Entry("Demo/b.py")]),
    "case beyond ASCII": lambda: wheel([Entry("demo/straße.py"), Entry("demo/STRASSE.py")]),
    "normal form": lambda: wheel([Entry("demo/\u00e9.py"), Entry("demo/e\u0301.py")]),
    "duplicate": lambda: wheel([Entry("demo/a.py"), Entry("demo/a.py")]),
    "file and folder": lambda: wheel([Entry("demo"), Entry("demo/a.py")]),
    "file and folder by case": lambda: wheel([Entry("DEMO"), Entry("demo/a.py")]),
    "local name": lambda: wheel([Entry("demo/a.py", local={"name": b"demo/b.py"})]),
    "local method": lambda: wheel([Entry("demo/a.py", local={"method": DEFLATED})]),
    "local size": lambda: wheel([Entry("demo/a.py", local={"size": 7})]),
    "local packed size": lambda: wheel([Entry("demo/a.py", local={"packed": 5})]),
    "local checksum": lambda: wheel([Entry("demo/a.py", local={"crc": 1})]),
    "local flags": lambda: wheel([Entry("demo/a.py", local={"flags": 1 << 11})]),
    "local signature": lambda: wheel([Entry("demo/a.py")]).replace(b"PK\3\4", b"PK\3\5", 1),
    "second name": lambda: wheel([Entry("demo/a.py", extra=with_extra(0x7075, b"\1\0\0\0\0evil.py"))]),
    "second name, locally": lambda: wheel([Entry("demo/a.py", local_extra=with_extra(0x7075, b"\1\0\0\0\0evil.py"))]),
    "name in an unknown alphabet": lambda: wheel([Entry("demo/ä.py", plain=True)]),
    "name that is no UTF-8": lambda: wheel([Entry(b"demo/\xff.py", recorded=False)]),
    "broken extra field": lambda: wheel([Entry("demo/a.py", extra=b"\1\0\xff\0")]),
    "sizes in two places": lambda: wheel([Entry("demo/a.py", extra=with_extra(1, struct.pack("<2Q", 9, 9)))]),
    "sizes in two places of its own header": lambda: wheel(
        [Entry("demo/a.py", local_extra=with_extra(1, struct.pack("<2Q", 99, 99)))]
    ),
    "newer format": newer_format,
    "second .dist-info that is a folder": lambda: wheel([Entry("evil-1.0.dist-info/", b"", mode=FOLDER)]),
    "sizes in no place": lambda: wheel([Entry("demo/a.py", central={"size": 0xFFFFFFFF})]),
    "before": lambda: wheel([Entry("demo.py")], before=b"#!/bin/sh\n"),
    "between": lambda: wheel([Entry("demo.py")], between=b"hidden"),
    "between, as a member": lambda: wheel([Entry("demo.py")], between=archive([Entry("evil.py")])[:-22]),
    "before the directory": lambda: wheel([Entry("demo.py")], tail=b"hidden"),
    "after": lambda: wheel([Entry("demo.py")], after=b"hidden"),
    "second end record in the comment": lambda: wheel([Entry("demo.py")], comment=b"PK\5\6" + bytes(18)),
    "two archives": two_wheels,
    "overlapping": overlapping,
    "same bytes twice": lambda: wheel([Entry("demo/a.py"), Entry("demo/b.py", central={"offset": 0})]),
    "member beyond the end": lambda: wheel([Entry("demo/a.py", central={"offset": 1 << 20})]),
    "encrypted": lambda: wheel([Entry("demo/a.py", flags=ENCRYPTED)]),
    "strongly encrypted": lambda: wheel([Entry("demo/a.py", flags=1 << 6)]),
    "hidden directory": lambda: wheel([Entry("demo/a.py", flags=1 << 13)]),
    "patch": lambda: wheel([Entry("demo/a.py", flags=1 << 5)]),
    "unknown method": lambda: wheel([Entry("demo/a.py", method=12)]),
    "other disk": lambda: wheel([Entry("demo/a.py", central={"disk": 1})]),
    "several disks": lambda: wheel([Entry("demo/a.py")], end={"disk": 1}),
    "count too small": lambda: wheel([Entry("demo/a.py")], end={"here": 3, "count": 3}),
    "count too large": lambda: wheel([Entry("demo/a.py")], end={"here": 9, "count": 9}),
    "directory elsewhere": lambda: wheel([Entry("demo/a.py")], end={"start": 3}),
    "end records that disagree": lambda: wheel([Entry("demo/a.py")], zip64=True, end={"start": 3}),
    "end record of zip64 that is missing": lambda: wheel([Entry("demo/a.py")], end={"start": 0xFFFFFFFF}),
    "stored size": lambda: wheel([Entry("demo/a.py", central={"size": 7}, local={"size": 7})]),
    "deflated to more than it says": lambda: wheel(
        [deflated("demo/a.py", local={"size": 5}, central={"size": 5})], record=SIZELESS
    ),
    "deflated to less than it says": lambda: wheel(
        [deflated("demo/a.py", local={"size": 601}, central={"size": 601})], record=SIZELESS
    ),
    "bytes that hide in a folder": lambda: wheel(
        [Entry("demo/", b"", mode=FOLDER, after=b"hidden"), Entry("demo/a.py")]
    ),
    "folder whose headers disagree": lambda: wheel([Entry("demo/", b"", mode=FOLDER, local={"name": b"evil/"})]),
    "goes on after its end": lambda: wheel([deflated("demo/a.py", b"x" * 9, packed=deflate(b"x" * 9) + b"more")]),
    "stream without end": lambda: wheel([deflated("demo/a.py", packed=deflate(b"x = 1\n" * 100)[:-1])]),
    "no stream": lambda: wheel([deflated("demo/a.py", packed=b"\xff" * 20)]),
    "checksum": lambda: wheel([Entry("demo/a.py", local={"crc": 1}, central={"crc": 1})]),
    "stored without sizes": lambda: wheel([late("demo/a.py", method=0)]),
    "descriptor that lies": lambda: wheel([Entry("demo/a.py", b"x" * 99, DEFLATED, DESCRIPTOR, after=b"PK\7\x08" * 4)]),
    "descriptor nobody announced": lambda: wheel([Entry("demo/a.py", after=descriptor(Entry("")))]),
    "size that cannot be": lambda: wheel(
        [Entry("demo/a", b"", DEFLATED, packed=deflate(ZEROS), local={"size": 1 << 31}, central={"size": 1 << 31})]
    ),
    "no dist-info": lambda: archive([Entry("demo.py")]),
    "two dist-infos": lambda: wheel([Entry("evil-1.0.dist-info/METADATA")]),
    "dist-info of another project": lambda: archive(wheel_entries([Entry("demo.py")], info="evil-1.0.dist-info")),
    "no RECORD": lambda: archive(wheel_entries([Entry("demo.py")])[:-1]),
    "RECORD lists what is not there": lambda: wheel(
        [Entry("demo.py")], record=record_of(wheel_entries([Entry("demo.py"), Entry("gone.py")])[:-1])
    ),
    "RECORD tells two things": lambda: wheel(
        [Entry("demo.py")],
        record=record_of([Entry("demo.py"), Entry("demo.py", b"other"), *wheel_entries()[:-1]]),
    ),
}

INVALID = {
    "no members": lambda: archive([]),
    "no archive": lambda: b"<html>not here</html>" * 20,
    "cut off": lambda: wheel([Entry("demo.py")])[:-30],
    "unlisted": lambda: wheel([Entry("demo.py", recorded=False)]),
    "other hash": lambda: wheel(
        [Entry("demo.py")], record=record_of([Entry("demo.py", b"y = 1\n"), *wheel_entries()[:-1]])
    ),
    "other size": lambda: wheel(
        [Entry("demo.py")],
        record=record_of(wheel_entries([Entry("demo.py")])[:-1]).replace(",6\n", ",7\n", 1),
    ),
    "weak hash": lambda: archive(wheel_entries([Entry("demo.py")], algorithm="md5")),
    "no hash": lambda: wheel([Entry("demo.py")], record="demo.py,,\n" + record_of(wheel_entries()[:-1])),
    "RECORD that is no table": lambda: wheel([Entry("demo.py")], record='"'),
    "RECORD that is no text": lambda: archive(
        [*wheel_entries([Entry("demo.py")])[:-1], Entry(f"{INFO}/RECORD", b"\xff\xfe")]
    ),
}


def refuse(tmp_path: Path, data: bytes, kind: type[InvalidWheelError] = UnsafeWheelError) -> InvalidWheelError:
    """Unpack a wheel that must be refused, and see that nothing of it is anywhere."""
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
    """A name that leads outside, or that some system reads differently, is refused."""
    refuse(tmp_path, wheel([Entry(name, recorded=not name.endswith("/"), data=b"" if name.endswith("/") else b"x\n")]))


@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
def test_unsafe_structures(make, tmp_path: Path) -> None:
    """An archive that two readers could read differently, or that lies, is refused."""
    refuse(tmp_path, make())


@pytest.mark.parametrize("make", INVALID.values(), ids=INVALID)
def test_invalid_wheels(make, tmp_path: Path) -> None:
    """A wheel that is broken, or not what its RECORD says, is refused."""
    refuse(tmp_path, make(), InvalidWheelError)


def test_a_record_mismatch_names_the_file(tmp_path: Path) -> None:
    """Who reads the error knows which file it is."""
    record = record_of([Entry("demo/odd.py", b"y = 1\n"), *wheel_entries()[:-1]])
    assert "demo/odd.py" in str(refuse(tmp_path, wheel([Entry("demo/odd.py")], record=record), InvalidWheelError))


def test_a_bomb_by_what_it_says(tmp_path: Path) -> None:
    """Hundreds of times its size is refused before anything is inflated."""
    packed = deflate(ZEROS)
    bombs = [Entry(f"demo/{n}", ZEROS, DEFLATED, packed=packed) for n in range(300)]
    assert "times its size" in str(refuse(tmp_path, wheel(bombs)))


@pytest.mark.parametrize("size", [100, 5 << 20], ids=["small", "large"])
def test_a_bomb_by_what_it_is(size: int, tmp_path: Path) -> None:
    """Where more comes than was said, it is refused when it comes, and never held in memory."""
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


# Odd, and right


def installed(path: Path, folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return what pypa/installer makes of a wheel, but for RECORD, which is the installation's."""
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


LONG = "n" * 200

ODD = {
    "plain": lambda: wheel([Entry("demo.py")]),
    "deflated": lambda: wheel([deflated("demo.py")]),
    "large": lambda: wheel([Entry("demo.bin", random.Random(1).randbytes(5 << 20))]),
    "large, deflated": lambda: wheel([deflated("demo.txt", b"0123456789abcdef" * (1 << 19))]),
    "zip64": lambda: wheel([Entry("demo.py")], zip64=True),
    "zip64 sizes": lambda: wheel(
        [
            Entry(
                "demo.py",
                b"12345678",
                local={"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF},
                local_extra=with_extra(1, struct.pack("<2Q", 8, 8)),
            )
        ]
    ),
    "zip64 sizes in the directory": lambda: wheel(
        [
            Entry(
                "demo.py",
                b"12345678",
                central={"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF},
                extra=with_extra(1, struct.pack("<2Q", 8, 8)),
            )
        ]
    ),
    "sizes behind": lambda: wheel([late("demo.py")]),
    "sizes behind, unsigned": lambda: wheel([late("demo.py", signature=False)]),
    "comment": lambda: wheel([Entry("demo.py")], comment=b"made by hand"),
    "executable": lambda: wheel([Entry("demo/run", b"#!/bin/sh\n", mode=0o100755), Entry("demo/some", mode=0o100654)]),
    "executable without a type": lambda: wheel([Entry("demo/run", mode=0o755)]),
    "no modes": lambda: wheel([Entry("demo.py", mode=0)]),
    "empty files": lambda: wheel([Entry("demo/__init__.py", b""), deflated("demo/empty.py", b"")]),
    "folders": lambda: wheel([Entry("demo/", b"", mode=FOLDER), Entry("demo/a.py"), Entry("demo/none/", b"", mode=0)]),
    "names of 200 characters": lambda: wheel([Entry(f"demo/{LONG}.py"), Entry(f"{LONG}/a.py")]),
    "deep": lambda: wheel([Entry("/".join(["d"] * 60) + "/a.py")]),
    "beyond ASCII": lambda: wheel([Entry("demo/日本語.py"), Entry("demo/émoji 🎉.txt")]),
    "commas": lambda: wheel([Entry("demo/a,b.py"), Entry("demo/it's a file.py")]),
    "dots": lambda: wheel([Entry("demo/.hidden"), Entry("demo/a..b"), Entry("..demo")]),
    "nearly reserved": lambda: wheel([Entry("demo/console.py"), Entry("demo/com10.py"), Entry("demo/nul_.py")]),
    "sha512": lambda: archive(wheel_entries([Entry("demo.py")], algorithm="sha512")),
    "signatures": lambda: wheel([Entry("demo.py"), Entry(f"{INFO}/RECORD.jws", b"{}", recorded=False)]),
    "another order": lambda: archive(wheel_entries([Entry("demo.py")])[::-1]),
    "data": lambda: wheel([Entry("demo.py"), Entry("demo-1.0.data/purelib/more.py")]),
    "RECORD with backslashes": lambda: wheel(
        [Entry("demo/a.py")], record=record_of(wheel_entries([Entry("demo/a.py")])[:-1]).replace("/", "\\")
    ),
    "RECORD with a folder": lambda: wheel(
        [Entry("demo/a.py")], record="demo/,,\n" + record_of(wheel_entries([Entry("demo/a.py")])[:-1])
    ),
    "times": lambda: wheel([Entry("demo.py", extra=with_extra(0x5455, b"\1" + bytes(4)))]),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_odd_wheels_unpack_as_installer_unpacks_them(make, tmp_path: Path) -> None:
    """File for file and mode for mode the same, in the way that makes files of their own."""
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
    """Epochs, local versions, build tags and other spellings of a name are all right."""
    source = tmp_path / filename
    source.write_bytes(archive(wheel_entries([Entry("demo.py")], info=info)))
    with Cache(tmp_path / "cache") as cache:
        cache.unpack(cache.put(source), tmp_path / "site", mode="copy")
    assert contents(tmp_path / "site") == installed(source, tmp_path / "other")


def test_a_wheel_under_the_name_of_another_project_is_refused_whatever_was_unpacked_before(tmp_path: Path) -> None:
    """The same bytes under another project's name are refused too where their tree is there under the right name."""
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
    """The quick look at all names of an archive finds each that the look at one refuses, and takes all good ones."""
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


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.tuples(st.integers(0, len(HONEST)), st.integers(0, 40))),
)
def test_a_wheel_with_wrong_bytes_is_refused_or_read_as_others_read_it(changes, cut, tmp_path_factory) -> None:
    """Whatever bytes are changed, cut out or doubled: it is refused, or is what zipfile sees, and stays inside."""
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
        try:
            cache.unpack(found, folder / "site", mode="copy")
        except InvalidWheelError:
            assert not (folder / "site").exists()
        else:
            with zipfile.ZipFile(source) as archived:
                names = [name for name in archived.namelist() if not name.endswith("/")]
                assert files_in(folder / "site") == {name: archived.read(name) for name in names}
    assert set(os.listdir(folder)) <= {FILENAME, "cache", "site"}
