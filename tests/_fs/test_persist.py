"""Committing a file: each refusal's code decides which method is tried next, for how long, and which error results.

The refusals are injected at the file layer, since no system raises all of them on demand. The clock never waits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faulty import (
    Both,
    Code,
    Doing,
    FaultyFiles,
    FileCall,
    Plan,
    Refuse,
    Refusing,
    RenumberingFiles,
    code_text,
    os_error,
)
from machines import Machine
from oracle import check_error, check_sound, leftovers
from server import Server
from wheels import Wheel, wheel_filename

from wheelcache import Cache, CachedWheel, Cause, CommitError, LinkMode, Status, WheelCacheError
from wheelcache._fs.tempnames import OwnerTag
from wheelcache._operation import CURRENT_TOKEN, CancelToken, Operation, OperationCancelledError
from wheelcache._os.volume import Volume

# Codes that are transient, that mean a missing feature of the volume, and that concern one file.
TRANSIENT: tuple[Code, ...] = (5, 32, 33, 303, 1224)
LACKING: tuple[Code, ...] = (1, 17, 50, 87, 396, "EXDEV", "ENOTSUP", "ENOSYS")
OF_ONE_FILE: tuple[Code, ...] = (1142, "EMLINK")

BLOB = "*wheels*.whl"
UNFINISHED = "*tmp*.tmp"


PATIENCE = 6.0
"""Seconds that calls may wait here. A tenth of the default, since each round takes long under Wine."""


@pytest.fixture
def cache(machine: Machine, tmp_path: Path) -> Iterator[Cache]:
    """An empty cache, on ``machine``."""
    with machine.cache(tmp_path / "cache", io_timeout=PATIENCE) as cache:
        yield cache


@pytest.fixture
def files() -> FaultyFiles:
    """The file layer of the machine, whose plan each test sets."""
    return FaultyFiles()


@pytest.fixture
def machine(files: FaultyFiles) -> Machine:
    """A machine whose clock never waits, and whose file operations are refused as planned."""
    return Machine(files)


def source_of(wheel: Wheel, folder: Path) -> Path:
    path = folder / wheel.filename
    path.write_bytes(wheel.data)
    return path


@pytest.fixture
def source(wheel: Wheel, tmp_path: Path) -> Path:
    """The wheel as a local file."""
    return source_of(wheel, tmp_path)


def refuse_all(code: Code, times: int | None = None) -> Refusing:
    """Refuse each of the three methods this many times."""
    return Refusing(
        Refuse("rename", code, BLOB, times), Refuse("link", code, BLOB, times), Refuse("open_read", code, times=times)
    )


def refused(cache: Cache, source: Path) -> CommitError:
    """Put a wheel, expect a refusal with a complete error, and return the error."""
    with pytest.raises(CommitError) as caught:
        cache.put(source)
    check_error(caught.value)
    return caught.value


def steps(files: FaultyFiles) -> list[str]:
    """Return the methods that were tried, in order."""
    named = {"rename": "rename", "link": "link", "create": "copy"}
    tried = [(call.operation, call.target or call.path) for call in files.trace]
    return [named[operation] for operation, path in tried if operation in named and path.endswith(".whl")]


# From method to method


def test_nothing_refused(cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel) -> None:
    """Without a refusal, one rename is enough."""
    assert cache.put(source).path.read_bytes() == wheel.data
    assert steps(files) == ["rename"]
    assert machine.clock.slept == []


@pytest.mark.parametrize("code", [*TRANSIENT, *LACKING, *OF_ONE_FILE, "EACCES", "EPERM", "EIO"])
def test_a_refused_rename_becomes_a_link_at_once(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, code: Code
) -> None:
    """If the temporary file cannot be renamed for any reason, it is linked to its name without a wait."""
    files.plan = Refusing(Refuse("rename", code))
    assert cache.put(source).path.read_bytes() == wheel.data
    assert steps(files) == ["rename", "link"]
    assert machine.clock.slept == []
    assert leftovers(cache.path) == []


@pytest.mark.parametrize("rename", [5, 32, 17, 50, 87, "EXDEV"])
@pytest.mark.parametrize("link", [*TRANSIENT, *LACKING, *OF_ONE_FILE, "EPERM"])
def test_refused_rename_and_link_become_a_copy_at_once(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, rename: Code, link: Code
) -> None:
    """If links are refused too, the bytes are copied without a wait."""
    files.plan = Refusing(Refuse("rename", rename), Refuse("link", link))
    assert cache.put(source).path.read_bytes() == wheel.data
    assert steps(files) == ["rename", "link", "copy"]
    assert machine.clock.slept == []
    assert leftovers(cache.path) == []


@pytest.mark.parametrize("code", [*TRANSIENT, *LACKING, *OF_ONE_FILE, "EPERM"])
def test_a_second_name_without_links(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, code: Code
) -> None:
    """If links are refused, a second name of the same bytes is a copy, and the first is kept."""
    first = cache.put(source)
    files.plan = Refusing(Refuse("link", code))
    name = wheel_filename("demo", "1.0.0")
    second = cache.fetch(f"https://example.org/{name}", hashes=wheel.digest)
    assert second.path.read_bytes() == first.path.read_bytes() == wheel.data
    assert second.path.name == name
    assert machine.clock.slept == []
    check_sound(machine, cache.path, {wheel.filename: wheel.data, name: wheel.data})


# Rounds and waits


@pytest.mark.parametrize("code", TRANSIENT)
@pytest.mark.parametrize("rounds", [1, 2, 5, 40])
def test_a_holder_that_lets_go(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, code: Code, rounds: int
) -> None:
    """If every method is refused, all are tried again after a wait, until the holder closes the file."""
    files.plan = refuse_all(code, rounds)
    assert cache.put(source).path.read_bytes() == wheel.data
    assert steps(files) == ["rename", "link"] * rounds + ["rename"]
    assert len(machine.clock.slept) == rounds
    assert all(0 <= seconds <= 0.1 for seconds in machine.clock.slept)


@pytest.mark.parametrize("code", TRANSIENT)
def test_a_holder_that_never_lets_go(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, code: Code
) -> None:
    """At the timeout, the error has the methods, the attempts, the seconds, and the possible holder."""
    files.plan = refuse_all(code)
    error = refused(cache, source)
    assert error.cause is Cause.HELD
    assert error.winerror == code
    assert error.steps == tuple((step, code_text(code)) for step in ("rename", "link", "copy"))
    assert error.attempts == files.count("rename", BLOB) > 50
    assert error.elapsed == pytest.approx(PATIENCE)
    assert sum(machine.clock.slept) == pytest.approx(PATIENCE)
    assert error.path is not None
    assert error.path.endswith(".tmp")
    assert error.target is not None
    assert error.target.endswith(wheel.filename)
    assert "scan" in error.advice
    assert "6.0 s" in str(error)
    files.plan = Plan()
    assert cache.put(source).path.read_bytes() == wheel.data


def test_a_minute_by_default(machine: Machine, files: FaultyFiles, source: Path, tmp_path: Path) -> None:
    """The default timeout is 60 seconds."""
    with machine.cache(tmp_path / "cache") as cache:
        files.plan = refuse_all(32)
        assert refused(cache, source).elapsed == pytest.approx(60.0)


def test_a_timeout_of_zero_tries_every_method_once(
    machine: Machine, files: FaultyFiles, source: Path, tmp_path: Path
) -> None:
    """With a timeout of 0, every method is tried exactly once."""
    with machine.cache(tmp_path / "cache", io_timeout=0) as cache:
        files.plan = refuse_all(32)
        error = refused(cache, source)
    assert (error.attempts, error.elapsed) == (1, 0.0)
    assert machine.clock.slept == []


def test_the_seconds_are_those_of_the_call(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, other_wheel: Wheel
) -> None:
    """The files of one call share its retry budget. The next call has a new one."""
    files.plan = Refusing(Refuse("mkdir", 32, times=50), *refuse_all(32).rules)
    error = refused(cache, source)
    assert sum(machine.clock.slept) == pytest.approx(PATIENCE)
    assert 0 < error.elapsed < PATIENCE - 1
    machine.clock.slept.clear()
    refused(cache, source_of(other_wheel, source.parent))
    assert sum(machine.clock.slept) == pytest.approx(PATIENCE)


class Hanging(Refusing):
    """Refuse as a rule says, after a number of seconds each time, as an unreachable server does."""

    def __init__(self, machine: Machine, seconds: float, *rules: Refuse) -> None:
        super().__init__(*rules)
        self.machine = machine
        self.seconds = seconds

    def before(self, call: FileCall) -> None:
        if any(rule.wants(call) for rule in self.rules):
            self.machine.clock.advance(self.seconds)
        super().before(call)


@pytest.mark.parametrize(("operation", "path", "code"), [("mkdir", "*wheels*", 64), ("rename link", BLOB, 121)])
def test_a_refusal_that_hangs_is_waited_for(
    machine: Machine, files: FaultyFiles, source: Path, tmp_path: Path, operation: str, path: str, code: Code
) -> None:
    """A call that hangs for 20 s before it is refused spends the budget of 60 s within a few attempts."""
    with machine.cache(tmp_path / "cache") as cache:
        rules = [Refuse(operation, code, path)]
        if operation != "mkdir":
            rules.append(Refuse("open_read", code, UNFINISHED))
        files.plan = Hanging(machine, 20.0, *rules)
        begun = machine.clock.monotonic()
        error = refused(cache, source)
    assert error.winerror == code
    # The time limit is checked after each round: at most one round of three methods follows it.
    assert 60 <= machine.clock.monotonic() - begun <= 60 + 3 * 20
    assert error.attempts <= 4


def test_the_first_refusal_counts_as_the_others_do(
    machine: Machine, files: FaultyFiles, source: Path, tmp_path: Path
) -> None:
    """If the first refusal takes longer than the timeout, there is no second attempt."""
    with machine.cache(tmp_path / "cache") as cache:
        files.plan = Hanging(machine, 70.0, Refuse("mkdir", 64, "*wheels*"))
        error = refused(cache, source)
    assert (error.attempts, error.elapsed) == (1, 70.0)


def test_slow_answers_to_who_holds_it_are_part_of_the_wait(
    machine: Machine, files: FaultyFiles, source: Path, tmp_path: Path
) -> None:
    """Slow queries for the holder count towards the timeout."""

    def ask(paths: object) -> tuple[str, ...]:
        machine.clock.advance(5.0)
        return ("slow.exe (pid 7)",)

    machine.cache_class._system = replace(machine.cache_class._system, holders=ask)
    with machine.cache(tmp_path / "cache") as cache:
        files.plan = refuse_all(32)
        error = refused(cache, source)
    assert error.holders == ("slow.exe (pid 7)",)
    assert 60 <= error.elapsed <= 60 + 5


def test_threads_that_hang_together_spend_it_once(machine: Machine) -> None:
    """Two operations of one call that are refused at the same time spend the budget once."""
    op = Operation(machine.cache_class._system, io_timeout=60.0)
    both = threading.Barrier(2, timeout=60)
    tries = [0, 0]

    def hang(number: int) -> None:
        tries[number] += 1
        if tries[number] == 1:
            both.wait()
            if number == 0:
                machine.clock.advance(20.0)
            both.wait()
            raise os_error(64)

    threads = [
        threading.Thread(
            target=op.retry_within_budget, args=(partial(hang, number),), kwargs={"is_transient": lambda _: True}
        )
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tries == [2, 2]
    assert op.budget.remaining == pytest.approx(40.0, abs=0.1)


# Permanent errors


def test_a_folder_that_denies_writing(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel
) -> None:
    """If no file can be created in the folder, "access denied" is reported as a permission without a wait."""
    files.plan = Refusing(Refuse("rename link create", 5, "*wheels*"))
    error = refused(cache, source)
    assert error.cause is Cause.DENIED
    assert error.winerror == 5
    assert "permission" in error.advice
    assert error.attempts == 1
    assert machine.clock.slept == []
    files.plan = Plan()
    assert cache.put(source).path.read_bytes() == wheel.data


def test_a_folder_that_denies_writing_on_posix(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path
) -> None:
    """A local EACCES is a permission error as well."""
    files.plan = Refusing(Refuse("rename link create", "EACCES", "*wheels*"))
    error = refused(cache, source)
    assert error.cause is Cause.DENIED
    assert machine.clock.slept == []


def test_a_folder_in_the_way(cache: Cache, machine: Machine, source: Path, wheel: Wheel) -> None:
    """A folder with the name of the wheel is kept, and the wheel is stored in a numbered place without a wait."""
    path = cache.put(source).path
    path.unlink()
    path.with_suffix(".json").unlink()
    path.mkdir()
    found = cache.put(source)
    assert (found.path, found.path.read_bytes()) == (path.parent / "1" / path.name, wheel.data)
    assert machine.clock.slept == []
    assert path.is_dir()
    assert cache.get(wheel.digest) is not None


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", 112, 39])
def test_a_full_volume_while_copying(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, code: Code
) -> None:
    """A full volume ends the copy at once, even if a holder was the reason for it, and the partial copy is deleted."""
    half = Doing("file.write", lambda call: call.half(), path=BLOB)
    files.plan = Both(
        half, Refusing(Refuse("rename", 32, BLOB), Refuse("link", 50, BLOB), Refuse("file.write", code, BLOB))
    )
    error = refused(cache, source)
    assert half.done
    assert error.cause is Cause.FULL
    assert error.steps == (("rename", "winerror 32"), ("link", "winerror 50"), ("copy", code_text(code)))
    assert "Free space" in error.advice
    assert machine.clock.slept == []
    assert list(cache.path.rglob("*.whl")) == []
    assert leftovers(cache.path) == []
    files.plan = Plan()
    assert cache.put(source).path.read_bytes() == wheel.data


@pytest.mark.parametrize("code", ["EIO", "EMFILE", "EROFS", 23])
def test_an_error_that_is_no_refusal(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, code: Code
) -> None:
    """An error that is neither transient nor about a missing feature ends the commit at once."""
    files.plan = refuse_all(code)
    error = refused(cache, source)
    assert error.cause in {Cause.BROKEN, Cause.DENIED}
    assert code_text(code) in str(error)
    assert machine.clock.slept == []


# Remembered refusals


@pytest.mark.parametrize("code", LACKING)
def test_an_unsupported_method_is_not_tried_for_the_second_wheel(
    cache: Cache, files: FaultyFiles, source: Path, other_wheel: Wheel, code: Code
) -> None:
    """A method that the volume does not support is not tried for the second wheel."""
    files.plan = Refusing(Refuse("rename link", code, BLOB))
    cache.put(source)
    files.trace.clear()
    assert cache.put(source_of(other_wheel, source.parent)).path.read_bytes() == other_wheel.data
    assert steps(files) == ["copy"]


@pytest.mark.parametrize("code", [*TRANSIENT, *OF_ONE_FILE, "EPERM", "EIO"])
def test_a_refusal_of_one_file_is_not_remembered(
    cache: Cache, files: FaultyFiles, source: Path, other_wheel: Wheel, code: Code
) -> None:
    """A holder, or the maximum number of links, does not affect the next wheel."""
    files.plan = Refusing(Refuse("rename link", code, BLOB))
    cache.put(source)
    files.trace.clear()
    files.plan = Plan()
    assert cache.put(source_of(other_wheel, source.parent)).path.read_bytes() == other_wheel.data
    assert steps(files) == ["rename"]


# The temporary file


@pytest.mark.parametrize("code", [2, 225, 226])
def test_security_software_takes_the_file_once(
    cache: Cache, files: FaultyFiles, machine: Machine, server: Server, wheel: Wheel, code: Code
) -> None:
    """If the temporary file is blocked or missing before the commit, it is downloaded once more."""
    gone = Doing("rename", lambda call: os.unlink(call.path), path="*partial*")
    files.plan = Both(gone, Refusing(Refuse("rename", code, BLOB, times=1)))
    url = wheel.on(server)
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert server.count(url) == 2
    assert machine.clock.slept == []
    assert leftovers(cache.path) == []


@pytest.mark.parametrize("code", [2, 225, 226])
def test_security_software_takes_the_file_every_time(
    cache: Cache, files: FaultyFiles, machine: Machine, server: Server, wheel: Wheel, code: Code
) -> None:
    """The second time, the error says that the file was removed, and there is no further download."""

    class Gone(Plan):
        def before(self, call: object) -> None:
            if call.operation in {"rename", "link"}:
                Path(call.path).unlink(missing_ok=True)
                raise os_error(code, call.path, call.target)

    files.plan = Gone()
    url = wheel.on(server)
    with pytest.raises(CommitError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    check_error(caught.value, code_text(code))
    assert caught.value.cause is Cause.REMOVED
    assert "security software" in str(caught.value)
    assert server.count(url) == 2
    assert machine.clock.slept == []
    files.plan = Plan()
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


def test_security_software_takes_the_blob(cache: Cache, files: FaultyFiles, server: Server, wheel: Wheel) -> None:
    """A wheel that disappears right after its commit is downloaded once more, too."""
    files.plan = Doing("rename", lambda call: os.unlink(call.target), path=BLOB, after=True)
    url = wheel.on(server)
    assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
    assert server.count(url) == 2


# Beside a process that prunes or clears


@pytest.fixture
def other(cache: Cache) -> Iterator[Cache]:
    """The same cache, as another process opens it."""
    with Cache(cache.path) as other:
        yield other


def test_a_wheel_that_is_cleared_before_its_record_is_put_again(
    cache: Cache, other: Cache, files: FaultyFiles, source: Path, wheel: Wheel
) -> None:
    """If the cache is cleared between a wheel's blob and its record, the wheel is stored again."""
    clear = Doing("rename", lambda call: other.clear(), path=BLOB, after=True)
    files.plan = clear
    assert cache.put(source).path.read_bytes() == wheel.data
    assert clear.done
    assert leftovers(cache.path) == []


def test_a_wheel_that_is_there_and_pruned_before_its_record_is_put_again(
    cache: Cache, other: Cache, files: FaultyFiles, source: Path, wheel: Wheel
) -> None:
    """If an existing blob is pruned before its record is renewed, the new file takes its place."""
    cache.put(source)
    prune = Doing("open_read", lambda call: other.remove(wheel.digest), path=BLOB, after=True)
    files.plan = prune
    assert cache.put(source).path.read_bytes() == wheel.data
    assert prune.done
    assert leftovers(cache.path) == []


def test_a_second_name_of_a_wheel_that_is_pruned_meanwhile_is_a_miss(
    cache: Cache, other: Cache, files: FaultyFiles, server: Server, source: Path, wheel: Wheel
) -> None:
    """If the wheel is pruned during a hit under another name, fetch downloads it, and get reports a miss."""
    name = wheel_filename("other")
    url = wheel.on(server)
    for ask in (
        lambda: cache.get(wheel.digest, filename=name),
        lambda: cache.fetch(url, hashes=wheel.digest, filename=name),
    ):
        cache.put(source)
        prune = Doing("link", lambda call: other.remove(wheel.digest), path=f"*{name}")
        files.plan = prune
        found = ask()
        assert prune.done
        files.plan = Plan()
        cache.clear()
    assert found is not None
    assert server.count(url) == 1


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"?", lambda data: data[:-1], lambda data: data + b"?"])
@pytest.mark.parametrize("code", [32, 17])
def test_a_temporary_file_that_was_altered(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, code: Code, change: object
) -> None:
    """A copy detects altered bytes, which never get the wheel's name."""
    alter = Doing("open_read", lambda call: Path(call.path).write_bytes(change(wheel.data)), path=UNFINISHED)
    files.plan = Both(Refusing(Refuse("rename link", code, BLOB, times=2)), alter)
    error = refused(cache, source)
    assert alter.done
    assert "changed" in str(error)
    assert machine.clock.slept == []
    assert list(cache.path.rglob("*.whl")) == []
    files.plan = Plan()
    assert cache.put(source).path.read_bytes() == wheel.data


@pytest.mark.parametrize("code", [5, 32, "EACCES", "EIO", "EBUSY"])
def test_a_temporary_file_that_cannot_be_deleted(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, code: Code
) -> None:
    """A temporary file that cannot be deleted is kept without a wait, with owner and age in its name."""
    files.plan = Refusing(Refuse("rename unlink", code))
    assert cache.put(source).path.read_bytes() == wheel.data
    (left,) = leftovers(cache.path)
    stamp = OwnerTag.of(left)
    assert (stamp.time, stamp.pid) == (int(machine.clock.now()), os.getpid())
    assert machine.clock.slept == []


def test_a_rejected_file_that_cannot_be_deleted(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, other_wheel: Wheel
) -> None:
    """A failed cleanup does not hide the original error."""
    files.plan = Refusing(Refuse("unlink", 32))
    with pytest.raises(WheelCacheError, match="hash"):
        cache.put(source, hashes=other_wheel.digest)
    assert len(leftovers(cache.path)) == 1
    assert machine.clock.slept == []


# An existing file with the wheel's name


def arrive(wheel: Wheel, data: bytes) -> Doing:
    """Create a file with the wheel's name just before the commit."""
    return Doing("rename", lambda call: Path(call.target).write_bytes(data), path=f"*wheels*{wheel.filename}")


def test_losing_the_race_is_success(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel
) -> None:
    """If another process commits the same bytes first, they are kept, ours are deleted, and nothing waits."""
    files.plan = arrive(wheel, wheel.data)
    found = cache.put(source)
    assert found.path.read_bytes() == wheel.data
    assert steps(files) == ["rename"]
    assert machine.clock.slept == []
    assert leftovers(cache.path) == []
    check_sound(machine, cache.path, {wheel.filename: wheel.data})


@pytest.mark.parametrize("code", TRANSIENT)
def test_losing_the_race_to_a_file_that_is_held(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, code: Code
) -> None:
    """The same if the other file is held so that it can be read, but not moved or deleted."""
    path = place_of(cache, wheel)
    files.plan = Both(arrive(wheel, wheel.data), Holding(path, code, readable=True))
    assert cache.put(source).path == path
    assert machine.clock.slept == []


@pytest.mark.parametrize("wrong", [lambda data: b"", lambda data: data[:-1], lambda data: bytes(len(data))])
def test_wrong_bytes_are_put_aside(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, wrong: object
) -> None:
    """A file with other bytes is quarantined, and the good file takes its place at once."""
    files.plan = arrive(wheel, wrong(wheel.data))
    found = cache.put(source)
    assert found.path.read_bytes() == wheel.data
    assert found.path.parent.name == wheel.hex()[2:]
    (aside,) = (cache.path / "v1" / "quarantine").iterdir()
    assert aside.read_bytes() == wrong(wheel.data)
    assert OwnerTag.of(aside.name) is not None
    assert machine.clock.slept == []
    check_sound(machine, cache.path, {wheel.filename: wheel.data})


@pytest.mark.parametrize("file_system", ["FAT32", "exFAT", "vfat"])
def test_wrong_bytes_are_put_aside_on_fat(source: Path, wheel: Wheel, tmp_path: Path, file_system: str) -> None:
    """If a rename changes a file's number, the file is quarantined all the same."""
    machine = Machine(FaultyFiles(inner=RenumberingFiles()))
    machine.volume = Volume(file_system=file_system)
    with machine.cache(tmp_path / "cache", io_timeout=PATIENCE) as cache:
        (bad,) = taken(cache, wheel)
        assert cache.put(source).path == bad
        assert bad.read_bytes() == wheel.data
        (aside,) = (cache.path / "v1" / "quarantine").iterdir()
        assert aside.read_bytes() == bytes(wheel.size)
        check_sound(machine, cache.path, {wheel.filename: wheel.data})
        # And a hit that finds it damaged:
        bad.write_bytes(bytes(wheel.size))
        machine.reboot()
    with machine.cache(tmp_path / "cache", io_timeout=PATIENCE) as fresh:
        assert fresh.get(wheel.digest) is None
        assert not bad.exists()
        assert len(list((fresh.path / "v1" / "quarantine").iterdir())) == 2


def place_of(cache: Cache, wheel: Wheel, number: int = 0) -> Path:
    """Return the path of a wheel's blob, or that of a numbered place."""
    folder = cache.path / "v1" / "wheels" / wheel.hex()[:2] / wheel.hex()[2:]
    return folder / (str(number) if number else "") / wheel.filename


def taken(cache: Cache, wheel: Wheel, *, places: int = 1) -> list[Path]:
    """Write wrong bytes to the first places of a wheel, and return their paths."""
    paths = [place_of(cache, wheel, number) for number in range(places)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(wheel.size))
    return paths


@pytest.mark.parametrize("code", [5, 32])
@pytest.mark.parametrize("readable", [True, False])
def test_wrong_bytes_that_are_held(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel, code: Code, readable: bool
) -> None:
    """If the wrong file cannot be moved, deleted or read, the good one is stored in a numbered place."""
    (bad,) = taken(cache, wheel)
    files.plan = Holding(bad, code, readable=readable)
    found = cache.put(source)
    assert found.path == bad.parent / "1" / wheel.filename
    assert found.path.read_bytes() == wheel.data
    assert bad.read_bytes() == bytes(wheel.size)
    for opened in (cache, machine.cache(cache.path)):
        assert opened.get(wheel.digest) == found
        again = opened.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert (again.path, again.status) == (found.path, Status.HIT)
        target = source.parent / f"out of {id(opened)}.whl"
        opened.link(again, target)
        assert target.read_bytes() == wheel.data
    check_sound(machine, cache.path, {wheel.filename: wheel.data})


class Holding(Plan):
    """A process that holds one file: it cannot be renamed or deleted, or even read unless reading is shared."""

    def __init__(self, path: Path, code: Code, *, readable: bool) -> None:
        self.path = str(path)
        self.code = code
        self.refused = {"rename", "unlink", "replace"} | (set() if readable else {"open_read"})

    def before(self, call: object) -> None:
        if call.operation in self.refused and call.path == self.path:
            raise os_error(self.code, call.path, call.target or None)


def test_the_numbered_place_survives_a_boot(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel
) -> None:
    """After a reboot, the wheel in the numbered place is hashed and trusted again."""
    (bad,) = taken(cache, wheel)
    files.plan = Holding(bad, 32, readable=False)
    found = cache.put(source)
    machine.reboot()
    with machine.cache(cache.path) as fresh:
        assert fresh.get(wheel.digest) == found
        assert fresh.put(source).path == found.path


def test_every_place_is_taken(cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel) -> None:
    """If ten damaged files cannot be moved, the error names the folder."""
    bad = taken(cache, wheel, places=10)
    files.plan = Both(*(Holding(path, 32, readable=True) for path in bad))
    error = refused(cache, source)
    assert "all 10 locations" in str(error)
    assert leftovers(cache.path) == []
    assert machine.clock.slept == []


def test_a_file_that_was_repaired_meanwhile(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel
) -> None:
    """A damaged file that another process replaces before it is moved is kept."""
    (path,) = taken(cache, wheel)
    other = machine.cache(cache.path)

    def repair(_: FileCall) -> None:
        files.plan = Plan()
        assert other.put(source).path == path

    for operation, pattern in (("file.close", str(path)), ("rename", "*quarantine*")):
        path.write_bytes(bytes(wheel.size))
        files.trace.clear()
        files.plan = Doing(operation, repair, path=pattern)
        assert cache.put(source).path == path
        # Once by the process that repairs it. If that was noticed in time, the file is not moved at all.
        assert files.count("rename", "*quarantine*") == (1 if operation == "file.close" else 3)
        assert path.read_bytes() == wheel.data
        check_sound(machine, cache.path, {wheel.filename: wheel.data})


def test_a_wheel_that_was_repaired_while_it_was_looked_at(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel
) -> None:
    """The same if a hit finds the damage: the good file and its record are kept."""
    path = cache.put(source).path
    other = machine.cache(cache.path)

    def repair(_: FileCall) -> None:
        files.plan = Plan()
        assert other.put(source).path == path

    for operation, pattern in (("file.close", str(path)), ("rename", "*quarantine*")):
        path.write_bytes(bytes(wheel.size))
        os.utime(path, ns=(1, 1))
        files.plan = Doing(operation, repair, path=pattern)
        with machine.cache(cache.path) as fresh:
            fresh.get(wheel.digest)
        assert path.read_bytes() == wheel.data
        check_sound(machine, cache.path, {wheel.filename: wheel.data})


def test_a_failed_copy_takes_nothing_of_others_along(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel
) -> None:
    """If another process has replaced a partial copy with its own file, cleaning up keeps that file."""
    other = machine.cache(cache.path)

    def meanwhile(_: FileCall) -> None:
        files.plan = Refusing(Refuse("file.write", "ENOSPC", BLOB))
        assert other.put(source).path.read_bytes() == wheel.data
        files.plan = Plan()
        raise os_error("ENOSPC")

    files.plan = Both(Refusing(Refuse("rename link", 17, BLOB)), Doing("file.write", meanwhile, path=BLOB))
    with pytest.raises(CommitError):
        cache.put(source)
    check_sound(machine, cache.path, {wheel.filename: wheel.data})


def test_the_holder_is_told(cache: Cache, files: FaultyFiles, machine: Machine, source: Path) -> None:
    """Of several refusals, the error reports the holder, and not that the volume has no links."""
    files.plan = Refusing(Refuse("rename", 32), Refuse("link", 50), Refuse("open_read", 1224))
    error = refused(cache, source)
    assert error.winerror == 32
    assert error.cause is Cause.HELD
    assert error.steps == (("rename", "winerror 32"), ("copy", "winerror 1224"))


def test_a_torn_copy_of_another_process_is_taken_away(
    cache: Cache, files: FaultyFiles, machine: Machine, source: Path, wheel: Wheel
) -> None:
    """If one of two copies is quarantined as damaged while unfinished, both processes end with the right bytes."""
    other = machine.cache(cache.path)

    def meanwhile(_: object) -> None:
        files.plan = Refusing(Refuse("rename link", 17, BLOB))
        assert other.put(source).path.read_bytes() == wheel.data

    files.plan = Both(Doing("file.write", meanwhile, path=BLOB), Refusing(Refuse("rename link", 17, BLOB)))
    assert cache.put(source).path.read_bytes() == wheel.data
    check_sound(machine, cache.path, {wheel.filename: wheel.data})


# Linking wheels out


@pytest.fixture
def cached(cache: Cache, source: Path) -> CachedWheel:
    """The wheel in the cache."""
    return cache.put(source)


@pytest.mark.parametrize("clone", ["ENOTSUP", "EXDEV", 50, 1, 32])
@pytest.mark.parametrize("link", [None, *LACKING, *OF_ONE_FILE, "EPERM"])
def test_out_by_what_works(
    cache: Cache, files: FaultyFiles, machine: Machine, cached: CachedWheel, wheel: Wheel, clone: Code, link: Code
) -> None:
    """If a clone is refused, a link is tried at once, then a copy, and the mode that was used is returned."""
    files.plan = Refusing(Refuse("clone", clone), *([] if link is None else [Refuse("link", link)]))
    target = cache.path.parent / "out" / wheel.filename
    assert cache.link(cached, target) == (LinkMode.HARDLINK if link is None else LinkMode.COPY)
    assert target.read_bytes() == wheel.data
    assert os.listdir(target.parent) == [wheel.filename]
    assert machine.clock.slept == []


@pytest.mark.parametrize("code", LACKING)
def test_modes_that_a_target_does_not_support_are_remembered(
    cache: Cache, files: FaultyFiles, cached: CachedWheel, code: Code
) -> None:
    """The second wheel into a folder without clones and links is copied directly. Another volume is tried."""
    files.plan = Refusing(Refuse("clone link", code))
    files.volumes["elsewhere"] = 0
    out = cache.path.parent / "out"
    cache.link(cached, out / "first.whl")
    files.trace.clear()
    cache.link(cached, out / "second.whl")
    assert files.count("clone link", "*out*") == 0
    cache.link(cached, cache.path.parent / "elsewhere" / "third.whl")
    assert files.count("clone", "*elsewhere*") == 1


@pytest.mark.parametrize("code", OF_ONE_FILE)
def test_a_wheel_with_too_many_links_says_nothing_of_the_next(
    cache: Cache, files: FaultyFiles, cached: CachedWheel, source: Path, other_wheel: Wheel, code: Code
) -> None:
    """A blob with the maximum number of links is copied, and the next wheel is linked."""
    files.plan = Refusing(Refuse("clone", 50), Refuse("link", code, f"*{cached.filename}*"))
    out = cache.path.parent / "out"
    assert cache.link(cached, out / cached.filename) is LinkMode.COPY
    other = cache.put(source_of(other_wheel, source.parent))
    assert cache.link(other, out / other.filename) is LinkMode.HARDLINK


@pytest.mark.parametrize("mode", [LinkMode.CLONE, LinkMode.HARDLINK])
def test_a_named_mode_is_taken_or_fails(
    cache: Cache, files: FaultyFiles, machine: Machine, cached: CachedWheel, mode: LinkMode
) -> None:
    """A mode that the caller requests is never replaced by another one."""
    files.plan = Refusing(Refuse("clone link", 17))
    target = cache.path.parent / "out" / cached.filename
    with pytest.raises(CommitError) as caught:
        cache.link(cached, target, mode=mode)
    check_error(caught.value, "winerror 17")
    assert caught.value.cause is Cause.UNSUPPORTED
    assert caught.value.target == str(target)
    assert mode in str(caught.value)
    assert not target.exists()


def test_a_full_volume_outside(cache: Cache, files: FaultyFiles, cached: CachedWheel) -> None:
    """If the destination's volume is full, no file is left there."""
    files.plan = Refusing(Refuse("clone link", 17), Refuse("copy", "ENOSPC"))
    target = cache.path.parent / "out" / cached.filename
    with pytest.raises(CommitError) as caught:
        cache.link(cached, target)
    check_error(caught.value, "errno 28")
    assert caught.value.cause is Cause.FULL
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_a_wheel_that_changes_its_size_while_it_is_copied_out(
    cache: Cache, files: FaultyFiles, cached: CachedWheel, size: int
) -> None:
    """A copy whose source changes its size is an error, and creates no file."""
    alter = Doing("copy", lambda call: os.truncate(call.path, size))
    files.plan = Both(Refusing(Refuse("clone link", 17)), alter)
    target = cache.path.parent / "out" / cached.filename
    with pytest.raises(CommitError) as caught:
        cache.link(cached, target)
    check_error(caught.value)
    assert alter.done
    assert list(target.parent.iterdir()) == []


def test_a_wheel_that_is_pruned_while_it_is_linked_out(cache: Cache, files: FaultyFiles, cached: CachedWheel) -> None:
    """If the wheel is pruned meanwhile, the error says that it is no longer in the cache."""
    gone = Doing("open_read", lambda call: os.unlink(call.path), path=BLOB)
    files.plan = Both(Refusing(Refuse("clone link", 17)), gone)
    with pytest.raises(FileNotFoundError, match="no longer in the cache"):
        cache.link(cached, cache.path.parent / "out" / cached.filename)
    assert gone.done


# Cancelled between the blob and its record


def test_a_wheel_whose_record_was_not_written_is_adopted(
    machine: Machine, files: FaultyFiles, server: Server, wheel: Wheel, tmp_path: Path
) -> None:
    """After a cancellation between a blob and its record, the next fetch downloads nothing."""
    url = wheel.on(server)
    token = CancelToken()
    with machine.cache(tmp_path / "cache") as cache:
        cancel = Doing("rename", lambda _: token.cancel(), path=BLOB, after=True)
        files.plan = cancel
        current = CURRENT_TOKEN.set(token)
        try:
            with pytest.raises(OperationCancelledError):
                cache.fetch(url, hashes=wheel.digest)
        finally:
            CURRENT_TOKEN.reset(current)
        assert cancel.done
        assert [path.name for path in cache.path.glob("v1/wheels/*/*/*")] == [wheel.filename]
        assert leftovers(cache.path) == []
        assert cache.fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data
        check_sound(machine, cache.path, {wheel.filename: wheel.data})
    assert server.count(url) == 1
