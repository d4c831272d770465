"""Progress on a terminal: a bar for all wheels, and one for each that is on its way."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from rich.filesize import decimal

from wheelcache import Phase, ProgressEvent

from . import _output

if TYPE_CHECKING:
    from typing import Self

    from rich.progress import Progress, TaskID


class Bars:
    """Bars on stderr while the block runs, and nothing of them afterwards.

    A wheel is told from the others by a number, since two of them can have one file name.

    Args:
        total: how many wheels there are.
        shown: whether there is a person to see them; without, nothing is printed.
    """

    def __init__(self, total: int, *, shown: bool) -> None:
        self._total = total
        self._finished = 0
        self._lock = threading.Lock()
        self._tasks: dict[int, TaskID] = {}
        self._progress = _progress() if shown else None
        if self._progress is not None:
            self._all = self._progress.add_task("in all", total=total, detail=self._count())

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, number: int, event: ProgressEvent) -> None:
        """Show what a wheel is at. One that is there at once gets no bar."""
        if self._progress is None or event.phase is Phase.DONE:
            return
        with self._lock:
            if number not in self._tasks:
                self._tasks[number] = self._progress.add_task(event.wheel, total=None, detail="")
        self._progress.update(self._tasks[number], completed=event.done, total=event.total, detail=_detail(event))

    def finish(self, number: int) -> None:
        """Count a wheel, and take its bar away."""
        if self._progress is None:
            return
        with self._lock:
            self._finished += 1
            if number in self._tasks:
                self._progress.remove_task(self._tasks.pop(number))
            self._progress.update(self._all, completed=self._finished, detail=self._count())

    def _count(self) -> str:
        return f"{self._finished}/{_output.count(self._total, 'wheel')}"


def _detail(event: ProgressEvent) -> str:
    if event.phase is not Phase.DOWNLOADING:
        return event.detail or event.phase
    return decimal(event.done) + (f"/{decimal(event.total)}" if event.total else "")


def _progress() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=3)),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TextColumn(
            "{task.fields[detail]}", markup=False, justify="right", table_column=Column(no_wrap=True, min_width=17)
        ),
        console=_output.console(sys.stderr),
        transient=True,
        expand=True,
    )
