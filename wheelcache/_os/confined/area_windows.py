"""The confined folder of one cache or layer on Windows, and how the place of a folder in it is verified."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

if sys.platform != "win32":  # pragma: no cover - mypy checks this module for Linux too
    raise ImportError("this module is for Windows")

from .. import win32
from ..win32 import Handle, error_of
from ..windows import FOLDER, create_folder
from . import handles_windows as handles
from .handles_windows import NO_RELATIVE_NAMES, OF_FILE, OF_FOLDER, Attributes, RelativeHandle, unsafe_path

_PATH_NOT_FOUND = 3
# The network drives of every protocol begin with this device.
_NETWORK = "\\device\\mup\\"
# A name that contains one of these is another path or another stream of a file.
_NOT_IN_NAMES = frozenset('/\\:*?"<>|\0')


class Queries(NamedTuple):
    """The functions that examine an open file or folder. Tests replace them to imitate junctions and other volumes.

    Attributes:
        attributes: returns the attributes and the reparse tag.
        final_path: returns the path with every link followed.
    """

    attributes: Callable[[Handle], Attributes] = handles.attributes_of
    final_path: Callable[[Handle], str] = handles.final_path


class Area:
    """A confined folder: that of a cache or of a layer.

    Args:
        folder: the absolute path of the confined folder. Its parent is the cache folder.
        queries: examine open files and folders.
    """

    def __init__(self, folder: str, queries: Queries) -> None:
        self._root = os.path.dirname(folder)
        self._folder = folder
        self._top = os.path.join(self._root, "")
        self._prefix = os.path.join(folder, "")
        self._queries = queries
        # The final path of the cache folder. An empty string if final paths prove nothing on this volume. It is looked
        # up on first use, because opening a cache and reading a trusted wheel do not need it.
        self._final: str | None = None

    def has_parent_of(self, path: str) -> bool:
        """Return whether the path is that of the confined folder, of a file beside it, or below it."""
        top = self._top
        return path.startswith(top) and (path.startswith(self._prefix) or "\\" not in path[len(top) :])

    def has_folder(self, path: str) -> bool:
        """Return whether the path is that of the confined folder or below it."""
        return path.startswith(self._prefix) or path == self._folder

    def open(self, path: str, access: int = win32.READ_ATTRIBUTES, *, missing: int = _PATH_NOT_FOUND) -> Handle:
        """Open a folder of the area, or the cache folder itself, and verify its place.

        Args:
            path: the absolute path.
            access: the access rights.
            missing: the code of the error if the path is not that of a folder.

        Raises:
            UnsafePathError: if the path leads through a link, or is one.
        """
        if path + "\\" == self._top or path == self._root:
            return Handle(self._root, access, flags=win32.FOLDERS_TOO)
        path = path.removesuffix("\\")
        names = path[len(self._top) :].split("\\")
        if any(not name or name in {".", ".."} or not _NOT_IN_NAMES.isdisjoint(name) for name in names):
            raise unsafe_path(path)
        if self._final is None:
            self._final = self._find_final_path()
        if not self._final:
            return self._walk(names, access, missing)
        handle = Handle(path, access, flags=win32.FOLDERS_TOO | win32.NO_FOLLOW)
        try:
            is_in_place = self._is_in_place(handle, path, missing)
            if is_in_place is False:
                # The volume may have been mounted again, as another device.
                self._final = self._find_final_path()
                is_in_place = self._is_in_place(handle, path, missing) if self._final else None
        except BaseException:
            handle.close()
            raise
        if is_in_place:
            return handle
        handle.close()
        if is_in_place is None:
            return self._walk(names, access, missing)
        raise self._error(names)

    def _is_in_place(self, handle: Handle, path: str, missing: int = _PATH_NOT_FOUND) -> bool | None:
        """Return whether an open folder is no link, and its final path is the expected one.

        The result is ``None`` if the final path is unknown.

        Raises:
            OSError: if this is not a folder.
        """
        attributes = self._queries.attributes(handle)
        if attributes.is_link:
            return False
        if not attributes.attributes & FOLDER:
            raise error_of(missing, path)
        try:
            final = self._queries.final_path(handle)
        except OSError:
            return None
        # Names that differ in case are the same folder, or two folders of the cache.
        return final.casefold() == f"{self._final}\\{path[len(self._top) :]}".casefold()

    def _find_final_path(self) -> str:
        """Return the final path of the cache folder, or an empty string if final paths prove nothing on this volume."""
        try:
            with Handle(self._root, win32.READ_ATTRIBUTES, flags=win32.FOLDERS_TOO) as handle:
                root = self._queries.final_path(handle).rstrip("\\")
        except OSError:
            return ""
        if (root + "\\").casefold().startswith(_NETWORK):
            return ""
        with Handle(self._folder, win32.READ_ATTRIBUTES, flags=win32.FOLDERS_TOO | win32.NO_FOLLOW) as handle:
            if self._queries.attributes(handle).is_link:
                raise unsafe_path(self._folder)
            try:
                final = self._queries.final_path(handle)
            except OSError:
                return ""
        # A driver that maps folders may report final paths that have nothing to do with each other.
        return root if final.casefold() == f"{root}\\{os.path.basename(self._folder)}".casefold() else ""

    def _walk(self, names: Iterable[str], access: int, missing: int) -> Handle:
        """Open a folder by opening each folder of its path from the one above, without following links."""
        current = Handle(self._root, win32.READ_ATTRIBUTES, flags=win32.FOLDERS_TOO)
        path = self._top
        names = list(names)
        for position, name in enumerate(names):
            path = os.path.join(path, name)
            rights = access if position + 1 == len(names) else win32.READ_ATTRIBUTES
            with current:
                current = open_below(current, path, rights, options=0)
            attributes = self._queries.attributes(current)
            if attributes.is_link or not attributes.attributes & FOLDER:
                current.close()
                raise unsafe_path(path) if attributes.is_link else error_of(missing, path)
        return current

    def _error(self, names: Iterable[str]) -> OSError:
        """Return the error for a path that leads through a link. It has the path of the first link."""
        path = self._root
        for name in names:
            path = os.path.join(path, name)
            try:
                with Handle(path, win32.READ_ATTRIBUTES, flags=win32.FOLDERS_TOO | win32.NO_FOLLOW) as handle:
                    if self._is_in_place(handle, path) is False:
                        break
            except OSError:
                break
        return unsafe_path(path)


def open_below(
    folder: Handle, path: str, access: int, *, disposition: int = win32.OPEN_EXISTING, options: int = OF_FILE
) -> Handle:
    """Open or create a file or folder in an open folder. The arguments are those of :class:`RelativeHandle`."""
    try:
        return RelativeHandle(folder, path, access, disposition=disposition, options=options)
    except OSError as error:
        if error.winerror not in NO_RELATIVE_NAMES:
            raise
    # The driver of this volume only knows full paths. The folder has just been verified.
    if disposition == win32.CREATE_NEW and options == OF_FOLDER:
        create_folder(path)
        disposition = win32.OPEN_EXISTING
    flags = win32.NO_FOLLOW | (0 if options == OF_FILE else win32.FOLDERS_TOO)
    return Handle(path, access, disposition=disposition, flags=flags)
