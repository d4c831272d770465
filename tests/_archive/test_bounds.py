"""The memory, folders and rows that a wheel can claim are bounded by its size."""

from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Callable

import pytest
from archives import FILENAME, Entry, record_of, wheel, wheel_entries
from hostile import A_ROW, nested, with_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import any_system

from wheelcache import InvalidWheelError, UnsafeWheelError
from wheelcache._archive.record import iter_rows
from wheelcache._archive.wheel import WheelArchive, WheelFile

pytestmark = any_system


def files_of(data: bytes) -> list[WheelFile]:
    """Return the files of a wheel in memory."""
    archive = WheelArchive(lambda at, count: data[at : at + count], len(data), FILENAME, operation="unpack")
    return archive.files()


@pytest.mark.parametrize(
    ("entries", "is_accepted"),
    [
        ([*nested(41, 97), Entry("e/" * 22 + "f")], True),  # 3,999 folders, and .dist-info
        ([*nested(41, 97), Entry("e/" * 23 + "f")], False),
        (nested(1000, 4), True),  # of 1,003 members
        (nested(1000, 5), False),
        (nested(33, 16, "d" * 250), True),
        (nested(35, 16, "d" * 250), False),
        (nested(500, 100), False),
        ([Entry(f"demo/{n}" + "n" * 240, b"") for n in range(600)], True),
        (nested(1100, 4, "d" * 160), True),  # a little below 1 kB for each member
        (nested(1100, 4, "d" * 180), False),
    ],
)
def test_the_folders_of_a_wheel_are_bounded_by_its_members(entries: list[Entry], is_accepted: bool) -> None:
    """A wheel may have 4,000 folders and 1 MB of their paths, or 4 folders and 1 kB for each member."""
    data = wheel(entries)
    if is_accepted:
        assert len(files_of(data)) == len(entries) + 3
    else:
        with pytest.raises(UnsafeWheelError, match=r"more than \d+ folders or \d+ bytes of paths"):
            files_of(data)


@pytest.mark.parametrize(
    "more",
    [
        A_ROW * 200_000,
        "".join(f"demo/{n}.py,,\n" for n in range(400_000)),
        "".join(f"{n}/,,\n" for n in range(400_000)),
        "x" * (16 << 20),
        '"' + "\n" * (16 << 20),
        "\r\n" * (4 << 20),
        f"demo/a.py,{'x' * (16 << 20)},\n",
    ],
    ids=["one row", "rows of files", "rows of folders", "one line", "one quoted row", "empty lines", "one hash"],
)
def test_a_large_record_needs_little_memory(more: str) -> None:
    """A RECORD of many megabytes that compresses well is refused without being held in memory."""
    data = with_rows(more)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidWheelError, match=r"RECORD"):
            files_of(data)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # the size of the largest RECORD
    finally:
        tracemalloc.stop()


def test_empty_lines_are_not_rows() -> None:
    """An empty line may follow each row, as some builders on Windows write them."""
    entries = [Entry(f"demo/{n}.py") for n in range(100)]
    text = record_of(wheel_entries(entries)[:-1])
    assert len(files_of(wheel(entries, record=text.replace("\n", "\r\r\n")))) == 103


def parsed(call: Callable[[], object]) -> object:
    try:
        return call()
    except (ValueError, csv.Error):
        return None


PIECES = st.sampled_from(["a", "é", "日", ",", ",,", '"', "\r", "\n", "\r\n", "\x0b", "\u2028", "a,b,c\n", "\\", "/"])


@settings(deadline=None)
@given(text=st.lists(PIECES, max_size=30).map("".join), size=st.integers(1, 9))
def test_rows_are_the_same_in_pieces(text: str, size: int) -> None:
    """Rows are those of csv for the whole text, however it is divided, except that no row has several lines."""
    data = text.encode()
    whole = parsed(lambda: list(csv.reader(text.splitlines(), strict=True)))
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    ours = parsed(lambda: [list(row) for row in iter_rows(pieces)])
    if ours is None:
        assert whole is None or any(len(row) not in (0, 3) for row in whole) or '"' in text
    else:
        assert ours == [[row[0].replace("\\", "/"), *row[1:]] for row in whole if row]


def test_folders_are_counted_per_file() -> None:
    """Members that are folders do not raise the number of folders that a wheel may have."""
    data = wheel([*nested(1000, 5), *(Entry(f"more/{number}/", b"") for number in range(1000))])
    with pytest.raises(UnsafeWheelError, match="more than 4012 folders"):
        files_of(data)


def test_two_members_with_a_name_of_one_character_are_refused() -> None:
    """A repeated name is noticed even if it has only one character, for which Python keeps one string."""
    data = wheel([Entry("a", b"one"), Entry("a", b"two")])
    with pytest.raises(UnsafeWheelError, match="'a' occurs twice"):
        files_of(data)
