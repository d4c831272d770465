"""Doctor: reports on good folders and on refusals, and leaves no files behind."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from faulty import Both, Doing, FaultyFiles, FileCall, Refuse, Refusing
from folders import listing
from machines import FakeClock, Machine
from marks import not_on_windows, with_scanner
from wheels import Wheel

from wheelcache import Cache, Check, DoctorReport
from wheelcache._http.adapters.library import load
from wheelcache._operation import CURRENT_TOKEN, CancelToken, OperationCancelledError
from wheelcache._os.volume import Environment, Volume, cloud_by_name
from wheelcache.cli import main

PROBES = {
    *(
        "system",
        "HTTP client",
        "boot identity",
        "volume",
        "network drive",
        "cloud folder",
        "container",
        "WSL",
        "free space",
        "other users",
        "links",
    ),
    *("write", "rename", "hard link", "clone", "copy", "replace", "delete", "delete while open", "folders"),
    *(
        "lock between processes",
        "long path",
        "case",
        "time stamps",
        "modes",
        "adding wheels",
        "linking wheels",
        "clean-up",
    ),
}


@pytest.fixture
def files() -> FaultyFiles:
    """The file layer of ``machine``."""
    return FaultyFiles()


@pytest.fixture
def machine(files: FaultyFiles, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with a fake clock and a plan for its file operations, on which no child process is started."""
    monkeypatch.setattr(sys, "executable", "")
    machine = Machine(files)
    machine.volume = Volume(file_system="NTFS", mount="C:\\", free=1 << 40, size=1 << 41)
    return machine


def named(report: DoctorReport) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


def wrong(report: DoctorReport) -> set[str]:
    # The fake clock is far from that of the volume, like the clock of a bad network drive.
    return {check.name for check in report.checks if not check.ok} - {"time stamps"}


def test_a_good_folder_is_well(tmp_path: Path) -> None:
    """On a local volume every check is good, has a duration, and needs no advice."""
    with Cache(tmp_path / "cache") as cache:
        report = cache.doctor()
    checks = named(report)
    assert set(checks) == PROBES
    assert {name for name, check in checks.items() if not check.ok} == set()
    assert report.ok
    assert report.advice == ()
    assert all(check.detail and check.seconds >= 0 for check in report.checks)
    assert "a lock excludes other processes" in checks["lock between processes"].detail
    assert str(cache.path) in checks["volume"].detail
    assert "rename" in checks["adding wheels"].detail
    assert pickle.loads(pickle.dumps(report)) == report


def test_it_says_whether_a_cache_is_shared(machine: Machine, tmp_path: Path) -> None:
    """A cache that others can write to is named with the folder they can write to. That is not a problem."""
    with machine.cache(tmp_path / "cache") as cache:
        assert "private" in named(cache.doctor())["other users"].detail
        machine.is_private = False
        check = named(cache.doctor())["other users"]
    assert check.ok
    assert f"others may write to {cache.path}," in check.detail


@not_on_windows("making links needs a right there that few have")
def test_it_names_links_in_place_of_folders(tmp_path: Path) -> None:
    """A folder of the cache that is a link is reported with its path and advice, and nothing behind it is touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with Cache(tmp_path / "cache") as cache:
        for area in ("urls", "tmp"):
            (cache.path / "v1" / area).symlink_to(outside)
        report = cache.doctor()
        check = named(report)["links"]
        assert not check.ok
        assert str(cache.path / "v1" / "urls") in check.detail
        assert str(cache.path / "v1" / "tmp") in check.detail
        assert "delete the link" in " ".join(report.advice)
    assert list(outside.iterdir()) == []


def test_nothing_of_it_stays(tmp_path: Path, wheel: Wheel) -> None:
    """Neither an empty cache nor one with wheels is changed."""
    with Cache(tmp_path / "cache") as cache:
        empty = set(listing(cache.path))
        cache.doctor()
        assert set(listing(cache.path)) == empty
        source = tmp_path / wheel.filename
        source.write_bytes(wheel.data)
        cache.put(source)
        full = set(listing(cache.path))
        cache.doctor()
        assert set(listing(cache.path)) == full
        assert cache.get(wheel.digest) is not None


def test_a_read_only_cache_is_not_written_to(tmp_path: Path) -> None:
    """With ``read_only`` nothing is written, and the report says so."""
    Cache(tmp_path / "cache").close()
    before = listing(tmp_path)
    with Cache(tmp_path / "cache", read_only=True) as cache:
        report = cache.doctor()
    assert listing(tmp_path) == before
    assert "read-only" in named(report)["writing"].detail
    assert report.ok


def test_a_closed_cache_is_a_value_error(tmp_path: Path) -> None:
    """A closed cache raises the same error as for every other operation."""
    cache = Cache(tmp_path / "cache")
    cache.close()
    with pytest.raises(ValueError, match="closed"):
        cache.doctor()


@pytest.mark.parametrize(
    ("operation", "code", "bad", "ways"),
    [
        ("rename", 17, set(), ("link", "hardlink")),
        ("rename link", 50, {"hard link"}, ("copy", "copy")),
        ("link", 396, {"hard link"}, ("rename", "copy")),
        ("clone", 50, set(), ("rename", "hardlink")),
        ("replace", 5, {"replace"}, ("rename", "hardlink")),
    ],
)
def test_an_unsupported_operation_is_reported_with_its_code(
    operation: str, code: int, bad: set[str], ways: tuple[str, str], files: FaultyFiles, cache: Cache
) -> None:
    """A refused operation is reported with its code, and with the methods that are used instead."""
    clone = Refuse("clone", 50)
    files.plan = Refusing(Refuse(operation, code), clone)
    report = cache.doctor()
    checks = named(report)
    assert wrong(report) == bad
    assert f"winerror {code}" in {check.code for check in report.checks}
    assert checks["adding wheels"].detail.endswith(ways[0])
    assert f" {ways[1]}," in checks["linking wheels"].detail
    assert bool(report.advice) or not bad


def test_a_scanner_that_lets_go_is_told(files: FaultyFiles, machine: Machine, cache: Cache) -> None:
    """If a new file can be renamed only after a while, the report has the code, the attempts and the duration."""
    files.plan = Refusing(Refuse("rename", 32, times=6), Refuse("clone", 50))
    report = cache.doctor()
    check = named(report)["rename"]
    assert not check.ok
    assert (check.code, "after 7 attempts" in check.detail) == ("winerror 32", True)
    assert check.seconds > 0
    assert any("scanning" in advice for advice in report.advice)


def test_a_scanner_that_never_lets_go_is_named(files: FaultyFiles, machine: Machine, cache: Cache) -> None:
    """If a new file cannot be renamed at all, the report names the holder after a short wait."""
    machine.holders = ("MsMpEng.exe (pid 4711)",)
    files.plan = Refusing(Refuse("rename replace unlink", 32), Refuse("clone", 50))
    report = cache.doctor()
    assert "MsMpEng.exe (pid 4711)" in named(report)["rename"].detail
    assert {"rename", "delete", "clean-up"} <= wrong(report)
    assert machine.clock.monotonic() < 10
    assert not report.ok


@pytest.mark.parametrize("operation", ["*", "create mkdir", "stat", "file.write", "unlink rmdir"])
@pytest.mark.parametrize("code", [5, 32, 112, 1, "EIO", "EACCES"])
def test_it_never_fails(operation: str, code: int | str, files: FaultyFiles, machine: Machine, cache: Cache) -> None:
    """Every refusal ends up in the report, soon."""
    files.plan = Refusing(Refuse(operation, code))
    report = cache.doctor()
    assert not report.ok
    assert machine.clock.monotonic() < 10
    assert not files.open_handles


@pytest.mark.parametrize(("offset", "good"), [(0.0, True), (-3600.0, False)])
def test_a_probe_that_takes_long_is_no_clock_that_is_off(
    offset: float, good: bool, files: FaultyFiles, machine: Machine, tmp_path: Path
) -> None:
    """Time stamps are compared with the clock at the time of writing, so that only a wrong clock is reported."""
    machine = Machine(files, FakeClock(time.time() + offset))
    files.plan = Doing("replace", lambda call: machine.clock.advance(15.0))
    with machine.cache(tmp_path / "cache") as cache:
        found = named(cache.doctor())["time stamps"]
    assert found.ok is good
    assert ("this machine's clock" in found.detail) is good
    assert ("off" in found.detail) is not good


def test_a_folder_that_is_held_is_taken_away_later(files: FaultyFiles, machine: Machine, cache: Cache) -> None:
    """The probe folder is deleted at the end, or swept once it is no longer held."""
    files.plan = Refusing(Refuse("rmdir", 32, "*.tmp"))
    before = set(listing(cache.path))
    report = cache.doctor()
    assert named(report)["clean-up"].code == "winerror 32"
    (left,) = set(listing(cache.path)) - before - {"v1/tmp"}
    files.plan = Refusing()
    machine.clock.advance(86_401)
    assert list(cache.prune(dry_run=True).swept) == []  # its owner, this process, lives
    machine.reboot()
    assert list(cache.prune(dry_run=True).swept) == list(cache.prune().swept) == [cache.path / left]
    assert left not in listing(cache.path)
    # Held until a later probe, and then deleted with the others.
    let_go = Doing("create", lambda call: setattr(files, "plan", Refusing()), path="*-case*")
    files.plan = Both(let_go, Refusing(Refuse("rmdir", 32, "*.tmp")))
    report = cache.doctor()
    assert let_go.done
    assert not named(report)["folders"].ok
    assert named(report)["clean-up"].ok
    assert set(listing(cache.path)) - {"v1/tmp"} == before - {"v1/tmp"}


PROGRAMS = ("python", "python3.13t", "pythonw.exe", "pypy3.11", "Python.exe", "blender", "Host.exe", "uwsgi")


@pytest.mark.parametrize("program", ["", None])
def test_a_program_that_is_no_python_is_not_started(
    program: str | None, machine: Machine, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a known interpreter, or in a frozen program, nothing is started, and the report says so."""

    def start(command: list[str], **_: object) -> None:
        raise AssertionError(command)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(sys, "executable", program)
    found = named(cache.doctor())["lock between processes"]
    assert found.ok
    assert "not tried: this program embeds Python" in found.detail


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_python_that_does_not_answer_is_told(
    program: str, machine: Machine, cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An interpreter of any name is started. One that cannot be started is reported, and is not a fault."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / program))
    found = named(cache.doctor())["lock between processes"]
    assert found.ok
    assert "FileNotFoundError" in found.detail


@pytest.mark.parametrize(
    ("volume", "around", "bad", "word"),
    [
        (Volume(remote=True), Environment(), "network drive", "layer"),
        (Volume(cloud="OneDrive (pinned)"), Environment(), "cloud folder", "cloud"),
        (Volume(mapped=True), Environment(wsl="WSL2"), "WSL", "home folder of WSL"),
        (Volume(free=1 << 20, size=1 << 40), Environment(), "free space", "Free space"),
    ],
)
def test_an_unsuitable_location_is_reported(
    volume: Volume, around: Environment, bad: str, word: str, machine: Machine, cache: Cache
) -> None:
    """A network drive, a cloud folder, a Windows drive under WSL and a full volume are reported with advice."""
    machine.volume, machine.environment = volume, around
    report = cache.doctor()
    assert wrong(report) == {bad}
    assert any(word in advice for advice in report.advice)


@pytest.mark.parametrize(
    ("volume", "around", "probe", "said"),
    [
        (Volume(), Environment(), "network drive", "no"),
        (Volume(), Environment(), "cloud folder", "no"),
        (Volume(), Environment(), "WSL", "no"),
        (Volume(), Environment(wsl="WSL1"), "WSL", "WSL1, and the folder is on a volume of WSL"),
        (Volume(), Environment(), "container", "no container detected"),
        (Volume(), Environment(container="Windows container"), "container", "Windows container"),
        (Volume(free=1), Environment(), "free space", "unknown"),
        (Volume(), Environment(), "volume", "unknown file system at unknown mount point"),
    ],
)
def test_an_unknown_location_is_no_fault(
    volume: Volume, around: Environment, probe: str, said: str, machine: Machine, cache: Cache
) -> None:
    """Good or unknown facts are reported in a few words, and are not faults."""
    machine.volume, machine.environment = volume, around
    report = cache.doctor()
    assert named(report)[probe].detail.endswith(said)
    assert wrong(report) == set()


def test_a_machine_without_a_boot_is_told(machine: Machine, cache: Cache) -> None:
    """A missing boot identity is reported, since every process then hashes again."""
    machine.boot = None
    assert wrong(cache.doctor()) == {"boot identity"}


@pytest.mark.parametrize(
    ("code", "good", "said"),
    [
        (20, True, "a lock excludes other processes"),
        (21, False, "two processes acquired the same lock at once"),
        (22, False, "the other process cannot acquire a lock"),
        (1, True, "not tried: the other process failed (exit code 1)"),
    ],
)
def test_the_result_of_the_lock_probe_is_reported(
    code: int, good: bool, said: str, machine: Machine, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that cannot take the lock is good, one that takes it is not, and a failing one says nothing."""
    monkeypatch.setattr(sys, "executable", "python")
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: FakeChild(code))
    report = cache.doctor()
    assert named(report)["lock between processes"].detail.startswith(said)
    assert wrong(report) == (set() if good else {"lock between processes"})
    assert any("Locks have no effect" in advice for advice in report.advice) is not good


class FakeChild:
    """A child process that ends with an exit code, or never ends by itself."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        self.is_killed = False
        self.while_waiting: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self.code is not None or self.is_killed

    def wait(self, timeout: float) -> int:
        self.while_waiting()
        if self.code is None:
            raise subprocess.TimeoutExpired("child", timeout)
        return self.code

    def kill(self) -> None:
        self.is_killed = True


@pytest.mark.parametrize("how", ["child", "rename", "clone", "interrupted"])
def test_a_cancelled_call_leaves_no_probe_behind(
    how: str, files: FaultyFiles, machine: Machine, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while another process runs, or at a file operation, it deletes its files and ends the process."""
    token = CancelToken()
    child = FakeChild(None)
    child.while_waiting = token.cancel
    monkeypatch.setattr(sys, "executable", "python")
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: child)

    def interrupt(call: FileCall) -> None:
        raise KeyboardInterrupt

    if how != "child":
        operation = "link" if how == "interrupted" else how
        files.plan = Doing(operation, interrupt if how == "interrupted" else lambda call: token.cancel())
    before = set(listing(cache.path))
    current = CURRENT_TOKEN.set(token)
    try:
        with pytest.raises(KeyboardInterrupt if how == "interrupted" else OperationCancelledError):
            cache.doctor()
    finally:
        CURRENT_TOKEN.reset(current)
    assert child.is_killed is (how == "child")
    assert set(listing(cache.path)) - {"v1/tmp"} == before - {"v1/tmp"}
    assert not files.open_handles


def test_a_container_is_told(machine: Machine, cache: Cache) -> None:
    """A container with a mapped folder is reported, and is not a fault."""
    machine.volume, machine.environment = Volume(mapped=True), Environment(container="Docker")
    report = cache.doctor()
    assert "Docker" in named(report)["container"].detail
    assert "mapped" in named(report)["container"].detail
    assert wrong(report) == set()


@pytest.mark.parametrize(
    ("path", "cloud"),
    [
        ("/home/user/OneDrive/cache", "OneDrive"),
        ("C:\\Users\\user\\OneDrive - Contoso\\cache", "OneDrive"),
        ("/Users/user/Library/Mobile Documents/cache", "iCloud Drive"),
        ("/Users/user/Library/CloudStorage/GoogleDrive-a@example.org/cache", "a cloud service"),
        ("/home/user/Dropbox (Personal)/cache", "Dropbox"),
        ("/home/user/onedriver/cache", ""),
        ("/home/user/my dropbox/cache", ""),
        ("/home/user/.cache/wheelcache", ""),
    ],
)
def test_folders_of_clouds_are_known_by_name(path: str, cloud: str) -> None:
    """The folders of cloud services are recognized by name. Similar names are not."""
    assert cloud_by_name(path) == cloud


def test_the_command_prints_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``wheelcache doctor`` prints every probe with its result, code and time, and exits with 0."""
    assert main(["doctor", "--cache-dir", str(tmp_path / "cache")]) == 0
    out = capsys.readouterr().out
    lines = {line.partition("  ")[0]: line for line in out.splitlines()}
    assert set(lines) >= PROBES
    assert all(" ok " in lines[name] for name in PROBES)
    assert str(tmp_path / "cache") in out
    assert out.splitlines()[-1] == "no problems found"


def test_the_command_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` prints the same report for programs."""
    assert main(["doctor", "--cache-dir", str(tmp_path / "cache"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["advice"] == []
    assert {check["name"] for check in report["checks"]} == PROBES
    assert set(report["checks"][0]) == {"name", "ok", "detail", "code", "seconds"}


def test_the_command_tells_a_problem_by_its_exit_code(
    files: FaultyFiles, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    """Faults are in the table, advice is below it, and the exit code is 1."""
    monkeypatch.setattr(Cache, "_system", machine.cache_class._system)
    files.plan = Refusing(Refuse("link", 396))
    assert main(["doctor", "--cache-dir", str(tmp_path / "cache")]) == 1
    out = capsys.readouterr().out
    assert any("hard link" in line and "BAD" in line and "winerror 396" in line for line in out.splitlines())
    assert "advice: " in out


@with_scanner
@pytest.mark.parametrize("share", ["r", "rw"])
def test_a_scanner_at_work_is_seen(share: str, tmp_path: Path) -> None:
    """With a scanner that holds each new file for a second, doctor ends, finds a method, and cleans up."""
    from scanner import watching

    root = tmp_path / "cache"
    root.mkdir()
    with watching(root, share=share, ms=1000), Cache(root) as cache:
        report = cache.doctor()
    # The result of each check depends on the timing of the scanner.
    assert named(report)["adding wheels"].ok
    assert [check for check in report.checks if not (check.ok or check.code == "winerror 32")] == []


def detail_of(report: DoctorReport, name: str) -> str:
    return next(check.detail for check in report.checks if check.name == name)


@pytest.mark.parametrize("name", ["httpx"] if sys.platform == "win32" else ["httpx", "httpx2"])
def test_the_http_library_is_reported(
    name: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report names the client and its library: httpx2 if it is installed, httpx otherwise, or the caller's."""
    module = load(name).httpx
    if name == "httpx":
        monkeypatch.setitem(sys.modules, "httpx2", None)
        load.cache_clear()
    with machine.cache(tmp_path / "cache") as cache:
        assert detail_of(cache.doctor(), "HTTP client") == f"its own, of {name} {module.__version__}"
    with module.Client() as client, machine.cache(tmp_path / "cache", client=client) as cache:
        assert detail_of(cache.doctor(), "HTTP client") == f"the caller's, of {name} {module.__version__}"
    load.cache_clear()
