"""TODO."""

from __future__ import annotations

from .._exceptions import ReadOnlyError
from .._fs.robustio import RobustIO, commit_error, write_all
from .._os.files import FileSystem
from .layout import Layout

# Backup and archive tools pass over a folder with this file: https://bford.info/cachedir/
_CACHEDIR_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of wheels, made by wheelcache.\n"
)
_GITIGNORE = b"*\n"


def prepare(fs: RobustIO, layout: Layout) -> None:
    """Make what marks a folder as a cache.

    Where it holds other things, a project that somebody named by mistake, these go on being seen by git and backups.

    Raises:
        CommitError: where it cannot be made.
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
    # Last: where it is there, the marks are too.
    fs.make_folder(layout.version)


def with_modes_of(fs: RobustIO, layout: Layout) -> FileSystem:
    """Make the folder, and return the file layer for it: what that makes is as open or as private as the folder is.

    Raises:
        CommitError: where the folder cannot be made or looked at.
    """
    try:
        files = fs.perform("stat", layout.root, lambda: fs.system.files.with_modes_of(layout.root))
    except FileNotFoundError:
        fs.make_folder(layout.root)
        files = fs.perform("stat", layout.root, lambda: fs.system.files.with_modes_of(layout.root))
    return files or fs.system.files


def require_folder(fs: RobustIO, path: str) -> None:
    """Refuse a folder that is to be read and is not there.

    Raises:
        ReadOnlyError: where it is not there.
    """
    if not fs.files.is_dir(path):
        raise ReadOnlyError(
            "there is no such folder, and it may not be made", operation="open", path=path, advice="Check the path."
        )
