"""Fixtures of all tests, which keep settings of the machine out of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest
from hypothesis import settings
from machines import Machine
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache

# The duration of an example depends on the load of the machine, not on the code.
settings.register_profile("wheelcache", deadline=None)
settings.load_profile("wheelcache")

_OF_THE_MACHINE = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "WHEELCACHE_DIR",
)


# The timeout of a test under the Windows interpreter: file operations are much slower there, and a test that times out
# ends the whole run.
_WINDOWS_SECONDS = 600


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let the tests' processes receive Ctrl-C, set the usual umask, and raise the default timeout under Windows."""
    # With the umask 0002, the group could write to the caches of the tests, so they would count as shared.
    os.umask(0o022)
    # A shell makes background processes ignore Ctrl-C, which every child process would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "win32" and config.getoption("timeout", None) is None:
        config.option.timeout = _WINDOWS_SECONDS


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs the tests of any system under Windows."""
    parser.addoption(
        "--everything", action="store_true", help="under Windows, run the tests that do not depend on the system, too"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under Windows, deselect the tests that do not depend on the system."""
    if sys.platform != "win32" or config.getoption("everything"):
        return
    deselected = [item for item in items if item.get_closest_marker("any_system")]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if not item.get_closest_marker("any_system")]


def pytest_make_parametrize_id(val: object) -> str | None:
    """Identify functions among the parameters by name, since their addresses differ in each process."""
    return val.__qualname__.replace("<locals>.", "") if isinstance(val, FunctionType) else None


def pytest_report_header() -> str | None:
    """Report how this suite runs under Windows, too."""
    lab = Path(__file__).parent / "windows"
    if sys.platform == "win32" or not lab.is_dir():
        return None
    return (
        "windows: not here; tests/windows/setup gets a Windows Python, tests/windows/python -m pytest runs this with it"
    )


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep proxies, credentials and caches of this machine out of every test."""
    for name in _OF_THE_MACHINE:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc here"))
    # With an empty folder of certificates, no client reads those of the system. Tests of TLS set their own.
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


@pytest.fixture
def server() -> Iterator[Server]:
    """A server for this test alone."""
    with Server() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """Another origin: the same host at another port."""
    with Server() as server:
        yield server


@pytest.fixture
def machine() -> Machine:
    """A machine whose clock never waits."""
    return Machine()


@pytest.fixture
def cache(machine: Machine, tmp_path: Path) -> Iterator[Cache]:
    """An empty cache, on ``machine``."""
    with machine.cache(tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def wheel() -> Wheel:
    """A wheel of 10,000 bytes."""
    return Wheel(wheel_filename(), make_wheel(size=10_000))


@pytest.fixture
def other_wheel() -> Wheel:
    """Another wheel, of the same size."""
    return Wheel(wheel_filename("other"), make_wheel("other", size=10_000))
