"""Download wheels with one library, and print the seconds and the additional megabytes. Started by fetch.py.

python benchmarks/downloads.py LIBRARY REQUESTS FOLDER

REQUESTS is a JSON file with a list of URL, hash and size. The first one is downloaded before the clock starts, so that
the time contains neither the start of the interpreter nor imports. Each library creates its client within the time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

JOBS = 8
CHUNK = 1 << 20


def main() -> None:
    library, requests, folder = sys.argv[1:]
    first, *rest = json.loads(Path(requests).read_text())
    (warm := Path(folder, "warm")).mkdir()
    LIBRARIES[library](warm, [first])
    memory = peak_memory()
    start = time.perf_counter()
    LIBRARIES[library](Path(folder), rest)
    print(json.dumps([time.perf_counter() - start, peak_memory() - memory]))


def peak_memory() -> float:
    """Return the most megabytes that this process has used, on Linux."""
    # getrusage includes the parent's memory at the fork.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")) / 1e6


def with_wheelcache(folder: Path, wheels: list[Any]) -> None:
    from wheelcache import Cache, WheelRequest

    with Cache(folder / "cache") as cache:
        cache.fetch_all([WheelRequest(*wheel) for wheel in wheels])


def with_httpx(folder: Path, wheels: list[Any]) -> None:
    import httpx

    def chunks(url: str) -> Iterable[bytes]:
        with client.stream("GET", url) as response:
            yield from response.iter_raw()

    with httpx.Client() as client:
        in_threads(folder, wheels, chunks)


def with_requests(folder: Path, wheels: list[Any]) -> None:
    import requests

    def chunks(url: str) -> Iterable[bytes]:
        with session.get(url, stream=True) as response:
            yield from response.iter_content(CHUNK)

    with requests.Session() as session:
        in_threads(folder, wheels, chunks)


def in_threads(folder: Path, wheels: list[Any], chunks: Callable[[str], Iterable[bytes]]) -> None:
    """Write and hash the chunks of each wheel."""

    def download(wheel: Any) -> None:
        url, expected, _ = wheel
        running = hashlib.sha256()
        with open(folder / name_of(url), "wb", 0) as file:
            for chunk in chunks(url):
                running.update(chunk)
                file.write(chunk)
        assert f"sha256:{running.hexdigest()}" == expected

    with ThreadPoolExecutor(JOBS) as threads:
        list(threads.map(download, wheels))


def with_huggingface_hub(folder: Path, wheels: list[Any]) -> None:
    """Download as the library does, which checks the size only."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub.file_download import http_get

    def download(wheel: Any) -> None:
        url, _, size = wheel
        with open(folder / name_of(url), "wb") as file:
            http_get(url, file, expected_size=size, displayed_filename="wheel")

    with ThreadPoolExecutor(JOBS) as threads:
        list(threads.map(download, wheels))


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


LIBRARIES = {
    "wheelcache": with_wheelcache,
    "httpx": with_httpx,
    "requests": with_requests,
    "huggingface_hub": with_huggingface_hub,
}

if __name__ == "__main__":
    main()
