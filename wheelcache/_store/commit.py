"""Make a finished file an entry, by giving the blob its final name and then writing its record.

A blob is never replaced. An existing blob is verified. If it has the same bytes, losing the race is a success.
Otherwise it is quarantined. If it is held and cannot be moved or read, the new blob is stored in a numbered folder
beside it.

If the operation is cancelled or the process is killed between the two steps, the next lookup of the digest finds a blob
without a record, hashes the blob and writes the record.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING

from .._exceptions import Cause, CommitError
from .._fs.errors import is_delete_pending
from .._fs.hashing import hash_file, hash_with_stat
from .._fs.link import LinkStrategy
from .._fs.persist import persist_noclobber
from .._fs.robustio import RobustIO, commit_error
from .._fs.small import read_optional
from .layout import Layout
from .lookup import Entry
from .quarantine import quarantine_file
from .records import MAX_RECORD, Record, StatFingerprint, decode_record, write_first_record, write_record
from .trust.fingerprint import fingerprint_of, is_regular
from .trust.policy import TrustPolicy

if TYPE_CHECKING:
    from .staging import FinishedFile


# Each occupied place is a damaged file that cannot be moved, deleted or read.
_MAX_PLACES = 10
# Attempts to commit, in case the existing blob is pruned each time before its record is renewed.
_MAX_ROUNDS = 3
_NO_FINGERPRINT = StatFingerprint(0, 0, None)


class _Occupant(Enum):
    SAME = "a file with the same bytes"
    GONE = "no file"
    UNKNOWN = "a folder, a file with other bytes, or one that cannot be read because it is held or is being deleted"


class Commit:
    """Adds entries to one cache folder."""

    def __init__(self, layout: Layout, trust: TrustPolicy, strategy: LinkStrategy) -> None:
        self._layout = layout
        self._trust = trust
        self._strategy = strategy

    def add(self, fs: RobustIO, finished: FinishedFile, filename: str, url: str | None) -> Entry:
        """Make a finished file an entry.

        Raises:
            CommitError: if every method is refused, permanently or until the retry budget is spent.
        """
        sha256 = finished.hashes["sha256"]
        others = {name: value for name, value in finished.hashes.items() if name != "sha256"}
        for is_last in (*[False] * (_MAX_ROUNDS - 1), True):
            place, existed = self._place_blob(fs, finished.path, sha256, finished.size, filename, keep=False)
            record = Record(filename, sha256, finished.size, _NO_FINGERPRINT, others, url, place=place)
            try:
                entry = self._add_record(fs, record)
            except CommitError as error:
                # Another process pruned the existing blob, so our own file can be stored.
                if is_last or not existed or error.cause is not Cause.REMOVED:
                    raise
            else:
                if existed:
                    fs.discard(finished.path)
                return entry
        raise AssertionError("the last round returns or raises")

    def alias(self, fs: RobustIO, found: Entry, filename: str) -> Entry:
        """Add an entry with the same bytes under another file name.

        The entry counts as new only if the bytes are stored again.

        Raises:
            CommitError: if the file system refuses an operation. The cause is ``REMOVED`` if the wheel was pruned
                meanwhile.
        """
        record = found.record
        place, _ = self._place_blob(fs, found.path, record.sha256, record.size, filename, keep=True)
        alias = self._add_record(fs, record._replace(filename=filename, place=place))
        is_same_file = self._layout.holds(found.path) and alias.record.seen.inode == record.seen.inode
        return alias._replace(is_new=alias.is_new and not is_same_file)

    def _place_blob(
        self, fs: RobustIO, source: str, sha256: str, size: int, filename: str, *, keep: bool
    ) -> tuple[int, bool]:
        """Give the blob its name in a free place.

        Return the place, and whether a blob with the same bytes existed there.
        """
        layout = self._layout
        destination = self._strategy.destination(fs, os.path.dirname(source), layout.wheels)
        for place in range(_MAX_PLACES):
            target = layout.blob(sha256, filename, place)
            fs.make_folder(layout.entry(sha256) if place == 0 else target[: -len(filename) - 1])
            # There are two attempts, because a damaged blob is quarantined after the first. A file that appears after
            # that has the same bytes.
            for _ in range(2):
                try:
                    # A hard link would change the link count of a layer's file, and layers must not be changed.
                    persist_noclobber(
                        fs,
                        source,
                        target,
                        destination=destination,
                        sha256=sha256,
                        keep=keep,
                        source_read_only=not layout.holds(source),
                    )
                except FileExistsError:
                    occupant = self._occupant(fs, target, sha256, size)
                    if occupant is _Occupant.UNKNOWN:
                        break
                    if occupant is _Occupant.SAME:
                        return place, True
                else:
                    return place, False
        raise CommitError(
            f"all {_MAX_PLACES} locations for this wheel are occupied by files that cannot be read or moved",
            errno=errno.EEXIST,
            cause=Cause.IN_THE_WAY,
            operation="commit",
            path=source,
            target=layout.blob(sha256, filename, 0),
            attempts=_MAX_PLACES,
            advice="Delete this folder, or clear the cache.",
        )

    def _occupant(self, fs: RobustIO, target: str, sha256: str, size: int) -> _Occupant:
        """Examine the file at the blob's path, without waiting for its holders."""
        without_waiting = fs.without_waiting()
        try:
            stat = without_waiting.stat(target)
        except CommitError as refusal:
            if is_delete_pending(refusal):
                return _Occupant.UNKNOWN
            raise
        if stat is None:
            return _Occupant.GONE
        # A folder is never renamed, so it is left where it is.
        if modes.S_ISDIR(stat.st_mode):
            return _Occupant.UNKNOWN
        try:
            hashes = self._hash_candidate(without_waiting, target, stat, size)
        except CommitError:
            return _Occupant.UNKNOWN
        if hashes is not None and hashes.get("sha256") == sha256:
            return _Occupant.SAME
        is_free = hashes is None or quarantine_file(fs, self._layout, target, stat)
        return _Occupant.GONE if is_free else _Occupant.UNKNOWN

    @staticmethod
    def _hash_candidate(fs: RobustIO, path: str, stat: os.stat_result, size: int) -> Mapping[str, str] | None:
        """Return the hashes of a file, or ``None`` if it is missing. Another kind or size of file is not read."""
        return hash_file(fs, path, (), size) if is_regular(stat) and stat.st_size == size else {}

    def _add_record(self, fs: RobustIO, record: Record) -> Entry:
        """Write the record of a blob that has its final name, with its current fingerprint."""
        path = self._layout.blob(record.sha256, record.filename, record.place)
        stat = fs.stat(path)
        if stat is None or stat.st_size != record.size:
            raise _removed(path)
        if not self._trust.accepts_content(fs):
            stat = self._hash_again(fs, record, path, stat)
        try:
            return self._write_record(fs, record, path, stat)
        except CommitError as error:
            # The folder is missing if another process is clearing the cache.
            if fs.stat(path) is None:
                raise _removed(path) from error
            raise

    def _hash_again(self, fs: RobustIO, record: Record, path: str, stat: os.stat_result) -> os.stat_result:
        """Hash a blob that has its final name, and return the status of the file that was hashed.

        Other users can write to the folder of temporary files. Since the bytes were hashed, one of them may have put
        another file in place of the finished one, or may have written to it.

        Raises:
            CommitError: if the blob has other bytes. It is quarantined.
        """
        hashed = hash_with_stat(fs, path, (), record.size)
        if hashed is None:
            raise _removed(path)
        if hashed.hashes["sha256"] != record.sha256:
            quarantine_file(fs, self._layout, path, stat)
            altered = OSError(errno.EIO, "another process changed the file before it was committed", path)
            raise commit_error(altered, "commit", path)
        return hashed.stat

    def _write_record(self, fs: RobustIO, record: Record, path: str, stat: os.stat_result) -> Entry:
        record = record._replace(seen=fingerprint_of(fs, stat), created=int(fs.system.now()))
        stored = record if self._trust.flush_before_record(fs, path) else record.for_this_process()
        now = fs.system.now()
        is_new = True
        try:
            write_first_record(fs, self._layout, stored, now)
        except FileExistsError:
            is_new = not self._is_recorded(fs, stored)
            if is_new:
                write_record(fs, self._layout, stored, now)
            else:
                fs.touch(self._layout.record(record.sha256, record.filename), now)
        return Entry(record, path, now, is_new)

    def _is_recorded(self, fs: RobustIO, record: Record) -> bool:
        """Return whether an equal record exists. Such a record is kept, since other processes may be reading it."""
        data = read_optional(fs, self._layout.record(record.sha256, record.filename), MAX_RECORD)
        existing = None if data is None else decode_record(data, record.sha256)
        return existing is not None and (existing.filename, existing.place, existing.seen, existing.hashes) == (
            record.filename,
            record.place,
            record.seen,
            record.hashes,
        )


def _removed(path: str) -> CommitError:
    message = "the wheel disappeared right after it was stored"
    return commit_error(FileNotFoundError(errno.ENOENT, message, path), "commit", path, cause=Cause.REMOVED)
