"""Lookup: whether a wheel is in a cache folder, and whether it may be believed.

An entry is there when its record parses and the blob has the recorded size. It is trusted when the blob is the very
file that was hashed, within the same boot of this machine: same size, time stamp and inode. Anything else (the first
use after a reboot, a cache restored from an archive, a touched file) is hashed once, and the record is renewed. So
nothing needs to be fsynced when it is written, and still no short, zero-filled or altered wheel is handed out.

A hit marks its entry as used, once a day at most: the time stamp of the record, which carries no trust, is set to now.
That is one call more for one hit a day, it may fail, and nothing but the order of pruning depends on it.

Known blind spot: a program that writes into a blob within one boot and sets the time stamp back is not noticed, except
with ``verify="full"``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from .._exceptions import Cause, CommitError
from .._fs.robustio import RobustIO, hash_file
from .layout import Layout, is_record, wheel_name
from .quarantine import quarantine_file
from .records import Record, StatFingerprint, decode_record, write_record
from .walk import scan_entry, walk_digests

# Walking a million entries must not fill the memory; what falls out costs one more record read.
_MOST_TRUSTED = 10_000
_DAY = 86_400.0


class Entry(NamedTuple):
    """An entry that may be believed.

    Attributes:
        record: what is known of it.
        path: where its bytes are.
        used: seconds since the epoch when it was used last, to the day.
        is_new: whether it has just become an entry, and its bytes with it.
    """

    record: Record
    path: str
    used: float = 0.0
    is_new: bool = False


class Lookup:
    """The entries of one cache folder.

    Args:
        layout: its paths.
        writable: whether records may be renewed and damaged blobs put aside.
        full: whether every blob is hashed every time.
    """

    def __init__(self, layout: Layout, *, writable: bool, full: bool) -> None:
        self._layout = layout
        self._writable = writable
        self._full = full
        # What this object trusted once costs one stat from then on.
        self._trusted: dict[tuple[str, str], Entry] = {}
        self._was_damaged: set[str] = set()

    def find(
        self,
        fs: RobustIO,
        sha256: str,
        filename: str | None,
        algorithms: Collection[str] = (),
        *,
        adopt: bool = False,
        use: bool = True,
    ) -> Entry | None:
        """Return the entry of this digest and file name, ``None`` where there is none that may be believed.

        Where the file name has no entry, or none was given, an entry of the same bytes under another name is returned.
        The hashes named in ``algorithms`` are in its record afterwards. With ``adopt``, a blob that lost its record is
        hashed and given one; only who holds the entry's turn may ask for that. Who only looks, and does not ``use`` it,
        leaves its mark as it is.
        """
        # Who adopts has missed once before: nearly always there is no folder, and one call tells.
        there = fs.scan(self._layout.entry(sha256)) if adopt else None
        if there == []:
            return None
        if filename is not None:
            found = self._named(fs, sha256, filename, algorithms, use=use)
            if found is not None:
                return found
        there = fs.scan(self._layout.entry(sha256)) if there is None else there
        for name in _recorded_names(there):
            found = None if name == filename else self._named(fs, sha256, name, algorithms, use=use)
            if found is not None:
                return found
        return self._adopt(fs, sha256, algorithms) if adopt and self._writable else None

    def _named(
        self, fs: RobustIO, sha256: str, filename: str, algorithms: Collection[str], *, use: bool
    ) -> Entry | None:
        known = self._trusted.get((sha256, filename)) or self._recorded(fs, sha256, filename)
        if known is None:
            return None
        found = self._believed(fs, known, algorithms)
        if found is None:
            self._trusted.pop((sha256, filename), None)
        else:
            self._trust(self._used(fs, found) if use else found)
        return found

    def _used(self, fs: RobustIO, found: Entry) -> Entry:
        """Mark an entry as used, unless that was done within a day: LRU needs no finer order, and hits stay cheap."""
        now = fs.system.now()
        # A mark from the future comes from a clock that was wrong, and would keep the entry for ever.
        if not self._writable or abs(now - found.used) < _DAY:
            return found
        fs.touch(self._layout.record(found.record.sha256, found.record.filename), now)
        return found._replace(used=now)

    def _recorded(self, fs: RobustIO, sha256: str, filename: str) -> Entry | None:
        try:
            data, used = fs.read_with_mtime(self._layout.record(sha256, filename)) or (b"", 0.0)
        except CommitError as error:
            if error.cause is Cause.IN_THE_WAY:
                return None  # a folder is no record
            raise
        record = decode_record(data, sha256)
        # On a file system that folds case, the record of Name.whl is found for name.whl too; both are the same wheel.
        if record is None or record.filename.lower() != filename.lower():
            return None
        return Entry(record, self._layout.blob(sha256, record.filename, record.place), used)

    def _believed(self, fs: RobustIO, known: Entry, algorithms: Collection[str]) -> Entry | None:
        stat = fs.stat(known.path)
        if stat is None:
            return None
        record = known.record
        seen = StatFingerprint(stat.st_mtime_ns, stat.st_ino, fs.system.boot())
        if stat.st_size != record.size:
            self._damaged(fs, known, stat)
            return None
        lacking = [name for name in algorithms if name != "sha256" and name not in record.hashes]
        unchanged = seen == record.seen and seen.boot is not None
        memory = self._trusted.get((record.sha256, record.filename))
        in_memory = memory is not None and memory.record.seen == seen
        if (unchanged or in_memory) and not lacking and not self._full:
            return known
        return self._hashed_again(fs, known, stat, lacking)

    def _hashed_again(
        self, fs: RobustIO, known: Entry, stat: os.stat_result, algorithms: Collection[str]
    ) -> Entry | None:
        record = known.record
        seen = StatFingerprint(stat.st_mtime_ns, stat.st_ino, fs.system.boot())
        hashes = hash_file(fs, known.path, algorithms, record.size)
        if hashes is None:
            return None
        if hashes["sha256"] != record.sha256 or any(
            hashes.get(name, value) != value for name, value in record.hashes.items()
        ):
            self._damaged(fs, known, stat)
            return None
        renewed = known._replace(record=record.seen_as(seen, hashes))
        if self._writable and renewed.record != record:
            self._renew(fs, renewed.record, known.used)
        return renewed

    def _renew(self, fs: RobustIO, record: Record, used: float) -> bool:
        """Write down that the blob was hashed; where that cannot be just now, the next process hashes again."""
        try:
            write_record(fs.without_waiting(), self._layout, record, used)
        except CommitError:
            return False
        return True

    def _damaged(self, fs: RobustIO, known: Entry, stat: os.stat_result) -> None:
        """Put a damaged blob aside, so that a good one can take its place. What cannot be moved is simply no entry.

        Its record stays: without its blob it is none, and another process may just be writing the one of a good blob.
        """
        self._was_damaged.add(known.record.sha256)
        if self._writable:
            quarantine_file(fs, self._layout, known.path, stat)

    def _adopt(self, fs: RobustIO, sha256: str, algorithms: Collection[str]) -> Entry | None:
        """Give a record to a blob that has none: its process was killed between the two, or the record was lost."""
        entry = scan_entry(fs, self._layout, sha256)
        for blob in () if entry is None else entry.blobs:
            hashes = hash_file(fs, blob.path, algorithms, blob.size)
            if hashes is None:
                continue
            if hashes["sha256"] != sha256:
                quarantine_file(fs, self._layout, blob.path, blob.stat)
                continue
            system = fs.system
            seen = StatFingerprint(blob.stat.st_mtime_ns, blob.inode, system.boot())
            place = self._layout.place(sha256, blob.path)
            record = Record(blob.filename, sha256, blob.size, seen, created=int(system.now()), place=place)
            record = record.seen_as(seen, hashes)
            found = Entry(record, blob.path, system.now())
            # What has no record is not trusted either, so that the next fetch tries again to give it one.
            if self._renew(fs, record, found.used):
                self._trust(found)
            return found._replace(is_new=True)
        return None

    def remember(self, found: Entry) -> bool:
        """Trust what was just hashed while it was written; return whether it takes the place of a damaged one."""
        repaired = found.record.sha256 in self._was_damaged
        self._was_damaged.discard(found.record.sha256)
        self._trust(found._replace(is_new=False))
        return repaired

    def _trust(self, found: Entry) -> None:
        if len(self._trusted) >= _MOST_TRUSTED:
            self._trusted.clear()
        self._trusted[found.record.sha256, found.record.filename] = found

    def records(self, fs: RobustIO) -> Iterator[Record]:
        """Yield every record, in the order of the folders, without looking at the blobs."""
        for sha256 in walk_digests(fs, self._layout):
            for name in _recorded_names(fs.scan(self._layout.entry(sha256))):
                recorded = self._recorded(fs, sha256, name)
                if recorded is not None:
                    yield recorded.record


def _recorded_names(entries: Iterable[os.DirEntry[str]]) -> list[str]:
    """Return the sorted file names of the wheels whose records are in a folder."""
    names = sorted(entry.name for entry in entries if is_record(entry.name) and entry.is_file(follow_symlinks=False))
    return [wheel_name(name) for name in names]
