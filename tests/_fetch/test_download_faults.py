"""A server that fails in every way it can: right bytes in the end or the right error, and never anything in between."""

from __future__ import annotations

import gzip
import pickle
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from folders import assert_nothing_came, unfinished
from machines import Machine
from server import (
    Answer,
    Server,
    chunked_cut,
    gzipped,
    html,
    not_http,
    plain,
    reset,
    stalled,
    status,
    truncated,
    wrong_bytes,
    wrong_length,
)
from wheels import Wheel, make_wheel

from wheelcache import (
    Cache,
    DownloadError,
    HashMismatchError,
    InvalidWheelError,
    Phase,
    ProgressEvent,
    Status,
    WheelCacheError,
)

TRIES = 5
QUICK = httpx.Timeout(10, read=0.3)


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that a stalled server waits for in vain, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


@contextmanager
def quick_cache(machine: Machine, tmp_path: Path) -> Iterator[Cache]:
    """A cache whose client does not wait long for the next byte."""
    with httpx.Client(timeout=QUICK) as client, machine.cache(tmp_path / "cache", client=client) as cache:
        yield cache


TRANSIENT: dict[str, Callable[[], Answer]] = {
    "truncated at 0": lambda: truncated(0),
    "truncated at 1": lambda: truncated(1),
    "truncated in the middle": lambda: truncated(5000),
    "truncated at the last byte": lambda: truncated(9999),
    "reset before the head": reset,
    "reset after the head": lambda: reset(0),
    "reset in the middle": lambda: reset(5000),
    "length too large": lambda: wrong_length(+1),
    "chunks cut": lambda: chunked_cut(5000),
    "no HTTP": lambda: not_http,
    **{f"HTTP {code}": lambda code=code: status(code) for code in (408, 425, 429, 500, 502, 503, 504, 520, 524)},
}
GOING_ON = {"truncated in the middle", "truncated at the last byte", "reset in the middle"}
"""Those that bring a part each time: what is there is gone on with, and that never ends in failure."""
STATUSES = {name: int(name.removeprefix("HTTP ")) for name in TRANSIENT if name.startswith("HTTP ")}


@pytest.mark.parametrize("name", TRANSIENT)
@pytest.mark.parametrize("times", [1, TRIES - 1])
def test_what_can_pass_is_tried_again(name: str, times: int, server: Server, cache: Cache, wheel: Wheel) -> None:
    """A fault that passes within the tries costs only requests: the bytes are the right ones."""
    url = wheel.on(server)
    server.script(url, *[TRANSIENT[name]()] * times)
    found = cache.fetch(url, hashes=wheel.digest)
    assert found.path.read_bytes() == wheel.data
    assert found.status is (
        Status.RESUMED if name in GOING_ON | {"truncated at 1", "chunks cut"} else Status.DOWNLOADED
    )
    assert server.count() <= times + 1
    assert name in GOING_ON or server.count() == times + 1
    assert unfinished(cache) == []


@pytest.mark.parametrize("name", sorted(TRANSIENT.keys() - GOING_ON))
@pytest.mark.parametrize("hashed", [True, False])
def test_what_does_not_pass_is_a_download_error(
    name: str, hashed: bool, server: Server, machine: Machine, cache: Cache, wheel: Wheel
) -> None:
    """A fault that stays ends in DownloadError with all that is known; nothing is left, and a later fetch succeeds."""
    url = wheel.on(server)
    server.script(url, *[TRANSIENT[name]()] * TRIES)
    with pytest.raises(DownloadError) as caught:
        cache.fetch(f"{url}?secret=1", hashes=wheel.digest if hashed else None)
    error = caught.value
    check_facts(error, f"{url}?***")
    assert error.status == STATUSES.get(name)
    assert error.attempts == TRIES == server.count() == len(error.tried)
    assert error.elapsed == pytest.approx(sum(machine.clock.slept))
    assert all(line.startswith(f"{url}?***: ") for line in error.tried)
    assert_nothing_came(cache)
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


def check_facts(error: WheelCacheError, url: str) -> None:
    assert error.operation == "download"
    assert error.url == url
    assert error.problem
    assert error.advice
    assert url in str(error)
    assert "secret" not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize("at", [None, 0, 5000])
def test_a_server_that_stalls_is_left(
    at: int | None, never, server: Server, machine: Machine, wheel: Wheel, tmp_path
) -> None:
    """When no byte comes for the read time-out, the request is made again."""
    url = wheel.on(server)
    server.script(url, stalled(at, never))
    with quick_cache(machine, tmp_path) as cache:
        assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert server.count() >= 2  # on a busy machine the second answer may be late as well


def test_a_server_that_only_stalls_is_a_download_error(
    never, server: Server, machine: Machine, wheel: Wheel, tmp_path
) -> None:
    """A server that stalls every time ends in DownloadError after the tries, and leaves nothing."""
    url = wheel.on(server, how=stalled(0, never))
    with quick_cache(machine, tmp_path) as cache:
        with pytest.raises(DownloadError) as caught:
            cache.fetch(url, hashes=wheel.digest)
        check_facts(caught.value, url)
        assert caught.value.attempts == TRIES
        assert "the server sent nothing in time" in caught.value.problem
        assert_nothing_came(cache)


PERMANENT = [400, 401, 403, 404, 405, 407, 410, 416, 418, 501, 505]


@pytest.mark.parametrize("code", PERMANENT)
def test_a_status_that_stays_is_told_at_once(
    code: int, server: Server, machine: Machine, cache: Cache, wheel: Wheel
) -> None:
    """A status that trying again cannot change is DownloadError after one request, without waiting."""
    url = wheel.on(server)
    server.script(url, status(code, retry_after="1"))
    with pytest.raises(DownloadError) as caught:
        cache.fetch(f"{url}?secret=1", hashes=wheel.digest)
    check_facts(caught.value, f"{url}?***")
    assert (caught.value.status, caught.value.attempts, len(caught.value.tried)) == (code, 1, 1)
    assert f"HTTP {code}" in str(caught.value)
    assert machine.clock.slept == []
    assert server.count() == 1
    assert_nothing_came(cache)
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


@pytest.mark.parametrize("code", [201, 204, 206, 300, 304])
def test_an_answer_that_is_not_the_file_is_refused(code: int, server: Server, cache: Cache, wheel: Wheel) -> None:
    """Only 200 is the file: other good answers to this request are no wheel."""
    url = wheel.on(server)
    server.script(url, lambda exchange: exchange.send(code, {}, b"" if code in {204, 304} else exchange.body))
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    assert caught.value.status == code
    assert_nothing_came(cache)


def test_there_is_nobody(server: Server, machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A port where nobody listens is DownloadError without a status, and its cause names the system's code."""
    url = wheel.on(server)
    server.close()
    with machine.cache(tmp_path / "cache") as cache:
        with pytest.raises(DownloadError) as caught:
            cache.fetch(url, hashes=wheel.digest)
        check_facts(caught.value, url)
        assert caught.value.status is None
        assert caught.value.attempts == TRIES
        assert_nothing_came(cache)


def test_a_fault_and_another_and_it_is_fine(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Different faults in a row add up to no more than their requests."""
    url = wheel.on(server)
    server.script(url, truncated(9000), status(503), reset(100), html, plain)
    with pytest.raises(HashMismatchError):
        cache.fetch(url, hashes=wheel.digest)
    assert_nothing_came(cache)
    server.script(url, truncated(9000), status(503), reset(100), truncated(1))
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


# Bytes that come whole, and are not the wheel

OTHER = make_wheel("other", size=10_000)


@pytest.mark.parametrize(
    "fault", [html, wrong_bytes(OTHER), wrong_bytes(b""), wrong_bytes(b"x" * 10_000), wrong_length(-1)]
)
def test_other_bytes_are_a_hash_mismatch(fault: Answer, server: Server, cache: Cache, wheel: Wheel) -> None:
    """Whatever comes in the place of the wheel that was asked for is HashMismatchError, and nothing of it is kept."""
    url = wheel.on(server)
    server.script(url, fault)
    with pytest.raises(HashMismatchError) as caught:
        cache.fetch(f"{url}?secret=1", hashes=wheel.digest)
    error = caught.value
    assert (error.operation, error.url) == ("check", f"{url}?***")
    assert error.expected == {"sha256": wheel.hex()}
    assert error.actual["sha256"] != wheel.hex()
    assert error.advice
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert_nothing_came(cache)
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


@pytest.mark.parametrize("fault", [html, wrong_bytes(b""), wrong_bytes(b"x" * 10_000), wrong_length(-30)])
def test_what_is_no_archive_is_no_wheel(fault: Answer, server: Server, cache: Cache, wheel: Wheel) -> None:
    """Without a hash, a page or anything else without a zip's end record is InvalidWheelError."""
    url = wheel.on(server)
    server.script(url, fault)
    with pytest.raises(InvalidWheelError) as caught:
        cache.fetch(f"{url}?secret=1")
    assert caught.value.url == f"{url}?***"
    assert caught.value.advice
    assert "secret" not in str(caught.value)
    assert_nothing_came(cache)
    assert cache.fetch(url).path.read_bytes() == wheel.data


def test_an_encoded_body_that_is_cut_is_tried_again(server: Server, cache: Cache, wheel: Wheel) -> None:
    """The length of an encoded body is that of the received bytes, and a cut body is requested as a whole."""
    url = wheel.on(server)

    def cut(exchange: Any) -> None:
        body = gzip.compress(exchange.body, mtime=0)
        exchange.start(200, {"Content-Encoding": "gzip"}, length=len(body))
        exchange.write(body[:9000])
        exchange.hang_up()

    server.script(url, cut, cut, gzipped)
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert ["range" in request.headers for request in server.requests()] == [False] * 3


# Waiting


def test_waits_grow_and_are_told(server: Server, machine: Machine, cache: Cache, wheel: Wheel) -> None:
    """Between tries there is a wait with jitter under a growing bound, and the listener hears of it."""
    url = wheel.on(server)
    server.script(url, *[status(503)] * (TRIES - 1))
    events: list[ProgressEvent] = []
    cache.fetch(url, hashes=wheel.digest, progress=events.append)
    slept = machine.clock.slept
    assert len(slept) == TRIES - 1
    assert all(0 <= seconds <= 0.25 * 2**number for number, seconds in enumerate(slept))
    waiting = [event for event in events if event.phase is Phase.WAITING]
    assert len(waiting) == TRIES - 1
    assert all("503" in event.detail for event in waiting)
    assert events[-1].phase is Phase.DONE


def test_progress_begins_again_with_the_bytes(server: Server, cache: Cache, wheel: Wheel) -> None:
    """After a cut the count of bytes never passes the total, and ends at it."""
    url = wheel.on(server)
    server.script(url, truncated(9000), reset(100))
    events: list[ProgressEvent] = []
    cache.fetch(url, hashes=wheel.digest, progress=events.append)
    assert all(event.total is None or event.done <= event.total for event in events)
    assert (events[-1].phase, events[-1].done) == (Phase.DONE, wheel.size)


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_in_seconds_is_waited_for(
    code: int, server: Server, machine: Machine, cache: Cache, wheel: Wheel
) -> None:
    """A server that asks for 30 seconds gets them."""
    url = wheel.on(server)
    server.script(url, status(code, retry_after="30"), status(code, retry_after=" 7 "))
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    first, second = machine.clock.slept
    assert first >= 30
    assert 7 <= second < 30


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0100"])
@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_as_a_date_is_waited_for(
    code: int, zone: str, server: Server, machine: Machine, cache: Cache, wheel: Wheel
) -> None:
    """A server that names a time is not asked again before it."""
    url = wheel.on(server)
    due = int(machine.clock.now()) + 40
    text = formatdate(due + (3600 if zone == "+0100" else 0), usegmt=True).replace("GMT", zone)
    server.script(url, status(code, retry_after=text))
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert due <= machine.clock.now() < due + 1
    assert len(machine.clock.slept) == 1


@pytest.mark.parametrize("asked", ["61", "3600", "999999999999", "date"])
def test_retry_after_beyond_the_limit_is_the_callers_to_decide(
    asked: str, server: Server, machine: Machine, cache: Cache, wheel: Wheel
) -> None:
    """A server that asks for more than a minute ends the fetch at once, with the figure in the error."""
    url = wheel.on(server)
    seconds = 7200.0 if asked == "date" else float(asked)
    text = formatdate(machine.clock.now() + seconds, usegmt=True) if asked == "date" else asked
    server.script(url, status(429, retry_after=text))
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    assert caught.value.retry_after == pytest.approx(seconds)
    assert (caught.value.status, caught.value.attempts) == (429, 1)
    assert "asks to wait" in str(caught.value)
    assert machine.clock.slept == []
    assert_nothing_came(cache)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "0x10",
        "\u0663",
        "9" * 5000,
        "Thu, 99 Nov 2024 00:00:00 GMT",
        "Thu, 01 Jan 1970 00:00:00 -0000",
        "Sat, 01 Jan 0001 00:00:00 +2359",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        formatdate(0, usegmt=True),
    ],
)
def test_a_retry_after_that_says_nothing_is_passed_over(
    text: str, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """A header that is no number and no date, or a date in the past, never breaks a fetch."""
    answers = [httpx.Response(503, headers=[(b"Retry-After", text.encode("latin-1", "replace"))])]

    def answer(request: httpx.Request) -> httpx.Response:
        return answers.pop() if answers else httpx.Response(200, content=wheel.data)

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        try:
            assert cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest).size == wheel.size
        except DownloadError as error:
            assert error.retry_after is not None  # noqa: PT017
            assert error.retry_after > 60  # noqa: PT017


def test_an_interrupt_while_waiting_leaves_nothing(
    server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """Ctrl-C between two tries ends the fetch, and nothing is left."""
    url = wheel.on(server, how=status(503))

    def interrupted(event: ProgressEvent) -> None:
        if event.phase is Phase.WAITING:
            raise KeyboardInterrupt

    with machine.cache(tmp_path / "cache") as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.fetch(url, hashes=wheel.digest, progress=interrupted)
        assert server.count() == 1
        assert_nothing_came(cache)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (httpx.UnsupportedProtocol("no"), "the URL cannot be requested"),
        (httpx.ProxyError("no"), "the proxy failed"),
        (httpx.InvalidURL("no"), "the URL cannot be requested"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_permanent_failure_is_reported_after_one_attempt(
    error: Exception, problem: str, machine: Machine, wheel: Wheel, tmp_path
) -> None:
    """A request that the transport permanently refuses is not sent again."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    with (
        httpx.Client(transport=httpx.MockTransport(fail)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        with pytest.raises(DownloadError) as caught:
            cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert (caught.value.attempts, len(caught.value.tried)) == (1, 1)
        assert caught.value.problem == problem
        assert_nothing_came(cache)


def test_a_connection_that_ended_meanwhile_is_no_final_failure(machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """What httpx calls a protocol violated by the client passes: over HTTP/2 another request saw the connection end."""
    errors = [httpx.LocalProtocolError("Invalid input ConnectionInputs.SEND_HEADERS in state ConnectionState.CLOSED")]

    def answer(request: httpx.Request) -> httpx.Response:
        if errors:
            raise errors.pop()
        return httpx.Response(200, content=wheel.data)

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
    ):
        found = cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert found.path.read_bytes() == wheel.data


@pytest.mark.parametrize(("code", "tries"), [(403, 1), (407, 1), (429, TRIES), (502, TRIES), (503, TRIES)])
def test_a_proxy_that_refuses_to_connect(
    code: int, tries: int, server: Server, cache: Cache, wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy's status says whether to ask again and what to do, and what the environment says of it stays there."""
    monkeypatch.setenv("HTTPS_PROXY", server.url("", userinfo="me:secret"))
    server.script("example.invalid:443", *[status(code)] * tries)
    url = f"https://example.invalid/{wheel.filename}"
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    check_facts(caught.value, url)
    assert (caught.value.status, caught.value.attempts) == (code, tries)
    assert server.count("example.invalid:443") == tries
    assert "proxy" in caught.value.problem
    assert {403: "NO_PROXY", 407: "credentials"}.get(code, "proxy") in caught.value.advice


def test_a_certificate_that_nobody_vouches_for(machine: Machine, wheel: Wheel, tmp_path: Path) -> None:
    """A certificate that is refused is told at once, and how another authority comes to be trusted."""
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(str(refused)) from refused

    with (
        httpx.Client(transport=httpx.MockTransport(fail)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
        pytest.raises(DownloadError) as caught,
    ):
        cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
    assert caught.value.attempts == 1
    assert "self-signed" in caught.value.problem
    assert "SSL_CERT_FILE" in caught.value.advice
    assert "verify=" in caught.value.advice
