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
from typing import NamedTuple, TypeAlias

from .._exceptions import CommitError
from .._fs.robustio import RobustIO
from .._fs.small import read_small
from .._models import Phase
from .._operation import CancelToken
from .._reports import Action, Problem, ProblemKind, VerifyReport
from .._store.index import MAX_POINTER, digest_in_pointer, leads_from_url
from .._store.layout import Layout, is_pointer_or_metadata, pointer_stem
from .._store.walk import scan_folder, walk_digests, walk_shards
from .._threads import ThreadGroup, one_at_a_time
from .._unpack.trees import TreeStore
from .check_entry import check_entry, has_named_hash
from .check_tree import check_tree
from .foreign import find_foreign
from .suspects import Suspect, remove_file, suspect_foreign, suspect_unreadable, suspect_unsafe

_MAX_THREADS = 8
# The number of items that a thread takes at a time. With a larger number, one thread might check the last large wheels
# alone.
_BATCH = 4
# The seconds that another process needs to finish creating or removing an entry.
_SETTLING_TIME = 0.25

_Item: TypeAlias = "str | _TreeFolder | _Pointer"


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


class _TreeFolder(NamedTuple):
    """The folder of a complete or incomplete tree."""

    path: str


class _Pointer(NamedTuple):
    """A file in the index, and its shard."""

    path: str
    shard: str


class _ParallelCheck:
    """The check of all entries, trees and pointers by several threads.

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

    def _walk(self, fs: RobustIO) -> Iterator[_Item]:
        """Yield the digest of each entry, then the folder of each tree, then the path of each pointer."""
        trees = TreeStore(self._layout).iter_folders(fs, self._on_error)
        return chain(
            walk_digests(fs, self._layout, self._on_error),
            (_TreeFolder(path) for path, _ in trees),
            self._walk_pointers(fs),
        )

    def _walk_pointers(self, fs: RobustIO) -> Iterator[_Pointer]:
        for shard in walk_shards(fs, self._layout.urls, self._on_error):
            for entry in scan_folder(fs, shard, self._on_error):
                if is_pointer_or_metadata(entry.name) and entry.is_file:
                    yield _Pointer(os.path.join(shard, entry.name), os.path.basename(shard))

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

    def _take_items(self) -> list[_Item]:
        with self._lock:
            items = list(islice(self._items, _BATCH))
            self.checked += sum(not isinstance(item, _Pointer) for item in items)
        return items

    def _check(self, item: _Item) -> list[Suspect]:
        if isinstance(item, _TreeFolder):
            return check_tree(self._fs, self._layout, item.path)
        if isinstance(item, _Pointer):
            return self._check_pointer(self._fs.without_waiting(), item)
        return check_entry(self._fs, self._layout, item)

    def _check_pointer(self, fs: RobustIO, pointer: _Pointer) -> list[Suspect]:
        """Check that a pointer can be parsed, and that it leads to a wheel with the hash that it is named after.

        The pointer of a URL has no hash that could be compared, because its name is that of the URL.
        """
        path = pointer.path
        try:
            data = read_small(fs, path, MAX_POINTER)
            sha256 = digest_in_pointer(data)
            if sha256 is None:
                kind = ProblemKind.TORN
            elif fs.stat(self._layout.entry(sha256)) is None:
                kind = ProblemKind.ORPHANED
            elif leads_from_url(data) or has_named_hash(fs, self._layout, sha256, pointer.shard + pointer_stem(path)):
                return []
            else:
                kind = ProblemKind.ALTERED
        except CommitError as error:
            return [suspect_unreadable(self._layout, path, error)]
        return [Suspect(kind, path, repair=lambda fs: remove_file(fs, path))]

    def _on_error(self, path: str, error: CommitError) -> None:
        self._suspects.append(suspect_unreadable(self._layout, path, error))
