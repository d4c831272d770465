"""A call that waits until somebody presses Ctrl-C: ``ctrl_c.py CALL HOW FOLDER``.

CALL is one of the table in :mod:`scenes`. HOW is ``held``, if a file is never let go, or ``stalled``, if a server never
answers. It writes ``waiting`` when the call waits, and then how it ended and the seconds that this took.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from scenes import CALLS, PATIENCE, Hold, Moment, Scene  # noqa: E402  - the path to it is known from here on
from server import Exchange, Server, stalled  # noqa: E402


def main(name: str, how: str, folder: str) -> None:
    call = CALLS[name]
    moment = Hold(call.held) if how == "held" else Moment()
    began: list[float] = []

    def say_waiting() -> None:
        assert moment.reached.wait(PATIENCE)
        began.append(time.monotonic())
        print("waiting", flush=True)

    def answer(exchange: Exchange) -> None:
        moment.reached.set()
        stalled(None, threading.Event())(exchange)

    with Server() as server:
        scene = Scene(Path(folder), server)
        if how == "stalled":
            for new in scene.new:
                new.on(server, how=answer)
        threading.Thread(target=say_waiting).start()
        with scene.cache() as cache:
            if how == "held":
                scene.files.plan = moment
            try:
                call.on(cache, scene)
                outcome = "returned"
            except BaseException as error:
                outcome = type(error).__name__
        print(f"outcome: {outcome} after {time.monotonic() - began[0]:.2f} s", flush=True)
        for new in scene.new:
            new.on(server)
        scene.check(call)
        print("in order", flush=True)
        os._exit(0)  # the server still waits in a thread


if __name__ == "__main__":
    main(*sys.argv[1:])
