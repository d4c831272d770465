"""Redirects: how far they are followed, where to, and what does not go along."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from folders import assert_nothing_came
from machines import Machine
from marks import any_system
from server import Exchange, Server, asks_for, plain, redirect, reset, status, truncated
from wheels import Wheel

from wheelcache import Cache, DownloadError

pytestmark = any_system

USER, PASSWORD = "alice", "hunter2"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode("ascii")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["absolute", "path", "relative", "same scheme", "query"])
def test_redirects_are_followed(code: int, kind: str, server: Server, cache: Cache, wheel: Wheel) -> None:
    """Every status that redirects and every form of Location leads to the wheel, under the name first asked for."""
    wheel.on(server)
    to = {
        "absolute": server.url(wheel.path),
        "path": wheel.path,
        "relative": f"../files/{wheel.filename}",
        "same scheme": f"//127.0.0.1:{server.port}{wheel.path}",
        "query": f"{wheel.path}?signature=abc",
    }[kind]
    url = server.serve(f"/from/{wheel.filename}", how=redirect(to, code))
    found = cache.fetch(url, hashes=wheel.digest)
    assert found.path.read_bytes() == wheel.data
    assert found.url == url
    assert [request.headers["accept-encoding"] for request in server.requests()] == ["identity"] * 2


@pytest.mark.parametrize("follow", [True, False])
def test_the_client_need_not_follow(
    follow: bool, server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """Redirects are followed whatever the caller's client is set to, and its own limit does not count."""
    wheel.on(server)
    first = chain(server, wheel, 3)
    with (
        httpx.Client(follow_redirects=follow, max_redirects=0) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        assert cache.fetch(first, hashes=wheel.digest).path.read_bytes() == wheel.data


def chain(server: Server, wheel: Wheel, hops: int) -> str:
    """Serve so many redirects before the wheel; return where they begin."""
    following = wheel.path
    for number in range(hops):
        path = f"/hop{hops - number}/{wheel.filename}"
        server.serve(path, how=redirect(following))
        following = path
    return server.url(following)


def test_twenty_redirects_are_fine(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A chain of 20 is followed to its end."""
    wheel.on(server)
    assert cache.fetch(chain(server, wheel, 20), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert server.count() == 21


def test_one_more_is_a_download_error(server: Server, machine: Machine, cache: Cache, wheel: Wheel) -> None:
    """The 21st redirect ends the fetch at once, and nothing is left."""
    wheel.on(server)
    first = chain(server, wheel, 21)
    with pytest.raises(DownloadError) as caught:
        cache.fetch(first, hashes=wheel.digest)
    assert "20" in caught.value.problem
    assert (caught.value.url, caught.value.status, caught.value.attempts) == (first, 302, 1)
    assert server.count() == 21
    assert server.count(wheel.path) == 0
    assert machine.clock.slept == []
    assert_nothing_came(cache)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_redirect_loop_is_a_download_error(
    length: int, server: Server, machine: Machine, cache: Cache, wheel: Wheel
) -> None:
    """A redirect loop ends at the first URL that is repeated."""
    paths = [f"/hop{number}/{wheel.filename}" for number in range(length)]
    for path, following in zip(paths, paths[1:] + paths[:1], strict=True):
        server.serve(path, how=redirect(following))
    with pytest.raises(DownloadError) as caught:
        cache.fetch(server.url(paths[0]), hashes=wheel.digest)
    assert "redirect loop" in caught.value.problem
    assert server.count() == length
    assert machine.clock.slept == []
    assert_nothing_came(cache)


def test_a_redirect_back_with_a_cookie_is_not_a_loop(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A server that sends to where a cookie is given, and from there back, is followed to the wheel."""

    def door(exchange: Exchange) -> None:
        (plain if "session=1" in exchange.request.headers.get("cookie", "") else redirect("/login"))(exchange)

    url = wheel.on(server, how=door)
    server.serve(
        "/login", how=lambda exchange: exchange.send(302, {"Location": url, "Set-Cookie": "session=1; Path=/"})
    )
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert [request.target for request in server.requests()] == [wheel.path, "/login", wheel.path]


def test_a_cookie_that_changes_each_time_ends_all_the_same(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A way back with another cookie each time ends at the limit."""

    def door(exchange: Exchange) -> None:
        exchange.send(302, {"Location": wheel.path, "Set-Cookie": f"turn={server.count()}; Path=/"})

    url = wheel.on(server, how=door)
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    assert "20" in caught.value.problem
    assert server.count() == 21


@pytest.mark.parametrize(
    "location", ["", "http://", "http://[bad]/x", "http://127.0.0.1:port/x", "ftp://127.0.0.1/x", "http://\x01/", "//"]
)
def test_a_location_that_leads_nowhere_is_a_download_error(
    location: str, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A Location that is no address ends in DownloadError, and nothing is left."""
    url = server.serve(wheel.path, how=redirect(location))
    with pytest.raises(DownloadError):
        cache.fetch(url, hashes=wheel.digest)
    assert_nothing_came(cache)


def test_a_redirect_without_location_is_a_download_error(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A 302 that leads nowhere is told as the status that it is."""
    url = server.serve(wheel.path, how=status(302))
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    assert caught.value.status == 302
    assert server.count() == 1


@pytest.mark.parametrize("fault", [status(403), status(503), reset(), truncated(10)])
def test_a_failure_behind_a_redirect_says_where(
    fault, server: Server, elsewhere: Server, cache: Cache, wheel: Wheel
) -> None:
    """The error names the URL that was asked for and, without its query, the one that failed."""
    there = elsewhere.serve(wheel.path, wheel.data, how=fault)
    url = server.serve(wheel.path, how=redirect(f"{there}?signature=abc"))
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    assert caught.value.url == url
    assert f"{there}?***" in caught.value.problem
    assert all(line.startswith(f"{there}?***: ") for line in caught.value.tried)
    assert "abc" not in str(caught.value)


def test_each_try_follows_from_the_start(server: Server, cache: Cache, wheel: Wheel) -> None:
    """After a fault behind a redirect the first URL is asked again, since a signed address may have expired."""
    wheel.on(server)
    first = chain(server, wheel, 1)
    server.script(wheel.path, status(503))
    assert cache.fetch(first, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert (server.count(first), server.count(wheel.path)) == (2, 2)


# Over https, without a certificate: a transport that answers what it is told.

Answers = Callable[[httpx.Request], httpx.Response]


def answering(machine: Machine, folder: Path, answers: Answers, **options: object) -> Cache:
    """A cache whose client asks a function."""
    client = httpx.Client(transport=httpx.MockTransport(answers), **options)  # type: ignore[arg-type]
    return machine.cache(folder, client=client)


def test_https_is_never_left_for_http(machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A redirect from https to http is DownloadError, and the http URL is not asked for anything."""
    asked = []

    def answers(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"Location": f"http://example.org/{wheel.filename}?token=secret"})

    with answering(machine, tmp_path / "cache", answers) as cache:
        with pytest.raises(DownloadError) as caught:
            cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert asked == [f"https://example.org/{wheel.filename}"]
        assert "http://example.org" in caught.value.problem
        assert "secret" not in str(caught.value)
        assert_nothing_came(cache)


def test_http_may_be_left_for_https_and_not_back(machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """From http to https is followed; from there back to http is not."""

    def answers(request: httpx.Request) -> httpx.Response:
        scheme = {"http": "https", "https": "http"}[request.url.scheme]
        if request.url.scheme == "https" and request.url.path == "/good.whl":
            return httpx.Response(200, content=wheel.data)
        return httpx.Response(302, headers={"Location": f"{scheme}://example.org{request.url.path}"})

    with answering(machine, tmp_path / "cache", answers) as cache:
        name = wheel.filename
        assert cache.fetch("http://example.org/good.whl", filename=name, hashes=wheel.digest).size == wheel.size
        with pytest.raises(DownloadError):
            cache.fetch("http://example.org/bad.whl", filename="other-1.0-py3-none-any.whl")


# Credentials


def test_credentials_of_the_url_are_sent_to_its_origin(server: Server, cache: Cache, wheel: Wheel) -> None:
    """User name and password of the URL, decoded, open the door, and stay with redirects on the same origin."""
    wheel.on(server, how=asks_for("al@ice", "s/cret"))
    server.serve(f"/from/{wheel.filename}", how=asks_for("al@ice", "s/cret", then=redirect(wheel.path)))
    url = server.url(f"/from/{wheel.filename}", userinfo="al%40ice:s%2Fcret")
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert [request.target for request in server.requests()] == [f"/from/{wheel.filename}", wheel.path]


def another_host(server: Server, _: Server, path: str) -> str:
    return server.url(path, host="localhost")


def another_port(_: Server, elsewhere: Server, path: str) -> str:
    return elsewhere.url(path)


@pytest.mark.parametrize("origin", [another_host, another_port])
@pytest.mark.parametrize("how", ["URL", "auth", "header", "cookie"])
def test_credentials_do_not_go_to_another_origin(
    how: str, origin, server: Server, elsewhere: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """Whoever the credentials come from, a redirect to another host or port carries none of them."""
    wheel.on(server)
    wheel.on(elsewhere)
    server.serve(f"/from/{wheel.filename}", how=redirect(origin(server, elsewhere, wheel.path)))
    url = server.url(f"/from/{wheel.filename}", userinfo=f"{USER}:{PASSWORD}" if how == "URL" else "")
    options = {
        "URL": {},
        "auth": {"auth": (USER, PASSWORD)},
        "header": {"headers": {"Authorization": BASIC}},
        "cookie": {"headers": {"Cookie": f"session={PASSWORD}"}},
    }[how]
    with httpx.Client(**options) as client, machine.cache(tmp_path / "cache", client=client) as cache:
        assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    (first,) = server.requests(f"/from/{wheel.filename}")
    assert first.headers.get("authorization") == (None if how == "cookie" else BASIC)
    (last,) = server.requests(wheel.path) + elsewhere.requests(wheel.path)
    assert "authorization" not in last.headers
    assert PASSWORD not in str(last)


def test_credentials_do_not_come_back(server: Server, elsewhere: Server, cache: Cache, wheel: Wheel) -> None:
    """Another origin that redirects back does not get credentials sent to an address of its choice."""
    wheel.on(server)
    elsewhere.serve(wheel.path, how=redirect(server.url(wheel.path)))
    server.serve(f"/from/{wheel.filename}", how=redirect(elsewhere.url(wheel.path)))
    url = server.url(f"/from/{wheel.filename}", userinfo=f"{USER}:{PASSWORD}")
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert "authorization" not in server.requests(wheel.path)[0].headers
    assert "authorization" not in elsewhere.requests()[0].headers


@pytest.mark.parametrize("how", ["URL", "auth", "header"])
def test_another_scheme_is_another_origin(how: str, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """Credentials for http do not go to https of the same host: another program may listen there."""
    seen: list[httpx.Request] = []

    def answers(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if request.url.scheme == "https":
            return httpx.Response(200, content=wheel.data)
        return httpx.Response(302, headers={"Location": f"https://example.org{request.url.path}"})

    options = {"auth": {"auth": (USER, PASSWORD)}, "header": {"headers": {"Authorization": BASIC}}}.get(how, {})
    userinfo = f"{USER}:{PASSWORD}@" if how == "URL" else ""
    with answering(machine, tmp_path / "cache", answers, **options) as cache:
        cache.fetch(f"http://{userinfo}example.org/{wheel.filename}", hashes=wheel.digest)
    assert [request.headers.get("authorization") for request in seen] == [BASIC, None]


def test_the_clients_credentials_go_before_those_of_the_url(
    server: Server, machine: Machine, wheel: Wheel, tmp_path
) -> None:
    """The caller's client rules: its auth is used, and that of the URL is not."""
    url = server.serve(wheel.path, wheel.data, how=asks_for(USER, PASSWORD))
    with (
        httpx.Client(auth=(USER, PASSWORD)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        assert cache.fetch(url.replace("//", "//other:wrong@"), hashes=wheel.digest).size == wheel.size
    assert server.count() == 1


def test_netrc_opens_the_door_of_its_host_only(
    server: Server, cache: Cache, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a client of the caller's, the user's netrc file counts, for the hosts that it names."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.serve(
        f"/from/{wheel.filename}", how=asks_for(USER, PASSWORD, then=redirect(another_host(server, server, wheel.path)))
    )
    wheel.on(server)
    assert cache.fetch(server.url(f"/from/{wheel.filename}"), hashes=wheel.digest).size == wheel.size
    assert "authorization" not in server.requests(wheel.path)[0].headers


@pytest.mark.parametrize("name", [".netrc", "_netrc"])
def test_netrc_is_where_pip_finds_it(
    name: str, server: Server, cache: Cache, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The netrc file of the home folder counts under both its names, and where others may read it as for pip."""
    netrc = tmp_path / name
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    netrc.chmod(0o644)
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    url = wheel.on(server, how=asks_for(USER, PASSWORD))
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


@pytest.mark.parametrize("whose", ["environment", "home"])
@pytest.mark.parametrize("content", ["machine", "rubbish \0", "machine 127.0.0.1 login x password"])
def test_a_broken_netrc_is_passed_over(
    content: str,
    whose: str,
    server: Server,
    cache: Cache,
    wheel: Wheel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A netrc file that cannot be read is none, wherever it is."""
    (tmp_path / "netrc").write_text(content)
    (tmp_path / ".netrc").write_text(content)
    if whose == "environment":
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    else:
        monkeypatch.delenv("NETRC")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).size == wheel.size


def test_wrong_credentials_are_told_without_them(server: Server, cache: Cache, wheel: Wheel) -> None:
    """401 says what to do, and shows neither user name nor password."""
    server.serve(wheel.path, wheel.data, how=asks_for(USER, PASSWORD))
    with pytest.raises(DownloadError) as caught:
        cache.fetch(server.url(wheel.path, userinfo="bob:wr0ngw0rd"), hashes=wheel.digest)
    assert caught.value.status == 401
    assert "credentials" in caught.value.advice
    assert "wr0ngw0rd" not in repr(vars(caught.value))
    assert "bob" not in repr(vars(caught.value))
