"""Stage: a temporary file that is hashed as it is written, through the one handle that writes it.

Nothing opens the file again between writing and committing it. Whoever leaves without sealing and committing it, by
an error or by Ctrl-C, leaves no file behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from .._exceptions import HashMismatchError, InvalidWheelError, SizeMismatchError
from .._fs.robustio import RobustIO, close_quietly, commit_error, write_all
from .._hashes import MultiHash
from .._models import Phase

_CHUNK = 1 << 20

# Of a zip archive: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.16; a comment may follow.
_END_RECORD = b"PK\x05\x06"
_END_RECORD_SIZE = 22
_END_RECORD_REACH = _END_RECORD_SIZE + (1 << 16)

_LOOK_AT_ANSWER = "Look at what this URL gives: often it is a login or an error page."
_LOOK_AT_FILE = "Look at the file: it is none that was finished, or no wheel at all."


class FinishedFile(NamedTuple):
    """A finished temporary file: what it holds is known and is what was asked for.

    Attributes:
        path: where it is.
        size: bytes.
        hashes: all that were computed, by algorithm, in hex; sha256 is among them.
    """

    path: str
    size: int
    hashes: Mapping[str, str]


class StagedFile:
    """One temporary file, from its creation to its commit.

    Args:
        disk: where it is made.
        path: its name, which nothing else has.
        expected: the hashes that its bytes must have.
        size: the bytes that it must measure, or ``None``.
        shown: what errors call its origin: a redacted URL, or nothing.
        source: the same where it is a local file: its absolute path, or nothing.
        file: the file of this name, where it is there and open for writing; :meth:`take_up` hashes what it holds.
    """

    def __init__(
        self,
        fs: RobustIO,
        path: str,
        *,
        expected: Mapping[str, str],
        size: int | None = None,
        shown: str | None = None,
        source: str | None = None,
        file: BinaryIO | None = None,
    ) -> None:
        self.path = path
        self.written = 0
        self._fs = fs
        self._expected = expected
        self._size = size
        self._origin: dict[str, Any] = {"path": source} if shown is None else {"url": shown}
        self._algorithms: Collection[str] = tuple(expected)
        self._running = MultiHash(self._algorithms)
        self._file: BinaryIO = fs.create(path) if file is None else file
        self._moved = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_quietly(self._file)
        if not self._moved:
            self._fs.discard(self.path)

    def take_up(self, fs: RobustIO) -> None:
        """Hash what the file holds already, through the handle that goes on writing it.

        Raises:
            CommitError: where it cannot be read.
        """
        while chunk := self._fs.perform("read", self.path, lambda: self._file.read(_CHUNK)):
            self._running.update(chunk)
            self.written += len(chunk)
            fs.op.report(Phase.CHECKING, self.written)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            SizeMismatchError: when there are more than asked for; nobody waits for the rest of a body without end.
            CommitError: where they cannot be written.
        """
        self.written += len(data)
        if self._size is not None and self.written > self._size:
            raise SizeMismatchError(operation="download", **self._origin, expected=self._size, actual=self.written)
        self._running.update(data)
        try:
            write_all(self._file, data)
        except OSError as error:
            raise commit_error(error, "write", self.path) from error

    def restart(self) -> None:
        """Forget all bytes: the next one is the first."""
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as error:
            raise commit_error(error, "truncate", self.path) from error
        self.written = 0
        self._running = MultiHash(self._algorithms)

    def check(self) -> Mapping[str, str]:
        """Return the hashes of the bytes, which must be what was asked for.

        Raises:
            HashMismatchError, SizeMismatchError: where they are not.
            InvalidWheelError: where nothing was asked for and they are no zip archive.
            CommitError: where they cannot be looked at.
        """
        hashes = self._running.hexdigests()
        if self._size is not None and self.written != self._size:
            raise SizeMismatchError(operation="download", **self._origin, expected=self._size, actual=self.written)
        if any(hashes[name] != value for name, value in self._expected.items()):
            raise HashMismatchError(
                operation="check",
                **self._origin,
                expected=self._expected,
                actual=hashes,
                advice="The file at the source is not the one that was asked for: check the hash, or the source.",
            )
        try:
            is_archive = bool(self._expected) or _is_archive(self._file, self.written)
        except OSError as error:
            raise commit_error(error, "read", self.path) from error
        if not is_archive:
            is_local = self._origin.get("url", "file:").startswith("file:")
            raise InvalidWheelError(
                "the bytes are no zip archive with an end record",
                operation="check",
                **self._origin,
                advice=_LOOK_AT_FILE if is_local else _LOOK_AT_ANSWER,
            )
        return hashes

    def leave(self) -> None:
        """Close the file, and leave it where it is."""
        close_quietly(self._file)
        self._moved = True

    def seal(self) -> FinishedFile:
        """Check the bytes, close the file, and say what it holds.

        Raises:
            HashMismatchError, SizeMismatchError, InvalidWheelError: as :meth:`check`.
            CommitError: where the file cannot be closed.
        """
        hashes = self.check()
        try:
            self._file.close()
        except OSError as error:
            raise commit_error(error, "close", self.path) from error
        return FinishedFile(self.path, self.written, hashes)

    def moved(self) -> None:
        """The file has its final name: it is no longer this stage's to delete."""
        self._moved = True


def _is_archive(file: BinaryIO, size: int) -> bool:
    """Whether the end record of a zip archive is there. ``zipfile.is_zipfile`` takes a read that fails for a no."""
    file.seek(max(0, size - _END_RECORD_REACH))
    tail = b""
    while more := file.read(_END_RECORD_REACH):
        tail += more
    found = tail.rfind(_END_RECORD)
    return found >= 0 and len(tail) - found >= _END_RECORD_SIZE
