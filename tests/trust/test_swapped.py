"""A second process exchanges a folder of the cache with a link as fast as possible, while a call uses the folder."""

from __future__ import annotations

import sys

import pytest
from marks import needs_root

if sys.platform != "linux":
    pytest.skip("only Linux can exchange two names atomically", allow_module_level=True)

from planted import SWAPPED, SWAPPED_BY_OTHERS
from planting import check


@pytest.mark.parametrize("call", SWAPPED)
def test_an_exchanged_folder_redirects_nothing(call: str) -> None:
    """Nothing outside changes, or gets into a result."""
    rounds = 6 if len(SWAPPED[call]) < 8 else 2
    check("alone", [(area, call, rounds) for area in SWAPPED[call]])


@needs_root
@pytest.mark.parametrize("users", ["root in a user's cache", "a member of a group"])
def test_another_user_cannot_redirect_a_call(users: str) -> None:
    """The owner of a cache cannot redirect root, nor a member of a group another member."""
    check(users, [(area, call, 2) for call, areas in SWAPPED_BY_OTHERS.items() for area in areas])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", SWAPPED)
def test_an_exchanged_folder_redirects_nothing_in_many_rounds(call: str) -> None:
    """The same, often enough to hit every moment of a call."""
    check("alone", [(area, call, 200) for area in SWAPPED[call]])
