"""Find the tree of a wheel, and decide whether it is trusted.

A marker is trusted if the trust policy of its cache folder accepts it, and if the top folder of the tree has the change
time in the marker. Another change time means that the tree was restored from an archive, because no tool restores this
time. Each file of a trusted tree must have the recorded fingerprint. This check takes one ``stat`` per file. A file
with another fingerprint, such as a touched one, is hashed once and compared with the digest in the marker.

A tree without a trusted marker is compared with its wheel, as described in :mod:`.compare`. The wheel is hashed before,
unless it is trusted. Then the marker is renewed. If the policy does not accept markers, because other users can write
to the cache folder, the result is also kept in this process. A tree whose wheel is missing cannot be compared. It is
not used, but kept.

A damaged tree is removed. Files that the wheel does not have are only deleted, because the tree may be in use: if a
program imports modules from the tree, Python adds byte code to it. They are noticed only in a comparison.

As for wheels, only ``verify="full"`` detects a program that edits a file and resets its time stamp within one boot.
"""

from __future__ import annotations

import stat as modes
from collections.abc import Callable
from typing import NamedTuple

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._imports import import_lock
from .._store.layout import Layout
from .._store.lookup import Entry
from .._store.trust.fingerprint import is_recorded
from .._store.trust.policy import TrustPolicy
from .check import check_recorded
from .manifest import Manifest
from .trees import TreeEntry, TreeStore, remove_recursively

# The manifests of trees that this process has compared. A wheel may have thousands of files.
_MAX_REMEMBERED = 500
# Attempts to delete the files that do not belong to a tree, in case a program adds others meanwhile.
_ATTEMPTS = 3

FindWheel = Callable[[], Entry | None]
"""A function that returns the trusted entry of the wheel, or ``None`` if the wheel is missing."""


class TrustedTrees:
    """The trees of one cache folder that are trusted or were compared with their wheels.

    Args:
        layout: the paths of the cache folder.
        trust: the worth of recorded digests in this folder.
        writable: whether markers may be renewed, and damaged trees removed.
    """

    def __init__(self, layout: Layout, trust: TrustPolicy, *, writable: bool) -> None:
        self.store = TreeStore(layout)
        self._trust = trust
        self._writable = writable
        # By marker. The digests in these manifests were computed by this process.
        self._compared: dict[str, Manifest] = {}

    def find(self, fs: RobustIO, sha256: str, find_wheel: FindWheel) -> TreeEntry | None:
        """Return the intact tree of a wheel, or ``None``. A damaged tree is removed.

        Raises:
            InvalidWheelError, UnsafeWheelError: if a tree must be compared with its wheel, and the wheel is refused.
            CommitError: if a file cannot be read, or is held for too long.
        """
        for entry in self.store.iter_marked(fs, sha256):
            checked = self._check(fs, entry, find_wheel)
            if checked is None:
                continue
            if not checked.damaged:
                return checked.entry
            if self._writable:
                # A cancellation must not leave half of the tree.
                self.store.remove_tree(fs.for_cleanup(), entry)
        return None

    def find_unchecked(self, fs: RobustIO, sha256: str) -> tuple[TreeEntry | None, bool]:
        """Return the first tree of a wheel, if one ``stat`` per file is sufficient to check it, and whether any exists.

        The caller compares the fingerprints.
        """
        entry = next(self.store.iter_marked(fs, sha256), None)
        return (None, False) if entry is None else (self._trusted(fs, entry), True)

    def add(self, fs: RobustIO, folder: str, manifest: Manifest) -> TreeEntry:
        """Make a folder that this process has filled a tree.

        Raises:
            CommitError: if the marker cannot be written.
        """
        entry = self.store.mark(fs, folder, self._to_store(fs, manifest))
        stored, entry = entry.manifest, entry._replace(manifest=entry.manifest._replace(boot=manifest.boot))
        if not self._trust.accepts(fs, stored.boot):
            self._remember(entry.marker, entry.manifest)
        return entry

    def _to_store(self, fs: RobustIO, manifest: Manifest) -> Manifest:
        """Return a manifest as it is written to a marker, without a boot if no other process may trust it."""
        return manifest if self._trust.can_trust_markers(fs) else manifest._replace(boot=None)

    def _trusted(self, fs: RobustIO, entry: TreeEntry) -> TreeEntry | None:
        """Return the entry with the manifest whose fingerprints and digests are trusted, or ``None``."""
        manifest = self._compared.get(entry.marker)
        if manifest is None or manifest.boot != fs.system.boot():
            manifest = entry.manifest
            if not self._trust.accepts(fs, manifest.boot):
                return None
        if self._trust.is_full or manifest.changed is None or manifest.changed != fs.change_time(entry.folder):
            return None
        return entry._replace(manifest=manifest)

    def _check(self, fs: RobustIO, entry: TreeEntry, find_wheel: FindWheel) -> _Checked | None:
        """Check a tree, or return ``None`` if it must be compared with a missing wheel."""
        trusted = self._trusted(fs, entry)
        if trusted is None:
            return self._compare(fs, entry, find_wheel)
        damaged, manifest = check_recorded(fs, entry.folder, trusted.manifest, trusted=True, writable=self._writable)
        if not damaged and manifest != trusted.manifest:
            self._renew(fs, entry, manifest)
        return _Checked(trusted._replace(manifest=manifest), damaged)

    def _compare(self, fs: RobustIO, entry: TreeEntry, find_wheel: FindWheel) -> _Checked | None:
        with import_lock:
            from . import compare  # most calls find a trusted tree and do not need this module

        wheel = find_wheel()
        if wheel is None:
            return None
        folder = fs.stat(entry.folder)
        if folder is not None and not modes.S_ISDIR(folder.st_mode):
            return _Checked(entry, [entry.folder])
        changed, extra = self._remove_extra(fs, entry)
        if extra or changed is None:
            return _Checked(entry, extra or [entry.folder])
        try:
            damaged, manifest = compare.compare_with_wheel(
                fs,
                entry.folder,
                entry.manifest,
                wheel.path,
                wheel.record.filename,
                is_same=lambda stat: is_recorded(fs, wheel.path, stat, wheel.record),
                writable=self._writable,
            )
        except FileNotFoundError:
            return None  # another process removed the wheel meanwhile
        if not damaged:
            manifest = manifest._replace(boot=fs.system.boot(), changed=changed)
            self._renew(fs, entry, manifest)
        return _Checked(entry._replace(manifest=manifest), damaged)

    def _remove_extra(self, fs: RobustIO, entry: TreeEntry) -> tuple[int | None, list[str]]:
        """Delete the files that the manifest of a tree does not list.

        Returns:
            The change time of the tree from before the last scan, or ``None`` if the tree is missing, and the paths of
            the files that cannot be deleted.
        """
        with import_lock:
            from .compare import iter_extra

        for _ in range(_ATTEMPTS):
            changed = fs.change_time(entry.folder)
            extra = list(iter_extra(fs, entry.folder, entry.manifest))
            if not extra or not self._writable or changed is None:
                break
            for path in extra:
                remove_recursively(fs.for_cleanup(), path)
        return changed, extra

    def _renew(self, fs: RobustIO, entry: TreeEntry, manifest: Manifest) -> None:
        """Record that the files were hashed, so that they need not be hashed again.

        The marker is renewed best effort, even if only other users with ``verify="records"`` accept it.
        """
        stored = self._to_store(fs, manifest)
        is_recorded = stored == entry.manifest
        if self._writable and not is_recorded:
            try:
                self.store.write_marker(fs.without_waiting(), entry.marker, stored)
                is_recorded = True
            except CommitError:
                pass
        if is_recorded and self._trust.accepts(fs, stored.boot):
            self._compared.pop(entry.marker, None)
        else:
            self._remember(entry.marker, manifest)

    def _remember(self, marker: str, manifest: Manifest) -> None:
        if len(self._compared) >= _MAX_REMEMBERED:
            self._compared.clear()
        self._compared[marker] = manifest


class _Checked(NamedTuple):
    """A tree with new fingerprints, and the absolute paths of its missing, damaged and additional files."""

    entry: TreeEntry
    damaged: list[str]
