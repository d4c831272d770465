"""The folders of a cache that a thread keeps open, each opened from the one above it without following a link."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple, Self

if sys.platform == "win32":  # pragma: no cover - mypy checks this module for Windows too
    raise ImportError("this module is for POSIX systems")

from ..posix import LOOKUP
from .entries import UnsafePathError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .modes import Modes

# A scan needs a descriptor that can be read. The other operations need only one that resolves names.
SCAN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Descriptors that a thread keeps open for one cache. An archive may have deeper folders.
_MAX_OPEN = 24
_RELATIVE = {os.curdir, os.pardir}
# The most names that lead to a folder. An archive has at most 100 nested folders. Another user may have created
# thousands, and opening them all, at each level, would take a time that grows with the square of their number.
_MAX_LEVELS = 128


class Area(NamedTuple):
    """A confined folder: that of a cache or of a layer.

    Attributes:
        root: the absolute path of the cache folder.
        folder: the absolute path of the confined folder in it.
        top: the cache folder with a slash, as the prefix of paths.
        prefix: the confined folder with a slash, as the prefix of paths.
        modes: the permissions and the owner of new files, or ``None`` for the defaults.
    """

    root: str
    folder: str
    top: str
    prefix: str
    modes: Modes | None

    @classmethod
    def of(cls, folder: str, modes: Modes | None = None) -> Area:
        root = os.path.dirname(folder)
        return cls(root, folder, os.path.join(root, ""), f"{folder}/", modes)


class Descriptor:
    """The descriptor of an open folder. The last user closes it.

    Attributes:
        number: the number of the descriptor.
    """

    __slots__ = ("_users", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._users = 1

    def __enter__(self) -> Self:
        self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Close the descriptor, unless another user needs it."""
        self._users -= 1
        if self._users == 0:
            os.close(self.number)


class OpenFolders:
    """The folders of one path that a thread keeps open, from the cache folder down.

    Attributes:
        has_reused: whether the operation uses a folder that an earlier operation has opened, or ``None`` before it
            enters a folder.
    """

    __slots__ = ("_above", "_levels", "_path", "has_reused")

    def __init__(self) -> None:
        self.has_reused: bool | None = None
        # The paths of the last folder and of the one above it. They are a shortcut, since the next folder is usually
        # the same one, a neighbour or a child.
        self._path: str | None = None
        self._above: str | None = None
        self._levels: list[tuple[str, Descriptor]] = []

    def __del__(self) -> None:
        self.close()  # the thread has ended

    def close(self) -> None:
        """Close all folders."""
        self._leave(0)

    def hold(self) -> Descriptor:
        """Return the folder that was entered last. It remains open until the end of a ``with`` block."""
        return self._levels[-1][1]

    def enter(self, area: Area, path: str, *, scan: bool = False) -> int:
        """Open a folder of an area, unless it is open, and return its descriptor.

        With ``scan``, the descriptor can be used for one scan. It was opened by this process, because a scan has a
        position, and the processes before and after a fork share the position of a descriptor.

        Raises:
            UnsafePathError: if the path contains a link below the cache folder.
        """
        if path == self._path:
            self._note_reuse(kept=True)
            return self._open_again() if scan else self._levels[-1][1].number
        above, _, name = path.rpartition("/")
        if name and len(self._levels) < _MAX_OPEN and above in {self._path, self._above}:
            self._note_reuse(kept=True)
            self._leave(len(self._levels) - (above == self._above))
            self._open(name, scan=scan)
        else:
            self._enter_from_root(area, path, scan=scan)
        if name:
            # The folder above the cache folder is not open.
            self._path, self._above = path, above if len(self._levels) > 1 else None
        return self._levels[-1][1].number

    def _enter_from_root(self, area: Area, path: str, *, scan: bool) -> None:
        names = _names(area, path)
        kept = 0
        for (name, _), wanted in zip(self._levels, names, strict=False):
            if name != wanted:
                break
            kept += 1
        self._note_reuse(kept=kept > 0)
        self._leave(kept)
        for number in range(kept, len(names)):
            self._open(names[number], scan=scan and number + 1 == len(names))
        if scan and kept == len(names):
            self._open_again()

    def _note_reuse(self, *, kept: bool) -> None:
        if self.has_reused is None:
            self.has_reused = kept

    def _leave(self, kept: int) -> None:
        self._path = self._above = None
        while len(self._levels) > kept:
            self._levels.pop()[1].release()

    def _open(self, name: str, *, scan: bool) -> None:
        flags = SCAN if scan else LOOKUP
        if not self._levels:
            number = os.open(name, flags)
        elif "/" in name:
            number = self._open_deep(name.split("/"), flags)
        else:
            number = self._open_one(self._levels[-1][1].number, name, flags)
        self._levels.append((name, Descriptor(number)))

    def _open_deep(self, names: list[str], flags: int) -> int:
        """Open a folder several levels below the last one, without keeping the folders in between."""
        number = self._open_one(self._levels[-1][1].number, names[0], LOOKUP)
        for position in range(1, len(names)):
            above = number
            try:
                number = self._open_one(
                    above, names[position], flags if position + 1 == len(names) else LOOKUP, names[:position]
                )
            finally:
                os.close(above)
        return number

    def _open_one(self, folder: int, name: str, flags: int, above: Sequence[str] = ()) -> int:
        """Open a folder by its name in an open one, without following a link.

        ``above`` are the names that lead to the open folder from the last one that is kept.
        """
        try:
            if name not in _RELATIVE:
                return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            # Linux and macOS report a link by different codes, and a file by the code of a link.
            if error.errno != errno.ELOOP and (error.errno != errno.ENOTDIR or _is_file(folder, name)):
                raise
        path = "/".join([*(kept for kept, _ in self._levels), *above, name])
        raise UnsafePathError(errno.ELOOP, f"{path} is a link", path)

    def _open_again(self) -> int:
        """Open the last folder for a scan, and return the descriptor."""
        name, descriptor = self._levels[-1]
        number = os.open(".", SCAN, dir_fd=descriptor.number)
        self._levels[-1] = name, Descriptor(number)
        descriptor.release()
        return number


def _names(area: Area, path: str) -> list[str]:
    """Return the path of the cache folder, and the names that lead from it to a folder."""
    names = [area.root, *filter(None, path[len(area.top) :].split("/"))]
    if len(names) > _MAX_LEVELS:
        raise UnsafePathError(errno.ENAMETOOLONG, f"more than {_MAX_LEVELS} nested folders", path)
    # The last of too many names are one item, which is opened without keeping the folders in between.
    return names if len(names) <= _MAX_OPEN else [*names[: _MAX_OPEN - 1], "/".join(names[_MAX_OPEN - 1 :])]


def _is_file(folder: int, name: str) -> bool:
    """Return whether a name is that of a file, now that it could not be opened as a folder.

    A folder has just replaced a link.
    """
    mode = mode_of(folder, name)
    return not (stat.S_ISLNK(mode) or stat.S_ISDIR(mode))


def mode_of(folder: int, name: str) -> int:
    """Return the mode of a name in an open folder, or of a link itself."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
