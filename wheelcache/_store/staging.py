"""Write a temporary file, and hash it while it is written. One handle writes and reads the file.

The file is not reopened between writing and committing. If it is not committed, because of an error or Ctrl-C, it is
deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from .._exceptions import HashMismatchError, InvalidWheelError, SizeMismatchError
from .._fs.robustio import RobustIO, close_quietly, commit_error, write_all
from .._hashes import MultiHash
from .._models import Phase

_READ_CHUNK = 1 << 20

# A comment of up to 64 KiB may follow the end record of a zip archive:
# https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.16
_END_RECORD = b"PK\x05\x06"
_END_RECORD_SIZE = 22
_END_RECORD_REACH = _END_RECORD_SIZE + (1 << 16)

_CHECK_RESPONSE = "Check the response of this URL. It is often a login or error page."
_CHECK_FILE = "Check the file. It is incomplete, or not a wheel."


class FinishedFile(NamedTuple):
    """A complete and verified temporary file.

    Attributes:
        path: the path of the file.
        size: the size in bytes.
        hashes: the hashes in hex, by algorithm. They always include sha256.
    """

    path: str
    size: int
    hashes: Mapping[str, str]


class StagedFile:
    """One temporary file, from its creation to its commit.

    Args:
        fs: the file system of the operation.
        path: the path of the file. No other file may exist there.
        expected: the hashes that the file must have, in hex, by algorithm.
        size: the size in bytes that the file must have, or ``None``.
        display_url: the redacted URL that errors report as the source, or ``None``.
        source: the absolute path that errors report as the source, if the source is a local file.
        file: the existing file, open for reading and writing, or ``None``. :meth:`resume` hashes its contents.
    """

    def __init__(
        self,
        fs: RobustIO,
        path: str,
        *,
        expected: Mapping[str, str],
        size: int | None = None,
        display_url: str | None = None,
        source: str | None = None,
        file: BinaryIO | None = None,
    ) -> None:
        self.path = path
        self.written = 0
        self._fs = fs
        self._expected = expected
        self._size = size
        self._origin: dict[str, Any] = {"path": source} if display_url is None else {"url": display_url}
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

    def resume(self, fs: RobustIO) -> None:
        """Hash the existing contents of the file, through the handle that will continue to write it.

        Raises:
            CommitError: if the file cannot be read.
        """
        while chunk := self._fs.perform("read", self.path, lambda: self._file.read(_READ_CHUNK)):
            self._running.update(chunk)
            self.written += len(chunk)
            fs.op.report(Phase.CHECKING, self.written)

    def write(self, data: bytes | memoryview, *, check_size: bool = True) -> None:
        """Write and hash the next bytes.

        Args:
            data: the bytes.
            check_size: whether to compare the size with the expected one. False for bytes with a content coding.

        Raises:
            SizeMismatchError: if the file exceeds its expected size. This is checked at once, because a body may have
                no end.
            CommitError: if the bytes cannot be written.
        """
        self.written += len(data)
        if check_size and self._size is not None and self.written > self._size:
            raise SizeMismatchError(operation="download", **self._origin, expected=self._size, actual=self.written)
        self._running.update(data)
        try:
            write_all(self._file, data)
        except OSError as error:
            raise commit_error(error, "write", self.path) from error

    def restart(self) -> None:
        """Discard all bytes, and begin again with an empty file."""
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as error:
            raise commit_error(error, "truncate", self.path) from error
        self.written = 0
        self._running = MultiHash(self._algorithms)

    def starts_with(self, prefix: bytes) -> bool:
        """Return whether the file begins with these bytes. Call :meth:`restart` before writing to the file again.

        Raises:
            CommitError: if the file cannot be read.
        """
        return next(self._read_back(len(prefix)), b"") == prefix

    def rewrite(self, path: str, convert: Callable[[Iterator[bytes]], Iterable[bytes]]) -> None:
        """Convert the contents into a new temporary file. The new file replaces this one. The old file is deleted.

        If the conversion fails, the old file remains. Call :meth:`restart` before writing to it again.

        Args:
            path: the path of the new file. No other file may exist there.
            convert: returns the new contents, given the old ones.

        Raises:
            SizeMismatchError: if the new contents exceed the expected size.
            CommitError: if the old file cannot be read, or the new one cannot be written.
            Exception: the errors of ``convert``.
        """
        with StagedFile(
            self._fs,
            path,
            expected=self._expected,
            size=self._size,
            display_url=self._origin.get("url"),
            source=self._origin.get("path"),
        ) as converted:
            for piece in convert(self._read_back(_READ_CHUNK)):
                self._fs.op.check()
                converted.write(piece)
            # At the end of the block, the other object closes and deletes the old file.
            self.path, converted.path = converted.path, self.path
            self.written, converted.written = converted.written, self.written
            self._running, converted._running = converted._running, self._running
            self._file, converted._file = converted._file, self._file

    def _read_back(self, size: int) -> Iterator[bytes]:
        self._fs.perform("read", self.path, lambda: self._file.seek(0))
        while chunk := self._fs.perform("read", self.path, lambda: self._file.read(size)):
            yield chunk

    def check(self) -> Mapping[str, str]:
        """Verify the bytes, and return their hashes.

        Raises:
            HashMismatchError: if a hash is not the expected one.
            SizeMismatchError: if the size is not the expected one.
            InvalidWheelError: if no hash was expected, and the bytes are not a zip archive.
            CommitError: if the file cannot be read.
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
                advice="The source has another file than the requested one. Check the hash, or the source.",
            )
        try:
            is_archive = bool(self._expected) or _is_archive(self._file, self.written)
        except OSError as error:
            raise commit_error(error, "read", self.path) from error
        if not is_archive:
            is_local = self._origin.get("url", "file:").startswith("file:")
            raise InvalidWheelError(
                "the file is not a zip archive, because it has no end record",
                operation="check",
                **self._origin,
                advice=_CHECK_FILE if is_local else _CHECK_RESPONSE,
            )
        return hashes

    def release(self) -> None:
        """Close the file, and keep it at its path."""
        close_quietly(self._file)
        self._moved = True

    def seal(self) -> FinishedFile:
        """Verify the bytes, close the file, and return its path, size and hashes.

        Raises:
            HashMismatchError, SizeMismatchError, InvalidWheelError: see :meth:`check`.
            CommitError: if the file cannot be read or closed.
        """
        hashes = self.check()
        try:
            self._file.close()
        except OSError as error:
            raise commit_error(error, "close", self.path) from error
        return FinishedFile(self.path, self.written, hashes)

    def mark_moved(self) -> None:
        """Record that the file has its final name and must not be deleted."""
        self._moved = True


def _is_archive(file: BinaryIO, size: int) -> bool:
    """Return whether the file has the end record of a zip archive.

    Unlike in ``zipfile.is_zipfile``, a failed read is an error and not a negative result.
    """
    file.seek(max(0, size - _END_RECORD_REACH))
    tail = b""
    while more := file.read(_END_RECORD_REACH):
        tail += more
    found = tail.rfind(_END_RECORD)
    return found >= 0 and len(tail) - found >= _END_RECORD_SIZE
