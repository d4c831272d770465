"""Sixteen processes fetch the same twenty wheels, and are killed and restarted at random."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from folders import unfinished
from marks import not_on_windows
from server import Exchange, Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache

pytestmark = not_on_windows("a process takes a second to start under Wine, and this lets them live for less")


CHILD = Path(__file__).parent / "support" / "children" / "storm.py"
PART = 1 << 16


@pytest.mark.parametrize(
    ("processes", "count", "size", "kills"),
    [pytest.param(3, 4, 300_000, 10), pytest.param(16, 20, 1_000_000, 150, marks=pytest.mark.slow)],
)
def test_killed_and_started_again(
    processes: int, count: int, size: int, kills: int, server: Server, tmp_path: Path
) -> None:
    """At the end, every wheel is in the cache and right, and the server has sent at most 1.5 times their sizes."""
    wheels = [Wheel(wheel_filename(f"storm{n}"), make_wheel(f"storm{n}", size=size)) for n in range(count)]
    rng = random.Random(4)

    def slowly(exchange: Exchange) -> None:
        # Slow enough for most kills to hit a transfer, without bytes in buffers that are never read.
        code, headers, body = exchange.right_answer()
        exchange.start(code, headers, length=len(body))
        for start in range(0, len(body), PART):
            exchange.write(body[start : start + PART])
            time.sleep(0.002)

    urls = [f"{wheel.on(server, how=slowly)}#{wheel.digest.replace(':', '=')}" for wheel in wheels]
    root = tmp_path / "cache"

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, CHILD, root, str(rng.random()), *urls]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    crowd = [start() for _ in range(processes)]
    try:
        for _ in range(kills):
            number = rng.randrange(processes)
            if rng.random() < 0.5:
                # Killed right after a wheel was added, or at any moment of the start, a wait, a download or a commit.
                crowd[number].stdout.readline()
            crowd[number].kill()
            crowd[number].communicate()
            crowd[number] = start()
        for child in crowd:
            child.communicate(timeout=100)
            assert child.returncode == 0
    finally:
        for child in crowd:
            child.kill()
            child.communicate()
    with Cache(root) as cache:
        for wheel in wheels:
            found = cache.get(wheel.digest)
            assert found is not None
            assert found.path.read_bytes() == wheel.data
        assert [name for name in unfinished(cache) if name.startswith("v1/partial/") and name.endswith(".part")] == []
    assert server.sent() <= 1.5 * count * size
