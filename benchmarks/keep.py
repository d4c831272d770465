"""Measure the maintenance of a cache per entry, as it grows, against a bare walk over the same files.

python benchmarks/keep.py [entries ...]          the default is 1000 10000 100000; 1000000 needs 12 GB of disk space,
                                                 and takes half an hour if the files do not fit into memory

The entries have real records and tiny blobs, so that the time is spent on the entries and not on their bytes.
"""

from __future__ import annotations

import gc
import hashlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from wheelcache import Cache
from wheelcache._os.system import System
from wheelcache._store.layout import Layout
from wheelcache._store.records import Record, StatFingerprint, encode_record

ROUNDS = 3
# A million entries are measured once.
MILLION = 1_000_000
HITS = 2000
_FIRST_USE = 1_500_000_000


def blob(number: int) -> bytes:
    """Return the bytes of a wheel."""
    return b"wheel number %12d" % number


def filename(number: int) -> str:
    """Return the file name of a wheel."""
    return f"n{number}-1.0-py3-none-any.whl"


def build(root: str, count: int) -> None:
    """Create the entries."""
    layout, boot = Layout(root), System().boot()
    for shard in range(256):
        os.makedirs(os.path.join(layout.wheels, f"{shard:02x}"), exist_ok=True)
    for number in range(count):
        data, name = blob(number), filename(number)
        sha256 = hashlib.sha256(data).hexdigest()
        os.mkdir(layout.entry(sha256))
        with open(layout.blob(sha256, name, 0), "wb", buffering=0) as file:
            file.write(data)
            stat = os.fstat(file.fileno())
        record = Record(
            name, sha256, len(data), StatFingerprint(stat.st_mtime_ns, stat.st_ino, boot), created=_FIRST_USE
        )
        path = layout.record(sha256, name)
        with open(path, "wb", buffering=0) as file:
            file.write(encode_record(record))
        os.utime(path, (_FIRST_USE + number,) * 2)


def bare_walk(root: str) -> int:
    """List each folder and read the status of each file, which is the least that a walk can do."""
    total, folders = 0, [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += os.lstat(entry.path).st_size
    return total


def reading_walk(root: str) -> None:
    """Walk over all files, and read and hash each."""
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    with open(entry.path, "rb", buffering=0) as file:
                        hashlib.sha256(file.read())


def bare_removal(root: str, count: int) -> float:
    """Return the seconds that the system needs to delete entries, each of which has two files and a folder."""
    folders = []
    for shard in os.scandir(os.path.join(root, "v1", "wheels")):
        folders += [entry.path for entry in os.scandir(shard.path)]
    files = [[entry.path for entry in os.scandir(folder)] for folder in folders[:count]]
    start = time.perf_counter()
    for folder, paths in zip(folders, files, strict=False):
        for path in paths:
            os.unlink(path)
        os.rmdir(folder)
    return time.perf_counter() - start


def seconds(work: Callable[[], object]) -> float:
    """Return the duration of a function call."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def hits(root: str, count: int) -> None:
    """Fetch wheels from all parts of the cache, each for the first time."""
    chance = random.Random(0)
    with Cache(root) as cache:
        for number in chance.sample(range(count), min(HITS, count)):
            digest = hashlib.sha256(blob(number)).hexdigest()
            cache.fetch(f"https://example.org/{filename(number)}", hashes=f"sha256:{digest}")


def measure(root: str, count: int) -> dict[str, float]:
    """Return the median seconds of each operation, measured in turns."""
    with Cache(root) as cache:
        wheels = str(cache.path)
        size = len(blob(0))
        hits(root, count)  # marks the wheels as used today, so that later hits do not
        works: dict[str, Callable[[], object]] = {
            "walk": lambda: bare_walk(wheels),
            "read": lambda: reading_walk(wheels),
            "hits": lambda: hits(root, count),
            "stats": cache.stats,
            "prune": lambda: cache.prune(max_size=count * size),
            "verify": cache.verify,
        }
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(ROUNDS if count < MILLION else 1):
            for name, work in works.items():
                taken[name].append(seconds(work))
        found = {name: statistics.median(values) for name, values in taken.items()}
        half = count // 2
        pruned = seconds(lambda: cache.prune(max_size=(count - half) * size))
        found["removal"] = max(pruned - found["prune"], 0.0) / half * count
        found["bare removal"] = bare_removal(wheels, half // 2) / (half // 2) * count
        return found


def main() -> None:
    """Measure, and print the results."""
    counts = [int(text) for text in sys.argv[1:]] or [1000, 10_000, 100_000]
    columns = ("walk", "hit", "stats", "/walk", "prune", "/walk", "removal", "/bare", "verify", "/read")
    print(
        "Microseconds per entry, per hit and per removed entry, and the ratio to a bare walk, to bare deletion, and to"
    )
    print("a walk that reads and hashes every file. Prune finds nothing to remove; removal is the additional time when")
    print("it removes half of the entries.")
    print(f"{'entries':>9}  " + "  ".join(f"{name:>10}" for name in columns))
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            root = str(Path(folder, "cache"))
            Cache(root).close()
            build(root, count)
            found = measure(root, count)
        each = {name: value / count * 1e6 for name, value in found.items()}
        hit = found["hits"] / min(HITS, count) * 1e6
        cells = [each["walk"], hit]
        for name, bare in (("stats", "walk"), ("prune", "walk"), ("removal", "bare removal"), ("verify", "read")):
            cells += [each[name], each[name] / each[bare]]
        print(f"{count:>9}  " + "  ".join(f"{cell:>10.2f}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
