"""Partial: the unfinished file of a download, which outlives a cut, an interrupt and a killed process.

Nobody ever writes into a file that another process may have open. One that is surely nobody's (its owner is gone, by
number, boot and process space, or gave it up in order) is claimed by an exclusive rename to a name of our own. Of any
other the bytes are copied: its owner may be in another container or on another machine, and may still be writing.

What was taken up is hashed again from its first byte, through the handle that goes on writing; the digest of the whole
decides. Without a hash to check, bytes are put together only under a strong validator of their URL, and only within one
boot: after a power cut they may be zeros, and nothing would tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from .._exceptions import CommitError, HashMismatchError, InvalidWheelError, SizeMismatchError
from .._fs.copy import copy_contents
from .._fs.robustio import RobustIO, close_quietly, reading
from .._fs.tempnames import OwnerTag, boot_tag
from .._request import ResolvedRequest, text_key
from .._store.layout import Layout
from .._store.records import decode, encode
from .._store.staging import StagedFile

# Less than this is not worth a leftover, nor a request for the rest.
_MIN_BYTES = 1 << 14
# From here on the origin is written down while the download goes on, so that a killed process leaves it too.
_ORIGIN_FILE_FROM = 1 << 20
# A file of an unknown owner that nobody wrote to for so long is given up once it was copied.
_IDLE_SECONDS = 600.0


@dataclass(frozen=True)
class Origin:
    """Where the bytes came from.

    Attributes:
        url: the key of the URL, which itself may be secret.
        validator: the strong ETag, or the time stamp, that more of the same bytes can be asked for by; or ``None``.
        place: the key of the URL that redirects led to, empty where there were none.
    """

    url: str
    validator: str | None
    place: str = ""

    @classmethod
    def of(cls, url: str, validator: str | None, place: str = "") -> Origin:
        """Return the origin of bytes that a URL gave."""
        return cls(text_key(url), validator, place)

    def continues(self, other: Origin | None) -> bool:
        """Whether these are more bytes of the same file, as far as the server says: it may not say it again."""
        if other is None or (self.url, self.place) != (other.url, other.place):
            return False
        return self.validator in {None, other.validator}

    def is_from(self, url: str) -> bool:
        """Whether this is the origin of the bytes of a URL."""
        return self.url == text_key(url)


class PartialDownload:
    """One download under way.

    Attributes:
        stage: its file.
        origin: where its bytes came from, where that is known.
        total: bytes in all, where that is known.
        doubtful: whether its bytes may be of two different files, or damaged: only the digest can tell.
        resumed: whether bytes of an earlier answer are in it.
        resumable: whether what is there can be gone on with.
        most_written: the most bytes that were ever there.
    """

    def __init__(self, fs: RobustIO, layout: Layout, request: ResolvedRequest, stage: StagedFile) -> None:
        self.stage = stage
        self.origin: Origin | None = None
        self.total: int | None = None
        self.doubtful = False
        self.resumed = False
        self.resumable = True
        self.most_written = 0
        self._fs = fs
        self._layout = layout
        self._request = request
        self._saved: tuple[Origin, int | None] | None = None

    @property
    def remaining(self) -> int | None:
        """The bytes that are still to come, where that is known."""
        total = self.total if self._request.size is None else self._request.size
        return None if total is None else total - self.most_written

    def set_origin(self, origin: Origin, total: int | None) -> None:
        """Take down where the next bytes come from."""
        if self.stage.written:
            self.resumed = True
            if self.origin != origin:
                self.doubtful = True
        self.origin = origin
        self.total = total

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self.stage.write(data)
        self.most_written = max(self.most_written, self.stage.written)
        if self._saved is None and self.stage.written >= _ORIGIN_FILE_FROM:
            self._save_origin()

    def restart(self) -> None:
        """Forget all bytes: the next one is the first."""
        if self.stage.written:
            self.stage.restart()
        self.origin = None
        self.total = None
        self.doubtful = False
        self.resumed = False
        self.resumable = True
        if self._saved is not None:
            self._saved = None
            self._fs.discard(self._layout.origin_file(self.stage.path))

    def _save_origin(self) -> None:
        """Write down where the bytes come from; without the note they can still be gone on with under a hash."""
        if self.origin is None or self._saved == (self.origin, self.total):
            return
        self._saved = self.origin, self.total
        _write_origin(self._fs, self._layout.origin_file(self.stage.path), self.origin, self.total)

    def settle(self, error: BaseException | None) -> None:
        """Leave nothing behind, or what is worth going on with."""
        if error is not None and self._is_worth_keeping(error):
            self._release()
        elif self._saved is not None:
            self._fs.discard(self._layout.origin_file(self.stage.path))

    def _is_worth_keeping(self, error: BaseException) -> bool:
        # A disk that refuses is not helped by more files, and wrong bytes are of no use.
        if isinstance(error, HashMismatchError | SizeMismatchError | InvalidWheelError | CommitError):
            return False
        validated = self.origin is not None and self.origin.validator is not None
        return self.resumable and self.stage.written >= _MIN_BYTES and (bool(self._request.hashes) or validated)

    def _release(self) -> None:
        """Leave the file to whoever comes next: as nobody's, where a rename can be had."""
        fs, system = self._fs.for_cleanup(), self._fs.system
        path = self.stage.path
        self.stage.release()
        owner = OwnerTag.new(system.now(), system.boot(), owned=False)
        released = self._layout.new_partial(self._request.key, owner, system.pid_namespace())
        if self._saved is not None:
            fs.discard(self._layout.origin_file(path))
        if self.origin is not None:
            _write_origin(fs, self._layout.origin_file(released), self.origin, self.total)
        try:
            fs.files.rename(path, released)
        except OSError:
            # Somebody holds it. It stays under our number, and is copied from, or claimed when we are gone.
            fs.discard(self._layout.origin_file(released))


class PartialDownloads:
    """The downloads under way in one cache folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @contextmanager
    def begin(self, fs: RobustIO, request: ResolvedRequest) -> Iterator[PartialDownload]:
        """Begin a download, with what an earlier one left of it. At the end it is kept only if that is of use."""
        leftovers = self._find_leftovers(fs, request)
        partial = self._resume(fs, request, leftovers)
        if partial is None:
            partial = PartialDownload(fs, self._layout, request, _stage(fs, request, self._new_path(fs, request)))
        with partial.stage:
            try:
                yield partial
            except BaseException as error:
                partial.settle(error)
                raise
            partial.settle(None)
        if not all(leftover.is_abandoned for leftover in leftovers):
            # Whose bytes were copied may be gone by now, and nobody asks for the rest of a wheel that is there.
            for leftover in self._find_leftovers(fs, request):
                if leftover.is_abandoned:
                    self._discard(fs, leftover.path)

    def _new_path(self, fs: RobustIO, request: ResolvedRequest) -> str:
        system = fs.system
        return self._layout.new_partial(request.key, OwnerTag.new(system.now(), system.boot()), system.pid_namespace())

    def _resume(self, fs: RobustIO, request: ResolvedRequest, leftovers: list[_Leftover]) -> PartialDownload | None:
        """Return the largest of the files that an earlier download of this wheel left, as our own."""
        found: PartialDownload | None = None
        for leftover in leftovers:
            if found is None and _MIN_BYTES <= leftover.size <= (request.size or leftover.size):
                found = (
                    self._claim(fs, request, leftover) if leftover.is_abandoned else self._copy(fs, request, leftover)
                )
            if leftover.is_abandoned or (leftover.is_idle and found is not None):
                self._discard(fs, leftover.path)
        return found

    def _find_leftovers(self, fs: RobustIO, request: ResolvedRequest) -> list[_Leftover]:
        folder, prefix = self._layout.partials(request.key)
        leftovers = []
        try:
            entries = fs.files.scan(folder)
        except OSError:
            return []  # nothing was ever left, or it is not to be had just now
        for entry in entries:
            owner = OwnerTag.of(entry.name)
            if entry.name.startswith(prefix) and self._layout.is_partial(entry.name) and owner is not None:
                try:
                    stat = fs.files.stat(os.path.join(folder, entry.name))
                except OSError:
                    continue  # somebody else was quicker
                leftovers.append(_inspect(fs, self._layout, os.path.join(folder, entry.name), owner, stat))
        return sorted(leftovers, key=lambda leftover: leftover.size, reverse=True)

    def _claim(self, fs: RobustIO, request: ResolvedRequest, leftover: _Leftover) -> PartialDownload | None:
        """Make a file that is nobody's our own: of two who try, the rename lets one."""
        origin, total = _read_origin(fs, self._layout.origin_file(leftover.path))
        if not request.hashes and (not leftover.same_boot or origin is None or origin.validator is None):
            return None
        path = self._new_path(fs, request)
        try:
            fs.files.rename(leftover.path, path)
        except OSError:
            return self._copy(fs, request, leftover)
        fs.discard(self._layout.origin_file(leftover.path))
        try:
            file = fs.files.open_write(path)
        except OSError:
            fs.discard(path)
            return None
        return self._resume_stage(fs, request, _stage(fs, request, path, file), (origin, total))

    def _copy(self, fs: RobustIO, request: ResolvedRequest, leftover: _Leftover) -> PartialDownload | None:
        """Take the bytes of a file whose owner may still be writing to it."""
        origin, total = _read_origin(fs, self._layout.origin_file(leftover.path))
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
        return self._resume_stage(fs, request, _stage(fs, request, path, file), (origin, total))

    def _resume_stage(
        self, fs: RobustIO, request: ResolvedRequest, stage: StagedFile, saved: tuple[Origin | None, int | None]
    ) -> PartialDownload | None:
        """Hash what there is; where it cannot be read it is given up."""
        partial = PartialDownload(fs, self._layout, request, stage)
        try:
            stage.resume(fs)
        except CommitError:
            stage.__exit__(None, None, None)
            return None
        except BaseException as error:
            with stage:
                partial.settle(error)
            raise
        partial.origin, partial.total = saved
        partial.resumed = partial.doubtful = True
        partial.most_written = stage.written
        return partial

    def _discard(self, fs: RobustIO, path: str) -> None:
        fs.discard(path)
        fs.discard(self._layout.origin_file(path))


@dataclass(frozen=True)
class _Leftover:
    """A file of an earlier download.

    Attributes:
        path: where it is.
        size: bytes.
        is_abandoned: whether its owner is surely gone.
        is_idle: whether its owner did not write for long, and is no process that we see.
        same_boot: whether it was begun since this machine started.
    """

    path: str
    size: int
    is_abandoned: bool
    is_idle: bool
    same_boot: bool


def _stage(fs: RobustIO, request: ResolvedRequest, path: str, file: BinaryIO | None = None) -> StagedFile:
    return StagedFile(fs, path, expected=request.hashes, size=request.size, display_url=request.display_url, file=file)


def _inspect(fs: RobustIO, layout: Layout, path: str, owner: OwnerTag, stat: os.stat_result) -> _Leftover:
    system = fs.system
    same_boot = system.boot() is not None and owner.boot == boot_tag(system.boot())
    is_local = same_boot and layout.is_partial(path, system.pid_namespace())
    is_dead = is_local and not system.process_alive(owner.pid)
    is_idle = not is_local and system.now() - stat.st_mtime > _IDLE_SECONDS
    return _Leftover(path, stat.st_size, owner.pid == 0 or is_dead, is_idle, same_boot)


def _read_origin(fs: RobustIO, path: str) -> tuple[Origin | None, int | None]:
    try:
        fields = decode(fs.files.read(path)) or {}
    except OSError:
        fields = {}
    match fields:
        case {
            "url": str(url),
            "validator": str() | None as validator,
            "total": int() | None as total,
            "place": str(place),
        }:
            return Origin(url, validator, place), total
    return None, None


def _write_origin(fs: RobustIO, path: str, origin: Origin, total: int | None) -> None:
    data = encode({"url": origin.url, "validator": origin.validator, "total": total, "place": origin.place})
    try:
        with fs.files.create(path) as file:
            file.write(data)
    except OSError:
        pass  # under a hash the bytes can be gone on with all the same; a torn note is none
