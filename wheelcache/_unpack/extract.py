"""Fill: a wheel's archive into a folder that nobody else writes to.

Every byte is read once, and checked as it passes: the header of its member against the directory, the checksum of the
archive, the hash of RECORD. Members are read in the order of the archive and in runs of about a megabyte, each by one
of a few threads: inflating, hashing and writing let go of the interpreter's lock. A large member passes in pieces, so
that memory stays bounded whatever the archive claims.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, Self

from .._archive import zip as zip_format
from .._archive.members import pieces, unpacked
from .._archive.wheel import Archive, WheelFile
from .._archive.zip import BadZipError
from .._fs.robustio import RobustIO, commit_error, write_all
from .._os.files import OpenFolder
from .._threads import ThreadGroup
from .manifest import EXECUTABLE, EXECUTABLE_IMAGE, IMAGE, PLAIN, Manifest, ManifestDir

_RUN = 1 << 20
_LARGE = 1 << 22
# Below this a second thread costs more than it brings.
_WORTH_THREADS = 2 << 20
_MOST_THREADS = 4

# Nobody writes to a file of the cache; who links it out shares it, and notices that it is not only theirs.
PROTECTED = 0o444
WRITABLE = 0o666


def fill(fs: RobustIO, path: str, filename: str, *, sha256: str, root: str, permissions: int) -> Manifest:
    """Unpack the wheel at ``path`` into the empty folder ``root``; return what is there.

    Raises:
        InvalidWheelError, UnsafeWheelError: where it may not be unpacked; the caller deletes the folder.
        CommitError: where the file system refuses.
    """
    with _Reader(fs, path) as reader:
        archive = Archive(reader.read_at, reader.size, filename, path)
        folders = _folders(archive)
        for folder in folders[1:]:
            made = os.path.join(root, *folder.split("/"))
            fs.perform("mkdir", made, lambda made=made: fs.files.mkdir(made))  # type: ignore[misc]
        filling = _Extractor(fs, archive, root, permissions)
        filling.run(reader)
    system = fs.system
    return Manifest(sha256, system.boot(), int(system.now()), filling.listed(folders))


def _folders(archive: Archive) -> list[str]:
    """Return the folders of the files, each after the one it lies in; ``""`` is the first."""
    found = {""}
    for file in archive.files:
        parent = file.name.rpartition("/")[0]
        while parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return sorted(found)


class _Reader:
    """The archive, opened once for each thread that reads it."""

    def __init__(self, fs: RobustIO, path: str) -> None:
        self._fs = fs
        self._path = path
        file = fs.open_read(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "the wheel is no longer in the cache: fetch it again", path)
        self._file: BinaryIO = file
        try:
            self.size: int = fs.perform("read", path, lambda: self._file.seek(0, os.SEEK_END))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive; that it cannot be closed harms nobody, since it was only read."""
        try:
            self._file.close()
        except OSError:
            pass

    def another(self) -> _Reader:
        """The same archive for another thread."""
        return _Reader(self._fs, self._path)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return so many bytes from there."""
        return self._fs.perform("read", self._path, lambda: self._read(offset, count))

    def _read(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(count)
        while len(data) < count and (more := self._file.read(count - len(data))):
            data += more
        return data


class _Extractor:
    """The work on one wheel, and what is known of the files that are done."""

    def __init__(self, fs: RobustIO, archive: Archive, root: str, permissions: int) -> None:
        self.fs = fs
        self.archive = archive
        self.root = root
        self.permissions = permissions
        self._done: dict[str, tuple[int, int, str, str]] = {}
        self._total = sum(file.member.size for file in archive.files)
        self._runs = _runs(archive.files)
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def run(self, reader: _Reader) -> None:
        """Do all of it; an error ends it, and is raised when every thread has stopped."""
        count = min(_MOST_THREADS, os.cpu_count() or 1) if self._total >= _WORTH_THREADS else 1
        workers = ThreadGroup(lambda: self._help(reader), count - 1, "wheelcache-unpack")
        workers.run(self._fail, in_caller=lambda: self._work(reader))
        if self._error is not None:
            raise self._error

    def _help(self, reader: _Reader) -> None:
        try:
            with reader.another() as another:
                self._work(another)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error

    def _next(self) -> list[WheelFile] | None:
        with self._lock:
            return None if self._error is not None else next(self._runs, None)

    def _work(self, reader: _Reader) -> None:
        with _Writer(self) as writer:
            while run := self._next():
                if len(run) == 1 and _is_large(run[0]):
                    writer.write_large(run[0], reader)
                else:
                    writer.write_run(run, reader)

    def done(self, file: WheelFile, stamp: int, kind: str, digest: str) -> None:
        """Take down a file that is there."""
        self._done[file.name] = file.member.size, stamp, kind, digest

    def listed(self, folders: list[str]) -> list[ManifestDir]:
        """Return what was written, by folder."""
        names: dict[str, list[str]] = {folder: [] for folder in folders}
        for name in sorted(self._done):
            folder, _, last = name.rpartition("/")
            names[folder].append(last)
        return [self._folder(folder, inside) for folder, inside in names.items()]

    def _folder(self, path: str, names: list[str]) -> ManifestDir:
        rows = [self._done[f"{path}/{name}" if path else name] for name in names]
        sizes, stamps, kinds, digests = zip(*rows, strict=True) if rows else ((), (), (), ())
        return ManifestDir(path, names, list(sizes), list(stamps), "".join(kinds), "".join(digests))


def _is_large(file: WheelFile) -> bool:
    return max(file.member.end - file.member.offset, file.member.size) > _LARGE


def _runs(files: list[WheelFile]) -> Iterator[list[WheelFile]]:
    """Yield the files in the order of the archive: large ones alone, others in runs that fit into memory together."""
    run: list[WheelFile] = []
    size = 0
    for file in sorted(files, key=lambda file: file.member.offset):
        if run and (_is_large(file) or size > _RUN or run[-1].member.end != file.member.offset):
            yield run
            run, size = [], 0
        run.append(file)
        size += file.member.end - file.member.offset
        if _is_large(file):
            yield run
            run, size = [], 0
    if run:
        yield run


class _Writer:
    """One thread's hand: it keeps the folder open that it wrote to last, since the next file mostly goes there too."""

    def __init__(self, filling: _Extractor) -> None:
        self._filling = filling
        self._fs = filling.fs
        self._name = ""
        self._path = ""
        self._folder: OpenFolder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._folder is not None:
            self._folder.__exit__(None, None, None)
            self._folder = None

    def write_run(self, run: list[WheelFile], reader: _Reader) -> None:
        """Unpack files that lie one after the other."""
        start = run[0].member.offset
        data = memoryview(reader.read_at(start, run[-1].member.end - start))
        for file in run:
            member = file.member
            region = data[member.offset - start : member.end - start]
            try:
                at = zip_format.check_header(member, region)
                packed = region[at : at + member.packed]
                zip_format.check_descriptor(member, bytes(region[at + member.packed :]))
                contents = unpacked(member, packed)
            except BadZipError as error:
                raise self._filling.archive.unsafe(str(error)) from error
            check = _Check(file)
            check.update(contents)
            self._create(file, check, lambda out, contents=contents: write_all(out, contents))  # type: ignore[misc]

    def write_large(self, file: WheelFile, reader: _Reader) -> None:
        """Unpack one file in pieces."""
        check = _Check(file)

        def write(out: BinaryIO) -> None:
            try:
                for piece in pieces(file.member, reader.read_at):
                    check.update(piece)
                    write_all(out, piece)
            except BadZipError as error:
                raise self._filling.archive.unsafe(str(error)) from error

        self._create(file, check, write)

    def _create(self, file: WheelFile, check: _Check, write: Callable[[BinaryIO], None]) -> None:
        parent, _, name = file.name.rpartition("/")
        folder = self._enter(parent)
        path = f"{self._path}{os.sep}{name}"
        permissions = self._filling.permissions
        if file.executable:
            permissions |= (permissions & 0o444) >> 2
        try:
            with self._fs.perform("create", path, lambda: folder.create(name, permissions)) as out:
                write(out)
        except OSError as error:
            raise commit_error(error, "write", path) from error
        if not check.is_right():
            raise self._filling.archive.invalid(f"{file.name!r} does not have the hash that RECORD has of it")
        stamp = self._fs.perform("stat", path, lambda: folder.stat(name)).st_mtime_ns
        self._filling.done(file, stamp, check.kind(), check.digest())

    def _enter(self, name: str) -> OpenFolder:
        if self._folder is None or name != self._name:
            self._leave()
            path = os.path.join(self._filling.root, *filter(None, name.split("/")))
            self._folder = self._fs.perform("open", path, lambda: self._fs.files.open_folder(path))
            self._name, self._path = name, path
        return self._folder


class _Check:
    """What is computed of a file as it passes."""

    def __init__(self, file: WheelFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._recorded = hashlib.new(file.algorithm) if file.algorithm not in ("", "sha256") else self._sha256
        self._first = b""

    def update(self, data: bytes) -> None:
        self._first = self._first or data[:2]
        self._sha256.update(data)
        if self._recorded is not self._sha256:
            self._recorded.update(data)

    def is_right(self) -> bool:
        return not self._file.algorithm or self._recorded.digest() == self._file.digest

    def digest(self) -> str:
        return self._sha256.hexdigest()

    def kind(self) -> str:
        # The first bytes of a program or library of Windows, whatever its name:
        # https://learn.microsoft.com/windows/win32/debug/pe-format
        if self._first == b"MZ":
            return EXECUTABLE_IMAGE if self._file.executable else IMAGE
        return EXECUTABLE if self._file.executable else PLAIN
