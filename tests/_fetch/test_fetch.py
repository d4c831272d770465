"""Test Cache.fetch against a well-behaved server, and the options of Cache."""

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
    """The first fetch downloads the wheel, and the second one is a hit without a request."""
    url = wheel.on(server)
    first = cache.fetch(url, hashes=wheel.digest)
    assert first.status is Status.DOWNLOADED
    assert first.path.read_bytes() == wheel.data
    second = cache.fetch(url, hashes=wheel.digest)
    assert second.status is Status.HIT
    assert second == first
    assert server.count() == 1
    assert server.sent() == wheel.size


def test_a_cached_wheel_describes_itself(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A CachedWheel has path, file name, digest, size, hashes and redacted URL, is a path itself, and is frozen."""
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


def test_no_content_encoding_is_requested(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A request has Accept-Encoding: identity and our User-Agent."""
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    (request,) = server.requests()
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("wheelcache/")


@pytest.mark.parametrize("how", [gzipped, chunked, until_closed])
@pytest.mark.parametrize("hashed", [True, False])
def test_every_transfer_form_delivers_the_right_bytes(
    how, hashed: bool, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """Compressed bodies, chunked bodies and bodies that end with the connection are read correctly."""
    found = cache.fetch(wheel.on(server, how=how), hashes=wheel.digest if hashed else None, size=wheel.size)
    assert found.path.read_bytes() == wheel.data
    assert found.digest == wheel.digest


def test_an_empty_body_is_not_a_wheel(server: Server, cache: Cache) -> None:
    """Fetching an empty body without a hash raises InvalidWheelError."""
    with pytest.raises(InvalidWheelError):
        cache.fetch(server.serve("/demo-1.0-py3-none-any.whl", b""))
    assert_nothing_came(cache)


def test_a_wheel_of_many_chunks_is_complete(server: Server, cache: Cache) -> None:
    """A wheel that is larger than all buffers is downloaded completely."""
    wheel = Wheel(wheel_filename(), make_wheel(size=5_000_001))
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data


def test_a_hit_by_hash_ignores_the_url(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A cached wheel is a hit for any URL with its hash, even for an unreachable one."""
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    found = cache.fetch(f"https://example.org/elsewhere/{wheel.filename}?x=1#sha256={wheel.hex()}")
    assert found.status is Status.HIT
    assert server.count() == 1


def test_a_fetch_without_a_hash_downloads(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A fetch without a hash downloads the wheel, which is then found by its digest."""
    found = cache.fetch(wheel.on(server))
    assert found.status is Status.DOWNLOADED
    assert found.digest == wheel.digest
    assert cache.get(wheel.digest) == found


@pytest.mark.parametrize("algorithm", ["sha512", "sha384", "blake2b", "sha3_256"])
def test_another_strong_hash_finds_the_wheel(algorithm: str, server: Server, machine: Machine, tmp_path: Path) -> None:
    """A wheel that was fetched by another strong hash is a hit by that hash in another process, and for get()."""
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


def test_the_pointer_of_another_hash_is_a_miss(
    server: Server, machine: Machine, wheel: Wheel, other_wheel: Wheel, tmp_path: Path
) -> None:
    """A pointer that was copied to the name of another hash causes a download and no error."""
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
    """A torn, short or invalid pointer causes a download, is rewritten, and never raises an error."""
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
    """A correct sha256 with a wrong md5 is a HashMismatchError, both for a download and for a hit."""
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


def test_every_hash_must_match_a_blob_without_a_record(
    server: Server, machine: Machine, wheel: Wheel, tmp_path
) -> None:
    """A blob without a record is adopted, but not for a request with other hashes."""
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


def test_a_lost_record_needs_no_download(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A blob whose record was lost is hashed and gets a new record."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
        (record,) = records(cache)
    record.unlink()
    with machine.cache(tmp_path / "cache", offline=False) as cache:
        assert cache.get(wheel.digest) is None
        assert cache.fetch(wheel.on(server), hashes=wheel.digest).status is Status.HIT
        assert record.exists()
    assert server.count() == 1


def test_bytes_with_a_wrong_hash_are_not_stored(server: Server, cache: Cache, wheel: Wheel, other_wheel: Wheel) -> None:
    """A HashMismatchError has the expected and the actual hash, and nothing is stored."""
    url = wheel.on(server)
    with pytest.raises(HashMismatchError) as caught:
        cache.fetch(url, hashes=other_wheel.digest)
    assert caught.value.expected == {"sha256": other_wheel.hex()}
    assert caught.value.actual == {"sha256": wheel.hex()}
    assert_nothing_came(cache)
    assert cache.get(wheel.digest) is None


def test_another_declared_size_is_a_mismatch(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A declared size other than the requested one ends the fetch before the body is read."""
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
def test_the_requested_size_is_checked_without_a_length(
    how, by: int, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """A body of undeclared size that is longer or shorter than requested is a SizeMismatchError."""
    with pytest.raises(SizeMismatchError):
        cache.fetch(wheel.on(server, how=how), size=wheel.size + by)
    assert_nothing_came(cache)


def test_an_endless_body_is_aborted(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A body that exceeds the requested size is aborted at once."""
    with pytest.raises(SizeMismatchError):
        cache.fetch(wheel.on(server, how=endless), size=1500)
    assert_nothing_came(cache)


def test_a_hit_of_another_size_is_a_mismatch(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A requested size that differs from that of the cached wheel is a SizeMismatchError."""
    url = wheel.on(server)
    cache.fetch(url, hashes=wheel.digest, size=wheel.size)
    assert cache.fetch(url, hashes=wheel.digest, size=wheel.size).status is Status.HIT
    with pytest.raises(SizeMismatchError) as caught:
        cache.fetch(url, hashes=wheel.digest, size=wheel.size + 1)
    assert (caught.value.expected, caught.value.actual) == (wheel.size + 1, wheel.size)


def test_two_names_of_one_digest_are_two_entries(server: Server, cache: Cache, wheel: Wheel) -> None:
    """The same bytes under another file name are another entry of one blob, and need no second download."""
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


def test_a_name_in_another_case_is_the_same_entry(server: Server, cache: Cache, wheel: Wheel) -> None:
    """File names that differ only in case are one entry, since many file systems cannot store both."""
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    found = cache.fetch("https://example.org/Demo-1.0-py3-none-any.whl", hashes=wheel.digest)
    assert found.status is Status.HIT
    assert len(list(cache.entries())) == 1


def test_an_invalid_wheel_name_is_refused_on_a_miss(server: Server, cache: Cache, wheel: Wheel) -> None:
    """A file name of valid characters that is not a wheel file name is refused without a request."""
    url = server.serve("/demo-notaversion!-py3-none-any.whl", wheel.data)
    with pytest.raises(InvalidWheelError):
        cache.fetch(url)
    assert server.count() == 0
    assert_nothing_came(cache)


def test_entries_lists_every_wheel(server: Server, cache: Cache) -> None:
    """entries() yields every fetched wheel with its hash, size and bytes."""
    wheels = [Wheel(wheel_filename(f"p{number}"), make_wheel(f"p{number}")) for number in range(5)]
    for wheel in wheels:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    found = {entry.filename: entry for entry in cache.entries()}
    assert {name: entry.digest for name, entry in found.items()} == {wheel.filename: wheel.digest for wheel in wheels}
    assert all(entry.path.stat().st_size == entry.size for entry in found.values())


def test_stats_count_hits_and_misses(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """stats() counts hits, misses and saved bytes of several processes, and measures the stored bytes."""
    url = wheel.on(server)
    for _ in range(2):
        with machine.cache(tmp_path / "cache") as cache:
            cache.fetch(url, hashes=wheel.digest)
            cache.fetch(url, hashes=wheel.digest)
    with machine.cache(tmp_path / "cache") as cache:
        stats = cache.stats()
    assert (stats.hits, stats.misses, stats.bytes_saved) == (3, 1, 3 * wheel.size)
    assert (stats.wheels, stats.wheel_bytes, stats.partial_bytes, stats.quarantine_bytes) == (1, wheel.size, 0, 0)


def test_an_offline_miss_is_an_error(server: Server, machine: Machine, wheel: Wheel, tmp_path) -> None:
    """An offline cache returns hits, raises OfflineError for misses, and sends no request."""
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


def test_the_file_of_a_file_url_is_copied(cache: Cache, wheel: Wheel, tmp_path: Path) -> None:
    """The file of a file: URL is copied, also if its name is percent-encoded, and is not changed."""
    source = tmp_path / "a folder %20 with signs" / wheel.filename
    source.parent.mkdir()
    source.write_bytes(wheel.data)
    found = cache.fetch(source.as_uri(), hashes=wheel.digest)
    assert found.status is Status.ADDED
    assert found.path.read_bytes() == wheel.data
    assert source.read_bytes() == wheel.data
    assert cache.fetch(source.as_uri(), hashes=wheel.digest).status is Status.HIT


def test_a_file_url_works_offline(machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """An offline cache fetches file: URLs."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with machine.cache(tmp_path / "cache", offline=True) as cache:
        assert cache.fetch(source.as_uri()).digest == wheel.digest


def test_an_unreadable_file_url_is_a_download_error(cache: Cache, wheel: Wheel, tmp_path: Path) -> None:
    """A file: URL of a missing file or of a folder raises DownloadError with the path, and stores nothing."""
    (tmp_path / "other-1.0-py3-none-any.whl").mkdir()
    for name in (wheel.filename, "other-1.0-py3-none-any.whl"):
        with pytest.raises(DownloadError) as caught:
            cache.fetch((tmp_path / name).as_uri())
        assert caught.value.path == str(tmp_path / name)
        assert_nothing_came(cache)


def test_the_hash_of_a_file_url_is_checked(cache: Cache, wheel: Wheel, other_wheel: Wheel, tmp_path) -> None:
    """A file: URL with a wrong hash raises HashMismatchError, and stores nothing."""
    source = tmp_path / wheel.filename
    source.write_bytes(wheel.data)
    with pytest.raises(HashMismatchError):
        cache.fetch(source.as_uri(), hashes=other_wheel.digest)
    assert_nothing_came(cache)


# Progress


def test_progress_of_a_download(server: Server, cache: Cache, wheel: Wheel) -> None:
    """The reported bytes only increase, do not exceed the total, and the last event is DONE."""
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
    """A hit reports a single DONE event."""
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    events: list[ProgressEvent] = []
    cache.fetch(wheel.on(server), hashes=wheel.digest, progress=events.append)
    assert events == [ProgressEvent(wheel.filename, Phase.DONE, wheel.size, wheel.size)]


def test_progress_without_a_length_has_no_total(server: Server, cache: Cache, wheel: Wheel) -> None:
    """If the size is unknown, the total is None until the last event."""
    events: list[ProgressEvent] = []
    cache.fetch(wheel.on(server, how=chunked), progress=events.append)
    assert {event.total for event in events[:-1]} == {None}
    assert events[-1].total == wheel.size


class StopHereError(Exception):
    """The exception that a listener raises."""


@pytest.mark.parametrize("kind", [StopHereError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 2])
def test_a_listener_that_raises_stops_the_fetch(kind, at: int, server: Server, cache: Cache, wheel: Wheel) -> None:
    """An exception of a listener propagates unchanged, nothing is left behind, and the next fetch succeeds."""
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
    """An exception that a listener raises at DONE does not remove the wheel."""

    def listener(event: ProgressEvent) -> None:
        if event.phase is Phase.DONE:
            raise StopHereError

    with pytest.raises(StopHereError):
        cache.fetch(wheel.on(server), hashes=wheel.digest, progress=listener)
    assert cache.get(wheel.digest) is not None
    assert unfinished(cache) == []


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.DOWNLOADING])
def test_a_listener_may_raise_an_os_error(phase: Phase, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """An OSError of a listener stops its fetch, also if that waits for another process."""
    gate = threading.Semaphore(0)
    url = wheel.on(server, how=paced(2, gate))
    begun = threading.Event()

    def listener(event: ProgressEvent) -> None:
        if event.phase is phase:
            raise BrokenPipeError

    # Two Cache objects share no more than two processes do.
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
    """The caller's client sends the requests, with its own headers, and is not closed."""
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
def test_a_body_that_was_already_read_is_used(
    whose: str, encoded: bool, server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """A body that a transport or an event hook of the caller has already read is stored correctly."""

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
    """The event hook of httpx's documentation."""
    response.raise_for_status()


def test_a_client_that_raises_for_status(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """If a hook raises for a status, 503 is still retried, 404 leads to the mirror, and 304 confirms the wheel."""
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
    """A body of a transport that does not check its length."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self.data


def test_an_impossible_length_is_ignored(machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A Content-Length with more digits than Python parses is ignored."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Length": "9" * 5000}, stream=Body(wheel.data))

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        found = cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert found.path.read_bytes() == wheel.data


@pytest.mark.parametrize("by", [-1, 1])
def test_the_length_is_checked_for_any_transport(by: int, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """The Content-Length is checked even if the transport does not check it."""
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
    """Several wheels of one server are downloaded over one connection."""
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
    """The library neither prints nor logs anything."""
    with caplog.at_level(logging.DEBUG):
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    assert [record for record in caplog.records if record.name.startswith("wheelcache")] == []
    assert capfd.readouterr() == ("", "")


def test_no_thread_is_left(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """No thread of the library runs after close()."""
    before = {thread for thread in threading.enumerate() if "process_request" not in thread.name}
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch(wheel.on(server), hashes=wheel.digest)
    after = {thread for thread in threading.enumerate() if "process_request" not in thread.name}
    assert after == before


# Opening and closing


def test_a_closed_cache_is_a_value_error(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """Every method of a closed cache raises ValueError, except close(), and returned paths remain valid."""
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


def test_a_file_as_the_cache_folder_is_an_error(machine: Machine, tmp_path: Path) -> None:
    """A cache folder that is a file, or is below one, raises CommitError from Cache() without waiting."""
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
    """An unknown keyword argument raises TypeError."""
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
def test_an_invalid_option_is_a_value_error(options: dict, tmp_path: Path) -> None:
    """An invalid value of an option raises ValueError before a folder is created."""
    with pytest.raises(ValueError):
        Cache(tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("path", ["", "a\0b", b"bytes"])
def test_an_invalid_path_is_refused(path: object) -> None:
    """An empty path, a path with a null character, and bytes are refused."""
    with pytest.raises((ValueError, TypeError)):
        Cache(path)  # type: ignore[arg-type]


def test_the_folder_is_marked_as_a_cache(machine: Machine, tmp_path: Path) -> None:
    """CACHEDIR.TAG excludes the folder from backups, .gitignore excludes it from git, and neither is overwritten."""
    with machine.cache(tmp_path / "a" / "b") as cache:
        tag = cache.path / "CACHEDIR.TAG"
        assert tag.read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
        assert (cache.path / ".gitignore").read_bytes() == b"*\n"
    tag.write_bytes(b"mine")
    machine.cache(tmp_path / "a" / "b").close()
    assert tag.read_bytes() == b"mine"


def test_a_folder_with_other_files_is_not_excluded(machine: Machine, tmp_path: Path) -> None:
    """In a folder with other files, git and backups exclude only the subfolder of the cache."""
    (tmp_path / "setup.py").write_text("")
    with machine.cache(tmp_path) as cache:
        assert cache.verify().problems == ()
    assert set(os.listdir(tmp_path)) == {"setup.py", "v1"}
    assert {"CACHEDIR.TAG", ".gitignore"} <= set(os.listdir(tmp_path / "v1"))


def test_a_relative_path_is_made_absolute_at_once(
    server: Server, machine: Machine, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative cache path is resolved when the Cache is created, and not affected by a later chdir."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with machine.cache("wheels") as cache:
        monkeypatch.chdir(tmp_path / "there")
        found = cache.fetch(wheel.on(server), hashes=wheel.digest)
        assert cache.path == tmp_path / "here" / "wheels"
    assert found.path.is_relative_to(tmp_path / "here" / "wheels")
    assert list((tmp_path / "there").iterdir()) == []


def test_the_environment_sets_the_folder(monkeypatch: pytest.MonkeyPatch, machine: Machine, tmp_path: Path) -> None:
    """WHEELCACHE_DIR is the cache folder if no path is given."""
    monkeypatch.setenv("WHEELCACHE_DIR", str(tmp_path / "from the environment"))
    with machine.cache_class() as cache:
        assert cache.path == tmp_path / "from the environment"
    with machine.cache(tmp_path / "given") as cache:
        assert cache.path == tmp_path / "given"


def test_the_default_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a path, and with an empty WHEELCACHE_DIR, the cache is in the platform's user cache directory."""
    import platformdirs

    monkeypatch.setenv("WHEELCACHE_DIR", "")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, appauthor: str(tmp_path / name))
    with Cache() as cache:
        assert cache.path == tmp_path / "wheelcache"


def test_a_fetch_writes_only_below_the_cache_folder(server: Server, machine: Machine, wheel: Wheel, tmp_path) -> None:
    """A fetch leaves the blob, its record, the counters and the marker files, and nothing else."""
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


@pytest.mark.skipif(find_spec("pip") is None, reason="pip is not installed")
def test_pip_installs_from_the_path(cache: Cache, wheel: Wheel, server: Server, tmp_path: Path) -> None:
    """The path of a cached wheel is one that pip installs from."""
    found: CachedWheel = cache.fetch(wheel.on(server), hashes=wheel.digest)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", tmp_path / "site", found]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "demo.py").exists()


@pytest.mark.parametrize("locks", ["possible", "impossible"])
def test_two_threads_share_one_download(locks: str, server: Server, tmp_path: Path, wheel: Wheel) -> None:
    """Two threads that fetch the same wheel download it once, even if no lock file can be created."""
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


def test_a_missing_lock_is_not_waited_for(server: Server, machine: Machine, cache: Cache, wheel: Wheel) -> None:
    """If no lock file can be created, the wheel is downloaded at once."""
    (cache.path / "v1" / "locks").write_bytes(b"in the way")
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert machine.clock.slept == []


# Clients and read-only caches


@pytest.mark.parametrize("client", [5, "https://me:hunter2@example.org/", httpx.AsyncClient], ids=str)
def test_a_client_of_another_kind(client, machine: Machine, tmp_path: Path) -> None:
    """A client of another type raises TypeError, which names the expected class."""
    client = client() if isinstance(client, type) else client
    with pytest.raises(
        TypeError, match=r"must be an httpx\.Client or httpx2\.Client, not (int|str|httpx\.AsyncClient)$"
    ):
        machine.cache(tmp_path / "cache", client=client)
    assert not (tmp_path / "cache").exists()


def test_any_object_with_the_methods_is_a_client(
    machine: Machine, server: Server, wheel: Wheel, tmp_path: Path
) -> None:
    """An object of any class with the methods of a client is accepted."""
    with httpx.Client() as client:
        like = SimpleNamespace(auth=None, build_request=client.build_request, send=client.send)
        with machine.cache(tmp_path / "cache", client=like) as cache:
            assert cache.fetch(wheel.on(server)).digest == wheel.digest


def test_read_only_needs_a_folder(machine: Machine, tmp_path: Path) -> None:
    """A read-only cache or a layer that does not exist raises ReadOnlyError, and is not created."""
    with pytest.raises(ReadOnlyError):
        machine.cache(tmp_path / "cache", read_only=True)
    with pytest.raises(ReadOnlyError):
        machine.cache(tmp_path / "other", layers=[tmp_path / "cache"])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("etag", ['"another"', 'W/"another"', None])
def test_a_304_response_with_another_strong_etag_is_not_used(
    etag: str | None, server: Server, cache: Cache, wheel: Wheel, other_wheel: Wheel
) -> None:
    """A 304 response that names another file by a strong ETag leads to a request for the whole file."""
    url = wheel.on(server)
    cache.fetch(url)

    def answer(exchange: Exchange) -> None:
        if "if-none-match" in exchange.request.headers:
            exchange.start(304, {} if etag is None else {"ETag": etag}, length=0)
        else:
            exchange.send(200, {}, other_wheel.data)

    server.serve(wheel.path, how=answer)
    found = cache.fetch(url, refresh=True)
    is_other = etag == '"another"'
    assert found.path.read_bytes() == (other_wheel if is_other else wheel).data
    assert server.count() == (3 if is_other else 2)
