"""Opening a cache: which folder, whether the options can be, and the few files that mark it."""

from __future__ import annotations

import math
import os

from ._disk import Disk, refused, write_all
from ._errors import ReadOnlyError
from ._fs import FileSystem
from ._layout import Layout

ENVIRONMENT_VARIABLE = "WHEELCACHE_DIR"

# Backup and archive tools pass over a folder with this file: https://bford.info/cachedir/
_CACHEDIR_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of wheels, made by wheelcache.\n"
)
_GITIGNORE = b"*\n"


def cache_folder(path: str | os.PathLike[str] | None) -> str:
    """Return the absolute path of the cache folder that is meant.

    ``abspath`` and not ``realpath``: a path through a mount or a junction stays the one that the user chose.
    """
    if path is None:
        path = os.environ.get(ENVIRONMENT_VARIABLE) or None
    if path is None:
        import platformdirs

        path = platformdirs.user_cache_dir("wheelcache", appauthor=False)
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"the cache folder is a path, not {path!r}")
    return os.path.abspath(text)


def check_options(*, layers: object, verify: str, io_timeout: float, lock_timeout: float) -> None:
    """Refuse options that cannot be, now and not in the middle of a fetch.

    Raises:
        ValueError: for a value that an option does not have.
        TypeError: for one path where several belong.
    """
    if isinstance(layers, str | os.PathLike):
        raise TypeError("layers is a list of folders, not one folder")
    if verify not in {"auto", "full"}:
        raise ValueError(f"verify is 'auto' or 'full', not {verify!r}")
    for name, value in (("io_timeout", io_timeout), ("lock_timeout", lock_timeout)):
        if not (
            isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and not math.isnan(value)
        ):
            raise ValueError(f"{name} is a number of seconds, not {value!r}")


def check_client(client: object, *, awaited: bool) -> None:
    """Refuse a client that cannot be used, now and not at the first download.

    It is known by what it has and not by its class: any object with the names that are used will do, and httpx is not
    imported before something is downloaded.

    Raises:
        TypeError: for what is no client, or one that is awaited where one that blocks belongs, or the other way round.
    """
    if client is None:
        return
    # httpx's that blocks has close(), the one that is awaited aclose(); who has both or neither may be either.
    closings = {name for name in ("close", "aclose") if hasattr(client, name)}
    usable = all(hasattr(client, name) for name in ("auth", "build_request", "send"))
    if not usable or closings == {"close" if awaited else "aclose"}:
        wanted, owner = ("AsyncClient", "an AsyncCache") if awaited else ("Client", "a Cache")
        raise TypeError(f"the client of {owner} is an httpx.{wanted}, not {_kind(client)}")


def _kind(client: object) -> str:
    # Its text may be a secret: somebody may take a URL for it.
    kind = type(client)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def prepare(disk: Disk, layout: Layout) -> None:
    """Make what marks a folder as a cache.

    Where it holds other things, a project that somebody named by mistake, these go on being seen by git and backups.

    Raises:
        CommitError: where it cannot be made.
    """
    if disk.stat(layout.version) is not None:
        return
    marked = layout.root
    if layout.holds_others(entry.name for entry in disk.scan(layout.root)):
        marked = layout.version
        disk.make_folder(marked)
    for path, content in zip(layout.marks(marked), (_CACHEDIR_TAG, _GITIGNORE), strict=True):
        try:
            with disk.create(path) as file:
                write_all(file, content)
        except FileExistsError:
            pass
        except OSError as error:
            raise refused(error, "write", path) from error
    # Last: where it is there, the marks are too.
    disk.make_folder(layout.version)


def following(disk: Disk, layout: Layout) -> FileSystem:
    """Make the folder, and return the file layer for it: what that makes is as open or as private as the folder is.

    Raises:
        CommitError: where the folder cannot be made or looked at.
    """
    try:
        files = disk.perform("stat", layout.root, lambda: disk.files.following(layout.root))
    except FileNotFoundError:
        disk.make_folder(layout.root)
        files = disk.perform("stat", layout.root, lambda: disk.files.following(layout.root))
    return files or disk.files


def require_folder(disk: Disk, path: str) -> None:
    """Refuse a folder that is to be read and is not there.

    Raises:
        ReadOnlyError: where it is not there.
    """
    if not disk.files.is_folder(path):
        raise ReadOnlyError(
            "there is no such folder, and it may not be made", operation="open", path=path, advice="Check the path."
        )
