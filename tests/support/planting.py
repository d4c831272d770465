"""Run ``children/plant.py``, and fail with the faults that it reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from planted import can_make_devices

SUPPORT = Path(__file__).parent


def check(users: str, combinations: Sequence[tuple[object, ...]]) -> None:
    """Make each call on a cache with its planted object, and fail with the faults of each combination."""
    folder = _folder()
    if folder is None and any("device" in combination for combination in combinations):
        pytest.skip("device nodes cannot be used here: only root can create them, on a volume without nodev")
    done = subprocess.run(
        [sys.executable, SUPPORT / "children" / "plant.py", users, folder or "/tmp"],
        input="".join(json.dumps(combination) + "\n" for combination in combinations),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])},
        capture_output=True,
        encoding="utf-8",
    )
    lines = done.stdout.splitlines()
    tried = zip(combinations, map(json.loads, lines), strict=False)
    faults = [f"{tuple(combination)}: {fault}" for combination, found in tried for fault in found]
    if done.returncode or len(lines) != len(combinations):
        faults.append(f"ended with {done.returncode} after {len(lines)} combinations: {done.stderr[-2000:]}")
    if faults:
        pytest.fail(f"{len(faults)} faults:\n" + "\n".join(faults), pytrace=False)


def _folder() -> str | None:
    """Return a folder in which devices work, preferably in memory, or ``None``."""
    for name in ("/dev/shm", "/tmp"):
        if os.path.isdir(name):
            with tempfile.TemporaryDirectory(dir=name) as folder:
                if can_make_devices(Path(folder)):
                    return name
    return None
