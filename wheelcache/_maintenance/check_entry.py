"""Check one entry of a cache. Each blob is compared with its digest, and each record with its blob.

Every hash in a record is computed again from the bytes, because another user may have written the record.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from .._exceptions import Cause, CommitError
from .._fs.hashing import hash_file
from .._fs.robustio import RobustIO
from .._fs.small import read_optional, read_small
from .._hashes import MultiHash, is_known, sha256_of, strong_algorithms
from .._models import Phase
from .._reports import Action, ProblemKind
from .._request import text_key
from .._store.layout import Layout
from .._store.records import MAX_RECORD, Record, StatFingerprint, decode_record, write_record
from .._store.walk import Blob, EntryFolder, read_plain_record, scan_entry
from .suspects import Suspect, quarantine, remove_file, suspect_foreign, suspect_unreadable, suspect_unsafe

# A blob of at most this many bytes is read in one piece, to save file operations.
_SMALL = 1 << 16


def check_entry(fs: RobustIO, layout: Layout, sha256: str) -> list[Suspect]:
    """Return the suspected problems in the folder of a digest."""
    fs = fs.without_waiting()
    if _is_small_and_sound(fs, layout, sha256):
        return []
    try:
        entry = scan_entry(fs, layout, sha256)
    except CommitError as error:
        found = [suspect_unreadable(layout, layout.entry(sha256), error, sha256=sha256)]
    else:
        found = [] if entry is None else _EntryCheck(layout, entry).check(fs)

    def check_again(fs: RobustIO) -> list[Suspect]:
        return check_entry(fs, layout, sha256)

    return [suspect if suspect.check_again else replace(suspect, check_again=check_again) for suspect in found]


def _is_small_and_sound(fs: RobustIO, layout: Layout, sha256: str) -> bool:
    """Return whether an entry consists of a record and a small, intact blob, like most entries.

    This check takes four file operations. The full check handles all other entries and all errors.
    """
    try:
        record = read_plain_record(fs.files, layout, sha256)
        if record is None or record.size > _SMALL:
            return False
        with fs.files.open_read(layout.blob(sha256, record.filename, 0)) as file:
            # At most one byte more than the recorded size is read, because the file may have grown to any size.
            data = file.read(record.size + 1)
    except OSError:
        return False
    if len(data) != record.size or sha256_of(data) != sha256:
        return False
    if record.hashes:
        running = MultiHash(_known(record.hashes))
        running.update(data)
        if running.hexdigests() != record.all_hashes():
            return False
    if fs.op.progress is not None:
        fs.op.about(record.filename).report(Phase.CHECKING, record.size, record.size)
    return True


def _known(algorithms: Iterable[str]) -> list[str]:
    """Return the algorithms that can be computed. A record of another program may contain any name."""
    return [name for name in algorithms if is_known(name)]


def find_intact_blobs(fs: RobustIO, layout: Layout, sha256: str) -> Iterator[Blob]:
    """Hash the blobs of a digest, and yield those with its bytes, whatever their records are.

    Raises:
        CommitError: if a blob or the folder cannot be read.
    """
    try:
        entry = scan_entry(fs, layout, sha256)
    except CommitError as error:
        if error.cause not in {Cause.UNSAFE, Cause.IN_THE_WAY}:
            raise
        return  # a link or a file is in the place of a folder
    for blob in () if entry is None else entry.blobs:
        hashes = hash_file(fs, blob.path, (), blob.size)
        if hashes is not None and hashes["sha256"] == sha256:
            yield blob


def has_named_hash(fs: RobustIO, layout: Layout, sha256: str, name: str) -> bool:
    """Return whether a wheel has the strong hash that the pointer of this name is named after.

    A wheel whose bytes are missing or damaged is reported by itself, so its pointers are not examined.

    Raises:
        CommitError: if a blob or the folder cannot be read.
    """
    for blob in find_intact_blobs(fs, layout, sha256):
        hashes = hash_file(fs, blob.path, strong_algorithms(), blob.size) or {}
        return any(text_key(f"{algorithm}:{value}") == name for algorithm, value in hashes.items())
    return True


class _EntryCheck:
    """The check of one entry. Its repairs reuse the digests that the check computed."""

    def __init__(self, layout: Layout, entry: EntryFolder) -> None:
        self._layout = layout
        self._entry = entry
        self._hashes_by_inode: dict[int, Mapping[str, str] | None] = {}
        self._blobs_with_record: set[str] = set()

    def check(self, fs: RobustIO) -> list[Suspect]:
        """Return the suspected problems in the folder."""
        suspects: list[Suspect] = []
        for name in self._entry.names:
            suspects += self._check_wheel(fs, name)
        for blob in self._entry.blobs:
            if blob.path not in self._blobs_with_record:
                suspects += self._check_orphan(fs, blob)
        # Foreign files are repaired first, because one of them may occupy the place of a record.
        return self._check_foreign() + suspects

    def _check_foreign(self) -> list[Suspect]:
        entry = self._entry
        # Temporary files are not reported, because prune sweeps them.
        return [
            *(suspect_unsafe(self._layout, path, sha256=entry.sha256) for path in entry.unsafe),
            *(suspect_foreign(self._layout, path, sha256=entry.sha256) for path in entry.foreign),
            *(suspect_foreign(self._layout, path, sha256=entry.sha256, is_folder=True) for path in entry.folders),
        ]

    def _check_wheel(self, fs: RobustIO, name: str) -> list[Suspect]:
        """Check a record and its blob."""
        sha256 = self._entry.sha256
        path = self._layout.record(sha256, name)
        try:
            data = read_small(fs, path, MAX_RECORD)
        except CommitError:
            self._blobs_with_record.update(blob.path for blob in self._blobs_named(name))
            return [Suspect(ProblemKind.UNREADABLE, path, sha256)]
        record = None if data is None else decode_record(data, sha256)
        if record is None or record.filename.lower() != name.lower():
            return self._check_torn_record(fs, path, self._blobs_named(name))
        blob_path = self._blob_path(record)
        blob = next((blob for blob in self._entry.blobs if blob.path == blob_path), None)
        if blob is None:
            return [Suspect(ProblemKind.MISSING, blob_path, sha256, lambda fs: remove_file(fs, path))]
        self._blobs_with_record.add(blob.path)
        if blob.size == record.size:
            return self._check_hashes(fs, blob, record) or self._check_bytes(fs, blob)
        kind = ProblemKind.SHORT if blob.size < record.size else ProblemKind.ALTERED
        return [Suspect(kind, blob.path, sha256, lambda fs: self._quarantine_blob(fs, blob))]

    def _check_hashes(self, fs: RobustIO, blob: Blob, record: Record) -> list[Suspect]:
        """Compare the hashes in a record with an intact blob."""
        try:
            hashes = self._compute_hashes(fs, blob, _known(record.hashes))
        except CommitError:
            return []  # the check of the bytes reports the error
        if hashes is None or hashes["sha256"] != record.sha256:
            return []
        if all(hashes.get(name) == value for name, value in record.hashes.items()):
            return []

        def repair(fs: RobustIO) -> Action:
            correct = {name: hashes[name] for name in _known(record.hashes)}
            used = self._entry.used or self._entry.changed
            write_record(fs.without_waiting(), self._layout, record._replace(hashes=correct), used)
            return Action.ADOPTED

        path = self._layout.record(record.sha256, record.filename)
        return [Suspect(ProblemKind.ALTERED, path, record.sha256, repair)]

    def _check_torn_record(self, fs: RobustIO, path: str, blobs: list[Blob]) -> list[Suspect]:
        # The blobs are registered here, so that they are not also reported as orphans.
        self._blobs_with_record.update(blob.path for blob in blobs)
        torn = Suspect(ProblemKind.TORN, path, self._entry.sha256, lambda fs: self._replace_record(fs, path, blobs))
        return [torn, *(suspect for blob in blobs for suspect in self._check_bytes(fs, blob))]

    def _check_orphan(self, fs: RobustIO, blob: Blob) -> list[Suspect]:
        """Check a blob that no record describes."""
        problems = self._check_bytes(fs, blob)
        if problems:
            return problems

        def repair(fs: RobustIO) -> Action:
            # A record describes only one blob. If two blobs are intact, writing a record for either would orphan the
            # other.
            if self._has_intact_twin(fs, blob):
                return self._remove_twin(fs, blob)
            return self._replace_record(fs, self._layout.record(self._entry.sha256, blob.filename), [blob])

        return [Suspect(ProblemKind.ORPHANED, blob.path, self._entry.sha256, repair)]

    def _check_bytes(self, fs: RobustIO, blob: Blob) -> list[Suspect]:
        sha256 = self._entry.sha256
        try:
            if self._compute_sha256(fs, blob) in {None, sha256}:
                return []
        except CommitError:
            return [Suspect(ProblemKind.UNREADABLE, blob.path, sha256)]
        return [Suspect(ProblemKind.ALTERED, blob.path, sha256, lambda fs: self._quarantine_blob(fs, blob))]

    def _compute_sha256(self, fs: RobustIO, blob: Blob) -> str | None:
        """Return the sha256 of a blob, or ``None`` if it is missing.

        A blob with several hard links is read only once.
        """
        hashes = self._compute_hashes(fs, blob, ())
        return None if hashes is None else hashes["sha256"]

    def _compute_hashes(self, fs: RobustIO, blob: Blob, algorithms: Collection[str]) -> Mapping[str, str] | None:
        known = self._hashes_by_inode.get(blob.inode, {})
        if known is not None and not known.keys() >= {"sha256", *algorithms}:
            known = hash_file(fs.about(blob.filename), blob.path, algorithms, blob.size)
            self._hashes_by_inode[blob.inode] = known
        return known

    def _has_intact_twin(self, fs: RobustIO, blob: Blob) -> bool:
        """Return whether the record of a blob's name describes another, intact blob."""
        record = self._read_record(fs, blob.filename)
        if record is None:
            return False
        path = self._blob_path(record)
        twin = next((other for other in self._entry.blobs if other.path == path and other is not blob), None)
        if twin is None or twin.size != record.size:
            return False
        try:
            return self._compute_sha256(fs, twin) == self._entry.sha256
        except CommitError:
            return False

    # Repairs

    def _remove_twin(self, fs: RobustIO, blob: Blob) -> Action:
        action = remove_file(fs, blob.path)
        folder = os.path.dirname(blob.path)
        if folder != self._entry.folder:
            fs.remove_folder(folder)
        return action

    def _quarantine_blob(self, fs: RobustIO, blob: Blob) -> Action:
        """Quarantine a damaged blob, and delete the record that describes it."""
        action = quarantine(fs, self._layout, blob.path, blob.stat)
        # If an intact blob has replaced the damaged one, here or in a numbered folder, the record describes the intact
        # blob.
        if action is Action.QUARANTINED and fs.stat(blob.path) is None:
            record = self._read_record(fs, blob.filename)
            if record is not None and self._blob_path(record) == blob.path:
                fs.discard(self._layout.record(self._entry.sha256, blob.filename))
        return action

    def _replace_record(self, fs: RobustIO, path: str, blobs: list[Blob]) -> Action:
        """Write the record of the first intact blob, or delete the record if there is no such blob."""
        entry, system = self._entry, fs.system
        for blob in blobs:
            stat = fs.stat(blob.path)
            if stat is None or not modes.S_ISREG(stat.st_mode) or self._compute_sha256(fs, blob) != entry.sha256:
                continue
            record = Record(
                blob.filename,
                entry.sha256,
                stat.st_size,
                StatFingerprint(stat.st_mtime_ns, stat.st_ino, system.boot()),
                created=int(system.now()),
                place=self._layout.place(entry.sha256, blob.path),
            )
            write_record(fs.without_waiting(), self._layout, record, entry.used or entry.changed)
            return Action.ADOPTED
        return remove_file(fs, path)

    # Lookups

    def _blobs_named(self, name: str) -> list[Blob]:
        return [blob for blob in self._entry.blobs if blob.filename == name]

    def _read_record(self, fs: RobustIO, name: str) -> Record | None:
        """Return the record of a wheel, or ``None`` if it is missing, torn or unreadable."""
        data = read_optional(fs.without_waiting(), self._layout.record(self._entry.sha256, name), MAX_RECORD)
        return None if data is None else decode_record(data, self._entry.sha256)

    def _blob_path(self, record: Record) -> str:
        return self._layout.blob(record.sha256, record.filename, record.place)
