"""Read zip archives so strictly that every other reader sees the same contents.

A zip archive contains most facts twice. Both must agree, because readers differ in which of the two they use. Every
byte of the file must belong to exactly one part. The members start at the first byte and have no gaps between them. The
central directory follows, then the zip64 end record, if any, and then the end record. The comment of the end record
ends the file. Other features of the format (https://pkware.com/documents/casestudies/APPNOTE.TXT) are refused, because
no wheel needs them. Examples are several disks, encryption, patches, and a second name or type in an extra field.

Readers determine the type of a member by its name, its mode or its DOS attributes, depending on the system that created
the archive. All of these must agree.

The central directory is read first, without the members. The header of a member is compared with the central directory
when the member is read. Each byte is therefore read once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

ReadAt = Callable[[int, int], bytes]
"""A function that returns bytes of an archive, given an offset and a number of bytes. Returns fewer at the end."""

STORED, DEFLATED = 0, 8

_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\5\6"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_SIGNATURE = b"PK\6\6"
_LOCATOR64 = struct.Struct("<4sLQL")
_LOCATOR64_SIGNATURE = b"PK\6\7"
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_CENTRAL_SIGNATURE = b"PK\1\2"
_LOCAL = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE = b"PK\3\4"
_DESCRIPTOR_SIGNATURE = b"PK\7\x08"
_EXTRA = struct.Struct("<2H")

LONGEST_HEADER = _LOCAL.size + 2 * 0xFFFF
"""The largest number of bytes of a member before its contents."""
_LONGEST_DESCRIPTOR = 24
_LONGEST_END = _END.size + 0xFFFF
LONGEST_TAIL = _LONGEST_END + _LOCATOR64.size + _END64.size
"""The number of bytes at the end of an archive that are read first. They contain the end records."""
# The central directory is read into memory. This size is enough for about 300,000 files. RECORD cannot list as many.
_LARGEST_DIRECTORY = 32 << 20
_WHOLE16, _WHOLE32 = 0xFFFF, 0xFFFFFFFF
_ZIP64 = 0x0001
# These extra fields contain only times (NTFS, Info-ZIP), owners (three of Info-ZIP), a comment, a marker or padding.
# Others can change the name (0x7075), the type and the target of a link (0x000d, 0x756e, and 0x6c78 of libarchive), or
# the contents: https://libzip.org/specifications/extrafld.txt
_HARMLESS_FIELDS = {_ZIP64, 0x000A, 0x5455, 0x5855, 0x7855, 0x7875, 0x6375, 0xCAFE, 0xD935, 0xA220}

# All readers interpret the attributes of these systems in the same way: DOS, Unix, NTFS, VFAT and macOS. On an Amiga,
# for example, the mode of a setuid file means a folder.
_KNOWN_SYSTEMS = {0, 3, 11, 14, 19}
# These DOS attributes mean a volume label, a device and a reparse point, such as a link:
# https://learn.microsoft.com/windows/win32/fileio/file-attribute-constants
_SPECIAL_ATTRIBUTES = 0x08 | 0x40 | 0x400
_FOLDER_ATTRIBUTE = 0x10

# This is version 6.3 of the format. zipfile also refuses newer versions.
_NEWEST_FORMAT = 63

_HAS_DESCRIPTOR = 1 << 3
_UTF8 = 1 << 11
# Bits 1 and 2 only describe the effort of the compression. The other bits mean encryption, patches, enhanced
# compression or a hidden central directory, or are reserved.
_KNOWN_FLAGS = 1 << 1 | 1 << 2 | _HAS_DESCRIPTOR | _UTF8


class BadZipError(ValueError):
    """The archive is damaged, or two readers could read it differently."""


class Member(NamedTuple):
    """A file or folder in the central directory of an archive. This is a tuple, because there may be thousands.

    Attributes:
        name: the name, with a slash at the end for a folder.
        raw_name: the bytes of the name.
        flags: the general purpose bit flags.
        method: :data:`STORED` or :data:`DEFLATED`.
        crc: the CRC-32 of the contents.
        packed: the size of the contents in the archive, in bytes.
        size: the size of the contents in bytes.
        mode: the type and permissions on POSIX, or 0 if the archive does not contain them.
        offset: the offset of the member's header.
        end: the offset of the next member or of the central directory.
    """

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    mode: int
    offset: int
    end: int


def read_directory(read_at: ReadAt, size: int) -> list[Member]:
    """Return the members of an archive, in the order of their offsets.

    Raises:
        BadZipError: if the file is not an archive, or is ambiguous.
    """
    start, length, count = _find_directory(read_at, size)
    if length > _LARGEST_DIRECTORY:
        raise BadZipError(f"the central directory has {length} bytes, more than the limit")
    directory = read_at(start, length)
    found = []
    at = 0
    while at < length:
        raw, at = _read_central(directory, at)
        found.append(raw)
    if len(found) != count:
        raise BadZipError(f"the central directory has {len(found)} entries instead of {count}")
    return _laid_out(found, start)


def _find_directory(read_at: ReadAt, size: int) -> tuple[int, int, int]:
    """Return the offset of the central directory, its size in bytes, and its declared number of entries."""
    tail_start = max(size - LONGEST_TAIL, 0)
    tail = read_at(tail_start, size - tail_start)
    place = tail.rfind(_END_SIGNATURE, max(len(tail) - _LONGEST_END, 0))
    if place < 0 or place + _END.size > len(tail):
        raise BadZipError("the file is not a complete zip archive, because its end record is missing or cut off")
    _, disk, first_disk, count_here, count, length, start, comment = _END.unpack_from(tail, place)
    if place + _END.size + comment != len(tail):
        raise BadZipError("the file has bytes after the end record")
    if disk or first_disk or count_here != count:
        raise BadZipError("the archive is one of several parts")
    end = tail_start + place
    if tail[place - _LOCATOR64.size : place].startswith(_LOCATOR64_SIGNATURE) and place >= _LOCATOR64.size:
        start, length, count, end = _find_directory64(tail, place, tail_start, (start, length, count))
    elif _WHOLE32 in (start, length) or count == _WHOLE16:
        raise BadZipError("the zip64 end record is missing")
    if start + length != end:
        raise BadZipError("the central directory does not end where its end record begins")
    return start, length, count


def _find_directory64(
    tail: bytes, place: int, tail_start: int, short: tuple[int, int, int]
) -> tuple[int, int, int, int]:
    _, disk, where, disks = _LOCATOR64.unpack_from(tail, place - _LOCATOR64.size)
    place64 = place - _LOCATOR64.size - _END64.size
    if disk or disks != 1 or place64 < 0 or where != tail_start + place64:
        raise BadZipError("the zip64 end record is not at the offset in its locator")
    signature, length64, _, _, disk, first_disk, count_here, count, length, start = _END64.unpack_from(tail, place64)
    if signature != _END64_SIGNATURE or length64 != _END64.size - 12 or disk or first_disk or count_here != count:
        raise BadZipError("the zip64 end record is invalid")
    for narrow, wide, whole in zip(short, (start, length, count), (_WHOLE32, _WHOLE32, _WHOLE16), strict=True):
        if narrow not in (wide, whole):
            raise BadZipError("the two end records disagree")
    return start, length, count, where


def _read_central(directory: bytes, at: int) -> tuple[Member, int]:
    """Return the member at an offset of the central directory, without its end, and the offset of the next entry."""
    if at + _CENTRAL.size > len(directory):
        raise BadZipError("the central directory is cut off")
    (
        signature, made_by, needed, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length,
        disk, _, attributes, offset,
    ) = _CENTRAL.unpack_from(directory, at)  # fmt: skip
    if signature != _CENTRAL_SIGNATURE:
        raise BadZipError("the central directory has an invalid entry")
    at += _CENTRAL.size
    raw_name = directory[at : at + name_length]
    extra = directory[at + name_length : at + name_length + extra_length]
    at += name_length + extra_length + comment_length
    if at > len(directory):
        raise BadZipError("the central directory is cut off")
    name = _decode_name(raw_name, flags)
    if extra:
        size, packed, offset = _widened(name, extra, size, packed, offset)
    elif _WHOLE32 in (size, packed, offset):
        raise BadZipError(f"the zip64 field of {name!r} is missing")
    if needed > _NEWEST_FORMAT:
        raise BadZipError(f"{name!r} requires a newer version of the zip format")
    if flags & ~_KNOWN_FLAGS or disk or method not in (STORED, DEFLATED):
        raise BadZipError(f"{name!r} is encrypted, a patch, on another disk, or compressed by method {method}")
    _check_attributes(name, made_by >> 8, attributes)
    if method == STORED and (packed != size or (flags & _HAS_DESCRIPTOR and size)):
        raise BadZipError(f"the size of the uncompressed member {name!r} is ambiguous")
    return Member(name, raw_name, flags, method, crc, packed, size, attributes >> 16, offset, 0), at


def _check_attributes(name: str, system: int, attributes: int) -> None:
    if system not in _KNOWN_SYSTEMS:
        raise BadZipError(f"{name!r} has the attributes of the unknown system {system}")
    if attributes & _SPECIAL_ATTRIBUTES or (attributes & _FOLDER_ATTRIBUTE and not name.endswith("/")):
        raise BadZipError(f"{name!r} has the attributes of a folder, a volume label, a device or a link")


def _decode_name(raw: bytes, flags: int) -> str:
    try:
        # Without the flag, readers decode non-ASCII names differently: by code page 437, the system's encoding, or
        # UTF-8.
        return raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise BadZipError(f"the encoding of the name {raw!r} is ambiguous") from None


def _fields(name: str, extra: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if at + length > len(extra) or kind in fields:
            raise BadZipError(f"the extra fields of {name!r} are invalid")
        fields[kind] = extra[at : at + length]
        at += length
    if any(extra[at:]):
        raise BadZipError(f"the extra fields of {name!r} are invalid")
    for kind in fields.keys() - _HARMLESS_FIELDS:
        raise BadZipError(f"{name!r} has the extra field {kind:#06x} that some readers interpret and others ignore")
    return fields


def _widened(name: str, extra: bytes, *numbers: int) -> tuple[int, ...]:
    """Return the numbers, but read those whose short form has the maximum value from the zip64 field."""
    field = _fields(name, extra).get(_ZIP64, b"")
    wide = [number == _WHOLE32 for number in numbers]
    # Some writers add a zip64 field to which no number refers. This field must contain the same numbers, because some
    # readers use it.
    if len(field) < 8 * sum(wide) or (field and not any(wide)):
        if field and not any(wide) and _agrees(field, numbers):
            return numbers
        raise BadZipError(f"the zip64 field of {name!r} is invalid")
    if len(field) != 8 * sum(wide):
        raise BadZipError(f"the zip64 field of {name!r} is invalid")
    rest = iter(struct.unpack(f"<{sum(wide)}Q", field))
    return tuple(next(rest) if is_wide else number for number, is_wide in zip(numbers, wide, strict=True))


def _agrees(field: bytes, numbers: tuple[int, ...]) -> bool:
    whole = len(field) // 8
    return len(field) % 8 == 0 and struct.unpack(f"<{whole}Q", field) == numbers[:whole]


def _laid_out(found: list[Member], directory_start: int) -> list[Member]:
    """Sort the members by offset, add their ends, and refuse bytes before, between and after them."""
    found.sort(key=lambda member: member.offset)
    starts = [*(member.offset for member in found), directory_start]
    if starts[0] != 0:
        raise BadZipError("the file has bytes before the first member")
    laid_out = []
    for member, end in zip(found, starts[1:], strict=True):
        longest = _LOCAL.size + len(member.raw_name) + 0xFFFF + member.packed + _LONGEST_DESCRIPTOR
        length = end - member.offset
        if not _LOCAL.size + len(member.raw_name) + member.packed <= length <= longest:
            raise BadZipError(f"{member.name!r} overlaps the next part, or leaves a gap before it")
        laid_out.append(Member._make((*member[:-1], end)))
    return laid_out


def check_header(member: Member, head: memoryview) -> tuple[int, bool]:
    """Compare the header of a member with the central directory.

    ``head`` contains the first :data:`LONGEST_HEADER` bytes of the member, or all bytes of a shorter member. Returns
    the size of the header in bytes, and whether the header has a zip64 field.

    Raises:
        BadZipError: if the header and the central directory disagree.
    """
    if len(head) < _LOCAL.size:
        raise BadZipError(f"the header of {member.name!r} is cut off")
    signature, needed, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack_from(head)
    length: int = _LOCAL.size + name_length + extra_length
    name = bytes(head[_LOCAL.size : _LOCAL.size + name_length])
    if signature != _LOCAL_SIGNATURE or (name, flags, method) != (member.raw_name, member.flags, member.method):
        raise BadZipError(f"the header of {member.name!r} and the central directory disagree")
    if needed > _NEWEST_FORMAT:
        raise BadZipError(f"{member.name!r} requires a newer version of the zip format")
    has_zip64 = False
    if extra_length:
        extra = bytes(head[_LOCAL.size + name_length : length])
        size, packed = _widened(member.name, extra, size, packed)
        has_zip64 = _ZIP64 in _fields(member.name, extra)
    stated, expected = (crc, packed, size), (member.crc, member.packed, member.size)
    if stated != expected and not (
        flags & _HAS_DESCRIPTOR and all(a in (0, b) for a, b in zip(stated, expected, strict=True))
    ):
        raise BadZipError(f"the header of {member.name!r} and the central directory disagree")
    return length, has_zip64


def check_descriptor(member: Member, rest: bytes, *, has_zip64: bool) -> None:
    """Check that nothing but the data descriptor, if the member has one, follows the contents of the member.

    Readers of a stream derive the width of the descriptor from the header. The next header must follow the descriptor.
    If the contents are not compressed, these readers search for the signature of the descriptor.

    Args:
        member: the member.
        rest: the bytes between the contents and the next header.
        has_zip64: whether the member's header has a zip64 field.

    Raises:
        BadZipError: if other bytes follow.
    """
    if not member.flags & _HAS_DESCRIPTOR:
        is_right = not rest
    else:
        form = "<LQQ" if has_zip64 or max(member.packed, member.size) >= _WHOLE32 else "<LLL"
        expected = struct.pack(form, member.crc, member.packed, member.size)
        is_right = rest == _DESCRIPTOR_SIGNATURE + expected or (rest == expected and member.method != STORED)
    if not is_right:
        raise BadZipError(f"unexpected bytes follow {member.name!r}")
