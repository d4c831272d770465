"""Check that an import and a hit load no module that only the network, a lock or a retry needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import Wheel

from wheelcache import Cache

# All third-party modules, and the modules of the standard library whose import takes milliseconds.
HEAVY = {
    *(
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "h11",
        "certifi",
        "truststore",
        "requests",
        "urllib3",
        "filelock",
        "tenacity",
        "packaging",
        "platformdirs",
        "anyio",
        "installer",
        "rich",
        "click",
    ),
    *("ssl", "socket", "asyncio", "http", "email", "zipfile", "logging", "tempfile", "subprocess", "netrc"),
}
IMPORT = "import wheelcache"
OPEN = "from wheelcache import Cache; cache = Cache({path!r})"
GET = f"{OPEN}; assert cache.get({{digest!r}}); cache.close()"
FETCH = f"{OPEN}; assert cache.fetch({{url!r}}, hashes={{digest!r}}).status == 'hit'; cache.close()"


@pytest.mark.parametrize("code", [IMPORT, OPEN, GET, FETCH], ids=["import", "open", "get", "fetch"])
def test_nothing_heavy_is_imported(code: str, wheel: Wheel, tmp_path: Path) -> None:
    """An import, opening a cache, and a hit of get() or fetch() load none of the heavy modules."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with Cache(tmp_path / "cache") as cache:
        cache.put(source)
    url = f"https://example.org/{wheel.filename}"
    code = code.format(path=str(tmp_path / "cache"), digest=wheel.digest, url=url)
    assert loaded(code) & HEAVY - loaded("pass") == set()


def test_what_a_hit_does_not_need_is_not_imported(wheel: Wheel, tmp_path: Path) -> None:
    """The modules for downloads, unpacking, maintenance and AsyncCache are loaded only when they are needed."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with Cache(tmp_path / "cache") as cache:
        cache.put(source)
    later = {"_async_cache", "_installer", "_archive.wheel", "_fetch.download", "_fetch.metadata", "_fetch.partial"}
    later |= {"_unpack.extract", "_maintenance.prune", "_maintenance.verify"}
    modules = set(modules_after(GET.format(path=str(tmp_path / "cache"), digest=wheel.digest)))
    assert "wheelcache._store.lookup" in modules
    assert modules & {f"wheelcache.{name}" for name in later} == set()


def loaded(code: str) -> set[str]:
    """Return the top-level names of the modules that are loaded after some code has run."""
    return {name.partition(".")[0] for name in modules_after(code)}


def modules_after(code: str) -> list[str]:
    code = f"{code}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_this_test_can_tell() -> None:
    """These tests detect the heavy modules if they are loaded."""
    assert {"httpx", "ssl", "email"} <= loaded("import httpx") & HEAVY
