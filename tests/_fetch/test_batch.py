"""Test Cache.fetch_all: order, parallelism, failures, outcomes and interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from folders import unfinished
from machines import Machine
from marks import not_on_windows
from packaging.pylock import PackageWheel
from server import Exchange, Server, plain, stalled, status, truncated, wrong_bytes
from wheels import Wheel, hex_of, make_wheel, wheel_filename

from wheelcache import (
    Cache,
    CachedWheel,
    DownloadError,
    HashMismatchError,
    InvalidWheelError,
    Phase,
    ProgressEvent,
    Status,
    WheelRequest,
)

MANY = [Wheel(wheel_filename(f"many{number}"), make_wheel(f"many{number}", size=3000 + number)) for number in range(30)]


def requests_for(server: Server, wheels: list[Wheel] = MANY) -> list[WheelRequest]:
    return [WheelRequest(wheel.on(server), wheel.digest, len(wheel.data)) for wheel in wheels]


@pytest.mark.parametrize("jobs", [None, 1, 3, 100])
def test_wheels_are_in_the_order_of_the_requests(
    jobs: int | None, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """fetch_all returns the wheels in the order of the requests, and downloads each one once."""
    # Waiting takes no time on this machine, so the default timeout would expire during a download.
    with machine.cache(tmp_path / "cache", lock_timeout=float("inf")) as cache:
        requests = requests_for(server)
        found = cache.fetch_all(requests + requests[:5], jobs=jobs)
        assert [wheel.path.read_bytes() for wheel in found] == [wheel.data for wheel in MANY + MANY[:5]]
        assert server.count() == len(MANY)
        assert unfinished(cache) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wheelcache")]


def test_the_largest_wheel_is_fetched_first(server: Server, cache: Cache) -> None:
    """With one job, the wheels are fetched by descending size, and those of unknown size last, in their order."""
    requests = requests_for(server, MANY[:6])
    requests[2] = WheelRequest(requests[2].url, requests[2].hashes)
    cache.fetch_all(requests, jobs=1)
    paths = [request.target.rpartition("/")[2] for request in server.requests()]
    assert paths == [MANY[number].filename for number in (5, 4, 3, 1, 0, 2)]


def test_jobs_limits_the_parallel_requests(server: Server, cache: Cache) -> None:
    """The number of parallel requests is that of the jobs."""
    both, count, most, lock = threading.Barrier(4), 0, 0, threading.Lock()

    def met(exchange: Exchange) -> None:
        nonlocal count, most
        with lock:
            count += 1
            most = max(most, count)
        both.wait(30)
        with lock:
            count -= 1
        both.wait(30)
        plain(exchange)

    requests = [WheelRequest(wheel.on(server, how=met), wheel.digest) for wheel in MANY[:8]]
    cache.fetch_all(requests, jobs=4)
    assert most == 4


@dataclass
class Duck:
    """An object with the attributes that a request needs."""

    url: str
    hashes: dict[str, str]


def test_every_kind_of_request(server: Server, cache: Cache) -> None:
    """A request may be a URL, a WheelRequest, a PackageWheel, or any object with the attributes."""
    first, second, third, fourth = MANY[:4]
    found = cache.fetch_all(
        [
            f"{first.on(server)}#sha256={hex_of(first.data)}",
            WheelRequest(second.on(server), second.digest),
            PackageWheel(name=third.filename, url=third.on(server), hashes={"sha256": hex_of(third.data)}, size=None),
            Duck(fourth.on(server), {"sha256": hex_of(fourth.data)}),
        ]
    )
    assert [wheel.digest for wheel in found] == [wheel.digest for wheel in MANY[:4]]
    assert cache.fetch_all([]) == []


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (7, TypeError),
        ("nonsense", ValueError),
        ("https://example.org/x.txt", InvalidWheelError),
        (WheelRequest("https://example.org/a-1-py3-none-any.whl", "md5:" + "0" * 32), ValueError),
        (
            PackageWheel(name="a-1-py3-none-any.whl", path="a-1-py3-none-any.whl", hashes={"sha256": "0" * 64}),
            ValueError,
        ),
    ],
    ids=str,
)
def test_an_invalid_request_prevents_all_others(wrong: object, error, server: Server, cache: Cache) -> None:
    """An invalid request raises an error before any request is sent."""
    with pytest.raises(error):
        cache.fetch_all([*requests_for(server), wrong])
    assert server.count() == 0


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "2"])
def test_invalid_jobs(jobs: object, cache: Cache) -> None:
    """An invalid number of jobs raises ValueError, even without requests."""
    with pytest.raises(ValueError, match="jobs"):
        cache.fetch_all([], jobs=jobs)


def test_failures_are_raised_as_one_group(server: Server, cache: Cache) -> None:
    """All failures are raised as one ExceptionGroup, in the order of the requests, after the others were fetched."""
    server.serve(MANY[3].path, MANY[3].data)
    requests = requests_for(server)
    server.serve(MANY[3].path, how=status(404))
    server.serve(MANY[7].path, how=wrong_bytes(make_wheel("other", size=len(MANY[7].data))))
    server.script(MANY[9].path, truncated(100))
    with pytest.raises(ExceptionGroup, match="2 of 30") as caught:
        cache.fetch_all(requests)
    assert [type(error) for error in caught.value.exceptions] == [DownloadError, HashMismatchError]
    assert caught.value.exceptions[0].url == requests[3].url
    assert {wheel.filename for wheel in cache.entries()} == {
        wheel.filename for number, wheel in enumerate(MANY) if number not in {3, 7}
    }


def test_the_listener_is_called_by_one_thread_at_a_time(server: Server, cache: Cache) -> None:
    """Events of different wheels are reported one by one, and an exception of the listener fails only its wheel."""
    inside = threading.Lock()
    done = []

    def listen(event: ProgressEvent) -> None:
        assert inside.acquire(blocking=False)
        try:
            if event.wheel == MANY[2].filename:
                raise RuntimeError("not this one")
            if event.phase is Phase.DONE:
                done.append(event.wheel)
        finally:
            inside.release()

    with pytest.raises(ExceptionGroup) as caught:
        cache.fetch_all(requests_for(server), progress=listen)
    assert [str(error) for error in caught.value.exceptions] == ["not this one"]
    assert sorted(done) == sorted(wheel.filename for wheel in MANY if wheel is not MANY[2])


def test_an_interrupt_in_one_thread_ends_all_transfers(server: Server, machine: Machine, tmp_path: Path) -> None:
    """KeyboardInterrupt in a worker thread ends all transfers, also blocked ones, and is raised to the caller."""
    never = threading.Event()
    let_go: list[Exchange] = []

    def held(exchange: Exchange) -> None:
        try:
            stalled(1500, never)(exchange)
        finally:
            let_go.append(exchange)

    requests = [WheelRequest(wheel.on(server, how=held), wheel.digest) for wheel in MANY[:3]]

    def interrupt(event: ProgressEvent) -> None:
        if event.done >= 1000:
            seen.add(event.wheel)
            if len(seen) == 3:
                raise KeyboardInterrupt

    seen: set[str] = set()
    with httpx.Client(timeout=None) as client, machine.cache(tmp_path / "cache", client=client) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.fetch_all(requests, progress=interrupt)
        assert let_go == []  # the server still holds the connections, so it did not end the transfers
        assert unfinished(cache) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wheelcache")]
    never.set()


@not_on_windows("a process cannot be sent Ctrl-C there without its console's other processes")
def test_ctrl_c_ends_blocked_transfers(server: Server, tmp_path: Path) -> None:
    """Ctrl-C ends a fetch_all whose transfers are blocked, and leaves neither a thread nor an unfinished file."""
    never, reached = threading.Event(), threading.Semaphore(0)

    def held(exchange: Exchange) -> None:
        reached.release()
        stalled(1500, never)(exchange)

    urls = [f"{wheel.on(server, how=held)}#{wheel.digest.replace(':', '=')}" for wheel in MANY[:5]]
    code = (
        "import sys; from wheelcache import Cache\n"
        "Cache(sys.argv[1]).fetch_all(sys.argv[2:], progress=lambda e: e.done and print(e.done, flush=True))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "cache"), *urls], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for _ in urls:
        assert reached.acquire(timeout=30)
    for _ in urls:
        assert child.stdout.readline()
    os.kill(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == -signal.SIGINT or b"KeyboardInterrupt" in errors
    with Cache(tmp_path / "cache") as cache:
        assert unfinished(cache) == []
    never.set()


def test_requests_of_a_closed_or_offline_cache(server: Server, machine: Machine, tmp_path: Path) -> None:
    """An offline cache returns hits and raises misses as a group, and a closed cache raises ValueError."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.fetch_all(requests_for(server)[:3])
    with machine.cache(tmp_path / "cache", offline=True) as cache:
        assert {wheel.status for wheel in cache.fetch_all(requests_for(server)[:3])} == {Status.HIT}
        with pytest.raises(ExceptionGroup, match="1 of 4"):
            cache.fetch_all(requests_for(server)[:4])
    with pytest.raises(ValueError, match="closed"):
        cache.fetch_all(requests_for(server))


def test_a_pool_that_is_smaller_than_the_jobs(server: Server, machine: Machine, tmp_path: Path) -> None:
    """With a client of one connection and a tiny pool timeout, each wheel waits for its turn and is fetched."""
    asked = threading.Semaphore(0)
    held = MANY[3]

    def hold(exchange: Exchange) -> None:
        for _ in range(3):
            assert asked.acquire(timeout=60)
        plain(exchange)

    with (
        httpx.Client(
            limits=httpx.Limits(max_connections=1),
            timeout=httpx.Timeout(60, pool=1e-9),
            event_hooks={"request": [lambda request: asked.release()]},
        ) as client,
        machine.cache(tmp_path / "cache", client=client, lock_timeout=float("inf")) as cache,
    ):
        requests = [WheelRequest(held.on(server, how=hold), held.digest, held.size), *requests_for(server, MANY[:3])]
        assert len(cache.fetch_all(requests, jobs=4)) == 4
        assert server.count() == 4


def test_outcomes_instead_of_a_group(server: Server, cache: Cache) -> None:
    """With return_exceptions, each request has its outcome in its position, a wheel or an exception."""
    good, bad = MANY[0], MANY[1]
    requests = [
        WheelRequest(bad.on(server, how=status(404)), bad.digest),
        WheelRequest(good.on(server), good.digest),
        WheelRequest(MANY[2].on(server, how=wrong_bytes(b"no wheel")), MANY[2].digest),
    ]
    first, second, third = cache.fetch_all(requests, return_exceptions=True)
    assert isinstance(first, DownloadError)
    assert not isinstance(second, Exception)
    assert second.digest == good.digest
    assert isinstance(third, HashMismatchError)


def test_an_invalid_request_is_an_outcome(server: Server, cache: Cache) -> None:
    """With return_exceptions, an invalid request fails alone, with its own event, and the others are fetched."""
    good = requests_for(server, MANY[:1])
    bad = [
        WheelRequest("ftp://example.org/demo-1.0-py3-none-any.whl"),
        WheelRequest(good[0].url, "sha256:0"),
        WheelRequest("https://example.org/demo.zip"),
    ]
    events: list[ProgressEvent] = []
    outcomes = cache.fetch_all([*bad, *good], progress=events.append, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError, InvalidWheelError, CachedWheel]
    assert [(event.index, event.request) for event in events if event.phase is Phase.FAILED] == list(enumerate(bad))
    assert cache.fetch_all(bad[:1], return_exceptions=True)[0].args
    with pytest.raises(TypeError):
        cache.fetch_all([*good, object()], return_exceptions=True)  # type: ignore[list-item]


def test_an_interrupt_is_not_an_outcome(server: Server, cache: Cache) -> None:
    """With return_exceptions, an exception that is not an Exception still ends the call."""

    def interrupt(event: ProgressEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.fetch_all(requests_for(server, MANY[:3]), progress=interrupt, return_exceptions=True)


def test_events_name_their_request(server: Server, cache: Cache) -> None:
    """Each event has its request object and position, and the last event of a request reports its completion."""
    bad = Duck(MANY[1].on(server, how=status(404)), {"sha256": hex_of(MANY[1].data)})
    requests = [WheelRequest(MANY[0].on(server), MANY[0].digest), bad, MANY[2].on(server)]
    events: list[ProgressEvent] = []
    cache.fetch_all(requests, progress=events.append, return_exceptions=True)
    assert all(event.index is not None and event.request is requests[event.index] for event in events)
    last = {event.index: event for event in events}
    assert [last[index].phase for index in range(3)] == [Phase.DONE, Phase.FAILED, Phase.DONE]
    assert "404" in last[1].detail
    assert last[1].wheel == MANY[1].filename


def test_an_exception_of_the_listener_is_the_outcome(server: Server, cache: Cache) -> None:
    """An exception of the listener is the outcome of its request, even if the request has failed already."""

    def fail(event: ProgressEvent) -> None:
        if event.phase is Phase.FAILED:
            raise LookupError("enough")

    (outcome,) = cache.fetch_all(
        [WheelRequest(MANY[0].on(server, how=status(404)), MANY[0].digest)], progress=fail, return_exceptions=True
    )
    assert isinstance(outcome, LookupError)


def test_mirrors_of_a_request(server: Server, cache: Cache) -> None:
    """A mirror of a request delivers the wheel if its URL does not, and is redacted in repr()."""
    wheel = MANY[0]
    broken = server.url("/broken/" + wheel.filename)
    request = WheelRequest(broken, wheel.digest, mirrors=[wheel.on(server)])
    (found,) = cache.fetch_all([request])
    assert found.path.read_bytes() == wheel.data
    assert "hunter2" not in repr(WheelRequest(broken, mirrors=["https://me:hunter2@example.org/a.whl"]))
