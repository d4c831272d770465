"""Records: the small JSON files that make a blob an entry.

A record is believed only when its own checksum holds, so that a torn, short, zero-filled or mixed one is no record at
all (rule 3: nothing valid depends on one call being atomic). It never says more than what the folder and file name
around it say: one that belongs elsewhere is no record here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .._fs.robustio import RobustIO
from .._fs.tempnames import OwnerTag
from .layout import Layout


class StatFingerprint(NamedTuple):
    """A file as it was when its bytes were hashed: the same size, time stamp and inode within the same boot are trust.

    Attributes:
        mtime_ns: the time stamp, in nanoseconds.
        inode: the number of the file on its volume; a file put in its place has another.
        boot: the boot identity, ``None`` where the system has none: then nothing is trusted across processes.
    """

    mtime_ns: int
    inode: int
    boot: str | None


class Record(NamedTuple):
    """What is known of one wheel.

    Attributes:
        filename: the wheel's file name.
        sha256: in hex.
        size: bytes.
        hashes: the other hashes that were computed, by algorithm, in hex.
        url: where it came from, redacted, or ``None``.
        created: seconds since the epoch.
        place: 0 beside the record, else the number of the folder that holds the blob.
        seen: the blob when it was hashed last.
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
        """Every hash that is known, sha256 first."""
        return {"sha256": self.sha256, **self.hashes}

    def seen_as(self, seen: StatFingerprint, hashes: Mapping[str, str]) -> Record:
        """The record after the blob was hashed again, with what was computed."""
        more = {name: value for name, value in hashes.items() if name != "sha256"}
        return self._replace(seen=seen, hashes={**self.hashes, **more})


def encode(fields: Mapping[str, Any]) -> bytes:
    """Write fields as one line of JSON whose last field is a checksum of the others."""
    body = json.dumps(fields, separators=(",", ":"), sort_keys=True)
    return f'{body[:-1]},"check":"{_check(body)}"}}\n'.encode("ascii")


_CHECK_TAIL = len(',"check":"00000000"}\n')


def decode(data: bytes) -> dict[str, Any] | None:
    """Read what :func:`encode` wrote, ``None`` where it is anything else."""
    try:
        text = data.decode("ascii")
        body = text[:-_CHECK_TAIL] + "}"
        if text[-_CHECK_TAIL:] != f',"check":"{_check(body)}"}}\n':
            return None
        fields = json.loads(body)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _check(body: str) -> str:
    # It tells accidents, not attacks: who can write records can write checksums too.
    return f"{zlib.crc32(body.encode('ascii')):08x}"


def encode_record(record: Record) -> bytes:
    """Write a record."""
    return encode({**record._asdict(), "seen": record.seen._asdict(), "hashes": dict(record.hashes)})


def decode_record(data: bytes, sha256: str) -> Record | None:
    """Read the record of a wheel with this sha256, ``None`` where this is not one."""
    fields = decode(data)
    if fields is None:
        return None
    try:
        record = Record(**{**fields, "seen": StatFingerprint(**fields["seen"])})
    except (TypeError, KeyError):
        return None
    return record if record.sha256 == sha256 and _is_sound(record) else None


def _is_sound(record: Record) -> bool:
    """Whether every field that is worked with is what it should be; another program may write records, too."""
    numbers = (record.size, record.created, record.place, record.seen.mtime_ns, record.seen.inode)
    return (
        all(type(number) is int for number in numbers)
        and record.size >= 0
        and record.place >= 0
        and isinstance(record.filename, str)
        and isinstance(record.seen.boot, str | None)
        and isinstance(record.url, str | None)
        and isinstance(record.hashes, dict)
        and all(isinstance(value, str) for value in record.hashes.values())
    )


def write_record(fs: RobustIO, layout: Layout, record: Record, used: float) -> None:
    """Write a record, in the place of one that is there: from here on its blob is an entry, used last when it is said.

    Raises:
        CommitError: where it is refused.
    """
    stamp = OwnerTag.new(fs.system.now(), fs.system.boot())
    path = layout.record(record.sha256, record.filename)
    fs.write_small(path, encode_record(record), layout.new_temporary(stamp))
    # A file server has a clock of its own, and marks are compared with each other.
    fs.touch(path, used)


def write_first_record(fs: RobustIO, layout: Layout, record: Record, used: float) -> None:
    """Write the record of what has none yet, as :func:`write_record`.

    Raises:
        FileExistsError: where it has one.
        CommitError: where it is refused.
    """
    path = layout.record(record.sha256, record.filename)
    fs.create_small(path, encode_record(record))
    fs.touch(path, used)
