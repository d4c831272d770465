"""Test that ``.ci/run`` fails if a test is skipped because a package is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from marks import any_system

pytestmark = any_system

_ROOT = Path(__file__).parents[1]
_SKIPPING = """
import pytest

def test_imports():
    pytest.importorskip("no_such_package_anywhere")

@pytest.mark.skipif(True, reason="the package is not installed")
def test_marked():
    pass

@pytest.mark.skipif(True, reason="there is no second volume here")
def test_of_another_machine():
    pass
"""


def missing_package() -> re.Pattern[str]:
    """Return the pattern with which .ci/run finds the skips for missing packages."""
    found = re.search(r"^missing_package='(.*)'$", (_ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return re.compile(found[1])


def test_the_skip_of_a_missing_package_is_recognised(tmp_path: Path) -> None:
    """The pattern of .ci/run matches the report of pytest for a missing package, and no other skip."""
    (tmp_path / "test_skipping.py").write_text(_SKIPPING, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 skipped" in done.stdout
    lines = [line for line in done.stdout.splitlines() if missing_package().search(line)]
    assert len(lines) == 2
    assert not any("second volume" in line for line in lines)


def test_every_reason_for_a_missing_package_is_recognised() -> None:
    """A test that looks for a package gives a reason that the pattern matches."""
    marks = re.compile(r"(?:skipif\(\s*find_spec\(|importorskip\().*?reason=\"(.*?)\"", re.DOTALL)
    reasons = [reason for path in (_ROOT / "tests").rglob("*.py") for reason in marks.findall(path.read_text("utf-8"))]
    assert reasons
    # Windows has no termios, and is no reason to fail on Linux.
    others = [reason for reason in reasons if not missing_package().search(f"SKIPPED {reason}")]
    assert others == ["there are no such terminals here"]
