"""One download of a wheel at a time: who waits, for whom, how long, and that correctness never depends on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty import Code, FaultyFiles, Plan, Refuse, Refusing
from folders import unfinished
from machines import Machine
from oracle import check_sound
from server import Exchange, Server, stalled, status
from wheels import Wheel

from wheelcache import Cache, CachedWheel, DownloadError, Phase, ProgressEvent, Status
from wheelcache._fs.lock import FileLock
from wheelcache._fs.robustio import RobustIO
from wheelcache._operation import Operation
from wheelcache._os.system import System
from wheelcache._store.layout import Layout
from wheelcache._store.single_flight import SingleFlight

LOCK_TIMEOUT = 10.0
OTHER_PID = 4711


@pytest.fixture
def files() -> FaultyFiles:
    """The file layer of the machine, whose plan each test sets."""
    return FaultyFiles()


@pytest.fixture
def machine(files: FaultyFiles) -> Machine:
    """A machine whose clock never waits, and whose file operations are refused as planned."""
    return Machine(files)


@pytest.fixture
def cache(machine: Machine, tmp_path: Path) -> Iterator[Cache]:
    """An empty cache, on ``machine``."""
    with machine.cache(tmp_path / "cache", lock_timeout=LOCK_TIMEOUT) as cache:
        yield cache


class Owner:
    """Another process that downloads a wheel, as others observe it: its lock and its partial file."""

    def __init__(self, cache: Cache, wheel: Wheel) -> None:
        system = System()
        self.layout = Layout(str(cache.path))
        self.key = wheel.digest
        self.lock = FileLock(RobustIO(Operation(system, io_timeout=0.0)), self.layout.lock(self.key))
        self.partial = Path(self.layout.new_partial(self.key, f"1800000000-0000abcd-{OTHER_PID}-00000000", ""))
        assert self.lock.try_acquire()

    def writes(self, data: bytes) -> None:
        """Write the next bytes of the body."""
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        with self.partial.open("ab") as file:
            file.write(data)

    def ends(self) -> None:
        """Delete the partial file, and release the lock."""
        self.partial.unlink(missing_ok=True)
        self.lock.release()


@pytest.fixture
def owner(cache: Cache, wheel: Wheel) -> Iterator[Owner]:
    """Another process that holds the wheel's lock, and has not written any bytes yet."""
    owner = Owner(cache, wheel)
    yield owner
    owner.ends()


class Listener:
    """Collects the events of a fetch, and runs an action for each WAITING event."""

    def __init__(self, action: Callable[[int], object] = lambda _: None) -> None:
        self.events: list[ProgressEvent] = []
        self.action = action

    @property
    def waits(self) -> list[str]:
        """The details of the WAITING events."""
        return [event.detail for event in self.events if event.phase is Phase.WAITING]

    def __call__(self, event: ProgressEvent) -> None:
        self.events.append(event)
        if event.phase is Phase.WAITING:
            self.action(len(self.waits))


# Threads


def fetch_at_once(caches: list[Cache], url: str, wheel: Wheel) -> list[CachedWheel]:
    """Fetch a wheel in one thread per cache, all at once."""
    start = threading.Barrier(len(caches))

    def fetch(cache: Cache) -> CachedWheel:
        start.wait()
        return cache.fetch(url, hashes=wheel.digest)

    with ThreadPoolExecutor(len(caches)) as pool:
        return list(pool.map(fetch, caches))


def test_threads_of_one_cache(tmp_path: Path, server: Server, wheel: Wheel) -> None:
    """Sixteen threads that fetch one wheel through one object download it once."""
    url = wheel.on(server)
    with Cache(tmp_path / "cache") as cache:
        found = fetch_at_once([cache] * 16, url, wheel)
        assert sorted(each.status for each in found) == [Status.DOWNLOADED] + [Status.HIT] * 15
        assert {each.path.read_bytes() for each in found} == {wheel.data}
        assert server.count(url) == 1
        assert unfinished(cache) == []


def test_threads_without_locks(tmp_path: Path, server: Server, wheel: Wheel) -> None:
    """Threads download it once even if no lock between processes is possible."""
    url = wheel.on(server)
    with Cache(tmp_path / "cache") as cache:
        (cache.path / "v1" / "locks").write_bytes(b"in the way")
        found = fetch_at_once([cache] * 16, url, wheel)
        assert {each.path.read_bytes() for each in found} == {wheel.data}
        assert server.count(url) == 1


def test_caches_of_one_folder(tmp_path: Path, server: Server, wheel: Wheel) -> None:
    """Eight objects for one folder, in eight threads, download it once."""
    url = wheel.on(server)
    caches = [Cache(tmp_path / "cache") for _ in range(8)]
    found = fetch_at_once(caches, url, wheel)
    assert sorted(each.status for each in found) == [Status.DOWNLOADED] + [Status.HIT] * 7
    assert {each.path.read_bytes() for each in found} == {wheel.data}
    assert server.count(url) == 1
    assert unfinished(caches[0]) == []
    for cache in caches:
        cache.close()


def test_different_wheels_do_not_wait_for_each_other(
    tmp_path: Path, server: Server, wheel: Wheel, other_wheel: Wheel
) -> None:
    """While the download of one wheel stalls, another wheel is fetched."""
    asked, go_on = threading.Event(), threading.Event()

    def slow(exchange: Exchange) -> None:
        asked.set()
        stalled(1000, go_on)(exchange)

    slow_url, quick_url = wheel.on(server, how=slow), other_wheel.on(server)
    with Cache(tmp_path / "cache") as cache, ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.fetch, slow_url, hashes=wheel.digest)
        assert asked.wait(30)
        assert cache.fetch(quick_url, hashes=other_wheel.digest).path.read_bytes() == other_wheel.data
        assert not first.done()
        go_on.set()
        assert first.result().path.read_bytes() == wheel.data


def test_a_failure_is_each_waiters_own(tmp_path: Path, server: Server, wheel: Wheel) -> None:
    """If the downloading thread fails, the next one tries, and each thread gets its own error."""
    url = wheel.on(server, how=status(404))
    with Cache(tmp_path / "cache") as cache:
        start = threading.Barrier(4)

        def fetch(_: int) -> DownloadError:
            start.wait()
            with pytest.raises(DownloadError) as caught:
                cache.fetch(url, hashes=wheel.digest)
            return caught.value

        with ThreadPoolExecutor(4) as pool:
            assert len({id(error) for error in pool.map(fetch, range(4))}) == 4
        assert server.count(url) == 4
        assert unfinished(cache) == []
        wheel.on(server)
        assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


# Other processes


def test_a_waiter_reports_the_owner(cache: Cache, owner: Owner, server: Server, wheel: Wheel) -> None:
    """A waiter reports the number of the process that it waits for, once that has a partial file."""

    def at(wait: int) -> None:
        if wait == 2:
            owner.writes(b"begun")
        if wait == 5:
            owner.ends()

    listener = Listener(at)
    found = cache.fetch(wheel.on(server), hashes=wheel.digest, progress=listener)
    assert found.path.read_bytes() == wheel.data
    assert listener.waits[:2] == ["for another fetch of this wheel"] * 2
    assert set(listener.waits[2:]) == {f"for process {OTHER_PID}"}
    assert listener.events[-1].phase is Phase.DONE


def test_an_owner_without_progress(cache: Cache, machine: Machine, owner: Owner, server: Server, wheel: Wheel) -> None:
    """After lock_timeout seconds without progress, a waiter continues without the lock and keeps the owner's files."""
    owner.writes(b"begun, and then no more")
    found = cache.fetch(wheel.on(server), hashes=wheel.digest)
    assert found.status is Status.DOWNLOADED
    assert found.path.read_bytes() == wheel.data
    assert sum(machine.clock.slept) == pytest.approx(LOCK_TIMEOUT, abs=0.1)
    assert owner.partial.exists()
    check_sound(machine, cache.path, {wheel.filename: wheel.data})


def test_an_owner_with_progress(cache: Cache, machine: Machine, owner: Owner, server: Server, wheel: Wheel) -> None:
    """A waiter waits for as long as the owner's file grows."""

    def at(wait: int) -> None:
        if wait % 150 == 0:
            owner.writes(b"some more")
        if wait == 600:
            owner.ends()

    url = wheel.on(server)
    cache.fetch(url, hashes=wheel.digest, progress=Listener(at))
    assert sum(machine.clock.slept) == pytest.approx(30.0, abs=0.1)
    assert server.count(url) == 1


def test_an_owner_whose_progress_ends(
    cache: Cache, machine: Machine, owner: Owner, server: Server, wheel: Wheel
) -> None:
    """The timeout counts from the owner's last progress."""
    listener = Listener(lambda wait: owner.writes(b"more") if wait == 100 else None)
    assert cache.fetch(wheel.on(server), hashes=wheel.digest, progress=listener).status is Status.DOWNLOADED
    assert sum(machine.clock.slept) == pytest.approx(5.0 + LOCK_TIMEOUT, abs=0.1)


def test_a_wheel_that_comes_while_it_is_waited_for(
    cache: Cache, machine: Machine, owner: Owner, server: Server, wheel: Wheel
) -> None:
    """A waiter uses the wheel as soon as it exists, even if the lock is still held."""

    def at(wait: int) -> None:
        if wait == 3:
            with machine.cache(cache.path) as other:
                source = cache.path.parent / wheel.filename
                source.write_bytes(wheel.data)
                other.put(source)

    url = wheel.on(server)
    found = cache.fetch(url, hashes=wheel.digest, progress=Listener(at))
    assert found.status is Status.HIT
    assert found.path.read_bytes() == wheel.data
    assert server.count(url) == 0
    assert sum(machine.clock.slept) < 1.0


def test_a_waiter_that_is_stopped(cache: Cache, owner: Owner, server: Server, wheel: Wheel) -> None:
    """An exception of the listener ends the wait, and leaves nothing that blocks the next fetch."""

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    url = wheel.on(server)
    with pytest.raises(KeyboardInterrupt):
        cache.fetch(url, hashes=wheel.digest, progress=Listener(stop))
    assert server.count(url) == 0
    owner.ends()
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert unfinished(cache) == []


def test_a_lock_that_its_owner_left_behind(cache: Cache, machine: Machine, server: Server, wheel: Wheel) -> None:
    """The lock file of a killed process is not a lock: no fetch waits for it."""
    lock = Path(Layout(str(cache.path)).lock(wheel.digest))
    lock.parent.mkdir()
    lock.touch()
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert machine.clock.slept == []
    assert unfinished(cache) == []


# Locks that cannot be acquired


@pytest.mark.parametrize("code", ["EACCES", "EPERM", "EROFS", "ENOSPC", "EMFILE", "EIO", "ENOSYS", 50, 87, 1])
def test_no_lock_can_be_made(
    cache: Cache, files: FaultyFiles, machine: Machine, server: Server, wheel: Wheel, code: Code
) -> None:
    """If lock files cannot be opened, the wheel is fetched without a lock or a wait."""
    files.plan = Refusing(Refuse("open_write mkdir", code, "*locks*"))
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert machine.clock.slept == []


@pytest.mark.parametrize("code", [5, 32])
def test_a_lock_that_is_refused_for_ever(
    cache: Cache, files: FaultyFiles, machine: Machine, server: Server, wheel: Wheel, code: Code
) -> None:
    """A lock that is refused for longer than a deletion takes is skipped, and the wheel is fetched without it."""
    files.plan = Refusing(Refuse("open_write", code, "*locks*"))
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert sum(machine.clock.slept) <= 2.0


@pytest.mark.parametrize("code", [5, 32])
def test_a_lock_that_is_refused_for_a_moment(
    cache: Cache, files: FaultyFiles, machine: Machine, server: Server, wheel: Wheel, code: Code
) -> None:
    """A lock that is refused for a moment is tried again, and acquired."""
    files.plan = Refusing(Refuse("open_write", code, "*locks*", times=3))
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert len(machine.clock.slept) == 3
    assert files.count("unlink", "*.lock") == 1


def test_a_file_where_the_locks_should_be(cache: Cache, machine: Machine, server: Server, wheel: Wheel) -> None:
    """A file with the name of the folder of locks prevents no fetch."""
    (cache.path / "v1" / "locks").write_bytes(b"in the way")
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert machine.clock.slept == []


def test_a_lock_that_cannot_be_deleted(
    cache: Cache, files: FaultyFiles, machine: Machine, server: Server, wheel: Wheel, other_wheel: Wheel
) -> None:
    """A lock file that cannot be deleted remains as an empty file, and can be acquired again."""
    files.plan = Refusing(Refuse("unlink", 32, "*locks*"))
    cache.fetch(wheel.on(server), hashes=wheel.digest)
    (lock,) = (cache.path / "v1" / "locks").iterdir()
    assert lock.stat().st_size == 0
    cache.path.joinpath("v1", "wheels").rename(cache.path.parent / "away")
    files.plan = Plan()
    with machine.cache(cache.path) as fresh:
        assert fresh.fetch(wheel.on(server), hashes=wheel.digest).status is Status.DOWNLOADED
    assert not lock.exists()
    assert machine.clock.slept == []


def test_a_hit_takes_no_lock(cache: Cache, files: FaultyFiles, server: Server, wheel: Wheel) -> None:
    """A hit needs no lock, even while another process holds it."""
    url = wheel.on(server)
    cache.fetch(url, hashes=wheel.digest)
    owner = Owner(cache, wheel)
    files.trace.clear()
    assert cache.fetch(url, hashes=wheel.digest).status is Status.HIT
    assert files.count("*", "*locks*") == 0
    owner.ends()


def test_a_turn_during_which_the_process_forks_ends_in_the_child_too(cache: Cache) -> None:
    """A listener may fork. If the child then makes another call, ending the turn that it inherited is no error."""
    layout = Layout(str(cache.path))
    flight = SingleFlight(layout, LOCK_TIMEOUT)
    with flight.turn(RobustIO(Operation(System())), "key", lambda: False):
        flight.after_fork()
    assert not Path(layout.lock("key")).exists()
