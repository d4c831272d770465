"""Make all calls that write to a cache, for a trace of the system calls.

python traced.py FOLDER

The cache is FOLDER/cache. Errors are ignored, because another process may exchange its folders meanwhile.
"""

import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace

from planted import ALPHA, BETA, CALLS, DELTA, OPTIONS, WHEELS, build, by_hand, client_of_index, url_of

from wheelcache import Cache

folder = Path(sys.argv[1])
root = folder / "cache"
(folder / "sources").mkdir()
for wheel in WHEELS.values():
    folder.joinpath("sources", wheel.filename).write_bytes(wheel.data)
with contextlib.suppress(OSError, ValueError, AssertionError):
    build(root)
for number, call in enumerate(CALLS):
    scene = SimpleNamespace(
        root=root,
        out=folder / f"out{number}",
        own=folder / "own",
        source=lambda wheel: folder / "sources" / wheel.filename,
    )
    with contextlib.suppress(Exception), client_of_index() as client, Cache(root, client=client, io_timeout=1) as cache:
        scene.known = [cache.fetch(url_of(wheel), hashes=wheel.digest) for wheel in (ALPHA, BETA, DELTA)]
        cache.unpack(scene.known[0])
        if "verify" in call:
            with by_hand():
                scene.known[0].path.write_bytes(b"damaged")
                scene.known[1].path.with_suffix(".json").unlink()
                root.joinpath("v1", "urls", "foreign.txt").touch()
    with (
        contextlib.suppress(Exception),
        client_of_index() as client,
        Cache(root, **{"client": client, "io_timeout": 1, **OPTIONS[call]}) as cache,
    ):
        CALLS[call](cache, scene)
        print(call)
