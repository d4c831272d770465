"""The ``.dist-info`` folder of a wheel, and the project that it belongs to."""

from __future__ import annotations

import re

from .._exceptions import UnsafeWheelError

_DIST_INFO = ".dist-info"
_RUNS = re.compile(r"[-_.]+")


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
