"""mthp_collapse: which candidates are tried, and what each result leads to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.geometry import ALL_ANON_ORDERS, ANON_ORDERS, HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.limits import collapse_control
from secondsight.mm.khugepaged.orders import NEXT_OFFSET, NEXT_ORDER, max_order_from_offset, mthp_collapse
from secondsight.mm.khugepaged.result import ScanResult

FULL = np.ones(HPAGE_PMD_NR, np.bool_)


def tried(present, enabled, answer, *, unmapped=0, none=511, khugepaged=True):
    """The candidates (offset, order) that are tried, and the final result; *answer* (offset, order) is each attempt's."""
    out = []

    def attempt(offset, order):
        out.append((offset, order))
        return answer(offset, order)

    cc = collapse_control(Knobs(max_ptes_none=none), khugepaged=khugepaged)
    return out, mthp_collapse(present, unmapped, cc, enabled, attempt)


@pytest.mark.parametrize(
    ("kinds", "attempts"), [((9,), 1), ((4, 9), 33), ((4,), 32), (ANON_ORDERS, 255), ((2,), 128)]
)
def test_a_block_that_is_refused_everywhere_costs_one_attempt_for_each_part(kinds, attempts) -> None:
    out, result = tried(FULL, sum(1 << order for order in kinds), lambda *_: ScanResult.LACK_REFERENCED_PAGE)
    assert len(out) == len(set(out)) == attempts
    assert result == ScanResult.LACK_REFERENCED_PAGE


def _oracle(present, enabled, refused, limit):
    """The same as a recursion over halves: largest first, a refused range's halves after it, left before right."""
    out = []

    def visit(offset, order):
        if order < 2:
            return
        pages = 1 << order
        if enabled >> order & 1 and present[offset : offset + pages].sum() >= pages - limit(order):
            out.append((offset, order))
            if (offset, order) not in refused:
                return
        if enabled & ((1 << order) - 1):
            visit(offset, order - 1)
            visit(offset + pages // 2, order - 1)

    visit(0, PMD_ORDER)
    return out


@given(
    holes=st.lists(st.integers(0, 511), max_size=60),
    enabled=st.integers(1, (1 << 10) - 1).map(lambda bits: bits & ALL_ANON_ORDERS).filter(bool),
    seed=st.integers(0, 2**32 - 1),
    none=st.sampled_from([0, 100, 511]),
)
@settings(max_examples=200, deadline=None)
def test_the_walk_is_a_recursion_over_halves(holes, enabled, seed, none) -> None:
    present = FULL.copy()
    present[holes] = False
    every = [(offset, order) for order in ANON_ORDERS for offset in range(0, HPAGE_PMD_NR, 1 << order)]
    choice = np.random.default_rng(seed).random(len(every)) < 0.7
    refused = {each for each, no in zip(every, choice, strict=True) if no}

    def limit(order):
        return none if order == PMD_ORDER else (1 << order) - 1 if none == 511 else 0

    out, result = tried(
        present,
        enabled,
        lambda *at: ScanResult.PAGE_COUNT if at in refused else ScanResult.SUCCEED,
        none=none,
    )
    assert out == _oracle(present, enabled, refused, limit)
    if any(at not in refused for at in out):
        assert result == ScanResult.SUCCEED
    else:
        assert result == (ScanResult.PAGE_COUNT if out else ScanResult.FAIL)


def test_collapsed_and_as_large_already_lead_to_the_next_offset() -> None:
    for result in NEXT_OFFSET:
        out, final = tried(FULL, 1 << 4 | 1 << 2, lambda *_, result=result: result)
        assert out == [(offset, 4) for offset in range(0, 512, 16)]
        assert final == (ScanResult.SUCCEED if result == ScanResult.SUCCEED else ScanResult.FAIL)


def test_any_other_result_ends_the_block() -> None:
    for result in set(ScanResult) - NEXT_OFFSET - NEXT_ORDER:
        out, final = tried(FULL, ALL_ANON_ORDERS, lambda *_, result=result: result)
        assert out == [(0, 9)] and final == result


def test_what_was_collapsed_outweighs_a_later_refusal_and_a_failed_allocation_an_earlier() -> None:
    out, final = tried(FULL, 1 << 8, lambda offset, _: ScanResult.FAIL if offset else ScanResult.SUCCEED)
    assert len(out) == 2 and final == ScanResult.SUCCEED
    results = {(0, 8): ScanResult.ALLOC_HUGE_PAGE_FAIL, (256, 8): ScanResult.PAGE_LOCK}
    assert tried(FULL, 1 << 8, lambda *at: results[at])[1] == ScanResult.ALLOC_HUGE_PAGE_FAIL


def test_pages_in_swap_count_as_present_for_the_whole_block_alone() -> None:
    present = FULL.copy()
    present[:8] = False
    out, _ = tried(present, 1 << 9 | 1 << 2, lambda *_: ScanResult.PAGE_COUNT, unmapped=8, none=0)
    assert out[0] == (0, 9) and (0, 2) not in out and (8, 2) in out
    assert tried(present, 1 << 9, lambda *_: ScanResult.PAGE_COUNT, none=0) == ([], ScanResult.FAIL)


def test_the_largest_order_at_an_offset_is_what_its_alignment_allows() -> None:
    assert [max_order_from_offset(at) for at in (0, 4, 8, 12, 256, 384)] == [9, 2, 3, 2, 8, 7]


def test_every_result_has_one_place() -> None:
    assert not NEXT_OFFSET & NEXT_ORDER
