"""The entries of a folder, and the error for an entry that must not be followed."""

from __future__ import annotations

from typing import NamedTuple


class UnsafePathError(OSError):
    """A link or a special file has the name of a folder or file of a cache.

    The operation did not follow it. ``filename`` is the path of the link or special file, not that of the operation.
    """


class FolderEntry(NamedTuple):
    """A name in a folder, and its kind. A link is neither a folder nor a file.

    Attributes:
        name: the name.
        is_dir: whether it is a folder.
        is_file: whether it is a regular file.
    """

    name: str
    is_dir: bool
    is_file: bool
