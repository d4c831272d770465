"""Extract a wheel into a folder that no other process writes to.

Every byte is read once. At the same time, the header of each member, its checksum and its hash in RECORD are checked. A
few threads share the work in runs of about a megabyte, in the order of the archive, because inflating, hashing and
writing release the interpreter's lock. A large member is extracted in pieces, so that the memory use is bounded for
every archive.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, Self

from .._archive.file import ArchiveFile, IsSame
from .._archive.members import iter_member, unpack_member
from .._archive.wheel import WheelArchive, WheelFile
from .._archive.zip import BadZipError
from .._fs.robustio import RobustIO, commit_error, write_all
from .._operation import CancelToken
from .._os.files import OpenFolder
from .._store.lookup import Entry
from .._store.trust.fingerprint import is_recorded, is_replaced
from .._threads import ThreadGroup
from .manifest import Manifest, ManifestDir, folders_of, kind_of

# Bytes of the archive that are read at once.
_RUN = 1 << 20
# A member with more bytes, packed or not, is extracted in pieces.
_LARGE = 4 << 20
# For a smaller wheel, a second thread costs more time than it saves.
_WORTH_THREADS = 2 << 20
_MAX_THREADS = 4

# Protected files are read-only, since callers share the files of the cache by hard links and must not change them.
PROTECTED = 0o444
WRITABLE = 0o666


def extract_wheel(fs: RobustIO, wheel: Entry, *, root: str, permissions: int, is_shared: bool) -> Manifest:
    """Extract a wheel into the empty folder ``root``, and return the manifest of the new tree.

    With ``is_shared``, other users can write to the wheel. Its owner could write to it and reset its time stamp, so it
    is hashed once more, and its change time must not change until it is extracted.

    Raises:
        InvalidWheelError, UnsafeWheelError: if the wheel is refused. The caller then deletes the folder.
        FileNotFoundError: if the wheel does not exist, or another user has changed it since it was hashed.
        CommitError: if a file operation is refused.
    """
    path, record = wheel.path, wheel.record

    def is_same(stat: os.stat_result) -> bool:
        return is_recorded(fs, path, stat, record)

    with ArchiveFile(fs, path, is_same) as file:
        if is_shared:
            file.require_sha256(record.sha256)
        archive = WheelArchive(file.read_at, file.size, record.filename, operation="unpack", path=path)
        files = archive.files()
        folders = sorted(folders_of(file.name for file in files))
        for folder in folders[1:]:
            made = os.path.join(root, *folder.split("/"))
            fs.perform("mkdir", made, lambda made=made: fs.files.mkdir(made))  # type: ignore[misc]
        extractor = Extractor(fs, archive, files, path=path, is_same=is_same, root=root, permissions=permissions)
        extractor.run(file)
        file.require_unchanged()
    system = fs.system
    return Manifest(record.sha256, system.boot(), int(system.now()), None, extractor.manifest_dirs(folders))


class _Extracted(NamedTuple):
    """A file that was written: size in bytes, time stamp in nanoseconds, inode, kind (see the manifest) and sha256."""

    size: int
    stamp: int
    inode: int
    kind: str
    digest: str


class Extractor:
    """Extracts the files of one wheel, in several threads if the wheel is large.

    Args:
        fs: the file layer.
        archive: the wheel.
        files: the files of the wheel.
        path: the absolute path of the wheel.
        is_same: returns whether a status is that of the wheel that was hashed.
        root: the absolute path of the target folder.
        permissions: the mode of new files, before the umask. Executable files have an execute bit for each read bit of
            this mode.
    """

    def __init__(
        self,
        fs: RobustIO,
        archive: WheelArchive,
        files: list[WheelFile],
        *,
        path: str,
        is_same: IsSame,
        root: str,
        permissions: int,
    ) -> None:
        # The first error in any thread cancels the file operations and waits of the others.
        self._token = CancelToken()
        self.fs = fs.with_token(self._token)
        self.archive = archive
        self.root = root
        self.permissions = permissions
        self._path = path
        self._is_same = is_same
        self._extracted: dict[str, _Extracted] = {}
        self._total = sum(file.member.size for file in files)
        self._runs = _runs(files)
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def run(self, file: ArchiveFile) -> None:
        """Extract all files. Raise the first error after all threads have ended.

        Args:
            file: the wheel, opened by the calling thread.
        """
        count = min(_MAX_THREADS, os.cpu_count() or 1) if self._total >= _WORTH_THREADS else 1
        group = ThreadGroup(self._run_in_thread, count - 1, "wheelcache-unpack")
        group.run(self._fail, in_caller=lambda: self._run_in_caller(file))
        if self._error is not None:
            raise self._error

    def _run_in_caller(self, file: ArchiveFile) -> None:
        try:
            self._extract_runs(file)
        except BaseException as error:
            # run() raises the first error. If another thread failed first, this one is only the cancellation by our own
            # token.
            self._fail(error)

    def _run_in_thread(self) -> None:
        try:
            with ArchiveFile(self.fs, self._path, self._is_same) as file:
                self._extract_runs(file)
        except BaseException as error:
            self._fail(error)
        finally:
            self.fs.close_folders()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self._token.cancel()

    def _next_run(self) -> list[WheelFile] | None:
        with self._lock:
            return None if self._error is not None else next(self._runs, None)

    def _extract_runs(self, file: ArchiveFile) -> None:
        with _Writer(self) as writer:
            while run := self._next_run():
                if len(run) == 1 and _is_large(run[0]):
                    writer.write_large(run[0], file)
                else:
                    writer.write_run(run, file)

    def add(self, name: str, extracted: _Extracted) -> None:
        """Record a file that was written and checked."""
        self._extracted[name] = extracted

    def manifest_dirs(self, folders: list[str]) -> list[ManifestDir]:
        """Return the files that were written, by folder."""
        names: dict[str, list[str]] = {folder: [] for folder in folders}
        for name in sorted(self._extracted):
            folder, _, last = name.rpartition("/")
            names[folder].append(last)
        return [self._manifest_dir(folder, inside) for folder, inside in names.items()]

    def _manifest_dir(self, path: str, names: list[str]) -> ManifestDir:
        rows = [self._extracted[f"{path}/{name}" if path else name] for name in names]
        sizes, stamps, inodes, kinds, digests = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return ManifestDir(path, names, list(sizes), list(stamps), list(inodes), "".join(kinds), "".join(digests))


def _is_large(file: WheelFile) -> bool:
    return max(file.member.end - file.member.offset, file.member.size) > _LARGE


def _runs(files: list[WheelFile]) -> Iterator[list[WheelFile]]:
    """Yield the files in the order of the archive, large files one by one and others in runs that are read at once."""
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
    """Writes files in one thread. The folder of the last file is kept open, since it usually contains the next file."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._fs = extractor.fs
        self._name = ""
        self._path = ""
        self._folder: OpenFolder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_folder()

    def _close_folder(self) -> None:
        if self._folder is not None:
            self._folder.__exit__(None, None, None)
            self._folder = None

    def write_run(self, run: list[WheelFile], archive_file: ArchiveFile) -> None:
        """Extract files that are adjacent in the archive."""
        start = run[0].member.offset
        data = memoryview(archive_file.read_at(start, run[-1].member.end - start))
        for file in run:
            member = file.member
            try:
                contents = unpack_member(member, data[member.offset - start : member.end - start])
            except BadZipError as error:
                raise self._extractor.archive.unsafe(str(error)) from error
            check = _Check(file)
            check.update(contents)
            self._create(file, check, lambda out, contents=contents: write_all(out, contents))  # type: ignore[misc]

    def write_large(self, file: WheelFile, archive_file: ArchiveFile) -> None:
        """Extract one file in pieces."""
        check = _Check(file)

        def write(out: BinaryIO) -> None:
            try:
                for piece in iter_member(file.member, archive_file.read_at):
                    # Cancellation is checked for each piece, because one read from the archive may expand to a thousand
                    # times its size.
                    self._fs.op.check()
                    check.update(piece)
                    write_all(out, piece)
            except BadZipError as error:
                raise self._extractor.archive.unsafe(str(error)) from error

        self._create(file, check, write)

    def _create(self, file: WheelFile, check: _Check, write: Callable[[BinaryIO], None]) -> None:
        parent, _, name = file.name.rpartition("/")
        folder = self._open_folder(parent)
        path = f"{self._path}{os.sep}{name}"
        permissions = self._extractor.permissions
        if file.is_executable:
            permissions |= (permissions & 0o444) >> 2
        try:
            with self._fs.perform("create", path, lambda: folder.create(name, permissions)) as out:
                write(out)
                inode = os.fstat(out.fileno()).st_ino if self._fs.files.has_permissions else None
        except OSError as error:
            raise commit_error(error, "write", path) from error
        if not check.matches_record():
            raise self._extractor.archive.invalid(f"{file.name!r} does not have the hash in RECORD")
        stat = self._fs.perform("stat", path, lambda: folder.stat(name))
        if inode not in {None, stat.st_ino} and is_replaced(stat, lambda: folder.stat(name)):
            altered = OSError(errno.EIO, "another process replaced the file", path)
            raise commit_error(altered, "unpack", path)
        extracted = _Extracted(file.member.size, stat.st_mtime_ns, stat.st_ino, check.kind(), check.digest())
        self._extractor.add(file.name, extracted)

    def _open_folder(self, name: str) -> OpenFolder:
        if self._folder is None or name != self._name:
            self._close_folder()
            path = os.path.join(self._extractor.root, *filter(None, name.split("/")))
            self._folder = self._fs.perform("open", path, lambda: self._fs.files.open_folder(path))
            self._name, self._path = name, path
        return self._folder


class _Check:
    """The hashes and the kind of a file, computed while it is written."""

    def __init__(self, file: WheelFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._recorded = hashlib.new(file.algorithm) if file.algorithm not in ("", "sha256") else self._sha256
        self._first_bytes = b""

    def update(self, data: bytes) -> None:
        self._first_bytes = self._first_bytes or data[:2]
        self._sha256.update(data)
        if self._recorded is not self._sha256:
            self._recorded.update(data)

    def matches_record(self) -> bool:
        return not self._file.algorithm or self._recorded.digest() == self._file.digest

    def digest(self) -> str:
        return self._sha256.hexdigest()

    def kind(self) -> str:
        return kind_of(self._first_bytes, executable=self._file.is_executable)
