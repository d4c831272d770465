"""Fetch a URL with a cache without options: ``fetch.py URL FOLDER LIBRARY``. LIBRARY is ``httpx`` or ``httpx2``."""

from __future__ import annotations

import sys

from wheelcache import Cache


def main(url: str, folder: str, library: str) -> None:
    """Print the status of the wheel, and the HTTP libraries in use."""
    if library == "httpx":
        sys.modules["httpx2"] = None  # type: ignore[assignment]  # importing it fails, as if it were not installed
    with Cache(folder) as cache:
        status = cache.fetch(url).status
    print(status, *sorted({"httpx", "httpx2"} & {name for name, module in sys.modules.items() if module}))


main(*sys.argv[1:])
