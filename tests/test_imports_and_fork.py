"""A fork never interrupts an import that wheelcache starts, as :mod:`wheelcache._imports` explains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from marks import not_on_windows
from server import Server
from wheels import Wheel

_CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "support", "children", "importing.py")

pytestmark = not_on_windows("Windows has no fork")


def run(mode: list[str], server: Server, wheel: Wheel, folder: Path) -> Any:
    """Run a process that watches its imports, and return its results."""
    command = [sys.executable, _CHILD, mode[0], str(folder / "cache"), wheel.on(server), wheel.digest, *mode[1:]]
    (folder / "cache").mkdir()
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_each_import_holds_the_lock(server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """No public call imports a module without the lock that a fork waits for."""
    assert run(["trace"], server, wheel, tmp_path) == []


@pytest.mark.parametrize("passed", [0, 10, 40, 100])
def test_a_fork_in_the_middle_of_an_import(passed: int, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """If a process forks while another thread imports modules for its first fetch, the child can also fetch."""
    found = run(["fork", str(passed)], server, wheel, tmp_path)
    assert found["names"]
    assert found["hung"] == []
