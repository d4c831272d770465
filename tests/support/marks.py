"""Marks for tests that cannot run everywhere, with the reason. There are few."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest


def not_on_windows(reason: str) -> pytest.MarkDecorator:
    """Skip a test on Windows, and give the reason."""
    return pytest.mark.skipif(sys.platform == "win32", reason=reason)


on_windows = pytest.mark.skipif(sys.platform != "win32", reason="Windows only: tests/windows/setup gets one")
"""For what only Windows has: its file layer, its codes."""

with_scanner = pytest.mark.skipif(
    "WHEELCACHE_SCANNER" not in os.environ, reason="needs the scanner of the Windows lab: tests/windows/setup"
)
"""For what needs a process that holds files as an antivirus does."""

with_uv = pytest.mark.skipif(find_spec("uv") is None, reason="no uv; its Windows program does not start under Wine 8")
"""For what uv must be able to do with what is cached."""
