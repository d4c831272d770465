"""Check the files of a tree, by their fingerprints or by hashing them.

The fingerprint of a file is its size, time stamp, inode and kind. It takes one ``stat``. A file is hashed only if its
fingerprint is not trusted or has changed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat as modes
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .._exceptions import CommitError
from .._fs.link import WRITABLE_BY_OTHERS, trusted_owners
from .._fs.robustio import RobustIO, reading
from .._models import Phase
from .._os.files import OpenFolder
from .._store.trust.fingerprint import is_replaced
from .manifest import (
    EXECUTABLE,
    EXECUTABLE_IMAGE,
    IMAGE,
    PLAIN,
    Manifest,
    ManifestDir,
    is_executable,
    kind_of,
)

_CHUNK = 1 << 20

# The bits of a mode that are compared: the type, and whether the owner may execute the file. The others depend on the
# umask.
_KIND, _OWNER_KIND = 0o170000, 0o170100
_MODES = {PLAIN: 0o100000, IMAGE: 0o100000, EXECUTABLE: 0o100100, EXECUTABLE_IMAGE: 0o100100}


class Examined(NamedTuple):
    """The result of one ``stat`` of each file in a folder.

    Attributes:
        changed: the numbers of the files without the recorded fingerprint.
        unshareable: the numbers of the other files that may not be hard-linked out, because another user owns them or
            can write to them.
    """

    changed: list[int]
    unshareable: set[int]


def examine(fs: RobustIO, files: OpenFolder, folder: ManifestDir) -> Examined:
    """Compare the files in an open folder with their recorded fingerprints."""
    mask = _mask(fs)
    expected = {kind: mode & mask for kind, mode in _MODES.items()}
    changed, unshareable = [], set()
    stat, owners = files.stat, trusted_owners()
    columns = zip(folder.names, folder.sizes, folder.stamps, folder.inodes, folder.kinds, strict=True)
    for number, (name, size, stamp, inode, kind) in enumerate(columns):
        try:
            found = stat(name)
            mode = found.st_mode
            if (
                found.st_size != size
                or found.st_mtime_ns != stamp
                or mode & mask != expected[kind]
                or (found.st_ino != inode and is_replaced(found, lambda name=name: stat(name)))  # type: ignore[misc]
            ):
                changed.append(number)
            # The same as may_share(), without a call for each file.
            elif owners and (mode & WRITABLE_BY_OTHERS or found.st_uid not in owners):
                unshareable.add(number)
        except OSError:
            changed.append(number)
    return Examined(changed, unshareable)


def _mask(fs: RobustIO) -> int:
    return _OWNER_KIND if fs.files.has_permissions else _KIND


class Expected(NamedTuple):
    """The contents that a file of a tree must have.

    Attributes:
        size: the size in bytes.
        algorithm: the algorithm of the hash.
        digest: the hash.
        executable: whether the file is executable.
    """

    size: int
    algorithm: str
    digest: bytes
    executable: bool


class FolderCheck:
    """The check of one folder of a tree by hashing its files.

    Args:
        fs: the file system of the operation.
        root: the absolute path of the tree.
        folder: the files of the folder.
        expected: returns the contents that the file with a number must have.
        writable: whether lost permissions may be restored.
        bytes_only: whether lost permissions do not count as damage.

    Attributes:
        damaged: the absolute paths of missing and damaged files.
        misrecorded: whether the manifest has another digest or kind than an intact file.
        stamps: the time stamps of the files. For hashed files, these are the new ones.
        inodes: the same for the inodes.
    """

    def __init__(
        self,
        fs: RobustIO,
        root: str,
        folder: ManifestDir,
        expected: Callable[[int], Expected],
        *,
        writable: bool,
        bytes_only: bool = False,
    ) -> None:
        self._fs = fs
        self._path = os.path.join(root, *folder.path.split("/"))
        self._folder = folder
        self._expected = expected
        self._writable = writable
        self._bytes_only = bytes_only
        self.damaged: list[str] = []
        self.misrecorded = False
        self.stamps = folder.stamps
        self.inodes = folder.inodes

    @property
    def renewed(self) -> ManifestDir:
        """The folder with the new fingerprints."""
        return self._folder._replace(stamps=self.stamps, inodes=self.inodes)

    def run(self, *, trusted: bool) -> None:
        """Check every file. With ``trusted``, only files without the recorded fingerprint are hashed."""
        folder = self._folder
        if not folder.names:
            return
        try:
            files = self._fs.files.open_folder(self._path)
        except OSError:
            if self._is_replaced():
                self.damaged += [os.path.join(self._path, name) for name in folder.names]
            else:
                # The check of each file reports the error.
                self._check_files(range(len(folder.names)))
            return
        with files:
            changed = examine(self._fs, files, folder).changed if trusted else range(len(folder.names))
        self._check_files(changed)

    def _is_replaced(self) -> bool:
        """Return whether a file has the name of the folder or of a parent folder."""
        try:
            stat = self._fs.stat(self._path)
        except CommitError as error:
            return bool(error.errno == errno.ENOTDIR)
        return stat is not None and not modes.S_ISDIR(stat.st_mode)

    def _check_files(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._check_file(number)

    def _check_file(self, number: int) -> None:
        path = os.path.join(self._path, self._folder.names[number])
        expected = self._expected(number)
        found = _hash(self._fs, path, expected)
        if found is None or found.digest != expected.digest:
            self.damaged.append(path)
            return
        kind = kind_of(found.first_bytes, executable=expected.executable)
        if found.sha256 != self._folder.digest(number) or kind != self._folder.kinds[number]:
            self.misrecorded = True
        if not (self._bytes_only or self._has_mode(found.stat, kind) or self._restore_permissions(path, kind)):
            self.damaged.append(path)
            return
        if self.stamps is self._folder.stamps:
            self.stamps, self.inodes = list(self.stamps), list(self.inodes)
        self.stamps[number], self.inodes[number] = found.stat.st_mtime_ns, found.stat.st_ino

    def _has_mode(self, stat: os.stat_result, kind: str) -> bool:
        mask = _mask(self._fs)
        return stat.st_mode & mask == _MODES[kind] & mask

    def _restore_permissions(self, path: str, kind: str) -> bool:
        """Restore permissions that an archive of the cache has lost, and return whether this was possible."""
        if self._writable:
            try:
                self._fs.files.make_read_only(path, executable=is_executable(kind))
            except OSError:
                return False  # another user owns the file, so this user needs a new tree
        return self._writable


class _Hashed(NamedTuple):
    """A file that was hashed: its status, first two bytes, hash by the expected algorithm, and sha256 in hex."""

    stat: os.stat_result
    first_bytes: bytes
    digest: bytes
    sha256: str


def _hash(fs: RobustIO, path: str, expected: Expected) -> _Hashed | None:
    """Hash a file, or return ``None`` if it is missing or has another size."""
    stat = fs.stat(path)
    if stat is None or not modes.S_ISREG(stat.st_mode) or stat.st_size != expected.size:
        return None
    file = fs.open_read(path)
    if file is None:
        return None
    sha256 = hashlib.sha256()
    other = sha256 if expected.algorithm == "sha256" else hashlib.new(expected.algorithm)
    first_bytes, done = b"", 0
    with reading(file):
        if fs.files.has_permissions:
            # Another process may have replaced the file since the call of stat. The fingerprint must belong to the file
            # that is hashed. On Windows, the status of a path and that of its open file may have different inodes.
            stat = os.fstat(file.fileno())
        # A file that grows is not read to its end.
        while done <= expected.size and (chunk := fs.perform("read", path, lambda: file.read(_CHUNK))):
            first_bytes = (first_bytes + chunk[:2])[:2]
            sha256.update(chunk)
            if other is not sha256:
                other.update(chunk)
            done += len(chunk)
            fs.op.report(Phase.CHECKING, done, expected.size)
    return _Hashed(stat, first_bytes, other.digest(), sha256.hexdigest()) if done == expected.size else None


def check_recorded(
    fs: RobustIO, root: str, manifest: Manifest, *, trusted: bool, writable: bool, bytes_only: bool = False
) -> tuple[list[str], Manifest]:
    """Compare the files of a tree with the digests in its own manifest.

    Args:
        fs: the file system of the operation.
        root: the absolute path of the tree.
        manifest: the files of the tree.
        trusted: whether only the files without the recorded fingerprint are hashed.
        writable: whether lost permissions may be restored.
        bytes_only: whether lost permissions do not count as damage.

    Returns:
        The absolute paths of missing and damaged files, and the manifest with the new fingerprints of hashed files.

    Raises:
        CommitError: if a file cannot be read, or is held for too long.
    """
    damaged: list[str] = []
    renewed = []
    for folder in manifest.folders:

        def expected(number: int, folder: ManifestDir = folder) -> Expected:
            executable = is_executable(folder.kinds[number])
            return Expected(folder.sizes[number], "sha256", bytes.fromhex(folder.digest(number)), executable)

        check = FolderCheck(fs, root, folder, expected, writable=writable, bytes_only=bytes_only)
        check.run(trusted=trusted)
        damaged += check.damaged
        renewed.append(check.renewed)
    return damaged, manifest._replace(folders=renewed)
