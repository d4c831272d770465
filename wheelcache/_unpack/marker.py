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
from collections.abc import Iterable
from itertools import chain
from typing import Any

from .._archive.names import Names, are_plain_parts, folder_bounds, problem_of_name
from .._filenames import is_dist_info
from .._store.records import decode, encode
from .manifest import DIGEST_DIGITS, KINDS, Manifest, ManifestDir

MAX_MARKER = 32 << 20
"""Bytes. A file takes about 145 bytes. Of the large public wheels, homeassistant has the most files: 36,000."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# Bytes or seconds.
_LARGEST = (1 << 63) - 1


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
    return (
        _SHA256.fullmatch(manifest.sha256) is not None
        and isinstance(manifest.boot, str | None)
        and _are_integers([manifest.created, 0 if manifest.changed is None else manifest.changed])
        and 0 <= manifest.created <= _LARGEST
        and _are_columns_sound(manifest.folders)
        and _are_names_sound(manifest.folders, joined_names)
    )


def _are_columns_sound(folders: list[ManifestDir]) -> bool:
    for _, names, sizes, stamps, inodes, kinds, digests in folders:
        if not len(names) == len(sizes) == len(stamps) == len(inodes) == len(kinds) == len(digests) // DIGEST_DIGITS:
            return False
    all_digests = "".join([folder.digests for folder in folders])
    binascii.unhexlify(all_digests)  # raises a ValueError for other characters
    all_sizes = list(chain.from_iterable([folder.sizes for folder in folders]))
    return (
        len(all_digests) == DIGEST_DIGITS * len(all_sizes)
        and KINDS.issuperset("".join([folder.kinds for folder in folders]))
        and _are_integers(all_sizes)
        and _are_integers(chain.from_iterable([folder.stamps for folder in folders]))
        and _are_integers(chain.from_iterable([folder.inodes for folder in folders]))
        and min(all_sizes, default=0) >= 0
        and sum(all_sizes) <= _LARGEST
    )


def _are_integers(column: Iterable[object]) -> bool:
    # The types are compared, because bool is a subclass of int.
    return {int}.issuperset(map(type, column))


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
    # This bound is cheaper than the length of each path. If it is too long, each name is checked.
    longest = max(map(len, paths)) + max(map(len, chain.from_iterable([folder.names for folder in folders])))
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
    lower = [folder.path.lower() for folder in folders]
    parents = {path.rpartition("/")[0] for path in lower[1:]}
    files_of_parents: dict[str, set[str]] = {}
    for path, folder, names in zip(lower, folders, joined_names, strict=True):
        lower_names = names.lower()
        files = set(folder.names) if lower_names == names else set(lower_names.split("/"))
        if len(files) < len(folder.names):
            return False
        if path in parents:
            files_of_parents[path] = files
    split = (path.rpartition("/") for path in lower[1:])
    return len(set(lower)) == len(lower) and not any(name in files_of_parents[parent] for parent, _, name in split)


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
