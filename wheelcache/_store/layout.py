"""The paths of a cache folder. No other module forms them.

    <cache>/
      CACHEDIR.TAG  .gitignore              in v1/ if the folder contained other files before
      v1/
        wheels/<aa>/<62 hex>/<name>.whl     the blob, under its true file name
                             <name>.json    its record, written last
                             <n>/<name>.whl the blob, if a damaged one could not be moved away
        trees/<aa>/<20 hex>-<n>/            an unpacked wheel, filled in place; <n> is usually 0
                   <20 hex>-<n>.json        its marker, written last
        urls/<aa>/<62 hex>.json             pointers: from another hash, or a URL, to a sha256;
                                            for a private response, from a URL and a user
        metadata/<aa>/<62 hex>.json         METADATA of wheels that are not in the cache
        partial/<aa>/<key>.<owner>.<space>.part  partial downloads; the process number in <owner> is 0 if given up
                     <key>.<owner>.<space>.json  their origin, so that a download can be resumed
        tmp/<owner>.<space>.tmp             wheels that are being copied in
            <owner>.tmp                     other temporary files
            <owner>-<word>.tmp              probes of ``doctor``
        locks/<key>.lock                    downloads in progress; locks only save work
        quarantine/<owner>-<name>           damaged files
        tally.log                           the counters: hits, misses and sizes, one line per process
        tally-<owner>.log                   a long file of counters, until its sum is written

Beside each function that forms a name stands the pattern that matches its names, and those of every earlier version.
Only files and folders with such names are ever deleted. A probe of a refused operation may leave ``<owner>.tmp`` in any
of these folders, so this name is accepted everywhere.

The version of the format is part of the path. An incompatible change becomes ``v2`` beside ``v1``. Names are short,
lowercase and ASCII, so that no system reserves one or confuses two that differ in case.

Paths are ``str`` inside the library, because a :class:`pathlib.Path` would slow a hit down. The public API returns
:class:`pathlib.Path`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from .._filenames import has_wheel_form
from .._fs.tempnames import OWNER, SPACE, space_tag
from .._request import text_key

VERSION = "v1"
_MARKS = "CACHEDIR.TAG", ".gitignore"

# The number of hex digits of a key in partial/ and locks/. 128 bits do not collide by chance, and keep the paths short.
_KEY_DIGITS = 32

SHARD_DIGITS = 2
# Common file systems allow names of this length.
_LONGEST = 255


class FolderPattern(NamedTuple):
    """The names that wheelcache uses in a folder.

    Attributes:
        folder: the absolute path of the folder.
        in_shards: whether the names are distributed over shards, by their first digits.
        files: the pattern of the names of files. Empty if no files belong there.
        folders: the pattern of the names of folders. Empty if no folders belong there.
    """

    folder: str
    in_shards: bool
    files: str = ""
    folders: str = ""

    def is_ours(self, name: str, is_folder: bool) -> bool:
        """Return whether wheelcache uses this name for a file or a folder."""
        pattern = self.folders if is_folder else self.files
        return (bool(pattern) and _matches(pattern, name)) or is_temporary(name)

    def is_used(self, name: str) -> bool:
        """Return whether wheelcache uses this name for either a file or a folder."""
        return self.is_ours(name, is_folder=False) or self.is_ours(name, is_folder=True)

    def of_top(self) -> FolderPattern:
        """Return the names directly in the folder. They are those of its shards, if the names are distributed."""
        return FolderPattern(self.folder, in_shards=False, folders=_SHARD) if self.in_shards else self


class Layout:
    """The paths of one cache folder."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.version = os.path.join(root, VERSION)
        # Paths are concatenated to prefixes, because os.path.join would take a tenth of the time of a first hit or of a
        # walk.
        prefix = self.version + os.sep
        self.wheels = prefix + "wheels"
        self.trees = prefix + "trees"
        self.urls = prefix + "urls"
        self.partial = prefix + "partial"
        self.tmp = prefix + "tmp"
        self.locks = prefix + "locks"
        self.quarantine = prefix + "quarantine"
        self.metadata_files = prefix + "metadata"
        self.counters = prefix + "tally.log"
        self._wheels = self.wheels + os.sep

    def folders(self) -> tuple[str, ...]:
        """Return the root, the folder of this version, and the folders of the areas."""
        areas = (self.wheels, self.trees, self.urls, self.metadata_files)
        return (self.root, self.version, *areas, self.partial, self.tmp, self.locks, self.quarantine)

    def folders_of_wheels(self) -> tuple[str, ...]:
        """Return the folders whose content becomes a wheel or a record, and the folders above them."""
        return (self.root, self.version, self.wheels, self.partial, self.tmp)

    @staticmethod
    def marks(folder: str) -> tuple[str, str]:
        """Return the paths of the files that make backup tools and git skip a folder.

        The first file is specified at https://bford.info/cachedir/. The second is a .gitignore.
        """
        tag, gitignore = (os.path.join(folder, name) for name in _MARKS)
        return tag, gitignore

    def holds_others(self, names: Iterable[str]) -> bool:
        """Return whether the names in the cache folder include a name that wheelcache does not use there."""
        return not {VERSION, *_MARKS}.issuperset(names)

    def holds(self, path: str) -> bool:
        """Return whether an absolute path is inside this cache."""
        return path.startswith(os.path.join(self.version, ""))

    def entry(self, sha256: str) -> str:
        """Return the folder of all wheels with this sha256."""
        return f"{self._wheels}{sha256[:2]}{os.sep}{sha256[2:]}"

    def record(self, sha256: str, filename: str) -> str:
        """Return the path of the record of a wheel."""
        return f"{self.entry(sha256)}{os.sep}{record_name(filename)}"

    def blob(self, sha256: str, filename: str, place: int) -> str:
        """Return the path of the blob of a wheel: beside its record for place 0, else in a numbered folder."""
        folder = self.entry(sha256)
        return f"{folder}{os.sep}{filename}" if place == 0 else os.path.join(folder, str(place), filename)

    def place(self, sha256: str, blob: str) -> int:
        """Return the place of the blob at this path."""
        folder = os.path.dirname(blob)
        return 0 if folder == self.entry(sha256) else int(os.path.basename(folder))

    def tree_shard(self, sha256: str) -> str:
        """Return the shard with the trees of this sha256."""
        return os.path.join(self.trees, sha256[:2])

    def tree(self, sha256: str, number: int) -> str:
        """Return the folder of a tree. :func:`marker_path` returns the path of its marker."""
        return os.path.join(self.trees, sha256[:2], _tree_name(sha256, number))

    def pointer(self, key: str) -> str:
        """Return the path of the pointer of a URL, or of a hash other than sha256."""
        return os.path.join(self.urls, *_name_in_shard(key))

    def metadata(self, key: str) -> str:
        """Return the path of the METADATA of a wheel that is not in the cache."""
        return os.path.join(self.metadata_files, *_name_in_shard(key))

    def partials(self, key: str) -> tuple[str, str]:
        """Return the folder of the partial downloads of a key, and the prefix of their names."""
        name = text_key(key)
        return os.path.join(self.partial, name[:2]), name[:_KEY_DIGITS] + "."

    def new_partial(self, key: str, owner: str, space: str = "") -> str:
        """Return a path for a new download of a key by a process in the PID namespace ``space``."""
        folder, prefix = self.partials(key)
        return os.path.join(folder, f"{prefix}{owner}.{space_tag(space)}{_PARTIAL_ENDING}")

    def new_temporary(self, owner: str, space: str | None = None, *, word: str = "") -> str:
        """Return a path for a new temporary file.

        The name of a long-lived file contains the PID namespace of its owner. That of a probe may contain a word.
        """
        return os.path.join(self.tmp, _temporary_name(owner, space, word))

    def lock(self, key: str) -> str:
        """Return the path of the lock of a key."""
        return os.path.join(self.locks, _lock_name(key))

    def sealed_counters(self, owner: str) -> str:
        """Return a path for a sealed file of counters. No process appends to such a file any more."""
        return os.path.join(self.version, _sealed_counters_name(owner))

    def areas(self) -> tuple[str, ...]:
        """Return the folders that this version's folder contains."""
        return tuple(pattern.folder for pattern in self.patterns())

    def is_own(self, name: str, is_folder: bool) -> bool:
        """Return whether wheelcache uses this name in the folder of this version."""
        if is_folder:
            return name in map(os.path.basename, self.areas())
        return name in {os.path.basename(self.counters), *_MARKS} or is_sealed_counters(name) or is_temporary(name)

    def patterns(self) -> tuple[FolderPattern, ...]:
        """Return the names used in each folder of this version's folder."""
        return (
            FolderPattern(self.wheels, in_shards=True, folders=_REST),
            FolderPattern(self.trees, in_shards=True, files=_MARKER, folders=_TREE),
            FolderPattern(self.urls, in_shards=True, files=_POINTER_OR_METADATA),
            FolderPattern(self.metadata_files, in_shards=True, files=_POINTER_OR_METADATA),
            FolderPattern(self.partial, in_shards=True, files=_PARTIAL_OR_ORIGIN),
            FolderPattern(self.tmp, in_shards=False, files=_TEMPORARY, folders=_TEMPORARY),
            FolderPattern(self.locks, in_shards=False, files=_LOCK),
            FolderPattern(self.quarantine, in_shards=False, files=_QUARANTINED),
        )

    def quarantined(self, owner: str, path: str) -> str:
        """Return the path of a damaged file in quarantine."""
        return os.path.join(self.quarantine, _quarantined_name(owner, path))


def _matches(pattern: str, name: str) -> bool:
    return _compiled(pattern).search(name) is not None


# The patterns are not compiled above, because only verify and prune use most of them and compiling them would delay
# every process.
@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


# Shards, and the folders of entries


_SHARD = rf"\A[0-9a-f]{{{SHARD_DIGITS}}}\Z"
_REST = rf"\A[0-9a-f]{{{64 - SHARD_DIGITS}}}\Z"


def is_shard(name: str) -> bool:
    """Return whether the name is that of a shard."""
    return _matches(_SHARD, name)


def is_entry(name: str) -> bool:
    """Return whether the name in a shard is that of the folder of an entry."""
    return _matches(_REST, name)


# Wheels: their form is that of every wheel file name


def record_name(filename: str) -> str:
    """Return the name of the record of a wheel."""
    return filename.removesuffix(".whl") + ".json"


def is_record(name: str) -> bool:
    """Return whether the name in the folder of an entry is that of a record."""
    return name.endswith(".json") and has_wheel_form(wheel_name(name))


def wheel_name(record: str) -> str:
    """Return the file name of the wheel of a record."""
    return record.removesuffix(".json") + ".whl"


def is_blob(name: str) -> bool:
    """Return whether the name in the folder of an entry is that of a blob."""
    return has_wheel_form(name)


def is_place(name: str) -> bool:
    """Return whether the name in the folder of an entry is that of a numbered folder for a blob."""
    # A record contains the number as an integer, so "01" is not a place.
    return name.isascii() and name.isdigit() and not name.startswith("0")


# Trees and their markers

# The number of hex digits of the digest in the name of a tree. The name is short, because a wheel's files have long
# paths below it and Windows limits the length of a path. The marker contains the whole digest.
_TREE_DIGITS = 20
_TREE = rf"\A[0-9a-f]{{{_TREE_DIGITS}}}-(?:0|[1-9][0-9]*)\Z"
_MARKER = _TREE.replace(r"\Z", r"\.json\Z")


def _tree_name(sha256: str, number: int) -> str:
    return f"{sha256[SHARD_DIGITS : SHARD_DIGITS + _TREE_DIGITS]}-{number}"


def is_tree(name: str) -> bool:
    """Return whether the name is that of the folder of a tree."""
    return _matches(_TREE, name)


def marker_path(folder: str) -> str:
    """Return the path of the marker of the tree in this folder."""
    return folder + ".json"


def tree_folder(marker: str) -> str:
    """Return the folder of the tree that the marker at this path belongs to."""
    return marker.removesuffix(".json")


# Pointers and METADATA

_POINTER_OR_METADATA = rf"\A[0-9a-f]{{{64 - SHARD_DIGITS}}}\.json\Z"


def _name_in_shard(key: str) -> tuple[str, str]:
    name = text_key(key)
    return name[:SHARD_DIGITS], name[SHARD_DIGITS:] + ".json"


def pointer_stem(path: str) -> str:
    """Return the part of the hash of a pointer's key that its name contains. Its shard has the first digits."""
    return os.path.basename(path).removesuffix(".json")


def is_pointer_or_metadata(name: str) -> bool:
    """Return whether the name is that of a pointer, or of METADATA."""
    return _matches(_POINTER_OR_METADATA, name)


# Partial downloads and their origin files

_PARTIAL_ENDING = ".part"
_PARTIAL_OR_ORIGIN = rf"\A[0-9a-f]{{{_KEY_DIGITS}}}\.{OWNER}\.{SPACE}\.(?:part|json)\Z"


def is_partial(name: str, space: str | None = None) -> bool:
    """Return whether the name is that of a partial download. With ``space``, it must be of that PID namespace."""
    ending = _PARTIAL_ENDING if space is None else f".{space_tag(space)}{_PARTIAL_ENDING}"
    return name.endswith(ending) and _matches(_PARTIAL_OR_ORIGIN, name)


def origin_file(partial: str) -> str:
    """Return the path of the origin file of a partial download. That file names the source of the bytes."""
    return partial.removesuffix(_PARTIAL_ENDING) + ".json"


# Temporary files

_TEMPORARY = rf"\A{OWNER}(?:-[a-z]+)?(?:\.{SPACE})?\.tmp\Z"


def _temporary_name(owner: str, space: str | None, word: str) -> str:
    word = f"-{word}" if word else ""
    return f"{owner}{word}.tmp" if space is None else f"{owner}{word}.{space_tag(space)}.tmp"


def is_temporary(name: str) -> bool:
    """Return whether the name is that of a temporary file, or of a probe."""
    return name.endswith(".tmp") and _matches(_TEMPORARY, name)


# Locks

_LOCK = rf"\A[0-9a-f]{{{_KEY_DIGITS}}}\.lock\Z"


def _lock_name(key: str) -> str:
    return text_key(key)[:_KEY_DIGITS] + ".lock"


# Quarantine. A damaged file may have had any name.

_QUARANTINED = rf"(?s)\A{OWNER}-."


def _quarantined_name(owner: str, path: str) -> str:
    return f"{owner}-{os.path.basename(path)}"[:_LONGEST]


# Sealed counters

_SEALED_COUNTERS = rf"\Atally-{OWNER}\.log\Z"


def _sealed_counters_name(owner: str) -> str:
    return f"tally-{owner}.log"


def is_sealed_counters(name: str) -> bool:
    """Return whether the name is that of a sealed file of counters."""
    return name.endswith(".log") and _matches(_SEALED_COUNTERS, name)
