"""Show progress bars on a terminal, one for all wheels and one for each wheel in progress."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from rich.filesize import decimal

from wheelcache import Phase, ProgressEvent

from . import _output

if TYPE_CHECKING:
    from typing import Self

    from rich.progress import Progress, TaskID


class ProgressBars:
    """Progress bars on stderr, removed at the end of the block.

    A wheel is identified by its position, since two wheels can have the same file name. One thread at a time may call
    the methods.

    Args:
        total: the number of wheels.
        enabled: whether to print anything.
    """

    def __init__(self, total: int, *, enabled: bool) -> None:
        self._total = total
        self._finished: set[int] = set()
        self._tasks: dict[int, TaskID] = {}
        self._progress = _create_progress() if enabled else None
        if self._progress is not None:
            self._overall = self._progress.add_task("total", total=total, detail=self._count())

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, position: int, event: ProgressEvent) -> None:
        """Show an event of a wheel. Its bar is created at the first event, so that an immediate hit has no bar."""
        if self._progress is None:
            return
        if position not in self._tasks:
            self._tasks[position] = self._progress.add_task(event.wheel, total=None, detail="")
        self._progress.update(self._tasks[position], completed=event.done, total=event.total, detail=_detail(event))

    def hide(self, position: int) -> None:
        """Remove the bar of a wheel."""
        if self._progress is not None and position in self._tasks:
            self._progress.remove_task(self._tasks.pop(position))

    def finish(self, position: int) -> None:
        """Remove the bar of a wheel, and count the wheel."""
        self.hide(position)
        self._finished.add(position)
        if self._progress is not None:
            self._progress.update(self._overall, completed=len(self._finished), detail=self._count())

    def _count(self) -> str:
        return f"{len(self._finished)}/{_output.count(self._total, 'wheel')}"


def _detail(event: ProgressEvent) -> str:
    if event.phase is not Phase.DOWNLOADING:
        return event.detail or event.phase
    return decimal(event.done) + (f"/{decimal(event.total)}" if event.total else "")


def _create_progress() -> Progress:
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
