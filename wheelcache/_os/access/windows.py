"""Whether other users can write to folders, on Windows."""

from __future__ import annotations

from collections.abc import Sequence


def is_private(paths: Sequence[str]) -> bool:  # noqa: ARG001 - access control lists are not examined yet
    """Return whether only the current user, SYSTEM and Administrators can write to all of these folders."""
    return False
