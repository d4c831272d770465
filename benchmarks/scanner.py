"""Measure the cost of a scanner that holds every new file and folder for 30 s while a wheel is fetched and unpacked.

tests/windows/python benchmarks/scanner.py [rounds]

Runs under the Windows Python of the tests, with their scanner (tests/windows/README.md). The wheel has 10 MB. Rounds
with and without the scanner alternate. Only the ratio is meaningful, since Wine is slow. A wait for the scanner shows
in the ratio, because a round takes a small fraction of 30 s.

If the scanner shares nothing, no other process can read the wheel that is to be unpacked until the scanner has closed
both of its names, one after the other. This case is measured once, with a scanner that holds files for 10 s.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from archives import FILENAME, Entry, wheel
from scanner import SHARES, watching
from server import Server
from wheels import Wheel

from wheelcache import Cache

FILES, FILE_SIZE = 200, 50_000
HOLD_MS = 30_000
# A scanner that shares nothing excludes itself from the second name of a file, and Wine leaks a handle per attempt.
NONE_HOLD_MS = 10_000


def big_wheel() -> Wheel:
    """Return a wheel of 10 MB that cannot be compressed."""
    noise = random.Random(0)
    entries = [Entry(f"big/part{number % 10}/{number}.py", noise.randbytes(FILE_SIZE)) for number in range(FILES)]
    return Wheel(FILENAME, wheel(entries))


def hold_of(share: str) -> int:
    return NONE_HOLD_MS if share == "none" else HOLD_MS


def bring(server: Server, wheel: Wheel, share: str | None) -> float:
    """Fetch a wheel into a new cache and unpack it, with or without a scanner. Return the seconds."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        scanner = None if share is None else stack.enter_context(watching(folder, share=share, ms=hold_of(share)))
        start = time.perf_counter()
        with Cache(Path(folder, "cache"), io_timeout=120.0) as cache:
            fetched = cache.fetch(wheel.on(server), hashes=wheel.digest)
            site = cache.unpack(fetched, Path(folder, "site"))
        seconds = time.perf_counter() - start
        if scanner is not None:
            scanner.wait_for(f"held {site.path}")
        return seconds


def main() -> None:
    """Measure, and print the results."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    wheel = big_wheel()
    print(f"a wheel of {wheel.size / 1e6:.1f} MB with {FILES} files, fetched and unpacked")
    with Server() as server:
        bring(server, wheel, None)
        for share in SHARES:
            times = 1 if share == "none" else rounds
            seconds = [(bring(server, wheel, None), bring(server, wheel, share)) for _ in range(times)]
            without, held = (statistics.median(column) for column in zip(*seconds, strict=True))
            print(
                f"held for {hold_of(share) // 1000} s, sharing {share:4}  {held:6.2f} s, without {without:6.2f} s: "
                f"{held / without:.2f} times{' (it must wait)' if share == 'none' else ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
