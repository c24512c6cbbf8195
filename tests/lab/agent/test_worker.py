"""What the agent reads off pagemap."""

from __future__ import annotations

import numpy as np

from secondsight.lab.agent.worker import PM_PRESENT, PM_SWAPPED, swap_slots


def entries(*slots: int):
    """pagemap's entries: a slot of swap area 0, or -1 (nothing is there)."""
    return np.array([0 if slot < 0 else int(PM_SWAPPED) | slot << 5 for slot in slots], np.uint64)


def test_slots_are_runs_in_the_pages_order():
    assert swap_slots(entries(8, 9, 10, 4, 5, 12)) == [(8, 3), (4, 2), (12, 1)]


def test_pages_that_went_to_no_slot_keep_their_place():
    assert swap_slots(entries(7, 8, -1, -1, 9, -1)) == [(7, 2), (-1, 2), (9, 1), (-1, 1)]
    assert swap_slots(entries(-1, 0, 1)) == [(-1, 1), (0, 2)]


def test_nothing_is_said_where_nothing_is_in_swap():
    assert swap_slots(entries()) == [] == swap_slots(entries(-1, -1))
    assert swap_slots(np.array([int(PM_PRESENT) | 8 << 5], np.uint64)) == []
