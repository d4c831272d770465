"""This version and the one before the restructuring can use the same cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

# The last commit before the packages.
_COMMIT = "3221dc21c51dd5b9dae6d1ef4b75ec14c0449d0d"
_PROJECT = Path(__file__).parents[1]
_CHILD = str(Path(__file__).parent / "support" / "children" / "other_version.py")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Yield the folder of the other version."""
    folder = tmp_path_factory.mktemp("other version")
    archive = folder / "other.tar"
    try:
        subprocess.run(
            ["git", "-C", str(_PROJECT), "archive", f"--output={archive}", _COMMIT, "wheelcache"],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and the project's history")
    subprocess.run(["tar", "-xf", str(archive), "-C", str(folder)], check=True)
    return folder


def run(version: Path, step: str, root: Path, url: str, source: Path) -> Any:
    """Run a step in a process of this version, and return its results."""
    result = subprocess.run(
        [sys.executable, _CHILD, step, str(root), url, str(source)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(version)},
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def first_and_second(other: Path, direction: str) -> tuple[Path, Path]:
    return (other, _PROJECT) if direction == "old to new" else (_PROJECT, other)


DIRECTIONS = ["old to new", "new to old"]


def without_status(wheels: list[Any]) -> list[Any]:
    return [[*facts[:2], *facts[3:]] if isinstance(facts, list) else facts for facts in wheels]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_cache_of_the_other_version(direction: str, other: Path, server: Server, tmp_path: Path) -> None:
    """Wheels, second names, trees and URLs of one version are hits of the other, which finds nothing wrong."""
    first, second = first_and_second(other, direction)
    wheel = Wheel(wheel_filename("fetched"), make_wheel("fetched", size=9000))
    url = wheel.on(server, Cache_Control="max-age=3600")
    source = tmp_path / wheel_filename()
    source.write_bytes(make_wheel(size=8000))
    root = tmp_path / "cache"
    made = run(first, "fill", root, url, source)
    server.forget()
    before = {path: path.stat().st_mtime_ns for path in (root / "v1" / "wheels").rglob("*.json")}
    used = run(second, "use", root, url, source)
    assert server.count() == 0
    # If a wheel is hashed again, its record is rewritten.
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path.name: after[path] for path in before} == {path.name: time for path, time in before.items()}
    assert without_status(used["wheels"]) == without_status(made)
    assert used["wheels"][2][2] == "hit"
    assert used["got"][1:3] == [made[0][1], "hit"]
    assert used["problems"] == []
    assert used["pruned"] == [0, 0, 0]
    assert used["stats"] == run(first, "use", root, url, source)["stats"]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_download_that_the_other_version_began(direction: str, other: Path, server: Server, tmp_path: Path) -> None:
    """One version resumes a download that the other has begun."""
    first, second = first_and_second(other, direction)
    wheel = Wheel(wheel_filename("large"), make_wheel("large", size=2_000_000))
    url = f"{wheel.on(server)}#{wheel.digest.replace(':', '=')}"
    root = tmp_path / "cache"
    run(first, "cut", root, url, tmp_path)
    server.forget()
    found = run(second, "resume", root, url, tmp_path)
    assert found[1:3] == [wheel.digest, "resumed"]
    assert 0 < server.sent(url) < wheel.size - 400_000
