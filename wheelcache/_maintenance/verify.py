"""Verify: looking at every byte of a cache folder, and putting right what can be.

Several threads hash at once, since hashlib lets go of the interpreter while it works. They draw entries from one walk,
so that memory holds a folder for each thread and one shard's names, however many entries there are. Who draws looks at
what is small at once, and hands out what is large or not plainly sound: see :mod:`._crew`.

What looks wrong is looked at twice, the second time when the walk is over: a wheel that is being committed beside has
its blob before its record, one that is being removed its record after its blob, and a tree loses its files one by one.
A record is made in its place, and is torn until it is written.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .._exceptions import CommitError
from .._fs.robustio import RobustIO, hash_file
from .._fs.tempnames import OwnerTag
from .._reports import Action, Problem, ProblemKind, VerifyReport
from .._store import walk
from .._store.index import digest_in_pointer
from .._store.layout import Layout, is_blob, is_note, is_record, marker_path
from .._store.quarantine import quarantine_file
from .._store.records import Record, StatFingerprint, decode_record, write_record
from .._store.walk import Blob, EntryFolder
from .._threads import one_at_a_time
from .._unpack.trees import Trees, remove_folder
from .crew import Crew, TreeFolder, about
from .foreign import foreign_files, in_tree
from .sweep import TEMPORARY_AGE

# Seconds in which who is just making or removing something is done with it; in a small cache nothing else goes by.
_MOMENT = 0.25


@dataclass(frozen=True)
class _Suspect:
    """Something that looks wrong, what may be done about it, and how to look again where that is not at the entry."""

    kind: ProblemKind
    path: str
    sha256: str | None = None
    repair: Callable[[RobustIO], Action] = lambda _: Action.NONE
    again: Callable[[RobustIO], list[_Suspect]] | None = None

    def same_as(self, other: _Suspect) -> bool:
        """Whether both tell of the same."""
        return (self.kind, self.path) == (other.kind, other.path)


class Verifier:
    """The verification of one cache folder.

    Args:
        layout: its paths.
        repair: whether to put right what can be.
    """

    def __init__(self, layout: Layout, *, repair: bool) -> None:
        self._layout = layout
        self._repair = repair

    def run(self, fs: RobustIO) -> VerifyReport:
        """Look at everything, and return what is wrong. ``Cache.verify`` is the contract."""
        fs = RobustIO(fs.op.with_progress(one_at_a_time(fs.op.progress)))
        crew = Crew(fs, self._layout, self._check_one, lambda folder: _Suspect(ProblemKind.UNREADABLE, folder))
        suspects = crew.run()
        suspects += self._foreign(fs)
        suspects += self._pointers(fs)
        if suspects:
            fs.op.sleep(_MOMENT)
        # What holds several things is looked into for each of them, and told of once.
        problems = {problem for suspect in suspects if (problem := self._settle(fs, suspect)) is not None}
        return VerifyReport(crew.checked, tuple(sorted(problems, key=lambda problem: (problem.path, problem.kind))))

    def _settle(self, fs: RobustIO, first: _Suspect) -> Problem | None:
        """Look again, and do what may be done; ``None`` where nothing is wrong any more."""
        suspect = next((one for one in self._again(fs, first) if one.same_as(first)), None)
        if suspect is None:
            return None
        action = Action.NONE
        if self._repair:
            try:
                action = suspect.repair(fs)
            except CommitError:
                pass  # it cannot be done just now: that is what the report says
        digest = suspect.sha256 and f"sha256:{suspect.sha256}"
        return Problem(suspect.kind, Path(suspect.path), digest, action)

    def _again(self, fs: RobustIO, suspect: _Suspect) -> list[_Suspect]:
        try:
            if suspect.again is not None:
                return suspect.again(fs)
            return [suspect] if suspect.sha256 is None else self._check(fs, suspect.sha256)
        except CommitError:
            return [suspect]

    def _check_one(self, fs: RobustIO, what: str | TreeFolder) -> list[_Suspect]:
        return self._check(fs, what) if isinstance(what, str) else self._check_tree(fs, what.path)

    # One entry

    def _check(self, fs: RobustIO, sha256: str) -> list[_Suspect]:
        """Return what is wrong in the folder of a sha256."""
        fs = fs.without_waiting()
        try:
            entry = walk.scan_entry(fs, self._layout, sha256)
        except CommitError as error:
            return [_Suspect(ProblemKind.UNREADABLE, error.path or self._layout.entry(sha256), sha256)]
        if entry is None:
            return []
        hashed: dict[int, str | None] = {}
        suspects: list[_Suspect] = []
        described: set[str] = set()
        for name in entry.names:
            suspects += self._wheel(fs, entry, name, hashed, described)
        for blob in entry.blobs:
            if blob.path not in described:
                suspects += self._orphan(fs, entry, blob, hashed)
        # First: a record may have no place but that of a stranger.
        return self._strangers(entry) + suspects

    def _wheel(
        self, fs: RobustIO, entry: EntryFolder, name: str, hashed: dict[int, str | None], described: set[str]
    ) -> list[_Suspect]:
        path = self._layout.record(entry.sha256, name)
        try:
            data = fs.without_waiting().read(path)
        except CommitError:
            described.update(blob.path for blob in entry.blobs if blob.filename == name)
            return [_Suspect(ProblemKind.UNREADABLE, path, entry.sha256)]
        record = None if data is None else decode_record(data, entry.sha256)
        if record is None or record.filename.lower() != name.lower():
            # The blob beside it is told with it, and not once more as an orphan.
            mine = [blob for blob in entry.blobs if blob.filename == name]
            described.update(blob.path for blob in mine)
            torn = _Suspect(
                ProblemKind.TORN, path, entry.sha256, lambda fs: self._record_again(fs, entry, path, mine, hashed)
            )
            return [torn, *(one for blob in mine for one in self._bytes(fs, entry, blob, hashed))]
        where = self._described(record)
        blob = next((blob for blob in entry.blobs if blob.path == where), None)
        if blob is None:
            return [_Suspect(ProblemKind.MISSING, where, entry.sha256, lambda fs: _removed(fs, path))]
        described.add(blob.path)
        if blob.size != record.size:
            return [
                _Suspect(
                    ProblemKind.SHORT if blob.size < record.size else ProblemKind.ALTERED,
                    blob.path,
                    entry.sha256,
                    lambda fs: self._put_blob_aside(fs, entry, blob, path),
                )
            ]
        return self._bytes(fs, entry, blob, hashed)

    def _bytes(self, fs: RobustIO, entry: EntryFolder, blob: Blob, hashed: dict[int, str | None]) -> list[_Suspect]:
        try:
            found = self._hash(fs, blob, hashed)
        except CommitError:
            return [_Suspect(ProblemKind.UNREADABLE, blob.path, entry.sha256)]
        if found in {None, entry.sha256}:
            return []
        record = self._layout.record(entry.sha256, blob.filename)
        return [
            _Suspect(
                ProblemKind.ALTERED,
                blob.path,
                entry.sha256,
                lambda fs: self._put_blob_aside(fs, entry, blob, record),
            )
        ]

    def _orphan(self, fs: RobustIO, entry: EntryFolder, blob: Blob, hashed: dict[int, str | None]) -> list[_Suspect]:
        wrong = self._bytes(fs, entry, blob, hashed)
        if wrong:
            return wrong
        record = self._layout.record(entry.sha256, blob.filename)

        def repair(fs: RobustIO) -> Action:
            # Of two good ones of one name the record can have one, and would go from one to the other for ever.
            if self._has_good_twin(fs, entry, blob, hashed):
                return _twin_removed(fs, entry, blob)
            return self._record_again(fs, entry, record, [blob], hashed)

        return [_Suspect(ProblemKind.ORPHANED, blob.path, entry.sha256, repair)]

    def _has_good_twin(self, fs: RobustIO, entry: EntryFolder, blob: Blob, hashed: dict[int, str | None]) -> bool:
        """Whether the record of a blob's name describes another one, of the right bytes."""
        known = self._known(fs, entry, self._layout.record(entry.sha256, blob.filename))
        where = blob.path if known is None else self._described(known)
        twin = next((other for other in entry.blobs if other.path == where and other is not blob), None)
        if known is None or twin is None or twin.size != known.size:
            return False
        try:
            return self._hash(fs, twin, hashed) == entry.sha256
        except CommitError:
            return False

    def _hash(self, fs: RobustIO, blob: Blob, hashed: dict[int, str | None]) -> str | None:
        """Return the sha256 of a blob, of each file once whatever its names; ``None`` where it is gone."""
        if blob.inode not in hashed:
            named = about(fs, blob.filename)
            hashes = hash_file(named, blob.path, (), blob.size)
            hashed[blob.inode] = None if hashes is None else hashes["sha256"]
        return hashed[blob.inode]

    def _strangers(self, entry: EntryFolder) -> list[_Suspect]:
        # A probe of the ladder may have been left over; it says whose it is, and prune sweeps it.
        files = [path for path in entry.others if OwnerTag.of(os.path.basename(path)) is None]
        found = [self._stranger(path, sha256=entry.sha256) for path in files]
        found += [self._stranger(path, sha256=entry.sha256, is_folder=True) for path in entry.folders]
        return found

    # One tree

    def _check_tree(self, fs: RobustIO, folder: str) -> list[_Suspect]:
        """Return what is wrong in the folder of an unpacked wheel."""
        trees, fs = Trees(self._layout, writable=False, full=True), fs.without_waiting()
        seen: list[list[_Suspect]] = []

        def again(fs: RobustIO) -> list[_Suspect]:
            # One look for all that is wrong in it: whoever pruned it meanwhile took all of it.
            if not seen:
                seen.append(self._check_tree(fs, folder))
            return seen[0]

        try:
            tree = trees.at(fs, folder)
            if tree is None:
                return [replace(one, again=again) for one in self._no_tree(fs, folder)]
            is_there = fs.files.is_dir(folder)
            damaged = trees.check(fs, tree, bytes_only=True) if is_there else [folder]
            found = [(_damage(fs, path), path) for path in damaged]
            # Else they go with it.
            foreign = [] if damaged else list(in_tree(fs, folder, tree.listing))
        except CommitError as error:
            return [_Suspect(ProblemKind.UNREADABLE, error.path or folder, again=again)]

        def remove(fs: RobustIO) -> Action:
            return Action.REMOVED if Trees(self._layout, writable=True).remove(fs, tree) else Action.NONE

        return [
            *(_Suspect(kind, path, tree.sha256, remove, again) for kind, path in found),
            *(replace(self._stranger(path), sha256=tree.sha256, again=again) for path in foreign),
        ]

    def _no_tree(self, fs: RobustIO, folder: str) -> list[_Suspect]:
        """Return what is wrong where nothing says what a folder holds: somebody may be filling it just now."""
        marker = marker_path(folder)
        if fs.stat(marker) is not None:
            return [_Suspect(ProblemKind.TORN, marker, repair=lambda fs: _removed(fs, marker))]
        stat = fs.stat(folder)
        if stat is None or fs.system.now() - stat.st_mtime <= TEMPORARY_AGE:
            return []

        def remove(fs: RobustIO) -> Action:
            return Action.REMOVED if remove_folder(fs, folder) else Action.NONE

        return [_Suspect(ProblemKind.ORPHANED, folder, repair=remove)]

    # Elsewhere

    def _foreign(self, fs: RobustIO) -> Iterator[_Suspect]:
        """Yield what stands between the folders that wheelcache makes."""
        unreadable: list[_Suspect] = []

        def refused(folder: str, _: CommitError) -> None:
            unreadable.append(_Suspect(ProblemKind.UNREADABLE, folder))

        for path, is_folder in foreign_files(fs.without_waiting(), self._layout, refused):
            yield self._stranger(path, is_folder=is_folder)
        yield from unreadable

    def _stranger(self, path: str, *, sha256: str | None = None, is_folder: bool = False) -> _Suspect:
        def again(fs: RobustIO) -> list[_Suspect]:
            return [] if fs.stat(path) is None else [suspect]

        def quarantine_file(fs: RobustIO) -> Action:
            # No folder is ever renamed, and deleting is not ours to decide. A link to one may be how others get there.
            if is_folder or fs.files.is_dir(path):
                return _out_of_the_way(fs, path)
            return self._put_aside(fs, path)

        suspect = _Suspect(ProblemKind.FOREIGN, path, sha256, quarantine_file, again)
        return suspect

    def _pointers(self, fs: RobustIO) -> Iterator[_Suspect]:
        without_waiting = fs.without_waiting()
        unreadable: list[_Suspect] = []

        def refused(folder: str, _: CommitError) -> None:
            unreadable.append(_Suspect(ProblemKind.UNREADABLE, folder))

        for shard in walk.walk_shards(without_waiting, self._layout.urls, refused):
            for entry in walk.scan_folder(without_waiting, shard, refused):
                path = os.path.join(shard, entry.name)
                is_ours = is_note(entry.name) and entry.is_file(follow_symlinks=False)
                kind = self._pointer_problem(without_waiting, path) if is_ours else None
                if kind is not None:
                    yield _Suspect(kind, path, None, lambda fs, path=path: _removed(fs, path))  # type: ignore[misc]
        yield from unreadable

    def _pointer_problem(self, fs: RobustIO, path: str) -> ProblemKind | None:
        try:
            sha256 = digest_in_pointer(fs.read(path))
            if sha256 is None:
                return ProblemKind.TORN
            return ProblemKind.ORPHANED if fs.stat(self._layout.entry(sha256)) is None else None
        except CommitError:
            return ProblemKind.UNREADABLE

    # Repair

    def _put_aside(self, fs: RobustIO, path: str, looked_at: os.stat_result | None = None) -> Action:
        """Put a file aside as it was when it was looked at; a stranger as it is."""
        looked_at = looked_at or fs.stat(path)
        if looked_at is None or not quarantine_file(fs, self._layout, path, looked_at):
            return Action.NONE
        return Action.QUARANTINED

    def _put_blob_aside(self, fs: RobustIO, entry: EntryFolder, blob: Blob, record: str) -> Action:
        """Put a damaged blob aside, with the record that describes it."""
        action = self._put_aside(fs, blob.path, blob.stat)
        # Where a good one has come in its place, or stands in another place, the record is that one's.
        if action is Action.QUARANTINED and fs.stat(blob.path) is None:
            known = self._known(fs, entry, record)
            if known is not None and self._described(known) == blob.path:
                fs.discard(record)
        return action

    def _known(self, fs: RobustIO, entry: EntryFolder, path: str) -> Record | None:
        """Return what a record says, ``None`` where it says nothing or cannot be read just now."""
        try:
            data = fs.without_waiting().read(path)
        except CommitError:
            return None
        return None if data is None else decode_record(data, entry.sha256)

    def _described(self, record: Record) -> str:
        """Return the path of the blob that a record describes."""
        return self._layout.blob(record.sha256, record.filename, record.place)

    def _record_again(
        self, fs: RobustIO, entry: EntryFolder, path: str, blobs: list[Blob], hashed: dict[int, str | None]
    ) -> Action:
        """Write the record of a blob whose bytes are right; without such a blob the record goes."""
        for blob in blobs:
            stat = fs.stat(blob.path)
            if stat is None or not modes.S_ISREG(stat.st_mode) or self._hash(fs, blob, hashed) != entry.sha256:
                continue
            system = fs.system
            seen = StatFingerprint(stat.st_mtime_ns, stat.st_ino, system.boot())
            place = self._layout.place(entry.sha256, blob.path)
            record = Record(blob.filename, entry.sha256, stat.st_size, seen, created=int(system.now()), place=place)
            write_record(fs.without_waiting(), self._layout, record, entry.used or entry.changed)
            return Action.ADOPTED
        return _removed(fs, path)


def _out_of_the_way(fs: RobustIO, folder: str) -> Action:
    """Take away a folder in the place of a file, which has no other, if there is nothing in it to decide about."""
    name = os.path.basename(folder)
    stat = fs.stat(folder) if is_record(name) or is_blob(name) else None
    is_gone = stat is not None and modes.S_ISDIR(stat.st_mode) and fs.remove_folder(folder)
    return Action.REMOVED if is_gone else Action.NONE


def _twin_removed(fs: RobustIO, entry: EntryFolder, blob: Blob) -> Action:
    action = _removed(fs, blob.path)
    folder = os.path.dirname(blob.path)
    if folder != entry.folder:
        fs.remove_folder(folder)
    return action


def _damage(fs: RobustIO, path: str) -> ProblemKind:
    is_there = fs.files.is_dir(os.path.dirname(path)) and fs.stat(path) is not None
    return ProblemKind.ALTERED if is_there else ProblemKind.MISSING


def _removed(fs: RobustIO, path: str) -> Action:
    return Action.REMOVED if fs.discard(path) else Action.NONE
