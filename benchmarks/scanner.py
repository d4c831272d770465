"""What a scanner costs that holds every new file and folder for 30 s, while a wheel of 10 MB is fetched and linked.

Under the Windows Python of the tests, whose scanner it takes (tests/windows/README.md):

tests/windows/python benchmarks/scanner.py [rounds]

Each round is done with a scanner and without, in turns. No speed is measured there, only the ratio. Where another tool
waits for the scanner, or fails, the ratio shows it: 30 s are many times what a round takes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from scanner import SHARES, watching
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache

SIZE = 10_000_000
HOLD_MS = 30_000


def bring(server: Server, wheel: Wheel, share: str | None) -> float:
    """Fetch a wheel into an empty cache and bring it out, with a scanner or without; return the seconds."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root, out = Path(folder, "cache"), Path(folder, "out")
        root.mkdir()
        with nullcontext() if share is None else watching(root, share=share, ms=HOLD_MS):
            start = time.perf_counter()
            with Cache(root, io_timeout=120.0) as cache:
                fetched = cache.fetch(wheel.on(server), hashes=wheel.digest)
                cache.link(fetched, out / fetched.filename)
            return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    wheel = Wheel(wheel_filename("big"), make_wheel("big", size=SIZE))
    with Server() as server:
        bring(server, wheel, None)
        for share in SHARES:
            seconds = [(bring(server, wheel, None), bring(server, wheel, share)) for _ in range(rounds)]
            without, held = (statistics.median(column) for column in zip(*seconds, strict=True))
            print(
                f"held for 30 s, sharing {share:4}  {held:6.2f} s, without {without:6.2f} s: {held / without:.2f} times"
            )


if __name__ == "__main__":
    main()
