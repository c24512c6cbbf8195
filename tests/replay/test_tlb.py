"""The TLB: by hand, against lists in order of use, and in replays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.replay.tlb import CLEAN, DIRTY, MISS, TlbConfig, empty, flush, use
from support.tlb import Lists

ROWS = 4
#: L1: 2 sets of 2 (4 KiB), 1 of 1 (2 MiB); L2: 2 sets of 3.
SMALL = TlbConfig(4, 2, 1, 1, 6, 3)


def touch(tlb, page, huge=False, write=False):
    return int(use(tlb, np.uint64(page), huge, np.uint64(write)))


def test_ways_fall_out_in_the_order_of_use():
    tlb = empty(SMALL)
    # Pages 0, 2, 4, 6 share a set of each level. L1 keeps two of them, L2 three.
    assert [touch(tlb, p) for p in (0, 2, 0, 4)] == [MISS, MISS, CLEAN, MISS]
    # L1 holds 4 and 0, L2 4, 2 and 0: a hit in L1 is no use of L2. So 2 comes from L2, and puts 0 out of L1 ...
    assert touch(tlb, 2) == CLEAN
    # ... where L2's order is 2, 4, 0: page 6 puts 0 out of L2 as well.
    assert [touch(tlb, p) for p in (6, 0)] == [MISS, MISS]
    # Odd pages are another set.
    assert [touch(tlb, p) for p in (1, 1)] == [MISS, CLEAN]


def test_a_page_may_be_in_l1_alone():
    tlb = empty(TlbConfig(8, 4, 1, 1, 2, 1))
    # One way in each of L2's sets: 2 puts 0 out of L2, but not out of L1.
    assert [touch(tlb, p) for p in (0, 2, 0)] == [MISS, MISS, CLEAN]


def test_stores_leave_entries_dirty():
    tlb = empty(SMALL)
    assert [touch(tlb, 0), touch(tlb, 0, write=True), touch(tlb, 0, write=True), touch(tlb, 0)] == [
        MISS,
        CLEAN,
        DIRTY,
        DIRTY,
    ]
    # The L2 entry learned of it: out of L1 and back, it is dirty still.
    assert [touch(tlb, p) for p in (2, 4)] == [MISS, MISS]
    assert touch(tlb, 0) == DIRTY


def test_huge_and_small_entries_are_apart():
    tlb = empty(SMALL)
    assert [touch(tlb, 512), touch(tlb, 512, huge=True), touch(tlb, 700, huge=True), touch(tlb, 512)] == [
        MISS,
        MISS,
        CLEAN,
        CLEAN,
    ]
    flush(tlb, np.array([1]))
    assert [touch(tlb, 512), touch(tlb, 700, huge=True)] == [MISS, MISS]


STEP = st.one_of(
    st.tuples(st.integers(0, 2047), st.booleans(), st.booleans()),
    st.tuples(st.sampled_from([0, 1, 2, 3, 4, 512, 514, 1024]), st.booleans(), st.booleans()),
    st.sets(st.integers(0, ROWS - 1), min_size=1),
)


@settings(max_examples=100)
@given(
    st.lists(STEP, max_size=80),
    st.sampled_from([SMALL, TlbConfig(1, 1, 2, 1, 4, 4), TlbConfig(8, 4, 4, 4, 16, 4)]),
)
def test_it_is_what_lists_in_order_of_use_are(steps, config):
    tlb, lists = empty(config), Lists(config)
    for step in steps:
        if isinstance(step, set):
            flush(tlb, np.array(sorted(step)))
            lists.flush(step)
        else:
            assert touch(tlb, *step) == lists.use(*step)


@pytest.mark.parametrize(
    "wrong", [{"l1_small": 60}, {"l2_ways": 16, "l2": 1024}, {"l1_huge": 0}, {"l2": 1537}]
)
def test_impossible_ones_are_refused(wrong):
    with pytest.raises(UsageError, match="no power of two"):
        TlbConfig(**wrong)
