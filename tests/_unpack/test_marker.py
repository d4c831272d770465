"""Markers: the names pass the checks of an archive's names, and an invalid marker is a miss, never an error."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import FILENAME, Entry, wheel
from marks import any_system

from wheelcache import Cache
from wheelcache._store.records import decode, encode
from wheelcache._unpack.manifest import DIGEST_DIGITS, Manifest, ManifestDir
from wheelcache._unpack.marker import decode_marker, encode_marker

pytestmark = any_system

INFO = "demo-1.0.dist-info"


def folder(path: str, *names: str) -> ManifestDir:
    """Return a folder with empty files of these names."""
    count = len(names)
    return ManifestDir(
        path, list(names), [0] * count, [1] * count, [2] * count, "-" * count, "0" * DIGEST_DIGITS * count
    )


FOLDERS = [
    folder("", "top.py", "Other.py"),
    folder("demo", "a.py", "b.py"),
    folder("demo/sub", "c.py"),
    folder(INFO, "RECORD", "WHEEL"),
]
MANIFEST = Manifest("ab" * 32, "boot 1", 1_800_000_000, 1_800_000_000_000_000_000, FOLDERS)


def marked(*folders: ManifestDir) -> Manifest:
    """Return a manifest with these folders, beside the top and ``.dist-info``."""
    return MANIFEST._replace(folders=[FOLDERS[0], *folders, FOLDERS[-1]])


def with_field(name: str, value: object) -> bytes:
    """Return a marker whose checksum is right, with another value of one field."""
    fields = decode(encode_marker(MANIFEST))
    assert fields is not None
    fields.pop("check", None)
    return encode({**fields, name: value})


def test_a_marker_returns_its_manifest() -> None:
    """A decoded marker equals the encoded manifest."""
    assert decode_marker(encode_marker(MANIFEST)) == MANIFEST


@pytest.mark.parametrize("boot", [None, "boot 1"])
def test_names_of_other_scripts_are_kept(boot: str | None) -> None:
    """Names that are not in ASCII, long names and names that need a closer look are valid."""
    manifest = marked(
        folder("demo"),
        folder("demo/päckchen", "ünï.py", "名前.py"),
        folder("demo/" + "n" * 240, "m" * 240, "_conf.py", "._hidden", "a;b", "console.py"),
    )._replace(boot=boot)
    assert decode_marker(encode_marker(manifest)) == manifest


@pytest.mark.parametrize("missing", ["inodes", "changed", "inodes changed"])
def test_a_marker_of_an_earlier_version_is_valid(missing: str) -> None:
    """Without inodes or change time the marker is valid, but it has no change time by which it could be trusted."""
    fields = decode(encode_marker(MANIFEST))
    assert fields is not None
    for name in ("check", *missing.split()):
        fields.pop(name, None)
    manifest = decode_marker(encode(fields))
    assert manifest is not None
    assert manifest.changed is None
    assert list(manifest.files()) == list(MANIFEST.files())


HOSTILE_NAMES = [
    "..", ".", "", "/etc/passwd", "../x", "a/../b", "a//b", "C:x", "C:\\x", "a\\b", "..\\x", "nul", "NUL.py", "com1",
    "aux.txt", "con ", "lpt¹", "conin$", "trailing.", "trailing ", "a\0b", "line\nbreak", "tab\t", "del\x7f", "star*",
    "ask?", "less<", "pipe|", 'quote"', ".wheelcache-1800000000-00000000-1-00000000.tmp", "x" * 256, "\ud800", "x;1",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=repr)
def test_a_hostile_name_of_a_file_is_refused(name: str) -> None:
    """A name that an archive may not have makes the marker invalid, in any folder and beside names in other scripts."""
    for others in ((), ("good.py",), ("ünï.py",)):
        top = MANIFEST._replace(folders=[folder("", *others, name), FOLDERS[-1]])
        assert decode_marker(encode_marker(top)) is None
        assert decode_marker(encode_marker(marked(folder("demo", *others, name)))) is None


@pytest.mark.parametrize("name", [name for name in HOSTILE_NAMES if name not in {"", "x;1"}], ids=repr)
@pytest.mark.parametrize("leaf", ["a.py", "ünï.py", None])
def test_a_hostile_name_of_a_folder_is_refused(leaf: str | None, name: str) -> None:
    """The path of a folder is checked, even if no file is in it."""
    files = () if leaf is None else (leaf,)
    assert decode_marker(encode_marker(marked(folder(name, *files)))) is None
    assert decode_marker(encode_marker(marked(folder("demo"), folder(f"demo/{name}", *files)))) is None


@pytest.mark.parametrize(
    "folders",
    [
        [folder("demo", "a.py", "a.py")],
        [folder("demo", "a.py", "A.py")],
        [folder("demo", "straße", "STRASSE")],
        [folder("demo", "é.py", "e\u0301.py")],
        [folder("x", "a", "a")],
        [folder("demo", "a.py"), folder("Demo", "b.py")],
        [folder("demo", "a.py"), folder("demo", "b.py")],
        [folder("demo", "Sub"), folder("demo/sub", "b.py")],
        [folder("demo", "sub", "ü"), folder("demo/sub", "b.py")],
        [folder("top.py", "a.py")],
    ],
)
def test_names_that_are_the_same_somewhere_are_refused(folders: list[ManifestDir]) -> None:
    """Two names that are one file on some system, and a file with the name of a folder, make the marker invalid."""
    assert decode_marker(encode_marker(marked(*folders))) is None


@pytest.mark.parametrize(
    "folders",
    [
        [],
        [folder("demo", "a.py"), FOLDERS[-1]],
        [FOLDERS[0], folder("demo/sub", "a.py"), FOLDERS[-1]],
        [FOLDERS[0], folder("demo/sub", "a.py"), folder("demo", "b.py"), FOLDERS[-1]],
        [FOLDERS[0], folder("demo", "a.py")],
        [FOLDERS[0], FOLDERS[-1], folder("other-1.0.dist-info", "RECORD")],
        [folder("", "other-1.0.dist-info"), FOLDERS[-1]],
        [FOLDERS[0], folder("demo"), folder(f"demo/{INFO}", "RECORD")],
        [FOLDERS[0], *(folder("/".join("d" * n)) for n in range(1, 103)), FOLDERS[-1]],
        [
            FOLDERS[0],
            *(folder(f"d{n}", "a.py") for n in range(3)),
            *(folder(f"e{n}") for n in range(4000)),
            FOLDERS[-1],
        ],
    ],
    ids=lambda folders: f"{len(folders)} folders",
)
def test_folders_that_no_wheel_has_are_refused(folders: list[ManifestDir]) -> None:
    """Each folder follows its parent, one is ``.dist-info``, and their number is bounded by that of the files."""
    assert decode_marker(encode_marker(MANIFEST._replace(folders=folders))) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("sha256", value) for value in (None, 1, "", "zz" * 32, "ab" * 31, "AB" * 32)],
        *[("boot", value) for value in (1, [], {})],
        *[("created", value) for value in (None, "1", 1.5, True, -1, 10**400)],
        *[("changed", value) for value in ("1", 1.5, True, [])],
        *[("folders", value) for value in (None, "abcd", [1, 2, 3, 4], [None] * 4, [""] * 4)],
        *[("names", value) for value in (None, [], ["a", "b"], [["a"]] * 4, [1] * 4, [None] * 4)],
        *[
            (column, value)
            for column in ("sizes", "stamps", "inodes")
            for value in (
                [],
                [[1], [1], [1], [1]],
                [[0, 0], [0, 0], ["0"], [0, 0]],
                [[0, 0], [0, 0], [1.0], [0, 0]],
                [[0, 0], [0, True], [1], [0, 0]],
                [[0, 0], [0, None], [1], [0, 0]],
                ["00", "00", "0", "00"],
            )
        ],
        ("sizes", [[0, 0], [0, 0], [-1], [0, 0]]),
        ("sizes", [[0, 0], [0, 0], [1 << 64], [0, 0]]),
        *[("kinds", value) for value in (None, ["--", "--", "-"], ["--", "--", "?", "--"], ["--", "--", "--", "--"])],
        *[
            ("digests", value)
            for value in (
                ["0" * 128, "0" * 128, "0" * 63, "0" * 128],
                ["0" * 128, "0" * 128, "0" * 65, "0" * 128],
                ["0" * 128, "0" * 128, "z" * 64, "0" * 128],
                ["0" * 128, "0" * 128, "0" * 63 + " ", "0" * 128],
                ["0" * 128, "0" * 128, [0] * 64, "0" * 128],
                None,
            )
        ],
    ],
)
def test_columns_of_other_types_are_refused(field: str, value: object) -> None:
    """Every column has the right type and length, although the checksum of the marker is right."""
    assert decode_marker(with_field(field, value)) is None


def test_inodes_may_be_large() -> None:
    """An inode of 128 bits, as on ReFS, is valid."""
    large = [item._replace(inodes=[(1 << 128) - 1] * len(item.names)) for item in FOLDERS]
    manifest = MANIFEST._replace(folders=large)
    assert decode_marker(encode_marker(manifest)) == manifest


def test_random_markers_are_valid_or_misses() -> None:
    """A marker with random values in random fields is decoded or is a miss. No other error occurs."""
    chance = random.Random(12)
    values: list[Callable[[], Any]] = [
        lambda: None,
        lambda: chance.choice([True, -1, 1 << 70, 1.5, "x", "..", [], {}]),
        lambda: [chance.choice([0, "a", None, [0], ["a"], "a/b", ""]) for _ in range(4)],
        lambda: {"a": 1},
    ]
    names = list(decode(encode_marker(MANIFEST)) or {})
    for _ in range(3000):
        manifest = decode_marker(with_field(chance.choice(names), chance.choice(values)()))
        assert manifest is None or manifest.dist_info() == INFO


@pytest.mark.parametrize("path", ["../../../outside", "demo/../../../../outside"])
def test_an_invalid_marker_is_a_miss(path: str, cache: Cache, tmp_path: Path) -> None:
    """A folder whose marker names a path outside is an unmarked folder, and nothing is written outside."""
    source = tmp_path / FILENAME
    source.write_bytes(wheel([Entry("demo/a.py", b"a = 1\n")]))
    found = cache.put(source)
    tree = cache.unpack(found).path
    marker = tree.with_name(tree.name + ".json")
    manifest = decode_marker(marker.read_bytes())
    assert manifest is not None
    outside = folder(path, "evil.py")
    marker.write_bytes(encode_marker(manifest._replace(folders=[*manifest.folders, outside])))
    cache.unpack(found, tmp_path / "deep" / "er" / "site")
    assert cache.unpack(found).path != tree
    assert not list(tmp_path.rglob("evil.py"))
    assert not list(tmp_path.rglob("outside"))
