"""A process with a cache: it reports when it is ready, obeys commands, and prints the results.

Its only argument is JSON: ``root``, ``fetch`` (pairs of URL and digest) or ``put`` (paths), ``options`` of the cache,
``refuse`` (rules for the file layer: operations, code and path) and ``tell`` (whether it prints its events, too).
Each line that it writes is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from faulty import FaultyFiles, Refuse, Refusing

from wheelcache import Cache, CachedWheel, ProgressEvent
from wheelcache._os.system import System


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def tell_event(event: ProgressEvent) -> None:
    tell(phase=event.phase, done=event.done, detail=event.detail)


def tell_wheel(wheel: CachedWheel) -> None:
    digest = hashlib.sha256(Path(wheel).read_bytes()).hexdigest()
    tell(filename=wheel.path.name, digest=f"sha256:{digest}", status=wheel.status)


def main(work: dict) -> None:
    rules = [Refuse(*rule) for rule in work.get("refuse", [])]

    class ChildCache(Cache):
        _system = System(files=FaultyFiles(Refusing(*rules)))

    if work.get("fetch"):
        import httpx  # noqa: F401 - before it says that it is ready, so that all begin at once

    with ChildCache(work["root"], **work.get("options", {})) as cache:
        tell(ready=os.getpid())
        sys.stdin.readline()
        for url, digest in work.get("fetch", []):
            tell_wheel(cache.fetch(url, hashes=digest, progress=tell_event if work.get("tell") else None))
        for path in work.get("put", []):
            tell_wheel(cache.put(path))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
