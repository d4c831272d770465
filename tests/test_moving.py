"""A cache that was archived, copied, restored with other time stamps or damaged in transit works at once."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import quarantined
from machines import Machine
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, Status

WHEELS = [Wheel(wheel_filename(f"p{number}"), make_wheel(f"p{number}", size=6000 + number)) for number in range(8)]


def by_zip(source: Path, target: Path) -> None:
    """Zip and unzip a folder with Python, which loses time stamps, permissions and empty folders."""
    archive = target.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in source.rglob("*"):
            if path.is_file():
                file.write(path, path.relative_to(source))
    with zipfile.ZipFile(archive) as file:
        file.extractall(target)


def by_tar(source: Path, target: Path) -> None:
    with tarfile.open(target.with_suffix(".tar.gz"), "w:gz") as file:
        file.add(source, ".")
    with tarfile.open(target.with_suffix(".tar.gz")) as file:
        # Python before 3.11.4 has no filters: https://docs.python.org/3/library/tarfile.html#hints-for-further-verification
        file.extraction_filter = getattr(tarfile, "data_filter", None)
        file.extractall(target)


def by_copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=shutil.copy)


def by_rename(source: Path, target: Path) -> None:
    source.rename(target)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "zip": by_zip,
    "tar": by_tar,
    "copy": by_copy,
    "rename": by_rename,
}


def fill(machine: Machine, root: Path, server: Server) -> list[str]:
    """Fetch all wheels, each by a second hash too, and return their URLs."""
    urls = [wheel.on(server) for wheel in WHEELS]
    with machine.cache(root) as cache:
        for wheel, url in zip(WHEELS, urls, strict=True):
            cache.fetch(url, hashes={"sha256": wheel.hex(), "sha512": wheel.hex("sha512")})
    server.forget()
    return urls


def change_all_stamps(root: Path) -> None:
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, (1_000_000_000 + number,) * 2)


def fetch_all(cache: Cache, urls: list[str]) -> list[Status]:
    """Fetch all wheels, check their bytes, and return their statuses."""
    found = [cache.fetch(url, hashes=wheel.digest) for wheel, url in zip(WHEELS, urls, strict=True)]
    for wheel, there in zip(WHEELS, found, strict=True):
        assert there.path.read_bytes() == wheel.data
        assert there.path.is_relative_to(cache.path)
    return [there.status for there in found]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("same_boot", [True, False], ids=["same boot", "elsewhere"])
def test_a_cache_that_was_moved_works_at_once(
    machine: Machine, server: Server, tmp_path: Path, way: str, same_boot: bool
) -> None:
    """After any kind of move, every wheel is a hit by each of its hashes, and is hashed only once."""
    urls = fill(machine, tmp_path / "here", server)
    WAYS[way](tmp_path / "here", tmp_path / "there")
    change_all_stamps(tmp_path / "there")
    if not same_boot:
        machine.reboot()
    with machine.cache(tmp_path / "there") as cache:
        machine.files.forget()
        assert fetch_all(cache, urls) == [Status.HIT] * len(WHEELS)
        assert len(machine.files.calls("open_read", ".whl")) == len(WHEELS)
        assert all(cache.get(f"sha512:{wheel.hex('sha512')}") is not None for wheel in WHEELS)
    with machine.cache(tmp_path / "there") as again:
        machine.files.forget()
        assert fetch_all(again, urls) == [Status.HIT] * len(WHEELS)
        assert machine.files.calls("open_read", ".whl") == []
        assert again.verify().ok
    assert server.count() == 0


def test_only_what_was_damaged_on_the_way_is_downloaded(machine: Machine, server: Server, tmp_path: Path) -> None:
    """After five wheels were damaged in a zip archive in five ways, all wheels have the right bytes."""
    urls = fill(machine, tmp_path / "here", server)
    by_zip(tmp_path / "here", tmp_path / "there")
    root = tmp_path / "there"
    cut, zeroed, flipped, torn, unrecorded = (next(root.rglob(wheel.filename)) for wheel in WHEELS[:5])
    os.truncate(cut, 1000)
    zeroed.write_bytes(bytes(zeroed.stat().st_size))
    data = bytearray(flipped.read_bytes())
    data[1234] ^= 0b100
    flipped.write_bytes(data)
    os.truncate(torn.with_suffix(".json"), 77)
    unrecorded.with_suffix(".json").unlink()
    change_all_stamps(root)
    machine.reboot()
    with machine.cache(root) as cache:
        statuses = fetch_all(cache, urls)
        assert statuses == [Status.REPAIRED] * 3 + [Status.HIT] * 5
        assert [server.count(url) for url in urls] == [1, 1, 1, 0, 0, 0, 0, 0]
        assert len(quarantined(cache)) == 3
        assert cache.verify().ok


def test_lost_stamps_make_the_order_coarser_and_no_more(machine: Machine, server: Server, tmp_path: Path) -> None:
    """A cache with equal time stamps is pruned to its size, and wheels used afterwards are kept longest."""
    fill(machine, tmp_path / "here", server)
    for path in (tmp_path / "here").rglob("*"):
        os.utime(path, (1_000_000_000,) * 2)
    with machine.cache(tmp_path / "here") as cache:
        assert cache.get(WHEELS[3].digest) is not None
        cache.prune(max_size=WHEELS[3].size)
        assert [wheel.filename for wheel in cache.entries()] == [WHEELS[3].filename]
