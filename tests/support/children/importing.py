"""A process that watches the imports which wheelcache starts after it was itself imported.

``importing.py trace ROOT URL SHA256`` makes the public calls and writes, as JSON, the modules that were imported while
``import_lock`` was not held, each with the line of wheelcache that led to it.
``importing.py fork ROOT URL SHA256 PASSED`` fetches in a thread and forks in the middle of its imports, after so many
imports without a fork. Each child fetches the wheel too. It writes, as JSON, the modules at whose import a fork was
made, and those whose child did not end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from wheelcache import Cache, DownloadError
from wheelcache._imports import import_lock

# A fork that is not kept waiting happens at once, within this time.
_AT_ONCE = 0.2
_CHILD_SECONDS = 20
# The imports at which a fork is made.
_FORKS = 8


class Finder:
    """Finds nothing, and calls a function with the name of each module that is about to be imported."""

    def __init__(self, on_import: Callable[[str], None]) -> None:
        self.on_import = on_import

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.on_import(name)


def origin() -> str:
    """Return the line of wheelcache that is nearest on the stack."""
    for frame in reversed(traceback.extract_stack()):
        if f"{os.sep}wheelcache{os.sep}" in frame.filename:
            return f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return "?"


def trace(root: str, url: str, digest: str) -> None:
    found: list[tuple[str, str]] = []

    def on_import(name: str) -> None:
        if not import_lock._is_owned():
            found.append((name, origin()))

    sys.meta_path.insert(0, Finder(on_import))
    out = Path(root, "out")
    source = Path(root, url.rpartition("/")[2])
    missing = url.replace("demo", "missing")
    # Each call does what the first one in a process does: a wheel that was not there, and then one that is.
    with Cache(Path(root, "one")) as cache:
        wheel = cache.fetch(url, hashes=digest)
        source.write_bytes(wheel.path.read_bytes())
        cache.link(wheel, out / "linked.whl")
        cache.unpack(wheel)
        cache.unpack(wheel, out / "unpacked")
        cache.export(out / "exported")
        cache.metadata(url, hashes=digest)
        cache.stats()
        cache.verify()
        cache.prune(max_age=3600)
        cache.doctor()
        list(cache.entries())
        cache.remove("demo")
        cache.put(source)
        cache.clear()
    with Cache(Path(root, "two"), io_timeout=0.1) as cache:
        cache.metadata(url)
        cache.fetch_all([url])
        cache.fetch(url, refresh=True)
        try:
            cache.fetch(missing)
        except DownloadError as error:
            str(error)
    print(json.dumps(found))


def fork(root: str, url: str, digest: str, passed: str) -> None:
    cache = Cache(root)
    importing, forked, ended, over = (threading.Event() for _ in range(4))
    names: list[str] = []
    hung: list[str] = []
    is_armed = True
    left = int(passed)

    def on_import(name: str) -> None:
        nonlocal left
        if not is_armed or threading.current_thread() is not thread:
            return
        left -= 1
        if left >= 0 or len(names) == _FORKS:
            return
        if importing.is_set():
            if not forked.is_set():
                return  # the fork waits for the import lock, which this thread holds
            ended.wait()
        names.append(name)
        forked.clear()
        ended.clear()
        importing.set()
        forked.wait(_AT_ONCE)

    def fetch() -> None:
        try:
            cache.fetch(url, hashes=digest)
        finally:
            over.set()
            importing.set()

    sys.meta_path.insert(0, Finder(on_import))
    thread = threading.Thread(target=fetch)
    thread.start()
    while importing.wait() and not over.is_set():
        pid = os.fork()
        if pid == 0:
            is_armed = False
            try:
                cache.fetch(f"{url}?{os.getpid()}")
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        forked.set()
        if not ends(pid):
            hung.append(names[-1])
        importing.clear()
        ended.set()
        if over.is_set():
            break
    thread.join()
    print(json.dumps({"names": names, "hung": hung}))


def ends(pid: int) -> bool:
    """Wait for a child. Kill it if it does not end."""
    end = time.monotonic() + _CHILD_SECONDS
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


if __name__ == "__main__":
    {"trace": trace, "fork": fork}[sys.argv[1]](*sys.argv[2:])
