"""Keep the file of an unfinished download after a lost connection, Ctrl-C or a killed process, and resume it.

A process never writes to a file that another process may have open. An abandoned file is claimed by an exclusive rename
to a name of this process. A file is abandoned if its owner released it, or if process ID, boot and PID namespace prove
that the owner has ended. Any other file is copied, because its owner may run in another container or on another machine
and may still be writing.

A resumed file is hashed from its first byte, through the handle that continues to write it. The digest of the complete
file is then compared with the requested one. Without a requested hash, a download is resumed only if its URL has the
same strong validator, and only within the same boot. A power cut may leave zeros in the file. No check would detect
them.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from .._exceptions import Cause, CommitError, HashMismatchError, InvalidWheelError, SizeMismatchError
from .._fs.copy import copy_contents
from .._fs.hashing import is_hollow
from .._fs.robustio import RobustIO, close_quietly, reading
from .._fs.tempnames import OwnerTag, boot_tag
from .._http.headers import is_file_size, sendable_value
from .._request import ResolvedRequest, text_key
from .._store.layout import Layout, is_partial, origin_file
from .._store.records import decode, encode
from .._store.staging import StagedFile

# A smaller partial download is not kept, because downloading it again takes less time than a range request.
_MIN_BYTES = 1 << 14
# A download of at least this size has an origin file before it ends, in case the process is killed.
_ORIGIN_FILE_FROM = 1 << 20
# Bytes. The longest field is the validator, which has at most 1024 characters.
_LARGEST_ORIGIN_FILE = 1 << 16
# After a leftover of an unknown owner was copied, the original is deleted if it was not written to for this long.
_IDLE_SECONDS = 600.0


@dataclass(frozen=True)
class Origin:
    """The response that delivered the bytes of a partial download.

    Attributes:
        url: the hash of the URL. The URL itself may contain a secret.
        validator: the strong ETag or date for the If-Range of the next request, or ``None``.
        place: the hash of the URL that redirects led to, or an empty string if there were no redirects.
    """

    url: str
    validator: str | None
    place: str = ""

    @classmethod
    def of(cls, url: str, validator: str | None, place: str = "") -> Origin:
        """Return the origin of bytes that were received from a URL."""
        return cls(text_key(url), validator, place)

    def continues(self, other: Origin | None) -> bool:
        """Return whether this response continues the bytes of another one. This response may omit its validator."""
        if other is None or (self.url, self.place) != (other.url, other.place):
            return False
        return self.validator in {None, other.validator}

    def is_from(self, url: str) -> bool:
        """Return whether the bytes were received from this URL."""
        return self.url == text_key(url)


class PartialDownload:
    """A running download.

    Attributes:
        stage: the file.
        origin: the origin of the bytes, or ``None`` if it is unknown.
        total: the size of the complete file in bytes, or ``None`` if it is unknown.
        doubtful: whether the bytes may be damaged or belong to two different files. Only the digest can prove
            that they are intact.
        resumed: whether the file contains bytes of an earlier response.
        is_encoded: whether the bytes have a content coding. No other response can be appended to them.
        most_written: the largest size in bytes that the file has had.
    """

    def __init__(
        self,
        fs: RobustIO,
        layout: Layout,
        request: ResolvedRequest,
        stage: StagedFile,
        *,
        can_be_resumed: bool = True,
    ) -> None:
        self.stage = stage
        self.origin: Origin | None = None
        self.total: int | None = None
        self.doubtful = False
        self.resumed = False
        self.is_encoded = False
        self.most_written = 0
        self._fs = fs
        self._layout = layout
        self._request = request
        self._can_be_resumed = can_be_resumed
        self._saved: tuple[Origin, int | None] | None = None

    @property
    def remaining(self) -> int | None:
        """The number of missing bytes, or ``None`` if the size is unknown."""
        total = self.total if self._request.size is None else self._request.size
        return None if total is None else total - self.most_written

    def set_origin(self, origin: Origin, total: int | None) -> None:
        """Set the origin of the next bytes, and the size of the complete file."""
        if self.stage.written:
            self.resumed = True
            if self.origin != origin:
                self.doubtful = True
        self.origin = origin
        self.total = total

    def write(self, data: bytes | memoryview) -> None:
        """Append the next bytes."""
        self.stage.write(data, check_size=not self.is_encoded)
        self.most_written = max(self.most_written, self.stage.written)
        if self._saved is None and not self.is_encoded and self.stage.written >= _ORIGIN_FILE_FROM:
            self._save_origin()

    def rewrite(self, convert: Callable[[Iterator[bytes]], Iterable[bytes]]) -> None:
        """Replace the contents of the file: see :meth:`.StagedFile.rewrite`."""
        fs = self._fs
        self.stage.rewrite(self._layout.new_temporary(fs.temporary_tag(), fs.system.pid_namespace()), convert)

    def restart(self) -> None:
        """Discard all bytes, and continue with an empty file."""
        if self.stage.written:
            self.stage.restart()
        self.origin = None
        self.total = None
        self.doubtful = False
        self.resumed = False
        self.is_encoded = False
        if self._saved is not None:
            self._saved = None
            self._fs.discard(origin_file(self.stage.path))

    def _save_origin(self) -> None:
        """Write the origin file. A download without a requested hash cannot be resumed without it."""
        if self.origin is None or self._saved == (self.origin, self.total) or not self._can_be_resumed:
            return
        self._saved = self.origin, self.total
        _write_origin(self._fs, origin_file(self.stage.path), self.origin, self.total)

    def settle(self, error: BaseException | None) -> None:
        """Keep the file if a later download can resume it. Otherwise delete its origin file.

        Args:
            error: the exception that ended the download, or ``None``.
        """
        if error is not None and self._is_worth_keeping(error):
            self.release()
        elif self._saved is not None:
            self._fs.discard(origin_file(self.stage.path))

    def _is_worth_keeping(self, error: BaseException) -> bool:
        # Wrong bytes are useless. After an error of the file system, the file would only use space.
        is_useless = isinstance(error, HashMismatchError | SizeMismatchError | InvalidWheelError | CommitError)
        if is_useless or not self._can_be_resumed:
            return False
        validated = self.origin is not None and self.origin.validator is not None
        return not self.is_encoded and self.stage.written >= _MIN_BYTES and (bool(self._request.hashes) or validated)

    def release(self) -> None:
        """Rename the file to a name without an owner, so that the next download can claim it."""
        fs, system = self._fs.for_cleanup(), self._fs.system
        path = self.stage.path
        self.stage.release()
        owner = OwnerTag.new(system.now(), system.boot(), owned=False)
        released = self._layout.new_partial(self._request.key, owner, system.pid_namespace())
        if self._saved is not None:
            fs.discard(origin_file(path))
        if self.origin is not None:
            _write_origin(fs, origin_file(released), self.origin, self.total)
        try:
            fs.files.rename(path, released)
        except OSError:
            # Another process has the file open. The name still contains our process ID. The file can be copied now,
            # and claimed after this process has ended.
            fs.discard(origin_file(released))


class PartialDownloads:
    """The partial downloads of one cache folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @contextmanager
    def begin(self, fs: RobustIO, request: ResolvedRequest) -> Iterator[PartialDownload]:
        """Begin a download, or resume a leftover. If the download fails but can be resumed, keep its file."""
        leftovers = self._find_leftovers(fs, request)
        partial = self._resume(fs, request, leftovers)
        if partial is None:
            partial = self._create(fs, request)
        with partial.stage:
            try:
                yield partial
            except BaseException as error:
                partial.settle(error)
                raise
            partial.settle(None)
        if not all(leftover.is_abandoned for leftover in leftovers):
            # The owner of a copied leftover may have ended meanwhile. The complete wheel needs no leftovers.
            for leftover in self._find_leftovers(fs, request):
                if leftover.is_abandoned:
                    self._discard(fs, leftover.path)

    def _create(self, fs: RobustIO, request: ResolvedRequest) -> PartialDownload:
        try:
            stage = _create_stage(fs, request, self._new_path(fs, request))
        except CommitError as error:
            if error.cause not in {Cause.UNSAFE, Cause.IN_THE_WAY}:
                raise
            # The folder of partial downloads cannot be used. The download succeeds without it, or cannot be resumed.
            temporary = self._layout.new_temporary(fs.temporary_tag(), fs.system.pid_namespace())
            stage = _create_stage(fs, request, temporary)
            return PartialDownload(fs, self._layout, request, stage, can_be_resumed=False)
        return PartialDownload(fs, self._layout, request, stage)

    def _new_path(self, fs: RobustIO, request: ResolvedRequest) -> str:
        system = fs.system
        return self._layout.new_partial(request.key, OwnerTag.new(system.now(), system.boot()), system.pid_namespace())

    def _resume(self, fs: RobustIO, request: ResolvedRequest, leftovers: list[_Leftover]) -> PartialDownload | None:
        """Resume the largest usable leftover, and delete the abandoned ones. Return ``None`` if none is usable."""
        found: PartialDownload | None = None
        for leftover in leftovers:
            if found is None and _MIN_BYTES <= leftover.size <= (request.size or leftover.size):
                take_over = self._claim if leftover.is_abandoned else self._copy
                found = take_over(fs, request, leftover)
            if leftover.is_abandoned or (leftover.is_idle and found is not None):
                self._discard(fs, leftover.path)
        return found

    def _find_leftovers(self, fs: RobustIO, request: ResolvedRequest) -> list[_Leftover]:
        folder, prefix = self._layout.partials(request.key)
        leftovers = []
        try:
            entries = fs.files.scan(folder)
        except OSError:
            return []  # the folder is missing or cannot be read now
        for entry in entries:
            owner = OwnerTag.of(entry.name)
            if entry.name.startswith(prefix) and is_partial(entry.name) and owner is not None:
                try:
                    stat = fs.files.stat(os.path.join(folder, entry.name))
                except OSError:
                    continue  # another process has claimed or deleted the file
                # The cache contains no links, pipes or devices. The next prune deletes one with this name.
                if modes.S_ISREG(stat.st_mode) and not is_hollow(stat):
                    leftovers.append(_inspect(fs, os.path.join(folder, entry.name), owner, stat))
        return sorted(leftovers, key=lambda leftover: leftover.size, reverse=True)

    def _claim(self, fs: RobustIO, request: ResolvedRequest, leftover: _Leftover) -> PartialDownload | None:
        """Claim an abandoned file by a rename. If two processes try this, only one rename succeeds."""
        origin, total = _read_origin(fs, origin_file(leftover.path))
        if not request.hashes and (not leftover.same_boot or origin is None or origin.validator is None):
            return None
        path = self._new_path(fs, request)
        try:
            fs.files.rename(leftover.path, path)
        except OSError:
            return self._copy(fs, request, leftover)
        fs.discard(origin_file(leftover.path))
        try:
            # This call must not be cancelled, because the file already has our name. _resume_stage releases the file if
            # it is cancelled.
            file = fs.system.files.open_write(path)
        except OSError:
            fs.discard(path)
            return None
        return self._resume_stage(fs, request, _create_stage(fs, request, path, file), (origin, total))

    def _copy(self, fs: RobustIO, request: ResolvedRequest, leftover: _Leftover) -> PartialDownload | None:
        """Copy a file whose owner may still be writing to it."""
        origin, total = _read_origin(fs, origin_file(leftover.path))
        if not request.hashes:
            return None
        path = self._new_path(fs, request)
        try:
            with reading(fs.files.open_read(leftover.path)) as source:
                file = fs.files.create(path)
                try:
                    copy_contents(fs, source, file)
                    file.seek(0)
                except BaseException:
                    close_quietly(file)
                    fs.discard(path)
                    raise
        except OSError:
            return None
        return self._resume_stage(fs, request, _create_stage(fs, request, path, file), (origin, total))

    def _resume_stage(
        self, fs: RobustIO, request: ResolvedRequest, stage: StagedFile, saved: tuple[Origin | None, int | None]
    ) -> PartialDownload | None:
        """Hash the existing bytes. Return ``None`` if they cannot be read."""
        partial = PartialDownload(fs, self._layout, request, stage)
        partial.origin, partial.total = saved
        try:
            stage.resume(fs)
        except CommitError:
            stage.__exit__(None, None, None)
            return None
        except BaseException:
            partial.release()  # the file is unchanged, although only a part of it was hashed
            raise
        partial.resumed = partial.doubtful = True
        partial.most_written = stage.written
        return partial

    def _discard(self, fs: RobustIO, path: str) -> None:
        fs.discard(path)
        fs.discard(origin_file(path))


@dataclass(frozen=True)
class _Leftover:
    """The file of an earlier download.

    Attributes:
        path: the path of the file.
        size: the size in bytes.
        is_abandoned: whether the file has no owner, or its owner has certainly ended.
        is_idle: whether the owner is unknown to this system, and has not written to the file for ten minutes.
        same_boot: whether the file was created in the current boot of this machine.
    """

    path: str
    size: int
    is_abandoned: bool
    is_idle: bool
    same_boot: bool


def _create_stage(fs: RobustIO, request: ResolvedRequest, path: str, file: BinaryIO | None = None) -> StagedFile:
    return StagedFile(fs, path, expected=request.hashes, size=request.size, display_url=request.display_url, file=file)


def _inspect(fs: RobustIO, path: str, owner: OwnerTag, stat: os.stat_result) -> _Leftover:
    system = fs.system
    same_boot = system.boot() is not None and owner.boot == boot_tag(system.boot())
    is_local = same_boot and is_partial(os.path.basename(path), system.pid_namespace())
    is_dead = is_local and not system.process_alive(owner.pid)
    is_idle = not is_local and system.now() - stat.st_mtime > _IDLE_SECONDS
    return _Leftover(path, stat.st_size, owner.pid == 0 or is_dead, is_idle, same_boot)


def _read_origin(fs: RobustIO, path: str) -> tuple[Origin | None, int | None]:
    try:
        fields = decode(fs.files.read_small(path, _LARGEST_ORIGIN_FILE)) or {}
    except OSError:
        fields = {}
    match fields:
        case {
            "url": str(url),
            "validator": str() | None as validator,
            "total": int() | None as total,
            "place": str(place),
        }:
            # The fields are checked, because another program or an older version may have written the file.
            return Origin(url, sendable_value(validator), place), total if is_file_size(total) else None
    return None, None


def _write_origin(fs: RobustIO, path: str, origin: Origin, total: int | None) -> None:
    data = encode({"url": origin.url, "validator": origin.validator, "total": total, "place": origin.place})
    try:
        with fs.files.create(path) as file:
            file.write(data)
    except OSError:
        pass  # Best effort. A download with a requested hash needs no origin file. An incomplete one is ignored.
