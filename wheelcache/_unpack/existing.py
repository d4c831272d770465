"""Find the files of a tree that already exist in the caller's folder, before anything is written."""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Collection, Iterator

from .._fs.hashing import hash_file
from .._fs.robustio import RobustIO, is_missing
from .._fs.tempnames import owner_of_spare
from .._models import LinkMode
from .manifest import Manifest, ManifestDir
from .trees import remove_recursively

# No process copies one file for this many seconds, so a temporary file of this age was left by a killed process.
_LEFTOVER_AGE = 3600


class ExistingFiles:
    """The files that already exist in the destination. They are found before anything is written.

    Attributes:
        modes_used: the modes by which these files share their bytes with the tree.
    """

    def __init__(self, fs: RobustIO, root: str, manifest: Manifest, dest: str) -> None:
        self.modes_used: set[LinkMode] = set()
        self._fs = fs
        self._root = root
        self._manifest = manifest
        self._dest = dest

    def find(self) -> tuple[set[str], dict[str, frozenset[str]]]:
        """Return the folders that do not exist, and the existing files with the same bytes, by folder."""
        absent: set[str] = set()
        existing: dict[str, frozenset[str]] = {}
        for folder in self._manifest.folders:
            if folder.path and folder.path.rpartition("/")[0] in absent:
                absent.add(folder.path)
                continue
            names = self._names(join(self._dest, folder.path))
            if names is None:
                absent.add(folder.path)
            elif names:
                existing[folder.path] = frozenset(self._same(folder, names))
        return absent, existing

    def _names(self, path: str) -> set[str] | None:
        """Return the names in a folder, or ``None`` if it does not exist."""
        fs = self._fs
        try:
            names = {entry.name for entry in fs.perform("scan", path, lambda: fs.files.scan(path))}
        except OSError as error:
            # The error code is not sufficient, because Windows has several and a dangling link reports "missing".
            exists = fs.stat(path) is not None
            if is_missing(error, path) and not exists:
                return None
            if exists and not fs.files.is_dir(path):
                raise FileExistsError(errno.EEXIST, "a file has the name of a folder", path) from error
            raise
        for name in names:
            if _is_leftover(fs, name):
                remove_recursively(fs, os.path.join(path, name))
        return names

    def _same(self, folder: ManifestDir, names: Collection[str]) -> Iterator[str]:
        """Yield the files of a folder that exist with the same bytes."""
        # On a case-insensitive file system, a file may exist under another spelling. Only stat finds it.
        folded = {name.lower() for name in names}
        for number, name in enumerate(folder.names):
            if name in names or name.lower() in folded:
                relative = folder.relative(name)
                source, target = join(self._root, relative), join(self._dest, relative)
                mode = check_same(self._fs, source, folder, number, target)
                if mode is not None:
                    self.modes_used.add(mode)
                    yield name


def check_same(fs: RobustIO, source: str, folder: ManifestDir, number: int, target: str) -> LinkMode | None:
    """Check whether the file at the target has the right bytes.

    Returns:
        ``None`` if there is no file, ``HARDLINK`` if the file is a hard link to the tree, otherwise ``COPY``, since a
        clone cannot be distinguished from a copy.

    Raises:
        FileExistsError: if the file has other bytes, or is not a regular file.
    """
    existing = fs.stat(target)
    if existing is None:
        return None
    if modes.S_ISREG(existing.st_mode) and existing.st_size == folder.sizes[number]:
        ours = fs.stat(source)
        if ours is not None and (existing.st_dev, existing.st_ino) == (ours.st_dev, ours.st_ino):
            return LinkMode.HARDLINK
        hashes = hash_file(fs, target, (), existing.st_size)
        if hashes is not None and hashes["sha256"] == folder.digest(number):
            return LinkMode.COPY
    raise FileExistsError(errno.EEXIST, "a file with other bytes exists", target)


def _is_leftover(fs: RobustIO, name: str) -> bool:
    tag = owner_of_spare(name)
    return tag is not None and fs.system.now() - tag.time > _LEFTOVER_AGE


def join(root: str, relative: str) -> str:
    """Return the absolute path of a file of a tree. ``relative`` is its path below the root, with slashes."""
    if not relative:
        return root
    # os.path.join is slower. A warm install calls this function for a thousand folders. Its checks are not needed,
    # because the parts are known to be plain.
    return root + os.sep + (relative if os.sep == "/" else relative.replace("/", os.sep))
