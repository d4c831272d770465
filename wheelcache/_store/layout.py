"""Every path of a cache is formed here, and nowhere else.

    <cache>/
      CACHEDIR.TAG  .gitignore              in v1/ where other things were here before
      v1/
        wheels/<aa>/<62 hex>/<name>.whl     the blob, under its true file name
                             <name>.json    its record, written last
                             <n>/<name>.whl the blob, where a damaged one could not be moved away
        trees/<aa>/<20 hex>-<n>/            an unpacked wheel, filled in place; <n> is mostly 0
                   <20 hex>-<n>.json        its marker, written last
        urls/<aa>/<62 hex>.json             pointers: from another hash, or a URL, to a sha256
        metadata/<aa>/<62 hex>.json         METADATA of wheels that are not here
        partial/<aa>/<key>.<stamp>.<space>.part  downloads under way; the stamp says whose, 0 is nobody
                     <key>.<stamp>.<space>.json  where their bytes came from, so that more of the same can be had
        tmp/<stamp>.<space>.tmp             wheels that are being copied in
            <stamp>.tmp                     everything else that is not finished
        locks/<key>.lock                    who is downloading what: to save work only
        quarantine/<stamp>-<name>           what was found damaged
        tally.log                           hits and misses, a line for each process
        tally-<stamp>.log                   the same, grown long, until it is summed up

The format's version is part of the path: a change of the format is a new ``v2`` beside ``v1``. Names are short,
lowercase and of ASCII, so that no reserved name and no clash of cases can come up on any system.

Paths are ``str`` in here and in the stations, since a hit is counted in microseconds; callers get
:class:`pathlib.Path`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from .._fs.tempnames import _STAMP_FORM, space_tag
from .._request import text_key

VERSION = "v1"
_MARKS = "CACHEDIR.TAG", ".gitignore"

# Name characters of a key in partial/ and locks/: 128 bits of it cannot collide by chance, and the paths stay short.
_KEY_DIGITS = 32
_PARTIAL = ".part"

SHARD_DIGITS = 2
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# Of the name of a tree: short, since below it come the paths of the wheel's files, which are long on Windows. The
# marker has the whole digest.
_TREE_DIGITS = 20

# Text and not compiled: only verifying and sweeping ask, and the start of a process counts.
_SHARD = r"\A[0-9a-f]{2}\Z"
_REST = r"\A[0-9a-f]{62}\Z"
_NOTE = r"\A[0-9a-f]+\.json\Z"
_TREE = rf"\A[0-9a-f]{{{_TREE_DIGITS}}}-[0-9]+\Z"
_MARKER = rf"\A[0-9a-f]{{{_TREE_DIGITS}}}-[0-9]+\.json\Z"
_LOCK = rf"\A[0-9a-f]{{{_KEY_DIGITS}}}\.lock\Z"


class FolderPattern(NamedTuple):
    """What a folder holds, by patterns for the names of files, and of folders; empty where there are none.

    Attributes:
        folder: its absolute path.
        in_shards: whether folders lie between, by the first digits.
    """

    folder: str
    in_shards: bool
    files: str = ""
    folders: str = ""

    def is_ours(self, name: str, is_folder: bool) -> bool:
        """Whether something in it is what it should be."""
        pattern = self.folders if is_folder else self.files
        return bool(pattern) and re.search(pattern, name) is not None


class Layout:
    """The paths of one cache folder."""

    def __init__(self, root: str) -> None:
        self.root = root
        # Not os.path.join for each: it would be a tenth of a walk over a million entries.
        self._wheels = os.path.join(root, VERSION, "wheels", "")
        self.version = os.path.join(root, VERSION)
        self.wheels = os.path.join(self.version, "wheels")
        self.trees = os.path.join(self.version, "trees")
        self.urls = os.path.join(self.version, "urls")
        self.partial = os.path.join(self.version, "partial")
        self.tmp = os.path.join(self.version, "tmp")
        self.locks = os.path.join(self.version, "locks")
        self.quarantine = os.path.join(self.version, "quarantine")
        self.descriptions = os.path.join(self.version, "metadata")
        self.tally = os.path.join(self.version, "tally.log")

    @staticmethod
    def marks(folder: str) -> tuple[str, str]:
        """What keeps backups and git away from a folder: https://bford.info/cachedir/ and a .gitignore."""
        tag, gitignore = (os.path.join(folder, name) for name in _MARKS)
        return tag, gitignore

    def holds_others(self, names: Iterable[str]) -> bool:
        """Whether one of these names in the cache folder is none that a cache has there."""
        return not {VERSION, *_MARKS}.issuperset(names)

    def holds(self, path: str) -> bool:
        """Whether an absolute path is one in this cache."""
        return path.startswith(os.path.join(self.version, ""))

    def entry(self, sha256: str) -> str:
        """The folder of everything with this sha256."""
        return f"{self._wheels}{sha256[:2]}{os.sep}{sha256[2:]}"

    def record(self, sha256: str, filename: str) -> str:
        """The record of a wheel."""
        return f"{self.entry(sha256)}{os.sep}{record_name(filename)}"

    def blob(self, sha256: str, filename: str, place: int) -> str:
        """The bytes of a wheel: beside the record, or in a numbered folder beside it."""
        folder = self.entry(sha256)
        return f"{folder}{os.sep}{filename}" if place == 0 else os.path.join(folder, str(place), filename)

    def place(self, sha256: str, blob: str) -> int:
        """The place of the blob at this path."""
        folder = os.path.dirname(blob)
        return 0 if folder == self.entry(sha256) else int(os.path.basename(folder))

    def tree_shard(self, sha256: str) -> str:
        """The folder of the trees of this sha256, and of others that begin alike."""
        return os.path.join(self.trees, sha256[:2])

    def tree(self, sha256: str, number: int) -> str:
        """The folder of an unpacked wheel; its marker is beside it under :func:`marker_path`."""
        return os.path.join(self.trees, sha256[:2], f"{sha256[2 : 2 + _TREE_DIGITS]}-{number}")

    def pointer(self, key: str) -> str:
        """The pointer of a URL, or of a hash that is no sha256."""
        name = text_key(key)
        return os.path.join(self.urls, name[:2], name[2:] + ".json")

    def metadata(self, key: str) -> str:
        """The METADATA of a wheel that is not here."""
        name = text_key(key)
        return os.path.join(self.descriptions, name[:2], name[2:] + ".json")

    def partials(self, key: str) -> tuple[str, str]:
        """The folder of the downloads of this key, and what their names begin with."""
        name = text_key(key)
        return os.path.join(self.partial, name[:2]), name[:_KEY_DIGITS] + "."

    def new_partial(self, key: str, stamp: str, space: str = "") -> str:
        """A new download of this key, by a process whose number means something within ``space``."""
        folder, prefix = self.partials(key)
        return os.path.join(folder, f"{prefix}{stamp}.{space_tag(space)}{_PARTIAL}")

    @staticmethod
    def is_partial(name: str, space: str | None = None) -> bool:
        """Whether a file in the folder of the downloads is one, and by a process of this space, where one is given."""
        ending = _PARTIAL if space is None else f".{space_tag(space)}{_PARTIAL}"
        return name.endswith(ending)

    @staticmethod
    def note(partial: str) -> str:
        """The note of a download: where its bytes came from."""
        return partial.removesuffix(_PARTIAL) + ".json"

    def new_temporary(self, stamp: str, space: str | None = None) -> str:
        """A new temporary file; of one that is there for more than a moment it is said where its owner can be seen."""
        return os.path.join(self.tmp, f"{stamp}.tmp" if space is None else f"{stamp}.{space_tag(space)}.tmp")

    def lock(self, key: str) -> str:
        """The lock of a key."""
        return os.path.join(self.locks, text_key(key)[:_KEY_DIGITS] + ".lock")

    def sealed_tally(self, stamp: str) -> str:
        """A tally that nobody appends to any more."""
        return os.path.join(self.version, f"tally-{stamp}.log")

    def is_sealed_tally(self, name: str) -> bool:
        """Whether a file beside the tally is such a one."""
        return name.startswith("tally-") and name.endswith(".log")

    def is_own(self, name: str, is_folder: bool) -> bool:
        """Whether something beside the folders of this version is one of them, or the tally."""
        folders = (self.wheels, self.trees, self.urls, self.partial, self.tmp, self.locks, self.quarantine)
        if is_folder:
            return name in {os.path.basename(path) for path in (*folders, self.descriptions)}
        return name in {os.path.basename(self.tally), *_MARKS} or self.is_sealed_tally(name)

    @staticmethod
    def is_shard(name: str, is_folder: bool) -> bool:
        """Whether something in a folder that is divided into shards is one."""
        return is_folder and re.search(_SHARD, name) is not None

    def shapes(self) -> tuple[FolderPattern, ...]:
        """What the folders hold; anything goes in quarantine."""
        return (
            FolderPattern(self.wheels, in_shards=True, folders=_REST),
            FolderPattern(self.trees, in_shards=True, files=_MARKER, folders=_TREE),
            FolderPattern(self.urls, in_shards=True, files=_NOTE),
            FolderPattern(self.descriptions, in_shards=True, files=_NOTE),
            FolderPattern(self.partial, in_shards=True, files=_STAMP_FORM),
            FolderPattern(self.tmp, in_shards=False, files=_STAMP_FORM, folders=_STAMP_FORM),
            FolderPattern(self.locks, in_shards=False, files=_LOCK),
        )

    def digest_of(self, shard: str, name: str) -> str | None:
        """The sha256 of the entry in a folder of these names, ``None`` where it is no entry's."""
        digest = shard + name
        return digest if len(shard) == SHARD_DIGITS and _SHA256.fullmatch(digest) else None

    def quarantined(self, stamp: str, path: str) -> str:
        """Where a damaged file goes."""
        return os.path.join(self.quarantine, f"{stamp}-{os.path.basename(path)}"[:_LONGEST])


_LONGEST = 255


def record_name(filename: str) -> str:
    """The name of the record of a wheel of this name."""
    return filename.removesuffix(".whl") + ".json"


def is_record(name: str) -> bool:
    """Whether a file in an entry's folder is a record."""
    return name.endswith(".json")


def wheel_name(record: str) -> str:
    """The name of the wheel that a record of this name describes."""
    return record.removesuffix(".json") + ".whl"


def is_blob(name: str) -> bool:
    """Whether a file in an entry's folder is a wheel's bytes."""
    return name.endswith(".whl")


def is_place(name: str) -> bool:
    """Whether a folder in an entry's folder is one for a blob that could not stand beside its record."""
    # Of one number there is one name: a record says the number.
    return name.isascii() and name.isdigit() and not name.startswith("0")


def marker_path(folder: str) -> str:
    """The marker of the tree in this folder."""
    return folder + ".json"


def is_note(name: str) -> bool:
    """Whether a name in a shard of pointers or of METADATA is that of one."""
    return re.search(_NOTE, name) is not None


def is_tree(name: str) -> bool:
    """Whether a name beside trees is that of one."""
    return re.search(_TREE, name) is not None


def tree_folder(marker: str) -> str:
    """The folder of the tree that a file of this path marks."""
    return marker.removesuffix(".json")
