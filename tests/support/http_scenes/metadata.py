"""Scenes of ``metadata()``, which asks for the file beside the wheel, then for ranges, then for the whole wheel."""

from __future__ import annotations

import sys

from server import (
    Answer,
    chunked,
    html,
    plain,
    redirect,
    refused_range,
    reset,
    status,
    truncated,
    without_ranges,
    without_validators,
    wrong_range,
)
from wheels import Wheel, make_wheel, wheel_filename

from http_scenes.messages import RESET, failed, failed_status
from http_scenes.scene import METADATA, Fetch, Scene, Stage

# The part that is requested first is much smaller.
LARGE = Wheel(wheel_filename("large"), make_wheel("large", size=300_000))
URL = f"{{server}}{LARGE.path}"
BESIDE, WHOLE = LARGE.path + ".metadata", LARGE.path


NOT_FOUND = status(404)


def refuses_ranges(code: int) -> Answer:
    """This status to requests with a range; otherwise the correct response."""
    return lambda exchange: (status(code) if "range" in exchange.request.headers else plain)(exchange)


def scene(
    name: str,
    expected: str,
    requests: list[str],
    *faults: Answer,
    how: Answer = plain,
    beside: Answer = NOT_FOUND,
    stores: bool = False,
) -> Scene:
    """Return a scene.

    Args:
        name: the name, after "metadata: ".
        expected: the outcome.
        requests: the targets of the requests.
        faults: the answers to the first requests for the wheel.
        how: the answer to all later requests for the wheel.
        beside: the answer to requests for the file beside the wheel.
        stores: whether the wheel is in the cache at the end.
    """

    def prepare(stage: Stage) -> None:
        stage.server.serve(BESIDE, METADATA, how=beside)
        LARGE.on(stage.server, how=how)
        stage.server.script(WHOLE, *faults)
        stage.server.serve("/there", LARGE.data)

    return Scene(
        f"metadata: {name}",
        expected,
        prepare=prepare,
        requests=requests,
        fetches=(Fetch(URL, hashed=False, is_metadata=True),),
        stored=[LARGE] if stores else [],
    )


# The first range is the end of the wheel, with the position of METADATA, which is in the second one.
RANGES = [BESIDE, WHOLE, WHOLE]

SCENES = [
    scene("beside the wheel", "metadata", [BESIDE], beside=plain),
    scene("beside the wheel, chunked", "metadata", [BESIDE], beside=chunked),
    scene("in the wheel", "metadata", RANGES),
    scene("without validators", "metadata", RANGES, how=without_validators),
    scene("html beside the wheel", "metadata", RANGES, beside=html),
    scene("redirect", "metadata", [BESIDE, WHOLE, "/there", WHOLE], redirect("/there")),
    scene("reset, then fine", "metadata", [*RANGES, WHOLE], reset()),
    scene("truncated, then fine", "metadata", [*RANGES, WHOLE], truncated(10)),
    scene("status 503, then fine", "metadata", [*RANGES, WHOLE], status(503)),
    scene("without ranges", "metadata", RANGES, how=without_ranges, stores=True),
    scene("refused ranges", "metadata", RANGES, how=refused_range, stores=True),
    scene("another range", "metadata", [*RANGES, WHOLE], how=wrong_range(-10), stores=True),
    *[
        scene(f"status {code} to ranges", "metadata", RANGES, how=refuses_ranges(code), stores=True)
        for code in (403, 404, 501)
    ],
    scene("status 500 to ranges", "metadata", [*RANGES, WHOLE], how=refuses_ranges(500), stores=True),
    *[scene(f"status {code}", failed_status(code, url=URL), RANGES, how=status(code)) for code in (401, 403, 404, 410)],
]

if sys.platform != "win32":
    # Wine closes the connection in an orderly way instead.
    SCENES.append(
        scene(
            "always reset",
            failed(RESET, 4, operation="download metadata of", url=URL),
            [BESIDE, *[WHOLE] * 4],
            how=reset(),
        )
    )
