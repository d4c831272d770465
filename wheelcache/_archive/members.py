"""Contents of the members of an archive: a small one at once, a large one in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import inflate
from . import zip as zip_format
from .zip import BadZipError, Member

_PIECE = 1 << 18
_LARGEST_OUTPUT = 1 << 22


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


def pieces(member: Member, read_at: Callable[[int, int], bytes]) -> Iterator[bytes]:
    """Yield the contents of a large member, and see in the end that they are what the directory says.

    Raises:
        BadZipError: where they are not.
    """
    head = read_at(member.offset, min(zip_format.LONGEST_HEADER, member.end - member.offset))
    start = member.offset + zip_format.check_header(member, memoryview(head))
    end = start + member.packed
    zip_format.check_descriptor(member, read_at(end, member.end - end) if end <= member.end else b"\0")
    size = crc = 0
    for piece in _inflated(member, read_at, start, end) if member.method else _stored(read_at, start, end):
        size += len(piece)
        if size > member.size:
            break
        crc = inflate.crc32(piece, crc)
        yield piece
    if size != member.size:
        raise BadZipError(f"{member.name!r} does not have the size that it is said to have")
    if crc != member.crc:
        raise BadZipError(f"{member.name!r} is damaged: its checksum is wrong")


def _stored(read_at: Callable[[int, int], bytes], start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, _PIECE):
        yield read_at(at, min(_PIECE, end - at))


def _inflated(member: Member, read_at: Callable[[int, int], bytes], start: int, end: int) -> Iterator[bytes]:
    stream = inflate.inflater()
    try:
        for packed in _stored(read_at, start, end):
            if stream.eof:
                raise BadZipError(f"{member.name!r} does not end where it is said to end")
            rest = packed
            while rest and not stream.eof:
                yield stream.decompress(rest, _LARGEST_OUTPUT)
                rest = stream.unconsumed_tail
        while not stream.eof and (more := stream.decompress(b"", _LARGEST_OUTPUT)):
            yield more
    except inflate.ERRORS as error:
        raise BadZipError(f"{member.name!r} cannot be inflated: {error}") from error
    if not stream.eof or stream.unused_data:
        raise BadZipError(f"{member.name!r} does not end where it is said to end")
