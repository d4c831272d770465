"""Read the rows of RECORD in pieces. The memory use does not depend on the size of RECORD."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator

# A row is a path, a hash and a size. The longest accepted path has 4,096 characters.
_LONGEST_LINE = 8192
# The longest hash, sha512 in base64, has 95 characters with its prefix.
_LONGEST_VALUES = 256
_SPARE_LINES = 10
# If a piece contains only line breaks, it is divided into this many strings.
_PIECE = 1 << 16


def iter_rows(pieces: Iterable[bytes]) -> Iterator[tuple[str, str, str]]:
    """Yield the path, hash and size of each row of RECORD, unparsed. Empty lines are skipped.

    Backslashes in paths are replaced by slashes, since some builders on Windows write backslashes.

    Raises:
        ValueError: if RECORD cannot be parsed.
        Exception: the errors of ``pieces``.
    """
    empty = 0
    reader = csv.reader(_iter_lines(pieces), strict=True)
    try:
        for number, row in enumerate(reader, 1):
            # Readers join the lines of a quoted path in different ways.
            if reader.line_num != number:
                raise ValueError(f"row {number} has several lines")
            if not row:
                # Some builders on Windows write an empty line after each row.
                empty += 1
                if empty > number - empty + _SPARE_LINES:
                    raise ValueError("most lines are empty")
                continue
            path, recorded_hash, size = row
            if len(recorded_hash) + len(size) > _LONGEST_VALUES:
                raise ValueError(f"the hash or size in row {number} is too long")
            yield path.replace("\\", "/"), recorded_hash, size
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _iter_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines without their ends, divided as :meth:`str.splitlines` divides the whole text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest = ""
    for piece in pieces:
        for start in range(0, len(piece), _PIECE):
            text = rest + decoder.decode(piece[start : start + _PIECE])
            # The last line may be incomplete, even if it ends in a carriage return.
            rest = (text.splitlines(keepends=True) or [""])[-1]
            if len(rest) > _LONGEST_LINE:
                raise ValueError(f"a line has more than {_LONGEST_LINE} characters")
            yield from text[: len(text) - len(rest)].splitlines()
    yield from (rest + decoder.decode(b"", final=True)).splitlines()
