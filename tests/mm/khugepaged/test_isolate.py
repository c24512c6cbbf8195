"""Isolate takes every folio of a candidate once: what it finds under the cleared PMD, in whole blocks and in parts of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pte as x86
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.isolate import isolate
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.profiles import PROFILES
from support.blocks_by_hand import DEFECTS, block, hole, pin, young

NEW = ("6.1", "6.12", "7.2")


def large(view, offset, order, folio):
    """The pages from *offset* on are a folio of *order*, numbered *folio*, mapped here alone."""
    part = (0, slice(offset, offset + (1 << order)))
    view.order[part] = order
    view.folio[part] = folio
    view.folio_mapcount[part] = view.refcount[part] = 1 << order


@pytest.mark.parametrize("khugepaged", [True, False])
@pytest.mark.parametrize("name", NEW)
def test_an_entry_that_swap_in_left_ends_it_for_everyone(name, khugepaged) -> None:
    view = young(block(), 0)
    hole(view, range(7, 8))
    view.pte[0, 7] = x86.swap_pte(np.uint64(5))
    numbers = isolate(view, Knobs(), PROFILES[name], khugepaged=khugepaged)
    assert Scan(numbers.code[0]) == Scan.PTE_NON_PRESENT and numbers.stopped[0] == 7


@pytest.mark.parametrize("name", NEW)
def test_a_small_page_that_is_mapped_twice_here_cannot_be_locked_twice(name) -> None:
    """KSM maps one page at two addresses: folio_trylock fails at the second."""
    view = young(block(), 0)
    view.folio[0, 9] = view.folio[0, 4]
    view.mapcount[0, [4, 9]] = view.folio_mapcount[0, [4, 9]] = view.refcount[0, [4, 9]] = 2
    numbers = isolate(view, Knobs(max_ptes_shared=511), PROFILES[name])
    assert Scan(numbers.code[0]) == Scan.PAGE_LOCK and numbers.stopped[0] == 9
    # Mapped twice, the other time by another process: it is taken once here.
    view.folio[0, 9] = 999_999
    assert isolate(view, Knobs(max_ptes_shared=511), PROFILES[name]).passed[0]


@pytest.mark.parametrize("name", NEW)
def test_a_large_folio_is_taken_once_be_its_pages_in_one_run_or_in_two(name) -> None:
    view = young(block(), 0)
    large(view, 16, 4, 5000)
    assert isolate(view, Knobs(), PROFILES[name]).passed[0]
    # mremap moved half of it: the same folio comes again behind other pages.
    view.folio[0, 16:24], view.folio[0, 100:108] = view.folio[0, 100:108].copy(), view.folio[0, 16:24].copy()
    for column in (view.order, view.folio_mapcount, view.refcount):
        column[0, 16:24], column[0, 100:108] = column[0, 100:108].copy(), column[0, 16:24].copy()
    assert isolate(view, Knobs(), PROFILES[name]).passed[0]
    view.refcount[0, view.folio[0] == 5000] += 1
    numbers = isolate(view, Knobs(), PROFILES[name])
    assert Scan(numbers.code[0]) == Scan.PAGE_COUNT and numbers.stopped[0] == 24, "at the first of its pages"


def test_a_part_knows_nothing_of_its_neighbours() -> None:
    rules = PROFILES["7.2"]
    view = young(block(kvm=[20, 33, 60]), 40)
    for page in (31, 48):
        pin(view, page)
    hole(view, range(100, 200))
    numbers = isolate(view, Knobs(max_ptes_none=0), rules, order=4, offset=32)
    assert numbers.passed[0]
    # Page 40 by its entry, page 33 by the secondary MMU, which is asked about all but page 40.
    assert (numbers.referenced[0], numbers.asked[0], numbers.none_or_zero[0]) == (2, 15, 0)
    for offset, page in ((16, 31), (48, 48)):
        numbers = isolate(view, Knobs(), rules, order=4, offset=offset)
        assert Scan(numbers.code[0]) == Scan.PAGE_COUNT and numbers.stopped[0] == page


@pytest.mark.parametrize(
    ("inside", "code"), [(3, Scan.SUCCEED), (4, Scan.PTE_MAPPED_HUGEPAGE), (5, Scan.PTE_MAPPED_HUGEPAGE)]
)
def test_a_part_that_is_as_large_already_is_left(inside, code) -> None:
    view = young(block(), 33)
    large(view, 32, inside, 7000)
    numbers = isolate(view, Knobs(), PROFILES["7.2"], order=4, offset=32)
    assert Scan(numbers.code[0]) == code
    if inside < 5:
        whole = isolate(view, Knobs(), PROFILES["7.2"])
        assert whole.passed[0], "a whole block is collapsed of folios of any order below it"


@pytest.mark.parametrize("name", NEW)
def test_a_huge_page_that_is_mapped_by_ptes_is_collapsed_as_small_pages_are(name) -> None:
    view = young(block(), 33)
    large(view, 0, 9, 8192)
    assert isolate(view, Knobs(), PROFILES[name]).passed[0]


def test_a_part_without_use_is_refused_though_the_block_is_used() -> None:
    view = young(block(), *range(32))
    for offset, code in ((16, Scan.SUCCEED), (32, Scan.LACK_REFERENCED_PAGE)):
        assert Scan(isolate(view, Knobs(), PROFILES["7.2"], order=4, offset=offset).code[0]) == code
    assert isolate(view, Knobs(), PROFILES["7.2"], order=4, offset=32, khugepaged=False).passed[0]


@given(
    order=st.integers(2, 9), at=st.integers(0, 127), page=st.integers(0, 511), defect=st.sampled_from(["PAGE_LOCK", "PAGE_COUNT"])
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_a_fault_ends_exactly_the_parts_that_hold_its_page(order, at, page, defect) -> None:
    offset = at % (512 >> order) << order
    view = young(block(), *range(512))
    DEFECTS[defect](view, page)
    numbers = isolate(view, Knobs(), PROFILES["7.2"], order=order, offset=offset)
    if offset <= page < offset + (1 << order):
        assert Scan(numbers.code[0]).name == defect and numbers.stopped[0] == page
        assert numbers.referenced[0] == page - offset
    else:
        assert numbers.passed[0] and numbers.referenced[0] == 1 << order


def test_blocks_that_were_not_chosen_are_not_asked() -> None:
    view = young(block(), 0)[np.array([0, 0, 0])]
    numbers = isolate(view, Knobs(), PROFILES["6.1"], chosen=np.array([True, False, True]))
    assert numbers.passed.tolist() == [True, False, True]
    assert numbers.asked.tolist() == [511, 0, 511] and Scan(numbers.code[1]) == Scan.FAIL
