"""Reduce a cache to a size or an age, remove chosen entries, or remove everything.

One walk by names and file status finds the entries. The least recently used entries are removed, each with its wheels,
its tree and the pointers to it. An entry that was used after the walk is kept. Files in use are kept and reported.
There is no waiting for them, except for the short waits that :mod:`.removal` explains.

Any number of prunes may run at once, beside any other use of the cache. If a call is cancelled, every entry is either
complete or removed, and the removed bytes are subtracted from the counted size.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._options import PruneLimits
from .._reports import PruneReport
from .._store.counters import Counters
from .._store.layout import Layout
from .._store.walk import OnError, walk_entries
from .removal import Remover
from .sweep import Sweeper


class _Candidate(NamedTuple):
    """An entry with its trees, given by the last use in seconds since the epoch, the digest, and the size in bytes.

    The last use is the first field, so that candidates are sorted by it.
    """

    used: float
    sha256: str
    size: int


@dataclass
class _Survey:
    """The result of one walk.

    Attributes:
        remaining: the bytes of the entries that were found and still exist.
        gone: the bytes of the entries that were found and no longer exist, including those that other processes
            removed.
        is_incomplete: whether a folder could not be read.
        candidates: the entries.
    """

    remaining: int = 0
    gone: int = 0
    is_incomplete: bool = False
    candidates: list[_Candidate] = field(default_factory=list)

    def add(self, candidate: _Candidate) -> None:
        self.remaining += candidate.size
        self.candidates.append(candidate)

    def record_removal(self, candidate: _Candidate) -> None:
        self.remaining -= candidate.size
        self.gone += candidate.size


class Pruner:
    """Prunes one cache folder.

    Attributes:
        remaining: the bytes of wheels and trees that the last prune found and that still exist.
    """

    def __init__(self, layout: Layout, counters: Counters) -> None:
        self.remaining = 0
        self._layout = layout
        self._counters = counters

    def prune(self, fs: RobustIO, limits: PruneLimits, *, dry_run: bool = False) -> PruneReport:
        """Remove the entries over the limits, and old leftovers. See ``Cache.prune``."""
        fs = fs.without_waiting()
        added_before = self._counters.added(fs)
        remover = Remover(fs, self._layout, dry_run=dry_run)
        sweeper = Sweeper(remover)
        try:
            survey = self._survey(remover, sweeper)
            removed = self._remove_over_limits(remover, survey, limits)
            sweeper.sweep_index(lambda sha256: sha256 not in removed and _has_folder(fs, self._layout, sha256))
            sweeper.sweep()
        except BaseException:
            self._count_removed(remover)
            raise
        self._record_size(remover, survey, added_before)
        self.remaining = survey.remaining
        return remover.report()

    def remove(self, fs: RobustIO, chosen: dict[str, set[str] | None], *, dry_run: bool = False) -> PruneReport:
        """Remove entries by sha256, or only their wheels with these names. See ``Cache.remove``."""
        fs = fs.without_waiting()
        remover = Remover(fs, self._layout, dry_run=dry_run)
        removed: set[str] = set()
        try:
            for sha256, filenames in chosen.items():
                if remover.remove_entry(sha256, filenames=filenames) and filenames is None:
                    removed.add(sha256)
            if removed:
                Sweeper(remover).sweep_index(lambda sha256: sha256 not in removed)
        finally:
            self._count_removed(remover)
        return remover.report()

    def clear(self, fs: RobustIO, *, dry_run: bool = False) -> PruneReport:
        """Remove everything except the counters and the marks of the folder. See ``Cache.clear``."""
        fs = fs.without_waiting()
        added_before = self._counters.added(fs)
        remover = Remover(fs, self._layout, dry_run=dry_run)
        sweeper = Sweeper(remover, everything=True)
        try:
            survey = self._survey(remover, sweeper)
            for candidate in sorted(survey.candidates):
                if remover.remove_entry(candidate.sha256):
                    survey.record_removal(candidate)
            sweeper.sweep_index(lambda _: False)
            sweeper.sweep()
            remover.skip_remaining_foreign()
        except BaseException:
            self._count_removed(remover)
            raise
        self._record_size(remover, survey, added_before)
        return remover.report()

    def _survey(self, remover: Remover, sweeper: Sweeper) -> _Survey:
        """Walk the cache, and remove incomplete entries."""
        survey = _Survey()

        def on_error(path: str, error: CommitError) -> None:
            survey.is_incomplete = remover.handle_error(path, error) or survey.is_incomplete

        trees = self._find_trees(remover, on_error)
        for entry in walk_entries(remover.fs, self._layout, on_error):
            sweeper.sweep_entry(entry)
            if not (entry.names and entry.blobs):
                sweeper.sweep_incomplete_entry(entry)
                continue
            if entry.used > remover.future:
                remover.reset_use(*(self._layout.record(entry.sha256, name) for name in entry.names))
            size, used = trees.pop(entry.sha256, (0, 0.0))
            survey.add(_Candidate(max(entry.used, used), entry.sha256, entry.size + size))
        for sha256, (size, used) in trees.items():
            survey.add(_Candidate(used, sha256, size))  # a tree remains usable after its wheel was removed
        return survey

    def _find_trees(self, remover: Remover, on_error: OnError) -> dict[str, tuple[int, float]]:
        """Return the size and the last use of the trees of each wheel, by sha256."""
        found: dict[str, tuple[int, float]] = {}
        for tree in remover.trees.iter_trees(remover.fs, on_error):
            if tree.used > remover.future:
                remover.reset_use(tree.marker)
            size, used = found.get(tree.sha256, (0, 0.0))
            found[tree.sha256] = size + tree.size, max(used, tree.used)
        return found

    def _remove_over_limits(self, remover: Remover, survey: _Survey, limits: PruneLimits) -> Collection[str]:
        """Remove the entries that exceed the limits, least recently used first, and return the sha256 of each."""
        keep = limits.keep or frozenset()
        is_unlimited = limits.max_size is None and limits.max_age is None
        if is_unlimited and limits.keep is None:
            return ()
        oldest_use = -math.inf if limits.max_age is None else remover.fs.system.now() - limits.max_age
        removed: set[str] = set()
        for candidate in sorted(survey.candidates):
            is_over_size = limits.max_size is not None and survey.remaining > limits.max_size
            if not (is_unlimited or is_over_size or candidate.used < oldest_use):
                break  # entries are sorted by last use, so the rest is newer
            if candidate.sha256 not in keep and remover.remove_entry(candidate.sha256, unused_since=candidate.used):
                removed.add(candidate.sha256)
                survey.record_removal(candidate)
        return removed

    def _count_removed(self, remover: Remover) -> None:
        """Subtract the removed bytes from the counted size."""
        if not remover.dry_run:
            self._counters.add_growth(-remover.shrunk)
            self._counters.write(remover.fs.for_cleanup())

    def _record_size(self, remover: Remover, survey: _Survey, added_before: int) -> None:
        """Record the size of the cache. ``added_before`` is the counter of added bytes when the walk began.

        The walk may or may not have found the bytes that were added since then, so they are counted again. An estimate
        that is too high only causes an early walk. One that is too low prevents a necessary walk.
        """
        if remover.dry_run:
            return
        fs = remover.fs.for_cleanup()
        size = survey.remaining + max(self._counters.added(fs) - added_before, 0)
        if survey.is_incomplete:
            size = max(size, self._counters.size(fs) - survey.gone)
        self._counters.record_size(fs, size)


def _has_folder(fs: RobustIO, layout: Layout, sha256: str) -> bool:
    return fs.stat(layout.entry(sha256)) is not None
