"""Find system calls that change the file system in the output of ``strace -f -y``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

# For each call, the positions of its paths, each with the position of the descriptor that it is relative to.
_PATHS: dict[str, list[tuple[int | None, int]]] = {
    "open": [(None, 0)],
    "openat": [(0, 1)],
    "openat2": [(0, 1)],
    "creat": [(None, 0)],
    "mkdir": [(None, 0)],
    "mkdirat": [(0, 1)],
    "mknod": [(None, 0)],
    "mknodat": [(0, 1)],
    "rename": [(None, 0), (None, 1)],
    "renameat": [(0, 1), (2, 3)],
    "renameat2": [(0, 1), (2, 3)],
    "link": [(None, 0), (None, 1)],
    "linkat": [(0, 1), (2, 3)],
    "symlink": [(None, 1)],
    "symlinkat": [(1, 2)],
    "unlink": [(None, 0)],
    "unlinkat": [(0, 1)],
    "rmdir": [(None, 0)],
    "chmod": [(None, 0)],
    "fchmodat": [(0, 1)],
    "fchmodat2": [(0, 1)],
    "chown": [(None, 0)],
    "lchown": [(None, 0)],
    "fchownat": [(0, 1)],
    "utime": [(None, 0)],
    "utimes": [(None, 0)],
    "futimesat": [(0, 1)],
    "utimensat": [(0, 1)],
    "truncate": [(None, 0)],
}
TRACED = ",".join(_PATHS)
"""The names of these calls, for the option ``-e trace=`` of strace."""
_OPENING = {"open", "openat", "openat2"}
_CALL = re.compile(r"(?:\d+ +)?(?:[\d:.]+ +)?(?P<name>\w+)\((?P<arguments>.*)")
_DESCRIPTOR = re.compile(r"(?:\d+|AT_FDCWD)(?:<(?P<path>.*)>)?", re.DOTALL)
_STRING = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"')


BY_HAND = "/by hand"
"""A folder that does not exist. A test deletes ``begin`` in it before its own system calls, and ``end`` after them."""


class PathUse(NamedTuple):
    """A path in a system call.

    Attributes:
        call: the name of the call.
        folder: the path of the descriptor that the path is relative to. Empty for an absolute path.
        path: the path, as the call contains it.
        opens_folder: whether the call only opens a folder.
        line: the line of the trace.
    """

    call: str
    folder: str
    path: str
    opens_folder: bool
    line: str

    @property
    def whole(self) -> str:
        """The absolute path."""
        return os.path.normpath(os.path.join(self.folder, self.path))

    def components_below(self, root: str) -> int:
        """Return the number of components that the system resolves below a folder."""
        if not self.path.startswith("/"):
            is_below = self.whole == root or self.whole.startswith(root + "/")
            return len(self.path.split("/")) if is_below or self.folder.startswith(root) else 0
        return len(self.path.removeprefix(root).split("/")) - 1 if self.path.startswith(root + "/") else 0


def changing_paths(trace: str) -> Iterator[PathUse]:
    """Yield the paths of all calls that create, rename, link, delete or change files, or that open folders."""
    by_hand: set[str] = set()
    for line in trace.splitlines():
        process = line.split(" ")[0]
        if f'"{BY_HAND}/begin"' in line:
            by_hand.add(process)
        elif f'"{BY_HAND}/end"' in line:
            by_hand.discard(process)
        if process in by_hand:
            continue
        found = _CALL.match(line)
        if found is None or found["name"] not in _PATHS:
            continue
        # The arguments of an interrupted line are complete, because the call only reads them.
        arguments = _split(found["arguments"])
        text = ", ".join(arguments[1:])
        opens_folder = found["name"] in _OPENING and "O_CREAT" not in text
        if opens_folder and not re.search(r"O_DIRECTORY|O_PATH", text):
            continue
        for descriptor, position in _PATHS[found["name"]]:
            path = _STRING.match(arguments[position]) if position < len(arguments) else None
            if path is None:
                continue  # NULL: the call changes the open file of the descriptor
            text = _unescape(path["text"])
            folder = "" if descriptor is None or text.startswith("/") else _folder_of(arguments[descriptor])
            yield PathUse(found["name"], folder, text, opens_folder, line)


def _folder_of(argument: str) -> str:
    found = _DESCRIPTOR.match(argument)
    path = found["path"] if found is not None and found["path"] else ""
    return _unescape(path).removesuffix(" (deleted)").removesuffix("(deleted)")


def _unescape(text: str) -> str:
    return (
        text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1").decode(errors="replace")
    )


def _split(text: str) -> list[str]:
    """Split the arguments of a call at the commas outside of strings, structures and paths of descriptors."""
    parts, depth, start, position = [], 0, 0, 0
    while position < len(text):
        char = text[position]
        if char == '"':
            found = _STRING.match(text, position)
            position = found.end() if found else len(text)
            continue
        if char in "<{[(":
            depth += 1
        elif char in ">}])":
            depth -= 1
            if depth < 0:
                break
        elif char == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
        position += 1
    return [*parts, text[start:position].strip()]
