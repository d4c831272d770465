"""TODO."""

from __future__ import annotations

import re

from ._exceptions import InvalidWheelError, UnsafeWheelError
from ._imports import import_lock

# The characters of wheel file names: those of names, versions (with epoch and local part), build and platform tags:
# https://packaging.python.org/en/latest/specifications/binary-distribution-format/#file-name-convention
# Checked before any path is formed, so that no file name can leave its folder on any system.
_WHEEL_NAME = re.compile(r"[a-z0-9_.+!]+(?:-[a-z0-9_.+!]+){4,5}\.whl", re.ASCII | re.IGNORECASE)
# 255 is the longest name of common file systems; the record adds ".json".
_LONGEST_NAME = 250
_DIST_INFO = ".dist-info"


def check_filename(filename: str, *, operation: str, url: str | None = None) -> None:
    """Refuse a file name with anything that is not allowed in a wheel's.

    It is the cheap check, made before any path is formed. :func:`check_wheel_name` reads the name in full, on a miss.

    Raises:
        InvalidWheelError: where it is not a wheel's file name.
    """
    if len(filename) > _LONGEST_NAME or not _WHEEL_NAME.fullmatch(filename):
        raise _no_wheel_name(filename, operation, url, "")


def check_wheel_name(filename: str, *, operation: str, url: str | None = None) -> None:
    """Refuse a file name that packaging cannot read as a wheel's.

    Raises:
        InvalidWheelError: where it is not a wheel's file name.
    """
    # On a miss only: a file name that has a record was checked when it came, and the import costs a hit 30 ms.
    with import_lock:
        from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        parse_wheel_filename(filename)
    except InvalidWheelFilename as error:
        raise _no_wheel_name(filename, operation, url, f" ({error})") from None


def _no_wheel_name(filename: str, operation: str, url: str | None, why: str) -> InvalidWheelError:
    return InvalidWheelError(
        f"{filename[:300]!r} is not the file name of a wheel{why}",
        operation=operation,
        url=url,
        advice=(
            "Check the name: a wheel's is <name>-<version>-<python>-<abi>-<platform>.whl."
            " In Python, filename= gives one where the source has another."
        ),
    )


def is_dist_info(folder: str) -> bool:
    """Return whether a path inside a wheel is that of a ``.dist-info`` folder at its top."""
    return folder.lower().endswith(_DIST_INFO) and "/" not in folder


def check_project(
    dist_info: str, filename: str, path: str | None, *, url: str | None = None, operation: str = "unpack"
) -> None:
    """Refuse a wheel whose ``.dist-info`` folder names another project than its file name.

    Raises:
        UnsafeWheelError: if it does.
    """
    # Old tools left dashes in the project name of the folder. File names never had them.
    project = dist_info[: -len(_DIST_INFO)].rpartition("-")[0]
    if not _is_same_project(project, filename.partition("-")[0]):
        raise UnsafeWheelError(
            f"its {dist_info} belongs to another project than its file name",
            operation=operation,
            path=path,
            url=url,
            advice="Check the file name, the URL and the hash of the wheel: they do not belong together.",
        )


def _is_same_project(name: str, other: str) -> bool:
    """Return whether two project names are the same after PEP 503 normalisation."""
    if name == other:
        return True  # as nearly always: packaging is not imported then
    with import_lock:
        from packaging.utils import canonicalize_name
    return canonicalize_name(name) == canonicalize_name(other)
