"""Listing: what an unpacked wheel holds, and the marker that says so on disk.

A warm install reads 80 markers of 18,600 files and does little else, so they are made to be read fast: columns and not
rows, the names of a folder joined by the one character that no name has, digests in one piece that nobody takes apart
unless a file has to be hashed. The marker carries a checksum, as records do: a torn one is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .._filenames import is_dist_info
from .._store.records import decode, encode

_DIGEST_DIGITS = 64

# One letter for each file, since a string is the smallest column there is.
PLAIN = "-"
EXECUTABLE = "x"
IMAGE = "m"
"""A program or library of Windows: while it is loaded, no name of it can be deleted."""
EXECUTABLE_IMAGE = "b"


class ManifestDir(NamedTuple):
    """The files of one folder of a tree, in columns.

    Attributes:
        path: relative to the tree, with slashes; ``""`` for the tree's own.
        names: of the files.
        sizes: bytes.
        stamps: time stamps in nanoseconds, as they were when the file was written or hashed last.
        kinds: one letter each: :data:`PLAIN`, :data:`EXECUTABLE`, :data:`IMAGE` or :data:`EXECUTABLE_IMAGE`.
        digests: the sha256 of each in hex, one after the other.
    """

    path: str
    names: list[str]
    sizes: list[int]
    stamps: list[int]
    kinds: str
    digests: str

    def digest(self, number: int) -> str:
        """The sha256 of a file, in hex."""
        return self.digests[number * _DIGEST_DIGITS : (number + 1) * _DIGEST_DIGITS]

    def only(self, number: int) -> ManifestDir:
        """The folder with one of its files."""
        one = slice(number, number + 1)
        return ManifestDir(
            self.path, self.names[one], self.sizes[one], self.stamps[one], self.kinds[one], self.digest(number)
        )

    def relative(self, name: str) -> str:
        """The name of a file, relative to the tree, with slashes."""
        return f"{self.path}/{name}" if self.path else name


class Manifest(NamedTuple):
    """What a tree holds.

    Attributes:
        sha256: of the wheel, in hex.
        boot: the boot identity in which the stamps were taken, ``None`` where the system has none.
        created: seconds since the epoch.
        folders: every folder that holds a file or a folder; each one after the one it lies in.
    """

    sha256: str
    boot: str | None
    created: int
    folders: list[ManifestDir]

    def files(self) -> Iterator[str]:
        """Yield the names of all files, relative to the tree, with slashes."""
        for folder in self.folders:
            prefix = folder.path + "/" if folder.path else ""
            for name in folder.names:
                yield prefix + name

    def dist_info(self) -> str:
        """The name of the ``.dist-info`` folder, of which every wheel has one."""
        return next(folder.path for folder in self.folders if is_dist_info(folder.path))

    def size(self) -> int:
        """The bytes of all files."""
        return sum(sum(folder.sizes) for folder in self.folders)

    def with_stamps(self, stamps: list[list[int]], boot: str | None) -> Manifest:
        """The listing after every file was looked at again."""
        folders = [folder._replace(stamps=column) for folder, column in zip(self.folders, stamps, strict=True)]
        return self._replace(folders=folders, boot=boot)


def is_executable(kind: str) -> bool:
    """Whether a file of this kind has the executable bits."""
    return kind in (EXECUTABLE, EXECUTABLE_IMAGE)


def is_image(kind: str) -> bool:
    """Whether Windows may load a file of this kind."""
    return kind in (IMAGE, EXECUTABLE_IMAGE)


def encode_marker(manifest: Manifest) -> bytes:
    """Write a marker."""
    folders = manifest.folders
    return encode(
        {
            "sha256": manifest.sha256,
            "boot": manifest.boot,
            "created": manifest.created,
            "folders": [folder.path for folder in folders],
            "names": ["/".join(folder.names) for folder in folders],
            "sizes": [folder.sizes for folder in folders],
            "stamps": [folder.stamps for folder in folders],
            "kinds": [folder.kinds for folder in folders],
            "digests": [folder.digests for folder in folders],
        }
    )


def decode_marker(data: bytes) -> Manifest | None:
    """Read a marker, ``None`` where this is not one."""
    fields = decode(data)
    if fields is None:
        return None
    try:
        columns = zip(
            fields["folders"],
            [names.split("/") if names else [] for names in fields["names"]],
            fields["sizes"],
            fields["stamps"],
            fields["kinds"],
            fields["digests"],
            strict=True,
        )
        return Manifest(
            fields["sha256"], fields["boot"], fields["created"], [ManifestDir(*column) for column in columns]
        )
    except (TypeError, KeyError, AttributeError, ValueError):
        return None
