"""Everything that is printed: tables and JSON on stdout, errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from ._redact import redact

if TYPE_CHECKING:
    from rich.console import Console

_MILLISECONDS = 1000
# A pipe has no width: a name that was cut would be no name any more.
_ENDLESS = 10_000


@dataclass(frozen=True)
class Column:
    """A column of a table; the one that is ``long`` is folded where a terminal is too narrow, the others never."""

    title: str
    justify: Literal["left", "right"] = "left"
    long: bool = False


def human_seconds(seconds: float) -> str:
    """Return a time as people read it: ``"<1 ms"``, ``"40 ms"``, ``"7.3 s"``."""
    milliseconds = round(seconds * _MILLISECONDS)
    if milliseconds >= _MILLISECONDS:
        return f"{seconds:.1f} s"
    return f"{milliseconds} ms" if milliseconds else "<1 ms"


def count(number: int, noun: str) -> str:
    """Return ``"1 wheel"``, ``"2 wheels"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person reads this, as it comes."""
    try:
        return stream.isatty()
    except ValueError:
        return False  # it was closed


def console(stream: TextIO) -> Console:
    """Return a console that folds on a terminal, and neither folds nor cuts elsewhere."""
    from rich.console import Console

    terminal = is_terminal(stream)
    return Console(
        file=stream, width=None if terminal else _ENDLESS, force_terminal=terminal, highlight=False, markup=False
    )


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout, without lines, so that it can be read by people and split by programs."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.title, justify=column.justify, overflow="fold", no_wrap=not column.long, min_width=len(column.title)
        )
    for row in rows:
        table.add_row(*(_printable(cell, sys.stdout) for cell in row))
    console(sys.stdout).print(table)


def print_line(text: str) -> None:
    """Print a line on stdout."""
    sys.stdout.write(_printable(text, sys.stdout) + "\n")


def print_json(value: object) -> None:
    """Print a value on stdout as one JSON document, in ASCII, so that no code page can refuse it."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_error(message: str) -> None:
    """Print an error on stderr, as one line, after what stdout has so far."""
    sys.stdout.flush()
    line = redact(" ".join(message.split()))
    sys.stderr.write(_printable(f"error: {line}", sys.stderr) + "\n")
    sys.stderr.flush()


def _printable(text: str, stream: TextIO) -> str:
    """Escape what the stream cannot take, and what would tell a terminal to do something: it may come from a server."""
    encoding = stream.encoding or "ascii"
    safe = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    return safe.encode(encoding, "backslashreplace").decode(encoding)
