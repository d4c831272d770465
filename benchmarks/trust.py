"""Measure the cost of not trusting a cache folder: hits, unpacking and pruning, compared with another version.

python benchmarks/trust.py [rounds]

WHEELCACHE_BENCH_BEFORE names the Python of an environment with the other version of wheelcache. Without it, only this
version is measured.

The versions take turns in each round, in a private cache (mode 0700) and in a cache of a group (mode 2775). The ratios
are the medians of the ratios in the same round, so that other work of the machine counts for both.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

MODES = {"private": 0o700, "group": 0o2775}
WHEEL_SIZE = 1_000_000
FILES = 200
ENTRIES = 1000
HITS = 2000
CACHES = 200
INSTALLS = 20
NAME = "demo-1.0-py3-none-any.whl"
URL = f"https://example.org/{NAME}"


def make_wheel(path: Path, files: int, size: int) -> None:
    """Write a wheel of incompressible files."""
    contents = {f"demo/part{number % 10}/file{number}.bin": os.urandom(size // files) for number in range(files)}
    info = "demo-1.0.dist-info"
    contents[f"{info}/METADATA"] = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    rows = [f"{name},sha256={urlsafe(data)},{len(data)}\n" for name, data in contents.items()]
    contents[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def urlsafe(data: bytes) -> str:
    """Return the sha256 in the form for RECORD."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode("ascii")


def seconds(work: Callable[[], object], count: int = 1) -> float:
    """Return the median duration of a function call."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def measure(folder: Path, mode: int) -> dict[str, float]:
    """Return the seconds of each operation, with the version of wheelcache in this process."""
    from wheelcache import Cache

    root = folder / "cache"
    root.mkdir()
    root.chmod(mode)
    with Cache(root, offline=True) as cache:
        wheel = cache.put(folder.parent / NAME)
        cache.unpack(wheel)
        found = {"a repeated hit": seconds(lambda: cache.fetch(URL, hashes=wheel.digest), HITS)}

        def unpack() -> None:
            cache.unpack(wheel, folder / f"out{time.perf_counter_ns()}")

        unpack()
        found["a warm unpack"] = seconds(unpack, INSTALLS)
    firsts, opens = [], []
    for _ in range(CACHES):
        start = time.perf_counter()
        with Cache(root, offline=True) as cache:
            opened = time.perf_counter()
            cache.fetch(URL, hashes=wheel.digest)
            firsts.append(time.perf_counter() - opened)
        opens.append(opened - start)
    found["the first hit of a Cache"] = statistics.median(firsts)
    found["opening a Cache"] = statistics.median(opens)
    for _ in range(CACHES // 10):
        with Cache(root, offline=True) as cache:
            unpack()
    found["the first unpack of a Cache"] = seconds(lambda: open_to_unpack(Cache, root, folder), INSTALLS)
    source = folder / NAME
    with Cache(root) as cache:
        for number in range(ENTRIES):
            source.write_bytes(b"wheel %d" % number)
            cache.put(source, hashes=f"sha256:{digest_of(source)}")
        found["a prune that removes nothing"] = seconds(cache.prune, 5)
        found["a prune of 1,000 entries"] = seconds(lambda: cache.prune(max_size=0))
        assert not list(cache.entries())
    return found


def open_to_unpack(cache_class: type, root: Path, folder: Path) -> None:
    with cache_class(root, offline=True) as cache:
        wheel = cache.get(f"sha256:{digest_of(folder.parent / NAME)}")
        cache.unpack(wheel, folder / f"out{time.perf_counter_ns()}")


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(executable: str, folder: Path, kind: str, *, before: bool) -> dict[str, float]:
    """Measure in another process, and return its result."""
    (target := folder / kind).mkdir()
    environment = {name: value for name, value in os.environ.items() if not (before and name == "PYTHONPATH")}
    try:
        done = subprocess.run(
            [executable, __file__, "--measure", target, kind], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return json.loads(done.stdout)
    finally:
        shutil.rmtree(target)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    other = os.environ.get("WHEELCACHE_BENCH_BEFORE")
    pythons = {"now": sys.executable} | ({"before": other} if other else {})
    results: dict[tuple[str, str], list[dict[str, float]]] = {
        (kind, version): [] for kind in MODES for version in pythons
    }
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as scratch:
        make_wheel(Path(scratch, NAME), FILES, WHEEL_SIZE)
        for number in range(rounds):
            # Each version is the first one in every other round.
            for version in list(pythons)[:: 1 - 2 * (number % 2)]:
                for kind in MODES:
                    results[kind, version].append(run(pythons[version], Path(scratch), kind, before=version != "now"))
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print(f"\n{'microseconds':<30} {'private':>9} {'/before':>8} {'group':>9} {'/before':>8} {'/private':>9}")
    for name in results["private", "now"][0]:
        cells = []
        for kind in MODES:
            now = [found[name] for found in results[kind, "now"]]
            cells.append(f"{statistics.median(now) * 1e6:9.0f}")
            cells.append(f"{ratio(now, results.get((kind, 'before'), []), name):>8}")
        group = [found[name] for found in results["group", "now"]]
        print(f"{name:<30} {' '.join(cells)} {ratio(group, results['private', 'now'], name):>9}", flush=True)


def ratio(values: list[float], others: list[dict[str, float]], name: str) -> str:
    """Return the median of the ratios, or an empty string if there is nothing to compare with."""
    if not others:
        return ""
    return f"{statistics.median(value / other[name] for value, other in zip(values, others, strict=True)):.2f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), MODES[sys.argv[3]])))
    else:
        main()
