"""Errors of the file system: the method tried next, the refusals that are remembered, the error that is raised.

Windows error codes are injected at the file layer, so that the tests run on every system and cover codes that no
available machine raises. tests/windows/README.md lists the codes that the Windows lab raises by itself.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from faulty import Both, Code, Doing, FaultyFiles, FileCall, Plan, Refuse, Refusing, code_text, os_error
from machines import Machine
from marks import not_on_windows
from oracle import check_error
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, CachedWheel, Cause, CommitError, LinkMode, Status
from wheelcache._fs.robustio import RobustIO
from wheelcache._operation import Operation
from wheelcache._os.system import System
from wheelcache._os.volume import Volume

TRANSIENT = (5, 32, 33, 303, 1224, 55, 64, 121, 1231)
UNSUPPORTED = (1, 17, 50, 87, 120, 396)


@pytest.fixture
def files() -> FaultyFiles:
    """The file layer of ``machine``."""
    return FaultyFiles()


@pytest.fixture
def machine(files: FaultyFiles) -> Machine:
    """A machine whose clock never waits, and whose file operations follow a plan."""
    return Machine(files)


def put(cache: Cache, folder: Path, name: str = "demo") -> CachedWheel:
    source = folder / wheel_filename(name)
    source.write_bytes(make_wheel(name))
    return cache.put(source)


def rounds(files: FaultyFiles, operation: str, path: str) -> int:
    return files.count(operation, path)


# Adding wheels


@pytest.mark.parametrize("code", TRANSIENT)
def test_a_refused_rename_is_a_link_at_once(
    code: int, files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """If a holder prevents renaming the temporary file, it is linked to its name without a wait."""
    files.plan = Refusing(Refuse("rename unlink", code))
    assert put(cache, tmp_path).path.read_bytes() == make_wheel()
    assert machine.clock.slept == []


@pytest.mark.parametrize("code", TRANSIENT)
def test_a_refusal_that_passes_is_not_remembered(
    code: int, files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """A method that failed for one file because it was held is used again for the next file."""
    files.plan = Refusing(Refuse("rename link", code, times=2))
    put(cache, tmp_path, "one")
    before = len(files.trace)
    put(cache, tmp_path, "two")
    ways = [call.operation for call in files.trace[before:] if call.operation in {"rename", "link"}]
    assert ways == ["rename"]


@pytest.mark.parametrize("code", UNSUPPORTED)
def test_an_unsupported_method_is_remembered(
    code: int, files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """A method that the volume does not support is tried once: the second wheel skips it."""
    files.plan = Refusing(Refuse("rename link", code))
    for name in ("one", "two", "three"):
        assert put(cache, tmp_path, name).path.read_bytes() == make_wheel(name)
    assert (files.count("rename"), files.count("link")) == (1, 1)
    assert machine.clock.slept == []


@pytest.mark.parametrize(("code", "cause"), [(32, Cause.HELD), (5, Cause.HELD), (33, Cause.HELD), (303, Cause.HELD)])
def test_the_deadline_is_told(
    code: int, cause: Cause, files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """If every method is refused until the timeout, the error has all known facts and advice."""
    files.plan = Refusing(Refuse("rename link", code), Refuse("open_read", code, "*.tmp"))
    machine.holders = ("scan.exe (pid 7)", "this process")
    with pytest.raises(CommitError) as caught:
        put(cache, tmp_path)
    error = caught.value
    check_error(error, f"winerror {code}")
    assert error.cause is cause
    assert error.elapsed == pytest.approx(60, abs=0.5)
    assert "held by scan.exe (pid 7), this process" in str(error)
    assert error.advice


def test_the_holder_is_asked_for_during_the_wait(
    files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """During a wait, the holder of both paths is queried early and seldom, and not only at the end."""
    files.plan = Refusing(Refuse("rename link", 32), Refuse("open_read", 32, "*.tmp"))
    with pytest.raises(CommitError) as caught:
        put(cache, tmp_path)
    moments = [moment for moment, _ in machine.asked]
    assert 0 < moments[0] < 1
    assert 5 < len(moments) < 20
    assert machine.asked[0][1] == (caught.value.path, caught.value.target)


def test_a_short_wait_queries_no_holder(files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A file that is free again after two attempts causes no query, since a query takes longer than most waits."""
    files.plan = Refusing(Refuse("rename link", 32, times=4), Refuse("open_read", 32, "*.tmp", times=2))
    put(cache, tmp_path)
    assert machine.clock.slept != []
    assert machine.asked == []


def test_a_failed_query_for_the_holder_is_ignored(files: FaultyFiles, machine: Machine, tmp_path: Path) -> None:
    """If the holder cannot be determined, the error is the same without a name."""

    def fail(paths: object) -> tuple[str, ...]:
        raise OSError(5, "denied")

    machine.cache_class._system.__dict__["holders"] = fail
    files.plan = Refusing(Refuse("rename link", 32), Refuse("open_read", 32, "*.tmp"))
    with machine.cache(tmp_path / "cache", io_timeout=2.0) as cache, pytest.raises(CommitError) as caught:
        put(cache, tmp_path)
    assert caught.value.holders == ()
    assert caught.value.cause is Cause.HELD


class Leaving(Plan):
    """A deleted file that is still open somewhere: its name cannot be used until it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def before(self, call: FileCall) -> None:
        if self.path in {call.path, call.target}:
            raise os_error(303, call.path, call.target or None)


def test_a_name_that_stays_after_its_deletion_is_not_waited_for(
    files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """If a reader has a deleted wheel open, the new one is stored at once in a numbered place beside it."""
    path = put(cache, tmp_path).path
    cache.clear()
    files.plan = Leaving(path)
    added = put(cache, tmp_path)
    assert machine.clock.slept == []
    assert added.path == path.parent / "1" / path.name
    assert added.path.read_bytes() == make_wheel()
    for plan in (files.plan, Plan()):
        files.plan = plan
        with machine.cache(cache.path) as second:
            found = second.get(added.digest)
            assert found is not None
            assert found.path == added.path


# Permanent errors


def test_a_folder_that_denies_writing_is_told_at_once(
    files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """If no file can be created in the folder, "access denied" is a permission error without a wait."""
    put(cache, tmp_path, "other")
    files.plan = Refusing(Refuse("create rename link mkdir open_write", 5, "*wheels*"))
    started = time.monotonic()
    with pytest.raises(CommitError) as caught:
        put(cache, tmp_path)
    assert caught.value.cause is Cause.DENIED
    assert caught.value.winerror == 5
    assert machine.clock.slept == []
    assert machine.asked == []
    assert time.monotonic() - started < 1


def test_a_folder_that_takes_no_new_folders_is_told_at_once(
    files: FaultyFiles, machine: Machine, tmp_path: Path
) -> None:
    """A cache folder that cannot be created is an error when the cache is opened, without a wait."""
    files.plan = Refusing(Refuse("mkdir", 5))
    with pytest.raises(CommitError) as caught:
        machine.cache(tmp_path / "cache")
    assert caught.value.cause is Cause.DENIED
    assert machine.clock.slept == []


@pytest.mark.parametrize("code", ["EEXIST", 183, "ENOENT", 3])
@pytest.mark.parametrize("times", [2, 4])
def test_a_folder_that_is_pruned_while_it_is_made_is_made_again(
    times: int, code: str | int, files: FaultyFiles, machine: Machine, tmp_path: Path
) -> None:
    """If the folder or its parent is removed while it is being created, it is created again."""
    path = tmp_path / "above" / "folder"
    path.parent.mkdir()
    files.plan = Refusing(Refuse("mkdir", code, str(path), times=times))
    system = machine.cache_class._system
    RobustIO(Operation(system, io_timeout=30.0)).make_folder(str(path))
    assert path.is_dir()
    assert machine.clock.slept == []


@pytest.mark.parametrize("code", ["EEXIST", 183, "ENOENT", 3])
def test_a_folder_that_can_never_be_created_is_an_error(
    code: str | int, files: FaultyFiles, machine: Machine, tmp_path: Path
) -> None:
    """If a folder can neither be created nor found, the attempts end with an error."""
    path = tmp_path / "folder"
    refusal = Refuse("mkdir", code, str(path))
    files.plan = Refusing(refusal)
    system = machine.cache_class._system
    with pytest.raises(CommitError) as caught:
        RobustIO(Operation(system, io_timeout=30.0)).make_folder(str(path))
    assert code_text(code) in str(caught.value)
    assert refusal.count <= 10
    assert machine.clock.slept == []


def test_a_file_instead_of_a_folder_is_an_error_at_once(files: FaultyFiles, machine: Machine, tmp_path: Path) -> None:
    """A file with the name of the folder is an error at once, without another attempt."""
    path = tmp_path / "folder"
    path.write_bytes(b"")
    system = machine.cache_class._system
    with pytest.raises(CommitError) as caught:
        RobustIO(Operation(system, io_timeout=30.0)).make_folder(str(path))
    assert caught.value.cause is Cause.IN_THE_WAY
    assert files.count("mkdir") == 1


@not_on_windows("making a link takes a right that users do not have there")
def test_a_link_to_no_folder_is_told_at_once(files: FaultyFiles, machine: Machine, tmp_path: Path) -> None:
    """A dangling link with the name of the folder counts as a file, not as a folder that was pruned."""
    path = tmp_path / "folder"
    path.symlink_to(tmp_path / "missing")
    system = machine.cache_class._system
    with pytest.raises(CommitError) as caught:
        RobustIO(Operation(system, io_timeout=30.0)).make_folder(str(path))
    assert caught.value.cause is Cause.IN_THE_WAY
    assert files.count("mkdir") == 1


def test_access_denied_that_passes_is_waited_for(
    files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """If other files can be created in the folder, "access denied" means a holder, and is retried."""
    files.plan = Refusing(Refuse("rename link", 5), Refuse("open_read", 5, "*.tmp", times=3))
    assert put(cache, tmp_path).path.read_bytes() == make_wheel()
    assert len(machine.clock.slept) == 3


def test_a_folder_in_the_place_of_the_record_is_told_at_once(
    machine: Machine, cache: Cache, wheel: Wheel, tmp_path: Path
) -> None:
    """A folder with the name of the record is a permanent error, with the system's code."""
    there = put(cache, tmp_path)
    record = there.path.with_suffix(".json")
    record.unlink()
    record.mkdir()
    with machine.cache(cache.path) as second, pytest.raises(CommitError) as caught:
        put(second, tmp_path)
    assert caught.value.cause is Cause.IN_THE_WAY
    assert machine.clock.slept == []


@pytest.mark.parametrize(
    ("code", "cause"),
    [(112, Cause.FULL), (39, Cause.FULL), (206, Cause.TOO_LONG), (225, Cause.REMOVED), (19, Cause.DENIED)],
)
def test_other_codes_have_their_class(
    code: int, cause: Cause, files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """A full disk, too long a path, security software and write protection are classified at once."""
    files.plan = Refusing(Refuse("create", code, "*.tmp"))
    with pytest.raises(CommitError) as caught:
        put(cache, tmp_path)
    check_error(caught.value, f"winerror {code}")
    assert caught.value.cause is cause
    assert machine.clock.slept == []


# The causes of "not supported"


@pytest.mark.parametrize(
    ("code", "volume", "cause"),
    [
        (50, Volume(), Cause.UNSUPPORTED),
        (17, Volume(file_system="NTFS"), Cause.UNSUPPORTED),
        (50, Volume(mapped=True), Cause.MAPPED),
        (1, Volume(remote=True), Cause.MAPPED),
        (50, Volume(cloud="OneDrive"), Cause.CLOUD),
        (396, Volume(), Cause.CLOUD),
        (362, Volume(), Cause.CLOUD),
    ],
)
def test_a_volume_that_lacks_a_mode_is_told_by_what_it_is(
    code: int, volume: Volume, cause: Cause, files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """If a link is not supported, the error says whether a container, a cloud folder or the volume is the cause."""
    machine.volume = volume
    added = put(cache, tmp_path)
    files.plan = Refusing(Refuse("link", code))
    with pytest.raises(CommitError) as caught:
        cache.link(added, tmp_path / "out.whl", mode="hardlink")
    assert caught.value.cause is cause
    assert caught.value.advice
    assert machine.clock.slept == []


def test_denied_until_the_end_on_a_mapped_volume_is_its_doing(
    files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """In a mapped folder of a container, "access denied" until the timeout is not attributed to a scanner."""
    machine.volume = Volume(mapped=True)
    files.plan = Refusing(Refuse("rename link", 5), Refuse("open_read", 5, "*.tmp"))
    with pytest.raises(CommitError) as caught:
        put(cache, tmp_path)
    assert caught.value.cause is Cause.MAPPED


# Reading


@pytest.mark.parametrize("code", [32, 33, 5, 64])
@pytest.mark.parametrize("operation", ["open_read", "file.read"])
def test_a_read_that_is_refused_for_a_while(
    operation: str, code: int, files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """If a wheel that must be hashed again cannot be read, the read is retried."""
    added = put(cache, tmp_path)
    machine.reboot()
    with machine.cache(cache.path) as second:
        files.plan = Refusing(Refuse(operation, code, "*.whl", times=3))
        assert second.get(added.digest) is not None
    assert len(machine.clock.slept) == 3


@pytest.mark.parametrize("code", [32, 33])
@pytest.mark.parametrize("operation", ["open_read", "file.read"])
def test_a_read_that_stays_refused_names_the_holder(
    operation: str, code: int, files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """A wheel that remains unreadable is an error with the holder after the timeout, and is not lost."""
    added = put(cache, tmp_path)
    machine.reboot()
    machine.holders = ("backup.exe (pid 12)",)
    with machine.cache(cache.path, io_timeout=7.0) as second:
        files.plan = Refusing(Refuse(operation, code, "*.whl"))
        with pytest.raises(CommitError) as caught:
            second.get(added.digest)
        check_error(caught.value, f"winerror {code}")
        assert caught.value.elapsed == pytest.approx(7, abs=0.5)
        assert caught.value.holders == machine.holders
        files.plan = Refusing()
        assert second.get(added.digest) is not None


@pytest.mark.parametrize("operation", ["open_read", "read_small*"])
@pytest.mark.parametrize(
    ("code", "holders", "cause"),
    [(5, (), Cause.DENIED), (5, ("av.exe (pid 7)",), Cause.HELD), (32, (), Cause.HELD), (303, (), Cause.HELD)],
)
def test_a_read_that_stays_denied_is_a_permission(
    operation: str,
    code: int,
    holders: tuple[str, ...],
    cause: Cause,
    files: FaultyFiles,
    machine: Machine,
    cache: Cache,
    tmp_path: Path,
) -> None:
    """If no holder is known, "access denied" is a permission error: holders cause another code."""
    wheel = put(cache, tmp_path)
    machine.reboot()
    machine.holders = holders
    files.plan = Refusing(Refuse(operation, code, "*wheels*"))
    with machine.cache(cache.path, io_timeout=1.0) as second, pytest.raises(CommitError) as caught:
        second.get(wheel.digest, filename=wheel.filename)
    assert caught.value.cause is cause
    assert ("permission" in caught.value.advice) is (cause is Cause.DENIED)


@pytest.mark.parametrize("code", [4, "EMFILE", "ENFILE"])
def test_too_many_open_files_are_not_a_miss(
    code: Code, files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """If no file can be opened, the wheel may be in the cache, so the error is raised with its advice."""
    added = put(cache, tmp_path)
    files.plan = Refusing(Refuse("read_small*", code))
    with machine.cache(cache.path) as second, pytest.raises(CommitError, match="limit of open files"):
        second.get(added.digest)


# Linking wheels out


@pytest.mark.parametrize("code", [1, 50, 396])
def test_a_volume_without_links_is_remembered(code: int, files: FaultyFiles, cache: Cache, tmp_path: Path) -> None:
    """If links are not supported, wheels are copied, and links are tried again only on another volume."""
    one, two = put(cache, tmp_path, "alpha"), put(cache, tmp_path, "beta")
    before = files.count("link")
    files.volumes["elsewhere"] = 0
    files.plan = Refusing(Refuse("link clone", code, "*out*"))
    for wheel in (one, two):
        assert cache.link(wheel, tmp_path / "out" / wheel.filename) is LinkMode.COPY
    assert files.count("link") == before + 1
    files.plan = Refusing(Refuse("clone", 50))
    assert cache.link(one, tmp_path / "elsewhere" / one.filename) is LinkMode.HARDLINK


def test_a_wheel_with_too_many_links_is_copied_and_the_next_is_linked(
    files: FaultyFiles, machine: Machine, cache: Cache, tmp_path: Path
) -> None:
    """Error 1142 concerns one blob: it is copied, and other wheels are linked as before."""
    one, two = put(cache, tmp_path, "alpha"), put(cache, tmp_path, "beta")
    files.plan = Refusing(Refuse("clone", 50), Refuse("link", 1142, "*alpha*"))
    assert cache.link(one, tmp_path / "out" / one.filename) is LinkMode.COPY
    assert cache.link(two, tmp_path / "out" / two.filename) is LinkMode.HARDLINK
    assert machine.clock.slept == []


@pytest.mark.parametrize("code", [5, 32])
def test_a_link_that_is_refused_for_a_while_is_not_remembered(
    code: int, files: FaultyFiles, cache: Cache, tmp_path: Path
) -> None:
    """After a transient refusal of one link, the next wheel is linked."""
    one, two = put(cache, tmp_path, "alpha"), put(cache, tmp_path, "beta")
    files.plan = Refusing(Refuse("clone", 50), Refuse("link", code, "*alpha*"))
    assert cache.link(one, tmp_path / "out" / one.filename) is LinkMode.COPY
    assert cache.link(two, tmp_path / "out" / two.filename) is LinkMode.HARDLINK


# Security software


def vanish(call: object) -> None:
    Path(call.path).unlink()  # type: ignore[attr-defined]


def test_a_temporary_file_that_vanishes_once_is_downloaded_again(
    files: FaultyFiles, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """If the temporary file disappears once before the commit, the wheel is downloaded once more."""
    url = wheel.on(server)
    files.plan = Doing("rename", vanish)
    assert cache.fetch(url, hashes=wheel.digest).status is Status.DOWNLOADED
    assert server.count(url) == 2


def test_a_temporary_file_that_vanishes_twice_was_removed(
    files: FaultyFiles, server: Server, machine: Machine, cache: Cache, wheel: Wheel
) -> None:
    """If it disappears twice, the error says that security software removed it, with advice."""
    url = wheel.on(server)
    files.plan = Both(Doing("rename", vanish), Doing("link", vanish), Doing("rename", vanish))
    files.plan = _Always("rename", vanish)
    with pytest.raises(CommitError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    check_error(caught.value)
    assert caught.value.cause is Cause.REMOVED
    assert "security software" in str(caught.value)
    assert server.count(url) == 2
    assert machine.clock.slept == []


@pytest.mark.parametrize("operation", ["rename", "link", "open_read"])
@pytest.mark.parametrize("code", [225, 226])
def test_a_temporary_file_that_is_blocked_was_removed(
    code: int, operation: str, files: FaultyFiles, server: Server, machine: Machine, cache: Cache, wheel: Wheel
) -> None:
    """Error 225 is reported with its cause by every method, after one more download."""
    url = wheel.on(server)
    steps = ["rename", "link", "open_read"]
    earlier = steps[: steps.index(operation)]
    files.plan = Refusing(Refuse(operation, code, "*.part"), *[Refuse(step, 50, "*.part") for step in earlier])
    with pytest.raises(CommitError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    assert caught.value.cause is Cause.REMOVED
    assert caught.value.winerror == code
    assert server.count(url) == 2
    assert machine.clock.slept == []


class _Always(Doing):
    """Do something before every call of an operation."""

    def before(self, call: object) -> None:
        self.done = False
        super().before(call)  # type: ignore[arg-type]


def test_a_held_record_is_renewed_although_its_spare_is_held_too(tmp_path: Path) -> None:
    """A record that is held for a while is replaced, although its temporary file is held forever."""
    held = Refuse("replace open_write", 32, "*.json", times=8)
    files = FaultyFiles(Refusing(held, Refuse("unlink", 32, "*.tmp")))
    system = dataclasses.replace(System(), files=files)
    path, spare = str(tmp_path / "record.json"), str(tmp_path / "spare.tmp")
    Path(path).write_bytes(b"old")
    RobustIO(Operation(system, io_timeout=30.0)).write_small(path, b"new", spare)
    assert held.count == 8
    assert Path(path).read_bytes() == b"new"
