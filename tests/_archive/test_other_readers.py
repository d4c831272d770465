"""Accepted archives contain the same files for other readers of zip archives."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import FILENAME
from hostile import ODD
from marks import any_system
from zip_readers import READERS, composed, files_by, files_by_zipfile, is_installed, our_files

pytestmark = any_system


@pytest.mark.parametrize("reader", READERS)
def test_odd_wheels_have_the_same_files_for_other_readers(reader: str, tmp_path: Path) -> None:
    """Every unusual wheel that is accepted has the same files for unzip, bsdtar and 7z as for zipfile and us."""
    if not is_installed(reader):
        pytest.skip(f"this system has no {READERS[reader][0]}")
    source = tmp_path / FILENAME
    for number, (title, make) in enumerate(ODD.items()):
        source.write_bytes(make())
        ours = our_files(source.read_bytes())
        assert ours == files_by_zipfile(source), title
        assert composed(ours) == files_by(reader, source, tmp_path / f"{number}"), title
