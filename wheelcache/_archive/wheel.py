"""Archive: a wheel as its archive tells it, refused where it is not safe or not beyond doubt.

What can be told from the names and sizes alone is told before anything is written: where every file goes, that it stays
inside, that no two are one file on some system, that there is no more to unpack than the archive can honestly hold, and
that ``RECORD`` and the archive speak of the same files. The contents are checked when they pass, in :mod:`._fill`.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from .._exceptions import InvalidWheelError, UnsafeWheelError
from .._fs.tempnames import SPARE, is_spare
from . import inflate
from . import zip as zip_format
from .dist_info import check_project, is_dist_info
from .zip import BadZipError, Member

# Deflate makes at most 1032 bytes of one (https://zlib.net/zlib_tech.html): who claims more lies.
_DEFLATE_LIMIT = 1032
# Honest wheels unpack to 3 or 4 times their size, and 50 times where they hold nearly nothing but the same text.
_BOMB_RATIO = 200
_SMALL_ENOUGH = 256 << 20
# It is read at once. A hundred bytes for each file make that of 13,000 files 1.3 MB.
_LARGEST_RECORD = 64 << 20
# Every folder of a name is remembered, so that a name of 65,535 bytes could ask for gigabytes. No system takes longer
# parts or paths (https://man7.org/linux/man-pages/man7/path_resolution.7.html), and no wheel goes so deep.
_LONGEST_NAME, _LONGEST_PART, _MOST_FOLDERS = 4096, 255, 100
# No part of it can be too long, nor can there be too many.
_SURELY_SHORT = 2 * _MOST_FOLDERS
# A deflate stream of nothing has 2 bytes.
_LARGEST_FOLDER = 64

# What Windows does not allow: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_PROBLEM = re.compile(
    r"""(?P<character>[\x00-\x1f\x7f<>:"|?*\\])
      | (?P<way>(?:^|/)\.{0,2}(?=/.|$)|^/)
      | (?P<tail>[.\ ](?=/|$))
      | (?:^|/)(?P<device>(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])[\ ]*(?:\.[^/]*)?)(?=/|$)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PROBLEMS = {
    "character": "has a character that is no part of a name on some systems",
    "way": "does not lead straight to a place inside",
    "tail": "ends in a dot or a space, which Windows drops",
    "device": "is reserved on Windows",
}

# The same for all names of an archive together, each on a line: there are thousands, and hardly ever is one refused.
_CHARACTER = re.compile(r"""[\x00-\x09\x0b-\x1f\x7f<>:"|?*\\]""")
_CROOKED = ("//", "./", " /", ".\n", " \n", "/\n", "\n/", "\n\n")
_DEVICE = re.compile(r"[/\n](?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\ *[./\n]", re.IGNORECASE)

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
        names = _Names()
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


def unpacked(member: Member, packed: memoryview) -> bytes:
    """Return the contents of a member from its packed bytes.

    Raises:
        BadZipError: where they are not what the directory says. No more than it says is ever made.
    """
    if member.method == zip_format.STORED:
        data = bytes(packed)
        left = False
    else:
        stream = inflate.inflater()
        try:
            # One byte more than there may be: the end of the stream is seen, and so is one byte too many.
            data = stream.decompress(packed, member.size + 1)
        except inflate.ERRORS as error:
            raise BadZipError(f"{member.name!r} cannot be inflated: {error}") from error
        left = not stream.eof or bool(stream.unused_data)
    if len(packed) != member.packed or len(data) != member.size or left:
        raise BadZipError(f"{member.name!r} does not have the size that it is said to have")
    if inflate.crc32(data) != member.crc:
        raise BadZipError(f"{member.name!r} is damaged: its checksum is wrong")
    return data


class _Names:
    """The names so far, by what they have in common with others that are one with them on some system."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._known: set[str] = set()

    def add(self, name: str) -> str:
        """Take a name; return what is wrong with it beside the others, ``""`` where nothing is."""
        parent = name.rpartition("/")[0]
        while parent and parent not in self._known:
            other = self._folders.setdefault(_folded(parent), parent)
            if other != parent:
                return f"is in a folder that is the same as {other!r} on some systems"
            self._known.add(parent)
            parent = parent.rpartition("/")[0]
        if not name.endswith("/"):
            other = self._files.setdefault(_folded(name), name)
            if other is not name:
                return "is there twice" if other == name else f"is the same file as {other!r} on some systems"
        return ""

    def file_and_folder(self) -> str:
        """Return a name that is both, ``""`` where there is none."""
        both = self._files.keys() & self._folders.keys()
        return self._files[both.pop()] if both else ""


def _is_folder(member: Member) -> bool:
    return member.name.endswith("/")


def are_plain(names: Sequence[str]) -> bool:
    """Return whether no name has a problem; where one might, :func:`problem_of_name` tells for each."""
    lines = "\n".join(["", *(name.removesuffix("/") for name in names), ""])
    return not (
        lines.count("\n") != len(names) + 1
        or _CHARACTER.search(lines)
        or any(crooked in lines for crooked in _CROOKED)
        or _DEVICE.search(lines)
        or SPARE in lines
        or max(map(len, names), default=0) > _SURELY_SHORT
    )


def problem_of_name(name: str) -> str:
    """Return what is wrong with the name of a member, ``""`` where nothing is."""
    if len(name) > _SURELY_SHORT and _is_too_long(name):
        return "is longer or deeper than systems bear"
    found = _PROBLEM.search(name.removesuffix("/"))
    if found is None:
        return "is kept for files that are not finished" if any(map(is_spare, name.split("/"))) else ""
    return next(text for group, text in _PROBLEMS.items() if found[group] is not None)


def _is_too_long(name: str) -> bool:
    parts = name.split("/") if len(name) <= _LONGEST_NAME else []
    return not 0 < len(parts) <= _MOST_FOLDERS + 1 or any(len(part) > _LONGEST_PART for part in parts)


def _problem_of_type(member: Member) -> str:
    kind = member.mode & _TYPE
    if kind not in (0, _FOLDER if _is_folder(member) else _REGULAR):
        return "is a link or a special file"
    if _is_folder(member) and (member.size or member.packed > _LARGEST_FOLDER):
        return "is a folder with contents"
    return ""


def _folded(name: str) -> str:
    """Return what two names have in common that are one on some system: those of Windows and macOS ignore case."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
