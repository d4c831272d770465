"""Verify: looking at every byte of a cache folder, and putting right what can be.

Several threads hash at once, since hashlib lets go of the interpreter while it works. They draw entries from one walk,
so that memory holds a folder for each thread and one shard's names, however many entries there are. Who draws looks at
what is small at once, and hands out what is large or not plainly sound: see :class:`_Crew`.

What looks wrong is looked at twice, the second time when the walk is over: a wheel that is being committed beside has
its blob before its record, and one that is being removed its record after its blob.
"""

from __future__ import annotations

import os
import stat as modes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from . import _inventory
from ._call import Call
from ._digest import sha256_of
from ._disk import Disk
from ._errors import CommitError
from ._inventory import Blob, Entry
from ._layout import Layout, Stamp
from ._lookup import hash_file, put_aside, write_record
from ._pointers import target_of
from ._progress import Phase, ProgressEvent
from ._record import Record, Seen, decode_record
from ._reports import Action, Problem, ProblemKind, VerifyReport
from ._tree import TreeEntry, Trees

_MOST_THREADS = 8
# Hashing so many bytes takes about as long as giving them to another thread.
_SMALL = 1 << 16
# Seconds for a small entry after which waiting, and not working, is what takes them; entries that are measured
# together, so that a pause of the machine does not count; and entries until it is measured again.
_LONG = 0.0005
_ROUND = 32
_SLOW_ROUND = 1024


@dataclass(frozen=True)
class _Suspect:
    """Something that looks wrong, and what may be done about it."""

    kind: ProblemKind
    path: str
    sha256: str | None = None
    repair: Callable[[Call], Action] = lambda _: Action.NONE
    is_final: bool = False

    def same_as(self, other: _Suspect) -> bool:
        """Whether both tell of the same."""
        return (self.kind, self.path) == (other.kind, other.path)


class Verify:
    """The verification of one cache folder.

    Args:
        layout: its paths.
        repair: whether to put right what can be.
    """

    def __init__(self, layout: Layout, *, repair: bool) -> None:
        self._layout = layout
        self._repair = repair

    def run(self, call: Call) -> VerifyReport:
        """Look at everything, and return what is wrong. ``Cache.verify`` is the contract."""
        call = _one_at_a_time(call)
        crew = _Crew(call, self._layout, self._check_one)
        suspects = crew.run()
        suspects += self._foreign(call.disk)
        suspects += self._pointers(call.disk)
        problems = [problem for suspect in suspects if (problem := self._settle(call, suspect)) is not None]
        return VerifyReport(crew.checked, tuple(sorted(problems, key=lambda problem: (problem.path, problem.kind))))

    def _settle(self, call: Call, suspect: _Suspect) -> Problem | None:
        """Look again, and do what may be done; ``None`` where nothing is wrong any more."""
        if suspect.sha256 is not None and not suspect.is_final:
            again = [one for one in self._check(call, suspect.sha256) if one.same_as(suspect)]
            if not again:
                return None
            suspect = again[0]
        action = Action.NONE
        if self._repair:
            try:
                action = suspect.repair(call)
            except CommitError:
                pass  # it cannot be done just now: that is what the report says
        digest = suspect.sha256 and f"sha256:{suspect.sha256}"
        return Problem(suspect.kind, Path(suspect.path), digest, action)

    def _check_one(self, call: Call, what: str | TreeEntry) -> list[_Suspect]:
        return self._check(call, what) if isinstance(what, str) else self._check_tree(call, what)

    # One entry

    def _check(self, call: Call, sha256: str) -> list[_Suspect]:
        """Return what is wrong in the folder of a sha256."""
        disk = call.disk.hurried()
        try:
            entry = _inventory.look(disk, self._layout, sha256)
        except CommitError as error:
            return [_Suspect(ProblemKind.UNREADABLE, error.path or self._layout.entry(sha256), sha256)]
        if entry is None:
            return []
        hashed: dict[int, str | None] = {}
        suspects: list[_Suspect] = []
        described: set[str] = set()
        for name in entry.names:
            suspects += self._wheel(call, entry, name, hashed, described)
        for blob in entry.blobs:
            if blob.path not in described:
                suspects += self._orphan(call, entry, blob, hashed)
        return suspects + self._strangers(entry)

    def _wheel(
        self, call: Call, entry: Entry, name: str, hashed: dict[int, str | None], described: set[str]
    ) -> list[_Suspect]:
        path = self._layout.record(entry.sha256, name)
        try:
            data = call.disk.hurried().read(path)
        except CommitError:
            described.update(blob.path for blob in entry.blobs if blob.filename == name)
            return [_Suspect(ProblemKind.UNREADABLE, path, entry.sha256)]
        record = None if data is None else decode_record(data, entry.sha256)
        if record is None or record.filename.lower() != name.lower():
            # The blob beside it is told with it, and not once more as an orphan.
            mine = [blob for blob in entry.blobs if blob.filename == name]
            described.update(blob.path for blob in mine)
            torn = _Suspect(
                ProblemKind.TORN, path, entry.sha256, lambda call: self._record_again(call, entry, path, mine, hashed)
            )
            return [torn, *(one for blob in mine for one in self._bytes(call, entry, blob, hashed))]
        where = self._layout.blob(entry.sha256, record.filename, record.place)
        blob = next((blob for blob in entry.blobs if blob.path == where), None)
        if blob is None:
            return [_Suspect(ProblemKind.MISSING, where, entry.sha256, lambda call: _removed(call, path))]
        described.add(blob.path)
        if blob.size != record.size:
            return [
                _Suspect(
                    ProblemKind.SHORT if blob.size < record.size else ProblemKind.ALTERED,
                    blob.path,
                    entry.sha256,
                    lambda call: self._put_aside(call, where, blob.stat, path),
                )
            ]
        return self._bytes(call, entry, blob, hashed)

    def _bytes(self, call: Call, entry: Entry, blob: Blob, hashed: dict[int, str | None]) -> list[_Suspect]:
        try:
            found = self._hash(call, blob, hashed)
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
                lambda call: self._put_aside(call, blob.path, blob.stat, record),
            )
        ]

    def _orphan(self, call: Call, entry: Entry, blob: Blob, hashed: dict[int, str | None]) -> list[_Suspect]:
        wrong = self._bytes(call, entry, blob, hashed)
        if wrong:
            return wrong
        record = self._layout.record(entry.sha256, blob.filename)
        return [
            _Suspect(
                ProblemKind.ORPHANED,
                blob.path,
                entry.sha256,
                lambda call: self._record_again(call, entry, record, [blob], hashed),
            )
        ]

    def _hash(self, call: Call, blob: Blob, hashed: dict[int, str | None]) -> str | None:
        """Return the sha256 of a blob, of each file once whatever its names; ``None`` where it is gone."""
        if blob.inode not in hashed:
            named = _about(call, blob.filename)
            hashes = hash_file(named, blob.path, (), blob.size)
            hashed[blob.inode] = None if hashes is None else hashes["sha256"]
        return hashed[blob.inode]

    def _strangers(self, entry: Entry) -> list[_Suspect]:
        # A probe of the ladder may have been left over; it says whose it is, and prune sweeps it.
        return [
            _Suspect(ProblemKind.FOREIGN, path, entry.sha256, lambda call, path=path: self._put_aside(call, path))  # type: ignore[misc]
            for path in entry.others
            if Stamp.of(os.path.basename(path)) is None
        ]

    # One tree

    def _check_tree(self, call: Call, tree: TreeEntry) -> list[_Suspect]:
        """Return what is wrong in an unpacked wheel. It is made whole before its marker, so one look is enough."""
        try:
            paths = Trees(self._layout, writable=False, full=True).check(call, tree)
        except CommitError as error:
            return [_Suspect(ProblemKind.UNREADABLE, error.path or tree.folder, tree.sha256, is_final=True)]

        def repair(call: Call) -> Action:
            return Action.REMOVED if Trees(self._layout, writable=True).remove(call.disk, tree) else Action.NONE

        disk = call.disk.hurried()
        return [
            _Suspect(
                ProblemKind.MISSING if disk.stat(path) is None else ProblemKind.ALTERED,
                path,
                tree.sha256,
                repair,
                is_final=True,
            )
            for path in paths
        ]

    # Elsewhere

    def _foreign(self, disk: Disk) -> list[_Suspect]:
        """Return what stands between the folders that wheelcache makes."""
        layout, hurried = self._layout, disk.hurried()
        suspects = [
            self._stranger(layout.version, entry)
            for entry in hurried.scan(layout.version)
            if entry.name not in layout.own_names() and not layout.is_sealed_tally(entry.name)
        ]
        for shard in hurried.scan(layout.wheels):
            if not shard.is_dir(follow_symlinks=False):
                suspects.append(self._stranger(layout.wheels, shard))
                continue
            folder = os.path.join(layout.wheels, shard.name)
            try:
                entries = hurried.scan(folder)
            except CommitError:
                suspects.append(_Suspect(ProblemKind.UNREADABLE, folder))
                continue
            suspects += [
                self._stranger(folder, entry)
                for entry in entries
                if not entry.is_dir(follow_symlinks=False) or layout.digest_of(shard.name, entry.name) is None
            ]
        return suspects

    def _stranger(self, folder: str, entry: os.DirEntry[str]) -> _Suspect:
        path = os.path.join(folder, entry.name)
        if entry.is_dir(follow_symlinks=False):
            return _Suspect(ProblemKind.FOREIGN, path)  # no folder is ever renamed, and deleting is not ours to decide
        return _Suspect(ProblemKind.FOREIGN, path, None, lambda call: self._put_aside(call, path))

    def _pointers(self, disk: Disk) -> Iterator[_Suspect]:
        hurried = disk.hurried()
        for shard in hurried.scan(self._layout.urls):
            if not shard.is_dir(follow_symlinks=False):
                yield self._stranger(self._layout.urls, shard)
                continue
            folder = os.path.join(self._layout.urls, shard.name)
            for entry in hurried.scan(folder):
                path = os.path.join(folder, entry.name)
                kind = self._pointer_problem(hurried, path)
                if kind is not None:
                    yield _Suspect(kind, path, None, lambda call, path=path: _removed(call, path))  # type: ignore[misc]

    def _pointer_problem(self, disk: Disk, path: str) -> ProblemKind | None:
        try:
            sha256 = target_of(disk.read(path))
            if sha256 is None:
                return ProblemKind.TORN
            return ProblemKind.ORPHANED if disk.stat(self._layout.entry(sha256)) is None else None
        except CommitError:
            return ProblemKind.UNREADABLE

    # Repair

    def _put_aside(
        self, call: Call, path: str, looked_at: os.stat_result | None = None, record: str | None = None
    ) -> Action:
        """Put a file aside as it was when it was looked at; a stranger as it is."""
        looked_at = looked_at or call.disk.stat(path)
        if looked_at is None or not put_aside(call.disk, self._layout, path, looked_at):
            return Action.NONE
        # Where a good one has come in its place, the record is that one's.
        if record is not None and call.disk.stat(path) is None:
            call.disk.discard(record)
        return Action.QUARANTINED

    def _record_again(
        self, call: Call, entry: Entry, path: str, blobs: list[Blob], hashed: dict[int, str | None]
    ) -> Action:
        """Write the record of a blob whose bytes are right; without such a blob the record goes."""
        for blob in blobs:
            stat = call.disk.stat(blob.path)
            if stat is None or not modes.S_ISREG(stat.st_mode) or self._hash(call, blob, hashed) != entry.sha256:
                continue
            system = call.disk.system
            seen = Seen(stat.st_mtime_ns, stat.st_ino, system.boot())
            folder = os.path.dirname(blob.path)
            place = 0 if folder == entry.folder else int(os.path.basename(folder))
            record = Record(blob.filename, entry.sha256, stat.st_size, seen, created=int(system.now()), place=place)
            write_record(call.disk.hurried(), self._layout, record, entry.used or entry.changed)
            return Action.ADOPTED
        return _removed(call, path)


def _removed(call: Call, path: str) -> Action:
    return Action.REMOVED if call.disk.discard(path) else Action.NONE


def _about(call: Call, wheel: str) -> Call:
    return Call(call.disk, wheel, call.progress, call.stop)


def _one_at_a_time(call: Call) -> Call:
    """Return the same call with a listener that is never called by two threads at once."""
    listener = call.progress
    if listener is None:
        return call
    lock = threading.Lock()

    def tell(event: ProgressEvent) -> None:
        with lock:
            listener(event)

    return Call(call.disk, call.wheel, tell, call.stop)


class _Crew:
    """Threads that check entries and trees, each drawing the next one from the same walk.

    A small entry is a few calls of microseconds, and threads that make such calls side by side hand the interpreter to
    and fro for each of them: together they take longer than one alone. So the thread whose turn it is goes on until
    something is worth a thread: a large file, a tree, or an entry that is not plainly sound. Where the calls themselves
    take long (a file server, a cold disk), everything is.
    """

    def __init__(self, call: Call, layout: Layout, check: Callable[[Call, str | TreeEntry], list[_Suspect]]) -> None:
        self.checked = 0
        self._call = call
        self._layout = layout
        self._check = check
        self._suspects: list[_Suspect] = []
        self._turn = threading.Lock()
        self._over = False
        self._pace = _Pace()
        disk = call.disk.hurried()
        self._walk: Iterator[str | TreeEntry] = chain(
            _inventory.digests(disk, layout, self._refused), Trees(layout, writable=False).all(disk)
        )

    def run(self) -> list[_Suspect]:
        """Check every entry; an exception of one thread ends them all and comes out."""
        threads = min(_MOST_THREADS, (os.cpu_count() or 1) + 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="wheelcache-verify") as pool:
            try:
                for future in [pool.submit(self._work) for _ in range(threads)]:
                    future.result()
            finally:
                self._over = True
        return self._suspects

    def _work(self) -> None:
        try:
            while (what := self._next()) is not None:
                self._suspects += self._check(self._call, what)
                self._call.report(Phase.CHECKING, detail=f"{self.checked} checked")
        except BaseException:
            self._over = True
            raise

    def _next(self) -> str | TreeEntry | None:
        """Return what is worth a thread, ``None`` when all is done."""
        with self._turn:
            for what in self._walk:
                if self._over:
                    break
                self.checked += 1
                if not (isinstance(what, str) and self._pace.is_quick() and self._is_sound(what)):
                    return what
        return None

    def _is_sound(self, sha256: str) -> bool:
        """Whether an entry is small and plainly sound. Whatever else it is, the check tells."""
        clock = self._call.disk.system.monotonic
        began = clock()
        try:
            record = _inventory.plain(self._call.disk.files, self._layout, sha256)
            data = None if record is None else self._small_blob(record)
        except OSError:
            return False
        finally:
            self._pace.took(clock() - began)
        if record is None or data is None or sha256_of(data) != sha256:
            return False
        call = self._call if self._call.progress is None else _about(self._call, record.filename)
        call.report(Phase.CHECKING, record.size, record.size, f"{self.checked} checked")
        return True

    def _small_blob(self, record: Record) -> bytes | None:
        if record.size > _SMALL:
            return None
        with self._call.disk.files.open_read(self._layout.blob(record.sha256, record.filename, 0)) as file:
            # One byte more than there should be, and never more than that: nobody knows what it has grown to.
            data = file.read(record.size + 1)
        return data if len(data) == record.size else None

    def _refused(self, folder: str, _: CommitError) -> None:
        self._suspects.append(_Suspect(ProblemKind.UNREADABLE, folder))


class _Pace:
    """Whether one thread reads small files sooner than several do: it is measured, and now and then again."""

    def __init__(self) -> None:
        self._quick = True
        self._left = _ROUND
        self._spent = 0.0

    def is_quick(self) -> bool:
        """Return whether the next entry is to be looked at on the spot."""
        if self._left == 0:
            self._quick = not self._quick or self._spent < _ROUND * _LONG
            self._left = _ROUND if self._quick else _SLOW_ROUND
            self._spent = 0.0
        self._left -= 1
        return self._quick

    def took(self, seconds: float) -> None:
        """Count what that one has taken."""
        self._spent += seconds
