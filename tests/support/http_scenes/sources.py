"""Scenes of sources: their URLs, mirrors, credentials, and clients with settings of the caller."""

from __future__ import annotations

from collections.abc import Callable

from server import Answer, Exchange, asks_for, gzipped, plain, redirect, reset, status, truncated, wrong_bytes

from http_scenes.messages import REFUSED, UNDECODED, UNKNOWN_HOST, cut, failed, failed_status, responded, wrong_hash
from http_scenes.scene import OTHER_WHEEL, TRIES, WHEEL, ClientSettings, Difference, Fetch, Scene, Stage

LOGIN = ClientSettings(auth=("alice", "hunter2"))
TOKEN = ClientSettings(headers={"Private-Token": "t0ken"})
RAISES = ClientSettings(hook="raise")
READS = ClientSettings(hook="read")
AHEAD = ClientSettings(reads_ahead=True)

TWICE = (Fetch(hashed=False), Fetch(hashed=False))
MIRROR = "{other}{path}"
MIRRORED = (Fetch(mirrors=[MIRROR]),)
UNKNOWN = "http://host.invalid{path}"
GUARDED = asks_for("alice", "hunter2")
QUERY = "?token=a%2Fb&c=d+e&f=%20~*'()"


def mirror(answer: Answer) -> Callable[[Stage], object]:
    """Set the answer of the mirror."""
    return lambda stage: WHEEL.on(stage.other, how=answer)


def mislabelled(exchange: Exchange) -> None:
    """The body as it is, with a Content-Encoding that it does not have."""
    exchange.send(200, {"Content-Encoding": "gzip"}, exchange.body)


def needs_token(exchange: Exchange) -> None:
    """401 to requests without the token of the client."""
    (plain if exchange.request.headers.get("private-token") == "t0ken" else status(401))(exchange)


def refuses(field: str) -> Answer:
    """400 to requests with this header field."""
    return lambda exchange: (status(400) if field in exchange.request.headers else plain)(exchange)


def url_scene(name: str, path: str, target: str | None = None, *, normalized: str | None = None) -> Scene:
    """Return a scene with a URL of this path, and the target that the server must receive.

    Args:
        name: the peculiarity of the URL.
        path: the path of the URL.
        target: the target of the request, if it differs.
        normalized: the target of the request that the library requests sends, if it differs.
    """
    target = target or path

    def prepare(stage: Stage) -> None:
        for each in {target, normalized or target}:
            stage.server.serve(each.partition("?")[0], WHEEL.data)

    return Scene(
        f"URL with {name}",
        "downloaded",
        prepare=prepare,
        fetches=(Fetch(url="{server}" + path),),
        requests=(target,),
        with_requests=Difference("it normalizes escapes", requests=(normalized,)) if normalized else None,
    )


def with_userinfo(userinfo: str) -> tuple[Fetch]:
    return (Fetch(url=f"http://{userinfo}@{{server:}}{{path}}"),)


NAME = WHEEL.filename

SCENES = [
    # Sources without a server
    Scene(
        "closed port",
        failed(REFUSED, TRIES, url="{closed}{path}"),
        fetches=(Fetch(url="{closed}{path}"),),
        requests=0,
    ),
    Scene("closed port, with a mirror", "downloaded", fetches=(Fetch(url="{closed}{path}", mirrors=[MIRROR]),)),
    Scene(
        "unknown host",
        failed(UNKNOWN_HOST, TRIES, url=UNKNOWN),
        fetches=(Fetch(url=UNKNOWN),),
        requests=0,
    ),
    Scene("unknown host, with a mirror", "downloaded", fetches=(Fetch(url=UNKNOWN, mirrors=[MIRROR]),)),
    # Mirrors
    Scene("fine, with a mirror", "downloaded", fetches=MIRRORED),
    Scene("status 404, with a mirror", "downloaded", how=status(404), fetches=MIRRORED, requests=2),
    Scene("status 503, with a mirror", "downloaded", how=status(503), fetches=MIRRORED, requests=2),
    Scene("truncated, then resumed at the mirror", "resumed", [truncated(5000)], fetches=MIRRORED, requests=2),
    Scene("reset, with a mirror", "downloaded", how=reset(), fetches=MIRRORED, requests=2),
    Scene("wrong bytes, with a mirror", "downloaded", how=wrong_bytes(OTHER_WHEEL.data), fetches=MIRRORED, requests=2),
    Scene(
        "status 404, and a mirror with wrong bytes",
        wrong_hash(OTHER_WHEEL.data, 2, url=MIRROR),
        how=status(404),
        prepare=mirror(wrong_bytes(OTHER_WHEEL.data)),
        fetches=MIRRORED,
        requests=2,
        tried=["{url}: " + responded(404), MIRROR + ": the content does not have the requested hash"],
    ),
    Scene(
        "status 404, and a mirror with status 410",
        failed_status(404, 2),
        how=status(404),
        prepare=mirror(status(410)),
        fetches=MIRRORED,
        requests=2,
        tried=["{url}: " + responded(404), MIRROR + ": " + responded(410)],
    ),
    Scene(
        "status 404, and a mirror with a closed port",
        failed_status(404, 1 + 2 * TRIES),
        how=status(404),
        fetches=(Fetch(mirrors=["{closed}{path}"]),),
        tried=["{url}: " + responded(404), *["{closed}{path}: " + REFUSED] * 2 * TRIES],
    ),
    # URLs
    url_scene("a query", WHEEL.path + QUERY),
    url_scene("an empty query", WHEEL.path + "?", WHEEL.path),
    url_scene("a fragment", WHEEL.path + "#egg=demo", WHEEL.path),
    url_scene("a plus sign", "/demo-1.0+cpu-py3-none-any.whl"),
    url_scene("an escaped plus sign", "/demo-1.0%2Bcpu-py3-none-any.whl"),
    url_scene("a needless escape", f"/%61/{NAME}", normalized=f"/a/{NAME}"),
    url_scene("an escape in lower case", f"/%c3%a9/{NAME}", normalized=f"/%C3%A9/{NAME}"),
    url_scene("a space", f"/a b/{NAME}", f"/a%20b/{NAME}"),
    url_scene("a letter outside ASCII", f"/\u00e9/{NAME}", f"/%C3%A9/{NAME}"),
    url_scene("a lone percent sign", f"/100%/{NAME}", normalized=f"/100%25/{NAME}"),
    url_scene("characters that need no escape", f"/!$&'()*+,;=:@~-._/{NAME}"),
    url_scene("dot segments", f"/a/../b/./{NAME}", f"/b/{NAME}"),
    # Credentials
    Scene("no credentials", failed_status(401), how=GUARDED),
    Scene("credentials in the URL", "downloaded", how=GUARDED, fetches=with_userinfo("alice:hunter2")),
    Scene(
        "escaped credentials in the URL",
        "downloaded",
        how=asks_for("al@ice", "h:/?#\u00e9"),
        fetches=with_userinfo("al%40ice:h%3A%2F%3F%23%C3%A9"),
    ),
    Scene(
        "wrong credentials in the URL",
        failed_status(401, url="http://***@{server:}{path}"),
        how=GUARDED,
        fetches=with_userinfo("alice:wrong"),
    ),
    Scene("credentials of the client", "downloaded", how=GUARDED, client=LOGIN),
    Scene(
        "credentials of the client and the URL", "downloaded", how=GUARDED, client=LOGIN, fetches=with_userinfo("bob:x")
    ),
    # They are not sent to a mirror on another origin.
    *[
        Scene(
            f"mirror and {what}",
            "downloaded",
            how=status(404),
            prepare=mirror(refuses(header)),
            client=client,
            fetches=(Fetch(url, mirrors=[MIRROR]),),
            requests=2,
        )
        for what, header, url, client in (
            ("credentials in the URL", "authorization", "http://alice:hunter2@{server:}{path}", ClientSettings()),
            ("credentials of the client", "authorization", "{url}", LOGIN),
            ("a token of the client", "private-token", "{url}", TOKEN),
        )
    ],
    Scene("token of the client", "downloaded", how=needs_token, client=TOKEN),
    # Event hooks of the caller's client
    Scene("hook that raises, fine", "downloaded", client=RAISES),
    Scene("hook that raises, status 404", failed_status(404), how=status(404), client=RAISES),
    Scene(
        "hook that raises, with a mirror", "downloaded", how=status(404), client=RAISES, fetches=MIRRORED, requests=2
    ),
    Scene("hook that raises, status 503, then fine", "downloaded", [status(503)], client=RAISES, requests=2),
    Scene(
        "hook that raises, long Retry-After",
        failed(responded(429), status=429, advice="The server asks to wait 3600 s. Try again after that."),
        how=status(429, "3600"),
        client=RAISES,
    ),
    Scene("hook that reads", "downloaded", client=READS),
    Scene("hook that reads, without a hash", ("downloaded", "revalidated"), client=READS, fetches=TWICE, requests=2),
    Scene("hook that reads, gzipped", "downloaded", how=gzipped, client=READS),
    Scene("hook that reads, plain, labelled gzip", failed(UNDECODED), how=mislabelled, client=READS),
    Scene("hook that reads, truncated, then fine", "downloaded", [truncated(5000)], client=READS, requests=2),
    Scene("hook that reads, redirect", "downloaded", [redirect("?a")], client=READS, requests=("{path}", "{path}?a")),
    Scene("hook that reads, status 404", failed_status(404), how=status(404), client=READS),
    # Transports of the caller's client
    Scene("transport that reads", "downloaded", client=AHEAD),
    Scene("transport that reads, gzipped", "downloaded", how=gzipped, client=AHEAD),
    Scene("transport that reads, truncated, then fine", "downloaded", [truncated(5000)], client=AHEAD, requests=2),
    Scene(
        "transport that reads, always truncated",
        failed(cut(), TRIES),
        how=truncated(5000),
        client=AHEAD,
        requests=TRIES,
    ),
]
