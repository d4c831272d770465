"""Give a finished file its final name, even if another process holds it or the volume cannot rename.

Each round tries a rename that does not replace, then a hard link, then a verified copy. A link needs no DELETE access,
so a holder that does not share deletion cannot prevent it. Only if all three methods are refused does the operation
wait before another round.
"""

from __future__ import annotations

import errno
import os
from typing import BinaryIO, NoReturn

from .._exceptions import Cause, CommitError
from .._hashes import MultiHash
from .copy import copy_contents
from .errors import ErrorKind, classify, code_of, is_access_denied, is_delete_pending, probe_writable
from .link import AllRefusedError, Destination, Method
from .robustio import RobustIO, close_quietly, commit_error, reading

_RENAME, _LINK, _COPY = "rename", "link", "copy"


def persist_noclobber(
    fs: RobustIO,
    source: str,
    target: str,
    *,
    destination: Destination,
    sha256: str,
    keep: bool = False,
    source_read_only: bool = False,
) -> str:
    """Give the file ``source`` the name ``target``, and return the method: ``rename``, ``link`` or ``copy``.

    Args:
        fs: the file system of the operation.
        source: the finished file. It no longer exists afterwards, or is swept later if another process holds it.
        target: its final name.
        destination: remembers the methods that do not work there.
        sha256: the sha256 of the file, in hex. A copy is verified against it.
        keep: do not rename or delete the source.
        source_read_only: do not rename, link or delete the source.

    Raises:
        FileExistsError: if the target exists.
        CommitError: if every method is refused, permanently or until the retry budget is spent.
    """
    allowed = [_RENAME, _LINK, _COPY]
    if source_read_only:
        allowed = [_COPY]
    elif keep:
        allowed = [_LINK, _COPY]
    method = _Persisting(fs, source, target, destination, sha256).run(allowed)
    if method != _RENAME and not (keep or source_read_only):
        fs.discard(source)
    return method


class _Persisting:
    """The rounds for one file."""

    def __init__(self, fs: RobustIO, source: str, target: str, destination: Destination, sha256: str) -> None:
        self._fs = fs
        self._source = source
        self._target = target
        self._destination = destination
        self._sha256 = sha256
        self._rounds = 0
        self._started = fs.system.monotonic()
        self._poll = fs.holder_poll(source, target)
        self._is_denied: bool | None = None

    def run(self, allowed: list[str]) -> str:
        """Try rounds of these methods until one succeeds, and return its name."""
        try:
            return self._fs.op.retry_within_budget(
                lambda: self._attempt_round(allowed),
                is_transient=self._is_transient,
                while_waiting=self._poll.poll,
            )
        except AllRefusedError as refused:
            error = _most_telling(refused, self._target)
            raise self._to_error(error, refused) from error

    def _attempt_round(self, allowed: list[str]) -> str:
        self._rounds += 1
        methods = [
            (name, action)
            for name, action in self._methods()
            if name in allowed and (name == _COPY or self._destination.supports(name))
        ]
        return self._destination.attempt(methods, self._target, self._on_refusal)

    def _methods(self) -> list[Method]:
        fs, source, target = self._fs, self._source, self._target
        return [
            (_RENAME, lambda: fs.files.rename(source, target)),
            (_LINK, lambda: fs.files.link(source, target)),
            (_COPY, lambda: checked_copy(fs, source, target, self._sha256)),
        ]

    def _on_refusal(self, method: str, error: OSError, kind: ErrorKind) -> None:
        """End the round if another method cannot help."""
        if isinstance(error, CommitError):
            raise error
        if kind is ErrorKind.EXISTS or (
            method == _COPY and is_delete_pending(error) and error.filename == self._target
        ):
            # A deleted file keeps its name until its last reader closes it.
            raise FileExistsError(*error.args) from error
        if kind is ErrorKind.MISSING:
            self._handle_missing(error)
        if kind is ErrorKind.BLOCKED:
            raise commit_error(error, "commit", self._source, target=self._target) from error

    def _handle_missing(self, error: OSError) -> None:
        """Create the folder of the target again. Raise the error if our finished file is missing."""
        if self._fs.stat(self._source) is None:
            raise commit_error(error, "commit", self._source, target=self._target, cause=Cause.REMOVED) from error
        self._fs.make_folder(os.path.dirname(self._target))

    def _is_transient(self, error: BaseException) -> bool:
        if not isinstance(error, AllRefusedError) or not _can_be_transient(error, self._target):
            return False
        if self._is_denied is None and is_access_denied(_most_telling(error, self._target)):
            self._is_denied = not probe_writable(self._fs.system, os.path.dirname(self._target))
        return not self._is_denied

    def _to_error(self, error: OSError, refused: AllRefusedError) -> CommitError:
        if self._rounds > 1:
            self._poll.poll(final=True)
        return commit_error(
            error,
            "commit",
            self._source,
            target=self._target,
            attempts=self._rounds,
            elapsed=self._fs.system.monotonic() - self._started,
            cause=Cause.DENIED if self._is_denied else self._fs.cause(error, self._target, self._poll),
            steps=tuple((name, code_of(refusal)) for name, refusal in refused.refusals),
            holders=self._poll.holders,
        )


def _transient(refused: AllRefusedError, target: str) -> list[OSError]:
    kinds = {ErrorKind.TRANSIENT, ErrorKind.MISSING}
    return [error for _, error in refused.refusals if classify(error, target) in kinds]


def _can_be_transient(refused: AllRefusedError, target: str) -> bool:
    """Return whether another round may succeed. On a full volume, no round can."""
    is_full = classify(refused.refusals[-1][1], target) is ErrorKind.NO_SPACE
    return bool(_transient(refused, target)) and not is_full


def _most_telling(refused: AllRefusedError, target: str) -> OSError:
    """Return the error to report.

    If a file is held, the first transient refusal explains more than the last refusal. The last one may only say that
    the volume lacks a feature.
    """
    if _can_be_transient(refused, target):
        return _transient(refused, target)[0]
    return refused.refusals[-1][1]


def checked_copy(fs: RobustIO, source: str, target: str, sha256: str) -> None:
    """Copy a file to a name that does not exist, and verify the bytes that were read.

    A failed copy is deleted if possible. A copy that remains has no record, and so does not count as an entry.

    Raises:
        FileExistsError: if the target exists.
        OSError: if the copy is refused.
        CommitError: if the source does not have this hash. No other method may be tried then.
    """
    with reading(fs.files.open_read(source)) as reader:
        writer = fs.files.create(target)
        inode = os.fstat(writer.fileno()).st_ino
        try:
            _copy_mode(fs, reader, writer)
            hasher = MultiHash()
            copy_contents(fs, reader, writer, hasher=hasher)
            if hasher.hexdigests()["sha256"] != sha256:
                _refuse_altered(source, target)
            writer.close()
        except BaseException:
            close_quietly(writer)
            _discard_own(fs, target, inode)
            raise
    if fs.files.stat(target).st_ino != inode:
        # Another process mistook the unfinished copy for a damaged file and replaced it by its own file.
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)


def _copy_mode(fs: RobustIO, reader: BinaryIO, writer: BinaryIO) -> None:
    """Copy the permissions, so that an executable file remains executable."""
    try:
        fs.files.copy_permissions(reader, writer)
    except OSError:
        pass  # this volume has no permissions, or does not let us set them


def _discard_own(fs: RobustIO, path: str, inode: int) -> None:
    """Delete an unfinished copy, unless another process has replaced it by its own file."""
    try:
        if fs.system.files.stat(path).st_ino == inode:
            fs.discard(path)
    except OSError:
        pass  # a copy without a record does not count as an entry


def _refuse_altered(source: str, target: str) -> NoReturn:
    altered = OSError(errno.EIO, "the file changed before it was copied", source, None, target)
    raise commit_error(altered, "commit", source, target=target)
