"""The adapters for pypa/installer install the same files as installer, as links."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from archives import FILENAME, INFO, Entry, wheel
from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile

from wheelcache import AsyncCache, Cache, CachedWheel, LinkDestination, TreeSource

SCHEMES = ("purelib", "platlib", "scripts", "data", "headers")

WHEEL = wheel(
    [
        Entry("demo/__init__.py", b""),
        Entry("demo/main.py", b"def main(): pass\n"),
        Entry("demo/tool.sh", b"#!/bin/sh\n", mode=0o100755),
        Entry("demo-1.0.data/scripts/run", b"#!python\nprint(1)\n"),
        Entry("demo-1.0.data/data/share/demo.txt", b"text"),
        Entry("demo-1.0.data/headers/demo.h", b"/**/"),
        Entry("demo-1.0.data/platlib/native.py", b"n = 1\n"),
        Entry(f"{INFO}/entry_points.txt", b"[console_scripts]\ndemo = demo.main:main\n"),
        Entry(f"{INFO}/licenses/LICENSE", b"MIT"),
    ]
)


@pytest.fixture
def found(cache: Cache, tmp_path: Path) -> CachedWheel:
    source = tmp_path / FILENAME
    source.write_bytes(WHEEL)
    return cache.put(source)


def destination(folder: Path, **options: object) -> SchemeDictionaryDestination:
    schemes = {name: str(folder / name) for name in SCHEMES}
    return SchemeDictionaryDestination(schemes, sys.executable, "posix", **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in folder.rglob("*")
        if path.is_file()
    }


def lines(found: dict[str, tuple[bytes, int]]) -> dict[str, tuple[object, int]]:
    """Return files without the order of RECORD and its absolute paths, which differ between sources."""
    return {
        name: (sorted(data.replace(b"/ours/", b"/theirs/").splitlines()) if name.endswith("/RECORD") else data, mode)
        for name, (data, mode) in found.items()
    }


def test_it_installs_what_installer_installs(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """Every file of every scheme, including scripts and RECORD, has the same bytes and the same mode."""
    with WheelFile.open(found) as source:
        source.validate_record()
        install(source, destination(tmp_path / "theirs"), {"INSTALLER": b"x"})
    tree = TreeSource(cache, found)
    tree.validate_record()
    tree.validate_record(validate_contents=False)
    install(tree, LinkDestination(destination(tmp_path / "ours"), mode="copy"), {"INSTALLER": b"x"})
    theirs, ours = (lines(contents(tmp_path / name)) for name in ("theirs", "ours"))
    assert ours.keys() == theirs.keys()
    for name, file in theirs.items():
        if name.startswith("scripts/"):
            continue  # zip files that installer creates contain the time
        assert ours[name] == file, name


def test_a_source_needs_a_cache_that_blocks(cache: Cache, found: CachedWheel) -> None:
    """A source refuses an AsyncCache, since installer is synchronous."""
    with pytest.raises(TypeError, match="needs a Cache, not AsyncCache"):
        TreeSource(AsyncCache(cache.path), found)  # type: ignore[arg-type]


def test_the_source_does_alone(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """Any destination can read from the tree, more than once."""
    source = TreeSource(cache, found)
    for name in ("one", "two"):
        install(source, destination(tmp_path / name), {})
        assert (tmp_path / name / "purelib" / "demo" / "main.py").read_bytes() == b"def main(): pass\n"
    assert sorted(source.dist_info_filenames) == ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"]


def test_files_are_linked(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """Files that are not rewritten share their bytes with the cache."""
    install(TreeSource(cache, found), LinkDestination(destination(tmp_path / "ours"), mode="hardlink"), {})
    tree = cache.unpack(found).path
    assert os.path.samefile(tree / "demo/main.py", tmp_path / "ours/purelib/demo/main.py")
    assert os.path.samefile(tree / "demo-1.0.data/headers/demo.h", tmp_path / "ours/headers/demo.h")
    assert not os.path.samefile(tree / INFO / "RECORD", tmp_path / "ours/purelib" / INFO / "RECORD")
    assert (tmp_path / "ours/scripts/run").read_bytes().startswith(b"#!" + os.fsencode(sys.executable))


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_in_the_way(overwrite: bool, cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """An existing file is replaced if installer would replace it. Otherwise the error names it."""
    target = tmp_path / "ours/purelib/demo/main.py"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")
    linking = LinkDestination(destination(tmp_path / "ours", overwrite_existing=overwrite))
    if overwrite:
        install(TreeSource(cache, found), linking, {})
        assert target.read_bytes() == b"def main(): pass\n"
    else:
        with pytest.raises(FileExistsError):
            install(TreeSource(cache, found), linking, {})
        assert target.read_bytes() == b"mine"


def test_a_staging_folder(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """With destdir, all files are below it, whether they are linked or written."""
    inner = destination(Path("/usr/lib/demo"), destdir=str(tmp_path / "stage"))
    install(TreeSource(cache, found), LinkDestination(inner), {})
    assert (tmp_path / "stage/usr/lib/demo/purelib/demo/main.py").exists()
    assert (tmp_path / "stage/usr/lib/demo/purelib" / INFO / "RECORD").exists()
