"""The files of an unpacked wheel, and the marker that lists them on disk.

The format is fast to read, because a warm install spends much of its time on reading markers, for example 80 markers
with 18,600 files. The format has columns instead of rows. The names of a folder are joined by the one character that no
name contains. All digests of a folder are in one string. This string is only divided when a file is hashed. A marker
has a checksum like a record, so a torn marker is invalid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .._filenames import is_dist_info
from .._store.records import decode, encode

_DIGEST_DIGITS = 64
MAX_MARKER = 32 << 20
"""Bytes. A file takes about 130 bytes. Of the large public wheels, homeassistant has the most files: 36,000."""

# The kinds of files, with one letter each, since a string is the most compact column.
PLAIN = "-"
EXECUTABLE = "x"
IMAGE = "m"
"""A Windows program or library. While it is loaded, it cannot be deleted under any of its names."""
EXECUTABLE_IMAGE = "b"


class ManifestDir(NamedTuple):
    """The files of one folder of a tree, in columns.

    Attributes:
        path: the path relative to the tree, with slashes. Empty for the tree itself.
        names: the names of the files.
        sizes: the sizes of the files in bytes.
        stamps: the time stamps that the files had when they were last written or hashed, in nanoseconds.
        kinds: the kinds of the files: :data:`PLAIN`, :data:`EXECUTABLE`, :data:`IMAGE` or :data:`EXECUTABLE_IMAGE`.
        digests: the sha256 of the files, in hex, concatenated.
    """

    path: str
    names: list[str]
    sizes: list[int]
    stamps: list[int]
    kinds: str
    digests: str

    def digest(self, number: int) -> str:
        """Return the sha256 of a file, in hex."""
        return self.digests[number * _DIGEST_DIGITS : (number + 1) * _DIGEST_DIGITS]

    def only(self, number: int) -> ManifestDir:
        """Return the folder with only one of its files."""
        one = slice(number, number + 1)
        return ManifestDir(
            self.path, self.names[one], self.sizes[one], self.stamps[one], self.kinds[one], self.digest(number)
        )

    def relative(self, name: str) -> str:
        """Return the path of a file relative to the tree, with slashes."""
        return f"{self.path}/{name}" if self.path else name


class Manifest(NamedTuple):
    """The files of a tree.

    Attributes:
        sha256: the sha256 of the wheel, in hex.
        boot: the boot in which the time stamps were read, or ``None`` if the system does not identify its boots.
        created: the creation time of the tree, in seconds since the epoch.
        folders: every folder that is not empty, each after its parent.
    """

    sha256: str
    boot: str | None
    created: int
    folders: list[ManifestDir]

    def files(self) -> Iterator[str]:
        """Yield the paths of all files relative to the tree, with slashes."""
        for folder in self.folders:
            prefix = folder.path + "/" if folder.path else ""
            for name in folder.names:
                yield prefix + name

    def dist_info(self) -> str:
        """Return the name of the ``.dist-info`` folder. Every wheel has exactly one."""
        return next(folder.path for folder in self.folders if is_dist_info(folder.path))

    def size(self) -> int:
        """Return the total size of all files in bytes."""
        return sum(sum(folder.sizes) for folder in self.folders)

    def with_stamps(self, stamps: list[list[int]], boot: str | None) -> Manifest:
        """Return the manifest with the time stamps that another check has read, by folder and file."""
        folders = [folder._replace(stamps=column) for folder, column in zip(self.folders, stamps, strict=True)]
        return self._replace(folders=folders, boot=boot)


def is_executable(kind: str) -> bool:
    """Return whether a file of this kind is executable."""
    return kind in (EXECUTABLE, EXECUTABLE_IMAGE)


def is_image(kind: str) -> bool:
    """Return whether a file of this kind is a Windows program or library."""
    return kind in (IMAGE, EXECUTABLE_IMAGE)


def encode_marker(manifest: Manifest) -> bytes:
    """Return the bytes of the marker for a manifest."""
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
    """Return the manifest in a marker, or ``None`` if the marker is invalid."""
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
