"""Test CacheTransport across redirects: the first URL identifies the wheel, wherever the client is redirected to."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from folders import unfinished
from http_clients import KINDS, Kind
from machines import FakeClock, Machine
from marks import any_system
from server import Answer, Exchange, Server, gzipped, html, plain, redirect, status, wrong_bytes
from wheels import Wheel

from wheelcache import Cache, CacheTransport, Status

pytestmark = any_system

STORAGE = "/bucket/0123abcd"
HASHED = [True, False]


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return each kind of client."""
    return request.param


@pytest.fixture
def machine() -> Machine:
    """Return a machine whose clock begins at the current time, like the Date of the server."""
    return Machine(clock=FakeClock(time.time()))


@pytest.fixture
def client(kind: Kind, cache: Cache) -> Iterator[Any]:
    """Yield a client that follows redirects, and whose transport is a CacheTransport."""
    with kind.client(transport=CacheTransport(cache), follow_redirects=True) as client:
        yield client


def moved(to: str, code: int = 302, **headers: str) -> Answer:
    """A redirect with further header fields."""
    fields = {name.replace("_", "-"): text for name, text in headers.items()}
    return lambda exchange: exchange.send(code, {"Location": to, **fields}, b"over there")


def signed(to: str, code: int = 302, **headers: str) -> Answer:
    """A redirect whose Location has another signature each time."""
    numbers = itertools.count()
    path, mark, fragment = to.partition("#")

    def answer(exchange: Exchange) -> None:
        moved(f"{path}?signature={next(numbers)}{mark}{fragment}", code, **headers)(exchange)

    return answer


def with_hash(url: str, wheel: Wheel, hashed: bool = True) -> str:
    """Return a URL with the hash of a wheel, if ``hashed``."""
    return f"{url}#sha256={wheel.hex()}" if hashed else url


def test_a_wheel_in_storage_by_digest_is_cached(client: Any, server: Server, cache: Cache, wheel: Wheel) -> None:
    """With a hash, a wheel that storage has under another name is stored, and served without a request."""
    server.serve(STORAGE, wheel.data)
    url = with_hash(server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE)), wheel)
    assert client.get(url).content == wheel.data
    assert [(each.filename, each.digest) for each in cache.entries()] == [(wheel.filename, wheel.digest)]
    server.forget()
    again = client.get(url)
    assert (again.content, again.extensions["wheelcache"], again.history) == (wheel.data, Status.HIT, [])
    assert server.count() == 0
    assert unfinished(cache) == []


@pytest.mark.parametrize("place", [STORAGE, "/bucket/demo-1.0-py3-none-any.whl"])
def test_without_a_hash_the_storage_is_asked_whether_the_wheel_changed(
    place: str, client: Any, server: Server, cache: Cache, wheel: Wheel, other_wheel: Wheel
) -> None:
    """Without a hash, a new signature costs no second body, and a change is noticed."""
    server.serve(place, wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=signed(place))
    assert client.get(url).content == wheel.data
    again = client.get(url)
    assert (again.status_code, again.content) == (200, wheel.data)
    assert again.extensions["wheelcache"] is Status.REVALIDATED
    assert server.sent(place) == wheel.size
    assert ["if-none-match" in each.headers for each in server.requests()] == [False, False, False, True]
    server.serve(place, other_wheel.data)
    assert client.get(url).content == other_wheel.data
    assert {each.digest for each in cache.entries()} == {wheel.digest, other_wheel.digest}
    assert unfinished(cache) == []


SHAPES = {
    "relative": "bucket/0123abcd",
    "parent": "../bucket/./0123abcd",
    "path": "/bucket/0123abcd",
    "network": "//{netloc}/bucket/0123abcd",
    "absolute": "{origin}/bucket/0123abcd",
    "userinfo": "http://user:secret@{netloc}/bucket/0123abcd",
    "query": "/bucket/0123abcd?name=a%20b&empty=",
    "empty query": "/bucket/0123abcd?",
    "escaped": "/bucket/%7e0123%2Babcd",
    "unescaped": "/bucket/0123 \u00e4bcd",
    "fragment": "/bucket/0123abcd#part",
    "invalid hash": "/bucket/0123abcd#sha256=0123",
}


def check_cached(client: Any, url: str, wheel: Wheel, server: Server, machine: Machine) -> None:
    """Check that a wheel is stored by a request, then served without one, and without a hash revalidated later."""
    assert client.get(url).content == wheel.data
    server.forget()
    again = client.get(url)
    assert (again.content, again.extensions["wheelcache"]) == (wheel.data, Status.HIT)
    assert server.count() == 0
    if "#" not in url:
        machine.clock.advance(61)
        assert client.get(url).extensions["wheelcache"] is Status.REVALIDATED
        assert server.sent() == len(b"over there") * (server.count() - 1)


def serve_target(server: Server, url: str, wheel: Wheel) -> None:
    """Serve a wheel where a URL redirects to, wherever the HTTP library reads that from the Location."""
    with httpx.Client() as client:
        request = client.get(url).next_request
    assert request is not None
    server.serve(request.url.raw_path.decode("ascii"), wheel.data, Cache_Control="max-age=60")


@pytest.mark.parametrize("hashed", HASHED)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_form_of_location_is_followed(
    shape: str, hashed: bool, client: Any, server: Server, wheel: Wheel, machine: Machine
) -> None:
    """Each form of a Location leads to a wheel that is cached under the first URL."""
    netloc = server.origin.removeprefix("http://")
    location = SHAPES[shape].format(netloc=netloc, origin=server.origin)
    url = server.serve(f"/repo/{wheel.filename}", how=moved(location, Cache_Control="max-age=60"))
    serve_target(server, url, wheel)
    check_cached(client, with_hash(url, wheel, hashed), wheel, server, machine)


@pytest.mark.parametrize("hashed", HASHED)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_status_that_redirects_is_followed(
    code: int, hashed: bool, client: Any, server: Server, wheel: Wheel, machine: Machine
) -> None:
    """Each status that redirects leads to a wheel that is cached under the first URL."""
    server.serve(STORAGE, wheel.data, Cache_Control="max-age=60")
    url = server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE, code, Cache_Control="max-age=60"))
    check_cached(client, with_hash(url, wheel, hashed), wheel, server, machine)


@pytest.mark.parametrize("hashed", HASHED)
def test_several_redirects_to_other_origins_are_followed(
    hashed: bool, client: Any, server: Server, wheel: Wheel, machine: Machine
) -> None:
    """Redirects over several servers lead to a wheel that is cached under the first URL."""
    fresh = {"Cache_Control": "max-age=60"}
    with Server() as middle, Server() as storage:
        storage.serve(STORAGE, wheel.data, **fresh)
        middle.serve("/to", how=signed("/then", **fresh))
        middle.serve("/then", how=signed(storage.url(STORAGE), **fresh))
        url = server.serve(f"/repo/{wheel.filename}", how=signed(middle.url("/to"), **fresh))
        url = with_hash(url, wheel, hashed)
        assert client.get(url).content == wheel.data
        assert client.get(url).extensions["wheelcache"] is Status.HIT
        machine.clock.advance(61)
        again = client.get(url)
        assert again.extensions["wheelcache"] is (Status.HIT if hashed else Status.REVALIDATED)
        assert storage.sent() == wheel.size


@pytest.mark.parametrize("hashed", HASHED)
def test_a_loop_ends_at_the_clients_limit(hashed: bool, client: Any, kind: Kind, server: Server, cache, wheel) -> None:
    """A loop of redirects ends with the client's error, and a loop that ends is followed."""
    server.serve("/turn", how=signed(f"/repo/{wheel.filename}"))
    url = with_hash(server.serve(f"/repo/{wheel.filename}", how=signed("/turn")), wheel, hashed)
    with pytest.raises(kind.library.TooManyRedirects):
        client.get(url)
    assert list(cache.entries()) == []
    server.serve(STORAGE, wheel.data)
    path = f"/repo/{wheel.filename}"
    server.script(path, redirect(path), redirect("/turn"), redirect(path), redirect(STORAGE))
    assert client.get(url).content == wheel.data
    assert [each.digest for each in cache.entries()] == [wheel.digest]
    assert unfinished(cache) == []


@pytest.mark.parametrize(("count", "is_stored"), [(20, True), (21, False), (1500, False)])
def test_a_wheel_is_cached_behind_at_most_twenty_redirects(
    count: int, is_stored: bool, kind: Kind, cache: Cache, wheel: Wheel
) -> None:
    """Behind more redirects than fetch() follows, the wheel is received and not stored."""

    def answer(request: Any) -> Any:
        done = int(request.url.params.get("done", "0"))
        if done < count:
            return kind.library.Response(302, headers={"Location": f"/0123?done={done + 1}"})
        return kind.library.Response(200, content=wheel.data)

    transport = CacheTransport(cache, next=kind.library.MockTransport(answer))
    with kind.client(transport=transport, follow_redirects=True, max_redirects=count) as client:
        assert client.get(f"https://example.org/{wheel.filename}").content == wheel.data
    assert [each.digest for each in cache.entries()] == [wheel.digest] * is_stored


@pytest.mark.parametrize(
    ("first", "last", "seconds"),
    [
        ("max-age=600", "max-age=100", 100),
        ("max-age=100", "max-age=600", 100),
        ("", "max-age=600", 0),
        ("no-cache", "max-age=600", 0),
    ],
)
def test_a_wheel_is_fresh_no_longer_than_its_redirects(
    first: str, last: str, seconds: int, client: Any, server: Server, wheel: Wheel, machine: Machine
) -> None:
    """The shortest freshness of all redirects and of the response counts."""
    server.serve(STORAGE, wheel.data, Cache_Control=last)
    fields = {"Cache_Control": first} if first else {}
    url = server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE, **fields))
    client.get(url)
    if seconds:
        machine.clock.advance(seconds - 10)
        assert client.get(url).extensions["wheelcache"] is Status.HIT
        machine.clock.advance(20)
    assert client.get(url).extensions["wheelcache"] is Status.REVALIDATED


def test_the_target_of_a_redirect_can_be_fresh_on_its_own(client: Any, server: Server, wheel: Wheel) -> None:
    """A wheel without a signature is fresh as long as its server says, if only the redirect is not."""
    fresh = {"Cache_Control": "max-age=60"}
    place = server.serve(STORAGE, wheel.data, **fresh)
    url = server.serve(f"/repo/{wheel.filename}", how=redirect(STORAGE))
    client.get(url)
    again = client.get(url)
    assert (again.content, again.extensions["wheelcache"]) == (wheel.data, Status.HIT)
    assert server.count(place) == 1
    assert client.get(url, headers={"Cache-Control": "no-cache"}).extensions["wheelcache"] is Status.REVALIDATED
    server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE))
    assert client.get(url).extensions["wheelcache"] is Status.REVALIDATED
    assert server.sent(place) == wheel.size


def test_no_store_of_a_redirect_is_respected(client: Any, server: Server, cache: Cache, wheel: Wheel) -> None:
    """Without a hash, a redirect with no-store prevents storing, and with one it does not."""
    server.serve(STORAGE, wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE, Cache_Control="no-store"))
    assert client.get(url).content == wheel.data
    assert list(cache.entries()) == []
    assert client.get(with_hash(url, wheel)).content == wheel.data
    assert [each.digest for each in cache.entries()] == [wheel.digest]


def test_fetch_and_the_transport_share_what_they_know(client: Any, server: Server, cache: Cache, wheel: Wheel) -> None:
    """A wheel that one of fetch() and the transport has downloaded over redirects costs the other one no body."""
    server.serve(STORAGE, wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE))
    assert cache.fetch(url).status is Status.DOWNLOADED
    assert client.get(url).extensions["wheelcache"] is Status.REVALIDATED
    other = server.serve(f"/other/{wheel.filename}", how=signed(STORAGE))
    client.get(other)
    assert cache.fetch(other).status is Status.REVALIDATED


def test_the_validators_of_another_place_are_not_sent(client: Any, server: Server, wheel: Wheel, other_wheel) -> None:
    """If the URL redirects to another place, or no longer redirects, the whole new wheel is received."""
    keep = {"ETag": '"same"'}
    server.serve(STORAGE, wheel.data, **keep)
    server.serve("/bucket/other", other_wheel.data, **keep)
    url = server.serve(f"/repo/{wheel.filename}", other_wheel.data, **keep)
    path = f"/repo/{wheel.filename}"
    server.script(path, redirect(STORAGE), redirect("/bucket/other"), redirect(STORAGE), plain, redirect(STORAGE))
    for each in (wheel, other_wheel, wheel, other_wheel, wheel):
        received = client.get(url)
        assert (received.content, received.status_code) == (each.data, 200)
    stored = server.requests(STORAGE) + server.requests("/bucket/other")
    assert not any("if-none-match" in each.headers for each in stored)


def test_the_hash_of_a_redirect_counts_without_one_of_the_request(
    client: Any, server: Server, cache: Cache, wheel: Wheel, other_wheel: Wheel
) -> None:
    """A hash in a Location selects the wheel, unless the requested URL has a hash."""
    server.serve(STORAGE, wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=signed(f"{STORAGE}#sha256={wheel.hex()}"))
    assert client.get(url).content == wheel.data
    again = client.get(url)
    assert (again.content, again.extensions["wheelcache"]) == (wheel.data, Status.HIT)
    assert server.sent(STORAGE) == wheel.size
    assert [(each.filename, each.digest) for each in cache.entries()] == [(wheel.filename, wheel.digest)]
    wanted = client.get(f"{url}#sha256={other_wheel.hex()}")
    assert "wheelcache" not in wanted.extensions
    assert [each.digest for each in cache.entries()] == [wheel.digest]


@pytest.mark.parametrize("how", [html, status(404), status(503), wrong_bytes(b"PK" * 100)])
@pytest.mark.parametrize("hashed", HASHED)
def test_something_else_than_the_wheel_is_not_stored(
    hashed: bool, how: Answer, client: Any, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A redirect to a login page, an error or other bytes reaches the client, and nothing is stored."""
    page = server.serve("/login", how=how)
    url = with_hash(server.serve(f"/repo/{wheel.filename}", how=signed("/login")), wheel, hashed)
    received, expected = client.get(url), httpx.get(page)
    assert (received.status_code, received.content) == (expected.status_code, expected.content)
    assert list(cache.entries()) == []
    assert unfinished(cache) == []


@pytest.mark.parametrize("how", [html, status(503)])
def test_a_failure_behind_a_redirect_forgets_nothing(how: Answer, client: Any, server: Server, wheel: Wheel) -> None:
    """After a redirect to a login page or an error, the wheel is revalidated as before."""
    server.serve("/login", how=how)
    server.serve(STORAGE, wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE))
    client.get(url)
    server.script(url, redirect("/login"))
    client.get(url)
    assert client.get(url).extensions["wheelcache"] is Status.REVALIDATED


def test_a_hash_counts_also_for_a_url_that_names_another_wheel(
    client: Any, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """With a hash, a wheel is stored under the requested name even if it was redirected to another one."""
    server.serve("/bucket/other-2.0-py3-none-any.whl", wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=signed("/bucket/other-2.0-py3-none-any.whl"))
    url = with_hash(url, wheel)
    client.get(url)
    assert [each.filename for each in cache.entries()] == [wheel.filename]
    assert client.get(url).extensions["wheelcache"] is Status.HIT


def test_without_a_hash_another_wheel_is_not_stored_as_the_requested_one(
    client: Any, server: Server, cache: Cache, wheel: Wheel, other_wheel: Wheel
) -> None:
    """Without a hash, a redirect to another wheel stores that one under its own name and URL."""
    path = f"/bucket/{other_wheel.filename}"
    server.serve(path, other_wheel.data, Cache_Control="max-age=60")
    url = server.serve(f"/repo/{wheel.filename}", how=moved(path, Cache_Control="max-age=60"))
    assert client.get(url).content == other_wheel.data
    assert [each.filename for each in cache.entries()] == [other_wheel.filename]
    again = client.get(url)
    assert (again.content, again.extensions["wheelcache"]) == (other_wheel.data, Status.HIT)
    assert client.get(server.url(path)).extensions["wheelcache"] is Status.HIT
    assert server.sent(path) == other_wheel.size


def test_another_spelling_of_the_same_wheel_is_the_same_wheel(
    client: Any, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A URL that spells the requested wheel name in another way is no other wheel."""
    server.serve("/bucket/Demo-1.0.0-py3-none-any.whl", wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=signed("/bucket/Demo-1.0.0-py3-none-any.whl"))
    client.get(url)
    assert client.get(url).extensions["wheelcache"] is Status.REVALIDATED
    assert [each.filename for each in cache.entries()] == [wheel.filename]


def test_a_chain_begins_at_the_first_url_of_a_wheel(client: Any, server: Server, cache: Cache, wheel: Wheel) -> None:
    """A URL without a wheel name may redirect to a wheel, which is cached under the URL that has its name."""
    server.serve(STORAGE, wheel.data)
    server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE))
    url = server.serve("/download", how=redirect(f"/repo/{wheel.filename}"))
    client.get(url)
    assert client.get(url).extensions["wheelcache"] is Status.REVALIDATED
    assert server.sent(STORAGE) == wheel.size
    assert [each.filename for each in cache.entries()] == [wheel.filename]


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_a_redirect_of_another_method_is_not_for_the_cache(
    method: str, client: Any, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """Another request than GET is passed on unchanged, also behind a redirect."""
    server.serve(STORAGE, wheel.data)
    url = with_hash(server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE, 307)), wheel)
    for _ in range(2):
        assert client.request(method, url).status_code == 200
    assert [each.method for each in server.requests()] == [method] * 4
    assert list(cache.entries()) == []


@pytest.mark.parametrize("headers", [{"Range": "bytes=0-9"}, {"Cache-Control": "no-store"}, {"If-None-Match": '"1"'}])
def test_a_special_request_is_not_for_the_cache(
    headers: dict[str, str], client: Any, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A request for a part, or that forbids storing, is passed on unchanged, also behind a redirect."""
    server.serve(STORAGE, wheel.data)
    url = with_hash(server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE)), wheel)
    client.get(url, headers=headers)
    assert list(cache.entries()) == []
    name, value = next(iter(headers.items()))
    assert [each.headers[name.lower()] for each in server.requests()] == [value] * 2


def test_a_client_can_force_revalidation_behind_a_redirect(client: Any, server: Server, wheel: Wheel) -> None:
    """A request with no-cache is revalidated by the storage."""
    fresh = {"Cache_Control": "max-age=60"}
    server.serve(STORAGE, wheel.data, **fresh)
    url = server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE, **fresh))
    client.get(url)
    again = client.get(url, headers={"Cache-Control": "no-cache"})
    assert again.extensions["wheelcache"] is Status.REVALIDATED
    assert server.sent(STORAGE) == wheel.size


@pytest.mark.parametrize("hashed", HASHED)
def test_an_encoded_body_behind_a_redirect_is_not_stored(
    hashed: bool, client: Any, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A body with a content coding is passed on and not stored."""
    server.serve(STORAGE, wheel.data, how=gzipped)
    url = with_hash(server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE)), wheel, hashed)
    assert client.get(url).content == wheel.data
    assert list(cache.entries()) == []


def test_a_request_of_the_user_after_a_redirect_is_independent(
    kind: Kind, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A client that does not follow redirects gets them, and a later request for the same URL is its own."""
    server.serve(STORAGE, wheel.data)
    url = with_hash(server.serve(f"/repo/{wheel.filename}", how=redirect(STORAGE)), wheel)
    with kind.client(transport=CacheTransport(cache)) as client:
        for _ in range(2):
            assert client.get(url).status_code == 302
            assert client.get(server.url(STORAGE)).content == wheel.data
        assert list(cache.entries()) == []
        # The client builds this request from the response, so it follows the redirect.
        assert client.send(client.get(url).next_request).content == wheel.data
        assert client.get(url).extensions["wheelcache"] is Status.HIT


def test_a_request_that_copies_extensions_is_independent(
    client: Any, server: Server, cache: Cache, wheel: Wheel, other_wheel: Wheel
) -> None:
    """A request for another URL is its own, even if the user copies the extensions of a redirected request."""
    extensions: dict[str, Any] = {"caller": "value"}
    server.serve(STORAGE, wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE))
    received = client.get(url, extensions=extensions)
    assert extensions == {"caller": "value"}
    carried = received.request.extensions
    assert carried["caller"] == "value"
    elsewhere = server.serve("/bucket/elsewhere", other_wheel.data)
    assert client.get(elsewhere, extensions=carried).content == other_wheel.data
    named = server.serve(f"/bucket/{other_wheel.filename}", other_wheel.data)
    assert client.get(named, extensions=carried).content == other_wheel.data
    assert {each.filename: each.digest for each in cache.entries()} == {
        wheel.filename: wheel.digest,
        other_wheel.filename: other_wheel.digest,
    }


@pytest.mark.parametrize("hashed", HASHED)
def test_a_request_can_be_sent_again(hashed: bool, client: Any, server: Server, cache: Cache, wheel: Wheel) -> None:
    """A request object that is sent twice is cached each time, also if its first attempt failed in storage."""
    server.serve(STORAGE, wheel.data)
    server.script(STORAGE, status(503))
    url = with_hash(server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE)), wheel, hashed)
    request = client.build_request("GET", url)
    assert client.send(request).status_code == 503
    assert client.send(request).content == wheel.data
    assert client.send(request).extensions["wheelcache"] is (Status.HIT if hashed else Status.REVALIDATED)
    assert server.sent(STORAGE) == wheel.size + len(b"not this time")


@pytest.mark.parametrize("hashed", HASHED)
def test_a_retry_of_a_redirected_request_continues_its_chain(
    hashed: bool, kind: Kind, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A transport in front of this one may repeat a redirected request."""

    class Retries(kind.library.BaseTransport, kind.library.AsyncBaseTransport):
        def __init__(self) -> None:
            self.behind = CacheTransport(cache)

        def handle_request(self, request: Any) -> Any:
            while (response := self.behind.handle_request(request)).status_code == 503:
                response.close()
            return response

        async def handle_async_request(self, request: Any) -> Any:
            while (response := await self.behind.handle_async_request(request)).status_code == 503:
                await response.aclose()
            return response

        def close(self) -> None:
            self.behind.close()

        async def aclose(self) -> None:
            await self.behind.aclose()

    server.serve(STORAGE, wheel.data)
    server.script(STORAGE, status(503), redirect("/bucket/then"))
    server.serve("/bucket/then", how=redirect(STORAGE))
    server.script("/bucket/then", status(503))
    url = with_hash(server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE)), wheel, hashed)
    with kind.client(transport=Retries(), follow_redirects=True) as client:
        assert client.get(url).content == wheel.data
        assert client.get(url).extensions["wheelcache"] is (Status.HIT if hashed else Status.REVALIDATED)


@pytest.mark.parametrize("hashed", HASHED)
@pytest.mark.parametrize("where", ["repository", "storage"])
def test_credentials_that_are_sent_on_request_begin_the_chain_again(
    where: str, hashed: bool, kind: Kind, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """Digest authentication sends the first request twice, before or after a redirect."""
    server.serve(STORAGE, wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=signed(STORAGE))
    asks = {"WWW-Authenticate": 'Digest realm="wheels", nonce="1", qop="auth", algorithm=MD5'}
    server.script(url if where == "repository" else STORAGE, lambda exchange: exchange.send(401, asks))
    transport = CacheTransport(cache)
    auth = kind.library.DigestAuth("user", "password")
    with kind.client(transport=transport, follow_redirects=True, auth=auth) as client:
        assert client.get(with_hash(url, wheel, hashed)).content == wheel.data
        assert server.requests(url)[-1].headers["authorization"].startswith("Digest ")
    assert [(each.filename, each.digest) for each in cache.entries()] == [(wheel.filename, wheel.digest)]


@pytest.mark.parametrize("hashed", HASHED)
def test_http_behind_https_needs_a_hash(hashed: bool, kind: Kind, cache: Cache, wheel: Wheel) -> None:
    """A wheel that https redirects to http for is stored only under a hash, since anybody may have forged it."""

    def answer(request: Any) -> Any:
        response = kind.library.Response
        if request.url.scheme == "http":
            return response(302, headers={"Location": "https://storage.example.org/0123abcd"})
        if request.url.path == "/0123abcd":
            return response(200, content=wheel.data, headers={"ETag": '"1"'})
        return response(302, headers={"Location": "http://storage.example.org/0123abcd"})

    transport = CacheTransport(cache, next=kind.library.MockTransport(answer))
    with kind.client(transport=transport, follow_redirects=True) as client:
        url = with_hash(f"https://example.org/{wheel.filename}", wheel, hashed)
        for _ in range(2):
            assert client.get(url).content == wheel.data
    assert [each.digest for each in cache.entries()] == [wheel.digest] * hashed
    assert unfinished(cache) == []


def test_https_behind_http_is_followed(kind: Kind, cache: Cache, wheel: Wheel) -> None:
    """A redirect from http to https leads to a wheel that is cached."""

    def answer(request: Any) -> Any:
        if request.url.scheme == "http":
            location = request.url.copy_with(scheme="https", query=b"signature=1")
            return kind.library.Response(301, headers={"Location": str(location)})
        if request.headers.get("If-None-Match") == '"1"':
            return kind.library.Response(304)
        return kind.library.Response(200, content=wheel.data, headers={"ETag": '"1"'})

    transport = CacheTransport(cache, next=kind.library.MockTransport(answer))
    with kind.client(transport=transport, follow_redirects=True) as client:
        client.get(f"http://example.org/{wheel.filename}")
        again = client.get(f"http://example.org/{wheel.filename}")
    assert again.extensions["wheelcache"] is Status.REVALIDATED


@pytest.mark.parametrize(
    "location", ["ftp://example.org/0123", "https://[::1", "http://example.org:port/", "//", "\x80"]
)
def test_a_location_that_the_client_refuses_is_its_error(location: str, kind: Kind, cache: Cache, wheel: Wheel) -> None:
    """A Location that cannot be followed causes the same outcome with this transport as without it."""

    def outcome(transport: Any) -> str:
        with kind.client(transport=transport, follow_redirects=True) as client:
            try:
                return str(client.get(f"https://example.org/{wheel.filename}").status_code)
            except kind.library.HTTPError as error:
                return repr(error)

    def answer(request: Any) -> Any:
        return kind.library.Response(302, headers=[(b"Location", location.encode("latin-1"))])

    plain_outcome = outcome(kind.library.MockTransport(answer))
    assert outcome(CacheTransport(cache, next=kind.library.MockTransport(answer))) == plain_outcome


def test_a_redirect_contains_no_secrets(client: Any, server: Server, cache: Cache, wheel: Wheel) -> None:
    """Neither the files of the cache nor the text of a redirect contain credentials or signatures."""
    target = server.url(STORAGE, userinfo="storage:hunter2")
    server.serve(STORAGE, wheel.data)
    server.serve(
        f"/repo/{wheel.filename}",
        how=lambda exchange: exchange.send(
            302,
            {
                "Location": f"{target}?signature=hunter2",
                "Set-Cookie": "session=hunter2",
            },
        ),
    )
    url = server.url(f"/repo/{wheel.filename}?token=hunter2", userinfo="me:hunter2")
    for each in (url, with_hash(url, wheel)):
        received = client.get(each)
        assert received.content == wheel.data
        assert "hunter2" not in repr(received.request.extensions)
    written = [path.read_bytes() for path in Path(cache.path).rglob("*") if path.is_file()]
    assert len(written) > 2
    assert not any(b"hunter2" in data for data in written)


def test_a_failing_cache_does_not_break_a_redirect(client: Any, server: Server, cache: Cache, wheel: Wheel) -> None:
    """If the cache is closed during a redirect, the client gets the wheel."""

    def closes(exchange: Exchange) -> None:
        cache.close()
        redirect(STORAGE)(exchange)

    server.serve(STORAGE, wheel.data)
    url = server.serve(f"/repo/{wheel.filename}", how=closes)
    assert client.get(url).content == wheel.data
