"""Export: many wheels out of the cache into one folder, under their true names, for installers to find."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ._call import Call
from ._deliver import Deliver
from ._wheel import CachedWheel, LinkMode, require_wheel


def export(
    call: Call,
    deliver: Deliver,
    wheels: Iterable[CachedWheel],
    dest: str | os.PathLike[str],
    mode: LinkMode,
    *,
    each: bool,
) -> list[Path]:
    """Link wheels into a folder; with ``each``, one that is gone is an error. ``Cache.export`` is the contract."""
    if isinstance(wheels, CachedWheel):
        raise TypeError("wheels is a list of wheels, not one wheel")
    folder = os.path.abspath(dest)
    chosen: dict[str, CachedWheel] = {}
    for wheel in wheels:
        require_wheel(wheel)
        # Folded, since the folder may be on a file system that folds case.
        other = chosen.setdefault(wheel.filename.lower(), wheel)
        if other.digest != wheel.digest:
            raise ValueError(
                f"two different wheels are called {wheel.filename}, and one folder cannot hold both: "
                f"{other.digest} and {wheel.digest}. Say which by wheels, or remove one by its digest"
            )
    call.disk.make_folder(folder)
    paths = []
    for wheel in chosen.values():
        path = os.path.join(folder, wheel.filename)
        try:
            deliver.link(call, wheel, path, mode)
        except FileNotFoundError:
            if each:
                raise
            continue  # it was pruned since it was listed
        paths.append(Path(path))
    return paths
