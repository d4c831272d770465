"""Names: the layout recognises every name that it generates, and no other."""

from __future__ import annotations

import os
import string
from collections.abc import Callable
from pathlib import PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheels import wheel_filename

from wheelcache._fs.tempnames import OwnerTag, owner_of_spare, spare_name
from wheelcache._store.layout import (
    FolderPattern,
    Layout,
    is_blob,
    is_partial,
    is_place,
    is_record,
    is_sealed_counters,
    is_temporary,
    marker_path,
    origin_file,
)

SAME_EVERY_TIME = settings(derandomize=True, deadline=None, database=None, max_examples=60)
LAYOUT = Layout(os.path.abspath("cache"))

keys = st.text(max_size=20)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
owners = st.builds(
    OwnerTag.new, st.floats(0, 4e9), st.none() | st.text(max_size=5), owned=st.booleans()
)  # fmt: skip
filenames = st.from_regex(r"\A[a-zA-Z0-9_.]{1,9}-[0-9!+.]{1,5}(-[0-9])?-py3-none-any\.whl\Z")

GENERATED: dict[str, st.SearchStrategy[str]] = {
    "wheels": st.builds(LAYOUT.entry, digests),
    "trees": st.builds(LAYOUT.tree, digests, st.integers(0, 99)),
    "markers": st.builds(lambda *given: marker_path(LAYOUT.tree(*given)), digests, st.integers(0, 99)),
    "urls": st.builds(LAYOUT.pointer, keys),
    "metadata": st.builds(LAYOUT.metadata, keys),
    "partial": st.builds(LAYOUT.new_partial, keys, owners, keys),
    "origins": st.builds(lambda *given: origin_file(LAYOUT.new_partial(*given)), keys, owners, keys),
    "tmp": st.builds(LAYOUT.new_temporary, owners, st.none() | keys),
    "probes": st.builds(
        lambda owner, word: LAYOUT.new_temporary(owner, word=word), owners, st.sampled_from(["", "case", "long" * 50])
    ),
    "locks": st.builds(LAYOUT.lock, keys),
    "quarantine": st.builds(LAYOUT.quarantined, owners, st.text(min_size=1, max_size=300)),
}
FOLDERS = {"wheels", "trees"}
AREA_OF = {"markers": "trees", "origins": "partial", "probes": "tmp"}


def pattern_of(area: str) -> FolderPattern:
    folder = os.path.join(LAYOUT.version, AREA_OF.get(area, area))
    return next(pattern for pattern in LAYOUT.patterns() if pattern.folder == folder)


@pytest.mark.parametrize("area", GENERATED)
def test_every_generated_name_is_recognised(area: str) -> None:
    """The pattern of an area matches each name that the layout forms there, and the name of its shard."""
    pattern = pattern_of(area)

    @given(path=GENERATED[area])
    @SAME_EVERY_TIME
    def check(path: str) -> None:
        folder, name = os.path.split(path)
        assert pattern.is_ours(name, area in FOLDERS)
        if area != "probes":
            assert not pattern.is_ours(name, area not in FOLDERS) or is_temporary(name)
        if pattern.in_shards:
            folder, shard = os.path.split(folder)
            assert pattern.of_top().is_ours(shard, is_folder=True)
            assert not pattern.of_top().is_ours(shard, is_folder=False)
        assert folder == pattern.folder
        assert LAYOUT.is_own(os.path.basename(folder), is_folder=True)

    check()


def mutations(name: str) -> list[str]:
    """Return names that differ from a generated one by a character, in every kind of way."""
    stem, dot, ending = name.partition(".")
    return [
        name + "~",
        name + "\n",
        name + ".bak",
        "x" + name,
        " " + name,
        name[1:],
        name.replace(name[0], "g", 1),
        "\N{ARABIC-INDIC DIGIT ONE}" + name[1:],
        name.upper() if name.upper() != name else name.swapcase() + "x",
        f"{stem}{dot}{dot}{ending}x",
    ]


@pytest.mark.parametrize("area", [area for area in GENERATED if area != "quarantine"])
def test_a_name_that_differs_by_a_character_is_foreign(area: str) -> None:
    """The pattern of an area does not match a name with a character more, less or changed."""
    pattern = pattern_of(area)

    @given(path=GENERATED[area])
    @SAME_EVERY_TIME
    def check(path: str) -> None:
        name = os.path.basename(path)
        # An owner tag may have any number of digits, so another digit at its start makes another generated name.
        for mutated in mutations(name)[: 5 if area in {"tmp", "probes"} else None]:
            assert not pattern.is_ours(mutated, area in FOLDERS), mutated

    check()


@given(owner=owners, name=st.text(string.ascii_lowercase, min_size=1))
@SAME_EVERY_TIME
def test_only_a_name_with_an_owner_is_quarantined(owner: str, name: str) -> None:
    """A file in quarantine has any name after its owner tag. Without the tag, or without a name, it is foreign."""
    pattern = pattern_of("quarantine")
    assert pattern.is_ours(f"{owner}-{name}", is_folder=False)
    for foreign in (name, f"x{owner}-{name}", f"{owner}{name}", owner, f"{owner}-", f"{owner[1:11]}-{name}"):
        assert not pattern.is_ours(foreign, is_folder=False)


@given(filename=filenames)
@SAME_EVERY_TIME
def test_the_files_of_an_entry_have_wheel_names(filename: str) -> None:
    """A blob has the form of a wheel file name, and its record the same stem. Other names are foreign."""
    record = PurePath(LAYOUT.record("0" * 64, filename)).name
    assert (is_blob(filename), is_record(record)) == (True, True)
    for foreign in (f"{filename}~", f" {filename}", f"{filename}.json", filename.replace("-", "_"), ".whl"):
        assert not is_blob(foreign)
    for foreign in (f"{record}~", f" {record}", f"{record}~.json", record.replace("-", "_"), ".json"):
        assert not is_record(foreign)


@pytest.mark.parametrize(
    ("recognise", "ours", "foreign"),
    [
        (is_place, ["1", "9", "10"], ["0", "01", "", "-1", "1.", "\N{SUPERSCRIPT TWO}", "1\n"]),
        (is_sealed_counters, [f"tally-{OwnerTag.new(1e9, None)}.log"], ["tally.log", "tally-.log", "tally-mine.log"]),
        (is_partial, [os.path.basename(LAYOUT.new_partial("k", OwnerTag.new(1e9, None)))], ["mine.part", ".part"]),
        (is_temporary, [f"{OwnerTag.new(1e9, None)}.tmp"], ["mine.tmp", f"{OwnerTag.new(1e9, None)}-1.tmp", ".tmp"]),
    ],
    ids=["place", "counters", "partial", "temporary"],
)
def test_other_names(recognise: Callable[[str], bool], ours: list[str], foreign: list[str]) -> None:
    """The other patterns match the names that the layout forms, and no similar ones."""
    assert [name for name in ours if not recognise(name)] == []
    assert [name for name in foreign if recognise(name)] == []


def test_names_of_earlier_versions_are_recognised() -> None:
    """The files that every earlier version created are still swept."""
    owner = "1700000000-0123abcd-4711-89abcdef"
    assert pattern_of("tmp").is_ours(f"{owner}.tmp", is_folder=False)
    assert pattern_of("tmp").is_ours(f"{owner}-case.tmp", is_folder=False)
    assert pattern_of("tmp").is_ours(f"{owner}.01234567.tmp", is_folder=False)
    assert pattern_of("tmp").is_ours(f"{owner}.tmp", is_folder=True)
    assert pattern_of("quarantine").is_ours(f"{owner}-{wheel_filename()}", is_folder=False)
    assert pattern_of("partial").is_ours(f"{'0a' * 16}.{owner}.01234567.part", is_folder=False)
    assert pattern_of("partial").is_ours(f"{'0a' * 16}.{owner}.01234567.json", is_folder=False)
    assert pattern_of("locks").is_ours(f"{'0a' * 16}.lock", is_folder=False)
    assert LAYOUT.is_own(f"tally-{owner}.log", is_folder=False)
    assert LAYOUT.is_own("tally.log", is_folder=False)


@given(owner=owners)
@SAME_EVERY_TIME
def test_a_temporary_name_in_a_folder_of_the_caller(owner: str) -> None:
    """The owner is read only from a name that the library forms in folders of the caller."""
    name = spare_name(owner)
    assert owner_of_spare(name) == OwnerTag.of(owner)
    for foreign in (f"x{name}", f"{name}~", f"{name[:12]}mine-{name[12:]}", name.replace(".tmp", "-1.tmp"), owner):
        assert owner_of_spare(foreign) is None
