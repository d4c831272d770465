"""Files leave a cache by hard link only if no other user can change them later."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import FILENAME, Entry, wheel, wheel_entries
from folders import files_in
from installer import install
from installer.destinations import SchemeDictionaryDestination
from marks import not_on_windows

from wheelcache import Cache, CachedWheel, Cause, CommitError, LinkDestination, LinkMode, TreeSource
from wheelcache._fs.link import may_share

pytestmark = not_on_windows("files have no owners and modes there")

OTHER_USER = 41_001
ENTRIES = [
    Entry("demo/a.py", b"a = 1\n"),
    Entry("demo/run.sh", b"#!/bin/sh\n", mode=0o100755),
    Entry("top.py", b"top = 1\n"),
]
ALL = {str(entry.name): entry.data for entry in wheel_entries(ENTRIES)}

needs_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can give files to another user"
)


@pytest.fixture
def found(cache: Cache, tmp_path: Path) -> CachedWheel:
    """A wheel in the cache, with its tree."""
    source = tmp_path / FILENAME
    source.write_bytes(wheel(ENTRIES))
    found = cache.put(source)
    cache.unpack(found)
    return found


def give_away(root: Path) -> None:
    """Give a cache folder and all of its contents to another user."""
    for path in (root, *root.rglob("*")):
        os.chown(path, OTHER_USER, OTHER_USER)


def open_to_group(root: Path) -> None:
    """Let the group write to all files, as after an archive lost their permissions."""
    for path in root.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode | 0o020)


def open_to_all(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode | 0o002)


UNSAFE: list[object] = [pytest.param(give_away, marks=needs_root), open_to_group, open_to_all]


def check_own(site: Path) -> None:
    """Check that every file has only one name, belongs to us, and can only be written by us."""
    files = [path for path in site.rglob("*") if path.is_file()]
    assert files
    for path in files:
        found = path.stat()
        assert (found.st_nlink, found.st_uid, found.st_mode & 0o022) == (1, os.geteuid(), 0)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Set the usual umask during the test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("change", UNSAFE)
@pytest.mark.parametrize("mode", [LinkMode.AUTO, LinkMode.COPY])
def test_unpacked_files_are_our_own(
    mode: LinkMode, change: Callable[[Path], None], cache: Cache, found: CachedWheel, tmp_path: Path
) -> None:
    """A file that another user owns or can write to is copied, and the returned mode says so."""
    change(cache.path)
    unpacked = cache.unpack(found, tmp_path / "site", mode=mode)
    assert unpacked.mode in {LinkMode.COPY, LinkMode.CLONE}
    assert files_in(unpacked.path) == ALL
    check_own(unpacked.path)
    assert (unpacked.path / "demo" / "run.sh").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("change", UNSAFE)
def test_an_exported_wheel_is_our_own(
    change: Callable[[Path], None], cache: Cache, found: CachedWheel, tmp_path: Path
) -> None:
    """The wheel itself is copied, too, by link and by export."""
    change(cache.path)
    assert cache.link(found, tmp_path / "linked" / "x.whl") in {LinkMode.COPY, LinkMode.CLONE}
    cache.export(tmp_path / "house", [found])
    check_own(tmp_path / "linked")
    check_own(tmp_path / "house")


@pytest.mark.parametrize("change", UNSAFE)
def test_installed_files_are_our_own(
    change: Callable[[Path], None], cache: Cache, found: CachedWheel, tmp_path: Path
) -> None:
    """The adapters for pypa/installer copy such files."""
    change(cache.path)
    schemes = {name: str(tmp_path / "out" / name) for name in ("purelib", "platlib", "scripts", "data", "headers")}
    install(
        TreeSource(cache, found), LinkDestination(SchemeDictionaryDestination(schemes, sys.executable, "posix")), {}
    )
    assert (tmp_path / "out" / "purelib" / "top.py").read_bytes() == ALL["top.py"]
    check_own(tmp_path / "out")


@pytest.mark.parametrize("change", UNSAFE)
def test_an_explicit_hard_link_is_an_error(
    change: Callable[[Path], None], cache: Cache, found: CachedWheel, tmp_path: Path
) -> None:
    """If the caller allows only hard links, the call fails, names the file and another mode, and links nothing."""
    change(cache.path)
    calls: list[Callable[[], object]] = [
        lambda: cache.unpack(found, tmp_path / "site", mode="hardlink"),
        lambda: cache.link(found, tmp_path / "out.whl", mode="hardlink"),
        lambda: cache.export(tmp_path / "house", [found], mode="hardlink"),
    ]
    for call in calls:
        with pytest.raises(CommitError, match='mode "auto"') as caught:
            call()
        assert caught.value.cause is Cause.DENIED
        assert str(caught.value.path).startswith(str(cache.path))
    assert not (tmp_path / "out.whl").exists()
    assert files_in(tmp_path) == {
        name: data for name, data in files_in(tmp_path).items() if not name.startswith("site")
    }


def test_one_unsafe_file_does_not_prevent_the_links_of_others(cache: Cache, found: CachedWheel, tmp_path: Path) -> None:
    """Only the file that others can write to is copied. The returned mode is that of the others."""
    tree = cache.unpack(found).path
    (tree / "demo" / "a.py").chmod(0o664)
    unpacked = cache.unpack(found, tmp_path / "site")
    if unpacked.mode is LinkMode.CLONE:
        pytest.skip("this volume clones")
    assert unpacked.mode is LinkMode.HARDLINK
    assert not os.path.samefile(tree / "demo" / "a.py", tmp_path / "site" / "demo" / "a.py")
    assert os.path.samefile(tree / "top.py", tmp_path / "site" / "top.py")


@pytest.mark.parametrize(
    ("owner", "mode", "is_shareable"),
    [
        (OTHER_USER, 0o444, True),
        (OTHER_USER, 0o644, True),
        (0, 0o644, True),
        (0, 0o755, True),
        (OTHER_USER + 1, 0o444, False),
        (OTHER_USER, 0o664, False),
        (OTHER_USER, 0o646, False),
        (0, 0o664, False),
        (0, 0o4757, False),
    ],
)
def test_files_of_root_are_linked_for_a_user(
    owner: int, mode: int, is_shareable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may hard-link own files and those of root, unless the group or others may write to them."""
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    assert may_share(os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, owner, 0, 0, 0, 0))) is is_shareable
