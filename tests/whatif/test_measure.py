"""Every derived figure on numbers small enough to be counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.whatif import measure
from secondsight.whatif.costs import CostModel, walk_references
from secondsight.whatif.hot import hot_pages


def hot(*pages, blocks=2):
    out = np.zeros(blocks * 512, np.bool_)
    out[list(pages)] = True
    return out


def test_hot_pages_are_the_fewest_that_take_ninety_per_cent():
    # 100 accesses: 60 + 25 = 85 is short of 90, so 5 more are needed; three pages have 5: all of them.
    counts = np.array([5, 60, 5, 0, 25, 5])
    assert hot_pages(counts).tolist() == [True, True, True, False, True, True]
    assert hot_pages(counts, 0.6).tolist() == [False, True, False, False, False, False]
    assert not hot_pages(np.zeros(4, np.int64)).any()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.floats(0.05, 1.0))
def test_hot_pages_take_their_share_and_none_is_colder_than_one_left_out(counts, share):
    values = np.array(counts)
    chosen = hot_pages(values, share)
    assert values[chosen].sum() >= share * values.sum() - 1e-9
    if chosen.any() and (~chosen).any():
        assert values[chosen].min() > values[~chosen].max()


def test_precision_and_recall():
    # Block 0 holds three hot pages, block 1 one; block 0 was made huge: 1 of 1 blocks, 3 of 512 pages, 3 of 4 hot pages.
    pages = hot(0, 1, 2, 600)
    assert measure.precision_recall(pages, np.array([True, False])) == (1.0, 3 / 512, 3 / 4)
    assert measure.precision_recall(pages, np.array([False, False])) == (None, None, 0.0)
    assert measure.precision_recall(hot(blocks=1), np.array([True])) == (0.0, 0.0, None)


def test_precision_and_recall_by_misses():
    # 90 of 100 misses: blocks 0 and 1. Promoted 1 and 2: one of two is hot, 30 + 10 of 100 misses.
    misses = np.array([60, 30, 10, 0])
    assert measure.by_misses(misses, np.array([False, True, True, False])) == (0.5, 0.4)
    assert measure.by_misses(np.zeros(2, np.int64), np.array([True, True])) == (None, None)


def test_jains_index():
    assert measure.jain([0.5, 0.5]) == 1.0
    assert measure.jain([1.0, 0.0, 0.0, 0.0]) == 0.25
    # (1 + 3)^2 / (2 * (1 + 9)) = 0.8
    assert measure.jain([1.0, 3.0]) == pytest.approx(0.8)
    assert measure.jain([0.0, 0.0]) == 1.0
    assert measure.jain([]) == 1.0


def test_the_utility_curve():
    accesses = np.array([10, 60, 30, 0])
    assert measure.utility_curve(accesses, np.array([2, 1])) == [(0.25, 0.3), (0.5, 0.9)]
    assert measure.utility_curve(accesses, np.array([], np.int64)) == []


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.randoms())
def test_no_order_beats_the_most_accessed_first(accesses, random):
    values = np.array(accesses)
    order = list(range(len(values)))
    random.shuffle(order)
    best = measure.utility_curve(values, np.argsort(-values, kind="stable"))
    mine = measure.utility_curve(values, np.array(order))
    assert all(m[1] <= b[1] + 1e-12 for m, b in zip(mine, best, strict=True))


def test_a_thinned_curve_keeps_its_beginning_and_its_end():
    curve = [(i / 5000, i / 5000) for i in range(1, 5001)]
    kept = measure.thinned(curve)
    assert kept[:3] == curve[:3]
    assert kept[-1] == curve[-1]
    assert len(kept) <= 201


def test_equal_answers_in_a_row_become_one():
    # In time: block 1 A, block 0 A, block 1 A, block 1 B, block 0 A, block 1 A.
    order, merged = measure.runs(np.array([1, 0, 1, 1, 0, 1]), np.array([7, 7, 7, 8, 7, 7]))
    assert order.tolist() == [1, 4, 0, 2, 3, 5]
    assert merged.count.tolist() == [2, 2, 1, 1]
    assert order[merged.first].tolist() == [1, 0, 3, 5]
    assert order[merged.last].tolist() == [4, 2, 3, 5]


def test_walk_references():
    assert walk_references(10, 0, nested=False) == 40
    assert walk_references(10, 2, nested=False) == 46
    # (4 + 1)(4 + 1) - 1 and (4 + 1)(3 + 1) - 1
    assert walk_references(1, 0, nested=True) == 24
    assert walk_references(0, 1, nested=True) == 19


def test_costs():
    costs = CostModel()
    # 235 us empty, 806 us full, in between linear: 256 pages cost 520.5 us.
    assert costs.collapse_seconds(0 + 512 + 2 * 256, 4) == pytest.approx((235 + 806 + 2 * 520.5) * 1e-6)
    assert costs.daemon_seconds(
        copied=0,
        collapses=0,
        wasted=2,
        pages_scanned=1000,
        test_young=10,
    ) == pytest.approx(470e-6 + 25e-6 + 1.5e-6)
    # 40 references at 12.5 cycles are 500; 100 accesses at 5 are 500: half of the time.
    assert costs.overhead(40, 100) == 0.5
    assert costs.overhead(0, 0) == 0.0
    with pytest.raises(UsageError, match="wasted_us"):
        CostModel(wasted_us=-1)
