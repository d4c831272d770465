"""Whether other users can write to folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from marks import not_on_windows

pytestmark = not_on_windows("access lists of Windows have tests of their own")

if sys.platform != "win32":
    from wheelcache._os.access import posix
    from wheelcache._os.access.posix import is_private

needs_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can create folders of other users"
)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750, 0o555, 0o500, 0o2755, 0o1755], ids=oct)
def test_a_folder_that_only_its_owner_may_write_to_is_private(tmp_path: Path, mode: int) -> None:
    """A folder of this user is private if neither its group nor others may write to it."""
    tmp_path.chmod(mode)
    assert is_private([str(tmp_path)])


@pytest.mark.parametrize("mode", [0o770, 0o775, 0o2775, 0o720, 0o702, 0o777, 0o1777], ids=oct)
def test_a_folder_that_others_may_write_to_is_shared(tmp_path: Path, mode: int) -> None:
    """A folder is shared if its group or others may write to it, even if it is sticky."""
    tmp_path.chmod(mode)
    assert not is_private([str(tmp_path)])


def test_one_shared_folder_is_enough(tmp_path: Path) -> None:
    """Several folders are private only if each of them is."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside").chmod(0o777)
    assert not is_private([str(tmp_path), str(tmp_path / "inside")])


def test_a_missing_folder_is_skipped(tmp_path: Path) -> None:
    """A folder that does not exist yet does not make the others shared."""
    assert is_private([str(tmp_path), str(tmp_path / "missing")])


def test_links_are_followed(tmp_path: Path) -> None:
    """The folder behind a link decides, since a link has no permissions."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "folder").chmod(0o755)
    assert is_private([str(tmp_path / "link")])
    (tmp_path / "folder").chmod(0o777)
    assert not is_private([str(tmp_path / "link")])


def test_a_folder_that_cannot_be_examined_is_shared(tmp_path: Path) -> None:
    """An error other than a missing folder makes the folder shared."""
    (tmp_path / "file").touch()
    assert not is_private([str(tmp_path / "file" / "folder")])


@needs_root
@pytest.mark.parametrize(
    ("owner", "user", "expected"),
    [(0, 0, True), (41_001, 41_001, True), (0, 41_001, True), (41_001, 0, False), (41_002, 41_001, False)],
)
def test_the_owner_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, user: int, expected: bool
) -> None:
    """A folder is private only for its owner, except that everybody trusts a folder of root."""
    tmp_path.chmod(0o755)
    os.chown(tmp_path, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert is_private([str(tmp_path)]) is expected


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="needs setfacl")
def test_an_access_list_that_lets_another_user_write_makes_a_folder_shared(tmp_path: Path) -> None:
    """On Linux, the write permission of a named user appears in the group bits of the mode."""
    tmp_path.chmod(0o700)
    done = subprocess.run(["setfacl", "-m", "u:41002:rwx", str(tmp_path)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this file system has no access lists")
    assert not is_private([str(tmp_path)])


@pytest.mark.parametrize(
    ("has_list", "expected"), [(lambda path: False, True), (lambda path: True, False)], ids=["no list", "a list"]
)
def test_an_access_list_of_macos_makes_a_folder_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_list: Callable[[str], bool], expected: bool
) -> None:
    """The mode of a folder on macOS does not show its access list, so any list makes the folder shared."""
    tmp_path.chmod(0o755)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(posix, "_has_access_list", has_list)
    assert is_private([str(tmp_path)]) is expected
