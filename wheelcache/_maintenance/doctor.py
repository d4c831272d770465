"""Try the file operations of the cache in its real folder, and report the result of each.

A probe that a scanner, a container or a network drive refuses is reported with its code, its duration, and the process
that held the file. All probes together wait for a few seconds at most. The probe files are deleted at the end, even if
the call is cancelled. If another process holds a probe file open, prune sweeps the file later by the owner and age in
its name.
"""

from __future__ import annotations

import math
import os
import stat as modes
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .._exceptions import CommitError
from .._fs.errors import ErrorKind, advice_for, cause_of, classify, code_of
from .._fs.lock import FileLock
from .._fs.persist import checked_copy
from .._fs.robustio import RobustIO, close_quietly, write_all
from .._fs.small import read_small
from .._fs.tempnames import OwnerTag
from .._hashes import MultiHash
from .._http.client import HttpClient
from .._models import LinkMode
from .._operation import Operation
from .._os.system import System
from .._os.volume import Volume
from .._reports import Check, DoctorReport
from .._store.layout import Layout
from .foreign import is_unsafe

# The seconds that all probes together wait for held files, and the seconds after which no further probe starts.
_MAX_WAIT = 3.0
_MAX_SECONDS = 20.0
# The child process may run for ten seconds. Cancellation is checked between two polls.
_CHILD_POLLS = 100
_CHILD_POLL_SECONDS = 0.1
# Exit codes of the child process. Python itself uses other codes.
_REFUSED, _TAKEN, _NO_LOCKS = 20, 21, 22
_CHILD = (
    "import sys; sys.path[:] = sys.argv[2:]; from wheelcache._maintenance.doctor import answer_for_lock; "
    "sys.exit(answer_for_lock(sys.argv[1]))"
)
_LAST = "clean-up"
_LITTLE_SPACE = 1 << 30
_LONG_PATH = 300
_LONGEST_NAME = 240
_COARSE_GRAIN = 1_000_000_000
_CLOCK_SKEW = 10.0
_CONTENT = bytes(range(256)) * 256


@dataclass(frozen=True)
class _Finding:
    detail: str
    ok: bool = True
    code: str = ""
    advice: str = ""


@dataclass(frozen=True)
class _Outcome:
    """The outcome of an operation, with its first error, and its last error if it never succeeded."""

    first: OSError | None
    last: OSError | None
    attempts: int

    def finding(self, done: str) -> _Finding:
        """Return the finding: the operation was done, done after several attempts, or refused."""
        if self.first is None:
            return _Finding(done)
        code = code_of(self.first)
        if self.last is None:
            held = "Another program opens new files and blocks access to them. Exclude the cache folder from scanning."
            return _Finding(f"{done}, after {self.attempts} attempts", ok=False, code=code, advice=held)
        if isinstance(self.last, CommitError):
            by = f", held by {', '.join(self.last.holders)}" if self.last.holders else ""
            text = f"refused, {self.last.cause}{by}, {self.last.attempts} attempts"
            return _Finding(text, ok=False, code=code, advice=self.last.advice)
        advice = advice_for(self.last, cause_of(self.last, self.last.filename or ""))
        return _Finding(f"refused: {self.last.strerror}", ok=False, code=code, advice=advice)


def examine(op: Operation, layout: Layout, http: HttpClient, *, writable: bool) -> DoctorReport:
    """Make all probes in a cache folder. Never raises, and waits for a few seconds at most."""
    return _Examination(op, layout, http, writable=writable).report()


class _Examination:
    def __init__(self, op: Operation, layout: Layout, http: HttpClient, *, writable: bool) -> None:
        self._system = system = op.system
        self._http = http
        self._fs = RobustIO(op.waiting_at_most(_MAX_WAIT))
        self._layout = layout
        self._writable = writable
        self._volume: Volume = system.volume(layout.root)
        self._environment = system.environment()
        self._probe_paths: list[str] = []
        # The time stamp of each probe file, and the time of this machine's clock when the file was written.
        self._time_stamps: list[tuple[int, float]] = []
        self._supported: set[str] = set()

    def report(self) -> DoctorReport:
        """Make all probes, and delete all of their files, even if the operation is cancelled."""
        try:
            return self._run_probes()
        finally:
            for path in self._probe_paths:
                self._remove_probe(self._fs.for_cleanup(), path)

    def _run_probes(self) -> DoctorReport:
        started = self._system.monotonic()
        checks: list[Check] = []
        advice: list[str] = []
        for name, probe in self._probes():
            begun = self._system.monotonic()
            if begun - started > _MAX_SECONDS and name != _LAST:
                finding = _Finding("not tried: the other checks took too long", ok=False)
            else:
                finding = self._run_probe(probe)
            seconds = self._system.monotonic() - begun
            checks.append(Check(name, finding.ok, finding.detail, finding.code, seconds))
            if finding.advice and finding.advice not in advice:
                advice.append(finding.advice)
        return DoctorReport(tuple(checks), tuple(advice), all(check.ok for check in checks))

    def _run_probe(self, probe: Callable[[], _Finding]) -> _Finding:
        try:
            return probe()
        except OSError as error:
            return _Outcome(error, error, 1).finding("")

    def _probes(self) -> Iterator[tuple[str, Callable[[], _Finding]]]:
        yield "system", _describe_system
        yield "HTTP client", lambda: _Finding(self._http.describe())
        yield "boot identity", self._check_boot
        yield "volume", self._check_volume
        yield "network drive", self._check_network
        yield "cloud folder", self._check_cloud
        yield "container", self._check_container
        yield "WSL", self._check_wsl
        yield "free space", self._check_free_space
        yield "other users", self._check_other_users
        yield "links", self._check_links
        if not self._writable:
            yield "writing", lambda: _Finding("not tried: the cache is opened read-only")
            return
        had_folder = self._fs.files.is_dir(self._layout.tmp)
        yield "write", self._probe_write
        yield "rename", self._probe_rename
        yield "hard link", self._probe_link
        yield "clone", self._probe_clone
        yield "copy", self._probe_copy
        yield "replace", self._probe_replace
        yield "delete", self._probe_delete
        yield "delete while open", self._probe_delete_while_open
        yield "folders", self._probe_folders
        yield "lock between processes", self._probe_lock
        yield "long path", self._probe_long_path
        yield "case", self._probe_case
        yield "time stamps", self._probe_time_stamps
        yield "modes", self._probe_modes
        yield "adding wheels", self._find_method_for_adding
        yield "linking wheels", self._find_mode_for_linking
        yield _LAST, lambda: self._clean_up(had_folder=had_folder)

    # Checks that need no probe file

    def _check_boot(self) -> _Finding:
        if self._system.boot() is None:
            return _Finding("unknown, so every process hashes each wheel again at its first use", ok=False)
        return _Finding("known, so each wheel is hashed once per boot")

    def _check_volume(self) -> _Finding:
        volume = self._volume
        where = f"{volume.file_system or 'unknown file system'} at {volume.mount or 'unknown mount point'}"
        return _Finding(f"{self._layout.root}: {where}", code=volume.code)

    def _check_network(self) -> _Finding:
        if not self._volume.remote:
            return _Finding("no")
        advice = (
            "Keep the cache on a local volume, and use the network drive as a layer. Locks and links are unreliable "
            "there, and holders on other machines cannot be named."
        )
        return _Finding("yes", ok=False, advice=advice)

    def _check_cloud(self) -> _Finding:
        if not self._volume.cloud:
            return _Finding("no")
        advice = "Move the cache out of the cloud folder. The service holds new files open and refuses hard links."
        return _Finding(self._volume.cloud, ok=False, advice=advice)

    def _check_container(self) -> _Finding:
        kind = self._environment.container or "no container detected"
        return _Finding(f"{kind}, and the folder is mapped into it from the host" if self._volume.mapped else kind)

    def _check_wsl(self) -> _Finding:
        if not self._environment.wsl:
            return _Finding("no")
        if not self._volume.mapped:
            return _Finding(f"{self._environment.wsl}, and the folder is on a volume of WSL")
        advice = "Keep the cache in the home folder of WSL, because access from WSL to Windows drives is slow."
        return _Finding(f"{self._environment.wsl}, and the folder is on a Windows drive", ok=False, advice=advice)

    def _check_free_space(self) -> _Finding:
        free, size = self._volume.free, self._volume.size
        if free is None or size is None:
            return _Finding("unknown")
        gigabytes = f"{free / 1e9:.1f} GB of {size / 1e9:.1f} GB"
        if free >= _LITTLE_SPACE:
            return _Finding(gigabytes)
        return _Finding(gigabytes, ok=False, advice="Free space on the volume, or remove wheels from the cache.")

    def _check_other_users(self) -> _Finding:
        folders = self._layout.folders()
        if self._system.is_private(folders):
            return _Finding("private: only this user and root can write to the cache")
        folder = next((folder for folder in folders if not self._system.is_private([folder])), self._layout.root)
        return _Finding(f"shared: others may write to {folder}, so each process hashes a wheel at its first use")

    def _check_links(self) -> _Finding:
        links = [link for link in self._layout.folders()[1:] if is_unsafe(self._fs, link)]
        advice = "Move the folder back to its place, or delete the link. The cache does not follow it."
        if links:
            return _Finding(f"in place of folders: {', '.join(links)}", ok=False, advice=advice)
        return _Finding("no folder of the cache is a link")

    # Checks with probe files

    def _new_path(self, word: str = "") -> str:
        """Return an unused path. Its file or folder is deleted at the end."""
        owner = OwnerTag.new(self._system.now(), self._system.boot())
        path = self._layout.new_temporary(owner, word=word)
        self._probe_paths.append(path)
        return path

    def _new_file(self, word: str = "") -> str:
        path = self._new_path(word)
        file = self._fs.create(path)
        try:
            write_all(file, _CONTENT)
            # The clock is read before the file is closed, because a scanner may delay closing.
            written = self._system.now()
        finally:
            close_quietly(file)
        stat = self._fs.stat(path)
        if stat is not None:
            self._time_stamps.append((stat.st_mtime_ns, written))
        return path

    def _try(self, operation: str, path: str, action: Callable[[], object], target: str = "") -> _Outcome:
        refusals: list[OSError] = []

        def once() -> None:
            try:
                action()
            except OSError as error:
                refusals.append(error)
                raise

        try:
            self._fs.perform(operation, path, once, target=target)
        except OSError as error:
            return _Outcome(refusals[0] if refusals else error, error, len(refusals))
        self._supported.add(operation)
        return _Outcome(refusals[0] if refusals else None, None, len(refusals) + 1)

    def _probe_write(self) -> _Finding:
        path = self._new_file()
        if read_small(self._fs, path, len(_CONTENT)) != _CONTENT:
            return _Finding("the bytes read differ from the bytes written", ok=False, advice="Check the volume.")
        return _Finding(f"{len(_CONTENT) // 1024} KiB written and read back")

    def _probe_rename(self) -> _Finding:
        source, target = self._new_file(), self._new_path()
        outcome = self._try("rename", source, lambda: self._fs.files.rename(source, target), target)
        if outcome.last is None or not _is_unsupported(outcome.last):
            return outcome.finding("right after writing")
        return _Finding("not supported on this volume, so wheels are added by hard link", code=code_of(outcome.last))

    def _probe_link(self) -> _Finding:
        source, target = self._new_file(), self._new_path()
        outcome = self._try("link", source, lambda: self._fs.files.link(source, target), target)
        if outcome.last is None:
            return outcome.finding("right after writing")
        advice = "Wheels are copied out of this cache. A cache on another volume would save space and time."
        return _Finding("not supported on this volume", ok=False, code=code_of(outcome.last), advice=advice)

    def _probe_clone(self) -> _Finding:
        source, target = self._new_file(), self._new_path()
        outcome = self._try("clone", source, lambda: self._fs.files.clone(source, target), target)
        if outcome.last is None:
            return outcome.finding("the clone shares its blocks")
        return _Finding("not supported on this volume, so wheels are hard-linked", code=code_of(outcome.last))

    def _probe_copy(self) -> _Finding:
        source, target = self._new_file(), self._new_path()
        running = MultiHash()
        running.update(_CONTENT)
        sha256 = running.hexdigests()["sha256"]
        return self._try("copy", source, lambda: checked_copy(self._fs, source, target, sha256), target).finding(
            "checked"
        )

    def _probe_replace(self) -> _Finding:
        source, target = self._new_file(), self._new_file()
        return self._try("replace", source, lambda: self._fs.files.replace(source, target), target).finding("done")

    def _probe_delete(self) -> _Finding:
        return self._try_delete(self._new_file()).finding("right after writing")

    def _try_delete(self, path: str) -> _Outcome:
        files = self._fs.files
        delete = files.rmdir if files.is_dir(path) else files.unlink
        return self._try("delete", path, lambda: delete(path))

    def _remove_probe(self, fs: RobustIO, path: str) -> bool:
        """Delete a file or folder of a probe without waiting, and return whether it no longer exists."""
        return fs.remove_folder(path) if fs.files.is_dir(path) else fs.discard(path)

    def _probe_delete_while_open(self) -> _Finding:
        path = self._new_file()
        reader = self._fs.perform("open", path, lambda: self._fs.files.open_read(path))
        try:
            outcome = self._try("delete while open", path, lambda: self._fs.files.unlink(path))
            if outcome.last is not None:
                return outcome.finding("")
            try:
                close_quietly(self._fs.files.create(path))
            except OSError as error:
                return _Finding("deleted, but its name is not free until the file is closed", code=code_of(error))
            return outcome.finding("its name is free at once")
        finally:
            close_quietly(reader)

    def _probe_folders(self) -> _Finding:
        path = self._new_path()
        outcome = self._try("mkdir", path, lambda: self._fs.files.mkdir(path))
        if outcome.first is None:
            outcome = self._try("rmdir", path, lambda: self._fs.files.rmdir(path))
        return outcome.finding("created and deleted")

    def _probe_lock(self) -> _Finding:
        if not sys.executable or getattr(sys, "frozen", False):
            return _Finding("not tried: this program embeds Python and cannot start Python as a second process")
        path = self._new_path()
        lock = FileLock(self._fs, path)
        if not lock.try_acquire():
            return _Finding("refused", ok=False, advice="Without locks, a wheel may be downloaded twice.")
        try:
            return self._probe_lock_from_child(path)
        finally:
            lock.release()

    def _probe_lock_from_child(self, path: str) -> _Finding:
        """Let another process try to acquire the lock. On some network drives, a lock affects only its own process."""
        try:
            code = self._run_child(path)
        except (OSError, subprocess.SubprocessError) as error:
            return _Finding(f"not tried: the other process did not answer ({type(error).__name__})")
        advice = "Locks have no effect here, so two processes may download the same wheel. Nothing else is affected."
        return {
            _REFUSED: _Finding("a lock excludes other processes"),
            _TAKEN: _Finding("two processes acquired the same lock at once", ok=False, advice=advice),
            _NO_LOCKS: _Finding("the other process cannot acquire a lock here", ok=False, advice=advice),
        }.get(code, _Finding(f"not tried: the other process failed (exit code {code})"))

    def _run_child(self, lock_path: str) -> int:
        """Run the child process, and return its exit code.

        Raises:
            OSError: if the process cannot be started.
            SubprocessError: if the process does not end in time.
        """
        nothing = subprocess.DEVNULL
        command = [sys.executable, "-c", _CHILD, lock_path, *sys.path]
        with subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing) as child:  # noqa: S603 - no shell
            try:
                for _ in range(_CHILD_POLLS):
                    self._fs.op.check()
                    try:
                        return child.wait(_CHILD_POLL_SECONDS)
                    except subprocess.TimeoutExpired:
                        pass
                raise subprocess.TimeoutExpired(command, _CHILD_POLLS * _CHILD_POLL_SECONDS)
            finally:
                child.kill()

    def _probe_long_path(self) -> _Finding:
        stamp_and_folder = len(self._new_path())
        self._probe_paths.pop()
        room = _LONGEST_NAME - (stamp_and_folder - len(self._layout.tmp))
        path = self._new_file("long" * max(1, min(room, _LONG_PATH - stamp_and_folder) // 4))
        outcome = self._try("read", path, lambda: self._fs.files.read_small(path, len(_CONTENT)))
        return outcome.finding(f"{len(path)} characters")

    def _probe_case(self) -> _Finding:
        path = self._new_file("case")
        folder, name = os.path.split(path)
        if self._fs.stat(os.path.join(folder, name.replace("-case", "-CASE"))) is None:
            return _Finding("names that differ only in case are different files")
        return _Finding("names that differ only in case are the same file")

    def _probe_time_stamps(self) -> _Finding:
        if not self._time_stamps:
            return _Finding("not tried: no file could be created", ok=False)
        grain = math.gcd(*(stamp for stamp, _ in self._time_stamps))
        # The smallest difference counts, because a slow write would otherwise be mistaken for an error of the clock.
        skew = min((stamp / 1e9 - written for stamp, written in self._time_stamps), key=abs)
        clock = "this machine's clock" if abs(skew) < _CLOCK_SKEW else f"a clock that is {skew:+.0f} s off"
        detail = f"resolution {_format_span(grain)}, set by {clock}"
        advice = "The time stamps are coarse, or the clock is wrong. Use verify='full', or choose another volume."
        good = grain < _COARSE_GRAIN and abs(skew) < _CLOCK_SKEW
        return _Finding(detail, ok=good, advice="" if good else advice)

    def _probe_modes(self) -> _Finding:
        file, folder = self._fs.stat(self._new_file()), self._fs.stat(self._layout.root)
        if file is None or folder is None:
            return _Finding("not tried: the probe file is missing", ok=False)
        attributes = getattr(file, "st_file_attributes", None)
        more = "" if attributes is None else f", attributes {attributes:#x}"
        return _Finding(f"file {modes.filemode(file.st_mode)}, folder {modes.filemode(folder.st_mode)}{more}")

    # Conclusions

    def _find_method_for_adding(self) -> _Finding:
        for method in ("rename", "link", "copy"):
            if method in self._supported:
                return _Finding(f"by {method}")
        return _Finding("no method works, so no wheel can be added", ok=False)

    def _find_mode_for_linking(self) -> _Finding:
        for method, mode in (("clone", LinkMode.CLONE), ("link", LinkMode.HARDLINK), ("copy", LinkMode.COPY)):
            if method in self._supported:
                return _Finding(f"by {mode}, to folders on this volume")
        return _Finding("no link mode works", ok=False)

    def _clean_up(self, *, had_folder: bool) -> _Finding:
        left = [path for path in self._probe_paths if not self._remove_probe(self._fs, path)]
        held = [outcome.last for outcome in map(self._try_delete, left) if outcome.last is not None]
        if held:
            return _Finding(
                f"{len(held)} probe files are still held (prune will remove them)", ok=False, code=code_of(held[0])
            )
        if not had_folder:
            try:
                self._fs.files.rmdir(self._layout.tmp)
            except OSError:
                pass  # another process is using the folder
        return _Finding("all probe files deleted")


def _is_unsupported(error: OSError) -> bool:
    return classify(error, error.filename or "") is ErrorKind.UNSUPPORTED


def _describe_system() -> _Finding:
    if sys.platform == "win32":
        version = sys.getwindowsversion()
        # For compatibility, the other fields may contain an older version of Windows.
        system = f"Windows {'.'.join(map(str, version.platform_version))}"
    else:
        name = os.uname()
        system = f"{name.sysname} {name.release} {name.machine}"
    number = ".".join(map(str, sys.version_info[:3]))
    return _Finding(f"{system}, {sys.implementation.name} {number}")


def _format_span(nanoseconds: int) -> str:
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds} ns"


def answer_for_lock(path: str) -> int:
    """Try to acquire a lock that another process holds, and return the result as an exit code."""
    system = System()
    try:
        # The lock file is in the folder for temporary files. No link in the cache is followed.
        files = system.files.confined_to(os.path.dirname(os.path.dirname(path)))
        with Operation(replace(system, files=files)) as op:
            if not FileLock(RobustIO(op), path).try_acquire():
                return _REFUSED
    except OSError:
        return _NO_LOCKS
    # The lock is not released, since a release would delete the lock file of the other process.
    return _TAKEN
