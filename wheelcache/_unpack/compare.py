"""Compare a tree with the wheel that it was unpacked from.

A tree is compared if its marker is not trusted: after a reboot, if the tree was restored from an archive, or if another
user may have written the marker. The digests in such a marker prove nothing. Each file is hashed and compared with its
hash in RECORD. Only files without a hash in RECORD, such as RECORD itself, are read from the wheel. The caller has
hashed the wheel before.

Files that the wheel does not have are reported too. Python would import such a module from the folder that
``Cache.unpack`` returns. Empty folders are harmless and are ignored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from .._archive.file import ArchiveFile, IsSame
from .._archive.members import iter_member
from .._archive.wheel import WheelArchive, WheelFile
from .._archive.zip import BadZipError
from .._fs.robustio import RobustIO
from .._store.layout import marker_path
from .check import Expected, FolderCheck
from .manifest import Manifest, ManifestDir, folders_of


class Comparison(NamedTuple):
    """The differences between a tree and its wheel.

    Attributes:
        damaged: the absolute paths of missing and altered files, and of a marker that does not list the files of the
            wheel with their sizes, digests and kinds.
        manifest: the manifest with the fingerprints of the hashed files.
    """

    damaged: list[str]
    manifest: Manifest


def compare_with_wheel(
    fs: RobustIO,
    root: str,
    manifest: Manifest,
    wheel: str,
    filename: str,
    *,
    is_same: IsSame | None = None,
    writable: bool,
    bytes_only: bool = False,
) -> Comparison:
    """Compare the files of a tree and its manifest with a wheel that was hashed.

    Args:
        fs: the file system of the operation.
        root: the absolute path of the tree.
        manifest: the files of the tree according to its marker.
        wheel: the absolute path of the wheel.
        filename: the file name of the wheel.
        is_same: returns whether a status is that of the wheel that was hashed.
        writable: whether lost permissions may be restored.
        bytes_only: whether lost permissions do not count as damage.

    Raises:
        InvalidWheelError, UnsafeWheelError: if the wheel is refused.
        FileNotFoundError: if the wheel does not exist.
        CommitError: if a file cannot be read, or is held for too long.
    """
    marker = marker_path(root)
    with ArchiveFile(fs, wheel, is_same) as file:
        archive = WheelArchive(file.read_at, file.size, filename, operation="unpack", path=wheel)
        expected = {member.name: _expected(archive, member, file) for member in archive.files()}
    if not _lists(manifest, expected):
        return Comparison([marker], manifest)
    damaged: list[str] = []
    folders: list[ManifestDir] = []
    is_misrecorded = False
    for folder in manifest.folders:

        def expected_file(number: int, folder: ManifestDir = folder) -> Expected:
            return expected[folder.relative(folder.names[number])]

        check = FolderCheck(fs, root, folder, expected_file, writable=writable, bytes_only=bytes_only)
        check.run(trusted=False)
        damaged += check.damaged
        folders.append(check.renewed)
        is_misrecorded = is_misrecorded or check.misrecorded
    if is_misrecorded:
        damaged.append(marker)
    return Comparison(damaged, manifest._replace(folders=folders))


def _expected(archive: WheelArchive, file: WheelFile, source: ArchiveFile) -> Expected:
    size, executable = file.member.size, file.is_executable
    if file.algorithm:
        return Expected(size, file.algorithm, file.digest, executable)
    hasher = hashlib.sha256()
    try:
        for piece in iter_member(file.member, source.read_at):
            hasher.update(piece)
    except BadZipError as error:
        raise archive.unsafe(str(error)) from error
    return Expected(size, "sha256", hasher.digest(), executable)


def _lists(manifest: Manifest, expected: dict[str, Expected]) -> bool:
    """Return whether a manifest has exactly the files of the wheel, with their sizes, and their folders."""
    sizes = {
        folder.relative(name): size
        for folder in manifest.folders
        for name, size in zip(folder.names, folder.sizes, strict=True)
    }
    folders = folders_of(expected)
    return folders == {folder.path for folder in manifest.folders} and sizes == {
        name: file.size for name, file in expected.items()
    }


def iter_extra(fs: RobustIO, root: str, manifest: Manifest) -> Iterator[str]:
    """Yield the absolute paths of the files in a tree that its manifest does not list. Folders are not yielded.

    Raises:
        CommitError: if a folder cannot be read.
    """
    listed = {folder.path: set(folder.names) for folder in manifest.folders}
    remaining = [""]
    while remaining:
        folder = remaining.pop()
        path = os.path.join(root, *filter(None, folder.split("/")))
        names = listed.get(folder, set())
        for entry in fs.scan(path):
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir and entry.name not in names:
                remaining.append(relative)
            elif entry.name not in names:
                yield os.path.join(path, entry.name)
