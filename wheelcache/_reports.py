"""Reports of the operations that process a whole cache."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ._models import CachedWheel


@dataclass(frozen=True)
class Stats:
    """The size and the usage of a cache. Sizes are in bytes.

    Attributes:
        wheels: the number of entries.
        wheel_bytes: the size of the wheels.
        trees: the number of unpacked wheels.
        tree_bytes: the size of the unpacked wheels.
        partial_bytes: the size of partial downloads and temporary files.
        quarantine_bytes: the size of the damaged files in quarantine.
        hits: the number of fetched wheels that were in the cache, since it was created.
        misses: the number of fetched wheels that were not in the cache.
        bytes_saved: the size of the fetched wheels that were in the cache.

    A process writes the last three counters after a miss and when it closes the cache. If a process is killed, its hits
    since the last write are lost.
    """

    wheels: int
    wheel_bytes: int
    trees: int
    tree_bytes: int
    partial_bytes: int
    quarantine_bytes: int
    hits: int
    misses: int
    bytes_saved: int


@dataclass(frozen=True)
class Check:
    """One check of ``doctor``.

    Attributes:
        name: the subject, such as ``"hard link"`` or ``"free space"``.
        ok: whether the result is good, or harmless to the cache.
        detail: the result in words.
        code: the error code of a refused operation, such as ``"winerror 50"`` or ``"errno 95"``. Empty if no operation
            was refused.
        seconds: the duration, including waits for holders.
    """

    name: str
    ok: bool
    detail: str
    code: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class DoctorReport:
    """The results of the checks that ``doctor`` made in a cache folder.

    Attributes:
        checks: the checks in order. The last ones show which methods the cache will use.
        advice: recommended actions, the most useful first. May be empty.
        ok: whether every check is ``ok``.
    """

    checks: tuple[Check, ...]
    advice: tuple[str, ...]
    ok: bool


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was not removed, because it is in use, not ours, or not safe to read.

    Attributes:
        path: the file that is held open, the folder that cannot be read, or the foreign file or folder.
        digest: the digest of its wheel, ``"sha256:<hex>"``, or ``None`` if it does not belong to a wheel.
        reason: the reason in words.
    """

    path: Path
    digest: str | None
    reason: str


@dataclass(frozen=True)
class PruneReport:
    """The files that ``prune``, ``remove`` or ``clear`` removed, or would remove in a dry run.

    Attributes:
        removed: the wheels, least recently used first. After a removal, their paths no longer exist.
        skipped: the files and folders that were kept because they are in use, or because wheelcache did not create
            them.
        freed: the size of all removed files in bytes, including leftovers.
        swept: the leftovers: temporary files, old partial downloads and quarantine, stale locks, pointers to missing
            entries, and links and special files with names of the cache.
        dry_run: whether the call was a dry run. A dry run removes nothing.
    """

    removed: tuple[CachedWheel, ...]
    skipped: tuple[Skipped, ...]
    freed: int
    swept: tuple[Path, ...]
    dry_run: bool


class ProblemKind(StrEnum):
    """The kinds of problems in a cache."""

    MISSING = "missing"
    """A wheel has a record but no blob, or a file of a tree is missing."""
    SHORT = "short"
    """A wheel is smaller than the size in its record."""
    ALTERED = "altered"
    """The bytes do not match a digest that is stored for them, or a marker does not match its wheel."""
    TORN = "torn"
    """A record, a marker or a pointer cannot be parsed."""
    ORPHANED = "orphaned"
    """A wheel has no record, a tree has had no marker for over a day, or a pointer points to a missing wheel."""
    FOREIGN = "foreign"
    """wheelcache did not create this file or folder. A foreign folder is never moved."""
    UNSAFE = "unsafe"
    """A link or special file has the name of a file or folder of the cache. It is never followed."""
    UNREADABLE = "unreadable"
    """The file or folder cannot be read, because another process holds it open or access is denied."""


class Action(StrEnum):
    """The action that ``verify`` took on a problem."""

    NONE = "none"
    """No action was taken, because no repair was requested or the repair was refused."""
    QUARANTINED = "quarantined"
    """The file was moved into quarantine. The next fetch downloads the wheel again."""
    REMOVED = "removed"
    """The file was deleted."""
    ADOPTED = "adopted"
    """The record of an intact wheel was written again."""


@dataclass(frozen=True)
class Problem:
    """A problem in a cache.

    Attributes:
        kind: the kind of the problem.
        path: the file or folder.
        digest: the digest of its wheel, ``"sha256:<hex>"``, or ``None`` if it does not belong to a wheel.
        action: the action that was taken.
    """

    kind: ProblemKind
    path: Path
    digest: str | None
    action: Action = Action.NONE


@dataclass(frozen=True)
class VerifyReport:
    """The problems that a check of every file found.

    Attributes:
        checked: the number of digests and trees that were checked.
        problems: the problems, sorted by path.
    """

    checked: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the cache has no unrepaired problems."""
        return all(problem.action is not Action.NONE for problem in self.problems)
