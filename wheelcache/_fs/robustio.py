"""The disk as one public call sees it: the file layer, with patience for what is held and words for what is refused.

Stations do their plain file work here. What needs more than one way, placing a file under its final name, is
:mod:`._ladder`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

from .._exceptions import Cause, CommitError
from .._hashes import MultiHash
from .._models import Phase
from .._operation import Call, RetryBudget
from .._os.system import System
from .errors import (
    ErrorKind,
    advice_for,
    cause_of,
    classify,
    code_of,
    is_access_denied,
    observed_cause,
    permanent_cause,
    winerror_of,
)

# Most holders let go at once, and asking takes longer than that.
_FIRST_QUESTION = 0.25
_LONGEST_PAUSE = 8.0


class HolderPoll:
    """One operation that waits, and whom it waits for.

    Args:
        ask: says who holds these files.
        monotonic: the clock.
        paths: the files.
    """

    def __init__(
        self, ask: Callable[[Sequence[str]], tuple[str, ...]], monotonic: Callable[[], float], *paths: str
    ) -> None:
        self.holders: tuple[str, ...] = ()
        self._ask = ask
        self._monotonic = monotonic
        self._paths = [path for path in paths if path]
        self._pause = _FIRST_QUESTION
        self._due = monotonic() + _FIRST_QUESTION

    def look(self, *, last: bool = False) -> None:
        """Ask if it is time to; the ``last`` time that is worth waiting for, ask if nobody was named so far.

        Never fails: who does not answer is not waited for, and an error is told without a name then.
        """
        if (last and self.holders) or (not last and self._monotonic() < self._due):
            return
        try:
            self.holders = self._ask(self._paths) or self.holders
        except Exception:
            pass  # there is nobody to ask, or no answer: a kindness must not change how the operation ends
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._due = self._monotonic() + self._pause


_T = TypeVar("_T")

# A folder that was made and is gone again was pruned in between; more than a few times in a row is no accident.
_FOLDER_TRIES = 5
# The operations that "access denied" is looked into for: whether they give a new name.
_LOOKED_INTO = {"create": True, "mkdir": True, "replace": True, "open": False, "read": False}


class RobustIO:
    """The file layer for the time of one public call."""

    def __init__(self, system: System, patience: RetryBudget) -> None:
        self.system = system
        self.patience = patience
        self.files = system.files

    def without_waiting(self) -> RobustIO:
        """Return the same disk for work that is not worth waiting for."""
        return RobustIO(self.system, RetryBudget(0.0, self.system))

    def perform(self, operation: str, path: str, action: Callable[[], _T], *, target: str = "") -> _T:
        """Do one file operation, waiting while somebody holds the file who will let go.

        Raises:
            OSError: as it came, where the file is missing or exists: that is an answer.
            CommitError: for every other refusal, when the time is up, or at once where it cannot pass.
        """
        started = self.system.monotonic()
        try:
            return action()
        except OSError as error:
            if isinstance(error, CommitError) or is_answer(error, path):
                raise
            first = error
        # Only now: nearly nothing is refused, and hits and walks are counted in microseconds.
        return self._insist(_Trial(self, operation, path, target, started), action, first)

    def _insist(self, trial: _Trial, action: Callable[[], _T], first: OSError) -> _T:
        def once() -> _T:
            trial.tries += 1
            if trial.tries == 1:
                raise first
            return action()

        try:
            return self.patience.retry(once, passing=trial.passing, waiting=trial.look, since=trial.started)
        except OSError as error:
            if isinstance(error, CommitError) or is_answer(error, trial.path):
                raise
            raise trial.to_error(error) from error

    def watch(self, *paths: str) -> HolderPoll:
        """Return what asks who holds these files while an operation waits for them."""
        return HolderPoll(self.system.holders, self.system.monotonic, *paths)

    def cause(self, error: OSError, path: str, watch: HolderPoll | None = None, *, reading: bool = False) -> Cause:
        """Return the class of what is behind a refusal, by all that is there to see."""
        if watch is not None and watch.holders:
            return Cause.HELD
        return observed_cause(self.system, error, path, reading=reading)

    def create(self, path: str) -> BinaryIO:
        """Create a file, and the folders above it where they are missing.

        Raises:
            FileExistsError: where it is there.
            CommitError: where it is refused.
        """
        for _ in range(_FOLDER_TRIES):
            try:
                return self.perform("create", path, lambda: self.files.create(path))
            except OSError as error:
                if not is_missing(error, path):
                    raise
                missing = error
                self.make_folder(os.path.dirname(path))
        raise commit_error(missing, "create", path, attempts=_FOLDER_TRIES) from missing

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it; one that is there is fine.

        Raises:
            CommitError: where it is refused, or a file is in the way.
        """
        for _ in range(_FOLDER_TRIES):
            try:
                self.perform("mkdir", path, lambda: self._make_folder_once(path))
            except OSError as error:
                if self.files.is_folder(path):
                    return
                if not self._was_pruned(error, path):
                    raise commit_error(error, "mkdir", path) from error
                pruned = error
            else:
                return
        raise commit_error(pruned, "mkdir", path, attempts=_FOLDER_TRIES) from pruned

    def _was_pruned(self, error: OSError, path: str) -> bool:
        """Whether it was a folder that stood in the way, or the one above, and was deleted at this moment."""
        if isinstance(error, CommitError) or not is_answer(error, path):
            return False
        return is_missing(error, path) or self.stat(path) is None

    def _make_folder_once(self, path: str) -> None:
        try:
            self.files.mkdir(path)
        except OSError as error:
            # Asked only now and by what is there: Windows denies making a drive's root, and a link to a folder will do.
            if self.files.is_folder(path):
                return
            parent = os.path.dirname(path)
            if not is_missing(error, path) or parent == path:
                raise
            self.make_folder(parent)
            self.files.mkdir(path)

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a small file, ``None`` where there is none."""
        return self._unless_missing("read", path, lambda: self.files.read(path))

    def read_dated(self, path: str) -> tuple[bytes, float] | None:
        """Return the bytes of a small file and its time stamp, ``None`` where there is none."""
        return self._unless_missing("read", path, lambda: self.files.read_dated(path))

    def open_read(self, path: str) -> BinaryIO | None:
        """Open a file for reading, ``None`` where there is none."""
        return self._unless_missing("open", path, lambda: self.files.open_read(path))

    def stat(self, path: str) -> os.stat_result | None:
        """Return what is known of a file, ``None`` where there is none."""
        return self._unless_missing("stat", path, lambda: self.files.stat(path))

    def scan(self, path: str) -> list[os.DirEntry[str]]:
        """Return what is in a folder; nothing where there is none."""
        return self._unless_missing("scan", path, lambda: self.files.scan(path)) or []

    def _unless_missing(self, operation: str, path: str, action: Callable[[], _T]) -> _T | None:
        try:
            return self.perform(operation, path, action)
        except OSError as error:
            if is_missing(error, path):
                return None
            raise

    def touch(self, path: str, seconds: float) -> None:
        """Set the time stamp of a file if that can be; never waits and never fails: nothing depends on it."""
        try:
            self.files.touch(path, seconds)
        except OSError:
            pass  # whoever asks for the stamp gets an older one

    def remove_folder(self, path: str) -> bool:
        """Delete a folder now if it is empty; return whether it is gone. Never waits and never fails."""
        try:
            self.files.rmdir(path)
        except OSError as error:
            return is_missing(error, path)
        return True

    def discard(self, path: str) -> bool:
        """Delete a file now if that can be; return whether it is gone. Never waits and never fails (rule 8).

        What stays carries its owner and its age in its name and is swept later.
        """
        try:
            self.files.unlink(path)
        except OSError as error:
            return is_missing(error, path)
        return True

    def write_small(self, path: str, data: bytes, spare: str) -> None:
        """Write a small file whole: create it, or put it in the place of the one that is there.

        It need not be atomic, since a reader believes only what has its checksum. First it is created in its place: a
        name that nobody knows yet is held by nobody. Where there is one, ``spare`` is written and renamed over it,
        and where that is refused (its holder does not share deleting), it is written over.

        Raises:
            CommitError: where all ways are refused.
        """
        try:
            self.create_small(path, data)
        except FileExistsError:
            try:
                # Once, and not for each try: a scanner may hold it by then, and what is held can be renamed later.
                self.create_small(spare, data)
                self.perform("replace", spare, lambda: self._put_in_place(path, data, spare), target=path)
            except OSError as error:
                self.discard(spare)
                raise commit_error(error, "replace", spare, target=path) from error

    def _put_in_place(self, path: str, data: bytes, spare: str) -> None:
        try:
            self.files.replace(spare, path)
        except OSError as error:
            if classify(error, path) is not ErrorKind.TRANSIENT:
                raise
            # Cut last: until it is written over, what is there stays good, and writing over it takes no room.
            with self.files.open_write(path) as file:
                write_all(file, data)
                file.truncate()
            self.discard(spare)

    def create_small(self, path: str, data: bytes) -> None:
        """Create a small file. What is left of one that fails stays: by now another process may have made it good.

        Raises:
            FileExistsError: where it is there.
            CommitError: where it is refused.
        """
        file = self.create(path)
        try:
            write_all(file, data)
            file.close()
        except OSError as error:
            raise commit_error(error, "write", path) from error
        finally:
            close_quietly(file)


class _Trial:
    """One operation that is tried until it is done, and what is known of its refusals."""

    def __init__(self, disk: RobustIO, operation: str, path: str, target: str, started: float) -> None:
        self.tries = 0
        self.path = path
        self.started = started
        self._disk = disk
        self._operation = operation
        self._target = target
        self._cause: Cause | None = None
        self._looked = False
        # Made at the first refusal: most operations never need one, and a hit is counted in microseconds.
        self._watch: HolderPoll | None = None

    def passing(self, error: BaseException) -> bool:
        """Return whether another try may do better."""
        if isinstance(error, CommitError) or not isinstance(error, OSError):
            return False  # what is told already was waited for already
        if classify(error, self.path) is not ErrorKind.TRANSIENT:
            return False
        self._watch = self._watch or self._disk.watch(self.path, self._target)
        if is_access_denied(error) and self._operation in _LOOKED_INTO and not self._looked:
            self._looked = True
            making, folder = _LOOKED_INTO[self._operation], self._operation == "mkdir"
            at = self._target or self.path
            self._cause = permanent_cause(self._disk.system, at, making=making, folder=folder)
        return self._cause is None

    def look(self) -> None:
        """Ask who holds the file, if it is time to."""
        if self._watch is not None:
            self._watch.look()

    def to_error(self, error: OSError) -> CommitError:
        """Return the error that tells everything."""
        if self._watch is not None and self.tries > 1:
            self._watch.look(last=True)
        reading = _LOOKED_INTO.get(self._operation) is False
        return commit_error(
            error,
            self._operation,
            self.path,
            target=self._target,
            attempts=self.tries,
            elapsed=self._disk.system.monotonic() - self.started,
            cause=self._cause or self._disk.cause(error, self._target or self.path, self._watch, reading=reading),
            holders=self._watch.holders if self._watch is not None else (),
        )


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write every byte: an unbuffered file may take fewer than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def close_quietly(file: BinaryIO) -> None:
    """Close a file of which it is of no concern what closing says: it was only read, or it is given up."""
    try:
        file.close()
    except OSError:
        pass  # it is closed all the same


@contextmanager
def reading(file: BinaryIO) -> Iterator[BinaryIO]:
    """Close a file at the end that is only read."""
    try:
        yield file
    finally:
        close_quietly(file)


def is_missing(error: OSError, path: str) -> bool:
    """Return whether this says that the file or its folder is not there."""
    return not isinstance(error, CommitError) and classify(error, path) is ErrorKind.MISSING


def is_answer(error: OSError, path: str) -> bool:
    """Return whether this is no refusal but an answer: the file is missing, or it exists."""
    return classify(error, path) in {ErrorKind.MISSING, ErrorKind.EXISTS}


def commit_error(
    error: OSError,
    operation: str,
    path: str,
    *,
    target: str = "",
    attempts: int = 1,
    elapsed: float = 0.0,
    cause: Cause | None = None,
    steps: tuple[tuple[str, str], ...] = (),
    holders: tuple[str, ...] = (),
) -> CommitError:
    """Return the error that tells a refusal with everything that is known of it."""
    if isinstance(error, CommitError):
        return error
    cause = cause or cause_of(error, path)
    return CommitError(
        f"{error.strerror or code_of(error)}: {cause}",
        errno=error.errno,
        winerror=winerror_of(error),
        cause=cause,
        steps=steps,
        holders=holders,
        operation=operation,
        path=path,
        target=target or None,
        attempts=attempts,
        elapsed=elapsed,
        advice=advice_for(error, cause),
    )


_CHUNK = 1 << 20


def hash_file(call: Call, path: str, algorithms: Collection[str], total: int) -> Mapping[str, str] | None:
    """Return the hashes of a file, ``None`` where it is gone; what holds it is waited for."""
    file = call.disk.open_read(path)
    if file is None:
        return None
    running = MultiHash(algorithms)
    with reading(file):
        done = 0
        while chunk := call.disk.perform("read", path, lambda: file.read(_CHUNK)):
            running.update(chunk)
            done += len(chunk)
            call.report(Phase.CHECKING, done, total)
    return running.hexdigests()
