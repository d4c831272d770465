"""Measure how long calls take to end after close(), cancellation and Ctrl-C.

python benchmarks/cancel.py [rounds]             the default is 5, which takes two minutes

Each call waits for a file that is never closed, waits for a server that never answers, or is working. The time from the
cancellation to the end of the call should be below one second (rule 16 of the design). On Windows, Ctrl-C is omitted,
since it cannot be sent from within the process.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from scenes import CALLS, PATIENCE, Call, Hold, Moment, Pause, Scene
from server import Exchange, Server, stalled

from wheelcache import Cache
from wheelcache._operation import CURRENT_TOKEN, CancelToken, OperationCancelledError

ROUNDS = 5
ENTRIES = 1000

SCENES = {
    "held file": ["put", "fetch", "fetch_all", "unpack", "entries"],
    "stalled server": ["fetch", "fetch_all", "metadata"],
    "much work": ["prune", "clear", "verify", "stats", "unpack", "link"],
}
CAUSES = ["close", "cancel"] if sys.platform == "win32" else ["close", "cancel", "ctrl-c"]


def begin(how: str, call: Call, scene: Scene) -> Moment:
    """Prepare the moment at which a call is cancelled."""
    if how == "held file":
        return Hold(call.held)
    if how == "much work":
        return Pause(call.busy[1], call.busy[0])
    moment = Moment()

    def answer(exchange: Exchange) -> None:
        moment.reached.set()
        stalled(None, threading.Event())(exchange)

    for new in scene.new:
        new.on(scene.server, how=answer)
    return moment


def cancel_beside(cancel: Callable[[], object], moment: Moment, scene: Scene, began: list[float]) -> threading.Thread:
    """Start a thread that cancels a call at its moment, and stores the time of the cancellation."""

    def run() -> None:
        moment.reached.wait(PATIENCE)
        if moment.reached.is_set():
            time.sleep(0.05)  # until the call waits
        began.append(time.perf_counter())
        cancel()
        moment.tell(scene)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def seconds(cause: str, cache: Cache, call: Call, scene: Scene, moment: Moment) -> float:
    """Make a call in the main thread, cancel it from another thread, and return the seconds until its end."""
    token = CancelToken()
    main = threading.main_thread().ident or 0
    cancel = {
        "close": lambda: threading.Thread(target=cache.close).start(),
        "cancel": token.cancel,
        "ctrl-c": lambda: signal.pthread_kill(main, signal.SIGINT),
    }[cause]
    began: list[float] = []
    thread = cancel_beside(cancel, moment, scene, began)
    current = CURRENT_TOKEN.set(token)
    try:
        call.on(cache, scene)
        raise SystemExit(f"{call.name} returned although it was cancelled by {cause}")
    except (ValueError, ExceptionGroup, OperationCancelledError, KeyboardInterrupt):
        ended = time.perf_counter()
    finally:
        CURRENT_TOKEN.reset(current)
        thread.join()
    return ended - began[0]


def measure(how: str, name: str, cause: str) -> float:
    """Return the seconds that one call took to end."""
    call = CALLS[name]
    many = ENTRIES if how == "much work" else 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Server() as server:
        scene = Scene(Path(folder), server, many=many)
        moment = begin(how, call, scene)
        with scene.cache() as cache:
            scene.files.plan = moment
            return seconds(cause, cache, call, scene, moment)


def main(rounds: int) -> None:
    """Print medians and maxima."""
    print(f"{'':16}{'':12}" + "".join(f"{cause:>20}" for cause in CAUSES))
    for how, names in SCENES.items():
        for name in names:
            found = [[measure(how, name, cause) for _ in range(rounds)] for cause in CAUSES]
            cells = [f"{statistics.median(each) * 1e3:8.1f} ({max(each) * 1e3:6.1f}) ms" for each in found]
            print(f"{how:16}{name:12}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
