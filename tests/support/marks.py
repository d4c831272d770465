"""Marks for tests that cannot run on every platform, with the reason."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from importlib.util import find_spec

import pytest


def not_on_windows(reason: str) -> pytest.MarkDecorator:
    """Skip a test on Windows, and give the reason."""
    return pytest.mark.skipif(sys.platform == "win32", reason=reason)


on_windows = pytest.mark.skipif(sys.platform != "win32", reason="Windows only: tests/windows/setup gets one")
"""For tests of the file layer and the error codes of Windows."""

any_system = pytest.mark.any_system
"""For tests whose outcome is the same on every system. Under Windows, they run only with ``--everything``."""


def under_windows(names: Collection[str], kept: Collection[str]) -> list[object]:
    """Return names as parameters, of which Windows runs only those to keep, unless ``--everything`` is given."""
    assert set(kept) <= set(names)
    return [name if name in kept else pytest.param(name, marks=any_system) for name in names]


with_scanner = pytest.mark.skipif(
    "WHEELCACHE_SCANNER" not in os.environ, reason="needs the scanner of the Windows lab: tests/windows/setup"
)
"""For tests that need a process that holds files like a virus scanner."""

with_uv = pytest.mark.skipif(find_spec("uv") is None, reason="uv is not installed: it does not start under Wine 8")
"""For tests of uv with the files of a cache."""

needs_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can be several users in one test"
)
"""For tests whose processes run as different users."""
