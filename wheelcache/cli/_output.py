"""Print tables, text and JSON on stdout, and errors on stderr."""

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
# The width of a table in a pipe, because a program that reads it needs whole file names.
_UNLIMITED_WIDTH = 10_000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: the heading.
        justify: the alignment.
        wrap: whether the text is wrapped if the terminal is too narrow.
    """

    title: str
    justify: Literal["left", "right"] = "left"
    wrap: bool = False


def format_seconds(seconds: float) -> str:
    """Return a human-readable duration, such as ``"<1 ms"``, ``"40 ms"`` or ``"7.3 s"``."""
    milliseconds = round(seconds * _MILLISECONDS)
    if milliseconds >= _MILLISECONDS:
        return f"{seconds:.1f} s"
    return f"{milliseconds} ms" if milliseconds else "<1 ms"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``"1 wheel"`` or ``"2 wheels"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal. A closed stream is not."""
    try:
        return stream.isatty()
    except ValueError:  # the stream is closed
        return False


def console(stream: TextIO) -> Console:
    """Return a console that wraps lines on a terminal only, and never truncates them elsewhere."""
    from rich.console import Console

    terminal = is_terminal(stream)
    width = None if terminal else _UNLIMITED_WIDTH
    return Console(file=stream, width=width, force_terminal=terminal, highlight=False, markup=False)


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout, without borders, so that programs can also split it."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.title, justify=column.justify, overflow="fold", no_wrap=not column.wrap, min_width=len(column.title)
        )
    for row in rows:
        table.add_row(*(_escape(cell, sys.stdout) for cell in row))
    console(sys.stdout).print(table)


def print_line(text: str) -> None:
    """Print a line on stdout."""
    sys.stdout.write(_escape(text, sys.stdout) + "\n")


def print_json(value: object) -> None:
    """Print a value on stdout as one JSON document in ASCII, so that every code page can encode it."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_error(message: str) -> None:
    """Print an error on stderr as one redacted line, after flushing stdout, so that it follows the other output."""
    sys.stdout.flush()
    line = redact(" ".join(message.split()))
    sys.stderr.write(_escape(f"error: {line}", sys.stderr) + "\n")
    sys.stderr.flush()


def _escape(text: str, stream: TextIO) -> str:
    """Escape characters that the stream cannot encode, and control characters that a server may have sent."""
    encoding = stream.encoding or "ascii"
    safe = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return safe.encode(encoding, "backslashreplace").decode(encoding)
