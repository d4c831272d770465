"""Try the file operations of the cache in its real folder, and report how each of them went.

A probe that a scanner, a container or a network drive refuses is reported with its code, its duration, and the process
that held the file. All probes together wait for a few seconds at most. The probe files are deleted at the end, also
when the call is cancelled. Their names carry their owner and age: prune sweeps those that another process holds open.
"""

from __future__ import annotations

import math
import os
import stat as modes
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .._exceptions import CommitError
from .._fs.errors import ErrorKind, advice_for, cause_of, classify, code_of
from .._fs.lock import FileLock
from .._fs.persist import checked_copy
from .._fs.robustio import RobustIO, close_quietly, write_all
from .._fs.tempnames import OwnerTag
from .._hashes import MultiHash
from .._models import LinkMode
from .._operation import Operation
from .._os.system import System
from .._os.volume import Volume
from .._reports import Check, DoctorReport
from .._store.layout import Layout

# Seconds that all probes together wait for held files, and seconds after which no further probe starts.
_MAX_WAIT = 3.0
_MAX_SECONDS = 20.0
# The child process gets ten seconds. Between two polls the operation is checked for cancellation.
_CHILD_POLLS = 100
_CHILD_POLL_SECONDS = 0.1
# Exit codes of the child process, none of which Python itself uses.
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
    """How an operation went: the first refusal, and the last where it never came to a success."""

    first: OSError | None
    last: OSError | None
    attempts: int

    def finding(self, done: str) -> _Finding:
        """Say it: done, done after a while, or refused."""
        if self.first is None:
            return _Finding(done)
        code = code_of(self.first)
        if self.last is None:
            held = "Something opens new files and keeps others from them: exclude the cache folder from scanning."
            return _Finding(f"{done}, after {self.attempts} attempts", ok=False, code=code, advice=held)
        if isinstance(self.last, CommitError):
            by = f", held by {', '.join(self.last.holders)}" if self.last.holders else ""
            text = f"refused, {self.last.cause}{by}, {self.last.attempts} attempts"
            return _Finding(text, ok=False, code=code, advice=self.last.advice)
        advice = advice_for(self.last, cause_of(self.last, self.last.filename or ""))
        return _Finding(f"refused: {self.last.strerror}", ok=False, code=code, advice=advice)


def examine(op: Operation, layout: Layout, *, writable: bool) -> DoctorReport:
    """Look at a cache folder. Never fails, and never waits for long."""
    return _Examination(op, layout, writable=writable).report()


class _Examination:
    def __init__(self, op: Operation, layout: Layout, *, writable: bool) -> None:
        self._system = system = op.system
        self._fs = RobustIO(op.waiting_at_most(_MAX_WAIT))
        self._layout = layout
        self._writable = writable
        self._volume: Volume = system.volume(layout.root)
        self._around = system.environment()
        self._made: list[str] = []
        # Of each file that was made its time stamp, and what the clock said then.
        self._stamps: list[tuple[int, float]] = []
        self._works: set[str] = set()

    def report(self) -> DoctorReport:
        """Make all probes, and leave none of their files behind, even if the operation is cancelled."""
        try:
            return self._run_probes()
        finally:
            for path in self._made:
                self._remove_probe(self._fs.for_cleanup(), path)

    def _run_probes(self) -> DoctorReport:
        started = self._system.monotonic()
        checks: list[Check] = []
        advice: list[str] = []
        for name, probe in self._probes():
            begun = self._system.monotonic()
            if begun - started > _MAX_SECONDS and name != _LAST:
                finding = _Finding("not tried: the others took too long", ok=False)
            else:
                finding = self._found(probe)
            seconds = self._system.monotonic() - begun
            checks.append(Check(name, finding.ok, finding.detail, finding.code, seconds))
            if finding.advice and finding.advice not in advice:
                advice.append(finding.advice)
        return DoctorReport(tuple(checks), tuple(advice), all(check.ok for check in checks))

    def _found(self, probe: Callable[[], _Finding]) -> _Finding:
        try:
            return probe()
        except OSError as error:
            return _Outcome(error, error, 1).finding("")

    def _probes(self) -> Iterator[tuple[str, Callable[[], _Finding]]]:
        yield "system", _system
        yield "boot identity", self._boot
        yield "volume", self._volume_found
        yield "network drive", self._network
        yield "cloud folder", self._cloud
        yield "container", self._container
        yield "WSL", self._wsl
        yield "free space", self._free_space
        if not self._writable:
            yield "writing", lambda: _Finding("not tried: the cache is opened read-only")
            return
        had_folder = self._fs.files.is_dir(self._layout.tmp)
        yield "write", self._write
        yield "rename", self._rename
        yield "hard link", self._link
        yield "clone", self._clone
        yield "copy", self._copy
        yield "replace", self._replace
        yield "delete", self._delete
        yield "delete while open", self._delete_while_open
        yield "folders", self._folders
        yield "lock between processes", self._lock
        yield "long path", self._long_path
        yield "case", self._case
        yield "time stamps", self._time_stamps
        yield "modes", self._modes
        yield "way in", self._way_in
        yield "way out", self._way_out
        yield _LAST, lambda: self._cleaned_up(had_folder=had_folder)

    # What is known without trying

    def _boot(self) -> _Finding:
        if self._system.boot() is None:
            return _Finding("none: every process hashes a wheel again at its first use", ok=False)
        return _Finding("known: a wheel is hashed once in each boot")

    def _volume_found(self) -> _Finding:
        volume = self._volume
        where = f"{volume.file_system or 'unknown file system'} at {volume.mount or 'unknown place'}"
        return _Finding(f"{self._layout.root}: {where}", code=volume.code)

    def _network(self) -> _Finding:
        if not self._volume.remote:
            return _Finding("no")
        advice = (
            "Keep the cache on a volume of this machine, and give the network drive as a layer: locks and links are "
            "not to be relied on there, and holders on other machines cannot be named."
        )
        return _Finding("yes", ok=False, advice=advice)

    def _cloud(self) -> _Finding:
        if not self._volume.cloud:
            return _Finding("no")
        advice = "Move the cache out of the folder of the cloud service: it holds new files, and refuses hard links."
        return _Finding(self._volume.cloud, ok=False, advice=advice)

    def _container(self) -> _Finding:
        kind = self._around.container or "no container seen"
        return _Finding(f"{kind}, and the folder is mapped into it from outside" if self._volume.mapped else kind)

    def _wsl(self) -> _Finding:
        if not self._around.wsl:
            return _Finding("no")
        if not self._volume.mapped:
            return _Finding(f"{self._around.wsl}, and the folder is on its own volume")
        advice = "Keep the cache on the Linux side of WSL, in the home folder: drives of Windows are slow from there."
        return _Finding(f"{self._around.wsl}, and the folder is on a drive of Windows", ok=False, advice=advice)

    def _free_space(self) -> _Finding:
        free, size = self._volume.free, self._volume.size
        if free is None or size is None:
            return _Finding("the system does not say")
        gigabytes = f"{free / 1e9:.1f} GB of {size / 1e9:.1f} GB"
        if free >= _LITTLE_SPACE:
            return _Finding(gigabytes)
        return _Finding(gigabytes, ok=False, advice="Make room on the volume, or remove wheels from the cache.")

    # What is tried

    def _name(self, more: str = "") -> str:
        """Return a name that nothing has, to be cleaned up."""
        stamp = OwnerTag.new(self._system.now(), self._system.boot())
        path = self._layout.new_temporary(stamp + more)
        self._made.append(path)
        return path

    def _new_file(self, more: str = "") -> str:
        path = self._name(more)
        file = self._fs.create(path)
        try:
            write_all(file, _CONTENT)
            # Now, since closing it and all that follows may take long where somebody looks at new files.
            written = self._system.now()
        finally:
            close_quietly(file)
        stat = self._fs.stat(path)
        if stat is not None:
            self._stamps.append((stat.st_mtime_ns, written))
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
        self._works.add(operation)
        return _Outcome(refusals[0] if refusals else None, None, len(refusals) + 1)

    def _write(self) -> _Finding:
        path = self._new_file()
        if self._fs.read(path) != _CONTENT:
            return _Finding("what is read is not what was written", ok=False, advice="Check the volume.")
        return _Finding(f"{len(_CONTENT) // 1024} KiB written and read back")

    def _rename(self) -> _Finding:
        source, target = self._new_file(), self._name()
        outcome = self._try("rename", source, lambda: self._fs.files.rename(source, target), target)
        if outcome.last is None or not _is_unsupported(outcome.last):
            return outcome.finding("right after writing")
        return _Finding("not on this volume: wheels are hard-linked to their names", code=code_of(outcome.last))

    def _link(self) -> _Finding:
        source, target = self._new_file(), self._name()
        outcome = self._try("link", source, lambda: self._fs.files.link(source, target), target)
        if outcome.last is None:
            return outcome.finding("right after writing")
        advice = "Wheels are copied out of this cache: one on another volume would save the room and the time."
        return _Finding("not on this volume", ok=False, code=code_of(outcome.last), advice=advice)

    def _clone(self) -> _Finding:
        source, target = self._new_file(), self._name()
        outcome = self._try("clone", source, lambda: self._fs.files.clone(source, target), target)
        if outcome.last is None:
            return outcome.finding("shares its blocks")
        return _Finding("not on this volume: wheels are hard-linked out", code=code_of(outcome.last))

    def _copy(self) -> _Finding:
        source, target = self._new_file(), self._name()
        running = MultiHash()
        running.update(_CONTENT)
        sha256 = running.hexdigests()["sha256"]
        return self._try("copy", source, lambda: checked_copy(self._fs, source, target, sha256), target).finding(
            "checked"
        )

    def _replace(self) -> _Finding:
        source, target = self._new_file(), self._new_file()
        return self._try("replace", source, lambda: self._fs.files.replace(source, target), target).finding("done")

    def _delete(self) -> _Finding:
        return self._deleted(self._new_file()).finding("right after writing")

    def _deleted(self, path: str) -> _Outcome:
        files = self._fs.files
        delete = files.rmdir if files.is_dir(path) else files.unlink
        return self._try("delete", path, lambda: delete(path))

    def _remove_probe(self, fs: RobustIO, path: str) -> bool:
        """Delete what a probe made, without waiting, and return whether it is gone."""
        return fs.remove_folder(path) if fs.files.is_dir(path) else fs.discard(path)

    def _delete_while_open(self) -> _Finding:
        path = self._new_file()
        reader = self._fs.perform("open", path, lambda: self._fs.files.open_read(path))
        try:
            outcome = self._try("delete while open", path, lambda: self._fs.files.unlink(path))
            if outcome.last is not None:
                return outcome.finding("")
            try:
                close_quietly(self._fs.files.create(path))
            except OSError as error:
                return _Finding("deleted, but its name stays taken until it is closed", code=code_of(error))
            return outcome.finding("its name is free at once")
        finally:
            close_quietly(reader)

    def _folders(self) -> _Finding:
        path = self._name()
        outcome = self._try("mkdir", path, lambda: self._fs.files.mkdir(path))
        if outcome.first is None:
            outcome = self._try("rmdir", path, lambda: self._fs.files.rmdir(path))
        return outcome.finding("made and deleted")

    def _lock(self) -> _Finding:
        if not sys.executable or getattr(sys, "frozen", False):
            return _Finding("not tried: this program contains Python and cannot start it as a second process")
        path = self._name()
        lock = FileLock(self._fs, path)
        if not lock.try_acquire():
            return _Finding("refused", ok=False, advice="Locks only save work: two processes may download one wheel.")
        try:
            return self._lock_seen_by_another(path)
        finally:
            lock.release()

    def _lock_seen_by_another(self, path: str) -> _Finding:
        """Let another process try to take the lock: on some network drives a lock excludes only its own process."""
        try:
            code = self._run_child(path)
        except (OSError, subprocess.SubprocessError) as error:
            return _Finding(f"not tried: the other process did not answer ({type(error).__name__})")
        advice = "Locks have no effect here: two processes may download the same wheel. Nothing else is affected."
        return {
            _REFUSED: _Finding("one process keeps out the other"),
            _TAKEN: _Finding("both processes had it at once", ok=False, advice=advice),
            _NO_LOCKS: _Finding("the other process cannot take a lock here", ok=False, advice=advice),
        }.get(code, _Finding(f"not tried: the other process failed (exit code {code})"))

    def _run_child(self, lock_path: str) -> int:
        """Run the child process, and return its exit code.

        Raises:
            OSError: if it cannot be started.
            SubprocessError: if it takes too long.
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

    def _long_path(self) -> _Finding:
        stamp_and_folder = len(self._name())
        self._made.pop()
        room = _LONGEST_NAME - (stamp_and_folder - len(self._layout.tmp))
        path = self._new_file("-" + "long" * max(1, min(room, _LONG_PATH - stamp_and_folder) // 4))
        return self._try("read", path, lambda: self._fs.files.read(path)).finding(f"{len(path)} characters")

    def _case(self) -> _Finding:
        path = self._new_file("-case")
        folder, name = os.path.split(path)
        if self._fs.stat(os.path.join(folder, name.replace("-case", "-CASE"))) is None:
            return _Finding("names that differ in case are different files")
        return _Finding("names that differ in case are one file")

    def _time_stamps(self) -> _Finding:
        if not self._stamps:
            return _Finding("not tried: no file could be made", ok=False)
        grain = math.gcd(*(stamp for stamp, _ in self._stamps))
        # The least of them: a file that took long to write is no reason to suspect the clock.
        skew = min((stamp / 1e9 - written for stamp, written in self._stamps), key=abs)
        clock = "this machine's clock" if abs(skew) < _CLOCK_SKEW else f"a clock that is {skew:+.0f} s off"
        detail = f"grain {_span(grain)}, by {clock}"
        advice = "Its time stamps are coarse, or its clock is off: give verify='full', or choose another volume."
        good = grain < _COARSE_GRAIN and abs(skew) < _CLOCK_SKEW
        return _Finding(detail, ok=good, advice="" if good else advice)

    def _modes(self) -> _Finding:
        file, folder = self._fs.stat(self._new_file()), self._fs.stat(self._layout.root)
        if file is None or folder is None:
            return _Finding("not tried: the file is gone", ok=False)
        attributes = getattr(file, "st_file_attributes", None)
        more = "" if attributes is None else f", attributes {attributes:#x}"
        return _Finding(f"file {modes.filemode(file.st_mode)}, folder {modes.filemode(folder.st_mode)}{more}")

    # What follows

    def _way_in(self) -> _Finding:
        for way in ("rename", "link", "copy"):
            if way in self._works:
                return _Finding(f"wheels get their names by {way}")
        return _Finding("none: no wheel can be added", ok=False)

    def _way_out(self) -> _Finding:
        for way, mode in (("clone", LinkMode.CLONE), ("link", LinkMode.HARDLINK), ("copy", LinkMode.COPY)):
            if way in self._works:
                return _Finding(f"wheels leave by {mode}, to folders on this volume")
        return _Finding("none", ok=False)

    def _cleaned_up(self, *, had_folder: bool) -> _Finding:
        left = [path for path in self._made if not self._remove_probe(self._fs, path)]
        held = [outcome.last for outcome in map(self._deleted, left) if outcome.last is not None]
        if held:
            return _Finding(f"{len(held)} probes are still held, and are swept later", ok=False, code=code_of(held[0]))
        if not had_folder:
            try:
                self._fs.files.rmdir(self._layout.tmp)
            except OSError:
                pass  # somebody else uses it by now
        return _Finding("nothing is left")


def _is_unsupported(error: OSError) -> bool:
    return classify(error, error.filename or "") is ErrorKind.UNSUPPORTED


def _system() -> _Finding:
    if sys.platform == "win32":
        version = sys.getwindowsversion()
        # What it claims to be for this program's sake stands in the other fields.
        system = f"Windows {'.'.join(map(str, version.platform_version))}"
    else:
        name = os.uname()
        system = f"{name.sysname} {name.release} {name.machine}"
    number = ".".join(map(str, sys.version_info[:3]))
    return _Finding(f"{system}, {sys.implementation.name} {number}")


def _span(nanoseconds: int) -> str:
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds} ns"


def answer_for_lock(path: str) -> int:
    """Try to take a lock that another process has, and say how it went as an exit code."""
    system = System()
    lock = FileLock(RobustIO(Operation(system)), path)
    try:
        if not lock.try_acquire():
            return _REFUSED
    except OSError:
        return _NO_LOCKS
    # Not released: that would delete the other's file.
    return _TAKEN
