"""Check that the names of a wheel's members are safe and differ from each other on every system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .._fs.tempnames import SPARE, is_spare

# Every folder of a name is kept in memory. A name of 65,535 bytes could need gigabytes. No system accepts longer parts
# or paths: https://man7.org/linux/man-pages/man7/path_resolution.7.html. No wheel has as many folders.
_LONGEST_NAME, _LONGEST_PART, _MOST_FOLDERS = 4096, 255, 100
# A file whose name has 100 folders needs a few hundred bytes of the archive. The marker of a tree contains the whole
# path of each folder. Of the large public wheels, msgraph-sdk has the most folders: 10,500 for 16,700 files, with 0.9
# MB of paths. aws-cdk-lib has the most folders for each file: 0.99.
_FOLDERS, _FOLDERS_PER_FILE = 4000, 4
_PATH_BYTES, _PATH_BYTES_PER_FILE = 1_000_000, 1000
# A name of at most this length cannot have a part that is too long, or too many parts.
_SURELY_SHORT = 2 * _MOST_FOLDERS

# Windows does not allow these names: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_PROBLEM = re.compile(
    r"""(?P<character>[\x00-\x1f\x7f<>:"|?*\\])
      | (?P<path>(?:^|/)\.{0,2}(?=/.|$)|^/)
      | (?P<tail>[.\ ](?=/|$))
      | (?P<version>;[0-9]*$)
      | (?P<fork>^__macosx/(?:.*/)?\._[^/]*$)
      | (?:^|/)(?P<device>(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])[\ ]*(?:\.[^/]*)?)(?=/|$)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PROBLEMS = {
    "character": "contains a character that some systems do not allow in names",
    "path": "is not a plain relative path",
    "tail": "has a part that ends in a dot or a space that Windows removes",
    # unzip removes the version of a file on VMS on every system: https://infozip.sourceforge.net/UnZip.html
    "version": "ends in a version number that unzip removes",
    # libarchive attaches these files to others on macOS.
    "fork": "is a resource fork on macOS",
    "device": "is reserved on Windows",
}

# These are the same checks for all names of an archive, each between slashes. One search is faster than thousands, and
# names are rarely refused.
_CHARACTERS = bytes([*range(0x20), 0x7F]) + b'<>:"|?*\\'
_CHARACTER = re.compile(f"[{re.escape(_CHARACTERS.decode())}]")
_SUSPICIOUS = ("//", "./", " /", ";", "/._")
# HFS+ ignores these characters when it compares names: https://developer.apple.com/library/archive/technotes/tn/tn1150.html
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_DEVICE = r"/(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\ *[./]"
# The search in lower case takes half the time. It is not sufficient for other letters, such as the dotted capital I.
_ASCII_DEVICE, _ANY_DEVICE = re.compile(_DEVICE), re.compile(_DEVICE, re.IGNORECASE)


class Names:
    """The names of an archive, indexed by a folded form. Names that are the same on some system share one form.

    Attributes:
        folder_count: the number of folders that contain the names.
        folder_bytes: the total length of the paths of these folders, in bytes.
    """

    def __init__(self) -> None:
        self.folder_count = 0
        self.folder_bytes = 0
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._known_folders: set[str] = set()

    def add(self, name: str) -> str:
        """Add a name, and return its conflict with the earlier names, or an empty string."""
        parent = name.rpartition("/")[0]
        while parent and parent not in self._known_folders:
            other = self._folders.setdefault(_folded(parent), parent)
            if other != parent:
                return f"is in a folder that is the same as {other!r} on some systems"
            self._known_folders.add(parent)
            self.folder_count += 1
            self.folder_bytes += len(parent.encode())
            parent = parent.rpartition("/")[0]
        if not name.endswith("/"):
            folded = _folded(name)
            other = self._files.get(folded, "")
            if other:
                return "occurs twice" if other == name else f"is the same file as {other!r} on some systems"
            self._files[folded] = name
        return ""

    def file_and_folder(self) -> str:
        """Return a name that is both a file and a folder, or an empty string."""
        common = self._files.keys() & self._folders.keys()
        return self._files[common.pop()] if common else ""


def are_plain(names: Sequence[str]) -> bool:
    """Return whether no name can have a problem. Otherwise, :func:`problem_of_name` decides for each name."""
    return are_plain_parts([name.removesuffix("/") for name in names], max(map(len, names), default=0))


def are_plain_parts(parts: Sequence[str], longest: int) -> bool:
    """Return whether no name that consists of these parts can have a problem, apart from its number of folders.

    Args:
        parts: names, parts of names, or several parts joined by slashes.
        longest: the length of the longest name.
    """
    text = "/".join(["", *parts, ""])
    return not (
        _has_refused_character(text)
        or any(part in text for part in _SUSPICIOUS)
        or (_ASCII_DEVICE.search(text.lower()) if text.isascii() else _ANY_DEVICE.search(text))
        or SPARE in text
        or longest > _SURELY_SHORT
    )


def _has_refused_character(text: str) -> bool:
    if not text.isascii():
        return _CHARACTER.search(text) is not None
    data = text.encode()
    return len(data.translate(None, _CHARACTERS)) < len(data)


def folder_bounds(file_count: int) -> tuple[int, int]:
    """Return how many folders a wheel with so many files may have, and how many bytes their paths may have."""
    return max(_FOLDERS, _FOLDERS_PER_FILE * file_count), max(_PATH_BYTES, _PATH_BYTES_PER_FILE * file_count)


def problem_of_name(name: str) -> str:
    """Return the problem of the name of a member, or an empty string."""
    if len(name) > _SURELY_SHORT and _is_too_long(name):
        return "is longer or has more folders than systems accept"
    found = _PROBLEM.search(name.removesuffix("/"))
    if found is None:
        return "is reserved for temporary files" if any(map(is_spare, name.split("/"))) else ""
    return next(text for group, text in _PROBLEMS.items() if found[group] is not None)


def _is_too_long(name: str) -> bool:
    parts = name.split("/") if len(name) <= _LONGEST_NAME else []
    return not 0 < len(parts) <= _MOST_FOLDERS + 1 or any(len(part) > _LONGEST_PART for part in parts)


def _folded(name: str) -> str:
    """Fold the case of a name and normalise it. Names that collide on Windows or macOS have equal results."""
    if name.isascii():
        return name.lower()
    # Windows compares names in upper case. More letters are equal then, such as the dotless i and i.
    name = unicodedata.normalize("NFD", _IGNORED.sub("", name)).upper()
    return unicodedata.normalize("NFD", name.casefold())
