"""Lock files: ``pylock.toml`` to wheels, for the running interpreter. They need no resolver and no index."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from packaging.pylock import (
    Package,
    PackageArchive,
    PackageDirectory,
    PackageSdist,
    PackageVcs,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)

from .._errors import LockError, NoWheelError
from .requests import Item, Problem, item

_Source: TypeAlias = PackageWheel | PackageSdist | PackageArchive | PackageDirectory | PackageVcs

_KINDS = {
    PackageSdist: "a source distribution",
    PackageArchive: "a source archive",
    PackageDirectory: "a directory",
    PackageVcs: "a version control checkout",
}


def read_lock(path: Path) -> tuple[list[Item], list[Problem]]:
    """Return the wheels of a lock file that this environment wants, and the packages that it has no wheel of.

    Raises:
        LockError: where the file cannot be read, or does not fit this environment: then nothing of it is of use.
    """
    items: list[Item] = []
    problems: list[Problem] = []
    for package, source in _selected(path):
        asked = package.name if package.version is None else f"{package.name}=={package.version}"
        if isinstance(source, PackageWheel):
            items.append(_item(source, path, asked, source.filename))
        elif isinstance(source, PackageArchive) and (filename := _wheel_name(source)):
            items.append(_item(source, path, asked, filename))
        else:
            error = NoWheelError(f"{path}: {asked} is locked as {_KINDS[type(source)]}: there is no wheel to fetch")
            problems.append(Problem.of(error, asked))
    return items, problems


def _selected(path: Path) -> list[tuple[Package, _Source]]:
    try:
        lock = Pylock.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
        # All at once: a package that does not fit may come last.
        return list(lock.select())
    except OSError as error:
        raise LockError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, PylockValidationError) as error:
        raise LockError(f"{path} is not a pylock.toml: {error}") from error
    except PylockSelectError as error:
        raise LockError(f"{path} is not for this environment: {error}") from error


def _item(source: PackageWheel | PackageArchive, lock: Path, asked: str, filename: str) -> Item:
    url = source.url
    if source.path:
        # A lock file written on Windows may have its separators.
        file = Path(lock.absolute().parent, source.path.replace("\\", "/"))
        if url is None or file.exists():
            url = file.as_uri()
    assert url is not None  # packaging wants one of the two
    return item(url, source.hashes, asked=asked, size=source.size, filename=filename)


def _wheel_name(archive: PackageArchive) -> str | None:
    """Return the file name of an archive that is a wheel: pip locks those that were given by their URL so."""
    name = unquote(urlsplit(archive.url or "").path) if archive.path is None else archive.path.replace("\\", "/")
    name = name.rpartition("/")[2]
    return name if name.lower().endswith(".whl") else None
