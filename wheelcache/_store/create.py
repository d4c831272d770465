"""Find, create and mark a cache folder."""

from __future__ import annotations

from collections.abc import Iterable

from .._exceptions import ReadOnlyError
from .._fs.robustio import RobustIO, commit_error, write_all
from .._os.files import FileSystem
from .layout import Layout

# Backup and archive tools skip a folder with this file: https://bford.info/cachedir/
_CACHEDIR_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of wheels, made by wheelcache.\n"
)
_GITIGNORE = b"*\n"


def prepare(fs: RobustIO, layout: Layout) -> None:
    """Create the files that mark a folder as a cache, for backup tools and git.

    If the folder already contains other files, as a project folder does, only the cache's subfolder is marked, so that
    backup tools and git still see the other files.

    Raises:
        CommitError: if a file or folder cannot be created.
    """
    if fs.stat(layout.version) is not None:
        return
    marked = layout.root
    if layout.holds_others(entry.name for entry in fs.scan(layout.root)):
        marked = layout.version
        fs.make_folder(marked)
    for path, content in zip(layout.marks(marked), (_CACHEDIR_TAG, _GITIGNORE), strict=True):
        try:
            with fs.create(path) as file:
                write_all(file, content)
        except FileExistsError:
            pass
        except OSError as error:
            raise commit_error(error, "write", path) from error
    # The version folder is created last, so that its existence implies that of the marks.
    fs.make_folder(layout.version)


def confined_files(fs: RobustIO, layout: Layout, layers: Iterable[Layout]) -> FileSystem:
    """Create a missing cache folder, and return the file layer for this cache and its layers.

    The file layer does not follow links in these folders. It gives new files the permissions of the cache folder.

    Raises:
        CommitError: if the folder cannot be created or read.
    """
    confined = [layer.version for layer in layers]

    def confine() -> FileSystem:
        return fs.system.files.confined_to(layout.version, confined)

    try:
        return fs.perform("stat", layout.root, confine)
    except FileNotFoundError:
        fs.make_folder(layout.root)
        return fs.perform("stat", layout.root, confine)


def require_folder(fs: RobustIO, path: str) -> None:
    """Check that the folder of a read-only cache exists.

    Raises:
        ReadOnlyError: if the folder does not exist.
    """
    if not fs.files.is_dir(path):
        raise ReadOnlyError(
            "the cache folder does not exist, and this cache is read-only",
            operation="open",
            path=path,
            advice="Check the path.",
        )
