"""What an import and a hit pull in: nothing that only the network, a lock or a retry needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import Wheel

from wheelcache import Cache

# Of third parties, everything; of the standard library, what takes milliseconds.
HEAVY = {
    *(
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "h11",
        "certifi",
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
    """Importing, opening a cache, get() and fetch() of what is there load none of the heavy modules."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with Cache(tmp_path / "cache") as cache:
        cache.put(source)
    url = f"https://example.org/{wheel.filename}"
    code = code.format(path=str(tmp_path / "cache"), digest=wheel.digest, url=url)
    assert loaded(code) & HEAVY - loaded("pass") == set()


def test_what_a_hit_does_not_need_is_not_imported(wheel: Wheel, tmp_path: Path) -> None:
    """Neither downloading nor unpacking, keeping or awaiting is loaded before it is called for."""
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
    """Return the top names of the modules that are there after some code has run."""
    return {name.partition(".")[0] for name in modules_after(code)}


def modules_after(code: str) -> list[str]:
    code = f"{code}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_this_test_can_tell() -> None:
    """The modules that must not be loaded are seen when they are."""
    assert {"httpx", "ssl", "email"} <= loaded("import httpx") & HEAVY
