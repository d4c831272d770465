"""Extract an archive with other readers, to compare their files with ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from archives import FILENAME

from wheelcache._archive.members import iter_member, unpack_member
from wheelcache._archive.wheel import WheelArchive

# A reader that waits for an answer must not block.
_LONGEST = 60


class RefusedError(Exception):
    """A reader ended with an error."""


def _run(command: list[str], stdin: Path | None = None) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    with (stdin or Path(os.devnull)).open("rb") as file:
        done = subprocess.run(command, env=environment, stdin=file, capture_output=True, timeout=_LONGEST, check=False)
    if done.returncode != 0:
        raise RefusedError(f"{command}: {done.returncode}, {done.stdout[-2000:]!r}, {done.stderr[-2000:]!r}")


def _unzip(archive: Path, folder: Path) -> None:
    _run(["unzip", "-qq", "-o", str(archive), "-d", str(folder)])


def _bsdtar(archive: Path, folder: Path) -> None:
    _run(["bsdtar", "-x", "-f", str(archive), "-C", str(folder)])


def _bsdtar_stream(archive: Path, folder: Path) -> None:
    _run(["bsdtar", "-x", "-f", "-", "-C", str(folder)], archive)


def _seven_zip(archive: Path, folder: Path) -> None:
    _run(["7z", "x", "-y", "-bd", f"-o{folder}", str(archive)])


READERS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "unzip": ("unzip", _unzip),
    "bsdtar": ("bsdtar", _bsdtar),
    "bsdtar, from a stream": ("bsdtar", _bsdtar_stream),
    "7z": ("7z", _seven_zip),
}
"""The readers by name: the program that must be installed, and a function that extracts an archive into a folder."""


def is_installed(reader: str) -> bool:
    """Return whether a reader can be used here."""
    return os.name == "posix" and shutil.which(READERS[reader][0]) is not None


def files_by_zipfile(archive: Path) -> dict[str, bytes]:
    """Return the files that :mod:`zipfile` reads."""
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist() if not name.endswith("/")}


def files_by(reader: str, archive: Path, folder: Path) -> dict[str, bytes]:
    """Return the files that a reader extracts into a new folder, which may contain only files and folders.

    Raises:
        RefusedError: if the reader ends with an error.
    """
    folder.mkdir()
    READERS[reader][1](archive, folder)
    return composed(dict(_extracted(folder)))


def composed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files by names in composed form, since bsdtar composes names."""
    return {unicodedata.normalize("NFC", name): data for name, data in files.items()}


def _extracted(folder: Path) -> Iterator[tuple[str, bytes]]:
    for top, folders, files in os.walk(folder):
        for name in folders:
            path = Path(top, name)
            assert not path.is_symlink(), path
            # Modes are those of the archive, which may deny access.
            path.chmod(0o700)
        for name in files:
            path = Path(top, name)
            assert path.is_file(), path
            assert not path.is_symlink(), path
            path.chmod(0o600)
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def our_files(data: bytes, filename: str = FILENAME) -> dict[str, bytes]:
    """Return the files that wheelcache reads, in pieces and whole."""

    def read_at(offset: int, count: int) -> bytes:
        return data[offset : offset + count]

    archive = WheelArchive(read_at, len(data), filename, operation="unpack")
    found = {}
    for file in archive.files():
        member = file.member
        found[file.name] = unpack_member(member, memoryview(data)[member.offset : member.end])
        assert b"".join(iter_member(member, read_at)) == found[file.name]
    return found
