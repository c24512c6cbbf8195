"""What a collapse adds to memory: a page for each that the process has not for itself alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits import pagemap as pm
from secondsight.live.act.added import added_bytes, added_pages

OWN, SHARED, SWAPPED, ZERO = (
    int(pm.PRESENT | pm.EXCLUSIVE),
    int(pm.PRESENT),
    int(pm.SWAPPED),
    int(pm.PRESENT) | 5,
)


@pytest.mark.parametrize(
    ("word", "each"),
    [(OWN | 77, 0), (SHARED, 1), (SWAPPED, 1), (SWAPPED | int(pm.EXCLUSIVE), 1), (ZERO, 1), (0, 1)],
)
def test_a_block_of_one_kind(word, each):
    words = np.full((1, 512), word, np.uint64)
    assert added_pages(words).tolist() == [512 * each] and added_bytes(words[0]) == 512 * each * 4096


@given(st.lists(st.sampled_from([OWN, SHARED, SWAPPED, 0]), min_size=512, max_size=512))
def test_blocks_are_counted_apart(kinds):
    words = np.array([kinds, [OWN] * 512], np.uint64)
    assert added_pages(words).tolist() == [512 - kinds.count(OWN), 0]
    assert added_bytes(words[0]) == 4096 * (512 - kinds.count(OWN))


def test_no_blocks_add_nothing():
    assert added_pages(np.zeros((0, 512), np.uint64)).tolist() == []
