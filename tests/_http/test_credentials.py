"""Credentials of a client stay with the origin of the requested URL."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from machines import Machine
from marks import any_system
from server import Server, redirect, status
from wheels import Wheel

from wheelcache import AsyncCache
from wheelcache._http.adapters.library import load
from wheelcache._http.credentials import is_credential, origin_of

pytestmark = any_system

USER, PASSWORD = "alice", "hunter2"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode("ascii")
# Under Windows, one library is installed.
LIBRARIES = ["httpx"] if sys.platform == "win32" else ["httpx", "httpx2"]


@pytest.fixture(params=LIBRARIES)
def httpx(request: pytest.FixtureRequest) -> Any:
    """Return each library."""
    return load(request.param).httpx


Fetch = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def fetch(request: pytest.FixtureRequest, httpx: Any, machine: Machine, tmp_path: Path) -> Fetch:
    """Return a function that fetches a wheel with a client that has the given options."""

    def with_client(options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        with httpx.Client(**options) as client, machine.cache(tmp_path / "cache", client=client) as cache:
            return cache.fetch(*args, **kwargs)

    def with_async_client(options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            async with httpx.AsyncClient(**options) as client, AsyncCache(tmp_path / "cache", client=client) as cache:
                return await cache.fetch(*args, **kwargs)

        return anyio.run(run)

    return with_client if request.param == "sync" else with_async_client


def own_auth(httpx: Any) -> Any:
    """Return an object of a caller's class that decides for each URL."""

    class Own(httpx.Auth):
        def auth_flow(self, request: Any) -> Any:
            request.headers["Authorization"] = f"Bearer for {request.url.port}"
            yield request

    return Own()


def options_for(httpx: Any, kind: str) -> dict[str, Any]:
    return {
        "basic": {"auth": (USER, PASSWORD)},
        "digest": {"auth": httpx.DigestAuth(USER, PASSWORD)},
        "authorization": {"headers": {"Authorization": BASIC}},
        "token": {"headers": {"Private-Token": PASSWORD}},
        "cookie field": {"headers": {"Cookie": f"session={PASSWORD}"}},
        "cookies": {"cookies": {"session": PASSWORD}},
        "parameters": {"params": {"token": PASSWORD}},
    }[kind]


KINDS = ["basic", "digest", "authorization", "token", "cookie field", "cookies", "parameters"]


def is_secret_in(request: Any) -> bool:
    return PASSWORD in str(request) or BASIC in str(request) or "digest" in str(request).lower()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("via", ["mirror", "redirect"])
def test_the_credentials_of_a_client_are_not_sent_to_another_origin(
    via: str, kind: str, httpx: Any, fetch: Fetch, server: Server, elsewhere: Server, wheel: Wheel
) -> None:
    """A mirror or a redirect target on another origin receives the public fields, and no credentials of the client."""
    there = wheel.on(elsewhere)
    if via == "mirror":
        url = server.serve(f"/from/{wheel.filename}", how=status(404))
    else:
        url = server.serve(f"/from/{wheel.filename}", how=redirect(there))
    options = options_for(httpx, kind)
    options["headers"] = {"User-Agent": "mine", "Accept-Language": "cy", **options.get("headers", {})}
    mirrors = [there] if via == "mirror" else []
    found = fetch(options, url, hashes=wheel.digest, mirrors=mirrors)
    assert found.path.read_bytes() == wheel.data
    (request,) = elsewhere.requests()
    assert not is_secret_in(request)
    assert (request.headers["user-agent"], request.headers["accept-language"]) == ("mine", "cy")
    if kind != "digest":  # which answers a challenge only
        assert is_secret_in(server.requests()[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_credentials_of_a_client_are_sent_to_mirrors_on_the_same_origin(
    kind: str, httpx: Any, fetch: Fetch, server: Server, wheel: Wheel
) -> None:
    """A mirror on the origin of the URL receives the credentials of the client."""
    url = server.serve(f"/from/{wheel.filename}", how=status(404))
    found = fetch(options_for(httpx, kind), url, hashes=wheel.digest, mirrors=[wheel.on(server)])
    assert found.path.read_bytes() == wheel.data
    assert is_secret_in(server.requests(wheel.path)[0]) is (kind != "digest")


def test_an_auth_class_of_the_caller_decides_for_each_url(
    httpx: Any, fetch: Fetch, server: Server, elsewhere: Server, wheel: Wheel
) -> None:
    """An object of a caller's own class is asked for each URL, also for a mirror on another origin."""
    url = server.serve(f"/from/{wheel.filename}", how=status(404))
    there = wheel.on(elsewhere)
    fetch({"auth": own_auth(httpx)}, url, hashes=wheel.digest, mirrors=[there])
    assert server.requests()[0].headers["authorization"] == f"Bearer for {server.port}"
    assert elsewhere.requests()[0].headers["authorization"] == f"Bearer for {elsewhere.port}"


def test_a_netrc_file_decides_for_each_host(
    httpx: Any, fetch: Fetch, server: Server, elsewhere: Server, wheel: Wheel, tmp_path: Path
) -> None:
    """NetRCAuth of a client gives each host its own credentials."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n", encoding="utf-8")
    url = server.serve(f"/from/{wheel.filename}", how=status(404))
    wheel.on(elsewhere)
    mirrors = [elsewhere.url(wheel.path, host="localhost"), elsewhere.url(wheel.path)]
    elsewhere.script(wheel.path, status(404))
    fetch({"auth": httpx.NetRCAuth(str(netrc))}, url, hashes=wheel.digest, mirrors=mirrors)
    sent = [request.headers.get("authorization") for request in server.requests() + elsewhere.requests()]
    assert sent == [BASIC, None, BASIC]


@pytest.mark.parametrize("kind", [None, "basic"])
def test_the_credentials_in_a_url_are_sent_to_its_own_origin(
    kind: str | None, httpx: Any, fetch: Fetch, server: Server, elsewhere: Server, wheel: Wheel
) -> None:
    """Each mirror receives the credentials in its own URL, and not those of the first URL or of the client."""
    server.serve(wheel.path, how=status(404))
    wheel.on(elsewhere)
    options = {} if kind is None else {"auth": ("other", "client-secret")}
    url = server.url(wheel.path, userinfo=f"{USER}:{PASSWORD}")
    fetch(options, url, hashes=wheel.digest, mirrors=[elsewhere.url(wheel.path, userinfo="bob:builder")])
    own = "Basic " + base64.b64encode(b"other:client-secret").decode("ascii")
    assert server.requests()[0].headers["authorization"] == (BASIC if kind is None else own)
    mirror = "Basic " + base64.b64encode(b"bob:builder").decode("ascii")
    assert elsewhere.requests()[0].headers["authorization"] == mirror


def test_a_cookie_of_a_host_is_sent_to_this_host(
    httpx: Any, fetch: Fetch, server: Server, elsewhere: Server, wheel: Wheel
) -> None:
    """A cookie that belongs to the host of a redirect target is sent there, and a cookie without a host is not."""
    wheel.on(elsewhere)
    url = server.serve(f"/from/{wheel.filename}", how=redirect(elsewhere.url(wheel.path, host="localhost")))
    cookies = httpx.Cookies()
    cookies.set("mine", "1", domain="localhost.local")
    cookies.set("everywhere", PASSWORD)
    fetch({"cookies": cookies}, url, hashes=wheel.digest)
    assert elsewhere.requests()[0].headers.get("cookie") == "mine=1"


def test_an_object_with_the_methods_of_a_client_uses_mirrors(
    httpx: Any, server: Server, elsewhere: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """A client that only has the documented methods has no cookies that would have to be removed for a mirror."""

    class Minimal:
        auth = None

        def __init__(self, client: Any) -> None:
            self.build_request, self.send, self.close = client.build_request, client.send, client.close

    url = server.serve(f"/from/{wheel.filename}", how=status(404))
    with httpx.Client() as client, machine.cache(tmp_path / "cache", client=Minimal(client)) as cache:
        found = cache.fetch(url, hashes=wheel.digest, mirrors=[wheel.on(elsewhere)])
    assert found.path.read_bytes() == wheel.data


@pytest.mark.parametrize("kind", [*KINDS, "URL", None])
def test_a_response_knows_whether_credentials_were_sent(
    kind: str | None, httpx: Any, server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """The response to a request with credentials, or behind a redirect with them, is marked."""
    assert with_credentials(httpx, kind, server, machine, tmp_path, wheel.on(server)) is (kind not in {None, "digest"})


def with_credentials(httpx: Any, kind: str | None, server: Server, machine: Machine, tmp_path: Path, url: str) -> bool:
    from wheelcache._cache import core_of
    from wheelcache._request import parse_request

    options = {} if kind in {None, "URL"} else options_for(httpx, kind)
    if kind == "URL":
        url = url.replace("://", f"://{USER}:{PASSWORD}@")
    with httpx.Client(**options) as client, machine.cache(tmp_path / "cache", client=client) as cache:
        core = core_of(cache)
        source = parse_request(url, None, None, None).sources[0]
        with core.begin() as op, core.http.get(op, source, {}) as response:
            return response.with_credentials


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Authorization", True),
        ("cookie", True),
        ("X-JFrog-Art-Api", True),
        ("Private-Token", True),
        ("Proxy-Authorization", True),
        ("Accept", False),
        ("accept-encoding", False),
        ("If-None-Match", False),
        ("Range", False),
        ("User-Agent", False),
        ("Host", False),
    ],
)
def test_every_field_is_a_credential_unless_it_is_known(name: str, expected: bool) -> None:
    """A field counts as credentials unless it is known to describe the client or the wanted bytes."""
    assert is_credential(name) is expected


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("https://example.org/a", "https://EXAMPLE.org:443/b?c", True),
        ("http://example.org", "http://example.org:80", True),
        ("http://example.org", "https://example.org", False),
        ("http://example.org:81", "http://example.org", False),
        ("https://a.example.org", "https://example.org", False),
        ("https://me:secret@example.org", "https://example.org", True),
        ("http://[::1]:80/", "http://[::1]/", True),
    ],
)
def test_origins(first: str, second: str, same: bool) -> None:
    """An origin is scheme, host and port, with the default port of the scheme."""
    assert (origin_of(first) == origin_of(second)) is same
