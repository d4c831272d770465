"""What the operations that look at a whole cache report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ._models import CachedWheel


@dataclass(frozen=True)
class Stats:
    """What a cache holds, and what it has been good for. Sizes are bytes.

    Attributes:
        wheels: entries.
        wheel_bytes: their size.
        trees: unpacked wheels.
        tree_bytes: their size.
        partial_bytes: downloads under way or left over, and other temporary files.
        quarantine_bytes: damaged files that were put aside.
        hits: how often a wheel that was fetched was there, since the cache was made.
        misses: how often it was not.
        bytes_saved: the size of the wheels that were found.

    The last three count what processes wrote down when they missed or closed; a killed one takes its last hits along.
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
    """One thing that ``doctor`` looked at.

    Attributes:
        name: what it is: ``"hard link"``, ``"free space"``.
        ok: it is as it should be, or the cache does as well without.
        detail: what was found, for people.
        code: with which code the system refused, ``"winerror 50"`` or ``"errno 95"``; empty where it did not.
        seconds: how long it took, waits for who held the file included.
    """

    name: str
    ok: bool
    detail: str
    code: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class DoctorReport:
    """How a cache folder does where it is.

    Attributes:
        checks: everything that was looked at, in order; the last ones say which ways the cache will take.
        advice: what to do, the most useful first; empty where there is nothing to do.
        ok: every check is.
    """

    checks: tuple[Check, ...]
    advice: tuple[str, ...]
    ok: bool


@dataclass(frozen=True)
class Skipped:
    """Something that should have gone and is in use.

    Attributes:
        path: what it is: the file that is held, or the folder that cannot be looked into.
        digest: of the wheel, ``"sha256:<hex>"``; ``None`` where it belongs to none.
        reason: why, for people.
    """

    path: Path
    digest: str | None
    reason: str


@dataclass(frozen=True)
class PruneReport:
    """What went, or would go. Sizes are bytes.

    Attributes:
        removed: the wheels, oldest use first; their paths lead nowhere any more.
        skipped: what was in use and stays.
        freed: the bytes of all that went, leftovers too.
        swept: the leftovers: temporary files, old partial downloads and quarantine, stale locks, pointers to nothing.
        dry_run: whether nothing was done.
    """

    removed: tuple[CachedWheel, ...]
    skipped: tuple[Skipped, ...]
    freed: int
    swept: tuple[Path, ...]
    dry_run: bool


class ProblemKind(StrEnum):
    """What is wrong with a file of a cache."""

    MISSING = "missing"
    """A wheel has a record and no bytes, or a tree lacks a file."""
    SHORT = "short"
    """A wheel has fewer bytes than its record says."""
    ALTERED = "altered"
    """The bytes are not those of the digest."""
    TORN = "torn"
    """A record, a tree's marker or a pointer that does not parse."""
    ORPHANED = "orphaned"
    """A wheel without a record, a tree without a marker for over a day, or a pointer to no wheel."""
    FOREIGN = "foreign"
    """A file or folder that wheelcache does not make, in a tree or elsewhere; a folder stays where it is."""
    UNREADABLE = "unreadable"
    """It cannot be looked at: held, or denied."""


class Action(StrEnum):
    """What was done about a problem."""

    NONE = "none"
    """Nothing: it was not asked for, or it could not be done just now."""
    QUARANTINED = "quarantined"
    """The file was put aside; a fetch gets the wheel again."""
    REMOVED = "removed"
    """The file was deleted."""
    ADOPTED = "adopted"
    """The bytes are right, and got a record again."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong in a cache.

    Attributes:
        kind: what.
        path: the file or folder.
        digest: of the wheel that it belongs to, ``"sha256:<hex>"``, or ``None``.
        action: what was done about it.
    """

    kind: ProblemKind
    path: Path
    digest: str | None
    action: Action = Action.NONE


@dataclass(frozen=True)
class VerifyReport:
    """What a look at every byte has found.

    Attributes:
        checked: how many wheels, by digest, and trees were looked at.
        problems: what is wrong, in the order of their paths.
    """

    checked: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong now: no problem was found, or each was repaired."""
        return all(problem.action is not Action.NONE for problem in self.problems)
