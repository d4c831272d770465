"""Check the form of every wheel file name, and parse those that are new to the cache."""

from __future__ import annotations

import re

from ._exceptions import InvalidWheelError, UnsafeWheelError
from ._imports import third_party_import_lock

# The characters of projects, versions (with epoch and local version), build tags and compatibility tags:
# https://packaging.python.org/en/latest/specifications/binary-distribution-format/#file-name-convention
# No path separator, drive or dot-dot can match, so a matching name cannot leave its folder on any system.
# Both cases are listed, because a match without regard to case takes twice as long.
_WHEEL_NAME = re.compile(r"[A-Za-z0-9_.+!]+(?:-[A-Za-z0-9_.+!]+){4,5}\.[Ww][Hh][Ll]")
# Common file systems allow 255 characters. The name of the record adds ".json".
_MAX_LENGTH = 250
_DIST_INFO = ".dist-info"


def has_wheel_form(filename: str) -> bool:
    """Return whether a name has the form and the length of a wheel file name."""
    return len(filename) <= _MAX_LENGTH and _WHEEL_NAME.fullmatch(filename) is not None


def check_filename(filename: str, *, operation: str, url: str | None = None) -> None:
    """Check the form of a wheel file name cheaply, before the name is used in any path.

    Raises:
        InvalidWheelError: if the name does not have the form of a wheel file name, or is too long.
    """
    if not has_wheel_form(filename):
        raise _invalid(filename, operation, url, "")


def check_wheel_name(filename: str, *, operation: str, url: str | None = None) -> None:
    """Check a wheel file name completely, on a miss. The names in the cache were checked when they were added.

    Raises:
        InvalidWheelError: if ``packaging`` cannot parse the name.
    """
    with third_party_import_lock:  # A hit does not need packaging. Its import takes 30 ms.
        from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        parse_wheel_filename(filename)
    except InvalidWheelFilename as error:
        raise _invalid(filename, operation, url, f" ({error})") from None


def is_same_wheel(filename: str, other: str) -> bool:
    """Return whether two wheel file names have the same parts: project, version, build tag and compatibility tags."""
    if filename == other:
        return True
    with third_party_import_lock:
        from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        return parse_wheel_filename(filename) == parse_wheel_filename(other)
    except InvalidWheelFilename:
        return False


def _invalid(filename: str, operation: str, url: str | None, reason: str) -> InvalidWheelError:
    return InvalidWheelError(
        f"{filename[:300]!r} is not a valid wheel file name{reason}",
        operation=operation,
        url=url,
        advice=(
            "A wheel file name has the form <name>-<version>-<python>-<abi>-<platform>.whl."
            " In Python, pass filename= if the source has another name."
        ),
    )


def is_dist_info(folder: str) -> bool:
    """Return whether a path inside a wheel is a ``.dist-info`` folder at the top level."""
    return folder.lower().endswith(_DIST_INFO) and "/" not in folder


def check_project(
    dist_info: str, filename: str, path: str | None, *, url: str | None = None, operation: str = "unpack"
) -> None:
    """Check that the ``.dist-info`` folder of a wheel names the same project as its file name.

    Raises:
        UnsafeWheelError: if the folder names another project.
    """
    # Old tools kept dashes in the project name of the folder. The project name in a file name contains no dashes.
    project = dist_info[: -len(_DIST_INFO)].rpartition("-")[0]
    if not _is_same_project(project, filename.partition("-")[0]):
        raise UnsafeWheelError(
            f"the folder {dist_info} belongs to another project than the file name",
            operation=operation,
            path=path,
            url=url,
            advice="Check that the file name, the URL and the hash belong to the same wheel.",
        )


def _is_same_project(name: str, other: str) -> bool:
    """Return whether two project names are equal after PEP 503 normalisation."""
    if name == other:
        return True  # the usual case, without importing packaging
    with third_party_import_lock:
        from packaging.utils import canonicalize_name
    return canonicalize_name(name) == canonicalize_name(other)
