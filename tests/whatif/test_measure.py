"""Every derived figure on numbers small enough to be counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.whatif import measure


def hot(*pages, blocks=2):
    out = np.zeros(blocks * 512, np.bool_)
    out[list(pages)] = True
    return out


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
