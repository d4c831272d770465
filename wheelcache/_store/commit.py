"""Commit: a sealed file becomes an entry: its blob under its final name, then its record.

A blob is never replaced. Where one is there already, it is looked at: the right one makes losing the race a success,
a wrong one is put aside, and where it is held and cannot be moved, or not even read, the good one takes a numbered
place beside it.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from enum import Enum
from typing import TYPE_CHECKING

from .._exceptions import Cause, CommitError
from .._fs.errors import is_delete_pending
from .._fs.link import LinkStrategy
from .._fs.persist import persist_noclobber
from .._fs.robustio import RobustIO, commit_error, hash_file
from .layout import Layout
from .lookup import Entry
from .quarantine import quarantine_file
from .records import Record, StatFingerprint, decode_record, write_first_record, write_record

if TYPE_CHECKING:
    from .staging import FinishedFile


# Each place that is taken is one more damaged file that cannot be moved, deleted or read.
_PLACES = 10
# How often a wheel that was there already may be pruned before its record is renewed.
_ROUNDS = 3
_UNSEEN = StatFingerprint(0, 0, None)


class _Occupant(Enum):
    RIGHT = "the same bytes"
    GONE = "no longer there"
    UNKNOWN = "other bytes, or held so that they cannot be read, or deleted and still open"


class Commit:
    """The way into one cache folder."""

    def __init__(self, layout: Layout, strategy: LinkStrategy) -> None:
        self._layout = layout
        self._strategy = strategy

    def add(self, fs: RobustIO, sealed: FinishedFile, filename: str, url: str | None) -> Entry:
        """Make a sealed file an entry.

        Raises:
            CommitError: where the file system refuses, and no other way is left or the time is up.
        """
        sha256 = sealed.hashes["sha256"]
        others = {name: value for name, value in sealed.hashes.items() if name != "sha256"}
        for last in (*[False] * (_ROUNDS - 1), True):
            place, left = self._settle(fs, sealed.path, sha256, sealed.size, filename, keep=False)
            try:
                found = self._record(fs, Record(filename, sha256, sealed.size, _UNSEEN, others, url, place=place))
            except CommitError as error:
                # Another process pruned the wheel that was there already: our own file takes its place.
                if last or not left or error.cause is not Cause.REMOVED:
                    raise
            else:
                if left:
                    fs.discard(sealed.path)
                return found
        raise AssertionError("the last round returns or raises")

    def alias(self, fs: RobustIO, found: Entry, filename: str) -> Entry:
        """Make an entry of the same bytes under another file name; it is new where they take room once more.

        Raises:
            CommitError: where the file system refuses; of the cause ``REMOVED`` where the wheel was pruned meanwhile.
        """
        known = found.record
        place, _ = self._settle(fs, found.path, known.sha256, known.size, filename, keep=True)
        named = self._record(fs, known._replace(filename=filename, place=place))
        is_same_file = self._layout.holds(found.path) and named.record.seen.inode == known.seen.inode
        return named._replace(is_new=named.is_new and not is_same_file)

    def _settle(
        self, fs: RobustIO, source: str, sha256: str, size: int, filename: str, *, keep: bool
    ) -> tuple[int, bool]:
        """Find a place for the blob, and put it there; return it, and whether the same bytes were there already."""
        layout = self._layout
        destination = self._strategy.destination(fs, os.path.dirname(source), layout.wheels)
        for place in range(_PLACES):
            target = layout.blob(sha256, filename, place)
            fs.make_folder(layout.entry(sha256) if place == 0 else target[: -len(filename) - 1])
            # Twice: a damaged occupant is put aside the first time; who comes in between holds the same bytes.
            for _ in range(2):
                try:
                    # A second name is written to the file, and those of layers are only read.
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
                    if occupant is _Occupant.RIGHT:
                        return place, True
                else:
                    return place, False
        raise CommitError(
            "every place for this wheel is taken by a file that cannot be read or moved",
            errno=errno.EEXIST,
            cause=Cause.IN_THE_WAY,
            operation="commit",
            path=source,
            target=layout.blob(sha256, filename, 0),
            attempts=_PLACES,
            advice="Delete this folder, or clear the cache.",
        )

    def _occupant(self, fs: RobustIO, target: str, sha256: str, size: int) -> _Occupant:
        """Look at what stands where the blob should go, without waiting for anybody."""
        without_waiting = fs.without_waiting()
        try:
            stat = without_waiting.stat(target)
        except CommitError as refusal:
            if is_delete_pending(refusal):
                return _Occupant.UNKNOWN
            raise
        if stat is None:
            return _Occupant.GONE
        if not modes.S_ISREG(stat.st_mode):
            error = IsADirectoryError(errno.EISDIR, "a folder stands where the wheel should go", target)
            raise commit_error(error, "commit", target)
        try:
            hashes = hash_file(without_waiting, target, (), size) if stat.st_size == size else {}
        except CommitError:
            return _Occupant.UNKNOWN
        if hashes is None:
            return _Occupant.GONE
        if hashes.get("sha256") == sha256:
            return _Occupant.RIGHT
        return _Occupant.GONE if quarantine_file(fs, self._layout, target, stat) else _Occupant.UNKNOWN

    def _record(self, fs: RobustIO, record: Record) -> Entry:
        """Write the record of a blob that is in its place, with what is there to see of it."""
        path = self._layout.blob(record.sha256, record.filename, record.place)
        stat = fs.stat(path)
        if stat is None or stat.st_size != record.size:
            raise _gone(path)
        try:
            return self._write_record(fs, record, path, stat)
        except CommitError as error:
            # Who clears a cache takes the folder along that the record was to go to.
            if fs.stat(path) is None:
                raise _gone(path) from error
            raise

    def _write_record(self, fs: RobustIO, record: Record, path: str, stat: os.stat_result) -> Entry:
        seen = StatFingerprint(stat.st_mtime_ns, stat.st_ino, fs.system.boot())
        record = record._replace(seen=seen, created=int(fs.system.now()))
        now = fs.system.now()
        is_new = True
        try:
            write_first_record(fs, self._layout, record, now)
        except FileExistsError:
            is_new = not self._is_recorded(fs, record)
            if is_new:
                write_record(fs, self._layout, record, now)
            else:
                fs.touch(self._layout.record(record.sha256, record.filename), now)
        return Entry(record, path, now, is_new)

    def _is_recorded(self, fs: RobustIO, record: Record) -> bool:
        """Whether who won the race has recorded the same: a record that is read by others is best left alone."""
        data = fs.read(self._layout.record(record.sha256, record.filename))
        there = None if data is None else decode_record(data, record.sha256)
        return there is not None and (there.filename, there.place, there.seen, there.hashes) == (
            record.filename,
            record.place,
            record.seen,
            record.hashes,
        )


def _gone(path: str) -> CommitError:
    what = "the wheel is gone right after it was put there; if no other process clears the cache"
    return commit_error(FileNotFoundError(errno.ENOENT, what, path), "commit", path, cause=Cause.REMOVED)
