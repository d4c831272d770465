"""Read wheels strictly, and refuse those that are unsafe or ambiguous.

:class:`WheelArchive` checks the central directory of a wheel before any member is read. Every path must be inside the
target folder, no two names may be the same file on any system, and the sizes must be possible. When a member is read,
it is compared with the directory.

``Cache.metadata`` and ``Cache.unpack`` both use this class, with these common checks and differences:

- Both check the central directory, the names, the sizes and the ``.dist-info`` folder, and raise the same kind of
  error. Both check the header, size and checksum of METADATA.
- Only ``unpack`` reads RECORD and all other members, and may refuse a wheel because of them. ``metadata`` reads only a
  few bytes of a wheel on a server. It reads the same bytes of a wheel in the cache, and the results are equal.
- Only ``metadata`` requires that METADATA exists and has at most 32 MiB.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .._exceptions import InvalidWheelError, UnsafeWheelError
from .._filenames import check_project, is_dist_info
from . import zip as zip_format
from .members import iter_member, unpack_member
from .names import Names, are_plain, folder_bounds, problem_of_name
from .record import iter_rows
from .zip import BadZipError, Member, ReadAt

# One byte of a deflate stream expands to at most 1032 bytes (https://zlib.net/zlib_tech.html).
_DEFLATE_LIMIT = 1032
# Wheels usually expand to 3 or 4 times their size. If nearly all of their text is the same, they expand to 50 times.
_BOMB_RATIO = 200
_SMALL_ENOUGH = 256 << 20
# The RECORD of homeassistant lists 36,000 files and takes 4 MB.
_LARGEST_RECORD = 64 << 20
# Some builders list a few files twice.
_SPARE_ROWS = 10
# METADATA is read into memory.
LARGEST_METADATA = 32 << 20
# The deflate stream of an empty file has 2 bytes.
_LARGEST_FOLDER = 64

_TYPE, _REGULAR, _FOLDER = 0o170000, 0o100000, 0o040000
_EXECUTE = 0o111

# RECORD need not list these files: https://packaging.python.org/specifications/binary-distribution-format/
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_RECORD_ALGORITHMS = {"sha256": 32, "sha384": 48, "sha512": 64}


class WheelFile(NamedTuple):
    """A file of a wheel. This is a tuple, because a wheel may have thousands of files.

    Attributes:
        member: the member of the archive.
        algorithm: the algorithm of the file's hash in RECORD. Empty for files that RECORD need not list.
        digest: the hash in RECORD. Empty for files that RECORD need not list.
    """

    member: Member
    algorithm: str = ""
    digest: bytes = b""

    @property
    def name(self) -> str:
        """The path of the file, relative to the top of the wheel, with slashes."""
        return self.member.name

    @property
    def is_executable(self) -> bool:
        """Whether the archive marks the file as executable."""
        mode = self.member.mode
        return mode & _TYPE == _REGULAR and bool(mode & _EXECUTE)


class WheelArchive:
    """A wheel whose central directory was checked.

    Args:
        read_at: returns bytes of the archive, given an offset and a number of bytes. Returns fewer at the end.
        size: the size of the archive in bytes.
        filename: the file name of the wheel.
        operation: the operation, for errors.
        path: the absolute path of the wheel, for errors.
        url: the redacted URL of the wheel, for errors.

    Attributes:
        dist_info: the name of the ``.dist-info`` folder.

    Raises:
        UnsafeWheelError: if the archive is unsafe or ambiguous.
        Exception: the errors of ``read_at``.
    """

    def __init__(
        self,
        read_at: ReadAt,
        size: int,
        filename: str,
        *,
        operation: str,
        path: str | None = None,
        url: str | None = None,
    ) -> None:
        self._read_at = read_at
        self._operation = operation
        self._path = path
        self._url = url
        try:
            members = zip_format.read_directory(read_at, size)
        except BadZipError as error:
            raise self.unsafe(str(error)) from error
        self._check_names(members)
        self.dist_info = self._find_dist_info(members, filename)
        self._unrecorded = {f"{self.dist_info}/{name}" for name in _UNRECORDED}
        self._folders = [member for member in members if _is_folder(member)]
        self._by_name = {member.name: member for member in members if not _is_folder(member)}
        self._check_sizes(size)

    def unsafe(self, problem: str) -> UnsafeWheelError:
        """Return the error for an unsafe or ambiguous wheel."""
        return UnsafeWheelError(
            problem,
            operation=self._operation,
            path=self._path,
            url=self._url,
            advice="Do not use this wheel. Report it to its maintainers.",
        )

    def invalid(self, problem: str) -> InvalidWheelError:
        """Return the error for a wheel that was built incorrectly."""
        return InvalidWheelError(
            problem,
            operation=self._operation,
            path=self._path,
            url=self._url,
            advice="The wheel was built incorrectly. Report it to its maintainers.",
        )

    def metadata(self) -> bytes:
        """Return the contents of METADATA.

        Raises:
            InvalidWheelError: if METADATA is missing or larger than 32 MiB.
            UnsafeWheelError: if METADATA does not match the central directory.
        """
        member = self._by_name.get(f"{self.dist_info}/METADATA")
        if member is None:
            raise self.invalid(f"{self.dist_info} has no METADATA")
        if max(member.size, member.packed) > LARGEST_METADATA:
            raise self.invalid(f"METADATA has {member.size} bytes, more than the limit")
        return self._contents(member)

    def files(self) -> list[WheelFile]:
        """Return all files, each with its hash from RECORD.

        Raises:
            UnsafeWheelError: if RECORD is missing or ambiguous or lists a missing file, or if a folder has contents.
            InvalidWheelError: if RECORD cannot be parsed, or does not list a file with a strong hash and its size.
        """
        for folder in self._folders:
            # The member of a folder is not extracted. It is read, because it must not contain any bytes.
            self._contents(folder)
        rows = self._read_record()
        files = []
        for name, member in self._by_name.items():
            if name in self._unrecorded:
                files.append(WheelFile(member))
            elif name in rows:
                files.append(self._file(member, *rows[name]))
            else:
                raise self.invalid(f"RECORD does not list {name!r}")
        return files

    def _check_names(self, members: Sequence[Member]) -> None:
        names = Names()
        # Members that are folders do not count. The marker of a tree has the same bounds, and does not list them.
        most_folders, most_bytes = folder_bounds(sum(not _is_folder(member) for member in members))
        all_plain = are_plain([member.name for member in members])
        for member in members:
            problem = "" if all_plain else problem_of_name(member.name)
            problem = problem or _problem_of_type(member) or names.add(member.name)
            if problem:
                raise self.unsafe(f"{member.name!r} {problem}")
            if names.folder_count > most_folders or names.folder_bytes > most_bytes:
                raise self.unsafe(f"the archive has more than {most_folders} folders or {most_bytes} bytes of paths")
        name = names.file_and_folder()
        if name:
            raise self.unsafe(f"{name!r} is both a file and a folder")

    def _check_sizes(self, size: int) -> None:
        total = 0
        for member in self._by_name.values():
            if member.size > _DEFLATE_LIMIT * member.packed + _DEFLATE_LIMIT:
                raise self.unsafe(f"{member.name!r} cannot have the size in the central directory")
            total += member.size
        if total > max(_SMALL_ENOUGH, _BOMB_RATIO * size):
            raise self.unsafe(f"the archive would unpack to {total} bytes, {total // max(size, 1)} times its size")

    def _find_dist_info(self, members: Iterable[Member], filename: str) -> str:
        tops = set(filter(is_dist_info, (member.name.partition("/")[0] for member in members)))
        if len(tops) != 1:
            names = f": {', '.join(sorted(tops))}" if tops else ""
            raise self.unsafe(f"the archive has {len(tops)} .dist-info folders instead of one{names}")
        (dist_info,) = tops
        check_project(dist_info, filename, self._path, url=self._url, operation=self._operation)
        return dist_info

    def _read_record(self) -> dict[str, tuple[str, str]]:
        """Return the hash and the size of each file in RECORD, unparsed."""
        record = self._by_name.get(f"{self.dist_info}/RECORD")
        if record is None:
            raise self.unsafe("the archive has no RECORD")
        if max(record.size, record.packed) > _LARGEST_RECORD:
            raise self.unsafe(f"RECORD has {record.size} bytes, more than the limit")
        try:
            return self._rows(iter_rows(iter_member(record, self._read_at)))
        except BadZipError as error:
            raise self.unsafe(str(error)) from error
        except ValueError as error:
            raise self.invalid(f"RECORD cannot be parsed: {error}") from error

    def _rows(self, parsed: Iterable[tuple[str, str, str]]) -> dict[str, tuple[str, str]]:
        rows: dict[str, tuple[str, str]] = {}
        folders = {name.rpartition("/")[0] + "/" for name in self._by_name}
        expected = {*self._by_name, *self._unrecorded}
        most = len(self._by_name) + _SPARE_ROWS
        # Some builders list folders too.
        listed_folders = set()
        for number, (name, recorded_hash, size) in enumerate(parsed, 1):
            if name in folders:
                listed_folders.add(name)
            if number > most + len(listed_folders):
                raise self.unsafe(f"RECORD has more than {most} rows for {len(self._by_name)} files")
            if name in folders:
                continue
            if name not in expected:
                raise self.unsafe(f"RECORD lists the missing file {name!r}")
            if rows.setdefault(name, (recorded_hash, size)) != (recorded_hash, size):
                raise self.unsafe(f"RECORD lists {name!r} twice, with different values")
        return rows

    def _file(self, member: Member, recorded_hash: str, size: str) -> WheelFile:
        algorithm, _, value = recorded_hash.partition("=")
        try:
            digest = binascii.a2b_base64(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4))
            is_valid = _RECORD_ALGORITHMS.get(algorithm.lower()) == len(digest) and (
                not size or int(size) == member.size
            )
        except ValueError:
            is_valid = False
        if not is_valid:
            raise self.invalid(f"RECORD has no valid hash and size for {member.name!r}: {recorded_hash!r}, {size!r}")
        return WheelFile(member, algorithm.lower(), digest)

    def _contents(self, member: Member) -> bytes:
        """Return the contents of a small member.

        Raises:
            UnsafeWheelError: if the contents do not match the central directory.
        """
        try:
            return unpack_member(member, memoryview(self._read_at(member.offset, member.end - member.offset)))
        except BadZipError as error:
            raise self.unsafe(str(error)) from error


def _is_folder(member: Member) -> bool:
    return member.name.endswith("/")


def _problem_of_type(member: Member) -> str:
    kind = member.mode & _TYPE
    if kind not in (0, _FOLDER if _is_folder(member) else _REGULAR):
        return "is a link or a special file"
    if _is_folder(member) and (member.size or member.packed > _LARGEST_FOLDER):
        return "is a folder with contents"
    return ""
