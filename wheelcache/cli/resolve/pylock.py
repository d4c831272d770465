"""Read the wheels of a ``pylock.toml`` for the running interpreter, without a resolver or an index."""

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
from .requests import Failure, FetchRequest, make_request

_Source: TypeAlias = PackageWheel | PackageSdist | PackageArchive | PackageDirectory | PackageVcs

# Bytes. A lock file with a thousand packages, each with wheels for many platforms, has a few megabytes.
_LARGEST = 64 << 20
_KINDS = {
    PackageSdist: "a source distribution",
    PackageArchive: "a source archive",
    PackageDirectory: "a directory",
    PackageVcs: "a version control checkout",
}


def read_lock(path: Path) -> tuple[list[FetchRequest], list[Failure]]:
    """Return the wheels that a lock file selects for this environment, and its packages without a wheel.

    Raises:
        LockError: if the file cannot be read or does not apply to this environment.
    """
    requests: list[FetchRequest] = []
    failures: list[Failure] = []
    for package, source in _select(path):
        requirement = package.name if package.version is None else f"{package.name}=={package.version}"
        if isinstance(source, PackageWheel):
            requests.append(_request(source, path, requirement, source.filename))
        elif isinstance(source, PackageArchive) and (filename := _wheel_filename(source)):
            requests.append(_request(source, path, requirement, filename))
        else:
            error = NoWheelError(f"{path}: {requirement} is locked as {_KINDS[type(source)]} and not as a wheel")
            failures.append(Failure.from_error(error, requirement))
    return requests, failures


def _select(path: Path) -> list[tuple[Package, _Source]]:
    try:
        lock = Pylock.from_dict(tomllib.loads(_read(path)))
        # The whole list is read first, because any package, even the last, may not fit this environment.
        return list(lock.select())
    except OSError as error:
        raise LockError(f"{path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise LockError(f"{path} is not a valid lock file: its values are nested too deeply") from error
    # A number with thousands of digits or an invalid URL raises a plain ValueError.
    except (ValueError, PylockValidationError) as error:
        raise LockError(f"{path} is not a valid lock file: {error}") from error
    except PylockSelectError as error:
        raise LockError(f"{path} does not apply to this environment: {error}") from error


def _read(path: Path) -> str:
    # The file may be a pipe, which has no size.
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise LockError(f"{path} is not a valid lock file: it has more than {_LARGEST} bytes")
    return data.decode("utf-8")


def _request(source: PackageWheel | PackageArchive, lock: Path, requirement: str, filename: str) -> FetchRequest:
    url = source.url
    if source.path:
        # A lock file that was written on Windows may contain backslashes.
        file = Path(lock.absolute().parent, source.path.replace("\\", "/"))
        if url is None or file.exists():
            url = file.as_uri()
    assert url is not None  # packaging requires a URL or a path
    return make_request(url, source.hashes, requirement=requirement, size=source.size, filename=filename)


def _wheel_filename(archive: PackageArchive) -> str | None:
    """Return the file name of an archive that is a wheel, else ``None``.

    pip records a wheel that was given by its URL as an archive.
    """
    name = unquote(urlsplit(archive.url or "").path) if archive.path is None else archive.path.replace("\\", "/")
    name = name.rpartition("/")[2]
    return name if name.lower().endswith(".whl") else None
