"""Find or create the tree of a wheel in the cache, and link its files into the caller's folder.

Files are linked out of complete trees only. A wheel that is refused or damaged therefore never leaves a file in the
caller's folder. If the cache cannot be written to and has no tree, a tree is created for the duration of the call, in a
temporary folder inside the caller's folder.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from .._exceptions import Cause, CommitError, ReadOnlyError
from .._filenames import check_project
from .._fs.robustio import RobustIO
from .._fs.tempnames import OwnerTag, spare_name
from .._imports import import_lock
from .._models import CachedWheel, LinkMode, Unpacked
from .._operation import Operation
from .._store.layout import Layout
from .._store.lookup import Entry
from .._store.trust.policy import TrustPolicy
from .find import FindWheel, TrustedTrees
from .link_tree import TreeLinker, TreeRemovedError
from .manifest import Manifest
from .trees import TreeEntry, remove_recursively

# Attempts to create and use a tree, in case another process removes the tree each time before it is used.
_ATTEMPTS = 3
# In these modes, the files of a wheel can be unpacked into a folder without a tree in the cache.
_WITHOUT_TREE = {LinkMode.AUTO, LinkMode.COPY}


class Unpacker:
    """The unpacked wheels of a cache folder and of the layers below it.

    Args:
        layouts: the paths of these folders, beginning with the cache itself.
        linker: puts the files of a tree into a folder.
        writable: whether trees may be created in the cache.
        trust: the worth of recorded digests in each of these folders.
        find_wheel: looks up the entry of a wheel in the cache and its layers.
        turn: waits until no other thread or process works on a key, as :meth:`SingleFlight.turn` does.
        on_growth: called with the size of a new tree and the sha256 of its wheel.
    """

    def __init__(
        self,
        layouts: Sequence[Layout],
        linker: TreeLinker,
        *,
        writable: bool,
        trust: Sequence[TrustPolicy],
        find_wheel: Callable[[RobustIO, CachedWheel], Entry | None],
        turn: Callable[[RobustIO, str, Callable[[], bool]], AbstractContextManager[None]],
        on_growth: Callable[[RobustIO, int, str], None],
    ) -> None:
        self._layout = layouts[0]
        self._trees = [
            TrustedTrees(layout, policy, writable=writable and number == 0)
            for number, (layout, policy) in enumerate(zip(layouts, trust, strict=True))
        ]
        self._trust = trust
        self._linker = linker
        self._writable = writable
        self._find_wheel = find_wheel
        self._turn = turn
        self._on_growth = on_growth

    def unpack(self, op: Operation, wheel: CachedWheel, dest: str | None, mode: LinkMode) -> Unpacked:
        """Unpack a wheel into the folder with the absolute path ``dest`` or, for ``None``, only into the cache.

        Raises:
            The errors of :meth:`Cache.unpack`.
        """
        fs = RobustIO(op)
        if dest is None:
            tree = self.tree(op, wheel)
            return Unpacked(Path(tree.folder), None, tuple(tree.manifest.files()))
        return self._unpack_into(fs, wheel, dest, mode)

    def tree(self, op: Operation, wheel: CachedWheel) -> TreeEntry:
        """Return the checked tree of a wheel in the cache. Create the tree if it does not exist.

        Raises:
            The errors of :meth:`Cache.unpack`.
        """
        tree = self._find_or_make(RobustIO(op), wheel)
        self._check_project(tree, wheel)
        return tree

    def is_shared(self, fs: RobustIO) -> bool:
        """Return whether other users can write to the cache or one of its layers."""
        return not all(policy.is_private(fs) for policy in self._trust)

    def _unpack_into(self, fs: RobustIO, wheel: CachedWheel, dest: str, mode: LinkMode) -> Unpacked:
        # A trusted tree is checked folder by folder while its files are linked. Any other tree is checked before that.
        # If other users can write to the tree, it is checked once more while it is linked.
        tree = self._find_unchecked(fs, _sha256(wheel))
        is_checked = tree is None
        is_shared = self.is_shared(fs)
        for _ in range(_ATTEMPTS):
            tree = tree or self._find_or_make_if_allowed(fs, wheel, mode)
            if tree is None:
                manifest = self._unpack_without_tree(fs, self._require_wheel(fs, wheel), dest)
                return Unpacked(Path(dest), LinkMode.COPY, tuple(manifest.files()))
            self._check_project(tree, wheel)
            used = self._link_out(fs, tree, dest, mode, check=not is_checked, shared=is_shared)
            if used is not None:
                return Unpacked(Path(dest), used, tuple(tree.manifest.files()))
            tree, is_checked = None, True
        raise CommitError(
            f"the unpacked tree was removed by another process {_ATTEMPTS} times in a row",
            operation="unpack",
            path=self._layout.trees,
            attempts=_ATTEMPTS,
            advice="Raise the limit that the other process prunes with.",
        )

    @staticmethod
    def _check_project(tree: TreeEntry, wheel: CachedWheel) -> None:
        # The tree may have been created from the same bytes under another file name.
        check_project(tree.manifest.dist_info(), wheel.filename, str(wheel.path))

    def _find_or_make_if_allowed(self, fs: RobustIO, wheel: CachedWheel, mode: LinkMode) -> TreeEntry | None:
        """Return the tree of a wheel, or ``None`` if no tree can be created and the mode works without a tree."""
        if mode not in _WITHOUT_TREE:
            return self._find_or_make(fs, wheel)
        found = self._find(fs, wheel)
        if found is not None or not self._writable:
            return found
        try:
            return self._make_in_turn(fs, wheel)
        except CommitError as error:
            if error.cause is not Cause.DENIED:
                raise
            # For a user who may only read a cache that others fill, the cache behaves like a read-only one.
            return None

    def _find_or_make(self, fs: RobustIO, wheel: CachedWheel) -> TreeEntry:
        """Return the tree of a wheel. Create the tree if it does not exist."""
        found = self._find(fs, wheel)
        if found is not None:
            return found
        if not self._writable:
            raise ReadOnlyError(
                "the cache was opened read-only",
                operation="unpack",
                path=self._layout.root,
                advice="Open it without read_only=True, or use it as a layer of another cache.",
            )
        return self._make_in_turn(fs, wheel)

    def _make_in_turn(self, fs: RobustIO, wheel: CachedWheel) -> TreeEntry:
        """Create the tree of a wheel, unless another thread or process has just created it."""
        sha256 = _sha256(wheel)
        with self._turn(fs, f"tree {sha256}", lambda: self._has_marker(fs, sha256)):
            found = self._find(fs, wheel)
            if found is None:
                found = self._make(fs, self._require_wheel(fs, wheel))
                self._on_growth(fs, found.size, sha256)
            return found

    def _require_wheel(self, fs: RobustIO, wheel: CachedWheel) -> Entry:
        found = self._find_wheel(fs, wheel)
        if found is None:
            raise FileNotFoundError(
                errno.ENOENT, "the wheel is no longer in the cache and must be fetched again", str(wheel.path)
            )
        return found

    def _find_unchecked(self, fs: RobustIO, sha256: str) -> TreeEntry | None:
        """Return the unchecked tree of a wheel, if one ``stat`` per file is sufficient to check it."""
        for number, trees in enumerate(self._trees):
            try:
                found, exists = trees.find_unchecked(fs, sha256)
            except CommitError:
                if number == 0:
                    raise
                continue  # without this layer, another one or the cache itself may have the tree
            if exists:
                return found
        return None

    def _has_marker(self, fs: RobustIO, sha256: str) -> bool:
        """Return whether the cache has a tree of a wheel with a valid marker."""
        return next(self._trees[0].store.iter_marked(fs, sha256), None) is not None

    def _find(self, fs: RobustIO, wheel: CachedWheel) -> TreeEntry | None:
        """Check and return the tree of a wheel from the cache or a layer, or return ``None``."""
        for number, trees in enumerate(self._trees):
            try:
                found = trees.find(fs, _sha256(wheel), lambda: self._find_wheel(fs, wheel))
            except CommitError:
                if number == 0:
                    raise
                continue  # without this layer, another one or the cache itself may have the tree
            if found is not None:
                return found
        return None

    def _make(self, fs: RobustIO, wheel: Entry) -> TreeEntry:
        """Unpack a wheel into the cache, and return its tree.

        Raises:
            InvalidWheelError, UnsafeWheelError: if the wheel is refused. No file of the wheel is kept.
            CommitError: if a file operation is refused.
        """
        with import_lock:
            from . import extract  # most calls find a tree and do not need this module

        trees, sha256 = self._trees[0], wheel.record.sha256
        folder = trees.store.claim(fs, sha256)
        try:
            manifest = extract.extract_wheel(
                fs, wheel, root=folder, permissions=extract.PROTECTED, is_shared=self.is_shared(fs)
            )
            other = _find_without_waiting(trees, fs, sha256, lambda: wheel)
            if other is None:
                return trees.add(fs, folder, manifest)
        except BaseException:
            remove_recursively(fs.for_cleanup(), folder)
            raise
        remove_recursively(fs.for_cleanup(), folder)
        return other

    def _link_out(
        self, fs: RobustIO, tree: TreeEntry, dest: str, mode: LinkMode, *, check: bool, shared: bool
    ) -> LinkMode | None:
        """Link the files of a tree into a folder, and return the mode that was used.

        Returns ``None`` if a file of the tree was removed or changed. With ``check``, each folder of the tree is
        checked before its files are linked. With ``shared``, other users can write to the tree.

        Raises:
            FileExistsError: if the folder contains a file with other bytes. Nothing is written then.
            CommitError: if a file operation is refused.
        """
        try:
            return self._linker.link_tree(fs, tree.folder, tree.manifest, dest, mode, check=check, shared=shared)
        except TreeRemovedError:
            return None

    def _unpack_without_tree(self, fs: RobustIO, wheel: Entry, dest: str) -> Manifest:
        """Unpack a wheel into a folder without keeping a tree.

        Raises:
            The errors of :meth:`_make` and :meth:`_link_out`.
        """
        with import_lock:
            from . import extract

        fs.make_folder(dest)
        folder = os.path.join(dest, spare_name(OwnerTag.new(fs.system.now(), fs.system.boot())))
        fs.make_folder(folder)
        try:
            manifest = extract.extract_wheel(
                fs, wheel, root=folder, permissions=extract.WRITABLE, is_shared=self.is_shared(fs)
            )
            # The other names of hard-linked files are deleted with the temporary folder.
            self._linker.link_tree(fs, folder, manifest, dest, LinkMode.AUTO)
        finally:
            remove_recursively(fs.for_cleanup(), folder)
        return manifest


def _find_without_waiting(trees: TrustedTrees, fs: RobustIO, sha256: str, find_wheel: FindWheel) -> TreeEntry | None:
    """Return the tree that another process has created meanwhile, if it can be found without waiting.

    If this process continued without the lock, it may have lost the race. The tree of the other process may be in use
    already, so that tree is returned. A second tree is harmless.
    """
    try:
        return trees.find(fs.without_waiting(), sha256, find_wheel)
    except CommitError:
        return None


def _sha256(wheel: CachedWheel) -> str:
    return wheel.digest.removeprefix("sha256:")
