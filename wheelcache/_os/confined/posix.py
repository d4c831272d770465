"""The file layer on POSIX systems. In a cache folder, it follows no link.

Another user of a shared cache may replace a folder by a link, at any time. An operation in the cache is therefore made
by a name in an open folder, and that folder was opened from the one above it without following a link, and so on up to
the cache folder. The path of the cache folder itself may contain links.

Opening each folder of a path would double the time of a walk or of unpacking. So each thread keeps the folders of its
last path open until the end of the public call: see :class:`OpenFolders`. Another process may prune and create a
folder again meanwhile. If an operation in a kept folder reports that a file is missing, the folders are opened again
and the operation is repeated once.

``read_small_with_mtime`` and ``stat`` take one call by path, because a hit must be fast. Their callers check the
result. They never write.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO, TypeVar

if sys.platform == "win32":  # pragma: no cover - mypy checks this module for Windows too
    raise ImportError("this module is for POSIX systems")

from ..posix import (
    NEW,
    READ,
    WRITE,
    PosixFiles,
    PosixFolder,
    clone_file,
    name_paths,
    protect_and_close,
    read_regular,
    rename_exclusively,
    scan_folder,
    set_time,
)
from .entries import FolderEntry, UnsafePathError
from .folders import SCAN, Area, Descriptor, OpenFolders, mode_of
from .modes import Modes
from .small import not_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_T = TypeVar("_T")

# The codes for a link or a special file in place of a file. A socket, and a pipe without a reader, report ENXIO.
_UNSAFE_FILE = {errno.ELOOP, errno.ENXIO, errno.ENODEV}
# The codes for a folder that was deleted after it was opened. ESTALE is that of network drives.
_STALE = {errno.ENOENT, errno.ESTALE}


class NativeFiles(PosixFiles):
    """The file layer of this machine."""

    def confined_to(self, folder: str, layers: Sequence[str] = ()) -> ConfinedFiles:
        modes = Modes.for_root(os.stat(os.path.dirname(folder)))
        return ConfinedFiles([Area.of(folder, modes), *(Area.of(layer) for layer in layers)])

    def close_folders(self) -> None:
        pass  # no folder is kept open


class ConfinedFiles(NativeFiles):
    """The file layer of one cache and its layers.

    Operations on other paths are those of :class:`PosixFiles`.
    """

    def __init__(self, areas: Iterable[Area]) -> None:
        self._areas = tuple(areas)
        self._threads = threading.local()

    def close_folders(self) -> None:
        folders = self._threads.__dict__.pop("folders", None)
        if folders is not None:
            folders.close()

    # The area of a path

    def _area(self, path: str) -> Area | None:
        """Return the area whose open folders lead to the parent folder of a path, or ``None`` for any other path."""
        for area in self._areas:
            # The path may also be that of the confined folder itself, or of a file beside it.
            if path.startswith(area.prefix) or (path.startswith(area.top) and "/" not in path[len(area.top) :]):
                return area
        return None

    def _area_of_folder(self, path: str) -> Area | None:
        """Return the area whose open folders lead to a folder, or ``None`` for any other folder."""
        for area in self._areas:
            if path.startswith(area.prefix) or path == area.folder:
                return area
        return None

    # Operations in open folders

    def _in_folder(self, path: str, action: Callable[[OpenFolders], _T], target: str | None = None) -> _T:
        """Perform an action in open folders, and repeat it once if a folder that was kept open is out of date.

        Args:
            path: the path of the operation.
            action: enters its folders first.
            target: the second path of the operation, if any.
        """
        # The folders are taken away from the thread meanwhile. If a signal handler uses the cache, it does not close
        # these folders and receives others.
        kept = self._threads.__dict__
        folders = kept.pop("folders", None) or OpenFolders()
        try:
            folders.has_reused = None
            try:
                return action(folders)
            except OSError as error:
                if error.errno not in _STALE or not folders.has_reused:
                    raise
            folders.close()
            return action(folders)
        except OSError as error:
            if error.errno in _UNSAFE_FILE and not isinstance(error, UnsafePathError):
                raise not_regular(path) from None
            name_paths(error, path, target)
            raise
        finally:
            kept["folders"] = folders

    def _by_name(self, area: Area, path: str, action: Callable[[int, str], _T]) -> _T:
        """Perform an action with the descriptor of the parent folder and the last name of a path."""
        folder, _, name = path.rpartition("/")
        return self._in_folder(path, lambda folders: action(folders.enter(area, folder), name))

    def _between(self, source: str, target: str, action: Callable[[int | None, str, int | None, str], object]) -> bool:
        """Perform an action with two paths, each given as a name in an open folder if it is in an area.

        Returns ``False``, without an action, if neither path is in an area.
        """
        first, second = self._area(source), self._area(target)
        if first is None and second is None:
            return False
        source_folder, _, source_name = ("", "", source) if first is None else source.rpartition("/")
        target_folder, _, target_name = ("", "", target) if second is None else target.rpartition("/")

        def act(folders: OpenFolders) -> None:
            one = None if first is None else folders.enter(first, source_folder)
            with nullcontext() if one is None else folders.hold():
                two = None if second is None else folders.enter(second, target_folder)
                action(one, source_name, two, target_name)

        self._in_folder(source, act, target)
        return True

    # The operations of the file layer

    def create(self, path: str) -> BinaryIO:
        area = self._area(path)
        if area is None:
            return super().create(path)
        return self._by_name(area, path, lambda folder, name: _create(folder, name, 0o666, area.modes))

    def open_read(self, path: str) -> BinaryIO:
        area = self._area(path)
        if area is None:
            return super().open_read(path)
        handle = self._by_name(area, path, lambda folder, name: os.open(name, READ, dir_fd=folder))
        return io.FileIO(_require_regular(handle, path), "r")

    def read_small(self, path: str, limit: int) -> bytes:
        area = self._area(path)
        if area is None:
            return super().read_small(path, limit)
        return self._by_name(area, path, lambda folder, _: read_regular(path, limit, folder)[0])

    def _open_or_create(self, path: str, flags: int) -> int:
        area = self._area(path)
        if area is None:
            return super()._open_or_create(path, flags)
        flags |= os.O_NONBLOCK  # opening a pipe would wait for its reader

        def open_it(folder: int, name: str) -> int:
            handle = _open_or_create(folder, name, flags, area.modes)
            return _require_only_name(_require_regular(handle, path), folder, name, path)

        return self._by_name(area, path, open_it)

    def touch(self, path: str, seconds: float) -> None:
        area = self._area(path)
        if area is None:
            super().touch(path, seconds)
        else:
            self._by_name(area, path, lambda folder, name: _touch(folder, name, seconds, path))

    def is_dir(self, path: str) -> bool:
        area = self._area_of_folder(path)
        if area is None:
            return super().is_dir(path)
        try:
            return stat.S_ISDIR(self._by_name(area, path.rstrip("/"), mode_of))
        except OSError:
            return False

    def scan(self, path: str) -> list[FolderEntry]:
        area = self._area_of_folder(path)
        if area is None:
            return super().scan(path)
        return self._in_folder(path, lambda folders: scan_folder(folders.enter(area, path, scan=True)))

    def open_folder(self, path: str) -> PosixFolder:
        area = self._area_of_folder(path)
        if area is None:
            return super().open_folder(path)

        def open_it(folders: OpenFolders) -> _ConfinedFolder:
            folders.enter(area, path)
            return _ConfinedFolder(path, folders.hold().__enter__(), area.modes)

        return self._in_folder(path, open_it)

    def rename(self, source: str, target: str) -> None:
        if not self._between(source, target, rename_exclusively):
            super().rename(source, target)

    def replace(self, source: str, target: str) -> None:
        if not self._between(source, target, _replace):
            super().replace(source, target)

    def link(self, source: str, target: str) -> None:
        if not self._between(source, target, _link):
            super().link(source, target)

    def clone(self, source: str, target: str) -> None:
        # On Linux, the method of the base class uses open_read and create.
        if sys.platform == "linux" or not self._between(source, target, clone_file):
            super().clone(source, target)

    def make_read_only(self, path: str, *, executable: bool) -> None:
        area = self._area(path)
        if area is None:
            super().make_read_only(path, executable=executable)
            return
        handle = self._by_name(area, path, lambda folder, name: _open_only_name(folder, name, path))
        protect_and_close(handle, executable=executable)

    def unlink(self, path: str) -> None:
        area = self._area(path)
        if area is None:
            super().unlink(path)
        else:
            self._by_name(area, path, lambda folder, name: os.unlink(name, dir_fd=folder))

    def mkdir(self, path: str) -> None:
        area = self._area(path)
        if area is None:
            super().mkdir(path)
        else:
            self._by_name(area, path, lambda folder, name: _mkdir(folder, name, area.modes))

    def rmdir(self, path: str) -> None:
        area = self._area(path)
        if area is None:
            super().rmdir(path)
        else:
            self._by_name(area, path, lambda folder, name: os.rmdir(name, dir_fd=folder))


class _ConfinedFolder(PosixFolder):
    """An open folder of a cache. Its new files get the modes of that cache."""

    def __init__(self, path: str, descriptor: Descriptor, modes: Modes | None) -> None:
        super().__init__(path, descriptor.number)
        self._descriptor = descriptor
        self._modes = modes

    def __exit__(self, *_: object) -> None:
        self._descriptor.release()

    def create(self, name: str, permissions: int) -> BinaryIO:
        return _create(self._handle, name, permissions, self._modes)


def _require_regular(handle: int, path: str) -> int:
    """Return the descriptor of a regular file. Close any other one, and raise an error."""
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise not_regular(path)


def _require_only_name(handle: int, folder: int, name: str, path: str) -> int:
    """Return the descriptor of a file that has no other name. Close any other one, and raise an error.

    Another user may have renamed a file of the cache that was hard-linked into an environment, or linked a private file
    of this user. A change of its content, time or mode would change that file.
    """
    try:
        # The number of links alone could be that of the name outside, if the name in the cache was deleted meanwhile.
        named, opened = os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(handle)
    except FileNotFoundError:
        # The file was deleted or renamed after it was opened, as lock files are. A lock on it excludes nobody.
        named, opened = None, os.fstat(handle)
    if opened.st_nlink == 0 or (named is not None and named.st_nlink == 1 and os.path.samestat(named, opened)):
        return handle
    os.close(handle)
    if named is None or named.st_nlink == 1:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    raise UnsafePathError(errno.EMLINK, "the file has another name", path)


def _open_only_name(folder: int, name: str, path: str) -> int:
    handle = _require_regular(os.open(name, READ, dir_fd=folder), path)
    return _require_only_name(handle, folder, name, path)


def _touch(folder: int, name: str, seconds: float, path: str) -> None:
    handle = _open_only_name(folder, name, path)
    try:
        set_time(handle, seconds)
    finally:
        os.close(handle)


# The operations on a name in an open folder. New files get the modes of the cache folder. The modes are set after the
# creation, since the umask clears bits of the modes that ``open`` and ``mkdir`` receive. Existing files keep their
# modes, since another user may have created them. Root must not make the owner of the cache the owner of such a file.


def _create(folder: int, name: str, permissions: int, modes: Modes | None) -> BinaryIO:
    if modes is not None and modes.only_limits:
        permissions &= modes.folder
    file = io.FileIO(os.open(name, WRITE | NEW, permissions, dir_fd=folder), "r+")
    if modes is not None:
        modes.apply(file.fileno(), permissions & (modes.file | modes.folder & 0o111), folder)
    return file


def _open_or_create(folder: int, name: str, flags: int, modes: Modes | None) -> int:
    if modes is None or modes.only_limits:
        return os.open(name, flags | os.O_CREAT, 0o666 if modes is None else modes.file, dir_fd=folder)
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        pass
    try:
        handle = os.open(name, flags | NEW, 0o666, dir_fd=folder)
    except FileExistsError:
        # Another process has created the file and sets its mode. A lock file may be deleted before we open it.
        return os.open(name, flags | os.O_CREAT, 0o666, dir_fd=folder)
    modes.apply(handle, modes.file, folder)
    return handle


def _mkdir(folder: int, name: str, modes: Modes | None) -> None:
    if modes is None or modes.only_limits:
        os.mkdir(name, 0o777 if modes is None else modes.folder, dir_fd=folder)
        return
    os.mkdir(name, dir_fd=folder)
    try:
        handle = os.open(name, SCAN | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        return  # another process pruned the folder, or the folder keeps the modes of the umask
    try:
        modes.apply(handle, modes.folder, folder)
    finally:
        os.close(handle)


def _replace(source_folder: int | None, source: str, target_folder: int | None, target: str) -> None:
    os.replace(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder)


def _link(source_folder: int | None, source: str, target_folder: int | None, target: str) -> None:
    os.link(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder, follow_symlinks=False)
