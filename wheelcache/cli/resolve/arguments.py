"""Which argument is what: a requirement, a lock file, a URL, a wheel file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .._errors import NoWheelError
from .requests import Item, Problem, item

_URLS = ("https://", "http://", "file:")
_CHECKOUTS = ("git+", "hg+", "svn+", "bzr+")
_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


@dataclass
class Wanted:
    """What was asked for, by who can find out what it means.

    Attributes:
        requirements: for pip.
        requirement_files: for pip.
        locks: ``pylock.toml`` files.
        items: wheels, by URL or as a file.
        problems: what no one can find a wheel for.
    """

    requirements: list[str] = field(default_factory=list)
    requirement_files: list[str] = field(default_factory=list)
    locks: list[Path] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def sort_arguments(arguments: Iterable[str], requirement_files: Iterable[str]) -> Wanted:
    """Sort what was asked for, by its form and by what is there."""
    wanted = Wanted()
    for argument in arguments:
        _sort_argument(argument, wanted)
    for file in requirement_files:
        # Newer pips take a lock file with -r, so people will try it here.
        (wanted.locks.append(Path(file)) if _is_lock(file) else wanted.requirement_files.append(file))
    return wanted


def _sort_argument(argument: str, wanted: Wanted) -> None:
    if argument.lower().startswith(_URLS):
        wanted.items.append(item(argument))
    elif _is_lock(argument):
        wanted.locks.append(Path(argument))
    elif os.path.isfile(argument) and argument.lower().endswith(".whl"):
        wanted.items.append(item(Path(os.path.abspath(argument)).as_uri(), asked=argument))
    elif argument.lower().endswith(".whl") and "@" not in argument:
        wanted.problems.append(Problem.of(FileNotFoundError(f"there is no such file: {argument}"), argument))
    elif _is_source(argument):
        # pip would run the project's build, only to learn its name.
        error = NoWheelError(f"this is source, and not a wheel: build one first: {argument}")
        wanted.problems.append(Problem.of(error, argument))
    else:
        wanted.requirements.append(argument)


def _is_lock(argument: str) -> bool:
    if not argument.lower().endswith(".toml"):
        return False
    # 40 ms, for those who have a lock file.
    from packaging.pylock import is_valid_pylock_path

    return is_valid_pylock_path(Path(argument))


def _is_source(argument: str) -> bool:
    text = argument.lower()
    if text.startswith(_CHECKOUTS) or (text.endswith(_ARCHIVES) and os.path.isfile(argument)):
        return True
    # A folder only where pip would take it for one: "six" is a requirement, whatever lies there.
    return (text.startswith(".") or "/" in text or os.sep in text) and os.path.isdir(argument)
