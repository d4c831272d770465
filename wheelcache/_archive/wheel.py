"""Archive: a wheel as its archive tells it, refused where it is not safe or not beyond doubt.

What can be told from the names and sizes alone is told before anything is written: where every file goes, that it stays
inside, that no two are one file on some system, that there is no more to unpack than the archive can honestly hold, and
that ``RECORD`` and the archive speak of the same files. The contents are checked when they pass, in :mod:`._fill`.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from .._exceptions import InvalidWheelError, UnsafeWheelError
from .._filenames import check_project, is_dist_info
from . import zip as zip_format
from .members import unpacked
from .names import Names, are_plain, problem_of_name
from .zip import BadZipError, Member

# Deflate makes at most 1032 bytes of one (https://zlib.net/zlib_tech.html): who claims more lies.
_DEFLATE_LIMIT = 1032
# Honest wheels unpack to 3 or 4 times their size, and 50 times where they hold nearly nothing but the same text.
_BOMB_RATIO = 200
_SMALL_ENOUGH = 256 << 20
# It is read at once. A hundred bytes for each file make that of 13,000 files 1.3 MB.
_LARGEST_RECORD = 64 << 20
# A deflate stream of nothing has 2 bytes.
_LARGEST_FOLDER = 64

_TYPE, _REGULAR, _FOLDER = 0o170000, 0o100000, 0o040000
_EXECUTE = 0o111

# https://packaging.python.org/specifications/binary-distribution-format/ excepts these from RECORD.
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_RECORD_ALGORITHMS = {"sha256": 32, "sha384": 48, "sha512": 64}


class WheelFile(NamedTuple):
    """A file of a wheel. A tuple, since there are thousands.

    Attributes:
        member: where it is in the archive.
        algorithm: of the hash that RECORD has of it; ``""`` where it has none.
        digest: that hash.
    """

    member: Member
    algorithm: str = ""
    digest: bytes = b""

    @property
    def name(self) -> str:
        """Relative to the wheel, with slashes."""
        return self.member.name

    @property
    def executable(self) -> bool:
        """Whether the archive gives it an executable bit."""
        mode = self.member.mode
        return mode & _TYPE == _REGULAR and bool(mode & _EXECUTE)


class Archive:
    """A wheel that may be unpacked, as far as its directory and its RECORD tell.

    Args:
        read_at: takes an offset and a count, and returns as many bytes of the archive.
        size: of the archive, in bytes.
        filename: the wheel's file name.
        path: where it is, for errors.

    Raises:
        InvalidWheelError, UnsafeWheelError: where it may not.
    """

    def __init__(self, read_at: Callable[[int, int], bytes], size: int, filename: str, path: str) -> None:
        self.path = path
        self._read_at = read_at
        try:
            members = zip_format.read_directory(read_at, size)
        except BadZipError as error:
            raise self.unsafe(str(error)) from error
        self._check_names(members)
        self.dist_info = self._find_dist_info(members, filename)
        for folder in filter(_is_folder, members):
            # Nothing is written for it, but no bytes may hide in it.
            self.contents(folder)
        members = [member for member in members if not _is_folder(member)]
        self._check_sizes(members, size)
        self.files = self._recorded(members)

    def unsafe(self, problem: str) -> UnsafeWheelError:
        """Return the error that refuses this wheel."""
        return UnsafeWheelError(
            problem, operation="unpack", path=self.path, advice="Do not use this wheel: tell its maintainers."
        )

    def invalid(self, problem: str) -> InvalidWheelError:
        """Return the error for a wheel that is not what its RECORD says."""
        return InvalidWheelError(
            problem, operation="unpack", path=self.path, advice="The wheel was built wrongly: tell its maintainers."
        )

    def _check_names(self, members: Sequence[Member]) -> None:
        names = Names()
        plain = are_plain([member.name for member in members])
        for member in members:
            problem = "" if plain else problem_of_name(member.name)
            problem = problem or _problem_of_type(member) or names.add(member.name)
            if problem:
                raise self.unsafe(f"{member.name!r} {problem}")
        both = names.file_and_folder()
        if both:
            raise self.unsafe(f"{both!r} is a file and a folder")

    def _check_sizes(self, members: Iterable[Member], size: int) -> None:
        total = 0
        for member in members:
            if member.size > _DEFLATE_LIMIT * member.packed + _DEFLATE_LIMIT:
                raise self.unsafe(f"{member.name!r} cannot have the size that it is said to have")
            total += member.size
        if total > max(_SMALL_ENOUGH, _BOMB_RATIO * size):
            raise self.unsafe(f"it would unpack to {total} bytes, {total // max(size, 1)} times its size")

    def _find_dist_info(self, members: Iterable[Member], filename: str) -> str:
        tops = set(filter(is_dist_info, (member.name.partition("/")[0] for member in members)))
        if len(tops) != 1:
            raise self.unsafe(
                f"it has {len(tops)} .dist-info folders: {', '.join(sorted(tops)) or 'there must be one'}"
            )
        (found,) = tops
        check_project(found, filename, self.path)
        return found

    def _recorded(self, members: Iterable[Member]) -> list[WheelFile]:
        """Match the members with what RECORD says of them."""
        by_name = {member.name: member for member in members}
        record = by_name.get(f"{self.dist_info}/RECORD")
        if record is None:
            raise self.unsafe("it has no RECORD")
        if max(record.size, record.packed) > _LARGEST_RECORD:
            raise self.unsafe(f"its RECORD has {record.size} bytes")
        rows = self._rows(self.contents(record), {name.rpartition("/")[0] for name in by_name})
        unrecorded = {f"{self.dist_info}/{name}" for name in _UNRECORDED}
        for name in rows.keys() - by_name.keys() - unrecorded:
            raise self.unsafe(f"RECORD lists {name!r}, which is not there")
        files = []
        for name, member in by_name.items():
            if name in unrecorded:
                files.append(WheelFile(member))
                continue
            if name not in rows:
                raise self.invalid(f"RECORD does not list {name!r}")
            files.append(self._file(member, *rows[name]))
        return files

    def _rows(self, data: bytes, folders: AbstractSet[str]) -> dict[str, tuple[str, str]]:
        import csv  # hits and warm trees have no use for it

        rows: dict[str, tuple[str, str]] = {}
        try:
            for row in csv.reader(data.decode("utf-8").splitlines(), strict=True):
                if not row:
                    continue
                name, told, size = row
                # Some builders on Windows write its slashes, and others list folders.
                name = name.replace("\\", "/")
                if name.endswith("/") and name.removesuffix("/") in folders:
                    continue
                if rows.setdefault(name, (told, size)) != (told, size):
                    raise self.unsafe(f"RECORD tells two things of {name!r}")
        except (csv.Error, ValueError) as error:
            raise self.invalid(f"RECORD cannot be read: {error}") from error
        return rows

    def _file(self, member: Member, told: str, size: str) -> WheelFile:
        algorithm, _, value = told.partition("=")
        try:
            digest = binascii.a2b_base64(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4))
            right = _RECORD_ALGORITHMS.get(algorithm.lower()) == len(digest) and (not size or int(size) == member.size)
        except ValueError:
            right = False
        if not right:
            raise self.invalid(f"RECORD has no good hash and size of {member.name!r}: {told!r}, {size!r}")
        return WheelFile(member, algorithm.lower(), digest)

    def contents(self, member: Member) -> bytes:
        """Return the contents of one small member.

        Raises:
            UnsafeWheelError: where they are not what the directory says.
        """
        region = memoryview(self._read_at(member.offset, member.end - member.offset))
        try:
            at = zip_format.check_header(member, region)
            packed = region[at : at + member.packed]
            zip_format.check_descriptor(member, bytes(region[at + member.packed :]))
            return unpacked(member, packed)
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
