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
        return cls(root, folder, os.path.join(root, ""), os.path.join(folder, ""), modes)


class Descriptor:
    """The descriptor of an open folder. The last user closes it.

    Attributes:
        number: the number of the descriptor.
        can_scan: whether the folder can be scanned.
    """

    __slots__ = ("_users", "can_scan", "number")

    def __init__(self, number: int, *, can_scan: bool) -> None:
        self.number = number
        self.can_scan = can_scan
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
        process: the process that opened them.
        has_reused: whether the operation uses a folder that an earlier operation has opened, or ``None`` before it
            enters a folder.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.has_reused: bool | None = None
        self._path: str | None = None
        self._levels: list[tuple[str, Descriptor]] = []

    def __del__(self) -> None:
        self.close()  # the thread has ended

    def close(self) -> None:
        """Close all folders."""
        self._leave(0)

    def restart(self) -> None:
        """Close all folders, so that the next operation opens them again."""
        self.close()
        self.process = os.getpid()

    def hold(self) -> Descriptor:
        """Return the folder that was entered last. It remains open until the end of a ``with`` block."""
        return self._levels[-1][1]

    def enter(self, area: Area, path: str, *, scan: bool = False) -> int:
        """Open a folder of an area, unless it is open, and return its descriptor.

        Raises:
            UnsafePathError: if the path contains a link below the cache folder.
        """
        if path == self._path:
            self._note_reuse(1)
            return self._scannable() if scan else self._levels[-1][1].number
        names = _names(area, path)
        kept = 0
        for (name, _), wanted in zip(self._levels, names, strict=False):
            if name != wanted:
                break
            kept += 1
        self._note_reuse(kept)
        self._leave(kept)
        for number in range(kept, len(names)):
            self._open(names[number], scan=scan and number + 1 == len(names))
        self._path = path
        return self._scannable() if scan else self._levels[-1][1].number

    def _note_reuse(self, kept: int) -> None:
        if self.has_reused is None:
            self.has_reused = kept > 0

    def _leave(self, kept: int) -> None:
        self._path = None
        while len(self._levels) > kept:
            self._levels.pop()[1].release()

    def _open(self, name: str, *, scan: bool) -> None:
        flags = SCAN if scan else LOOKUP
        if self._levels:
            above = [name for name, _ in self._levels]
            number = _open_below(self._levels[-1][1].number, name, flags, above)
        else:
            number = os.open(name, flags)
        self._levels.append((name, Descriptor(number, can_scan=scan)))

    def _scannable(self) -> int:
        """Return a descriptor of the last folder that can be read."""
        name, descriptor = self._levels[-1]
        if not descriptor.can_scan:
            number = os.open(".", SCAN, dir_fd=descriptor.number)
            self._levels[-1] = name, Descriptor(number, can_scan=True)
            descriptor.release()
        return self._levels[-1][1].number


def _names(area: Area, path: str) -> list[str]:
    """Return the path of the cache folder, and the names that lead from it to a folder."""
    names = [area.root, *filter(None, path[len(area.top) :].split("/"))]
    # The last of too many names are one item, which is opened without keeping the folders in between.
    return names if len(names) <= _MAX_OPEN else [*names[: _MAX_OPEN - 1], "/".join(names[_MAX_OPEN - 1 :])]


def _open_below(folder: int, relative: str, flags: int, above: Sequence[str]) -> int:
    """Open a folder below an open one, without following links, and return its descriptor.

    ``above`` are the names that lead to the open folder.
    """
    names = relative.split("/")
    number = folder
    for position, name in enumerate(names):
        is_last = position + 1 == len(names)
        try:
            inner = _open_one(number, name, flags if is_last else LOOKUP, (*above, *names[: position + 1]))
        finally:
            if number != folder:
                os.close(number)
        number = inner
    return number


def _open_one(folder: int, name: str, flags: int, names: Sequence[str]) -> int:
    if name in {os.curdir, os.pardir}:
        path = "/".join(names)
        raise UnsafePathError(errno.EINVAL, f"{path} may lead out of the cache", path)
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        # Linux and macOS report a link by different codes, and a file by the code of a link.
        if error.errno == errno.ELOOP or (error.errno == errno.ENOTDIR and not _is_file(folder, name)):
            path = "/".join(names)
            raise UnsafePathError(error.errno, f"{path} is a link", path) from None
        raise


def _is_file(folder: int, name: str) -> bool:
    """Return whether a name is that of a file, now that it could not be opened as a folder.

    A folder has just replaced a link.
    """
    mode = mode_of(folder, name)
    return not (stat.S_ISLNK(mode) or stat.S_ISDIR(mode))


def mode_of(folder: int, name: str) -> int:
    """Return the mode of a name in an open folder, or of a link itself."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
