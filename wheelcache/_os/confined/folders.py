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
        prefix: the absolute path of the folder with a slash, as the prefix of paths.
    """

    __slots__ = ("_users", "number", "prefix")

    def __init__(self, number: int, prefix: str) -> None:
        self.number = number
        self.prefix = prefix
        self._users = 1

    def __enter__(self) -> Self:
        self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """End one use of the descriptor. The end of its last use closes it."""
        self._users -= 1
        if self._users == 0:
            os.close(self.number)


class OpenFolders:
    """The folders of one path that a thread keeps open, from the cache folder down.

    Attributes:
        has_reused: whether the operation uses a folder that an earlier operation has opened, or ``None`` before it
            enters a folder.
    """

    __slots__ = ("_area", "_levels", "has_reused")

    def __init__(self) -> None:
        self.has_reused: bool | None = None
        self._area: Area | None = None
        self._levels: list[Descriptor] = []

    def __del__(self) -> None:
        self.close()  # the thread has ended

    def close(self) -> None:
        """Close all folders."""
        while self._levels:
            self._levels.pop().release()

    def hold(self) -> Descriptor:
        """Return the folder that was entered last. It remains open until the end of a ``with`` block."""
        return self._levels[-1]

    def enter(self, area: Area, path: str, *, scan: bool = False) -> int:
        """Open a folder of an area, unless it is open, and return its descriptor.

        With ``scan``, the descriptor can be used for one scan. It was opened by this process, because a scan has a
        position, and the processes before and after a fork share the position of a descriptor.

        Raises:
            UnsafePathError: if the path contains a link, or too many folders, below the cache folder.
        """
        levels = self._levels
        if area is not self._area:
            self.close()
            self._area = area
        prefix = path + "/"
        while levels and not prefix.startswith(levels[-1].prefix):
            levels.pop().release()
        if self.has_reused is None:
            self.has_reused = bool(levels)
        if not levels:
            levels.append(Descriptor(os.open(area.root, LOOKUP), area.top))
        name = path[len(levels[-1].prefix) :].strip("/")
        if path.count("/", len(area.top)) > _MAX_LEVELS - 2:
            raise UnsafePathError(errno.ENAMETOOLONG, f"more than {_MAX_LEVELS} nested folders", path)
        if "/" in name:
            *names, name = filter(None, name.split("/"))
            for above in names:
                self._open(above, LOOKUP)
        if name:
            return self._open(name, SCAN if scan else LOOKUP)
        return self._open_again() if scan else levels[-1].number

    def _open(self, name: str, flags: int) -> int:
        """Open a folder in the last one, without following a link, and keep it open. Return its descriptor."""
        levels = self._levels
        above = levels[-1]
        if name in _RELATIVE:
            raise _link_error(above.prefix + name)
        try:
            number = os.open(name, flags | os.O_NOFOLLOW, dir_fd=above.number)
        except OSError as error:
            # Linux and macOS report a link by different codes, and a file by the code of a link.
            if error.errno == errno.ELOOP or (error.errno == errno.ENOTDIR and not _is_file(above.number, name)):
                raise _link_error(above.prefix + name) from None
            raise
        if len(levels) == _MAX_OPEN:
            levels.pop().release()
        levels.append(Descriptor(number, f"{above.prefix}{name}/"))
        return number

    def _open_again(self) -> int:
        """Open the last folder for a scan, and return the descriptor."""
        last = self._levels[-1]
        number = os.open(".", SCAN, dir_fd=last.number)
        self._levels[-1] = Descriptor(number, last.prefix)
        last.release()
        return number


def _link_error(path: str) -> UnsafePathError:
    return UnsafePathError(errno.ELOOP, f"{path} is a link", path)


def _is_file(folder: int, name: str) -> bool:
    """Return whether a name is that of a file, now that it could not be opened as a folder.

    A folder has just replaced a link.
    """
    mode = mode_of(folder, name)
    return not (stat.S_ISLNK(mode) or stat.S_ISDIR(mode))


def mode_of(folder: int, name: str) -> int:
    """Return the mode of a name in an open folder, or of a link itself."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
