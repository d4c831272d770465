"""The scanner of the tests: a Windows process that opens files and folders and denies sharing.

    with holding(path, share="r") as scanner: ...       # these, now
    with watching(folder, share="none") as scanner: ...  # all that appears below a folder, as it appears

It holds the files until the block ends, so an operation that ends earlier has not waited for it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARES = ("none", "r", "rw", "rwd")
"""The access that other processes have to a held file: none, reading, reading and writing, or all."""

_STARTS_WITHIN = 60
_BACKSTOP_SECONDS = 300


class Scanner:
    """A running scanner.

    Attributes:
        pid: its process.
    """

    def __init__(self, log: Path, process: subprocess.Popen[bytes]) -> None:
        self._log = log
        self._process = process
        self.pid = process.pid

    def lines(self) -> list[str]:
        """Return its output so far, a line for each file: ``held PATH``."""
        return self._log.read_text("utf-8").splitlines()

    def wait_for(self, line: str) -> None:
        """Wait until it has printed a line."""
        deadline = time.monotonic() + _STARTS_WITHIN
        while line not in self.lines():
            assert time.monotonic() < deadline, f"no {line!r} in {self.lines()}"
            time.sleep(0.005)

    def held(self) -> list[str]:
        """Return the paths that it has held so far."""
        return [line.removeprefix("held ") for line in self.lines() if line.startswith("held ")]


@contextmanager
def _running(*arguments: str) -> Iterator[Scanner]:
    with tempfile.TemporaryDirectory(prefix="scanner") as folder:
        log, stop = Path(folder, "log"), Path(folder, "stop")
        # A file, because a pipe that is not read would fill up and block the scanner.
        with log.open("wb") as out:
            command = [os.environ["WHEELCACHE_SCANNER"], *arguments, "--stop-file", str(stop)]
            process = subprocess.Popen([*command, "--seconds", str(_BACKSTOP_SECONDS)], stdout=out)
        try:
            yield Scanner(log, process)
        finally:
            stop.touch()
            assert process.wait(_STARTS_WITHIN) == 0


@contextmanager
def holding(*paths: str | Path, share: str, ms: int | str = "forever", access: str = "read") -> Iterator[Scanner]:
    """Hold files or folders. The block begins once all are held."""
    with _running("hold", *map(str, paths), "--share", share, "--ms", str(ms), "--access", access) as scanner:
        for path in paths:
            scanner.wait_for(f"held {path}")
        yield scanner


@contextmanager
def watching(folder: str | Path, *, share: str, ms: int | str = "forever", only: str = "both") -> Iterator[Scanner]:
    """Hold everything that appears below a folder from now on, except in folders that existed before.

    Wine does not report the latter: https://gitlab.winehq.org/wine/wine/-/blob/wine-8.0/server/change.c.
    """
    with _running("watch", str(folder), "--share", share, "--ms", str(ms), "--only", only) as scanner:
        scanner.wait_for("ready")
        yield scanner
