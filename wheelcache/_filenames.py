"""TODO."""

from __future__ import annotations

import re

from ._exceptions import InvalidWheelError

# The characters of wheel file names: those of names, versions (with epoch and local part), build and platform tags:
# https://packaging.python.org/en/latest/specifications/binary-distribution-format/#file-name-convention
# Checked before any path is formed, so that no file name can leave its folder on any system.
_WHEEL_NAME = re.compile(r"[a-z0-9_.+!]+(?:-[a-z0-9_.+!]+){4,5}\.whl", re.ASCII | re.IGNORECASE)
# 255 is the longest name of common file systems; the record adds ".json".
_LONGEST_NAME = 250


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
