"""Perform file operations with retries while another process holds the file, and describe refusals.

:class:`RobustIO` is the file system of one operation. Each call checks for cancellation, and is retried while its
refusal is transient and the retry budget lasts. A refused call raises a :class:`CommitError` with everything that is
known about the refusal. A missing or an existing file is an answer and not a refusal, so its error is raised unchanged.

:mod:`.persist` gives a finished file its final name by one of several methods.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

from .._exceptions import Cause, CommitError
from .._operation import CancelToken, Operation
from .._os.confined.entries import FolderEntry, UnsafePathError
from .._os.files import FileSystem
from .._os.system import System
from .cancellable import CancellableFiles
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
from .tempnames import OwnerTag

_T = TypeVar("_T")

# The first query waits, because most holders close the file before a query would end.
_FIRST_POLL = 0.25
_MAX_INTERVAL = 8.0
# Another process may prune a folder between its creation and its use. More failures in a row are not due to such a
# race.
_FOLDER_ATTEMPTS = 5
# The operations for which "access denied" is investigated, and whether each creates a new name.
_INVESTIGATED = {"create": True, "mkdir": True, "replace": True, "open": False, "read": False}


class HolderPoll:
    """Finds the processes that have a file open, while an operation waits for them.

    After the wait, these processes may have ended.

    Args:
        query: returns the processes that have any of the given files open.
        monotonic: the clock.
        paths: the files. Empty paths are ignored.

    Attributes:
        holders: the processes that the last successful query found.
    """

    def __init__(
        self, query: Callable[[Sequence[str]], tuple[str, ...]], monotonic: Callable[[], float], *paths: str
    ) -> None:
        self.holders: tuple[str, ...] = ()
        self._query = query
        self._monotonic = monotonic
        self._paths = [path for path in paths if path]
        self._interval = _FIRST_POLL
        self._next_poll = monotonic() + _FIRST_POLL

    def poll(self, *, final: bool = False) -> None:
        """Query the holders if the polling interval has elapsed.

        With ``final``, query once more unless a holder is already known. Errors are ignored, because the holder's name
        is a courtesy and must not change the outcome.
        """
        due = self._monotonic() >= self._next_poll
        if self.holders if final else not due:
            return
        try:
            self.holders = self._query(self._paths) or self.holders
        except Exception:
            pass  # a failed query only leaves the error without a name
        self._interval = min(self._interval * 2, _MAX_INTERVAL)
        self._next_poll = self._monotonic() + self._interval


class RobustIO:
    """The file system of one operation.

    Attributes:
        op: the operation.
        system: the operating system.
        files: the file operations. Each checks for cancellation, and makes one attempt.
    """

    __slots__ = ("files", "op", "system")

    def __init__(self, op: Operation) -> None:
        self.op = op
        self.system: System = op.system
        self.files: FileSystem = CancellableFiles(op)

    def without_waiting(self) -> RobustIO:
        """Return a view with an empty retry budget, for best-effort work."""
        return RobustIO(self.op.without_waiting())

    def for_cleanup(self) -> RobustIO:
        """Return a view that cannot be cancelled, for cleanup."""
        return RobustIO(self.op.for_cleanup())

    def with_token(self, token: CancelToken) -> RobustIO:
        """Return a view for work in several threads, which this token also cancels."""
        return RobustIO(self.op.with_token(token))

    def about(self, wheel: str) -> RobustIO:
        """Return a view that reports progress for another wheel."""
        return RobustIO(self.op.about(wheel))

    def temporary_tag(self, *, owned: bool = True) -> str:
        """Return a unique owner tag for the name of a new temporary file."""
        return OwnerTag.new(self.system.now(), self.system.boot(), owned=owned)

    def close_folders(self) -> None:
        """Close the folders that the file layer has kept open for this thread."""
        self.system.files.close_folders()

    def perform(self, operation: str, path: str, action: Callable[[], _T], *, target: str = "") -> _T:
        """Perform a file operation, and repeat it while its refusal is transient and the retry budget lasts.

        Raises:
            OSError: unchanged, if the file is missing or exists.
            CommitError: for every other refusal.
            OperationCancelledError: if the operation was cancelled, before an attempt or during a wait.
        """
        self.op.check()
        started = self.system.monotonic()
        try:
            return action()
        except OSError as error:
            if isinstance(error, CommitError) or is_answer(error, path):
                raise
            first = error
        # _Attempts is created only after a refusal, because hits and walks perform many operations and must be fast.
        return self._retry(_Attempts(self, operation, path, target, started), action, first)

    def _retry(self, attempts: _Attempts, action: Callable[[], _T], first: OSError) -> _T:
        def once() -> _T:
            attempts.count += 1
            if attempts.count == 1:
                raise first
            self.op.check()
            return action()

        try:
            return self.op.retry_within_budget(
                once,
                is_transient=attempts.is_transient,
                while_waiting=attempts.poll_holders,
                since=attempts.started,
            )
        except OSError as error:
            if isinstance(error, CommitError) or is_answer(error, attempts.path):
                raise
            raise attempts.to_error(error) from error

    def holder_poll(self, *paths: str) -> HolderPoll:
        """Return a poll for the processes that have these files open."""
        return HolderPoll(self.system.holders, self.system.monotonic, *paths)

    def cause(self, error: OSError, path: str, poll: HolderPoll | None = None, *, reading: bool = False) -> Cause:
        """Return the cause of a refusal, judged by its code and by evidence from the file system."""
        if poll is not None and poll.holders:
            return Cause.HELD
        return observed_cause(self.system, error, path, reading=reading)

    def create(self, path: str) -> BinaryIO:
        """Create a file for writing, and its missing parent folders.

        Raises:
            FileExistsError: if the file exists.
            CommitError: if the creation is refused.
        """
        for _ in range(_FOLDER_ATTEMPTS):
            try:
                return self.perform("create", path, lambda: self.files.create(path))
            except OSError as error:
                if not is_missing(error, path):
                    raise
                missing = error
                self.make_folder(os.path.dirname(path))
        raise commit_error(missing, "create", path, attempts=_FOLDER_ATTEMPTS) from missing

    def make_folder(self, path: str) -> None:
        """Create a folder and its missing parents. An existing folder is accepted.

        Raises:
            CommitError: if the creation is refused, or the path is a file.
        """
        for _ in range(_FOLDER_ATTEMPTS):
            try:
                self.perform("mkdir", path, lambda: self._make_folder_once(path))
            except OSError as error:
                if self.files.is_dir(path):
                    return
                if not self._was_pruned(error, path):
                    refusal = self._find_link(path) or error
                    raise commit_error(refusal, "mkdir", path) from refusal
                pruned = error
            else:
                return
        raise commit_error(pruned, "mkdir", path, attempts=_FOLDER_ATTEMPTS) from pruned

    def _find_link(self, path: str) -> UnsafePathError | None:
        """Return the error for a link in place of a folder of the cache, or ``None`` for any other obstacle."""
        try:
            self.files.scan(path)
        except UnsafePathError as error:
            return error
        except OSError:
            pass
        return None

    def _was_pruned(self, error: OSError, path: str) -> bool:
        """Return whether another process has just deleted the folder or its parent."""
        if isinstance(error, CommitError) or not is_answer(error, path):
            return False
        return is_missing(error, path) or self.stat(path) is None

    def _make_folder_once(self, path: str) -> None:
        try:
            self.files.mkdir(path)
        except OSError as error:
            # The folder is looked up only after the attempt, because the attempt usually succeeds. The error code does
            # not show whether the folder exists. For the root of a drive, for example, Windows reports "access denied".
            # A link to a folder is accepted.
            if self.files.is_dir(path):
                return
            parent = os.path.dirname(path)
            if not is_missing(error, path) or parent == path:
                raise
            self.make_folder(parent)
            self.files.mkdir(path)

    def open_read(self, path: str) -> BinaryIO | None:
        """Open a file for reading, or return ``None`` if it is missing."""
        return self._unless_missing("open", path, self.files.open_read)

    def stat(self, path: str) -> os.stat_result | None:
        """Return the status of a file, or ``None`` if it is missing."""
        return self._unless_missing("stat", path, self.files.stat)

    def change_time(self, path: str) -> int | None:
        """Return the change time of a file or folder in nanoseconds, or ``None`` if it is missing."""
        return self._unless_missing("stat", path, self.files.change_time)

    def scan(self, path: str) -> list[FolderEntry]:
        """Return the entries of a folder, or an empty list if it is missing."""
        return self._unless_missing("scan", path, self.files.scan) or []

    def _unless_missing(self, operation: str, path: str, action: Callable[[str], _T]) -> _T | None:
        started = self.system.monotonic()
        try:
            # A call of perform() would take longer, and a walk makes thousands of these attempts.
            return action(path)
        except OSError as error:
            if is_missing(error, path):
                return None
            if isinstance(error, CommitError) or is_answer(error, path):
                raise
            first = error
        try:
            return self._retry(_Attempts(self, operation, path, "", started), lambda: action(path), first)
        except OSError as error:
            if is_missing(error, path):
                return None
            raise

    def touch(self, path: str, seconds: float) -> None:
        """Set the time stamp of a file, best effort, without waiting or raising. Cannot be cancelled."""
        try:
            self.system.files.touch(path, seconds)
        except OSError:
            pass

    def remove_folder(self, path: str) -> bool:
        """Delete an empty folder, and return whether it no longer exists.

        Never waits or raises, and cannot be cancelled.
        """
        try:
            self.system.files.rmdir(path)
        except OSError as error:
            return is_missing(error, path)
        return True

    def discard(self, path: str) -> bool:
        """Delete a file, and return whether it no longer exists. Never waits or raises, and cannot be cancelled.

        A temporary file that cannot be deleted is swept later, because its name contains its owner and age.
        """
        try:
            self.system.files.unlink(path)
        except OSError as error:
            return is_missing(error, path)
        return True

    def write_small(self, path: str, data: bytes, temporary: str) -> None:
        """Write a small file, replacing an existing one.

        The file need not appear atomically, since readers accept only content with a valid checksum. Creation in place
        is tried first, since no process can hold a missing file. If the file exists, ``temporary`` is written and
        renamed over it. If a holder does not share deletion and the rename is refused, the file is overwritten.

        Raises:
            CommitError: if every method is refused.
        """
        try:
            self.create_small(path, data)
        except FileExistsError:
            try:
                # The temporary file is written once and not for each attempt, since a scanner that holds the temporary
                # file only delays the rename.
                self.create_small(temporary, data)
                self.perform("replace", temporary, lambda: self._put_in_place(path, data, temporary), target=path)
            except BaseException as error:
                self.discard(temporary)
                if isinstance(error, OSError):
                    raise commit_error(error, "replace", temporary, target=path) from error
                raise

    def _put_in_place(self, path: str, data: bytes, temporary: str) -> None:
        try:
            self.files.replace(temporary, path)
        except OSError as error:
            if classify(error, path) is not ErrorKind.TRANSIENT:
                raise
            # The file is truncated last, so that the write needs no free space and the old content is valid until the
            # write.
            with self.files.open_write(path) as file:
                write_all(file, data)
                file.truncate()
            self.discard(temporary)

    def create_small(self, path: str, data: bytes) -> None:
        """Create a small file. An incomplete file is kept, since another process may have completed it by now.

        Raises:
            FileExistsError: if the file exists.
            CommitError: if the creation or a write is refused.
        """
        file = self.create(path)
        try:
            write_all(file, data)
            file.close()
        except OSError as error:
            raise commit_error(error, "write", path) from error
        finally:
            close_quietly(file)


class _Attempts:
    """The attempts at one file operation, and the facts that are known about their refusals."""

    def __init__(self, fs: RobustIO, operation: str, path: str, target: str, started: float) -> None:
        self.count = 0
        self.path = path
        self.started = started
        self._fs = fs
        self._operation = operation
        self._target = target
        self._cause: Cause | None = None
        self._is_investigated = False
        # The poll is created at the first transient refusal, since other errors need no query.
        self._poll: HolderPoll | None = None

    def is_transient(self, error: BaseException) -> bool:
        """Return whether another attempt may succeed."""
        if isinstance(error, CommitError) or not isinstance(error, OSError):
            return False  # the operation behind a CommitError was retried already
        if classify(error, self.path) is not ErrorKind.TRANSIENT:
            return False
        self._poll = self._poll or self._fs.holder_poll(self.path, self._target)
        if is_access_denied(error) and self._operation in _INVESTIGATED and not self._is_investigated:
            self._is_investigated = True
            creating, folder = _INVESTIGATED[self._operation], self._operation == "mkdir"
            at = self._target or self.path
            self._cause = permanent_cause(self._fs.system, at, creating=creating, folder=folder)
        return self._cause is None

    def poll_holders(self) -> None:
        """Query the holders of the file if the polling interval has elapsed."""
        if self._poll is not None:
            self._poll.poll()

    def to_error(self, error: OSError) -> CommitError:
        """Return the error for the caller, with all known facts."""
        if self._poll is not None and self.count > 1:
            self._poll.poll(final=True)
        reading = _INVESTIGATED.get(self._operation) is False
        return commit_error(
            error,
            self._operation,
            self.path,
            target=self._target,
            attempts=self.count,
            elapsed=self._fs.system.monotonic() - self.started,
            cause=self._cause or self._fs.cause(error, self._target or self.path, self._poll, reading=reading),
            holders=self._poll.holders if self._poll is not None else (),
        )


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write every byte, since one write to an unbuffered file may accept fewer bytes."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def close_quietly(file: BinaryIO) -> None:
    """Close a file that was only read or is discarded, ignoring errors."""
    try:
        file.close()
    except OSError:
        pass  # the descriptor is closed despite the error


@contextmanager
def reading(file: BinaryIO) -> Iterator[BinaryIO]:
    """Close a file that is only read, at the end of the block."""
    try:
        yield file
    finally:
        close_quietly(file)


def is_missing(error: OSError, path: str) -> bool:
    """Return whether the error means that the file or its folder does not exist."""
    return not isinstance(error, CommitError) and classify(error, path) is ErrorKind.MISSING


def is_answer(error: OSError, path: str) -> bool:
    """Return whether the error is an answer and not a refusal, since the file is missing or exists."""
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
    """Return the error for a refusal, with all known facts. A :class:`CommitError` is returned unchanged."""
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
