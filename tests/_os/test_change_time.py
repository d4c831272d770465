"""The change time of a folder changes with its entries, and tools that restore archives cannot restore it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from marks import not_on_windows

from wheelcache._os.files import native


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that contains a file and a folder with a file."""
    folder = tmp_path / "tree"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "deep.py").write_bytes(b"")
    (folder / "file.py").write_bytes(b"")
    return folder


CHANGES: dict[str, Callable[[Path], object]] = {
    "a new file": lambda folder: (folder / "new.py").write_bytes(b""),
    "a deleted file": lambda folder: (folder / "file.py").unlink(),
    "a new folder": lambda folder: (folder / "new").mkdir(),
    "restored time stamps": lambda folder: os.utime(folder, (1_000_000_000, 1_000_000_000)),
    "permissions": lambda folder: folder.chmod(0o700),
}


@not_on_windows("Wine does not change this time")
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_folder_changes_it(change: str, folder: Path) -> None:
    """A new or deleted entry, restored time stamps or other permissions give the folder another change time."""
    before = native().change_time(str(folder))
    wait_for_another_time(folder)
    CHANGES[change](folder)
    assert native().change_time(str(folder)) != before


def test_it_counts_from_the_same_epoch_as_other_times(folder: Path) -> None:
    """The change time of a new folder is near its time of modification, so that a marker can store it."""
    assert abs(native().change_time(str(folder)) - folder.stat().st_mtime_ns) < 86_400 * 10**9


def test_uses_of_its_files_do_not_change_it(folder: Path, tmp_path: Path) -> None:
    """Hard links to its files, reading them and files in inner folders do not change it."""
    before = native().change_time(str(folder))
    wait_for_another_time(folder)
    os.link(folder / "file.py", tmp_path / "linked.py")
    (folder / "file.py").read_bytes()
    (folder / "inner" / "new.py").write_bytes(b"")
    os.listdir(folder)
    assert native().change_time(str(folder)) == before


@not_on_windows("no right to make links there")
def test_it_belongs_to_a_link_itself(folder: Path, tmp_path: Path) -> None:
    """The change time of a link is returned, not that of its target."""
    link = tmp_path / "link"
    wait_for_another_time(folder)
    link.symlink_to(folder)
    assert native().change_time(str(link)) != native().change_time(str(folder))


def test_a_missing_folder_is_missing(tmp_path: Path) -> None:
    """A missing folder is a FileNotFoundError that names it."""
    with pytest.raises(FileNotFoundError) as caught:
        native().change_time(str(tmp_path / "missing"))
    assert caught.value.filename == str(tmp_path / "missing")


def wait_for_another_time(folder: Path) -> None:
    """Create files until the clock of the file system has advanced."""
    before = native().change_time(str(folder))
    probe = folder.parent / "probe"
    for _ in range(100_000):
        probe.write_bytes(b"")
        if native().change_time(str(probe)) > before:
            return
        probe.unlink()
    pytest.fail("the clock of the file system stands still")
