"""The commit ladder: giving a finished file its final name although somebody holds it, or the volume cannot rename.

In one round: rename without replacing; if that is refused, hard link (making a link asks for no DELETE access, so a
holder without share-delete cannot stop it); if that is refused, copy, checked while copying. Only when all three are
refused does it wait, and goes round again. What a volume cannot do is remembered for its folder, so that the second
file pays nothing; a refusal that passes is never remembered.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import BinaryIO, NoReturn

from .._exceptions import Cause, CommitError
from .._hashes import MultiHash
from .errors import (
    ErrorKind,
    classify,
    code_of,
    is_access_denied,
    is_delete_pending,
    is_permanently_unsupported,
    probe_writable,
)
from .robustio import RobustIO, close_quietly, commit_error, reading, write_all

_CHUNK = 1 << 20


class _AllRefusedError(Exception):
    """A round in which every step was refused.

    Attributes:
        telling: the refusal that says most.
        steps: what was tried.
        may_pass: whether another round may do better.
    """

    def __init__(self, telling: OSError, steps: tuple[tuple[str, str], ...], *, can_be_transient: bool) -> None:
        super().__init__()
        self.telling = telling
        self.steps = steps
        self.can_be_transient = can_be_transient


class Persister:
    """The steps, and what is known of the folders they were tried in."""

    def __init__(self) -> None:
        self._lacking: set[tuple[str, str]] = set()

    def place(
        self,
        fs: RobustIO,
        source: str,
        target: str,
        *,
        scope: str,
        sha256: str,
        keep: bool = False,
        never_hardlink_from: bool = False,
    ) -> str:
        """Give ``source`` the name ``target``; return the step that did it: ``rename``, ``link`` or ``copy``.

        ``scope`` is the folder whose volume's abilities are remembered. With ``keep`` the source stays, and no rename
        is tried; without, it is gone, or left to be swept where somebody holds it. With ``untouched`` it is only read.

        Raises:
            FileExistsError: where the target exists; the caller looks at it.
            CommitError: where every step is refused and none of them can pass, or the time is up.
        """
        started = fs.system.monotonic()
        rounds = 0
        watch = fs.holder_poll(source, target)
        denied: bool | None = None

        def climb() -> str:
            nonlocal rounds
            rounds += 1
            return self._round(
                fs,
                source,
                target,
                scope,
                self._steps(fs, sha256, keep=keep, never_hardlink_from=never_hardlink_from),
            )

        def passing(error: BaseException) -> bool:
            nonlocal denied
            if not isinstance(error, _AllRefusedError) or not error.can_be_transient:
                return False
            if denied is None and is_access_denied(error.telling):
                denied = not probe_writable(fs.system, os.path.dirname(target))
            return not denied

        try:
            step = fs.op.retry_within_budget(climb, is_transient=passing, while_waiting=watch.poll)
        except _AllRefusedError as all_refused:
            if rounds > 1:
                watch.poll(final=True)
            raise commit_error(
                all_refused.telling,
                "commit",
                source,
                target=target,
                attempts=rounds,
                elapsed=fs.system.monotonic() - started,
                cause=Cause.DENIED if denied else fs.cause(all_refused.telling, target, watch),
                steps=all_refused.steps,
                holders=watch.holders,
            ) from all_refused.telling
        if step != "rename" and not (keep or never_hardlink_from):
            fs.discard(source)
        return step

    def _round(
        self, fs: RobustIO, source: str, target: str, scope: str, ways: list[tuple[str, Callable[[str, str], None]]]
    ) -> str:
        steps: list[tuple[str, str]] = []
        errors: list[OSError] = []
        for step, action in ways:
            if (step, scope) in self._lacking:
                continue
            try:
                action(source, target)
            except OSError as error:
                if isinstance(error, CommitError):
                    raise
                refusal = classify(error, target)
                if refusal is ErrorKind.EXISTS or (
                    step == "copy" and is_delete_pending(error) and error.filename == target
                ):
                    # A file that is deleted and still open keeps its name for as long as its reader likes.
                    raise FileExistsError(*error.args) from error
                if refusal is ErrorKind.MISSING:
                    _explain_missing(fs, source, target, error)
                if refusal is ErrorKind.BLOCKED:
                    raise commit_error(error, "commit", source, target=target) from error
                if refusal is ErrorKind.UNSUPPORTED and step != "copy" and is_permanently_unsupported(error):
                    self._lacking.add((step, scope))
                steps.append((step, code_of(error)))
                errors.append(error)
            else:
                return step
        raise _summed_up(target, errors, tuple(steps))

    def _steps(
        self, fs: RobustIO, sha256: str, *, keep: bool, never_hardlink_from: bool
    ) -> list[tuple[str, Callable[[str, str], None]]]:
        def copy(source: str, target: str) -> None:
            checked_copy(fs, source, target, sha256)

        steps: list[tuple[str, Callable[[str, str], None]]] = [("link", fs.files.link), ("copy", copy)]
        if never_hardlink_from:
            return steps[1:]
        return steps if keep else [("rename", fs.files.rename), *steps]


def _summed_up(target: str, errors: list[OSError], steps: tuple[tuple[str, str], ...]) -> _AllRefusedError:
    """Choose the error to tell, and whether to go round again.

    The first refusal that can pass says more than the last one: a holder is the reason, that links are not supported
    here is only why it mattered.
    """
    passing = [error for error in errors if classify(error, target) in {ErrorKind.TRANSIENT, ErrorKind.MISSING}]
    if not passing or classify(errors[-1], target) is ErrorKind.NO_SPACE:
        return _AllRefusedError(errors[-1], steps, can_be_transient=False)
    return _AllRefusedError(passing[0], steps, can_be_transient=True)


def _explain_missing(fs: RobustIO, source: str, target: str, error: OSError) -> None:
    """Find out what is missing: our own finished file, or the folder it goes to."""
    if fs.stat(source) is None:
        raise commit_error(error, "commit", source, target=target, cause=Cause.REMOVED) from error
    fs.make_folder(os.path.dirname(target))


def checked_copy(fs: RobustIO, source: str, target: str, sha256: str) -> None:
    """Copy a file to a name that is not there yet, and see that what was read is what it should be.

    A copy that failed is deleted where that can be; where not it stays without a record, and is no entry.

    Raises:
        FileExistsError: where the target exists.
        OSError: where it is refused.
        CommitError: where the file is not what it should be: then no step may give it a name.
    """
    with reading(fs.files.open_read(source)) as reader:
        writer = fs.files.create(target)
        made = os.fstat(writer.fileno()).st_ino
        try:
            _copy_mode(fs, reader, writer)
            if _pump(reader, writer) != sha256:
                _refuse_altered(source, target)
            writer.close()
        except BaseException:
            close_quietly(writer)
            _discard_own(fs, target, made)
            raise
    if fs.files.stat(target).st_ino != made:
        # Another process took the unfinished file for a damaged one, moved it away, and put its own there.
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)


def _copy_mode(fs: RobustIO, reader: BinaryIO, writer: BinaryIO) -> None:
    """A program stays one, whichever step of the ladder brought it."""
    try:
        fs.files.copy_permissions(reader, writer)
    except OSError:
        pass  # this volume has none, or not for us to give


def _discard_own(fs: RobustIO, path: str, made: int) -> None:
    """Delete what is left of a copy, unless another process has taken it away and put its own in its place."""
    try:
        if fs.system.files.stat(path).st_ino == made:
            fs.discard(path)
    except OSError:
        pass  # it stays, without a record, and is no entry


def _pump(reader: BinaryIO, writer: BinaryIO) -> str:
    running = MultiHash()
    while chunk := reader.read(_CHUNK):
        running.update(chunk)
        write_all(writer, chunk)
    return running.hexdigests()["sha256"]


def _refuse_altered(source: str, target: str) -> NoReturn:
    altered = OSError(errno.EIO, "the file changed before it was copied", source, None, target)
    raise commit_error(altered, "commit", source, target=target)
