"""The file layer on Windows. In a cache folder, it follows no link.

Another user of a shared cache may replace a folder by a junction, at any time and without a privilege. An operation in
the cache is therefore made by a name in an open folder, whose place was verified after it was opened. The path of the
cache folder itself may contain links.

The final path of the open folder must be that of the cache folder, followed by the expected names, and the folder must
not be a link itself. This takes two queries. Some volumes do not report final paths, among them folders that are mapped
into a container. A server follows its own junctions, which the final path of a network drive does not show. On such
volumes, each folder is opened by its name in the one above, and none may be a link. This takes one more call for each
folder of the path.

The handles are closed at the end of the operation. They only read attributes, so that they neither conflict with the
handles of others nor keep anybody from deleting the folder. They need not protect the folder against renaming, since a
handle leads to the same folder whatever its name is.

A reparse point that is not a link is an ordinary file or folder. Examples are deduplicated and compressed files, and
files of cloud services.

``read_small``, ``read_small_with_mtime`` and ``stat`` take a path, because a hit must be fast. Their callers check the
result.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Self

if sys.platform != "win32":  # pragma: no cover - mypy checks this module for Linux too
    raise ImportError("this module is for Windows")

from .. import win32
from ..win32 import ACCESS_DENIED, Handle, extended
from ..windows import (
    BASIC,
    CREATE,
    EPOCH,
    READ,
    READ_ONLY,
    REPARSE_POINT,
    REPLACE_POSIX_READ_ONLY_TOO,
    NativeFile,
    OpenMode,
    WindowsFiles,
    WindowsFolder,
    basic_information,
    is_link,
)
from . import handles_windows as handles
from .area_windows import Area, Queries, open_below
from .handles_windows import NO_RELATIVE_NAMES, OF_FILE, OF_FOLDER, RelativeHandle, unsafe_path

if TYPE_CHECKING:
    from .entries import FolderEntry

_LIST_FOLDER = 0x1  # FILE_LIST_DIRECTORY
_REPLACE = 0x1
_NOT_A_FOLDER = 267
_NAMED_FIELDS = "st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_file_attributes", "st_reparse_tag"
_TICKS_PER_SECOND = 10_000_000


class NativeFiles(WindowsFiles):
    """The file layer of this machine.

    Args:
        set_information: as for :class:`WindowsFiles`.
        control: as for :class:`WindowsFiles`.
        queries: replaces the functions that examine an open file or folder.
    """

    def __init__(
        self,
        set_information: Callable[[Handle, int, bytes, str | None], None] = Handle.set,
        control: Callable[..., bytes] = win32.control,
        queries: Queries | None = None,
    ) -> None:
        super().__init__(set_information, control)
        self._queries = queries or Queries()

    def confined_to(self, folder: str, layers: Sequence[str] = ()) -> ConfinedFiles:
        os.stat(extended(os.path.dirname(folder)))  # only raises if the folder is missing
        files = ConfinedFiles(self._set_information, self._control, self._queries)
        files.add_areas(Area(path, self._queries) for path in (folder, *layers))
        return files

    def close_folders(self) -> None:
        pass  # no folder is kept open


class ConfinedFiles(NativeFiles):
    """The file layer of one cache and its layers.

    Operations on other paths are those of :class:`WindowsFiles`.
    """

    _areas: tuple[Area, ...] = ()

    def add_areas(self, areas: Iterable[Area]) -> None:
        """Confine the operations in these folders."""
        self._areas = (*self._areas, *areas)

    # The area of a path

    def _area(self, path: str) -> Area | None:
        """Return the area that the parent folder of a path belongs to, or ``None`` for any other path."""
        for area in self._areas:
            if area.has_parent_of(path):
                return area
        return None

    def _area_of_folder(self, path: str) -> Area | None:
        for area in self._areas:
            if area.has_folder(path):
                return area
        return None

    def _open_parent(self, path: str) -> Handle:
        """Open the parent folder of a path, which may also be outside of the cache."""
        area, parent = self._area(path), os.path.dirname(path)
        return Handle(parent, win32.READ_ATTRIBUTES, flags=win32.FOLDERS_TOO) if area is None else area.open(parent)

    def _open_handle(self, path: str, access: int, flags: int) -> Handle:
        area = self._area(path)
        if area is None:
            return super()._open_handle(path, access, flags)
        with area.open(os.path.dirname(path)) as parent:
            return open_below(parent, path, access, options=OF_FOLDER if flags & win32.FOLDERS_TOO else OF_FILE)

    def _open_file(self, path: str, mode: OpenMode) -> BinaryIO:
        area = self._area(path)
        if area is None:
            return super()._open_file(path, mode)
        with area.open(os.path.dirname(path)) as parent:
            return self.open_file_below(parent, path, mode)

    def open_file_below(self, folder: Handle, path: str, mode: OpenMode) -> NativeFile:
        """Open a file in an open folder.

        Raises:
            UnsafePathError: if the file is a link.
        """
        handle = open_below(folder, path, mode.access, disposition=mode.disposition)
        try:
            if mode.disposition != win32.CREATE_NEW:
                handle = self._open_content(folder, handle, path, mode)
            return NativeFile(handle, mode)
        except BaseException:
            handle.close()
            raise

    def _open_content(self, folder: Handle, handle: Handle, path: str, mode: OpenMode) -> Handle:
        """Return a handle of the content of a file whose reparse point is not a link."""
        attributes = self._queries.attributes(handle)
        if attributes.is_link:
            raise unsafe_path(path)
        if not attributes.attributes & REPARSE_POINT:
            return handle
        content = RelativeHandle(folder, path, mode.access, follow=True)
        try:
            is_same = self._queries.final_path(content) == self._queries.final_path(handle)
        except OSError:
            is_same = True  # the volume does not report final paths
        if not is_same:
            content.close()
            raise unsafe_path(path)  # a link has replaced the file meanwhile
        handle.close()
        return content

    # The operations of the file layer

    def touch(self, path: str, seconds: float) -> None:
        if self._area(path) is None:
            super().touch(path, seconds)
            return
        whole, fraction = divmod(seconds, 1)
        ticks = int(whole) * _TICKS_PER_SECOND + round(fraction * _TICKS_PER_SECOND) + EPOCH
        with self._open_handle(path, win32.WRITE_ATTRIBUTES, win32.NO_FOLLOW) as handle:
            self._set_information(handle, BASIC, basic_information(0, ticks), None)

    def stat(self, path: str) -> os.stat_result:
        status = super().stat(path)
        tag = status.st_reparse_tag
        # Windows reports a junction as a folder.
        if tag and is_link(status.st_file_attributes, tag) and self._area(path) is not None:
            named = {name: getattr(status, name) for name in _NAMED_FIELDS}
            return os.stat_result((stat.S_IFLNK | 0o777, *tuple(status)[1:]), named)
        return status

    def is_dir(self, path: str) -> bool:
        if self._area_of_folder(path) is None:
            return super().is_dir(path)
        try:
            return stat.S_ISDIR(self.stat(path).st_mode)
        except OSError:
            return False

    def scan(self, path: str) -> list[FolderEntry]:
        area = self._area_of_folder(path)
        if area is None:
            return super().scan(path)
        with area.open(path, _LIST_FOLDER | win32.READ_ATTRIBUTES, missing=_NOT_A_FOLDER) as folder:
            try:
                return list(handles.list_entries(folder))
            except OSError as error:
                if error.winerror not in NO_RELATIVE_NAMES:
                    raise
            return super().scan(path)

    def open_folder(self, path: str) -> ConfinedFolder:
        area = self._area_of_folder(path)
        if area is None:
            return ConfinedFolder(self, path, Handle(path, win32.READ_ATTRIBUTES, flags=win32.FOLDERS_TOO))
        return ConfinedFolder(self, path, area.open(path, missing=_NOT_A_FOLDER))

    def rename(self, source: str, target: str) -> None:
        if self._area(source) is None and self._area(target) is None:
            super().rename(source, target)
            return
        with self._open_handle(source, win32.DELETE, win32.NO_FOLLOW) as file, self._open_parent(target) as folder:
            try:
                handles.set_name(file, handles.RENAME, 0, folder, target)
            except OSError as error:
                if error.winerror not in NO_RELATIVE_NAMES:
                    raise
            else:
                return
        super().rename(source, target)

    def replace(self, source: str, target: str) -> None:
        if self._area(source) is None and self._area(target) is None:
            super().replace(source, target)
            return
        with self._open_handle(source, win32.DELETE, win32.NO_FOLLOW) as file, self._open_parent(target) as folder:
            if self._replaced(file, folder, target):
                return
        super().replace(source, target)

    def _replaced(self, file: Handle, folder: Handle, target: str) -> bool:
        """Rename an open file, replacing another one. Return whether this volume supports one of the methods."""
        drive = os.path.splitdrive(file.path)[0].lower()
        for kind, flags in ((handles.RENAME_EX, REPLACE_POSIX_READ_ONLY_TOO), (handles.RENAME, _REPLACE)):
            if (kind, drive) in self._drives_without_posix:
                continue
            try:
                handles.set_name(file, kind, flags, folder, target)
            except OSError as error:
                if error.winerror not in NO_RELATIVE_NAMES:
                    if kind == handles.RENAME and error.winerror == ACCESS_DENIED:
                        return self._replaced_read_only(error, file, folder, target)
                    raise
                if kind == handles.RENAME_EX:
                    self._drives_without_posix.add((kind, drive))
            else:
                return True
        return False

    def _replaced_read_only(self, refusal: OSError, file: Handle, folder: Handle, target: str) -> bool:
        """Replace a read-only file, which the older calls refuse."""
        try:
            held = open_below(folder, target, win32.WRITE_ATTRIBUTES)
        except OSError:
            raise refusal from None
        with held:
            attributes = self._queries.attributes(held).attributes
            if not attributes & READ_ONLY:
                raise refusal
            self._set_information(held, BASIC, basic_information(attributes & ~READ_ONLY), None)
            try:
                handles.set_name(file, handles.RENAME, _REPLACE, folder, target)
            except OSError:
                self._set_information(held, BASIC, basic_information(attributes), None)
                raise
        return True

    def link(self, source: str, target: str) -> None:
        area = self._area(source)
        if area is None and self._area(target) is None:
            super().link(source, target)
            return
        with self._open_handle(source, win32.WRITE_ATTRIBUTES, win32.NO_FOLLOW) as file:
            if area is not None:
                self.require_content(file)
            with self._open_parent(target) as folder:
                if linked(file, folder, target):
                    return
        super().link(source, target)

    def require_content(self, file: Handle) -> None:
        """Raise an error if an open file is a link. A hard link to it would lead out of the cache from elsewhere.

        Raises:
            UnsafePathError: if the file is a link.
        """
        if self._queries.attributes(file).is_link:
            raise unsafe_path(file.path)

    def mkdir(self, path: str) -> None:
        area = self._area(path)
        if area is None:
            super().mkdir(path)
            return
        with area.open(os.path.dirname(path)) as parent:
            open_below(parent, path, 0, disposition=win32.CREATE_NEW, options=OF_FOLDER).close()

    def unlink(self, path: str) -> None:
        try:
            super().unlink(path)
        except OSError as error:
            # A junction is deleted like a folder. Its target is not touched.
            if error.winerror != ACCESS_DENIED or self._area(path) is None or not self._is_link(path):
                raise
            self._delete(path, win32.NO_FOLLOW | win32.FOLDERS_TOO)

    def rmdir(self, path: str) -> None:
        if self._area(path) is None:
            super().rmdir(path)
        else:
            self._delete(path, win32.NO_FOLLOW | win32.FOLDERS_TOO)

    def _is_link(self, path: str) -> bool:
        with self._open_handle(path, win32.READ_ATTRIBUTES, win32.NO_FOLLOW | win32.FOLDERS_TOO) as handle:
            return self._queries.attributes(handle).is_link


class ConfinedFolder(WindowsFolder):
    """An open folder, by its handle."""

    def __init__(self, files: ConfinedFiles, path: str, handle: Handle) -> None:
        super().__init__(files, path)
        self._confined = files
        self._handle = handle

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def create(self, name: str, permissions: int) -> BinaryIO:  # noqa: ARG002 - Windows has no POSIX permissions
        return self._confined.open_file_below(self._handle, self._path_of(name), CREATE)

    def link(self, name: str, target: Self) -> None:
        source, created = self._path_of(name), target._path_of(name)
        with open_below(self._handle, source, win32.WRITE_ATTRIBUTES) as file:
            self._confined.require_content(file)
            if linked(file, target._handle, created):
                return
        super().link(name, target)

    def clone(self, name: str, target: Self, new: str, permissions: int) -> None:
        source, created = self._path_of(name), target._path_of(new)
        with self._confined.open_file_below(self._handle, source, READ) as reader:
            self._confined.clone_open(reader, source, created, lambda: target.create(new, permissions))


def linked(file: Handle, folder: Handle, target: str) -> bool:
    """Create a hard link in an open folder, and return whether this volume supports the method."""
    try:
        handles.set_name(file, handles.LINK, 0, folder, target)
    except OSError as error:
        if error.winerror not in NO_RELATIVE_NAMES:
            raise
        return False
    return True
