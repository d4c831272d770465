"""Sort the arguments of ``fetch`` into requirements, lock files, URLs and wheel files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .._errors import NoWheelError
from .requests import Failure, FetchRequest, make_request

_URLS = ("https://", "http://", "file:")
_CHECKOUTS = ("git+", "hg+", "svn+", "bzr+")
_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


@dataclass
class Arguments:
    """The arguments of ``fetch`` by kind.

    Attributes:
        requirements: requirements, for pip.
        requirement_files: requirements files, for pip.
        locks: ``pylock.toml`` files.
        requests: wheels by URL, and local wheel files.
        failures: arguments that cannot be wheels.
    """

    requirements: list[str] = field(default_factory=list)
    requirement_files: list[str] = field(default_factory=list)
    locks: list[Path] = field(default_factory=list)
    requests: list[FetchRequest] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def sort_arguments(arguments: Iterable[str], requirement_files: Iterable[str]) -> Arguments:
    """Sort arguments by their form, and by the files that exist."""
    sorted_arguments = Arguments()
    for argument in arguments:
        _add_argument(argument, sorted_arguments)
    for file in requirement_files:
        # Newer versions of pip accept a lock file with -r, so users expect the same here.
        (
            sorted_arguments.locks.append(Path(file))
            if _is_lock(file)
            else sorted_arguments.requirement_files.append(file)
        )
    return sorted_arguments


def _add_argument(argument: str, to: Arguments) -> None:
    if argument.lower().startswith(_URLS):
        to.requests.append(make_request(argument))
    elif _is_lock(argument):
        to.locks.append(Path(argument))
    elif os.path.isfile(argument) and argument.lower().endswith(".whl"):
        to.requests.append(make_request(Path(os.path.abspath(argument)).as_uri(), requirement=argument))
    elif argument.lower().endswith(".whl") and "@" not in argument:
        to.failures.append(Failure.from_error(FileNotFoundError(f"no such file: {argument}"), argument))
    elif _is_source(argument):
        # pip would build the project only to learn its name.
        error = NoWheelError(f"{argument} is source code and not a wheel (build a wheel first)")
        to.failures.append(Failure.from_error(error, argument))
    else:
        to.requirements.append(argument)


def _is_lock(argument: str) -> bool:
    if not argument.lower().endswith(".toml"):
        return False
    # This import takes 40 ms, and most runs have no lock file.
    from packaging.pylock import is_valid_pylock_path

    return is_valid_pylock_path(Path(argument))


def _is_source(argument: str) -> bool:
    text = argument.lower()
    if text.startswith(_CHECKOUTS) or (text.endswith(_ARCHIVES) and os.path.isfile(argument)):
        return True
    # As in pip, "six" is a requirement, even if a folder of this name exists.
    return (text.startswith(".") or "/" in text or os.sep in text) and os.path.isdir(argument)
