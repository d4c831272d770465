"""Fetches without a hash: for how long what a URL gave holds, and how the server is asked whether it still does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
from folders import files_in, unfinished
from hypothesis import given
from hypothesis import strategies as st
from machines import Machine
from marks import any_system
from wheels import Wheel

from wheelcache import Cache, CacheTransport, DownloadError, OfflineError, Status
from wheelcache._http.cache_control import freshness

pytestmark = any_system

DAY = 86_400.0


@dataclass
class Origin:
    """A server whose every header is the test's."""

    machine: Machine
    wheel: Wheel
    headers: dict[str, str] = field(default_factory=dict)
    dated: bool = True
    down: bool = False
    redirects: dict[str, str] | None = None
    requests: list[httpx.Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://example.org/{self.wheel.filename}"

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.down or request.url.host.startswith("down."):
            raise httpx.ConnectError("down")
        self.requests.append(request)
        if self.redirects is not None and request.url.path == f"/{self.wheel.filename}":
            return httpx.Response(302, headers={"Location": "/there/" + self.wheel.filename, **self.redirects})
        headers = {
            **({"Date": formatdate(self.machine.clock.now(), usegmt=True)} if self.dated else {}),
            **self.headers,
        }
        etag, modified = headers.get("ETag"), headers.get("Last-Modified")
        if (etag and request.headers.get("If-None-Match") == etag) or (
            not etag and modified and request.headers.get("If-Modified-Since") == modified
        ):
            return httpx.Response(304, headers=headers)
        return httpx.Response(200, headers=headers, content=self.wheel.data)


@pytest.fixture
def origin(machine: Machine, wheel: Wheel) -> Origin:
    """A server of this test's own."""
    return Origin(machine, wheel)


@pytest.fixture
def asking(origin: Origin, machine: Machine, tmp_path: Path) -> Iterator[Cache]:
    """A cache whose client talks to ``origin``."""
    with (
        httpx.Client(transport=httpx.MockTransport(origin.answer)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        yield cache


def test_what_is_fresh_is_not_asked_for(origin: Origin, asking: Cache, machine: Machine) -> None:
    """Until max-age is over no request is made; then one, which a 304 answers."""
    origin.headers = {"Cache-Control": "max-age=3600", "ETag": '"1"'}
    assert asking.fetch(origin.url).status is Status.DOWNLOADED
    machine.clock.advance(3599)
    assert asking.fetch(origin.url).status is Status.HIT
    assert len(origin.requests) == 1
    machine.clock.advance(2)
    found = asking.fetch(origin.url)
    assert (found.status, found.path.read_bytes()) == (Status.REVALIDATED, origin.wheel.data)
    assert origin.requests[-1].headers["If-None-Match"] == '"1"'
    machine.clock.advance(3599)
    assert asking.fetch(origin.url).status is Status.HIT
    assert unfinished(asking) == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Cache-Control": "max-age=100"}, 100),
        ({"Cache-Control": "MAX-AGE=100, public"}, 100),
        ({"Cache-Control": 'max-age="100"'}, 100),
        ({"Cache-Control": "max-age=100, max-age=200"}, 0),
        ({"Cache-Control": "max-age=-1"}, 0),
        ({"Cache-Control": "max-age=soon"}, 0),
        ({"Cache-Control": "max-age=100", "Age": "40"}, 60),
        ({"Cache-Control": "max-age=100", "Age": "400"}, 0),
        ({"Cache-Control": "max-age=100", "Age": "40, 10"}, 60),
        ({"Cache-Control": "max-age=100", "Age": "x"}, 100),
        ({"Cache-Control": "no-cache, max-age=100"}, 0),
        ({"Cache-Control": 'no-cache="set-cookie", max-age=100'}, 0),
        ({"Cache-Control": "s-maxage=100"}, 0),
        ({"Cache-Control": "private, max-age=100"}, 100),
        ({"Cache-Control": "max-age=100", "Expires": "0"}, 100),
        ({"Expires": formatdate(1_800_000_100, usegmt=True)}, 100),
        ({"Expires": formatdate(1_700_000_000, usegmt=True)}, 0),
        ({"Expires": "0"}, 0),
        ({"Cache-Control": "max-age=100", "Vary": "Accept-Encoding"}, 100),
        ({"Cache-Control": "max-age=100", "Vary": "accept-encoding, Authorization"}, 0),
        ({"Cache-Control": "max-age=100", "Vary": "*"}, 0),
        ({"Last-Modified": formatdate(1_600_000_000, usegmt=True)}, 0),
        ({"Cache-Control": "max-age=99999999999999999999999"}, 10 * 365 * DAY),
    ],
    ids=str,
)
def test_how_long_an_answer_holds(headers: dict[str, str], seconds: float, origin: Origin, asking, machine) -> None:
    """What the server says is taken for what it means; what cannot be read means that it is asked."""
    origin.headers = {"ETag": '"1"', **headers}
    asking.fetch(origin.url)
    if seconds:
        machine.clock.advance(seconds - 1)
        assert asking.fetch(origin.url).status is Status.HIT
        machine.clock.advance(2 if seconds < DAY else 100 * 365 * DAY)
    assert asking.fetch(origin.url).status is Status.REVALIDATED


def test_an_old_date_counts_as_age(origin: Origin, asking: Cache, machine: Machine) -> None:
    """An answer that was made an hour ago has been fresh for an hour."""
    origin.headers = {
        "Cache-Control": "max-age=3600",
        "ETag": '"1"',
        "Date": formatdate(machine.clock.now() - 3000, usegmt=True),
    }
    asking.fetch(origin.url)
    machine.clock.advance(599)
    assert asking.fetch(origin.url).status is Status.HIT
    machine.clock.advance(2)
    assert asking.fetch(origin.url).status is Status.REVALIDATED


def test_no_store_keeps_nothing_of_the_url(origin: Origin, asking: Cache) -> None:
    """With no-store every fetch downloads, and no pointer is there; the wheel itself is, under its digest."""
    origin.headers = {"Cache-Control": "no-store, max-age=100", "ETag": '"1"'}
    for _ in range(2):
        assert asking.fetch(origin.url).status is Status.DOWNLOADED
    assert not [name for name in files_in(asking.path) if "/urls/" in name]
    assert asking.get(origin.wheel.digest) is not None


def test_no_store_forgets_what_was_known(origin: Origin, asking: Cache, machine: Machine) -> None:
    """A server that says no-store later is obeyed from then on."""
    origin.headers = {"ETag": '"1"'}
    asking.fetch(origin.url)
    origin.headers = {"ETag": '"1"', "Cache-Control": "no-store"}
    assert asking.fetch(origin.url).status is Status.REVALIDATED
    assert asking.fetch(origin.url).status is Status.DOWNLOADED


def test_last_modified_alone_will_do(origin: Origin, asking: Cache) -> None:
    """Without an ETag the time stamp is what is asked with."""
    origin.headers = {"Last-Modified": formatdate(1_600_000_000, usegmt=True)}
    asking.fetch(origin.url)
    assert asking.fetch(origin.url).status is Status.REVALIDATED


def test_without_validators_it_comes_again(origin: Origin, asking: Cache) -> None:
    """A server that says nothing of the file is asked for all of it each time."""
    for _ in range(2):
        assert asking.fetch(origin.url).status is Status.DOWNLOADED


def test_what_changed_comes_anew(origin: Origin, asking: Cache, other_wheel: Wheel) -> None:
    """When the file at the URL is another one, that one is returned, and the old one stays under its digest."""
    origin.headers = {"ETag": '"1"'}
    first = asking.fetch(origin.url)
    old, origin.wheel = origin.wheel, Wheel(origin.wheel.filename, other_wheel.data)
    origin.headers = {"ETag": '"2"'}
    found = asking.fetch(origin.url)
    assert (found.status, found.path.read_bytes()) == (Status.DOWNLOADED, other_wheel.data)
    assert first.path.read_bytes() == old.data
    assert asking.fetch(origin.url).digest == found.digest


def test_refresh_asks_although_it_is_fresh(origin: Origin, asking: Cache, other_wheel: Wheel) -> None:
    """refresh=True reaches the origin past every cache on the way; with a hash it asks nobody."""
    origin.headers = {"ETag": '"1"', "Cache-Control": "max-age=3600"}
    asking.fetch(origin.url)
    assert asking.fetch(origin.url, refresh=True).status is Status.REVALIDATED
    assert origin.requests[-1].headers["Cache-Control"] == "no-cache"
    assert asking.fetch(origin.url, hashes=origin.wheel.digest, refresh=True).status is Status.HIT
    assert len(origin.requests) == 2


def test_a_wheel_that_is_gone_is_not_asked_about(origin: Origin, asking: Cache) -> None:
    """A pointer to a wheel that was removed or damaged asks for the file, not whether it changed."""
    origin.headers = {"ETag": '"1"', "Cache-Control": "max-age=3600"}
    asking.fetch(origin.url).path.unlink()
    found = asking.fetch(origin.url)
    assert found.path.read_bytes() == origin.wheel.data
    assert "If-None-Match" not in origin.requests[-1].headers


@pytest.mark.parametrize(
    ("control", "served"),
    [
        ("", True),
        ("max-age=10", True),
        ("max-age=10, must-revalidate", False),
        ("no-cache", False),
        ("no-store", False),
    ],
)
def test_stale_answers_are_for_caches_that_are_offline(
    control: str, served: bool, origin: Origin, asking: Cache, machine: Machine
) -> None:
    """offline=True takes what does not hold any more, but not against the server's word; a dead network is an error."""
    origin.headers = {"ETag": '"1"', "Cache-Control": control}
    asking.fetch(origin.url)
    machine.clock.advance(100)
    with machine.cache(asking.path, offline=True) as offline:
        if served:
            assert offline.fetch(origin.url).status is Status.HIT
        else:
            with pytest.raises(OfflineError):
                offline.fetch(origin.url)
    origin.down = True
    with pytest.raises(DownloadError):
        asking.fetch(origin.url)


@pytest.mark.parametrize(
    ("redirects", "status"), [({}, Status.REVALIDATED), ({"Cache-Control": "max-age=9"}, Status.HIT)]
)
def test_a_redirect_holds_no_longer_than_it_says(redirects, status: Status, origin: Origin, asking: Cache) -> None:
    """What is behind a redirect may be fresh for long, but whether it is still behind it has to be asked."""
    origin.headers, origin.redirects = {"ETag": '"1"', "Cache-Control": "max-age=3600"}, redirects
    asking.fetch(origin.url)
    assert asking.fetch(origin.url).status is status


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_a_redirect_that_leads_elsewhere_brings_another_file(
    validator: str, machine: Machine, wheel: Wheel, other_wheel: Wheel, tmp_path: Path
) -> None:
    """That nothing was modified counts only where it was said: another file may have the same ETag, or be older."""
    files = {"old": wheel, "new": other_wheel}
    current, requests = "old", []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        place = request.url.path.split("/")[1]
        if place not in files:
            return httpx.Response(302, headers={"Location": f"/{current}/{wheel.filename}?signed={len(requests)}"})
        said = '"1"' if validator == "ETag" else formatdate(1_600_000_000, usegmt=True)
        asked = request.headers.get("If-None-Match", request.headers.get("If-Modified-Since"))
        status = 304 if asked == said else 200
        return httpx.Response(status, headers={validator: said}, content=files[place].data if status == 200 else b"")

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        url = f"https://example.org/{wheel.filename}"
        assert cache.fetch(url).path.read_bytes() == wheel.data
        assert cache.fetch(url).status is Status.REVALIDATED
        current = "new"
        assert cache.fetch(url).path.read_bytes() == other_wheel.data
        assert cache.fetch(url).status is Status.REVALIDATED
        with httpx.Client(transport=CacheTransport(cache, next=httpx.MockTransport(answer))) as other:
            assert other.get(url).status_code == 302
        assert "If-None-Match" not in requests[-1].headers


def test_a_mirrors_word_is_not_the_urls(origin: Origin, asking: Cache) -> None:
    """When a mirror gave the wheel, the URL itself is asked the next time."""
    origin.headers = {"ETag": '"1"', "Cache-Control": "max-age=3600"}
    url = f"https://down.example.org/{origin.wheel.filename}"
    for _ in range(2):
        found = asking.fetch(url, mirrors=[origin.url])
        assert found.path.read_bytes() == origin.wheel.data
    assert [request.url.host for request in origin.requests] == ["example.org"] * 2


def test_layers_know_urls(origin: Origin, asking: Cache, machine: Machine, tmp_path: Path) -> None:
    """What a layer knows of a URL holds as well."""
    origin.headers = {"Cache-Control": "max-age=3600"}
    asking.fetch(origin.url)
    with machine.cache(tmp_path / "upper", layers=[asking.path]) as upper:
        assert upper.fetch(origin.url).status is Status.LAYER


def test_nothing_secret_is_kept(origin: Origin, asking: Cache) -> None:
    """Neither the credentials nor the query of a URL are in any file, and its cookies are not kept either."""
    origin.headers = {"Cache-Control": "max-age=3600", "ETag": '"1"', "Set-Cookie": "session=hunter2"}
    url = origin.url.replace("https://", "https://me:hunter2@") + "?token=hunter2"
    asking.fetch(url)
    assert asking.fetch(url).status is Status.HIT
    assert not [name for name, data in files_in(asking.path).items() if b"hunter2" in data or "hunter2" in name]


TOKENS = st.sampled_from(
    [
        "max-age",
        "max-age=5",
        "no-cache",
        "no-store",
        "=",
        ",",
        '"',
        "max-age=9999999999999999",
        "must-revalidate",
        "\\",
        " ",
    ]
)


@given(
    headers=st.dictionaries(
        st.sampled_from(["cache-control", "expires", "date", "age", "vary"]),
        st.one_of(st.text(max_size=30), st.lists(TOKENS, max_size=6).map("".join)),
    )
)
def test_no_header_breaks_it(headers: dict[str, str]) -> None:
    """Whatever the fields say, the answer is a number that is not beyond what was ever asked for."""
    found = freshness(headers, 1000.0, 1001.0)
    assert 0.0 <= found.until <= 1001.0 + 2**31 + 366 * DAY * 10_000
    assert not (found.may_be_stale and "no-cache" in headers.get("cache-control", "").split(","))
