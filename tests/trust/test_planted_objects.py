"""Objects that another user planted in the cache: no call reads, writes or deletes anything outside, or hangs."""

from __future__ import annotations

import sys

import pytest
from marks import needs_root

if sys.platform != "linux":
    pytest.skip("objects are planted on Linux only, where the memory of a call can be limited", allow_module_level=True)

from planted import KINDS, USERS, product, selection
from planting import check

OTHERS = [users for users in USERS if users != "alone"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_object_harms_nobody(kind: str) -> None:
    """Every call and every area, at least once for each kind of object."""
    check("alone", selection(kind))


@needs_root
@pytest.mark.parametrize("users", OTHERS)
def test_an_object_of_another_user_harms_nobody(users: str) -> None:
    """A part of the same combinations for root in a user's cache, and for users of a group's cache."""
    everything = [combination for kind in KINDS for combination in selection(kind)]
    check(users, everything[OTHERS.index(users) :: 3 * len(OTHERS)])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "users", [pytest.param(users, marks=[needs_root] if users in OTHERS else []) for users in USERS]
)
def test_no_combination_harms_anybody(users: str, kind: str) -> None:
    """All combinations of areas, kinds of objects and calls."""
    check(users, product(kind))
