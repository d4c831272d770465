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

from . import _inventory
from ._disk import Disk
from ._errors import CommitError
from ._layout import Layout
from ._limits import Limits
from ._removal import Removal
from ._reports import PruneReport
from ._sweep import Sweep
from ._tally import Tally

# An estimate that is out by more than this share of the truth is put right.
_DRIFT = 0.01


# Of a million entries each takes these bytes and no objects; in this order of fields, bytes sort as the entries do.
_KEY = struct.Struct(">d32sQ")


@dataclass
class _Survey:
    """What one walk has found."""

    total: int = 0
    keys: list[bytes] = field(default_factory=list)

    def add(self, sha256: str, size: int, used: float) -> None:
        self.total += size
        # Doubles sort as their bytes do from zero on; a file of before 1970 is as old as can be.
        self.keys.append(_KEY.pack(max(used, 0.0), bytes.fromhex(sha256), size))

    def oldest_first(self) -> Iterator[tuple[str, int, float]]:
        self.keys.sort()
        for key in self.keys:
            used, sha256, size = _KEY.unpack(key)
            yield sha256.hex(), size, used


class Prune:
    """Pruning of one cache folder."""

    def __init__(self, layout: Layout, tally: Tally) -> None:
        self._layout = layout
        self._tally = tally

    def run(self, disk: Disk, limits: Limits, *, dry_run: bool = False) -> PruneReport:
        """Prune, and return what went. ``Cache.prune`` is the contract."""
        disk = disk.hurried()
        # Before the walk: what others add while it runs is in their own lines.
        estimate = self._tally.size(disk)
        removal = Removal(disk, self._layout, dry_run=dry_run)
        sweep = Sweep(removal)
        found = self._walk(removal, sweep)
        going = self._cut(removal, found, limits)
        sweep.pointers(lambda sha256: sha256 not in going and disk.stat(self._layout.entry(sha256)) is not None)
        sweep.run()
        if not dry_run:
            self._settle(disk, found.total - estimate, found.total, removal.shrunk)
        return removal.report()

    def remove(self, disk: Disk, chosen: dict[str, set[str] | None], *, dry_run: bool = False) -> PruneReport:
        """Take away entries by sha256, or those of their wheels that have one of the file names."""
        disk = disk.hurried()
        removal = Removal(disk, self._layout, dry_run=dry_run)
        gone = {sha256 for sha256, names in chosen.items() if removal.entry(sha256, names=names) and names is None}
        if gone:
            Sweep(removal).pointers(lambda sha256: sha256 not in gone)
        if not dry_run:
            self._settle(disk, 0, 0, removal.shrunk)
        return removal.report()

    def clear(self, disk: Disk, *, dry_run: bool = False) -> PruneReport:
        """Take away everything but the marks of the folder and what was counted."""
        disk = disk.hurried()
        removal = Removal(disk, self._layout, dry_run=dry_run)
        sweep = Sweep(removal, everything=True)
        trees = self._trees(removal)
        for entry in _inventory.walk(removal.disk, self._layout, removal.skip):
            if entry.names and entry.blobs:
                removal.entry(entry.sha256)
                trees.pop(entry.sha256, None)
            else:
                sweep.remains(entry)
        for sha256 in trees:
            removal.entry(sha256)  # those whose wheel went before
        sweep.pointers(lambda _: False)
        sweep.run()
        if not dry_run:
            self._settle(disk, 0, 0, self._tally.size(disk))
        return removal.report()

    def _walk(self, removal: Removal, sweep: Sweep) -> _Survey:
        found = _Survey()
        trees = self._trees(removal)
        for entry in _inventory.walk(removal.disk, self._layout, removal.skip):
            if entry.names and entry.blobs:
                size, used = trees.pop(entry.sha256, (0, 0.0))
                found.add(entry.sha256, entry.size + size, max(entry.used, used))
            else:
                sweep.remains(entry)
        for sha256, (size, used) in trees.items():
            found.add(sha256, size, used)  # its wheel went, and it is of use without
        return found

    def _trees(self, removal: Removal) -> dict[str, tuple[int, float]]:
        """Return the bytes and the last use of the trees of each wheel."""
        found: dict[str, tuple[int, float]] = {}
        try:
            for tree in removal.trees.all(removal.disk):
                size, used = found.get(tree.sha256, (0, 0.0))
                found[tree.sha256] = size + tree.size, max(used, tree.used)
        except CommitError as error:
            removal.skip(error.path or self._layout.trees, error)
        return found

    def _cut(self, removal: Removal, found: _Survey, limits: Limits) -> set[str]:
        """Take away what is over the limits, least recently used first; return the sha256 of what went."""
        keep = limits.keep or frozenset()
        unlimited = limits.max_size is None and limits.max_age is None
        if unlimited and limits.keep is None:
            return set()
        left = found.total
        latest = -math.inf if limits.max_age is None else removal.disk.system.now() - limits.max_age
        going: set[str] = set()
        for sha256, size, used in found.oldest_first():
            is_over = limits.max_size is not None and left > limits.max_size
            if not (unlimited or is_over or used < latest):
                break  # all that come are younger
            if sha256 not in keep and removal.entry(sha256, unused_since=used):
                going.add(sha256)
                left -= size
        return going

    def _settle(self, disk: Disk, drift: int, total: int, shrunk: int) -> None:
        """Write down what went, and put the running estimate right where it has drifted."""
        if abs(drift) > total * _DRIFT:
            self._tally.grew(drift)
        self._tally.grew(-shrunk)
        self._tally.tidy(disk)
