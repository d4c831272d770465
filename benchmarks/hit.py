"""Measure the cost of a hit, compared with reading one small file and a ``stat`` of another.

python benchmarks/hit.py [entries]
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from wheelcache import Cache, CachedWheel

ROUNDS = 9


def wheel(number: int) -> bytes:
    """Return a small archive that is different for each number."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("number.py", str(number))
    return data.getvalue()


def median(work: Callable[[], None]) -> float:
    """Return the median duration of a function call in seconds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def process(code: str, *arguments: str) -> float:
    """Return the median duration of a whole Python process in seconds."""
    return median(lambda: subprocess.run([sys.executable, "-c", code, *arguments], check=True))


def bare(wheels: list[CachedWheel]) -> None:
    """Read one small file and ``stat`` another, which is the minimum for any cache."""
    for each in wheels:
        path = str(each.path)
        with open(path.removesuffix(".whl") + ".json", "rb") as file:
            json.loads(file.read())
        os.stat(path)


def main() -> None:
    """Measure, and print the results."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        with Cache(folder) as cache:
            wheels = [cache.put(io.BytesIO(wheel(n)), filename=f"n{n}-1-py3-none-any.whl") for n in range(count)]
        urls = [(f"https://example.org/{each.filename}", each.digest) for each in wheels]

        def hits() -> None:
            with Cache(folder) as cache:
                for url, digest in urls:
                    cache.fetch(url, hashes=digest)

        def hits_again(cache: Cache) -> None:
            for url, digest in urls:
                cache.fetch(url, hashes=digest)

        floor = median(lambda: bare(wheels))
        first = median(hits)
        with Cache(folder) as warm:
            hits_again(warm)
            again = median(lambda: hits_again(warm))
        print(f"{count} entries, microseconds each: read and stat {floor / count * 1e6:.1f}")
        print(f"  hit, first in its Cache  {first / count * 1e6:7.1f}   {first / floor:.2f} times that")
        print(f"  hit, again               {again / count * 1e6:7.1f}   {again / floor:.2f} times that")

        nothing = process("pass")
        imported = process("import wheelcache")
        one = process(
            "import sys, wheelcache; wheelcache.Cache(sys.argv[1]).fetch(sys.argv[2], hashes=sys.argv[3]).path",
            str(Path(folder)),
            *urls[0],
        )
        print(f"whole process, milliseconds: bare Python {nothing * 1e3:.1f}")
        print(f"  import wheelcache        {imported * 1e3:7.1f}   {imported / nothing:.2f} times that")
        print(f"  and one hit              {one * 1e3:7.1f}   {one / nothing:.2f} times that")


if __name__ == "__main__":
    main()
