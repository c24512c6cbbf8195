"""The TLB: by hand, against lists in order of use, and in replays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.replay import HOST, Configuration, replay
from secondsight.replay.tlb import CLEAN, DIRTY, MISS, TlbConfig, empty, flush, use
from secondsight.trace.kinds import Verb
from support.events import CR, CW, GR, GW, trace, visits
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


def one(rows, rules="6.1", spaces=("process",), tlb=None, **fields):
    result = replay(trace(rows, spaces), [Configuration.of(rules, tlb=tlb or TlbConfig(), **fields)])
    return result, result.configurations[0].total


def test_walks_by_hand():
    # Block 0: three pages, one of them thrice; the store to page 2 replaces the zero page that the load mapped, which is a walk of its own.
    # Collapsed at 10 s, which flushes: one walk more.
    rows = [
        (0, 0, 0, 0, CW),
        (1, 0, 0, 1, CW),
        (2, 0, 0, 1, CR),
        (3, 0, 0, 1, CR),
        (4, 0, 0, 2, CR),
        (5, 0, 0, 2, CW),
    ]
    rows += [(11, 0, 0, 0, CR), (12, 0, 0, 1, CR), (13, 0, 0, 2, CR)]
    result, total = one(rows)
    assert visits(result)[0] == (10, 0, 0, "succeeded", "succeeded")
    assert (total.walks, total.walks_huge, total.walk_references) == (5, 1, 4 * 4 + 3)
    assert result.data[0].blocks.walks.tolist() == [5]


@pytest.mark.parametrize(
    ("mmu", "guest_huge", "walks", "references"),
    # Two small pages before the collapse at 10 s; then one entry for both only where the guest's page is huge too.
    [
        ("npt", False, 4, 2 * 24 + 2 * 19),
        ("npt", True, 3, 2 * 19 + 15),
        ("shadow", False, 4, 4 * 4),
        ("shadow", True, 4, 4 * 4),
    ],
)
def test_walks_of_a_guest(mmu, guest_huge, walks, references):
    import msgspec

    rows = [(0, 0, 0, 0, GW), (1, 0, 0, 1, GW), (11, 0, 0, 0, GR), (12, 0, 0, 1, GR)]
    config = msgspec.structs.replace(HOST, mmu=mmu)
    result, total = one(rows, spaces=["vm"], tlb=TlbConfig(guest_huge=guest_huge), config=config)
    assert visits(result)[0][3:] == ("succeeded", "succeeded")
    assert (total.walks, total.walk_references) == (walks, references)


def test_clear_refs_flushes_no_tlb():
    # The page is read all the time, but out of the TLB: its accessed bit stays clear after clear_refs.
    rows = [(0, 0, 0, 0, CW), (3, 0, 0, 0, Verb.CLEAR_REFS, 0), (5, 0, 0, 0, CR), (6, 0, 0, 0, CR)]
    result, total = one(rows)
    assert visits(result) == [(10, 0, 0, "lack_referenced_page", None)]
    assert total.walks == 1
    assert visits(replay(trace(rows), [Configuration.of("6.1")]))[0][3] == "succeeded"
    # A page that fell out of the TLB meanwhile walks, and is young.
    result, total = one([*rows[:2], (4, 0, 0, 1, CR), *rows[2:]], tlb=TlbConfig(1, 1, 1, 1, 1, 1))
    assert visits(result)[0][3] == "succeeded"
    assert total.walks == 3


def test_pins_and_budgets_stop_the_loop_and_go_on():
    from secondsight.trace.kinds import Kind

    rows = [
        (0, 0, 0, 0, CW),
        (1, 0, 0, 1, Kind.PIN_WRITE),
        (2, 0, 1, 0, CW),
        (3, 0, 2, 0, CW),
        (4, 0, 0, 0, CR),
    ]
    _, total = one(rows, faults="huge", budget=2)
    assert (total.fault_huge, total.accesses) == (2, 5)
    # Two walks to huge pages, one to a small one; the pin walks no table of the TLB's.
    assert (total.walks, total.walks_huge) == (3, 2)


def test_an_aggregated_trace_says_so():
    result, total = one([(0, 0, 0, 0, CW, 50)])
    assert total.walks == 1
    assert any("aggregated" in note for note in result.configurations[0].notes)
