"""Unpack: the tree of a wheel, made where there is none, and its files out to where the caller wants them.

A tree is the only thing that is ever spread: so a wheel is refused, or found damaged, before anything of it can be in
the caller's folder. Where the cache may not be written to and has no tree, one is made for the time of the call in a
folder of its own inside the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._fs.tempnames import OwnerTag, spare_name
from .._models import LinkMode
from .._store.layout import Layout
from .._store.lookup import Entry
from .link_tree import TreeLinker, TreeRemovedError
from .manifest import Manifest
from .trees import TreeEntry, Trees, remove_folder


class Unpacker:
    """The unpacked wheels of a cache folder and of the layers below it.

    Args:
        layouts: their paths; the cache's own come first.
        writable: whether trees may be made there.
        full: whether every file of a tree is hashed every time.
        spread: the way out.
    """

    def __init__(self, layouts: Sequence[Layout], spread: TreeLinker, *, writable: bool, full: bool) -> None:
        self._trees = [
            Trees(layout, writable=writable and number == 0, full=full) for number, layout in enumerate(layouts)
        ]
        self._spread = spread

    def promising(self, fs: RobustIO, sha256: str) -> TreeEntry | None:
        """Return the tree of a wheel where one stat a file will do to believe it, and none was done yet."""
        for trees in self._trees:
            found = next(trees.recorded(fs, sha256), None)
            if found is not None:
                return found if trees.is_of_this_boot(fs, found.listing) else None
        return None

    def is_there(self, fs: RobustIO, sha256: str) -> bool:
        """Return whether the cache has a tree of a wheel, as its marker tells it."""
        return next(self._trees[0].recorded(fs, sha256), None) is not None

    def find(self, fs: RobustIO, sha256: str) -> TreeEntry | None:
        """Return the tree of a wheel, ``None`` where there is none that may be believed."""
        for trees in self._trees:
            found = trees.find(fs, sha256)
            if found is not None:
                return found
        return None

    def make(self, fs: RobustIO, wheel: Entry) -> TreeEntry:
        """Unpack a wheel into the cache.

        Raises:
            InvalidWheelError, UnsafeWheelError: where it may not be unpacked; nothing of it stays.
            CommitError: where the file system refuses.
        """
        from . import extract  # most calls find the tree, and the start of a process counts

        trees, sha256 = self._trees[0], wheel.record.sha256
        folder = trees.claim(fs, sha256)
        try:
            listing = extract.fill(
                fs, wheel.path, wheel.record.filename, sha256=sha256, root=folder, permissions=extract.PROTECTED
            )
            theirs = _found_at_once(trees, fs, sha256)
            if theirs is None:
                return trees.mark(fs, folder, listing)
        except BaseException:
            remove_folder(fs.for_cleanup(), folder)
            raise
        remove_folder(fs.for_cleanup(), folder)
        return theirs

    def out(self, fs: RobustIO, tree: TreeEntry, dest: str, mode: LinkMode, *, check: bool) -> LinkMode | None:
        """Put the files of a tree into a folder, and return how; ``None`` where the tree is gone or not as it was.

        With ``check`` it is looked at on the way.

        Raises:
            FileExistsError: where a file is there with other bytes; nothing was written.
            CommitError: where the file system refuses.
        """
        try:
            return self._spread.out(fs, tree.folder, tree.listing, dest, mode, check=check)
        except TreeRemovedError:
            return None

    def past_the_cache(self, fs: RobustIO, wheel: Entry, dest: str) -> Manifest:
        """Unpack a wheel straight into a folder, without a tree that stays.

        Raises:
            As :meth:`make` and :meth:`out`.
        """
        from . import extract

        fs.make_folder(dest)
        folder = os.path.join(dest, spare_name(OwnerTag.new(fs.system.now(), fs.system.boot())))
        fs.make_folder(folder)
        try:
            record = wheel.record
            listing = extract.fill(
                fs, wheel.path, record.filename, sha256=record.sha256, root=folder, permissions=extract.WRITABLE
            )
            # The link is to a file that is nobody else's as soon as the folder is gone.
            self._spread.out(fs, folder, listing, dest, LinkMode.AUTO)
        finally:
            remove_folder(fs.for_cleanup(), folder)
        return listing


def _found_at_once(trees: Trees, fs: RobustIO, sha256: str) -> TreeEntry | None:
    """Return the tree of who was quicker, where that can be seen without waiting.

    Who went on without a lock may have lost the race: theirs is in use, and one tree is enough. Two are no harm.
    """
    try:
        return trees.find(fs.without_waiting(), sha256)
    except CommitError:
        return None
