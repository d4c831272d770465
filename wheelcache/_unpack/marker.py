"""Encode and decode the marker of a tree, and check that it could belong to a wheel.

The format is fast to read, because a warm install spends much of its time on reading markers, for example 80 markers
with 18,600 files. The format has columns instead of rows. The names of a folder are joined by the one character that no
name contains. All digests of a folder are in one string. This string is only divided when a file is hashed. A marker
has a checksum like a record, so a torn marker is invalid.

A marker may have been written by another user, or restored from an archive. Its names pass the checks of an archive's
names, so no file outside the tree or the caller's folder can be named. An invalid marker counts as missing. Each check
is one search in all names at once, or one call for a whole column.
"""

from __future__ import annotations

import binascii
import re
from itertools import chain
from typing import Any

from .._archive.names import Names, are_plain_parts, folder_bounds, problem_of_name
from .._filenames import is_dist_info
from .._store.records import decode, encode
from .manifest import DIGEST_DIGITS, KINDS, Manifest, ManifestDir

MAX_MARKER = 32 << 20
"""Bytes. A file takes about 145 bytes. Of the large public wheels, homeassistant has the most files: 36,000."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# Larger numbers are no sizes and times of any file system, and Python could not convert them to floats.
_LARGEST_NUMBER = 1 << 63
_LARGEST_INODE = 1 << 128


def encode_marker(manifest: Manifest) -> bytes:
    """Return the bytes of the marker for a manifest."""
    folders = manifest.folders
    return encode(
        {
            "sha256": manifest.sha256,
            "boot": manifest.boot,
            "created": manifest.created,
            "changed": manifest.changed,
            "folders": [folder.path for folder in folders],
            "names": ["/".join(folder.names) for folder in folders],
            "sizes": [folder.sizes for folder in folders],
            "stamps": [folder.stamps for folder in folders],
            "inodes": [folder.inodes for folder in folders],
            "kinds": [folder.kinds for folder in folders],
            "digests": [folder.digests for folder in folders],
        }
    )


def decode_marker(data: bytes) -> Manifest | None:
    """Return the manifest in a marker, or ``None`` if the marker is invalid."""
    fields = decode(data)
    if fields is None:
        return None
    try:
        manifest = _decoded(fields)
        return manifest if _is_sound(manifest, fields["names"]) else None
    except (TypeError, KeyError, AttributeError, ValueError):
        return None


def _decoded(fields: dict[str, Any]) -> Manifest:
    names = [names.split("/") if names else [] for names in fields["names"]]
    inodes, changed = fields.get("inodes"), fields.get("changed")
    if inodes is None or changed is None:
        # The marker of an earlier version lacks both, so no file of its tree is trusted by its fingerprint.
        inodes, changed = [[0] * len(column) for column in names], None
    columns = zip(
        fields["folders"],
        names,
        fields["sizes"],
        fields["stamps"],
        inodes,
        fields["kinds"],
        fields["digests"],
        strict=True,
    )
    folders = [ManifestDir(*column) for column in columns]
    return Manifest(fields["sha256"], fields["boot"], fields["created"], changed, folders)


def _is_sound(manifest: Manifest, joined_names: list[str]) -> bool:
    folders = manifest.folders
    return (
        _SHA256.fullmatch(manifest.sha256) is not None
        and isinstance(manifest.boot, str | None)
        and _are_numbers([manifest.created, 0 if manifest.changed is None else manifest.changed])
        and manifest.created >= 0
        and _are_columns_sound(folders)
        and _are_names_sound(folders, joined_names)
    )


def _are_columns_sound(folders: list[ManifestDir]) -> bool:
    for folder in folders:
        count = len(folder.names)
        if not (
            count
            == len(folder.sizes)
            == len(folder.stamps)
            == len(folder.inodes)
            == len(folder.kinds)
            == len(folder.digests) // DIGEST_DIGITS
        ):
            return False
    digests = "".join(folder.digests for folder in folders)
    binascii.unhexlify(digests)  # raises a ValueError for other characters
    sizes = list(chain.from_iterable(folder.sizes for folder in folders))
    return (
        len(digests) == DIGEST_DIGITS * len(sizes)
        and KINDS.issuperset("".join(folder.kinds for folder in folders))
        and _are_numbers(sizes)
        and min(sizes, default=0) >= 0
        and _are_numbers(list(chain.from_iterable(folder.stamps for folder in folders)))
        and _are_numbers(list(chain.from_iterable(folder.inodes for folder in folders)), _LARGEST_INODE)
    )


def _are_numbers(numbers: list[int], largest: int = _LARGEST_NUMBER) -> bool:
    # The types are compared, because bool is a subclass of int.
    return not numbers or (set(map(type, numbers)) == {int} and -largest <= min(numbers) and max(numbers) <= largest)


def _are_names_sound(folders: list[ManifestDir], joined_names: list[str]) -> bool:
    """Return whether the names could be those of a wheel: safe, different on every system, and within the bounds.

    Args:
        folders: the folders of the manifest.
        joined_names: the names of the files of each folder, joined by slashes.
    """
    paths = [folder.path for folder in folders]
    if not paths or paths[0] or not _are_in_order(paths) or not _has_one_dist_info(folders):
        return False
    most_folders, most_bytes = folder_bounds(sum(len(folder.names) for folder in folders))
    if len(paths) - 1 > most_folders or sum(map(len, paths)) > most_bytes:
        return False
    longest = max(len(folder.path) + 1 + max(map(len, folder.names), default=0) for folder in folders)
    are_ascii = all(map(str.isascii, paths)) and all(map(str.isascii, joined_names))
    if are_ascii and are_plain_parts([*paths[1:], *filter(None, joined_names)], longest):
        return _are_different(folders, joined_names)
    return _are_safe(folders)


def _are_in_order(paths: list[str]) -> bool:
    """Return whether each folder occurs once, after its parent."""
    known: set[str] = set()
    for path in paths:
        if path in known or (path and path.rpartition("/")[0] not in known):
            return False
        known.add(path)
    return True


def _has_one_dist_info(folders: list[ManifestDir]) -> bool:
    names = [folder.path for folder in folders if is_dist_info(folder.path)]
    return len(names) == 1 and not any(map(is_dist_info, folders[0].names))


def _are_different(folders: list[ManifestDir], joined_names: list[str]) -> bool:
    """Return whether all names, which are in ASCII, are different on systems that ignore case."""
    folded: dict[str, set[str]] = {}
    for folder, names in zip(folders, joined_names, strict=True):
        files = set(names.lower().split("/"))
        path = folder.path.lower()
        if len(files) < len(folder.names) or path in folded:
            return False
        folded[path] = files
    parents = (path.rpartition("/") for path in folded)
    return not any(name in folded[parent] for parent, _, name in parents if name)


def _are_safe(folders: list[ManifestDir]) -> bool:
    """Check each name like the name of an archive's member."""
    names = Names()
    for folder in folders:
        if "" in folder.names:
            return False
        paths = [f"{folder.path}/"] if folder.path else []
        for name in (*paths, *map(folder.relative, folder.names)):
            name.encode()  # raises a ValueError for surrogates
            if problem_of_name(name) or names.add(name):
                return False
    return not names.file_and_folder()
