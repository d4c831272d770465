"""Wheels that must be refused, and unusual ones that must be accepted, each made by a function.

``NAMES`` are the names of members that make a wheel unsafe. ``STRUCTURES`` and ``INVALID`` are whole wheels that are
refused: as unsafe or ambiguous, and as broken. ``ODD`` are unusual wheels that are correct.
"""

from __future__ import annotations

import random
import struct

from archives import (
    DEFLATED,
    DESCRIPTOR,
    ENCRYPTED,
    FIFO,
    FOLDER,
    INFO,
    LINK,
    Entry,
    archive,
    central_header,
    deflate,
    descriptor,
    local_header,
    record_of,
    urlsafe,
    wheel,
    wheel_entries,
)

ZEROS = bytes(1 << 20)


def with_extra(kind: int, data: bytes) -> bytes:
    return struct.pack("<2H", kind, len(data)) + data


def deflated(name: str, data: bytes = b"x = 1\n" * 100, **how) -> Entry:
    return Entry(name, data, DEFLATED, **how)


def late(
    name: str,
    *,
    data: bytes = b"x = 1\n" * 100,
    method: int = DEFLATED,
    signature: bool = True,
    wide: bool = False,
) -> Entry:
    """A member whose sizes are in a descriptor after it."""
    entry = Entry(name, data, method, DESCRIPTOR, local={"crc": 0, "packed": 0, "size": 0})
    entry.after = descriptor(entry, signature=signature, wide=wide)
    return entry


def two_wheels() -> bytes:
    """One file with two archives: readers that search the end record from opposite ends see different ones."""
    return wheel([Entry("demo.py", b"good\n")]) + wheel([Entry("demo.py", b"evil\n")])


def attributed(attributes: int, system: int, name: str = "demo/a.py", mode: int = 0o100644) -> bytes:
    """Return a wheel with a member that has DOS attributes."""
    return wheel([Entry(name, mode=mode, central={"attributes": attributes, "system": system})])


def with_wide_descriptor(*, has_zip64: bool, wide: bool) -> bytes:
    """Return a wheel with a member that has a descriptor of 8 or 16 bytes for its sizes."""
    entry = late("demo/a.py", wide=wide)
    if has_zip64:
        entry.local = {"crc": 0, "packed": 0xFFFFFFFF, "size": 0xFFFFFFFF}
        entry.local_extra = with_extra(1, bytes(16))
    return wheel([entry])


LINK_OF_LIBARCHIVE = struct.pack("<BHHL", 0x07, 3 << 8 | 20, 0, LINK << 16)
"""The extra field 0x6c78: which values follow, and these values: made by, internal and external attributes."""


def newer_format() -> bytes:
    """A member that requires version 6.4 of the format."""
    data = bytearray(wheel([Entry("demo.py")]))
    data[data.index(b"PK\1\2") + 6] = 64
    return bytes(data)


def overlapping() -> bytes:
    inner = Entry("demo/b.py", b"y = 2\n")
    hidden = local_header(inner) + inner.data
    outer = Entry("demo/a.py", b"# " + hidden)
    entries = wheel_entries([outer, Entry("demo/b.py", inner.data)])
    offset = len(local_header(outer)) + 2
    data = archive([entries[0], *entries[2:]])
    start = data.index(b"PK\1\2")
    first = len(central_header(entries[0], 0))
    added = central_header(inner, offset)
    end = data.rindex(b"PK\5\6")
    counts = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(entries), len(entries), end - start + len(added), start, 0)
    return data[: start + first] + added + data[start + first : end] + counts


def nested(count: int, depth: int, part: str = "") -> list[Entry]:
    """Return empty files, each below its own ``depth`` folders."""
    return [Entry("/".join([f"{n}", *[part or "d"] * (depth - 1), "f"]), b"") for n in range(count)]


def with_rows(more: str) -> bytes:
    """Return a wheel of four files with more text at the end of its RECORD, compressed."""
    entries = wheel_entries([Entry("demo/a.py")])
    text = record_of(entries[:-1]) + more
    return archive([*entries[:-1], Entry(f"{INFO}/RECORD", text.encode(), DEFLATED)])


A_ROW = record_of([Entry("demo/a.py")]).splitlines(keepends=True)[0]

SIZELESS = f"demo/a.py,sha256={urlsafe(b'x = 1' + bytes([10]))},\n" + record_of(wheel_entries()[:-1])


NAMES = {
    "version of VMS": "demo/evil.py;1",
    "empty version of VMS": "demo/evil.py;",
    "resource fork of macOS": "__MACOSX/demo/._evil.py",
    "resource fork of macOS at the top": "__MACOSX/._evil.py",
    "of an unfinished file": ".wheelcache-1800000000-00000000-0-00000000.tmp",
    "of an unfinished folder": "demo/.wheelcache-1800000000-00000000-0-00000000.tmp/a.py",
    "parent": "../evil.py",
    "parent inside": "demo/../../evil.py",
    "parent that stays inside": "demo/../evil.py",
    "dot": "demo/./evil.py",
    "only dots": "demo/..",
    "absolute": "/evil.py",
    "double slash": "demo//evil.py",
    "drive": "C:/evil.py",
    "drive relative": "C:evil.py",
    "stream": "demo/evil.py:stream",
    "UNC": "//server/share/evil.py",
    "UNC backslashes": "\\\\server\\share\\evil.py",
    "backslash": "demo\\evil.py",
    "backslash parent": "..\\evil.py",
    "NUL": "demo/evil.py\0.txt",
    "newline": "demo/evil\n.py",
    "question mark": "demo/evil?.py",
    "quote": 'demo/"evil".py',
    "empty": "",
    "CON": "con",
    "NUL device": "demo/NUL.txt",
    "COM1": "demo/com1.py",
    "superscript": "demo/LPT².py",
    "CONIN$": "conin$",
    "reserved folder": "aux/evil.py",
    "reserved and a space": "demo/nul .py",
    "trailing dot": "demo/evil.",
    "trailing space": "demo/evil ",
    "folder with trailing dot": "demo./evil.py",
    "three dots": ".../evil.py",
    "folder upwards": "../",
    "empty folder name": "demo//",
    "16,000 folders": "a/" * 16_000 + "evil.py",
    "101 folders": "a/" * 101 + "evil.py",
    "part of 256 bytes": "demo/" + "n" * 256,
    "path of 4,100 bytes": "/".join(["n" * 204] * 20),
}

STRUCTURES = {
    "symlink": lambda: wheel([Entry("demo/link", b"/etc/passwd", mode=LINK)]),
    "symlink from nowhere": lambda: wheel([Entry("demo", b"..", mode=LINK)]),
    "fifo": lambda: wheel([Entry("demo/pipe", b"", mode=FIFO)]),
    "file that calls itself a folder": lambda: wheel([Entry("demo/x", b"", mode=FOLDER)]),
    "folder with contents": lambda: wheel([Entry("demo/", b"x = 1\n", mode=FOLDER)]),
    "case": lambda: wheel([Entry("demo/a.py"), Entry("demo/A.py")]),
    "case of a folder": lambda: wheel([Entry("demo/a.py"), Entry("Demo/b.py")]),
    "case beyond ASCII": lambda: wheel([Entry("demo/straße.py"), Entry("demo/STRASSE.py")]),
    "normal form": lambda: wheel([Entry("demo/\u00e9.py"), Entry("demo/e\u0301.py")]),
    "duplicate": lambda: wheel([Entry("demo/a.py"), Entry("demo/a.py")]),
    "file and folder": lambda: wheel([Entry("demo"), Entry("demo/a.py")]),
    "file and folder by case": lambda: wheel([Entry("DEMO"), Entry("demo/a.py")]),
    "local name": lambda: wheel([Entry("demo/a.py", local={"name": b"demo/b.py"})]),
    "local method": lambda: wheel([Entry("demo/a.py", local={"method": DEFLATED})]),
    "local size": lambda: wheel([Entry("demo/a.py", local={"size": 7})]),
    "local packed size": lambda: wheel([Entry("demo/a.py", local={"packed": 5})]),
    "local checksum": lambda: wheel([Entry("demo/a.py", local={"crc": 1})]),
    "local flags": lambda: wheel([Entry("demo/a.py", local={"flags": 1 << 11})]),
    "local signature": lambda: wheel([Entry("demo/a.py")]).replace(b"PK\3\4", b"PK\3\5", 1),
    "second name": lambda: wheel([Entry("demo/a.py", extra=with_extra(0x7075, b"\1\0\0\0\0evil.py"))]),
    "second name, locally": lambda: wheel([Entry("demo/a.py", local_extra=with_extra(0x7075, b"\1\0\0\0\0evil.py"))]),
    "name in an unknown alphabet": lambda: wheel([Entry("demo/ä.py", plain=True)]),
    "name that is no UTF-8": lambda: wheel([Entry(b"demo/\xff.py", recorded=False)]),
    "broken extra field": lambda: wheel([Entry("demo/a.py", extra=b"\1\0\xff\0")]),
    "sizes in two places": lambda: wheel([Entry("demo/a.py", extra=with_extra(1, struct.pack("<2Q", 9, 9)))]),
    "sizes in two places of its own header": lambda: wheel(
        [Entry("demo/a.py", local_extra=with_extra(1, struct.pack("<2Q", 99, 99)))]
    ),
    "newer format": newer_format,
    "second .dist-info that is a folder": lambda: wheel([Entry("evil-1.0.dist-info/", b"", mode=FOLDER)]),
    "sizes in no place": lambda: wheel([Entry("demo/a.py", central={"size": 0xFFFFFFFF})]),
    "before": lambda: wheel([Entry("demo.py")], before=b"#!/bin/sh\n"),
    "between": lambda: wheel([Entry("demo.py")], between=b"hidden"),
    "between, as a member": lambda: wheel([Entry("demo.py")], between=archive([Entry("evil.py")])[:-22]),
    "before the directory": lambda: wheel([Entry("demo.py")], tail=b"hidden"),
    "after": lambda: wheel([Entry("demo.py")], after=b"hidden"),
    "second end record in the comment": lambda: wheel([Entry("demo.py")], comment=b"PK\5\6" + bytes(18)),
    "two archives": two_wheels,
    "overlapping": overlapping,
    "same bytes twice": lambda: wheel([Entry("demo/a.py"), Entry("demo/b.py", central={"offset": 0})]),
    "member beyond the end": lambda: wheel([Entry("demo/a.py", central={"offset": 1 << 20})]),
    "encrypted": lambda: wheel([Entry("demo/a.py", flags=ENCRYPTED)]),
    "strongly encrypted": lambda: wheel([Entry("demo/a.py", flags=1 << 6)]),
    "hidden directory": lambda: wheel([Entry("demo/a.py", flags=1 << 13)]),
    "patch": lambda: wheel([Entry("demo/a.py", flags=1 << 5)]),
    "unknown method": lambda: wheel([Entry("demo/a.py", method=12)]),
    "other disk": lambda: wheel([Entry("demo/a.py", central={"disk": 1})]),
    "several disks": lambda: wheel([Entry("demo/a.py")], end={"disk": 1}),
    "count too small": lambda: wheel([Entry("demo/a.py")], end={"here": 3, "count": 3}),
    "count too large": lambda: wheel([Entry("demo/a.py")], end={"here": 9, "count": 9}),
    "directory elsewhere": lambda: wheel([Entry("demo/a.py")], end={"start": 3}),
    "end records that disagree": lambda: wheel([Entry("demo/a.py")], zip64=True, end={"start": 3}),
    "end record of zip64 that is missing": lambda: wheel([Entry("demo/a.py")], end={"start": 0xFFFFFFFF}),
    "stored size": lambda: wheel([Entry("demo/a.py", central={"size": 7}, local={"size": 7})]),
    "deflated to more than it says": lambda: wheel(
        [deflated("demo/a.py", local={"size": 5}, central={"size": 5})], record=SIZELESS
    ),
    "deflated to less than it says": lambda: wheel(
        [deflated("demo/a.py", local={"size": 601}, central={"size": 601})], record=SIZELESS
    ),
    "bytes that hide in a folder": lambda: wheel(
        [Entry("demo/", b"", mode=FOLDER, after=b"hidden"), Entry("demo/a.py")]
    ),
    "folder whose headers disagree": lambda: wheel([Entry("demo/", b"", mode=FOLDER, local={"name": b"evil/"})]),
    "goes on after its end": lambda: wheel([deflated("demo/a.py", b"x" * 9, packed=deflate(b"x" * 9) + b"more")]),
    "stream without end": lambda: wheel([deflated("demo/a.py", packed=deflate(b"x = 1\n" * 100)[:-1])]),
    "no stream": lambda: wheel([deflated("demo/a.py", packed=b"\xff" * 20)]),
    "checksum": lambda: wheel([Entry("demo/a.py", local={"crc": 1}, central={"crc": 1})]),
    "stored without sizes": lambda: wheel([late("demo/a.py", method=0)]),
    "descriptor that lies": lambda: wheel([Entry("demo/a.py", b"x" * 99, DEFLATED, DESCRIPTOR, after=b"PK\7\x08" * 4)]),
    "descriptor nobody announced": lambda: wheel([Entry("demo/a.py", after=descriptor(Entry("")))]),
    "size that cannot be": lambda: wheel(
        [Entry("demo/a", b"", DEFLATED, packed=deflate(ZEROS), local={"size": 1 << 31}, central={"size": 1 << 31})]
    ),
    "file with the DOS attribute of a folder": lambda: attributed(0x10, 0),
    "file with the DOS attribute of a folder, by Unix": lambda: attributed(0x10, 3),
    "file with the DOS attribute of a folder, by VFAT": lambda: attributed(0x30, 14, mode=0),
    "file with the DOS attribute of a folder, by NTFS": lambda: attributed(0x10, 11, mode=0),
    "file with the DOS attribute of a volume label": lambda: attributed(0x08, 0),
    "file with the DOS attribute of a volume label, by Unix": lambda: attributed(0x28, 3),
    "file with the DOS attribute of a device": lambda: attributed(0x40, 0),
    "file with the DOS attribute of a reparse point": lambda: attributed(0x400, 11),
    "setuid file of an Amiga": lambda: attributed(0, 1, mode=0o104644),
    "file of VMS": lambda: attributed(0, 2),
    "file of an unknown system": lambda: attributed(0, 99),
    "symlink of DOS": lambda: wheel([Entry("demo/link", b"/etc/passwd", mode=LINK, central={"system": 0})]),
    "device": lambda: wheel([Entry("demo/null", b"", mode=0o020666)]),
    "block device": lambda: wheel([Entry("demo/disk", b"", mode=0o060666)]),
    "socket": lambda: wheel([Entry("demo/socket", b"", mode=0o140666)]),
    "link in a field of libarchive": lambda: wheel([Entry("demo/a.py", extra=with_extra(0x6C78, LINK_OF_LIBARCHIVE))]),
    "link in a field of libarchive, locally": lambda: wheel(
        [Entry("demo/a.py", local_extra=with_extra(0x6C78, LINK_OF_LIBARCHIVE))]
    ),
    **{
        f"extra field {kind:#06x}": lambda kind=kind: wheel([Entry("demo/a.py", extra=with_extra(kind, bytes(16)))])
        for kind in (0x0000, 0x000D, 0x0017, 0x07C8, 0x2605, 0x334D, 0x4D63, 0x6854, 0x756E, 0x9901)
    },
    "extra field 0x756e, locally": lambda: wheel([Entry("demo/a.py", local_extra=with_extra(0x756E, bytes(14)))]),
    "same extra field twice": lambda: wheel([Entry("demo/a.py", extra=with_extra(0x7875, b"\1\0\0") * 2)]),
    "case in upper case only": lambda: wheel([Entry("demo/\u0131.py"), Entry("demo/i.py")]),
    "characters that HFS+ ignores": lambda: wheel([Entry("demo/a.py"), Entry("demo/\u200ca.py")]),
    **{
        f"flag {bit}": lambda bit=bit: wheel([Entry("demo/a.py", flags=1 << bit)])
        for bit in (4, 7, 8, 9, 10, 12, 14, 15)
    },
    "newer format, locally": lambda: wheel([Entry("demo.py")]).replace(b"PK\3\4\x14", b"PK\3\4\x40", 1),
    "descriptor that is too wide": lambda: with_wide_descriptor(has_zip64=False, wide=True),
    "descriptor that is too narrow": lambda: with_wide_descriptor(has_zip64=True, wide=False),
    "descriptor of a stored file without a signature": lambda: wheel(
        [late("demo/a.py", data=b"", method=0, signature=False)]
    ),
    "more folders than can be": lambda: wheel(nested(500, 100)),
    "longer paths than can be": lambda: wheel(nested(35, 16, "d" * 250)),
    "RECORD with more rows than files": lambda: with_rows(A_ROW * 11),
    "RECORD with many more rows than files": lambda: with_rows(A_ROW * 200_000),
    "RECORD with rows of folders that do not exist": lambda: with_rows("".join(f"{n}/,,\n" for n in range(11))),
    "RECORD with the same folder in many rows": lambda: with_rows("demo/,,\n" * 12),
    "no dist-info": lambda: archive([Entry("demo.py")]),
    "two dist-infos": lambda: wheel([Entry("evil-1.0.dist-info/METADATA")]),
    "dist-info of another project": lambda: archive(wheel_entries([Entry("demo.py")], info="evil-1.0.dist-info")),
    "no RECORD": lambda: archive(wheel_entries([Entry("demo.py")])[:-1]),
    "RECORD lists what is not there": lambda: wheel(
        [Entry("demo.py")], record=record_of(wheel_entries([Entry("demo.py"), Entry("gone.py")])[:-1])
    ),
    "RECORD tells two things": lambda: wheel(
        [Entry("demo.py")],
        record=record_of([Entry("demo.py"), Entry("demo.py", b"other"), *wheel_entries()[:-1]]),
    ),
}

INVALID = {
    "no members": lambda: archive([]),
    "no archive": lambda: b"<html>not here</html>" * 20,
    "cut off": lambda: wheel([Entry("demo.py")])[:-30],
    "unlisted": lambda: wheel([Entry("demo.py", recorded=False)]),
    "other hash": lambda: wheel(
        [Entry("demo.py")], record=record_of([Entry("demo.py", b"y = 1\n"), *wheel_entries()[:-1]])
    ),
    "other size": lambda: wheel(
        [Entry("demo.py")],
        record=record_of(wheel_entries([Entry("demo.py")])[:-1]).replace(",6\n", ",7\n", 1),
    ),
    "weak hash": lambda: archive(wheel_entries([Entry("demo.py")], algorithm="md5")),
    "no hash": lambda: wheel([Entry("demo.py")], record="demo.py,,\n" + record_of(wheel_entries()[:-1])),
    "RECORD with a row of two lines": lambda: with_rows('"demo/a\n.py",,\n'),
    "RECORD that consists of empty lines": lambda: with_rows("\n" * 20),
    "RECORD with a line without end": lambda: with_rows("x" * (1 << 20)),
    "RECORD with an endless hash": lambda: with_rows(f"demo/a.py,{'x' * 7000},\n"),
    "RECORD that is no table": lambda: wheel([Entry("demo.py")], record='"'),
    "RECORD that is no text": lambda: archive(
        [*wheel_entries([Entry("demo.py")])[:-1], Entry(f"{INFO}/RECORD", b"\xff\xfe")]
    ),
}


LONG = "n" * 200

ODD = {
    "plain": lambda: wheel([Entry("demo.py")]),
    "deflated": lambda: wheel([deflated("demo.py")]),
    "large": lambda: wheel([Entry("demo.bin", random.Random(1).randbytes(5 << 20))]),
    "large, deflated": lambda: wheel([deflated("demo.txt", b"0123456789abcdef" * (1 << 19))]),
    "zip64": lambda: wheel([Entry("demo.py")], zip64=True),
    "zip64 sizes": lambda: wheel(
        [
            Entry(
                "demo.py",
                b"12345678",
                local={"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF},
                local_extra=with_extra(1, struct.pack("<2Q", 8, 8)),
            )
        ]
    ),
    "zip64 sizes in the directory": lambda: wheel(
        [
            Entry(
                "demo.py",
                b"12345678",
                central={"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF},
                extra=with_extra(1, struct.pack("<2Q", 8, 8)),
            )
        ]
    ),
    "sizes behind": lambda: wheel([late("demo.py")]),
    "sizes behind, unsigned": lambda: wheel([late("demo.py", signature=False)]),
    "comment": lambda: wheel([Entry("demo.py")], comment=b"made by hand"),
    "executable": lambda: wheel([Entry("demo/run", b"#!/bin/sh\n", mode=0o100755), Entry("demo/some", mode=0o100654)]),
    "executable without a type": lambda: wheel([Entry("demo/run", mode=0o755)]),
    "no modes": lambda: wheel([Entry("demo.py", mode=0)]),
    "empty files": lambda: wheel([Entry("demo/__init__.py", b""), deflated("demo/empty.py", b"")]),
    "folders": lambda: wheel([Entry("demo/", b"", mode=FOLDER), Entry("demo/a.py"), Entry("demo/none/", b"", mode=0)]),
    "names of 200 characters": lambda: wheel([Entry(f"demo/{LONG}.py"), Entry(f"{LONG}/a.py")]),
    "deep": lambda: wheel([Entry("/".join(["d"] * 60) + "/a.py")]),
    "beyond ASCII": lambda: wheel([Entry("demo/日本語.py"), Entry("demo/émoji 🎉.txt")]),
    "commas": lambda: wheel([Entry("demo/a,b.py"), Entry("demo/it's a file.py")]),
    "dots": lambda: wheel([Entry("demo/.hidden"), Entry("demo/a..b"), Entry("..demo")]),
    "nearly reserved": lambda: wheel([Entry("demo/console.py"), Entry("demo/com10.py"), Entry("demo/nul_.py")]),
    "sha512": lambda: archive(wheel_entries([Entry("demo.py")], algorithm="sha512")),
    "signatures": lambda: wheel([Entry("demo.py"), Entry(f"{INFO}/RECORD.jws", b"{}", recorded=False)]),
    "another order": lambda: archive(wheel_entries([Entry("demo.py")])[::-1]),
    "data": lambda: wheel([Entry("demo.py"), Entry("demo-1.0.data/purelib/more.py")]),
    "RECORD with backslashes": lambda: wheel(
        [Entry("demo/a.py")], record=record_of(wheel_entries([Entry("demo/a.py")])[:-1]).replace("/", "\\")
    ),
    "RECORD with files twice": lambda: with_rows(A_ROW * 10),
    "RECORD with a folder": lambda: wheel(
        [Entry("demo/a.py")], record="demo/,,\n" + record_of(wheel_entries([Entry("demo/a.py")])[:-1])
    ),
    "times": lambda: wheel([Entry("demo.py", extra=with_extra(0x5455, b"\1" + bytes(4)))]),
    "times and owners": lambda: wheel(
        [
            Entry(
                "demo.py",
                extra=with_extra(0x5455, b"\1" + bytes(4)) + with_extra(0x7875, b"\1\4" + bytes(4) + b"\4" + bytes(4)),
                local_extra=with_extra(0x5455, b"\1" + bytes(4)) + with_extra(0x7855, bytes(4)),
            ),
            Entry("demo/a.py", extra=with_extra(0x000A, bytes(4) + with_extra(1, bytes(24)))),
            Entry("demo/b.py", extra=with_extra(0x5855, bytes(8)), local_extra=with_extra(0x5855, bytes(12))),
        ]
    ),
    "made by DOS": lambda: attributed(0x20, 0),
    "made by DOS, read-only, hidden and of the system": lambda: attributed(0x27, 0, mode=0),
    "made by NTFS": lambda: attributed(0x2820, 11, mode=0),
    "made by macOS": lambda: attributed(0, 19),
    "folder made by DOS": lambda: wheel(
        [Entry("demo/", b"", mode=0, central={"system": 0, "attributes": 0x10}), Entry("demo/a.py")]
    ),
    "levels of compression": lambda: wheel([deflated("demo/a.py", flags=2), deflated("demo/b.py", flags=6)]),
    "wide descriptor of zip64": lambda: with_wide_descriptor(has_zip64=True, wide=True),
    "empty file with a descriptor": lambda: wheel([late("demo/a.py", data=b"", method=0)]),
    "semicolons": lambda: wheel([Entry("demo/a;b.py"), Entry("demo/a;1.py"), Entry("demo;1/a.py")]),
    "dots and underscores": lambda: wheel([Entry("demo/._a.py"), Entry("__MACOSX/a._b")]),
}
