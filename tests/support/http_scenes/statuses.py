"""Scenes of statuses, of ranges, and of requests that validate a wheel in the cache."""

from __future__ import annotations

from server import (
    Answer,
    Exchange,
    plain,
    refused_range,
    stalled,
    status,
    truncated,
    without_validators,
    wrong_bytes,
    wrong_range,
)

from http_scenes.messages import cut, failed, failed_status, responded, wrong_hash
from http_scenes.scene import OTHER_WHEEL, STOPPED_AT, TRIES, WHEEL, Difference, Fetch, Scene, Stage

PERMANENT = (400, 401, 403, 404, 405, 407, 410, 416, 451, 501, 505)
TRANSIENT = (408, 425, 429, 500, 502, 503, 504, 520, 524)
NOT_THE_FILE = (201, 204, 206, 300, 304)
TWICE = (Fetch(hashed=False), Fetch(hashed=False))
CUT = cut(5000)


def replace_wheel(stage: Stage) -> None:
    stage.server.serve(stage.url, OTHER_WHEEL.data)


def raw_head(line: str) -> Answer:
    """A response with this status line and an empty body."""

    def answer(exchange: Exchange) -> None:
        exchange.hang_up()
        exchange.write_raw(f"{line}\r\nContent-Length: 0\r\n\r\n".encode("latin-1"))

    return answer


def with_early_hints(exchange: Exchange) -> None:
    """An informational response before the correct one: https://www.rfc-editor.org/rfc/rfc8297."""
    exchange.write_raw(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    plain(exchange)


def weak_etag(exchange: Exchange) -> None:
    """The correct response with a weak ETag."""
    code, headers, body = exchange.right_answer()
    exchange.send(code, {**headers, "ETag": "W/" + exchange.file.etag}, body)


def later_wheel(exchange: Exchange) -> None:
    """The correct response with another file, which an If-Range of the first one does not match."""
    exchange.file.body = OTHER_WHEEL.data
    plain(exchange)


def no_such_range(exchange: Exchange) -> None:
    """404 to any range; otherwise the correct response."""
    (status(404) if "range" in exchange.request.headers else plain)(exchange)


def transformed(exchange: Exchange) -> None:
    """The file with the status of a proxy that may have changed it."""
    exchange.send(203, {}, exchange.body)


TRANSFORMED = "A proxy on the way to the server changed the response. Pass the wheel's hash to accept the same bytes."
LONG_WAIT = "The server asks to wait 3600 s. Try again after that."

SCENES = [
    *[Scene(f"status {code}", failed_status(code), how=status(code)) for code in (*PERMANENT, *NOT_THE_FILE)],
    *[
        Scene(f"status {code}, always", failed_status(code, TRIES), how=status(code), requests=TRIES)
        for code in TRANSIENT
    ],
    *[Scene(f"status {code}, then fine", "downloaded", [status(code)], requests=2) for code in TRANSIENT],
    *[
        Scene(f"status {code} with Retry-After, then fine", "downloaded", [status(code, "30")], requests=2, waits=30)
        for code in (429, 503)
    ],
    *[
        Scene(
            f"status {code} with a long Retry-After",
            failed(responded(code), status=code, advice=LONG_WAIT),
            how=status(code, "3600"),
        )
        for code in (429, 503)
    ],
    Scene("a reason of the server's own", failed_status(404, reason="Lost It"), how=raw_head("HTTP/1.1 404 Lost It")),
    Scene("an empty reason", failed_status(404, reason=""), how=raw_head("HTTP/1.1 404 ")),
    Scene("no reason", failed_status(404, reason=""), how=raw_head("HTTP/1.1 404")),
    Scene("HTTP/1.0", failed_status(404, reason="Not Found"), how=raw_head("HTTP/1.0 404 Not Found")),
    Scene("an unregistered status", failed_status(599), how=raw_head("HTTP/1.1 599 ")),
    Scene(
        "an informational response before the wheel",
        "downloaded",
        how=with_early_hints,
        with_requests=Difference(
            "it takes every informational response but 100 for the final one",
            failed("the server sent an interim response, 103, which requests cannot skip"),
        ),
    ),
    Scene("status 203", "downloaded", how=transformed),
    Scene(
        "status 203, without a hash",
        failed(responded(203), status=203, advice=TRANSFORMED),
        how=transformed,
        fetches=TWICE[:1],
    ),
    # Ranges
    Scene(
        "truncated, then status 404",
        failed_status(404, 3),
        [truncated(5000)],
        how=status(404),
        requests=3,
        tried=["{url}: " + cut(5000), "{url}: " + responded(404) + " to a range request", "{url}: " + responded(404)],
    ),
    Scene("truncated, then status 404 to ranges", "downloaded", [truncated(5000)], how=no_such_range, requests=3),
    Scene("truncated, then status 503, then fine", "resumed", [truncated(5000), status(503)], requests=3),
    Scene("truncated, then another range", "downloaded", [truncated(5000)], how=wrong_range(1), requests=3),
    Scene("truncated, then a refused range", "downloaded", [truncated(5000)], how=refused_range, requests=3),
    Scene(
        "truncated, then another file",
        wrong_hash(OTHER_WHEEL.data, 2),
        [truncated(5000), wrong_bytes(OTHER_WHEEL.data)],
        requests=2,
        tried=["{url}: " + CUT, "{url}: the content does not have the requested hash"],
    ),
    Scene(
        "truncated, then another file, without a hash",
        "downloaded",
        [truncated(5000), later_wheel],
        requests=2,
        fetches=TWICE[:1],
        stored=[OTHER_WHEEL],
    ),
    Scene(
        "stopped in the body, then fine",
        ("stopped", "resumed"),
        requests=2,
        prepare=lambda stage: stage.server.script(stage.url, stalled(STOPPED_AT, stage.never)),
        fetches=(Fetch(stops=True), Fetch()),
    ),
    Scene(
        "stopped in the body, then fine, without a hash",
        ("stopped", "resumed"),
        requests=2,
        prepare=lambda stage: stage.server.script(stage.url, stalled(STOPPED_AT, stage.never)),
        fetches=(Fetch(hashed=False, stops=True), Fetch(hashed=False)),
    ),
    # Wheels in the cache
    Scene("a hit by hash", ("downloaded", "hit"), fetches=(Fetch(), Fetch())),
    Scene("revalidated", ("downloaded", "revalidated"), requests=2, fetches=TWICE),
    Scene("revalidated by a weak ETag", ("downloaded", "revalidated"), how=weak_etag, requests=2, fetches=TWICE),
    Scene("without validators", ("downloaded", "downloaded"), how=without_validators, requests=2, fetches=TWICE),
    Scene(
        "replaced since the first fetch",
        ("downloaded", "downloaded"),
        requests=2,
        fetches=(TWICE[0], Fetch(hashed=False, before=replace_wheel)),
        stored=[WHEEL, OTHER_WHEEL],
    ),
    Scene(
        "status 404 to a validation",
        ("downloaded", failed_status(404)),
        [plain],
        how=status(404),
        requests=2,
        fetches=TWICE,
        stored=[WHEEL],
    ),
    Scene(
        "status 503 to a validation, then 304",
        ("downloaded", "revalidated"),
        [plain, status(503)],
        requests=3,
        fetches=TWICE,
    ),
]
