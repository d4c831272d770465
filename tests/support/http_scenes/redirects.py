"""Scenes of redirects."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

from server import Answer, Exchange, asks_for, plain, redirect, reset, status, truncated

from http_scenes.messages import INVALID_URL, REFUSED, RESET, UNKNOWN_HOST, failed, failed_status
from http_scenes.scene import TRIES, WHEEL, ClientSettings, Difference, Fetch, Scene, Stage

ONE_HOP = ("{path}", "/there")
INVALID_LOCATION = "redirected to an invalid URL"
QUERY = "?a=1%2F2&b=c+d&e=%20~*'()"
LOOP = failed("redirect loop, last to {url}", status=302)


def to(location: str, code: int = 302, *, at: str = "/there") -> Callable[[Stage], None]:
    """Redirect the URL of the wheel, and serve the wheel at another path."""

    def prepare(stage: Stage) -> None:
        # The header is encoded as Latin-1.
        value = stage.fill(location).encode().decode("latin-1")
        stage.server.serve(WHEEL.path, how=redirect(value, code))
        for path in {at, "/there"}:
            stage.server.serve(path, WHEEL.data)

    return prepare


def chain(hops: int) -> Callable[[Stage], None]:
    """Serve a number of redirects before the wheel."""

    def prepare(stage: Stage) -> None:
        names = [WHEEL.path, *(f"/hop{number}" for number in range(1, hops)), "/there"]
        for path, following in itertools.pairwise(names):
            stage.server.serve(path, how=redirect(following))
        stage.server.serve("/there", WHEEL.data)

    return prepare


def via(answer: Answer, *, times: int = 100) -> Callable[[Stage], None]:
    """Redirect to /there, where this answer is given."""

    def prepare(stage: Stage) -> None:
        stage.server.serve(WHEEL.path, how=redirect("/there"))
        stage.server.serve("/there", WHEEL.data)
        stage.server.script("/there", *[answer] * times)

    return prepare


def with_cookie(stage: Stage) -> None:
    """Serve the wheel only to requests with a cookie, which /login sets."""

    def door(exchange: Exchange) -> None:
        (plain if "session=1" in exchange.request.headers.get("cookie", "") else redirect("/login"))(exchange)

    stage.server.serve(WHEEL.path, WHEEL.data, how=door)
    stage.server.serve(
        "/login", how=lambda exchange: exchange.send(302, {"Location": WHEEL.path, "Set-Cookie": "session=1; Path=/"})
    )


def without_location(exchange: Exchange) -> None:
    exchange.send(302, {}, b"somewhere")


def login(stage: Stage) -> None:
    """Ask for credentials before the redirect, and serve the wheel on another origin."""
    stage.server.serve(WHEEL.path, how=asks_for("alice", "hunter2", redirect(stage.other.url(WHEEL.path))))

    def refuses_credentials(exchange: Exchange) -> None:
        (status(400) if "authorization" in exchange.request.headers else plain)(exchange)

    WHEEL.on(stage.other, how=refuses_credentials)


SCENES = [
    *[
        Scene(f"redirect with {code}", "downloaded", prepare=to("/there", code), requests=ONE_HOP)
        for code in (301, 302, 303, 307, 308)
    ],
    # Every form of Location
    Scene("redirect to a URL", "downloaded", prepare=to("{server}/there"), requests=ONE_HOP),
    Scene("redirect to a URL in capitals", "downloaded", prepare=to("HTTP://{server:}/there"), requests=ONE_HOP),
    Scene("redirect relative to the folder", "downloaded", prepare=to("../there"), requests=ONE_HOP),
    Scene("redirect relative to the scheme", "downloaded", prepare=to("//{server:}/there"), requests=ONE_HOP),
    Scene("redirect to a query", "downloaded", prepare=to("/there" + QUERY), requests=("{path}", "/there" + QUERY)),
    Scene("redirect with a fragment", "downloaded", prepare=to("/there#part"), requests=ONE_HOP),
    Scene("redirect with dot segments", "downloaded", prepare=to("/a/./b/../../there"), requests=ONE_HOP),
    Scene(
        "redirect with a needless escape",
        "downloaded",
        prepare=to("/th%65re", at="/th%65re"),
        requests=("{path}", "/th%65re"),
        with_requests=Difference("it normalizes escapes", requests=("{path}", "/there")),
    ),
    Scene("redirect with a space", "downloaded", prepare=to("/there?a b"), requests=("{path}", "/there?a%20b")),
    Scene("redirect in UTF-8", "downloaded", prepare=to("/there?\u00e9"), requests=("{path}", "/there?%C3%A9")),
    Scene("redirect to another origin", "downloaded", prepare=to("{other}{path}"), requests=("{path}", "{path}")),
    Scene("redirect with credentials", "downloaded", prepare=to("http://a:b@{server:}/there"), requests=ONE_HOP),
    # A Location that cannot be followed
    *[
        Scene(f"redirect to an invalid {part}", failed(INVALID_LOCATION), prepare=to(location))
        for part, location in {
            "host": "http://[bad]/there",
            "port": "http://127.0.0.1:port/there",
            "port number": "http://127.0.0.1:99999/there",
            "character": "http://\x01/there",
        }.items()
    ],
    Scene(
        "redirect to FTP",
        failed(INVALID_URL + ", redirected to ftp://127.0.0.1/there"),
        prepare=to("ftp://127.0.0.1/there"),
    ),
    Scene("redirect to a local file", failed(INVALID_LOCATION), prepare=to("file:///there")),
    Scene("redirect to an empty Location", LOOP, prepare=to("")),
    Scene("redirect without a Location", failed_status(302), how=without_location),
    Scene("redirect to itself", LOOP, prepare=to("{path}")),
    Scene("redirect with a cookie", "downloaded", prepare=with_cookie, requests=("{path}", "/login", "{path}")),
    Scene("three redirects", "downloaded", prepare=chain(3), requests=4),
    Scene("twenty redirects", "downloaded", prepare=chain(20), requests=21),
    Scene(
        "too many redirects",
        failed("redirected more than 20 times, last to {server}/there, redirected to {server}/hop20", status=302),
        prepare=chain(21),
        requests=21,
    ),
    # Failures after a redirect
    Scene(
        "redirect to a closed port",
        failed(REFUSED + ", redirected to {closed}/there", TRIES),
        prepare=to("{closed}/there"),
        requests=TRIES,
    ),
    Scene(
        "redirect to an unknown host",
        failed(f"{UNKNOWN_HOST}, redirected to http://host.invalid/there", TRIES),
        prepare=to("http://host.invalid/there"),
        requests=TRIES,
    ),
    Scene(
        "redirect, then status 404", failed_status(404, at="{server}/there"), prepare=via(status(404)), requests=ONE_HOP
    ),
    Scene(
        "redirect, then status 503, then fine", "downloaded", prepare=via(status(503), times=1), requests=ONE_HOP * 2
    ),
    Scene(
        "redirect, then always status 503",
        failed_status(503, TRIES, at="{server}/there"),
        prepare=via(status(503)),
        requests=ONE_HOP * TRIES,
    ),
    Scene("redirect, truncated, then fine", "resumed", prepare=via(truncated(5000), times=1), requests=ONE_HOP * 2),
    # The credentials are not sent to the other origin.
    *[
        Scene(
            f"redirect away from a login{name}",
            "downloaded",
            prepare=login,
            client=client,
            fetches=(Fetch(url),),
            requests=("{path}", "{path}"),
        )
        for name, url, client in (
            (" in the URL", "http://alice:hunter2@{server:}{path}", ClientSettings()),
            (" of the client", "{url}", ClientSettings(auth=("alice", "hunter2"))),
        )
    ],
]

if sys.platform != "win32":
    # Wine closes the connection in an orderly way instead.
    SCENES.append(
        Scene(
            "redirect, then always reset",
            failed(RESET + ", redirected to {server}/there", TRIES),
            prepare=via(reset()),
            requests=ONE_HOP * TRIES,
        )
    )
