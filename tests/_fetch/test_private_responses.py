"""Private responses: what one user received with credentials is no hit for another user of a shared cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from folders import files_in
from machines import FakeClock, Machine
from server import Answer, Exchange, Server, asks_for, plain, redirect
from wheels import Wheel, hex_of

from wheelcache import Cache, CacheTransport, DownloadError, OfflineError, Status
from wheelcache._store.index import Index, UrlEntry
from wheelcache._store.layout import Layout
from wheelcache._store.records import decode, encode

METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
FRESH = {"Cache_Control": "max-age=3600"}


def requires(name: str, value: str) -> Answer:
    """401 to requests without this header field."""

    def answer(exchange: Exchange) -> None:
        if exchange.request.headers.get(name) == value:
            plain(exchange)
        else:
            exchange.send(401)

    return answer


def always(**headers: str) -> Answer:
    """The whole file, whatever the request says."""
    fields = {name.replace("_", "-"): text for name, text in headers.items()}
    return lambda exchange: exchange.send(200, fields, exchange.body)


class Users:
    """Two users of one cache folder, each on a machine of their own with the same clock."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        # The server states the real time.
        clock = FakeClock(time.time())
        self.anne, self.bert = Machine(clock=clock), Machine(clock=clock)
        self.bert.user = "bert"
        self._stack = stack

    def open(self, machine: Machine, **options: object) -> Cache:
        """Open the cache for one user."""
        return self._stack.enter_context(machine.cache(self.root, **options))

    def client(self, **options: object) -> httpx.Client:
        """Create a client for either of them."""
        return self._stack.enter_context(httpx.Client(**options))


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    """Two users of one cache."""
    with ExitStack() as stack:
        yield Users(tmp_path / "cache", stack)


def is_public(root: Path, url: str) -> bool:
    """Return whether there is an index entry that all users find, and that older versions find."""
    return Path(Layout(str(root)).pointer(url)).exists()


@pytest.mark.parametrize("way", ["URL", "auth", "cookie", "field", "netrc"])
def test_a_response_to_credentials_is_only_for_their_user(
    way: str, server: Server, users: Users, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the credentials are sent, their user has a hit, and another user gets the refusal of the server."""
    expected = {"cookie": ("cookie", "session=1"), "field": ("private-token", "secret")}.get(way)
    how = requires(*expected) if expected else asks_for("anne", "secret")
    url = wheel.on(server, how=how, **FRESH)
    options = {
        "auth": {"auth": ("anne", "secret")},
        "cookie": {"cookies": {"session": "1"}},
        "field": {"headers": {"Private-Token": "secret"}},
    }.get(way)
    if way == "netrc":
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login anne password secret")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    theirs = url.replace("http://", "http://anne:secret@") if way == "URL" else url
    anne = users.open(users.anne, client=None if options is None else users.client(**options))
    assert anne.fetch(theirs).status is Status.DOWNLOADED
    monkeypatch.setenv("NETRC", str(tmp_path / "no such file"))
    server.forget()
    assert users.open(users.anne).fetch(url).status is Status.HIT
    assert server.count() == 0
    assert not is_public(users.root, url)
    with pytest.raises(DownloadError) as caught:
        users.open(users.bert).fetch(url)
    assert caught.value.status == 401
    assert "if-none-match" not in server.requests()[0].headers


@pytest.mark.parametrize(
    ("control", "shared"),
    [
        ("max-age=3600", True),
        ("private, max-age=3600", False),
        ("max-age=3600, PRIVATE", False),
        ('max-age=3600, private="set-cookie"', False),
        ("max-age=3600, public", True),
        ("max-age=3600, x-private", True),
    ],
)
@pytest.mark.parametrize("hop", ["the response", "a redirect"])
def test_a_response_that_says_so_is_private(
    hop: str, control: str, shared: bool, server: Server, users: Users, wheel: Wheel
) -> None:
    """Cache-Control: private, of the response or of a redirect to it, keeps it from other users."""
    if hop == "the response":
        url = wheel.on(server, Cache_Control=control)
    else:
        server.serve("/there", wheel.data, **FRESH)
        moved = lambda exchange: exchange.send(302, {"Location": "/there", "Cache-Control": control})  # noqa: E731
        url = server.serve(wheel.path, how=moved)
    users.open(users.anne).fetch(url)
    server.forget()
    assert users.open(users.anne).fetch(url).status is Status.HIT
    assert users.open(users.bert).fetch(url).status is (Status.HIT if shared else Status.DOWNLOADED)
    assert is_public(users.root, url) is shared


def test_credentials_of_a_redirect_count(server: Server, users: Users, wheel: Wheel) -> None:
    """A login at the first URL makes the wheel private, although the storage behind it needs no login."""
    with Server() as storage:
        target = storage.serve("/blob", wheel.data, **FRESH)
        moved = lambda exchange: exchange.send(302, {"Location": target, "Cache-Control": "max-age=3600"})  # noqa: E731
        url = wheel.on(server, how=asks_for("anne", "secret", then=moved))
        users.open(users.anne).fetch(url.replace("http://", "http://anne:secret@"))
        assert users.open(users.anne).fetch(url).status is Status.HIT
        with pytest.raises(DownloadError):
            users.open(users.bert).fetch(url)


def test_a_hash_is_a_hit_for_everybody(server: Server, users: Users, wheel: Wheel) -> None:
    """The hash of a private wheel is enough to use it, since only somebody who may know the wheel knows its hash."""
    url = wheel.on(server, how=asks_for("anne", "secret"))
    users.open(users.anne).fetch(url.replace("http://", "http://anne:secret@"))
    bert = users.open(users.bert, offline=True)
    assert bert.fetch(url, hashes=wheel.digest).status is Status.HIT
    assert bert.get(wheel.digest) is not None


def test_a_private_response_is_revalidated_by_its_user(server: Server, users: Users, wheel: Wheel) -> None:
    """A stale private response is confirmed with its validators. Another user sends none of them."""
    url = wheel.on(server)
    client = users.client(headers={"Private-Token": "secret"})
    anne = users.open(users.anne, client=client)
    anne.fetch(url)
    assert anne.fetch(url).status is Status.REVALIDATED
    assert users.open(users.bert).fetch(url).status is Status.DOWNLOADED
    assert "if-none-match" not in server.requests()[-1].headers


def test_a_confirmation_without_credentials_publishes_nothing(server: Server, users: Users, wheel: Wheel) -> None:
    """A 304 to a request without credentials does not make a response public that was received with them."""
    url = wheel.on(server)
    users.open(users.anne, client=users.client(headers={"Private-Token": "secret"})).fetch(url)
    assert users.open(users.anne).fetch(url).status is Status.REVALIDATED
    assert not is_public(users.root, url)
    # A whole response without credentials is public.
    server.serve(wheel.path, wheel.data, how=always(**FRESH))
    assert users.open(users.anne).fetch(url, refresh=True).status is Status.DOWNLOADED
    assert users.open(users.bert).fetch(url).status is Status.HIT


@pytest.mark.parametrize("becomes", ["private", "with credentials", "304 private"])
def test_a_public_response_that_becomes_private(becomes: str, server: Server, users: Users, wheel: Wheel) -> None:
    """After a private response, the public one from before is no hit for other users any more."""
    url = wheel.on(server, **FRESH)
    users.open(users.bert).fetch(url)
    is_login = becomes == "with credentials"
    headers = FRESH if is_login else {"Cache_Control": "private, max-age=3600"}
    if becomes == "304 private":
        server.serve(wheel.path, wheel.data, **headers)
    else:
        server.serve(wheel.path, wheel.data, how=always(**headers))
    client = users.client(headers={"Private-Token": "secret"}) if is_login else None
    anne = users.open(users.anne, client=client)
    status = Status.REVALIDATED if becomes == "304 private" else Status.DOWNLOADED
    assert anne.fetch(url, refresh=True).status is status
    assert anne.fetch(url).status is Status.HIT
    assert not is_public(users.root, url)
    assert users.open(users.bert).fetch(url).status is Status.DOWNLOADED


def test_a_private_response_that_becomes_public(server: Server, users: Users, wheel: Wheel, other_wheel: Wheel) -> None:
    """After a public response, its user no longer gets the private one from before."""
    url = wheel.on(server, Cache_Control="private, max-age=3600")
    users.open(users.anne).fetch(url)
    server.serve(wheel.path, other_wheel.data, **FRESH)
    users.open(users.anne).fetch(url, refresh=True)
    for machine in (users.anne, users.bert):
        found = users.open(machine).fetch(url)
        assert (found.status, found.path.read_bytes()) == (Status.HIT, other_wheel.data)


def test_each_user_has_a_response(server: Server, users: Users, wheel: Wheel, other_wheel: Wheel) -> None:
    """A server that sends each user another wheel under one URL is remembered for each."""

    def answer(exchange: Exchange) -> None:
        body = wheel.data if exchange.request.headers["private-token"] == "anne" else other_wheel.data
        exchange.send(200, {"Cache-Control": "max-age=3600"}, body)

    url = server.serve(wheel.path, how=answer)
    for _ in range(2):
        for machine, data in ((users.anne, wheel.data), (users.bert, other_wheel.data)):
            client = users.client(headers={"Private-Token": str(machine.user)})
            assert users.open(machine, client=client).fetch(url).path.read_bytes() == data
    assert server.count() == 2


def test_no_store_forgets_a_private_response(server: Server, users: Users, wheel: Wheel) -> None:
    """A server that says no-store later is obeyed for private responses, too."""
    url = wheel.on(server, Cache_Control="private, max-age=3600")
    anne = users.open(users.anne)
    anne.fetch(url)
    server.serve(wheel.path, wheel.data, Cache_Control="no-store")
    anne.fetch(url, refresh=True)
    assert not [name for name in files_in(users.root) if "/urls/" in name]


@pytest.mark.parametrize("offline", [False, True])
def test_layers_keep_private_responses(
    offline: bool, server: Server, users: Users, wheel: Wheel, tmp_path: Path
) -> None:
    """An image that one user baked is a hit for the same user, and not for others."""
    url = wheel.on(server, how=asks_for("anne", "secret"), **FRESH)
    users.open(users.anne).fetch(url.replace("http://", "http://anne:secret@"))
    with users.anne.cache(tmp_path / "of anne", layers=[users.root], offline=offline) as cache:
        assert cache.fetch(url).status is Status.LAYER
    with (
        users.bert.cache(tmp_path / "of bert", layers=[users.root], offline=offline) as cache,
        pytest.raises(OfflineError if offline else DownloadError),
    ):
        cache.fetch(url)


@pytest.mark.parametrize("private", [True, False])
def test_an_unknown_user_stores_no_private_response(private: bool, server: Server, users: Users, wheel: Wheel) -> None:
    """If the system does not name the user, only public responses are stored, and a public one does not survive."""
    url = wheel.on(server, **FRESH)
    users.anne.user = None
    cache = users.open(users.anne)
    cache.fetch(url)
    assert cache.fetch(url).status is Status.HIT
    server.serve(wheel.path, wheel.data, ETag='"2"', Cache_Control="private, max-age=9" if private else "max-age=9")
    cache.fetch(url, refresh=True)
    assert cache.fetch(url).status is (Status.DOWNLOADED if private else Status.HIT)
    assert is_public(users.root, url) is not private


def test_an_entry_of_an_older_version_is_private_if_it_says_so(server: Server, users: Users, wheel: Wheel) -> None:
    """Older versions stored every response for all users. Its own Cache-Control shows that it was private."""
    url = wheel.on(server, **FRESH)
    users.open(users.anne).fetch(url)
    path = Path(Layout(str(users.root)).pointer(url))
    fields = decode(path.read_bytes())
    assert fields is not None
    del fields["is_private"]
    path.write_bytes(encode(fields))
    assert users.open(users.bert).fetch(url).status is Status.HIT
    path.write_bytes(encode({**fields, "headers": {"cache-control": "Private"}}))
    assert users.open(users.bert).fetch(url).status is Status.DOWNLOADED


def test_maintenance_knows_private_responses(server: Server, users: Users, wheel: Wheel) -> None:
    """The check finds nothing wrong with the entry of a private response, and it is removed with its wheel."""
    url = wheel.on(server, Cache_Control="private, max-age=3600")
    users.open(users.anne).fetch(url)
    for machine in (users.bert, users.anne):
        assert users.open(machine).verify().ok
    users.open(users.bert).prune()
    assert users.open(users.anne).fetch(url).status is Status.HIT
    users.open(users.bert).remove("demo")
    assert not [name for name in files_in(users.root) if "/urls/" in name]


def test_nothing_of_the_user_or_the_url_is_shown(server: Server, users: Users, wheel: Wheel) -> None:
    """Neither the names nor the contents of the files contain the user or the credentials."""
    users.anne.user = "S-1-5-21-4711"
    url = wheel.on(server, how=asks_for("anne", "hunter2"))
    users.open(users.anne).fetch(url.replace("http://", "http://anne:hunter2@"))
    for name, data in files_in(users.root).items():
        assert not any(secret in name or secret.encode() in data for secret in ("hunter2", "S-1-5-21-4711"))


# CacheTransport


@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ({}, True),
        ({"Accept": "*/*", "User-Agent": "x", "Cache-Control": "max-age=60"}, True),
        ({"Authorization": "Bearer x"}, False),
        ({"Cookie": "session=1"}, False),
        ({"X-JFrog-Art-Api": "x"}, False),
    ],
)
@pytest.mark.parametrize("redirected", [False, True])
def test_a_transport_keeps_private_responses(
    redirected: bool, fields: dict[str, str], shared: bool, server: Server, users: Users, wheel: Wheel
) -> None:
    """A request with credentials in any field makes the response private, also if it was only redirected."""
    url = wheel.on(server, **FRESH)
    with ExitStack() as stack:
        if redirected:
            storage = stack.enter_context(Server())
            target = storage.serve(f"/there/{wheel.filename}", wheel.data, **FRESH)
            url = wheel.on(server, how=redirect(target), **FRESH)
        users.client(transport=CacheTransport(users.open(users.anne)), follow_redirects=True).get(url, headers=fields)
        if not redirected:
            other = users.client(transport=CacheTransport(users.open(users.anne)))
            assert other.get(url).extensions["wheelcache"] is Status.HIT
        index = Index(Layout(str(users.root)))
        assert is_public(users.root, url) is shared
        known = _find(index, users.anne, url)
        assert known is not None
        assert known.is_private is not shared
        assert (_find(index, users.bert, url) is not None) is shared
        if not redirected:
            other = users.client(transport=CacheTransport(users.open(users.bert)))
            assert ("wheelcache" in other.get(url).extensions) is shared


def test_a_private_redirect_counts_through_a_transport(server: Server, users: Users, wheel: Wheel) -> None:
    """If a redirect says private, the response is private under the first URL and under the one that it led to."""
    target = server.serve(f"/there/{wheel.filename}", wheel.data, **FRESH)
    moved = {"Location": target, "Cache-Control": "private, max-age=3600"}
    url = server.serve(wheel.path, how=lambda exchange: exchange.send(302, moved))
    users.client(transport=CacheTransport(users.open(users.anne)), follow_redirects=True).get(url)
    index = Index(Layout(str(users.root)))
    for each in (url, target):
        assert not is_public(users.root, each)
        known = _find(index, users.anne, each)
        assert known is not None
        assert known.is_private


def _find(index: Index, machine: Machine, url: str) -> UrlEntry | None:
    from wheelcache._cache import core_of
    from wheelcache._fs.robustio import RobustIO

    with machine.cache(index._layout.root) as cache, core_of(cache).begin() as op:
        return index.find_url(RobustIO(op), url)


# METADATA


@pytest.mark.parametrize("source", ["beside", "ranges"])
@pytest.mark.parametrize("reason", ["credentials", "private"])
def test_metadata_of_a_private_wheel_is_only_for_its_user(
    source: str, reason: str, server: Server, users: Users, wheel: Wheel
) -> None:
    """METADATA that was received with credentials is not served to another user who knows the hash of the wheel."""
    is_login = reason == "credentials"
    how = asks_for("anne", "secret") if is_login else plain
    fields = {} if is_login else {"Cache_Control": "private"}
    url = wheel.on(server, how=how, **fields)
    if source == "beside":
        server.serve(wheel.path + ".metadata", METADATA, how=how, **fields)
    theirs = url.replace("http://", "http://anne:secret@") if is_login else url
    data = users.open(users.anne).metadata(theirs, hashes=wheel.digest)
    server.forget()
    assert users.open(users.anne).metadata(url, hashes=wheel.digest) == data
    assert server.count() == 0
    with pytest.raises(OfflineError):
        users.open(users.bert, offline=True).metadata(url, hashes=wheel.digest)
    bert = users.open(users.bert)
    if is_login:
        with pytest.raises(DownloadError):
            bert.metadata(url, hashes=wheel.digest)
    else:
        assert bert.metadata(url, hashes=wheel.digest) == data
        assert server.count() > 0


def test_metadata_with_a_hash_is_for_everybody(server: Server, users: Users, wheel: Wheel) -> None:
    """METADATA that was kept under its own hash is a hit for each user who knows that hash."""
    url = wheel.on(server)
    server.serve(wheel.path + ".metadata", METADATA, how=asks_for("anne", "secret"))
    hashes = {"sha256": hex_of(METADATA)}
    users.open(users.anne).metadata(url.replace("http://", "http://anne:secret@"), metadata_hashes=hashes)
    assert users.open(users.bert, offline=True).metadata(url, metadata_hashes=hashes) == METADATA


def test_public_metadata_is_kept_beside_private_metadata(server: Server, users: Users, wheel: Wheel) -> None:
    """After METADATA was private for one user, public METADATA of the same wheel is kept for all."""
    url = wheel.on(server)
    for machine, control in ((users.bert, "private"), (users.anne, "public")):
        server.serve(wheel.path + ".metadata", METADATA, Cache_Control=control)
        users.open(machine).metadata(url, hashes=wheel.digest)
    users.anne.user = "carl"
    assert users.open(users.anne, offline=True).metadata(url, hashes=wheel.digest) == METADATA
    assert server.count() == 2


def test_metadata_of_an_unknown_user_is_not_kept(server: Server, users: Users, wheel: Wheel) -> None:
    """If the system does not name the user, private METADATA is not kept."""
    users.anne.user = None
    url = wheel.on(server)
    server.serve(wheel.path + ".metadata", METADATA, Cache_Control="private")
    for _ in range(2):
        assert users.open(users.anne).metadata(url, hashes=wheel.digest) == METADATA
    assert server.count() == 2
    assert not [name for name in files_in(users.root) if "/metadata/" in name]


def test_the_user_is_that_of_the_process() -> None:
    """The user is a fact of the process, and not of its environment."""
    machine: Callable[[], str | None] = Cache._system.user
    assert machine()
    assert machine() == machine()
