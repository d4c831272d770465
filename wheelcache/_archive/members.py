"""Read the contents of an archive's members, whole or in pieces, and compare them with the central directory."""

from __future__ import annotations

from collections.abc import Iterator

from . import inflate
from . import zip as zip_format
from .zip import BadZipError, Member, ReadAt

_INPUT_PIECE = 1 << 18
_OUTPUT_PIECE = 1 << 22


def unpack_member(member: Member, region: memoryview) -> bytes:
    """Return the contents of a member, given all of its bytes in the archive.

    The result never exceeds the size in the central directory.

    Raises:
        BadZipError: if the header, the contents or the descriptor do not match the central directory.
    """
    start, has_zip64 = zip_format.check_header(member, region)
    packed = region[start : start + member.packed]
    zip_format.check_descriptor(member, bytes(region[start + member.packed :]), has_zip64=has_zip64)
    is_whole = len(packed) == member.packed
    if member.method == zip_format.STORED:
        data = bytes(packed)
    else:
        stream = inflate.inflater()
        try:
            # One more byte than the size is requested. With it, a correct stream reaches its end, and a stream that
            # is too long is detected.
            data = stream.decompress(packed, member.size + 1)
        except inflate.ERRORS as error:
            raise _cannot_inflate(member, error) from error
        is_whole = is_whole and stream.eof and not stream.unused_data
    if not is_whole or len(data) != member.size:
        raise _wrong_size(member)
    _check_crc(member, inflate.crc32(data))
    return data


def iter_member(member: Member, read_at: ReadAt) -> Iterator[bytes]:
    """Yield the contents of a member in pieces of at most 4 MiB.

    Raises:
        BadZipError: if the header, the contents or the descriptor do not match the central directory. Some pieces may
            have been yielded before, but never more bytes than the size in the central directory.
    """
    head = read_at(member.offset, min(zip_format.LONGEST_HEADER, member.end - member.offset))
    length, has_zip64 = zip_format.check_header(member, memoryview(head))
    start = member.offset + length
    end = start + member.packed
    rest = read_at(end, member.end - end) if end <= member.end else b"\0"
    zip_format.check_descriptor(member, rest, has_zip64=has_zip64)
    packed = _iter_packed(read_at, start, end)
    size = crc = 0
    for piece in packed if member.method == zip_format.STORED else _iter_inflated(member, packed):
        size += len(piece)
        if size > member.size:
            break
        crc = inflate.crc32(piece, crc)
        yield piece
    if size != member.size:
        raise _wrong_size(member)
    _check_crc(member, crc)


def _iter_packed(read_at: ReadAt, start: int, end: int) -> Iterator[bytes]:
    for offset in range(start, end, _INPUT_PIECE):
        yield read_at(offset, min(_INPUT_PIECE, end - offset))


def _iter_inflated(member: Member, pieces: Iterator[bytes]) -> Iterator[bytes]:
    stream = inflate.inflater()
    try:
        for packed in pieces:
            if stream.eof:
                raise _wrong_size(member)
            rest = packed
            while rest and not stream.eof:
                yield stream.decompress(rest, _OUTPUT_PIECE)
                rest = stream.unconsumed_tail
        while not stream.eof and (more := stream.decompress(b"", _OUTPUT_PIECE)):
            yield more
    except inflate.ERRORS as error:
        raise _cannot_inflate(member, error) from error
    if not stream.eof or stream.unused_data:
        raise _wrong_size(member)


def _check_crc(member: Member, crc: int) -> None:
    if crc != member.crc:
        raise BadZipError(f"{member.name!r} is damaged: its checksum does not match")


def _wrong_size(member: Member) -> BadZipError:
    return BadZipError(f"{member.name!r} does not have the size in the central directory")


def _cannot_inflate(member: Member, error: Exception) -> BadZipError:
    return BadZipError(f"{member.name!r} cannot be inflated: {error}")
