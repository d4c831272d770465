"""Archives built byte by byte: wheels that no honest tool would write, and unusual but correct ones.

    hostile = wheel([Entry("demo/../../evil.py", b"")])

Every field of every header can be set to any value. The others have the values that an honest tool would write.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

STORED, DEFLATED = 0, 8
DESCRIPTOR, UTF8, ENCRYPTED = 1 << 3, 1 << 11, 1

LINK, FOLDER, FIFO = 0o120777, 0o040755, 0o010644

FILENAME = "demo-1.0-py3-none-any.whl"
INFO = "demo-1.0.dist-info"


@dataclass
class Entry:
    """One member.

    Attributes:
        name: text, or bytes that cannot be decoded.
        data: its contents.
        method: the compression method.
        flags: the general purpose bit flags; the one for UTF-8 is set if the name needs it, unless ``plain``.
        mode: its type and permissions.
        packed: the compressed bytes, if they are not those of the data.
        local, central: fields of its two headers that have wrong values. The central one also has ``system``, which
            made it, and ``attributes`` of DOS.
        extra: the extra field of the central directory; ``local_extra`` is that of its own header.
        after: the bytes after its contents, such as a descriptor.
        recorded: whether RECORD lists it.
    """

    name: str | bytes
    data: bytes = b"x = 1\n"
    method: int = STORED
    flags: int = 0
    mode: int = 0o100644
    packed: bytes | None = None
    local: dict[str, object] = field(default_factory=dict)
    central: dict[str, object] = field(default_factory=dict)
    extra: bytes = b""
    local_extra: bytes = b""
    after: bytes = b""
    recorded: bool = True
    plain: bool = False

    def raw_name(self) -> bytes:
        return self.name if isinstance(self.name, bytes) else self.name.encode()

    def contents(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflate(self.data) if self.method == DEFLATED else self.data

    def fields(self) -> dict[str, object]:
        raw = self.raw_name()
        flags = self.flags | (0 if raw.isascii() or self.plain else UTF8)
        return {
            "flags": flags,
            "method": self.method,
            "crc": zlib.crc32(self.data),
            "packed": len(self.contents()),
            "size": len(self.data),
            "name": raw,
        }


def deflate(data: bytes) -> bytes:
    """Return a raw deflate stream."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


def descriptor(entry: Entry, *, signature: bool = True, wide: bool = False) -> bytes:
    """Return the data descriptor of an entry whose header gives no sizes."""
    form = "<LQQ" if wide else "<LLL"
    text = struct.pack(form, zlib.crc32(entry.data), len(entry.contents()), len(entry.data))
    return b"PK\7\x08" * signature + text


def local_header(entry: Entry) -> bytes:
    it = {**entry.fields(), **entry.local}
    numbers = (20, it["flags"], it["method"], 0, 33, it["crc"], it["packed"], it["size"])
    return struct.pack("<4s5H3L2H", b"PK\3\4", *numbers, len(it["name"]), len(entry.local_extra)) + (
        it["name"] + entry.local_extra
    )


def central_header(entry: Entry, offset: int) -> bytes:
    it = {"offset": offset, "disk": 0, "system": 3, "attributes": 0, **entry.fields(), **entry.central}
    return struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", it["system"] << 8 | 20, 20, it["flags"], it["method"], 0, 33, it["crc"], it["packed"],
        it["size"], len(it["name"]), len(entry.extra), 0, it["disk"], 0, entry.mode << 16 | it["attributes"],
        it["offset"],
    ) + it["name"] + entry.extra  # fmt: skip


def archive(
    entries: Sequence[Entry],
    *,
    before: bytes = b"",
    between: bytes = b"",
    tail: bytes = b"",
    comment: bytes = b"",
    after: bytes = b"",
    end: dict[str, int] | None = None,
    zip64: bool = False,
) -> bytes:
    """Return an archive.

    The bytes ``before`` are first, ``between`` follows the first member, ``tail`` precedes the central directory, and
    ``after`` is last. ``end`` sets fields of the end record; ``zip64`` writes the longer forms although none is needed.
    """
    data = bytearray(before)
    offsets = []
    for number, entry in enumerate(entries):
        offsets.append(len(data))
        data += local_header(entry) + entry.contents() + entry.after
        if number == 0:
            data += between
    data += tail
    start = len(data)
    for entry, offset in zip(entries, offsets, strict=True):
        data += central_header(entry, offset)
    length, count = len(data) - start, len(entries)
    it = {"disk": 0, "here": count, "count": count, "length": length, "start": start}
    if zip64:
        where = len(data)
        data += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
        data += struct.pack("<4sLQL", b"PK\6\7", 0, where, 1)
        it.update(here=0xFFFF, count=0xFFFF, length=0xFFFFFFFF, start=0xFFFFFFFF)
    it.update(end or {})
    data += struct.pack(
        "<4s4H2LH", b"PK\5\6", it["disk"], 0, it["here"], it["count"], it["length"], it["start"], len(comment)
    )
    return bytes(data + comment + after)


def urlsafe(data: bytes, algorithm: str = "sha256") -> str:
    """Return a hash as RECORD writes it."""
    return base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()


def record_of(entries: Sequence[Entry], info: str = INFO, algorithm: str = "sha256") -> str:
    """Return the text of a RECORD that lists these entries."""
    rows = []
    for entry in entries:
        name = entry.name if isinstance(entry.name, str) else entry.name.decode("utf-8", "replace")
        if entry.recorded and not name.endswith("/"):
            quoted = '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name
            rows.append(f"{quoted},{algorithm}={urlsafe(entry.data, algorithm)},{len(entry.data)}")
    return "".join(row + "\n" for row in [*rows, f"{info}/RECORD,,"])


def wheel_entries(
    entries: Sequence[Entry] = (), *, info: str = INFO, record: str | None = None, algorithm: str = "sha256"
) -> list[Entry]:
    """Return these entries together with the others that a wheel requires."""
    name, version = info.removesuffix(".dist-info").rsplit("-", 1)
    every = [
        *entries,
        Entry(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()),
        Entry(f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ]
    text = record_of(every, info, algorithm) if record is None else record
    return [*every, Entry(f"{info}/RECORD", text.encode())]


def wheel(entries: Sequence[Entry] = (), *, record: str | None = None, **how: object) -> bytes:
    """Return a wheel with these entries, and the others that a wheel requires."""
    return archive(wheel_entries(entries, record=record), **how)  # type: ignore[arg-type]
