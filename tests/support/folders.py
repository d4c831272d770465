"""Examine folders without the library."""

from __future__ import annotations

import os
from pathlib import Path

from wheelcache import Cache


def files_in(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder: its relative path, with slashes, and its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every file and folder below a folder with size and time stamp, to show that nothing was written."""
    found = {path.relative_to(folder).as_posix(): path.lstat() for path in folder.rglob("*")}
    return {
        name: (stat.st_size if folder.joinpath(name).is_file() else 0, stat.st_mtime_ns) for name, stat in found.items()
    }


def unfinished(cache: Cache) -> list[str]:
    """Return the unfinished files: partial and temporary files, and locks."""
    # By name alone: on Windows they may be held without sharing, and cannot be read.
    names = (path.relative_to(cache.path).as_posix() for path in cache.path.rglob("*") if path.is_file())
    return [name for name in names if name.startswith(("v1/partial/", "v1/tmp/", "v1/locks/"))]


def assert_nothing_came(cache: Cache) -> None:
    """Check that a cache has no wheel and no leftovers."""
    assert list(cache.entries()) == []
    assert unfinished(cache) == []
    assert [name for name in files_in(cache.path) if name.startswith("v1/") and name != "v1/tally.log"] == []


def blobs(cache: Cache) -> list[Path]:
    """Return the wheel files in a cache, quarantine not included."""
    return sorted((cache.path / "v1" / "wheels").rglob("*.whl"))


def records(cache: Cache) -> list[Path]:
    """Return the records in a cache."""
    return sorted((cache.path / "v1" / "wheels").rglob("*.json"))


def quarantined(cache: Cache) -> list[Path]:
    """Return the files in quarantine."""
    return sorted((cache.path / "v1" / "quarantine").glob("*"))


def open_below(root: Path) -> list[str]:
    """Return the paths of the files and folders in or below a folder that this process has open. Works on Linux."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the descriptor of the listing itself
        if path == str(root) or path.startswith(f"{root}/"):
            found.append(path)
    return sorted(found)
