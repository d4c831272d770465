"""Names of the members of a wheel, refused if they are unsafe or not distinct on every system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .._fs.tempnames import SPARE, is_spare

# Every folder of a name is remembered, so that a name of 65,535 bytes could ask for gigabytes. No system takes longer
# parts or paths (https://man7.org/linux/man-pages/man7/path_resolution.7.html), and no wheel goes so deep.
_LONGEST_NAME, _LONGEST_PART, _MOST_FOLDERS = 4096, 255, 100
# No part of it can be too long, nor can there be too many.
_SURELY_SHORT = 2 * _MOST_FOLDERS

# What Windows does not allow: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_PROBLEM = re.compile(
    r"""(?P<character>[\x00-\x1f\x7f<>:"|?*\\])
      | (?P<way>(?:^|/)\.{0,2}(?=/.|$)|^/)
      | (?P<tail>[.\ ](?=/|$))
      | (?:^|/)(?P<device>(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])[\ ]*(?:\.[^/]*)?)(?=/|$)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PROBLEMS = {
    "character": "has a character that is no part of a name on some systems",
    "way": "does not lead straight to a place inside",
    "tail": "ends in a dot or a space, which Windows drops",
    "device": "is reserved on Windows",
}

# The same for all names of an archive together, each on a line: there are thousands, and hardly ever is one refused.
_CHARACTER = re.compile(r"""[\x00-\x09\x0b-\x1f\x7f<>:"|?*\\]""")
_CROOKED = ("//", "./", " /", ".\n", " \n", "/\n", "\n/", "\n\n")
_DEVICE = re.compile(r"[/\n](?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\ *[./\n]", re.IGNORECASE)


class Names:
    """The names so far, by what they have in common with others that are one with them on some system."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._known: set[str] = set()

    def add(self, name: str) -> str:
        """Take a name; return what is wrong with it beside the others, ``""`` where nothing is."""
        parent = name.rpartition("/")[0]
        while parent and parent not in self._known:
            other = self._folders.setdefault(_folded(parent), parent)
            if other != parent:
                return f"is in a folder that is the same as {other!r} on some systems"
            self._known.add(parent)
            parent = parent.rpartition("/")[0]
        if not name.endswith("/"):
            other = self._files.setdefault(_folded(name), name)
            if other is not name:
                return "is there twice" if other == name else f"is the same file as {other!r} on some systems"
        return ""

    def file_and_folder(self) -> str:
        """Return a name that is both, ``""`` where there is none."""
        both = self._files.keys() & self._folders.keys()
        return self._files[both.pop()] if both else ""


def are_plain(names: Sequence[str]) -> bool:
    """Return whether no name has a problem; where one might, :func:`problem_of_name` tells for each."""
    lines = "\n".join(["", *(name.removesuffix("/") for name in names), ""])
    return not (
        lines.count("\n") != len(names) + 1
        or _CHARACTER.search(lines)
        or any(crooked in lines for crooked in _CROOKED)
        or _DEVICE.search(lines)
        or SPARE in lines
        or max(map(len, names), default=0) > _SURELY_SHORT
    )


def problem_of_name(name: str) -> str:
    """Return what is wrong with the name of a member, ``""`` where nothing is."""
    if len(name) > _SURELY_SHORT and _is_too_long(name):
        return "is longer or deeper than systems bear"
    found = _PROBLEM.search(name.removesuffix("/"))
    if found is None:
        return "is kept for files that are not finished" if any(map(is_spare, name.split("/"))) else ""
    return next(text for group, text in _PROBLEMS.items() if found[group] is not None)


def _is_too_long(name: str) -> bool:
    parts = name.split("/") if len(name) <= _LONGEST_NAME else []
    return not 0 < len(parts) <= _MOST_FOLDERS + 1 or any(len(part) > _LONGEST_PART for part in parts)


def _folded(name: str) -> str:
    """Return what two names have in common that are one on some system: those of Windows and macOS ignore case."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
