"""Going on where a download was cut: within a run, in the next one, at a mirror; and never two writers of one file."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import unfinished
from machines import Machine
from server import (
    Answer,
    Exchange,
    Server,
    plain,
    redirect,
    refused_range,
    reset,
    status,
    truncated,
    without_ranges,
    without_validators,
    wrong_bytes,
    wrong_range,
)
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, DownloadError, HashMismatchError, Phase, ProgressEvent, SizeMismatchError, Status
from wheelcache._fs.tempnames import OwnerTag
from wheelcache._http.default_client import detached_body
from wheelcache._os.files import native

# The size of the wheels in bytes.
SIZE = 900_000


@pytest.fixture(autouse=True)
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receive the body of a wheel in several pieces, so that :func:`interrupted` stops before its end."""
    monkeypatch.setattr(detached_body, "_READ_SIZE", SIZE // 8)


@pytest.fixture
def big() -> Wheel:
    """A wheel that is worth going on with."""
    return Wheel(wheel_filename("big"), make_wheel("big", size=SIZE))


@pytest.fixture
def changed() -> Wheel:
    """Another file under the same name."""
    return Wheel(wheel_filename("big"), make_wheel("bag", size=SIZE))


def cut_after(share: float) -> Answer:
    """Cut each answer after this share of what it should bring."""

    def answer(exchange: Exchange) -> None:
        _, _, body = exchange.right_answer()
        truncated(max(1, int(len(body) * share)))(exchange)

    return answer


def interrupted(cache: Cache, url: str, hashes: str | None, at: int = SIZE // 2, **options: object) -> None:
    """Begin a fetch, and stop it when so many bytes are there."""

    class EnoughError(Exception):
        pass

    def stop(event: ProgressEvent) -> None:
        if event.phase is Phase.DOWNLOADING and event.done >= at:
            raise EnoughError

    with pytest.raises(EnoughError):
        cache.fetch(url, hashes=hashes, progress=stop, **options)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("validators", [True, False])
@pytest.mark.parametrize("ending", [truncated, reset])
def test_cuts_again_and_again_cost_no_byte_twice(
    share: float, validators: bool, ending: Callable[[int], Answer], server: Server, cache: Cache, big: Wheel
) -> None:
    """However often a body is cut after 10, 50 or 99 %, the wheel comes, and hardly a byte of it comes twice."""

    def how(exchange: Exchange) -> None:
        if not validators:
            exchange.file.headers.update({"ETag": 'W/"weak"', "Last-Modified": "never"})
        _, _, body = exchange.right_answer()
        ending(max(1, int(len(body) * share)))(exchange)

    url = big.on(server, how=how)
    found = cache.fetch(url, hashes=big.digest)
    assert found.path.read_bytes() == big.data
    assert found.status is Status.RESUMED
    # A reset takes what has arrived and was not read yet with it; that is sent once more.
    assert ending is reset or server.sent() <= 1.1 * SIZE
    assert unfinished(cache) == []


def test_a_byte_at_a_time_is_given_up(server: Server, cache: Cache, big: Wheel) -> None:
    """A server that gives next to nothing each time ends in DownloadError after five tries."""
    url = big.on(server, how=truncated(10))
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, hashes=big.digest)
    assert caught.value.attempts == server.count() == 5


def test_a_small_part_of_a_large_wheel_is_progress(server: Server, cache: Cache, big: Wheel) -> None:
    """A wheel of gigabytes on a line that is cut again and again is gone on with while 256 KiB come each time."""
    size, piece = 3_000_000_000, bytes(1 << 18)

    def cut(exchange: Exchange) -> None:
        first = int(exchange.request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {first}-{size - 1}/{size}"} if first else {}
        exchange.start(206 if first else 200, headers, length=size - first)
        exchange.write(piece)
        exchange.hang_up()

    url = big.on(server, how=status(404))
    server.script(url, *[cut] * 8)
    with pytest.raises(DownloadError) as caught:
        cache.fetch(url, hashes=big.digest)
    assert (caught.value.status, caught.value.attempts) == (404, 10)


@pytest.mark.parametrize("hashed", [True, False])
def test_the_next_run_goes_on(hashed: bool, server: Server, machine: Machine, big: Wheel, tmp_path: Path) -> None:
    """What an interrupted fetch left is gone on with by the next process, under the validator of the first answer."""
    url = big.on(server)
    hashes = big.digest if hashed else None
    with machine.cache(tmp_path / "cache") as cache:
        interrupted(cache, url, hashes)
        assert len(unfinished(cache)) == 2
    server.forget()
    with machine.cache(tmp_path / "cache") as cache:
        found = cache.fetch(url, hashes=hashes)
        assert found.path.read_bytes() == big.data
        assert found.status is Status.RESUMED
        assert unfinished(cache) == []
    (request,) = server.requests()
    assert request.headers["range"].startswith("bytes=")
    assert request.headers["if-range"].startswith('"')
    assert server.sent() <= 0.6 * SIZE


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("how", [plain, without_validators], ids=["validators", "none"])
def test_content_that_changed_between_two_runs(
    hashed: bool, how: Answer, server: Server, cache: Cache, big: Wheel, changed: Wheel
) -> None:
    """Bytes of two files are never taken for a wheel: the new file comes whole, and passes only if it was asked for."""
    url = server.serve(big.path, changed.data, how=how)
    hashes = big.digest if hashed else None
    interrupted(cache, url, hashes)
    server.serve(big.path, big.data, how=how)
    assert cache.fetch(url, hashes=hashes).path.read_bytes() == big.data
    assert unfinished(cache) == []


def test_content_that_changes_between_two_tries(server: Server, cache: Cache, big: Wheel, changed: Wheel) -> None:
    """A file that is replaced while it is downloaded without a hash comes whole, as one of the two."""
    url = server.serve(big.path, changed.data)

    def replaced(exchange: Exchange) -> None:
        truncated(SIZE // 2)(exchange)
        server.serve(big.path, big.data)

    server.script(url, replaced)
    assert cache.fetch(url).path.read_bytes() == big.data


def test_a_rest_of_another_file_is_not_put_to_the_first_bytes(
    server: Server, cache: Cache, big: Wheel, changed: Wheel
) -> None:
    """A server that passes over If-Range gives a rest that does not fit; without a hash its ETag tells."""

    def rest(exchange: Exchange) -> None:
        found = exchange.request.headers.get("range", "")
        if not found:
            plain(exchange)
            return
        first = int(found.removeprefix("bytes=").removesuffix("-"))
        headers = {"ETag": exchange.file.etag, "Content-Range": f"bytes {first}-{SIZE - 1}/{SIZE}"}
        exchange.send(206, headers, exchange.body[first:])

    def replaced(exchange: Exchange) -> None:
        truncated(SIZE // 2)(exchange)
        server.serve(big.path, big.data, how=rest)

    url = server.serve(big.path, changed.data)
    server.script(url, replaced)
    assert cache.fetch(url).path.read_bytes() == big.data


@pytest.mark.parametrize("again", [False, True])
def test_a_redirect_that_leads_elsewhere_by_now(
    again: bool, server: Server, cache: Cache, big: Wheel, changed: Wheel
) -> None:
    """Bytes of two places are not put together without a hash, even where both files have the same ETag."""
    same = {"ETag": '"1"'}

    def with_that_etag(exchange: Exchange) -> None:
        found = exchange.request.headers.get("range", "bytes=0-")
        first = int(found.removeprefix("bytes=").removesuffix("-"))
        headers = {**same, "Content-Range": f"bytes {first}-{SIZE - 1}/{SIZE}"} if first else same
        exchange.send(206 if first else 200, headers, exchange.body[first:])

    def cut(exchange: Exchange) -> None:
        exchange.start(200, same, length=SIZE)
        exchange.write(exchange.body[: SIZE // 2])
        exchange.hang_up()

    server.serve("/old", changed.data, how=cut)
    server.serve("/new", big.data, how=with_that_etag)
    url = server.serve(big.path, how=redirect("/new"))
    server.script(url, redirect("/old"))
    if again:
        interrupted(cache, url, None)
    assert cache.fetch(url).path.read_bytes() == big.data


WRONG = {
    "ignored": without_ranges,
    "refused": refused_range,
    "begins earlier": wrong_range(-100),
    "begins later": wrong_range(+100),
    "412": lambda exchange: status(412)(exchange) if "range" in exchange.request.headers else plain(exchange),
    "no Content-Range": lambda exchange: (
        exchange.send(206, {}, exchange.right_answer()[2]) if "range" in exchange.request.headers else plain(exchange)
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("stays_cut", [False, True])
def test_ranges_that_are_answered_wrongly(
    name: str, hashed: bool, stays_cut: bool, server: Server, cache: Cache, big: Wheel
) -> None:
    """A range refused, ignored or answered with other bytes costs the bytes that were there, and never the wheel."""
    url = big.on(server, how=WRONG[name])
    server.script(url, truncated(SIZE // 2))
    if stays_cut:
        server.script(url, WRONG[name], truncated(SIZE // 2), truncated(SIZE // 2))
    assert cache.fetch(url, hashes=big.digest if hashed else None).path.read_bytes() == big.data
    assert server.sent() <= 4 * SIZE
    assert unfinished(cache) == []


@pytest.mark.parametrize("hashed", [True, False])
def test_a_server_that_gives_less_than_the_rest(hashed: bool, server: Server, cache: Cache, big: Wheel) -> None:
    """Ranges that end before the end are put together."""

    def short(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        if code != 206:
            truncated(SIZE // 4)(exchange)
            return
        first = SIZE - len(body)
        body = body[: SIZE // 4]
        exchange.send(206, {**headers, "Content-Range": f"bytes {first}-{first + len(body) - 1}/{SIZE}"}, body)

    url = big.on(server, how=short)
    assert cache.fetch(url, hashes=big.digest if hashed else None).path.read_bytes() == big.data
    assert server.sent() == SIZE


@pytest.mark.parametrize("size", [None, SIZE])
def test_a_partial_file_that_is_complete(size: int | None, server: Server, cache: Cache, big: Wheel) -> None:
    """What was killed between its last byte and its commit is not downloaded again."""
    url = big.on(server)
    interrupted(cache, url, big.digest, at=SIZE)
    server.forget()
    assert cache.fetch(url, hashes=big.digest, size=size).path.read_bytes() == big.data
    assert server.sent() == 0


def test_a_complete_partial_file_is_asked_after_without_a_hash(server: Server, cache: Cache, big: Wheel) -> None:
    """Without a hash the server says that all of it is there: no byte is sent again, and validators come with that."""
    url = big.on(server)
    interrupted(cache, url, None, at=SIZE)
    server.forget()
    assert cache.fetch(url).path.read_bytes() == big.data
    (request,) = server.requests()
    assert request.headers["range"] == f"bytes={SIZE}-"
    assert request.headers["if-range"].startswith('"')
    assert server.sent() == 0
    assert cache.fetch(url).status is Status.REVALIDATED


@pytest.mark.parametrize("minds", [True, False])
def test_a_complete_partial_file_of_a_file_that_changed(
    minds: bool, server: Server, cache: Cache, big: Wheel, changed: Wheel
) -> None:
    """Without a hash, what is complete is not taken for the file that is there now, whether or not If-Range counts."""

    def answer(exchange: Exchange) -> None:
        if "range" in exchange.request.headers and not minds:
            exchange.send(416, {"ETag": exchange.file.etag, "Content-Range": f"bytes */{SIZE}"})
        else:
            plain(exchange)

    url = server.serve(big.path, changed.data)
    interrupted(cache, url, None, at=SIZE)
    server.serve(big.path, big.data, how=answer)
    assert cache.fetch(url, refresh=True).path.read_bytes() == big.data
    assert unfinished(cache) == []


@pytest.mark.parametrize(
    ("etag", "condition"),
    [('"strong"', '"strong"'), (None, "Sun, 13 Sep 2020 12:26:40 GMT"), ('W/"weak"', None), ("rubbish", None)],
)
@pytest.mark.parametrize("hashed", [True, False])
def test_what_a_rest_is_asked_for_by(
    hashed: bool, etag: str | None, condition: str | None, server: Server, cache: Cache, big: Wheel
) -> None:
    """A rest is asked for by a strong ETag, by a date only where there is no ETag at all, and else with a hash only."""

    def answer(exchange: Exchange) -> None:
        code, headers, body = exchange.right_answer()
        del headers["ETag"]
        exchange.start(code, headers | ({} if etag is None else {"ETag": etag}), length=len(body))
        exchange.write(body[: SIZE // 2] if server.count() == 1 else body)
        exchange.hang_up()

    url = big.on(server, how=answer)
    assert cache.fetch(url, hashes=big.digest if hashed else None).path.read_bytes() == big.data
    _, second = server.requests()
    assert second.headers.get("if-range") == condition
    assert ("range" in second.headers) is (hashed or condition is not None)


@pytest.mark.parametrize("where", [0, SIZE // 4])
def test_a_damaged_partial_file_is_thrown_away(where: int, server: Server, cache: Cache, big: Wheel) -> None:
    """Bytes that rotted on the disk cost one download from the first byte, and no error."""
    url = big.on(server)
    interrupted(cache, url, big.digest)
    (part,) = (cache.path / "v1" / "partial").rglob("*.part")
    data = bytearray(part.read_bytes())
    data[where : where + 1000] = bytes(1000)
    part.write_bytes(data)
    assert cache.fetch(url, hashes=big.digest).path.read_bytes() == big.data
    assert unfinished(cache) == []


def test_zeros_after_a_power_cut_are_not_taken_for_a_wheel(
    server: Server, machine: Machine, big: Wheel, tmp_path: Path
) -> None:
    """Without a hash, a partial file of another boot is no beginning: nothing would tell that it is zeros."""
    url = big.on(server)
    with machine.cache(tmp_path / "cache") as cache:
        interrupted(cache, url, None)
        (part,) = (cache.path / "v1" / "partial").rglob("*.part")
        part.write_bytes(bytes(part.stat().st_size))
    machine.reboot()
    with machine.cache(tmp_path / "cache") as cache:
        found = cache.fetch(url)
        assert (found.path.read_bytes(), found.status) == (big.data, Status.DOWNLOADED)


@pytest.mark.parametrize("hashed", [True, False])
def test_an_oversized_or_tiny_leftover_is_swept(hashed: bool, server: Server, cache: Cache, big: Wheel) -> None:
    """A leftover that cannot be the beginning of the wheel, or is not worth it, goes."""
    url = big.on(server)
    interrupted(cache, url, big.digest)
    (part,) = (cache.path / "v1" / "partial").rglob("*.part")
    part.write_bytes(bytes(SIZE + 1) if hashed else b"x")
    assert cache.fetch(url, hashes=big.digest, size=SIZE).status is Status.DOWNLOADED
    assert unfinished(cache) == []


# Whose file it is


def left_by(cache: Cache, url: str, big: Wheel, owner: str | int) -> Path:
    """Leave a partial file of this owner, or of the process of this number: its stamp says so."""
    interrupted(cache, url, big.digest)
    (part,) = (cache.path / "v1" / "partial").rglob("*.part")
    key, stamp, space, ending = part.name.split(".")
    time, boot, _, nonce = stamp.split("-")
    pid = {"alive": os.getpid(), "nobody": 0}.get(owner, 4711) if isinstance(owner, str) else owner
    boot = "0123abcd" if owner in {"elsewhere", "long ago"} else boot
    space = "89abcdef" if owner == "container" else space
    other = part.with_name(f"{key}.{time}-{boot}-{pid}-{nonce}.{space}.{ending}")
    part.rename(other)
    part.with_suffix(".json").rename(other.with_suffix(".json"))
    now = 1_800_000_000
    age = 3600 if owner == "long ago" else 1
    os.utime(other, (now - age, now - age))
    return other


@pytest.mark.parametrize("owner", ["nobody", "dead", "alive", "elsewhere", "container", "long ago"])
def test_what_may_have_a_writer_is_copied_and_what_has_none_is_claimed(
    owner: str, server: Server, machine: Machine, big: Wheel, tmp_path: Path
) -> None:
    """A file whose owner may be there stays as it is, and its bytes count all the same; others are gone afterwards."""
    url = big.on(server)
    with machine.cache(tmp_path / "cache") as cache:
        part = left_by(cache, url, big, owner)
        inode, size = part.stat().st_ino, part.stat().st_size
        server.forget()
        # As wheelcache opens files: what Python opens on Windows cannot be claimed by a rename.
        with native().open_read(str(part)) as theirs:
            found = cache.fetch(url, hashes=big.digest)
            assert found.status is Status.RESUMED
            assert found.path.read_bytes() == big.data
            assert server.sent() == SIZE - size
            # Whoever has it open sees what it saw: of a file that may have a writer not one byte was written.
            claimed = owner in {"nobody", "dead"}
            assert (len(theirs.read()) == size) is not claimed
        assert part.exists() is (owner in {"alive", "elsewhere", "container"})
        assert (found.path.stat().st_ino == inode) is claimed


def test_what_an_owner_left_who_ends_meanwhile_goes_with_the_download(
    server: Server, machine: Machine, big: Wheel, tmp_path: Path
) -> None:
    """A file that was copied from, since its owner was there, is gone when the owner and the download have ended."""
    url = big.on(server)
    with (
        machine.cache(tmp_path / "cache") as cache,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner,
    ):
        part = left_by(cache, url, big, owner.pid)

        def end(event: ProgressEvent) -> None:
            if event.phase is Phase.DOWNLOADING and owner.poll() is None:
                assert part.exists()
                owner.communicate(b"\n")

        assert cache.fetch(url, hashes=big.digest, progress=end).status is Status.RESUMED
    assert not part.exists()
    assert not part.with_suffix(".json").exists()


def test_two_claims_of_one_file_are_one(server: Server, machine: Machine, big: Wheel, tmp_path: Path) -> None:
    """Of many processes that want the same leftover, without any lock between them, each ends with the right bytes."""
    url = big.on(server)
    with machine.cache(tmp_path / "cache") as cache:
        interrupted(cache, url, big.digest)
        code = (
            "import sys; from contextlib import nullcontext; from wheelcache import Cache\n"
            "from wheelcache._store import single_flight\n"
            "single_flight.SingleFlight.turn = lambda *_: nullcontext()\n"
            "sys.stdin.read(1)\n"
            "print(Cache(sys.argv[1]).fetch(sys.argv[2], hashes=sys.argv[3]).status)"
        )
        command = [sys.executable, "-c", code, str(cache.path), url, big.digest]
        racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        for racer in racers:
            racer.stdin.write("x")
            racer.stdin.flush()
        for racer in racers:
            out, _ = racer.communicate(timeout=60)
            assert racer.returncode == 0
            assert out.strip() in {"downloaded", "resumed", "hit"}
        assert cache.get(big.digest).path.read_bytes() == big.data
        assert [name for name in unfinished(cache) if not name.startswith("v1/locks/")] == []


# Mirrors


@pytest.fixture
def second() -> Server:
    """Another server."""
    with Server() as server:
        yield server


@pytest.fixture
def third() -> Server:
    """A third server."""
    with Server() as server:
        yield server


def test_mirrors_are_asked_in_order(server: Server, second: Server, third: Server, cache: Cache, big: Wheel) -> None:
    """A source that is dead, and one that has another file, are passed over; what they have said is not lost."""
    url = big.on(server, how=status(503))
    wrong = second.serve(big.path, make_wheel("bag", size=SIZE))
    found = cache.fetch(url, hashes=big.digest, mirrors=[wrong, big.on(third)])
    assert found.path.read_bytes() == big.data
    assert (server.count(), second.count(), third.count()) == (1, 1, 1)


@pytest.mark.parametrize("code", [500, 404])
def test_each_source_is_given_the_time_that_it_asks_for(
    code: int, server: Server, second: Server, cache: Cache, big: Wheel, machine: Machine
) -> None:
    """A source that asks for patience gets it, whatever another one says after it, and the other need not wait."""
    asked: list[float] = []
    url = big.on(server)

    def busy(exchange: Exchange) -> None:
        asked.append(machine.clock.monotonic())
        status(503, retry_after="30")(exchange)

    def at_last(exchange: Exchange) -> None:
        asked.append(machine.clock.monotonic())
        plain(exchange)

    server.script(url, busy, busy, at_last)
    mirror = second.serve(big.path, how=status(code))
    assert cache.fetch(url, hashes=big.digest, mirrors=[mirror]).path.read_bytes() == big.data
    assert asked[0] == 0
    assert 30 <= asked[1] < 40
    assert 60 <= asked[2] < 80
    assert second.count() == (2 if code == 500 else 1)


def test_a_mirror_goes_on_where_another_was_cut(
    server: Server, second: Server, cache: Cache, big: Wheel, machine: Machine
) -> None:
    """When a source dies in the middle, the next one is asked for the rest only."""
    url = big.on(server, how=status(503))
    server.script(url, truncated(SIZE // 2))
    mirror = big.on(second)
    found = cache.fetch(url, hashes=big.digest, mirrors=[mirror])
    assert (found.path.read_bytes(), found.status) == (big.data, Status.RESUMED)
    assert server.sent() + second.sent() <= SIZE + 100
    assert "if-range" not in second.requests()[0].headers


def test_half_of_a_wrong_mirror_is_not_held_against_the_right_one(
    server: Server, second: Server, cache: Cache, big: Wheel, changed: Wheel
) -> None:
    """Bytes of a wrong source under those of the right one cost one more download, and no error."""
    url = server.serve(big.path, changed.data, how=status(503))
    server.script(url, truncated(SIZE // 2))
    found = cache.fetch(url, hashes=big.digest, mirrors=[big.on(second)])
    assert found.path.read_bytes() == big.data


def test_without_a_hash_mirrors_are_not_mixed(
    server: Server, second: Server, cache: Cache, big: Wheel, changed: Wheel
) -> None:
    """Without a hash, what one source brought is never put to what another brings."""
    url = server.serve(big.path, changed.data, how=status(503))
    server.script(url, truncated(SIZE // 2))
    found = cache.fetch(url, mirrors=[big.on(second)])
    assert (found.path.read_bytes(), found.status) == (big.data, Status.DOWNLOADED)


def test_every_source_fails(server: Server, second: Server, third: Server, cache: Cache, big: Wheel) -> None:
    """When none has it, the error tells of the first, and all that was tried; nothing secret is in it."""
    secret = "hunter2"
    urls = [f"http://me:{secret}@127.0.0.1:{each.port}{big.path}?token={secret}" for each in (server, second, third)]
    server.serve(big.path, how=status(404))
    second.serve(big.path, how=status(503))
    third.serve(big.path, how=reset())
    with pytest.raises(DownloadError) as caught:
        cache.fetch(urls[0], hashes=big.digest, mirrors=urls[1:])
    error = caught.value
    assert error.status == 404
    assert {line.partition(": ")[0] for line in error.tried} == {
        f"http://***@127.0.0.1:{each.port}{big.path}?***" for each in (server, second, third)
    }
    assert error.attempts == len(error.tried) == server.count() + second.count() + third.count()
    assert secret not in str(error) + repr(error) + repr(vars(error))


def test_wrong_bytes_say_more_than_none(server: Server, second: Server, cache: Cache, big: Wheel) -> None:
    """Where one source has other bytes and the rest nothing, the mismatch is the error, with all that was tried."""
    url = big.on(server, how=status(404))
    wrong = second.serve(big.path, how=wrong_bytes(b"something else"))
    with pytest.raises(HashMismatchError) as caught:
        cache.fetch(url, hashes=big.digest, mirrors=[wrong])
    assert caught.value.url == wrong
    assert len(caught.value.tried) == 2
    with pytest.raises(SizeMismatchError):
        cache.fetch(wrong, hashes=big.digest, size=SIZE, mirrors=[url])


@pytest.mark.parametrize("mirrors", ["https://example.org/a-1-py3-none-any.whl", ["nonsense"], ["file:///x"], [7]])
def test_mirrors_that_cannot_be_are_refused_at_once(mirrors: object, server: Server, cache: Cache, big: Wheel) -> None:
    """One URL in the place of a list, or what is no URL, is an error before anything is asked."""
    with pytest.raises((ValueError, TypeError)):
        cache.fetch(big.on(server), hashes=big.digest, mirrors=mirrors)
    assert server.count() == 0


FAULTS = [plain, truncated(0), truncated(50_000), truncated(299_999), reset(), reset(100_000), status(503),
          without_ranges, refused_range, wrong_range(-10), wrong_range(10), without_validators,
          wrong_bytes(make_wheel("bag", size=SIZE)), cut_after(0.5)]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_any_faults_in_any_order(seed: int, server: Server, second: Server, cache: Cache, big: Wheel) -> None:
    """Whatever two sources do: it is the right bytes or an error, and then the right bytes when they behave."""
    rng = random.Random(seed)
    url, mirror = big.on(server), big.on(second)
    for each, path in ((server, url), (second, mirror)):
        each.script(path, *rng.choices(FAULTS, k=rng.randrange(12)))
    for hashes in (big.digest,) if seed % 4 else (None, big.digest):
        for _ in itertools.count():
            try:
                found = cache.fetch(url, hashes=hashes, mirrors=[mirror] if seed % 2 else [])
            except (DownloadError, HashMismatchError):
                continue
            assert hashes is None or found.path.read_bytes() == big.data
            break
    assert [name for name in unfinished(cache) if OwnerTag.of(name) is None] == []
