"""Look up the entries of one cache folder, and decide whether they can be trusted.

An entry exists if its record can be parsed and its blob is a regular file of the recorded size. The entry is trusted if
the blob has the size, time stamp and inode of the file that was hashed in the same boot of this machine, and if this
process hashed it or :class:`.TrustPolicy` accepts the record. In any other case, the blob is hashed once and the record
is renewed. Such cases are the first use after a reboot, a cache that was restored from an archive, a touched file, and
the first use by a process of a cache that others can write to. Writes therefore need no fsync. No short, zero-filled or
altered wheel is returned.

All hashes in the record of a returned entry are trusted. If the entry is hashed, all known algorithms of its record and
of the request are computed from the same bytes, and the computed hashes replace those in the record.

At most once a day, a hit marks its entry as used, by setting the time stamp of the record to the current time. This may
fail, since only the order of pruning depends on the time stamp.

If a program writes into a blob and resets the time stamp within one boot, only ``verify="full"`` detects the change.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from .. import _hashes
from .._exceptions import CommitError
from .._fs.hashing import hash_with_stat
from .._fs.robustio import RobustIO
from .._fs.small import read_small_with_mtime
from .._os.confined.entries import FolderEntry
from .layout import Layout, is_record, wheel_name
from .quarantine import quarantine_file
from .records import MAX_RECORD, Record, decode_record, write_record
from .trust.fingerprint import fingerprint_of, is_regular, is_unchanged
from .trust.policy import TrustPolicy
from .walk import scan_entry, walk_digests

# A walk over a million entries must not fill the memory. For an entry that was dropped, the record is read once more.
_MAX_TRUSTED = 10_000
_DAY = 86_400.0


class Entry(NamedTuple):
    """An entry that can be trusted.

    Attributes:
        record: the record.
        path: the absolute path of the blob.
        used: the time of the last use, in seconds since the epoch, accurate to a day.
        is_new: whether the entry has just been created, so that its bytes must be counted.
    """

    record: Record
    path: str
    used: float = 0.0
    is_new: bool = False


class Lookup:
    """The entries of one cache folder.

    Args:
        layout: the paths of the cache folder.
        trust: the worth of the recorded digests in this folder.
        writable: whether records may be renewed and damaged blobs quarantined.
    """

    def __init__(self, layout: Layout, trust: TrustPolicy, *, writable: bool) -> None:
        self._layout = layout
        self._trust = trust
        self._writable = writable
        # Only one stat is needed to find an entry that this object has trusted before.
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
        """Return the trusted entry of a digest and file name, or ``None``.

        Args:
            fs: the file system of the operation.
            sha256: the digest, in hex.
            filename: the file name, or ``None`` for any name. If no entry has this name, an entry of the same bytes
                with another name is returned.
            algorithms: hashes that the record of the returned entry must contain.
            adopt: whether to hash a blob without a record, and to write its record. Only a caller inside
                :meth:`SingleFlight.turn` for this wheel may do that.
            use: whether to mark the entry as used.
        """
        # A caller with ``adopt`` has already missed once, so the folder hardly ever exists. One scan can confirm that.
        files = fs.scan(self._layout.entry(sha256)) if adopt else None
        if files == []:
            return None
        if filename is not None:
            entry = self._find_named(fs, sha256, filename, algorithms, use=use)
            if entry is not None:
                return entry
        files = fs.scan(self._layout.entry(sha256)) if files is None else files
        for name in _recorded_names(files):
            entry = None if name == filename else self._find_named(fs, sha256, name, algorithms, use=use)
            if entry is not None:
                return entry
        return self._adopt(fs, sha256, algorithms) if adopt and self._writable else None

    def _find_named(
        self, fs: RobustIO, sha256: str, filename: str, algorithms: Collection[str], *, use: bool
    ) -> Entry | None:
        recorded = self._trusted.get((sha256, filename))
        is_remembered = recorded is not None
        if recorded is None:
            recorded = self._read_entry(fs, sha256, filename)
            if recorded is None:
                return None
            # On a file system that ignores case, the name in the record may be spelled differently.
            remembered = self._trusted.get((sha256, recorded.record.filename))
            is_remembered, recorded = remembered is not None, remembered or recorded
        entry = self._check_entry(fs, recorded, algorithms, is_remembered=is_remembered)
        if entry is None:
            self._trusted.pop((sha256, filename), None)
        else:
            self._remember(self._mark_used(fs, entry) if use else entry)
        return entry

    def _mark_used(self, fs: RobustIO, entry: Entry) -> Entry:
        """Mark an entry as used, unless it was marked within a day, since pruning needs no finer order."""
        now = fs.system.now()
        # A time in the future was set by a wrong clock. If it were kept, the entry would never be pruned.
        if not self._writable or abs(now - entry.used) < _DAY:
            return entry
        fs.touch(self._layout.record(entry.record.sha256, entry.record.filename), now)
        return entry._replace(used=now)

    def _read_entry(self, fs: RobustIO, sha256: str, filename: str) -> Entry | None:
        path = self._layout.record(sha256, filename)
        data, used = read_small_with_mtime(fs, path, MAX_RECORD) or (b"", 0.0)
        record = decode_record(data, sha256)
        # On a file system that ignores case, name.whl also finds the record of Name.whl. Both are the same wheel.
        if record is None or record.filename.lower() != filename.lower():
            return None
        return Entry(record, self._layout.blob(sha256, record.filename, record.place), used)

    def _check_entry(
        self, fs: RobustIO, recorded: Entry, algorithms: Collection[str], *, is_remembered: bool
    ) -> Entry | None:
        """Return a recorded entry if it is trusted or its blob has the right hashes. Otherwise return ``None``.

        With ``is_remembered``, this process hashed the entry before, or accepted its record.
        """
        stat = fs.stat(recorded.path)
        if stat is None:
            return None
        record = recorded.record
        if stat.st_size != record.size or not is_regular(stat):
            self._quarantine(fs, recorded, stat)
            return None
        is_accepted = is_remembered and not self._trust.is_full
        is_accepted = is_accepted or self._trust.accepts_record(fs, record.seen.boot)
        if (
            is_accepted
            and record.hashes.keys() >= set(algorithms) - {"sha256"}
            and is_unchanged(fs, recorded.path, stat, record.seen)
        ):
            return recorded
        return self._hash_again(fs, recorded, stat, algorithms)

    def _hash_again(
        self, fs: RobustIO, recorded: Entry, stat: os.stat_result, algorithms: Collection[str]
    ) -> Entry | None:
        record = recorded.record
        # A hash in the record may be false. An unknown algorithm cannot be checked.
        checked = {*algorithms, *filter(_hashes.is_known, record.hashes)}
        hashed = hash_with_stat(fs, recorded.path, checked, record.size)
        if hashed is None:
            return None
        if hashed.hashes["sha256"] != record.sha256:
            self._quarantine(fs, recorded, stat)
            return None
        renewed = recorded._replace(record=record.with_fingerprint(fingerprint_of(fs, hashed.stat), hashed.hashes))
        if self._writable and renewed.record != record:
            self._renew(fs, renewed)
        return renewed

    def _renew(self, fs: RobustIO, entry: Entry) -> bool:
        """Write a record, best effort, and return whether it was written. If not, the next process hashes again."""
        record = entry.record
        try:
            if not self._trust.flush_before_record(fs, entry.path):
                record = record.for_this_process()
            write_record(fs.without_waiting(), self._layout, record, entry.used)
        except CommitError:
            return False
        return True

    def _quarantine(self, fs: RobustIO, damaged: Entry, stat: os.stat_result) -> None:
        """Quarantine a damaged blob if it can be moved, so that a good blob can replace it.

        The record is kept, since a record without a blob counts as a miss. Another process may be writing the record of
        a good blob at the same time.
        """
        self._was_damaged.add(damaged.record.sha256)
        # A folder is never renamed. The good blob takes a numbered place beside it.
        if self._writable and not modes.S_ISDIR(stat.st_mode):
            quarantine_file(fs, self._layout, damaged.path, stat)

    def _adopt(self, fs: RobustIO, sha256: str, algorithms: Collection[str]) -> Entry | None:
        """Write the missing record of a blob. It was lost, or never written because the process was killed."""
        folder = scan_entry(fs, self._layout, sha256)
        for blob in () if folder is None else folder.blobs:
            hashed = hash_with_stat(fs, blob.path, algorithms, blob.size)
            if hashed is None:
                continue
            if hashed.hashes["sha256"] != sha256:
                quarantine_file(fs, self._layout, blob.path, blob.stat)
                continue
            system = fs.system
            fingerprint = fingerprint_of(fs, hashed.stat)
            place = self._layout.place(sha256, blob.path)
            record = Record(blob.filename, sha256, blob.size, fingerprint, created=int(system.now()), place=place)
            record = record.with_fingerprint(fingerprint, hashed.hashes)
            entry = Entry(record, blob.path, system.now())
            # The entry is not trusted without a record, so that the next fetch tries to write the record again.
            if self._renew(fs, entry):
                self._remember(entry)
            return entry._replace(is_new=True)
        return None

    def remember(self, entry: Entry) -> bool:
        """Trust an entry that was hashed during its download, and return whether it replaces a damaged one."""
        was_damaged = entry.record.sha256 in self._was_damaged
        self._was_damaged.discard(entry.record.sha256)
        self._remember(entry._replace(is_new=False))
        return was_damaged

    def _remember(self, entry: Entry) -> None:
        if len(self._trusted) >= _MAX_TRUSTED:
            self._trusted.clear()
        self._trusted[entry.record.sha256, entry.record.filename] = entry

    def records(self, fs: RobustIO) -> Iterator[Record]:
        """Yield every record, in the order of the folders, without checking the blobs."""
        for sha256 in walk_digests(fs, self._layout):
            for name in _recorded_names(fs.scan(self._layout.entry(sha256))):
                entry = self._read_entry(fs, sha256, name)
                if entry is not None:
                    yield entry.record


def _recorded_names(entries: Iterable[FolderEntry]) -> list[str]:
    """Return the sorted file names of the wheels whose records are in a folder."""
    names = sorted(entry.name for entry in entries if is_record(entry.name) and entry.is_file)
    return [wheel_name(name) for name in names]
