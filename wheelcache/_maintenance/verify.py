"""Check every file of a cache folder against its hash, and repair problems if possible.

Several threads check entries and trees, since hashlib releases the interpreter's lock while it hashes. Each thread
takes the next items from one walk. So the memory needed is that for the names of one shard and for one folder per
thread, regardless of the number of entries. :mod:`.suspects` explains why problems are checked again after the walk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._fs.small import read_small
from .._models import Phase
from .._operation import CancelToken
from .._reports import Action, Problem, ProblemKind, VerifyReport
from .._store.index import MAX_POINTER, digest_in_pointer
from .._store.layout import Layout, is_pointer_or_metadata
from .._store.walk import scan_folder, walk_digests, walk_shards
from .._threads import ThreadGroup, one_at_a_time
from .._unpack.trees import TreeStore
from .check_entry import check_entry
from .check_tree import check_tree
from .foreign import find_foreign
from .suspects import Suspect, remove_file, suspect_foreign, suspect_unreadable, suspect_unsafe

_MAX_THREADS = 8
# The number of items that a thread takes at a time. With a larger number, one thread might check the last large wheels
# alone.
_BATCH = 4
# The seconds that another process needs to finish creating or removing an entry.
_SETTLING_TIME = 0.25


class Verifier:
    """Verifies one cache folder.

    Args:
        layout: the paths of the folder.
        repair: whether to repair problems.
    """

    def __init__(self, layout: Layout, *, repair: bool) -> None:
        self._layout = layout
        self._repair = repair

    def verify(self, fs: RobustIO) -> VerifyReport:
        """Check all files, and return the problems. See ``Cache.verify``."""
        fs = RobustIO(fs.op.with_progress(one_at_a_time(fs.op.progress)))
        check = _ParallelCheck(fs, self._layout)
        suspects = check.run()
        suspects += self._check_foreign(fs.without_waiting())
        suspects += self._check_index(fs.without_waiting())
        if suspects:
            fs.op.sleep(_SETTLING_TIME)
        # The problems are collected in a set, because several checks may find the same file.
        problems = {problem for suspect in suspects if (problem := self._settle(fs, suspect)) is not None}
        explained = {problem.path for problem in problems if problem.kind is not ProblemKind.UNREADABLE}
        problems -= {p for p in problems if p.kind is ProblemKind.UNREADABLE and p.path in explained}
        return VerifyReport(check.checked, tuple(sorted(problems, key=lambda problem: (problem.path, problem.kind))))

    def _settle(self, fs: RobustIO, first: Suspect) -> Problem | None:
        """Check again, and repair the problem if requested. Return ``None`` if the problem no longer exists."""
        suspect = first.confirm(fs)
        if suspect is None:
            return None
        action = Action.NONE
        if self._repair:
            try:
                action = suspect.repair(fs)
            except CommitError:
                pass  # the report then contains no action
        digest = suspect.sha256 and f"sha256:{suspect.sha256}"
        return Problem(suspect.kind, Path(suspect.path), digest, action)

    def _check_foreign(self, fs: RobustIO) -> list[Suspect]:
        """Return the foreign files and folders, and the links and special files, outside entries and trees."""
        layout = self._layout
        unreadable: list[Suspect] = []
        strays = find_foreign(
            fs, layout, lambda path, error: unreadable.append(suspect_unreadable(layout, path, error))
        )
        found = [
            suspect_unsafe(layout, stray.path)
            if stray.is_unsafe
            else suspect_foreign(layout, stray.path, is_folder=stray.is_folder)
            for stray in strays
        ]
        return found + unreadable

    def _check_index(self, fs: RobustIO) -> list[Suspect]:
        """Return the pointers that are torn or unreadable or point to a missing entry."""
        found: list[Suspect] = []

        def on_error(path: str, error: CommitError) -> None:
            found.append(suspect_unreadable(self._layout, path, error))

        for shard in walk_shards(fs, self._layout.urls, on_error):
            for entry in scan_folder(fs, shard, on_error):
                if is_pointer_or_metadata(entry.name) and entry.is_file:
                    found += self._check_pointer(fs, os.path.join(shard, entry.name))
        return found

    def _check_pointer(self, fs: RobustIO, path: str) -> list[Suspect]:
        try:
            sha256 = digest_in_pointer(read_small(fs, path, MAX_POINTER))
            if sha256 is not None and fs.stat(self._layout.entry(sha256)) is not None:
                return []
        except CommitError as error:
            return [suspect_unreadable(self._layout, path, error)]
        kind = ProblemKind.TORN if sha256 is None else ProblemKind.ORPHANED
        return [Suspect(kind, path, repair=lambda fs: remove_file(fs, path))]


class _TreeFolder(NamedTuple):
    """The folder of a complete or incomplete tree."""

    path: str


class _ParallelCheck:
    """The check of all entries and trees by several threads.

    Attributes:
        checked: the number of entries and trees that were checked.
    """

    def __init__(self, fs: RobustIO, layout: Layout) -> None:
        self.checked = 0
        self._layout = layout
        self._suspects: list[Suspect] = []
        self._errors: list[BaseException] = []
        self._stop = CancelToken()
        self._fs = RobustIO(fs.op.with_token(self._stop))
        self._lock = threading.Lock()
        self._items = self._walk(self._fs.without_waiting())

    def run(self) -> list[Suspect]:
        """Check all items, and return the suspected problems.

        An exception in one thread ends all threads, and is raised.
        """
        threads = min(_MAX_THREADS, (os.cpu_count() or 1) + 1)
        ThreadGroup(self._work, threads, "wheelcache-verify").run(lambda _: self._stop.cancel())
        if self._errors:
            raise self._errors[0]
        return self._suspects

    def _walk(self, fs: RobustIO) -> Iterator[str | _TreeFolder]:
        """Yield the digest of each entry, then the folder of each tree."""
        trees = TreeStore(self._layout).iter_folders(fs, self._on_error)
        return chain(walk_digests(fs, self._layout, self._on_error), (_TreeFolder(path) for path, _ in trees))

    def _work(self) -> None:
        try:
            while items := self._take_items():
                for item in items:
                    self._suspects += self._check(item)
                    self._fs.op.report(Phase.CHECKING, detail=f"{self.checked} checked")
        except BaseException as error:
            self._errors.append(error)
            self._stop.cancel()
        finally:
            self._fs.close_folders()

    def _take_items(self) -> list[str | _TreeFolder]:
        with self._lock:
            items = list(islice(self._items, _BATCH))
            self.checked += len(items)
        return items

    def _check(self, item: str | _TreeFolder) -> list[Suspect]:
        if isinstance(item, _TreeFolder):
            return check_tree(self._fs, self._layout, item.path)
        return check_entry(self._fs, self._layout, item)

    def _on_error(self, path: str, error: CommitError) -> None:
        self._suspects.append(suspect_unreadable(self._layout, path, error))
