"""A process that forks while one of its threads downloads a wheel, and whose child fetches the same wheel.

Its arguments are the owner of the HTTP client, the folder, and three pairs of URL and digest: a wheel that is served at
once, one that stalls, and another that is served at once. Each line that it prints is a name, a status and a digest.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import traceback
from pathlib import Path

import httpx

from wheelcache import Cache, CachedWheel, Phase, ProgressEvent


def tell(who: str, wheel: CachedWheel) -> None:
    digest = hashlib.sha256(Path(wheel).read_bytes()).hexdigest()
    print(who, wheel.status, f"sha256:{digest}", flush=True)


def main(whose: str, root: str, *pairs: str) -> None:
    quick, slow, other = [(pairs[at], pairs[at + 1]) for at in (0, 2, 4)]
    client = httpx.Client() if whose == "callers" else None
    cache = Cache(root, client=client, lock_timeout=1.0)
    begun = threading.Event()

    def listen(event: ProgressEvent) -> None:
        if event.phase is Phase.DOWNLOADING and event.done:
            begun.set()

    def download() -> None:
        tell("thread", cache.fetch(slow[0], hashes=slow[1], progress=listen))

    thread = threading.Thread(target=download)
    thread.start()
    begun.wait()
    # Its connection is idle when the process forks.
    tell("parent", cache.fetch(quick[0], hashes=quick[1]))
    pid = os.fork()
    if pid == 0:
        try:
            tell("child", cache.fetch(quick[0], hashes=quick[1]))
            for url, digest in (slow, other):
                try:
                    tell("child", cache.fetch(url, hashes=digest))
                except ValueError as error:
                    print(
                        "child", "refused", "new client" if "Create a new client" in str(error) else error, flush=True
                    )
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print("child ended", code, flush=True)
    thread.join()
    tell("parent", cache.fetch(other[0], hashes=other[1]))
    cache.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
