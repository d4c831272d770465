"""Prune: cutting a cache to a size or an age, least recently used first, and sweeping what is left over.

One walk by names and stats finds what there is; what goes is chosen from that, and looked at once more before it goes.
An entry goes whole: its wheels, its tree, the pointers to it. What is in use stays, is reported, and is not waited for;
a few refused folders are looked at again a moment later, for the reason that :mod:`._removal` gives.
Any number of prunes may run at once, and beside anything else.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._options import PruneLimits
from .._reports import PruneReport
from .._store import walk
from .._store.counters import Counters
from .._store.layout import Layout
from .removal import Remover
from .sweep import Sweeper

# Of a million entries each takes these bytes and no objects; in this order of fields, bytes sort as the entries do.
_KEY = struct.Struct(">d32sQ")


@dataclass
class _Survey:
    """What one walk has found.

    Attributes:
        left: the bytes of what was found and is not gone.
        gone: the bytes of what was found and is gone, whoever took it.
        is_part: whether it was refused somewhere.
        keys: the entries, packed.
    """

    left: int = 0
    gone: int = 0
    is_part: bool = False
    keys: list[bytes] = field(default_factory=list)

    def add(self, sha256: str, size: int, used: float) -> None:
        self.left += size
        # Doubles sort as their bytes do from zero on; a file of before 1970 is as old as can be.
        self.keys.append(_KEY.pack(max(used, 0.0), bytes.fromhex(sha256), size))

    def went(self, size: int) -> None:
        self.left -= size
        self.gone += size

    def oldest_first(self) -> Iterator[tuple[str, int, float]]:
        self.keys.sort()
        for key in self.keys:
            used, sha256, size = _KEY.unpack(key)
            yield sha256.hex(), size, used


class Pruner:
    """Pruning of one cache folder.

    Attributes:
        left: the bytes of wheels and trees that the last run found and that are not gone.
    """

    def __init__(self, layout: Layout, tally: Counters) -> None:
        self.left = 0
        self._layout = layout
        self._tally = tally

    def run(self, fs: RobustIO, limits: PruneLimits, *, dry_run: bool = False) -> PruneReport:
        """Prune, and return what went. ``Cache.prune`` is the contract."""
        fs = fs.without_waiting()
        came = self._tally.came(fs)
        removal = Remover(fs, self._layout, dry_run=dry_run)
        sweep = Sweeper(removal)
        found = self._walk(removal, sweep)
        going = self._cut(removal, found, limits)
        sweep.pointers(lambda sha256: sha256 not in going and fs.stat(self._layout.entry(sha256)) is not None)
        sweep.run()
        if not dry_run:
            self._settle(fs, found, came)
        self.left = found.left
        return removal.report()

    def remove(self, fs: RobustIO, chosen: dict[str, set[str] | None], *, dry_run: bool = False) -> PruneReport:
        """Take away entries by sha256, or those of their wheels that have one of the file names."""
        fs = fs.without_waiting()
        removal = Remover(fs, self._layout, dry_run=dry_run)
        gone = {sha256 for sha256, names in chosen.items() if removal.entry(sha256, names=names) and names is None}
        if gone:
            Sweeper(removal).pointers(lambda sha256: sha256 not in gone)
        if not dry_run:
            self._tally.grew(-removal.shrunk)
            self._tally.write(fs)
        return removal.report()

    def clear(self, fs: RobustIO, *, dry_run: bool = False) -> PruneReport:
        """Take away everything but the marks of the folder and what was counted."""
        fs = fs.without_waiting()
        came = self._tally.came(fs)
        removal = Remover(fs, self._layout, dry_run=dry_run)
        sweep = Sweeper(removal, everything=True)
        found = self._walk(removal, sweep)
        for sha256, size, _ in found.oldest_first():
            if removal.entry(sha256):
                found.went(size)
        sweep.pointers(lambda _: False)
        sweep.run()
        if not dry_run:
            self._settle(fs, found, came)
        return removal.report()

    def _walk(self, removal: Remover, sweep: Sweeper) -> _Survey:
        found = _Survey()

        def refused(path: str, error: CommitError) -> None:
            found.is_part = True
            removal.skip(path, error)

        trees = self._trees(removal, refused)
        for entry in walk.walk_entries(removal.fs, self._layout, refused):
            if entry.names and entry.blobs:
                if entry.used > removal.soon:
                    removal.mark(*(self._layout.record(entry.sha256, name) for name in entry.names))
                size, used = trees.pop(entry.sha256, (0, 0.0))
                found.add(entry.sha256, entry.size + size, max(entry.used, used))
            else:
                sweep.remains(entry)
        for sha256, (size, used) in trees.items():
            found.add(sha256, size, used)  # its wheel went, and it is of use without
        return found

    def _trees(self, removal: Remover, refused: walk.OnError) -> dict[str, tuple[int, float]]:
        """Return the bytes and the last use of the trees of each wheel."""
        found: dict[str, tuple[int, float]] = {}
        try:
            for tree in removal.trees.all(removal.fs):
                if tree.used > removal.soon:
                    removal.mark(tree.marker)
                size, used = found.get(tree.sha256, (0, 0.0))
                found[tree.sha256] = size + tree.size, max(used, tree.used)
        except CommitError as error:
            refused(error.path or self._layout.trees, error)
        return found

    def _cut(self, removal: Remover, found: _Survey, limits: PruneLimits) -> set[str]:
        """Take away what is over the limits, least recently used first; return the sha256 of what went."""
        keep = limits.keep or frozenset()
        unlimited = limits.max_size is None and limits.max_age is None
        if unlimited and limits.keep is None:
            return set()
        latest = -math.inf if limits.max_age is None else removal.fs.system.now() - limits.max_age
        going: set[str] = set()
        for sha256, size, used in found.oldest_first():
            is_over = limits.max_size is not None and found.left > limits.max_size
            if not (unlimited or is_over or used < latest):
                break  # all that come are younger
            if sha256 not in keep and removal.entry(sha256, unused_since=used):
                going.add(sha256)
                found.went(size)
        return going

    def _settle(self, fs: RobustIO, found: _Survey, came: int) -> None:
        """Write down how much there is; ``came`` is what had come before the walk began.

        What came since may have been seen by the walk or not. It is counted once more: an estimate that is too high
        brings the next walk, one that is too low keeps it away.
        """
        size = found.left + max(self._tally.came(fs) - came, 0)
        if found.is_part:
            size = max(size, self._tally.size(fs) - found.gone)
        self._tally.restate(fs, size)
