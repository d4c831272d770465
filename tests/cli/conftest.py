"""Fixtures of the command-line tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from server import Server
from shell import APP, LIB, OLD_LIB, Shell
from simple_index import Index


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """An environment that runs the command line."""
    return Shell(tmp_path)


@pytest.fixture
def index(server: Server, shell: Shell) -> Index:
    """An index for pip: an application, and two versions of the library that it requires."""
    index = Index(server, [APP, OLD_LIB, LIB])
    shell.environment["PIP_INDEX_URL"] = index.url()
    return index
