"""Read and write records. A record is a small JSON file that makes a blob an entry.

A record is valid only if its checksum matches. A torn, short, zero-filled or mixed record counts as missing, so no
write needs to be atomic. A record in the folder of another digest or under another file name is not valid either.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

from .._filenames import has_wheel_form
from .._fs.robustio import RobustIO
from .._fs.tempnames import OwnerTag
from .._hashes import normalize_hash
from .layout import Layout

# Far more places than any version uses for one wheel.
_MAX_PLACES = 1000
_MAX_NUMBER = 1 << 128
MAX_RECORD = 1 << 20
"""Bytes. The longest field is the URL. HTTP clients accept URLs of up to 64 KiB, and JSON needs up to 6 bytes for a
character."""


class StatFingerprint(NamedTuple):
    """The status of a blob when it was hashed. The blob is trusted while its size, time stamp and inode are the same.

    Attributes:
        mtime_ns: the time stamp in nanoseconds.
        inode: the number of the file on its volume. A file that replaces it has another number.
        boot: the boot to which trust is limited, or ``None`` if the system does not identify its boots. Trust is then
            limited to the process.
    """

    mtime_ns: int
    inode: int
    boot: str | None


class Record(NamedTuple):
    """The record of one wheel.

    Attributes:
        filename: the wheel's file name.
        sha256: the digest in hex.
        size: the size in bytes.
        seen: the fingerprint of the blob when it was last hashed.
        hashes: other computed hashes in hex, by algorithm.
        url: the redacted URL that the wheel was fetched from, or ``None``.
        created: the creation time in seconds since the epoch.
        place: the number of the folder with the blob, or 0 if the blob is beside the record.
    """

    filename: str
    sha256: str
    size: int
    seen: StatFingerprint
    hashes: Mapping[str, str] = MappingProxyType({})
    url: str | None = None
    created: int = 0
    place: int = 0

    def all_hashes(self) -> dict[str, str]:
        """Return all known hashes in hex, by algorithm, sha256 first."""
        return {"sha256": self.sha256, **self.hashes}

    def with_fingerprint(self, seen: StatFingerprint, hashes: Mapping[str, str]) -> Record:
        """Return the record with a new fingerprint and only the hashes that were computed at the same time."""
        others = {name: value for name, value in hashes.items() if name != "sha256"}
        return self._replace(seen=seen, hashes=others)

    def for_this_process(self) -> Record:
        """Return the record without a boot, so that no other process accepts its hashes."""
        return self._replace(seen=self.seen._replace(boot=None))


def encode(fields: Mapping[str, Any]) -> bytes:
    """Return fields as one line of JSON, with a checksum of all fields as the last one."""
    body = json.dumps(fields, separators=(",", ":"), sort_keys=True)
    return f'{body[:-1]},"check":"{_check(body)}"}}\n'.encode("ascii")


_CHECK_TAIL = len(',"check":"00000000"}\n')


def decode(data: bytes) -> dict[str, Any] | None:
    """Return the fields that :func:`encode` encoded, or ``None`` if the data or the checksum is invalid."""
    try:
        text = data.decode("ascii")
        body = text[:-_CHECK_TAIL] + "}"
        if text[-_CHECK_TAIL:] != f',"check":"{_check(body)}"}}\n':
            return None
        # The method ``decode`` would also skip blanks around the object. No encoded object has any.
        fields, end = _DECODER.raw_decode(body)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and end == len(body) else None


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field occurs twice")
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_fields)


def is_text(value: object) -> TypeGuard[str]:
    """Return whether a decoded value is a string that can be encoded. JSON can contain one half of a surrogate pair."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def is_number(value: object) -> TypeGuard[int]:
    """Return whether a decoded value is an integer that a file system could return. An inode has up to 128 bits."""
    return type(value) is int and -_MAX_NUMBER < value < _MAX_NUMBER


def _check(body: str) -> str:
    # A checksum detects accidents and not attacks, because a program that can write a record can also write its
    # checksum.
    return f"{zlib.crc32(body.encode('ascii')):08x}"


def encode_record(record: Record) -> bytes:
    """Return a record as bytes. An extremely long URL is left out, so that the record can be read again."""
    data = encode({**record._asdict(), "seen": record.seen._asdict(), "hashes": dict(record.hashes)})
    return data if len(data) <= MAX_RECORD else encode_record(record._replace(url=None))


def decode_record(data: bytes, sha256: str) -> Record | None:
    """Return the record of a wheel with this sha256, or ``None`` if the data is not a valid record of this wheel."""
    fields = decode(data)
    if fields is None:
        return None
    try:
        record = Record(**{**fields, "seen": StatFingerprint(**fields["seen"])})
    except (TypeError, KeyError):
        return None
    return record if record.sha256 == sha256 and _is_sound(record) else None


def _is_sound(record: Record) -> bool:
    """Return whether all fields have valid values, since other programs may also write records."""
    numbers = (record.size, record.created, record.place, record.seen.mtime_ns, record.seen.inode)
    return (
        all(map(is_number, numbers))
        and record.size >= 0
        and 0 <= record.place < _MAX_PLACES
        and isinstance(record.filename, str)
        and has_wheel_form(record.filename)
        and (record.seen.boot is None or is_text(record.seen.boot))
        and (record.url is None or is_text(record.url))
        and isinstance(record.hashes, dict)
        and all(is_known_hash(name, value) for name, value in record.hashes.items())
    )


def is_known_hash(name: str, value: object) -> bool:
    """Return whether a record may contain this hash beside the sha256."""
    try:
        return isinstance(value, str) and name != "sha256" and normalize_hash(name, value) == (name, value)
    except ValueError:
        return False


def write_record(fs: RobustIO, layout: Layout, record: Record, used: float) -> None:
    """Write or replace a record. Its blob becomes an entry with this time of last use.

    Raises:
        CommitError: if the file system refuses an operation.
    """
    stamp = OwnerTag.new(fs.system.now(), fs.system.boot())
    path = layout.record(record.sha256, record.filename)
    fs.write_small(path, encode_record(record), layout.new_temporary(stamp))
    # The time is set explicitly, because times of last use are compared and the clock of a file server may differ from
    # ours.
    fs.touch(path, used)


def write_first_record(fs: RobustIO, layout: Layout, record: Record, used: float) -> None:
    """Write a record like :func:`write_record`, but never replace an existing one.

    Raises:
        FileExistsError: if a record exists.
        CommitError: if the file system refuses an operation.
    """
    path = layout.record(record.sha256, record.filename)
    fs.create_small(path, encode_record(record))
    fs.touch(path, used)
