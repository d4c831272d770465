"""TODO."""

from __future__ import annotations

import re

from ._exceptions import InvalidWheelError, UnsafeWheelError

# The characters of wheel file names: those of names, versions (with epoch and local part), build and platform tags:
# https://packaging.python.org/en/latest/specifications/binary-distribution-format/#file-name-convention
# Checked before any path is formed, so that no file name can leave its folder on any system.
_WHEEL_NAME = re.compile(r"[a-z0-9_.+!]+(?:-[a-z0-9_.+!]+){4,5}\.whl", re.ASCII | re.IGNORECASE)
# 255 is the longest name of common file systems; the record adds ".json".
_LONGEST_NAME = 250
_DIST_INFO = ".dist-info"
_RUNS = re.compile(r"[-_.]+")


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
    """Whether a folder of a wheel is the one that tells of it."""
    return folder.lower().endswith(_DIST_INFO) and "/" not in folder


def check_project(dist_info: str, filename: str, path: str) -> None:
    """Refuse the wheel at ``path`` where it tells of another project than its file name.

    Raises:
        UnsafeWheelError: where it does.
    """
    # Old tools left dashes in the folder's name; those of the file name were never allowed to.
    project = dist_info[: -len(_DIST_INFO)].rpartition("-")[0]
    if _canonical(project) != _canonical(filename.partition("-")[0]):
        raise UnsafeWheelError(
            f"its {dist_info} belongs to another project than its file name",
            operation="unpack",
            path=path,
            advice="Check the file name, the URL and the hash that the wheel was fetched by: they do not go together.",
        )


def _canonical(name: str) -> str:
    return _RUNS.sub("-", name).lower()
