"""Progress: what a caller is told while it waits, and how it says stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Phase(StrEnum):
    """What is being done."""

    WAITING = "waiting"
    """Another thread or process is downloading this wheel, or a refused try is about to be made again."""
    DOWNLOADING = "downloading"
    """Bytes are coming in; ``done`` of ``total`` are here."""
    CHECKING = "checking"
    """A cached wheel is hashed again; ``done`` of ``total`` bytes are."""
    DONE = "done"
    """The wheel is there. The last event of every wheel that did not fail."""


@dataclass(frozen=True)
class ProgressEvent:
    """One step of one wheel.

    Attributes:
        wheel: the wheel's file name.
        phase: what is being done.
        done: bytes so far; 0 while waiting.
        total: bytes in all, ``None`` where nobody knows.
        detail: for people: ``"for process 4711"``, ``"HTTP 503, again in 2.1 s"``; empty mostly.
    """

    wheel: str
    phase: Phase
    done: int = 0
    total: int | None = None
    detail: str = ""


Progress: TypeAlias = Callable[[ProgressEvent], object]
"""Takes an event. It is called from the thread that does the work; what it raises stops that fetch cleanly."""
