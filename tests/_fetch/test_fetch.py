"""Fetching from a server that behaves: what comes back, what is kept, and what the second time costs."""

from __future__ import annotations

import gzip
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from folders import assert_nothing_came, blobs, files_in, records, unfinished
from machines import Machine
from server import Exchange, Server, chunked, endless, gzipped, paced, plain, status, until_closed
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import (
    Cache,
    CachedWheel,
    CommitError,
    DownloadError,
    HashMismatchError,
    InvalidWheelError,
    OfflineError,
    Phase,
    Progress,
    ProgressEvent,
    ReadOnlyError,
    SizeMismatchError,
    Status,
)


def test_a_wheel_is_downloaded_once(server: Server, cache: Cache, wheel: Wheel) -> None:
    """The first fetch downloads, the second is a hit without a request."""
    url = wheel.on(server)
    first = cache.fetch(url, hashes=wheel.digest)
    assert first.status is Status.DOWNLOADED
    assert first.path.read_bytes() == wheel.data
    second = cache.fetch(url, hashes=wheel.digest)
    assert second.status is Status.HIT
    assert second == first
    assert server.count() == 1
    assert server.sent() == wheel.size


def test_a_cached_wheel_tells_what_it_is(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Path, file name, digest, size, hashes and URL are set; the wheel is a path itself, and frozen."""
    url = wheel.on(server)
    found = cache.fetch(f"{url}?token=1", hashes={"sha256": wheel.hex(), "md5": wheel.hex("md5")})
    assert found.path.is_absolute()
    assert found.path.name == found.filename == wheel.filename
    assert found.path.is_relative_to(cache.path)
    assert (found.digest, found.size) == (wheel.digest, wheel.size)
    assert found.hashes == {"sha256": wheel.hex(), "md5": wheel.hex("md5")}
    assert found.url == f"{url}?***"
    assert os.fspath(found) == str(found.path)
    assert Path(found).read_bytes() == wheel.data
    with pytest.raises(FrozenInstanceError):
        found.size = 1  # type: ignore[misc]


def test_no_encoding_is_asked_for(server: Server, cache: Cache, wheel: Wheel) -> None:
    """The request says Accept-Encoding: identity, and who asks."""
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    (request,) = server.requests()
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("wheelcache/")


@pytest.mark.parametrize("how", [gzipped, chunked, until_closed])
@pytest.mark.parametrize("hashed", [True, False])
def test_every_way_of_sending_gives_the_right_bytes(
    how, hashed: bool, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """An encoding that was not asked for, chunks, and a body that ends with the connection are all read rightly."""
    found = cache.fetch(wheel.on(server, how=how), hashes=wheel.digest if hashed else None, size=wheel.size)
    assert found.path.read_bytes() == wheel.data
    assert found.digest == wheel.digest


def test_an_empty_file_is_no_wheel(server: Server, cache: Cache) -> None:
    """A body of no bytes is refused where no hash is given."""
    with pytest.raises(InvalidWheelError):
        cache.fetch(server.serve("/demo-1.0-py3-none-any.whl", b""))
    assert_nothing_came(cache)


def test_a_wheel_of_many_chunks_is_whole(server: Server, cache: Cache) -> None:
    """A wheel that is larger than every buffer on its way comes whole."""
    wheel = Wheel(wheel_filename(), make_wheel(size=5_000_001))
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data


def test_a_strong_hash_makes_the_url_only_a_place(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A wheel that is there is a hit for any URL with its hash, also one that nobody answers."""
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    found = cache.fetch(f"https://example.org/elsewhere/{wheel.filename}?x=1#sha256={wheel.hex()}")
    assert found.status is Status.HIT
    assert server.count() == 1


def test_a_fetch_without_a_hash_downloads(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Without a hash the wheel is downloaded, and found by its digest afterwards."""
    found = cache.fetch(wheel.on(server))
    assert found.status is Status.DOWNLOADED
    assert found.digest == wheel.digest
    assert cache.get(wheel.digest) == found


@pytest.mark.parametrize("algorithm", ["sha512", "sha384", "blake2b", "sha3_256"])
def test_another_strong_hash_finds_the_wheel_too(
    algorithm: str, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """A wheel fetched by another strong hash alone is a hit by it, in another process as well, and get() knows it."""
    wheel = Wheel(wheel_filename(), make_wheel())
    url, hashes = wheel.on(server), f"{algorithm}:{wheel.hex(algorithm)}"
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.get(hashes) is None
        assert cache.fetch(url, hashes=hashes).status is Status.DOWNLOADED
    with machine.cache(tmp_path / "cache", offline=True) as cache:
        found = cache.fetch(url, hashes=hashes)
        assert found.status is Status.HIT
        assert found.digest == wheel.digest
        assert cache.get(hashes) == found
        assert hashes in cache
    assert server.count() == 1


def test_a_pointer_that_belongs_to_another_hash_is_not_believed(
    server: Server, machine: Machine, wheel: Wheel, other_wheel: Wheel, tmp_path: Path
) -> None:
    """A pointer under the name of another hash leads to nothing: the wheel is fetched, and no error comes of it."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=f"sha512:{wheel.hex('sha512')}")
        pointers = set((cache.path / "v1" / "urls").rglob("*.json"))
        cache.fetch(other_wheel.on(server), hashes=f"sha512:{other_wheel.hex('sha512')}")
        (first,), (second,) = pointers, set((cache.path / "v1" / "urls").rglob("*.json")) - pointers
    first.write_bytes(second.read_bytes())
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.get(f"sha512:{wheel.hex('sha512')}") is None
        found = cache.fetch(wheel.on(server), hashes=f"sha512:{wheel.hex('sha512')}")
        assert found.path.read_bytes() == wheel.data
        assert cache.get(f"sha512:{wheel.hex('sha512')}") == found


@pytest.mark.parametrize("damage", [b"", b"rubbish", b'{"sha256":"00"}', b"\0" * 100, b"[]", b"\xff\xfe"])
def test_a_damaged_pointer_is_a_miss(damage: bytes, server: Server, machine: Machine, wheel: Wheel, tmp_path) -> None:
    """A torn, short or foreign pointer costs a download and is written anew, and is never an error."""
    hashes = f"sha512:{wheel.hex('sha512')}"
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=hashes)
        (pointer,) = (cache.path / "v1" / "urls").rglob("*.json")
    pointer.write_bytes(damage)
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.get(hashes) is None
        assert cache.fetch(wheel.on(server), hashes=hashes).path.read_bytes() == wheel.data
        assert cache.get(hashes) is not None


def test_every_hash_must_match(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A right sha256 beside a wrong md5 is a mismatch: on the way in, and on a hit."""
    url, wrong = wheel.on(server), {"sha256": wheel.hex(), "md5": "0" * 32}
    with pytest.raises(HashMismatchError) as caught:
        cache.fetch(url, hashes=wrong)
    assert caught.value.expected == wrong
    assert caught.value.actual == {"sha256": wheel.hex(), "md5": wheel.hex("md5")}
    assert caught.value.url == url
    assert_nothing_came(cache)
    good = cache.fetch(url, hashes=wheel.digest)
    with pytest.raises(HashMismatchError):
        cache.fetch(url, hashes=wrong)
    assert cache.get(wheel.digest) == good


def test_every_hash_must_match_where_the_record_was_lost(
    server: Server, machine: Machine, wheel: Wheel, tmp_path
) -> None:
    """A blob without a record is taken on again, and not for a request whose other hashes it does not have."""
    url = wheel.on(server)
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(url, hashes=wheel.digest)
        (record,) = records(cache)
    record.unlink()
    with machine.cache(tmp_path / "cache") as cache:
        with pytest.raises(HashMismatchError):
            cache.fetch(url, hashes={"sha256": wheel.hex(), "sha512": "0" * 128})
        assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
        assert server.count() <= 2


def test_a_lost_record_costs_no_download(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A blob whose record is gone is hashed and gets a new one."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
        (record,) = records(cache)
    record.unlink()
    with machine.cache(tmp_path / "cache", offline=False) as cache:
        assert cache.get(wheel.digest) is None
        assert cache.fetch(wheel.on(server), hashes=wheel.digest).status is Status.HIT
        assert record.exists()
    assert server.count() == 1


def test_the_wrong_hash_keeps_nothing(server: Server, cache: Cache, wheel: Wheel, other_wheel: Wheel) -> None:
    """Bytes that are not the ones asked for are told with both hashes, and nothing of them is kept."""
    url = wheel.on(server)
    with pytest.raises(HashMismatchError) as caught:
        cache.fetch(url, hashes=other_wheel.digest)
    assert caught.value.expected == {"sha256": other_wheel.hex()}
    assert caught.value.actual == {"sha256": wheel.hex()}
    assert_nothing_came(cache)
    assert cache.get(wheel.digest) is None


def test_the_size_asked_for_is_held(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A declared size that is another one ends the fetch before a byte of the body is read."""
    url = wheel.on(server)
    events: list[ProgressEvent] = []
    with pytest.raises(SizeMismatchError) as caught:
        cache.fetch(url, hashes=wheel.digest, size=wheel.size - 1, progress=events.append)
    assert events == []
    error = caught.value
    assert (error.expected, error.actual, error.url, error.operation) == (wheel.size - 1, wheel.size, url, "download")
    assert_nothing_came(cache)


@pytest.mark.parametrize("how", [chunked, until_closed, gzipped])
@pytest.mark.parametrize("by", [-1, 1])
def test_the_size_asked_for_is_held_without_a_length(how, by: int, server: Server, cache: Cache, wheel: Wheel) -> None:
    """Where no size is declared, a body that is longer or shorter than asked for is a mismatch all the same."""
    with pytest.raises(SizeMismatchError):
        cache.fetch(wheel.on(server, how=how), size=wheel.size + by)
    assert_nothing_came(cache)


def test_a_body_without_end_is_not_waited_for(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A body that goes on beyond the size asked for is left at once."""
    with pytest.raises(SizeMismatchError):
        cache.fetch(wheel.on(server, how=endless), size=1500)
    assert_nothing_came(cache)


def test_a_hit_of_another_size_than_asked_for_is_told(server: Server, cache: Cache, wheel: Wheel) -> None:
    """The size is held against a wheel that is there as it is against one that comes."""
    url = wheel.on(server)
    cache.fetch(url, hashes=wheel.digest, size=wheel.size)
    assert cache.fetch(url, hashes=wheel.digest, size=wheel.size).status is Status.HIT
    with pytest.raises(SizeMismatchError) as caught:
        cache.fetch(url, hashes=wheel.digest, size=wheel.size + 1)
    assert (caught.value.expected, caught.value.actual) == (wheel.size + 1, wheel.size)


def test_two_names_of_one_digest_are_two_entries(server: Server, cache: Cache, wheel: Wheel) -> None:
    """The same bytes under another file name are another entry, of one blob, and need no second download."""
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    other = "demo-1.0-py2.py3-none-any.whl"
    second = cache.fetch(f"https://example.org/{other}", hashes=wheel.digest)
    assert second.path.name == second.filename == other
    assert second.status is Status.HIT
    assert {entry.filename for entry in cache.entries()} == {wheel.filename, other}
    assert {entry.path.read_bytes() for entry in cache.entries()} == {wheel.data}
    assert server.count() == 1
    stats = cache.stats()
    assert (stats.wheels, stats.wheel_bytes) == (2, wheel.size)
    first, second_blob = blobs(cache)
    assert first.samefile(second_blob)
    found = cache.get(wheel.digest, filename=other)
    assert found is not None
    assert found.filename == other


def test_a_name_in_other_letters_is_the_same_entry(server: Server, cache: Cache, wheel: Wheel) -> None:
    """File names that differ in capitals only are one entry, since half of all file systems cannot tell them apart."""
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    found = cache.fetch("https://example.org/Demo-1.0-py3-none-any.whl", hashes=wheel.digest)
    assert found.status is Status.HIT
    assert len(list(cache.entries())) == 1


def test_a_name_that_is_no_wheels_is_refused_on_a_miss(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A file name of the right characters that is no wheel's is refused before anything is requested."""
    url = server.serve("/demo-notaversion!-py3-none-any.whl", wheel.data)
    with pytest.raises(InvalidWheelError):
        cache.fetch(url)
    assert server.count() == 0
    assert_nothing_came(cache)


def test_entries_are_all_that_is_there(server: Server, cache: Cache) -> None:
    """Every wheel that was fetched is an entry, with its hash, size and bytes."""
    wheels = [Wheel(wheel_filename(f"p{number}"), make_wheel(f"p{number}")) for number in range(5)]
    for wheel in wheels:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    found = {entry.filename: entry for entry in cache.entries()}
    assert {name: entry.digest for name, entry in found.items()} == {wheel.filename: wheel.digest for wheel in wheels}
    assert all(entry.path.stat().st_size == entry.size for entry in found.values())


def test_stats_count_hits_and_misses(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """Hits, misses and saved bytes are counted across processes; what is there is measured."""
    url = wheel.on(server)
    for _ in range(2):
        with machine.cache(tmp_path / "cache") as cache:
            cache.fetch(url, hashes=wheel.digest)
            cache.fetch(url, hashes=wheel.digest)
    with machine.cache(tmp_path / "cache") as cache:
        stats = cache.stats()
    assert (stats.hits, stats.misses, stats.bytes_saved) == (3, 1, 3 * wheel.size)
    assert (stats.wheels, stats.wheel_bytes, stats.partial_bytes, stats.quarantine_bytes) == (1, wheel.size, 0, 0)


def test_offline_is_an_error_for_what_is_not_there(server: Server, machine: Machine, wheel: Wheel, tmp_path) -> None:
    """Offline, a hit works, a miss is OfflineError, and no request is made."""
    url = wheel.on(server)
    with machine.cache(tmp_path / "cache", offline=True) as cache:
        with pytest.raises(OfflineError) as caught:
            cache.fetch(f"{url}?secret", hashes=wheel.digest)
        assert caught.value.url == f"{url}?***"
        assert caught.value.path == str(cache.path)
        with pytest.raises(OfflineError):
            cache.fetch(url)
        assert server.count() == 0
        assert_nothing_came(cache)
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(url, hashes=wheel.digest)
    with machine.cache(tmp_path / "cache", offline=True) as cache:
        assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert server.count() == 1


def test_a_file_url_is_copied_in(cache: Cache, wheel: Wheel, tmp_path: Path) -> None:
    """A file: URL is read, also when the name needs decoding, and leaves its file as it is."""
    source = tmp_path / "a folder %20 with signs" / wheel.filename
    source.parent.mkdir()
    source.write_bytes(wheel.data)
    found = cache.fetch(source.as_uri(), hashes=wheel.digest)
    assert found.status is Status.ADDED
    assert found.path.read_bytes() == wheel.data
    assert source.read_bytes() == wheel.data
    assert cache.fetch(source.as_uri(), hashes=wheel.digest).status is Status.HIT


def test_a_file_url_works_offline(machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A file: URL is no use of the network."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with machine.cache(tmp_path / "cache", offline=True) as cache:
        assert cache.fetch(source.as_uri()).digest == wheel.digest


def test_a_file_url_that_leads_nowhere_is_a_download_error(cache: Cache, wheel: Wheel, tmp_path: Path) -> None:
    """A missing file, or a folder, behind a file: URL is told with its path, and leaves nothing."""
    (tmp_path / "other-1.0-py3-none-any.whl").mkdir()
    for name in (wheel.filename, "other-1.0-py3-none-any.whl"):
        with pytest.raises(DownloadError) as caught:
            cache.fetch((tmp_path / name).as_uri())
        assert caught.value.path == str(tmp_path / name)
        assert_nothing_came(cache)


def test_the_wrong_hash_of_a_file_url_keeps_nothing(cache: Cache, wheel: Wheel, other_wheel: Wheel, tmp_path) -> None:
    """A file: URL is checked as any other."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with pytest.raises(HashMismatchError):
        cache.fetch(source.as_uri(), hashes=other_wheel.digest)
    assert_nothing_came(cache)


# Progress


def test_progress_tells_the_way_of_a_wheel(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Bytes only grow, never beyond the total, and the last event says DONE."""
    events: list[ProgressEvent] = []
    cache.fetch(wheel.on(server), hashes=wheel.digest, progress=events.append)
    assert {event.wheel for event in events} == {wheel.filename}
    assert events[-1] == ProgressEvent(wheel.filename, Phase.DONE, wheel.size, wheel.size)
    loading = [event for event in events if event.phase is Phase.DOWNLOADING]
    assert loading == events[:-1]
    assert [event.done for event in loading] == sorted(event.done for event in loading)
    assert (loading[0].done, loading[-1].done) == (0, wheel.size)
    assert {event.total for event in loading} == {wheel.size}


def test_progress_of_a_hit_is_one_event(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A hit says DONE and no more."""
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    events: list[ProgressEvent] = []
    cache.fetch(wheel.on(server), hashes=wheel.digest, progress=events.append)
    assert events == [ProgressEvent(wheel.filename, Phase.DONE, wheel.size, wheel.size)]


def test_progress_without_a_length_has_no_total(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Where nobody knows the size, the total is None until the end."""
    events: list[ProgressEvent] = []
    cache.fetch(wheel.on(server, how=chunked), progress=events.append)
    assert {event.total for event in events[:-1]} == {None}
    assert events[-1].total == wheel.size


class StopHereError(Exception):
    """What a listener raises."""


@pytest.mark.parametrize("kind", [StopHereError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 2])
def test_a_listener_that_raises_stops_the_fetch(kind, at: int, server: Server, cache: Cache, wheel: Wheel) -> None:
    """What a listener raises comes out as it is, nothing is left, and the next fetch succeeds."""
    gate = threading.Semaphore(0)
    gate.release(100)
    url = wheel.on(server, how=paced(10, gate))
    seen = []

    def listener(event: ProgressEvent) -> None:
        seen.append(event)
        if len(seen) == at:
            raise kind

    with pytest.raises(kind):
        cache.fetch(url, hashes=wheel.digest, progress=listener)
    assert len(seen) == at
    assert_nothing_came(cache)
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


def test_a_listener_that_raises_at_the_end_keeps_the_wheel(server: Server, cache: Cache, wheel: Wheel) -> None:
    """What is raised at DONE comes too late to undo anything: the wheel is there."""

    def listener(event: ProgressEvent) -> None:
        if event.phase is Phase.DONE:
            raise StopHereError

    with pytest.raises(StopHereError):
        cache.fetch(wheel.on(server), hashes=wheel.digest, progress=listener)
    assert cache.get(wheel.digest) is not None
    assert unfinished(cache) == []


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.DOWNLOADING])
def test_a_listener_may_raise_what_the_system_raises(
    phase: Phase, server: Server, wheel: Wheel, tmp_path: Path
) -> None:
    """A listener whose terminal is gone stops its fetch, too, while it waits for another process as well."""
    gate = threading.Semaphore(0)
    url = wheel.on(server, how=paced(2, gate))
    begun = threading.Event()

    def listener(event: ProgressEvent) -> None:
        if event.phase is phase:
            raise BrokenPipeError

    # Two objects know of each other only what two processes would.
    with Cache(tmp_path / "cache") as one, Cache(tmp_path / "cache") as two:
        thread = threading.Thread(
            target=lambda: one.fetch(url, hashes=wheel.digest, progress=lambda event: begun.set()),
        )
        if phase is Phase.WAITING:
            thread.start()
            assert begun.wait(30)
        with pytest.raises(BrokenPipeError):
            two.fetch(url, hashes=wheel.digest, progress=listener)
        gate.release(4)
        if phase is Phase.WAITING:
            thread.join(30)
        assert two.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
        assert unfinished(two) == []


# The client


def test_the_callers_client_is_used_and_left_open(server: Server, machine: Machine, wheel: Wheel, tmp_path) -> None:
    """A client of the caller's makes the requests, with its headers, and is not closed."""
    with httpx.Client(headers={"X-Mine": "yes", "User-Agent": "mine/1"}) as client:
        with machine.cache(tmp_path / "cache", client=client) as cache:
            cache.fetch(wheel.on(server), hashes=wheel.digest)
        assert not client.is_closed
    (request,) = server.requests()
    assert request.headers["x-mine"] == "yes"
    assert request.headers["user-agent"] == "mine/1"
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("whose", ["transport", "hook"])
def test_a_body_that_was_read_before_is_taken(
    whose: str, encoded: bool, server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """A transport or an event hook of the caller's may read the whole body first: its bytes are the same."""

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"Content-Encoding": "gzip"} if encoded else {}
        return httpx.Response(200, content=gzip.compress(wheel.data) if encoded else wheel.data, headers=headers)

    url = wheel.on(server, how=gzipped if encoded else plain)
    options = {"transport": httpx.MockTransport(answer)} if whose == "transport" else {}
    hooks = {"response": [lambda response: response.read()]} if whose == "hook" else {}
    with (
        httpx.Client(event_hooks=hooks, **options) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        assert cache.fetch(url, hashes=wheel.digest, size=wheel.size).path.read_bytes() == wheel.data


def raise_for_status(response: httpx.Response) -> None:
    """An event hook as httpx's documentation has it."""
    response.raise_for_status()


def test_a_client_that_raises_for_status(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A hook that raises for a status takes nothing away: 503 is tried again, 404 leads to the mirror, 304 is a yes."""
    gone, url = server.serve(f"/gone/{wheel.filename}", how=status(404)), wheel.on(server)
    server.script(url, status(503, retry_after="7"))
    with (
        httpx.Client(event_hooks={"response": [raise_for_status]}) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        assert cache.fetch(gone, mirrors=[url]).path.read_bytes() == wheel.data
        assert sum(machine.clock.slept) >= 7
        assert cache.fetch(url).status is Status.DOWNLOADED
        assert cache.fetch(url).status is Status.REVALIDATED
        with pytest.raises(DownloadError) as caught:
            cache.fetch(gone)
    assert caught.value.status == 404


class Body(httpx.SyncByteStream):
    """A body of a transport that says nothing when it ends too early or too late."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self.data


def test_a_length_that_cannot_be_is_passed_over(machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A Content-Length of more digits than Python reads is none: the bytes tell."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Length": "9" * 5000}, stream=Body(wheel.data))

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        found = cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert found.path.read_bytes() == wheel.data


@pytest.mark.parametrize("by", [-1, 1])
def test_the_length_holds_for_any_transport(by: int, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A transport that does not look after the Content-Length is looked after."""
    data = (wheel.data + b"x")[: wheel.size + by]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Length": str(wheel.size)}, stream=Body(data))

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        with pytest.raises(DownloadError, match=f"{wheel.size + by} of {wheel.size} bytes"):
            cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert_nothing_came(cache)


def test_connections_are_kept_open(server: Server, cache: Cache) -> None:
    """Several wheels of one server come through one connection."""
    clients = set()

    def noting(exchange: Exchange) -> None:
        clients.add(exchange.client)
        plain(exchange)

    for number in range(3):
        wheel = Wheel(wheel_filename(f"p{number}"), make_wheel(f"p{number}"))
        cache.fetch(wheel.on(server, how=noting), hashes=wheel.digest)
    assert len(clients) == 1


def test_nothing_is_logged_or_printed(
    server: Server, cache: Cache, wheel: Wheel, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library neither prints nor logs anything on its own account."""
    with caplog.at_level(logging.DEBUG):
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    assert [record for record in caplog.records if record.name.startswith("wheelcache")] == []
    assert capfd.readouterr() == ("", "")


def test_no_thread_is_left(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """After close() no thread of the library runs."""
    before = {thread for thread in threading.enumerate() if "process_request" not in thread.name}
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    after = {thread for thread in threading.enumerate() if "process_request" not in thread.name}
    assert after == before


# Opening and closing


def test_a_closed_cache_is_a_value_error(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """Every operation of a closed cache is a ValueError; closing again is fine, and paths stay good."""
    cache = machine.cache(tmp_path / "cache")
    found = cache.fetch(wheel.on(server), hashes=wheel.digest)
    cache.close()
    cache.close()
    operations = [
        lambda: cache.fetch(wheel.on(server), hashes=wheel.digest),
        lambda: cache.put(found.path),
        lambda: cache.get(wheel.digest),
        lambda: wheel.digest in cache,
        lambda: list(cache.entries()),
        cache.stats,
        lambda: cache.link(found, tmp_path),
        cache.__enter__,
    ]
    for operation in operations:
        with pytest.raises(ValueError, match="closed"):
            operation()
    assert found.path.read_bytes() == wheel.data


def test_a_file_in_the_place_of_the_folder_is_told_at_once(machine: Machine, tmp_path: Path) -> None:
    """A cache folder that is a file, or lies below one, is CommitError when the Cache is made, without waiting."""
    path = tmp_path / "cache"
    path.write_bytes(b"mine")
    for folder in (path, path / "below"):
        with pytest.raises(CommitError) as caught:
            machine.cache(folder)
        assert str(path) in str(caught.value)
        assert caught.value.errno is not None or caught.value.winerror is not None
    assert path.read_bytes() == b"mine"
    assert machine.clock.slept == []


@pytest.mark.parametrize(
    "options",
    [{"colour": 1}, {"Path": "x"}],
)
def test_an_unknown_option_is_a_type_error(options: dict, tmp_path: Path) -> None:
    """A misspelt option is not passed over."""
    with pytest.raises(TypeError):
        Cache(tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"verify": "never"},
        {"io_timeout": -1},
        {"io_timeout": float("nan")},
        {"lock_timeout": "60"},
        {"lock_timeout": True},
    ],
)
def test_an_option_that_cannot_be_is_a_value_error(options: dict, tmp_path: Path) -> None:
    """A value that an option does not have is told before anything is made."""
    with pytest.raises(ValueError):
        Cache(tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("path", ["", "a\0b", b"bytes"])
def test_a_path_that_cannot_be_is_a_value_error(path: object) -> None:
    """What is no path is refused."""
    with pytest.raises((ValueError, TypeError)):
        Cache(path)  # type: ignore[arg-type]


def test_the_folder_is_marked_as_a_cache(machine: Machine, tmp_path: Path) -> None:
    """CACHEDIR.TAG with its signature keeps backups away, .gitignore keeps git away, and both stay as they are."""
    with machine.cache(tmp_path / "a" / "b") as cache:
        tag = cache.path / "CACHEDIR.TAG"
        assert tag.read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
        assert (cache.path / ".gitignore").read_bytes() == b"*\n"
    tag.write_bytes(b"mine")
    machine.cache(tmp_path / "a" / "b").close()
    assert tag.read_bytes() == b"mine"


def test_a_folder_with_other_things_in_it_goes_on_being_seen(machine: Machine, tmp_path: Path) -> None:
    """Where a project is named as the cache folder, git and backups pass over what is the cache's, and nothing else."""
    (tmp_path / "setup.py").write_text("")
    with machine.cache(tmp_path) as cache:
        assert cache.verify().problems == ()
    assert set(os.listdir(tmp_path)) == {"setup.py", "v1"}
    assert {"CACHEDIR.TAG", ".gitignore"} <= set(os.listdir(tmp_path / "v1"))


def test_a_relative_path_is_absolute_from_the_start(
    server: Server, machine: Machine, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative cache path means the folder that it meant when the Cache was made, wherever the process goes."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with machine.cache("wheels") as cache:
        monkeypatch.chdir(tmp_path / "there")
        found = cache.fetch(wheel.on(server), hashes=wheel.digest)
        assert cache.path == tmp_path / "here" / "wheels"
    assert found.path.is_relative_to(tmp_path / "here" / "wheels")
    assert list((tmp_path / "there").iterdir()) == []


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, machine: Machine, tmp_path: Path) -> None:
    """WHEELCACHE_DIR is the cache folder where none is given, and an empty one is none."""
    monkeypatch.setenv("WHEELCACHE_DIR", str(tmp_path / "from the environment"))
    with machine.cache_class() as cache:
        assert cache.path == tmp_path / "from the environment"
    with machine.cache(tmp_path / "given") as cache:
        assert cache.path == tmp_path / "given"


def test_without_any_word_it_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where neither argument nor environment names a folder, it is that of the platform."""
    import platformdirs

    monkeypatch.setenv("WHEELCACHE_DIR", "")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, appauthor: str(tmp_path / name))
    with Cache() as cache:
        assert cache.path == tmp_path / "wheelcache"


def test_a_fetch_writes_only_below_the_cache_folder(server: Server, machine: Machine, wheel: Wheel, tmp_path) -> None:
    """Blob, record, tally and marks are all that is there afterwards."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    digits = wheel.hex()
    folder = f"v1/wheels/{digits[:2]}/{digits[2:]}"
    assert set(files_in(tmp_path / "cache")) == {
        "CACHEDIR.TAG",
        ".gitignore",
        "v1/tally.log",
        f"{folder}/{wheel.filename}",
        f"{folder}/demo-1.0-py3-none-any.json",
    }


@pytest.mark.skipif(find_spec("pip") is None, reason="this Python has no pip")
def test_pip_takes_the_path_as_it_is(cache: Cache, wheel: Wheel, server: Server, tmp_path: Path) -> None:
    """The path of a wheel is one that pip installs from."""
    found: CachedWheel = cache.fetch(wheel.on(server), hashes=wheel.digest)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", tmp_path / "site", found]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "demo.py").exists()


@pytest.mark.parametrize("locks", ["possible", "impossible"])
def test_two_threads_want_one_wheel(locks: str, server: Server, tmp_path: Path, wheel: Wheel) -> None:
    """Threads that want one wheel at the same time download it once, also where the folder takes no lock."""
    gate = threading.Semaphore(0)
    url = wheel.on(server, how=paced(4, gate))
    begun, waiting = threading.Event(), threading.Event()
    found: list[CachedWheel] = []

    def second(event: ProgressEvent) -> None:
        if event.phase is Phase.WAITING:
            waiting.set()

    with Cache(tmp_path / "cache") as cache:
        if locks == "impossible":
            (cache.path / "v1" / "locks").write_bytes(b"in the way")

        def fetch(progress: Progress) -> None:
            found.append(cache.fetch(url, hashes=wheel.digest, progress=progress))

        threads = [
            threading.Thread(target=fetch, args=[lambda event: begun.set()]),
            threading.Thread(target=fetch, args=[second]),
        ]
        threads[0].start()
        assert begun.wait(30)
        threads[1].start()
        assert waiting.wait(30)
        gate.release(4)
        for thread in threads:
            thread.join(30)
    assert {each.status for each in found} == {Status.DOWNLOADED, Status.HIT}
    assert server.count() == 1


def test_no_lock_is_no_reason_to_wait(server: Server, machine: Machine, cache: Cache, wheel: Wheel) -> None:
    """Where no lock can be had at all, the work is done at once without one."""
    (cache.path / "v1" / "locks").write_bytes(b"in the way")
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert machine.clock.slept == []


# Read-only


@pytest.mark.parametrize("client", [5, "https://me:hunter2@example.org/", httpx.AsyncClient], ids=str)
def test_a_client_of_another_kind(client, machine: Machine, tmp_path: Path) -> None:
    """What is no client, or one that is awaited, is told at once, by the name of the class that belongs there."""
    client = client() if isinstance(client, type) else client
    with pytest.raises(TypeError, match=r"must be an httpx\.Client, not (int|str|httpx\.AsyncClient)$"):
        machine.cache(tmp_path / "cache", client=client)
    assert not (tmp_path / "cache").exists()


def test_what_is_used_like_a_client_is_one(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """Any object with the names that are used will do, whatever its class."""
    with httpx.Client() as client:
        like = SimpleNamespace(auth=None, build_request=client.build_request, send=client.send)
        with machine.cache(tmp_path / "cache", client=like) as cache:
            assert cache.fetch(wheel.on(server)).digest == wheel.digest


def test_read_only_needs_a_folder(machine: Machine, tmp_path: Path) -> None:
    """A read-only cache, or a layer, that is not there is told at once and not made."""
    with pytest.raises(ReadOnlyError):
        machine.cache(tmp_path / "cache", read_only=True)
    with pytest.raises(ReadOnlyError):
        machine.cache(tmp_path / "other", layers=[tmp_path / "cache"])
    assert not (tmp_path / "cache").exists()
