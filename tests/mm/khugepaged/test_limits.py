"""How many pages may be missing, shared or in swap: the table of the module, and the last number that scan and isolate tolerate."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.isolate import isolate
from secondsight.mm.khugepaged.limits import collapse_control, collapse_max_ptes_none
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.profiles import PROFILES
from support.blocks_by_hand import (
    STRICT,
    answer_of,
    block,
    hole,
    share,
    young,
)


@pytest.mark.parametrize("zero_page", [False, True])
@pytest.mark.parametrize("name", ["6.1", "7.2"])
@pytest.mark.parametrize("isolating", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 511])
def test_max_ptes_none_is_the_number_tolerated(limit, isolating, name, zero_page) -> None:
    for count, code in ((limit, Scan.SUCCEED), (limit + 1, Scan.EXCEED_NONE_PTE)):
        view = young(block(), 511)
        hole(view, range(count))
        if zero_page:
            view.pte[0, :count] = x86.PRESENT | x86.SPECIAL | x86.ACCESSED
        answer = answer_of(view, name, isolating, Knobs(max_ptes_none=limit))
        if count == 512:
            # Nothing left to be referenced either, but the limit is hit first.
            assert Scan(answer.code[0]) == Scan.EXCEED_NONE_PTE
        else:
            assert Scan(answer.code[0]) == code
        assert answer.none_or_zero[0] == count
        # MADV_COLLAPSE knows no limit.
        assert answer_of(view, name, isolating, Knobs(max_ptes_none=0), khugepaged=False).code[0] in (
            Scan.SUCCEED,
            Scan.PAGE_RO,
        )


@pytest.mark.parametrize("isolating", [False, True])
@pytest.mark.parametrize("name", ["6.1", "6.12", "7.2"])
def test_max_ptes_shared_is_the_number_tolerated(name, isolating) -> None:
    for count, code in ((2, Scan.SUCCEED), (3, Scan.EXCEED_SHARED_PTE)):
        view = young(block(), 511)
        for page in range(count):
            share(view, page)
        assert Scan(answer_of(view, name, isolating, Knobs(max_ptes_shared=2)).code[0]) == code
        assert Scan(answer_of(view, name, isolating, STRICT, khugepaged=False).code[0]) == Scan.SUCCEED


def test_a_userfault_area_tolerates_no_hole_from_anyone() -> None:
    view = young(block(), 0)
    hole(view, range(5, 6))
    view.uffd[:] = True
    for daemon in (True, False):
        assert Scan(answer_of(view, "7.2", False, Knobs(), khugepaged=daemon).code[0]) == Scan.EXCEED_NONE_PTE


#: The module's table: (khugepaged?, order, max_ptes_none): empty pages tolerated.
NONE_TOLERATED = {
    (False, 9, 0): 512,
    (False, 9, 511): 512,
    (True, 9, 0): 0,
    (True, 9, 100): 100,
    (True, 9, 511): 511,
    (True, 4, 511): 15,
    (True, 2, 511): 3,
    (True, 4, 510): 0,
    (True, 4, 0): 0,
}


@pytest.mark.parametrize(("khugepaged", "order", "knob"), NONE_TOLERATED)
def test_the_empty_pages_tolerated_are_the_tables(khugepaged, order, knob) -> None:
    cc = collapse_control(Knobs(max_ptes_none=knob), khugepaged=khugepaged)
    assert collapse_max_ptes_none(cc, False, order) == NONE_TOLERATED[khugepaged, order, knob]
    assert collapse_max_ptes_none(cc, True, order) == 0, "userfaultfd is armed"


def test_the_control_carries_the_knobs_and_who_collapses() -> None:
    knobs = Knobs(max_ptes_none=1, max_ptes_swap=2, max_ptes_shared=3)
    assert collapse_control(knobs, khugepaged=True)._asdict() == {
        "is_khugepaged": 1, "max_ptes_none": 1, "max_ptes_swap": 2, "max_ptes_shared": 3,
    }  # fmt: skip
    assert collapse_control(knobs, khugepaged=False).is_khugepaged == 0


@pytest.mark.parametrize("knob", [0, 256, 511])
def test_below_2_mib_khugepaged_tolerates_no_shared_page_and_madv_collapse_all(knob) -> None:
    view = young(block(), 33)
    share(view, 40)
    limits, rules = Knobs(max_ptes_shared=knob), PROFILES["7.2"]
    part = isolate(view, limits, rules, order=4, offset=32)
    assert Scan(part.code[0]) == Scan.EXCEED_SHARED_PTE and part.stopped[0] == 40
    assert isolate(view, limits, rules, order=4, offset=32, khugepaged=False).passed[0]
    beside = isolate(young(view, 48), limits, rules, order=4, offset=48)
    assert beside.passed[0], "the shared page lies in another part"


@pytest.mark.parametrize("name", ["6.1", "7.2"])
def test_max_ptes_swap_is_the_number_tolerated_and_madv_collapse_has_none(name) -> None:
    for count, code in ((3, Scan.SUCCEED), (4, Scan.EXCEED_SWAP_PTE)):
        view = young(block(), *range(100, 400))
        hole(view, range(count))
        view.pte[0, :count] = x86.swap_pte(np.arange(1, count + 1, dtype=np.uint64))
        assert Scan(answer_of(view, name, False, Knobs(max_ptes_swap=3)).code[0]) == code
        assert answer_of(view, name, False, Knobs(max_ptes_swap=0), khugepaged=False).passed[0]
