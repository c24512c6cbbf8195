"""The scan of a block: entries that are not present, the zero page, who is asked about use, and what an unknown answer may change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as x86
from secondsight.bits import swap
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.khugepaged.scan import present_pages, scan
from secondsight.mm.profiles import PROFILES
from support.blocks_by_hand import (
    answer_of,
    block,
    hole,
    young,
)


def test_the_zero_page_was_a_read_only_page_in_2010() -> None:
    view = young(block(), 0)
    hole(view, range(5, 6))
    view.pte[0, 5] = x86.PRESENT | x86.SPECIAL | x86.ACCESSED
    assert Scan(answer_of(view, "2.6.38", False).code[0]) == Scan.PAGE_RO
    assert Scan(answer_of(view, "6.1", False).code[0]) == Scan.SUCCEED


@pytest.mark.parametrize("name", ["6.1", "6.12", "7.2"])
def test_swap_entries_are_counted_tolerated_and_need_half_of_the_block_in_use(name) -> None:
    limits = Knobs(max_ptes_swap=3)
    for swapped, referenced, code in (
        (3, 256, Scan.SUCCEED),
        (3, 255, Scan.LACK_REFERENCED_PAGE),
        (4, 400, Scan.EXCEED_SWAP_PTE),
        (0, 1, Scan.SUCCEED),
    ):
        view = young(block(), *range(10, 10 + referenced))
        hole(view, range(swapped))
        view.pte[0, :swapped] = x86.swap_pte(np.arange(swapped, dtype=np.uint64))
        answer = answer_of(view, name, False, limits)
        assert Scan(answer.code[0]) == code
        assert answer.unmapped[0] == swapped
        if swapped:
            assert Scan(answer_of(view, name, True, limits).code[0]) == Scan.PTE_NON_PRESENT


def test_a_swap_entry_ended_the_scan_in_2010() -> None:
    view = young(block(), 0)
    view.pte[0, 8] = x86.swap_pte(np.uint64(1))
    assert Scan(answer_of(view, "2.6.38", False).code[0]) == Scan.PTE_NON_PRESENT


@pytest.mark.parametrize("name", ["6.12", "7.2", "7.3"])
@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (x86.swap_pte(np.uint64(1)), Scan.SUCCEED),
        (x86.swap_pte(np.uint64(1)) | swap.SWP_UFFD_WP, Scan.PTE_UFFD_WP),
        (swap.swp_entry(np.uint64(31), np.uint64(swap.MARKER_UFFD_WP)), Scan.PTE_UFFD_WP),
        (swap.swp_entry(np.uint64(31), np.uint64(swap.MARKER_POISON)), Scan.SUCCEED),
        (swap.swp_entry(np.uint64(31), np.uint64(swap.MARKER_GUARD)), Scan.SUCCEED),
        (swap.swp_entry(np.uint64(25), np.uint64(7)), Scan.SUCCEED),
    ],
)
def test_of_the_entries_that_are_not_present_only_userfaultfds_end_the_scan(name, entry, code) -> None:
    view = young(block(), *range(512))
    view.pte[0, 8] = entry
    scanned = answer_of(view, name, False, Knobs())
    assert Scan(scanned.code[0]) == code and scanned.unmapped[0] == 1


@pytest.mark.parametrize(
    ("pmd", "old", "new"),
    [(0, "PMD_NONE", "NO_PTE_TABLE"), (int(x86.PRESENT | x86.PSE), "PMD_MAPPED", "PMD_MAPPED")],
)
def test_without_a_page_table_there_is_nothing_to_scan(pmd, old, new) -> None:
    view = block()
    view.pmd[0] = pmd
    for name in ("6.1", "6.12", "6.18"):
        assert Scan(answer_of(view, name, False).code[0]).name == old
    assert Scan(answer_of(view, "7.2", False).code[0]).name == new


def test_the_posted_bug_counts_the_first_page_512_times() -> None:
    view = block(kvm=[0])
    assert answer_of(view, "2.6.38", False).referenced[0] == 512
    assert answer_of(view, "2.6.38", True).referenced[0] == 1
    assert answer_of(view, "2.6.38-fixed", False).referenced[0] == 1


def test_only_pages_that_nothing_else_calls_young_are_asked_about() -> None:
    view = young(block(kvm=[3]), *range(100))
    view.flags[0, 100:150] |= kpf.REFERENCED
    hole(view, range(500, 512))
    answer = answer_of(view, "6.1", False)
    assert answer.asked[0] == 512 - 100 - 50 - 12
    assert answer_of(view, "thp-base", False).asked[0] == 0
    assert answer_of(view, "6.1", False, khugepaged=False).asked[0] == 0


def test_two_notifiers_answer_for_different_pages() -> None:
    assert answer_of(block(kvm=[3], gru=[4, 5]), "6.1", False).referenced[0] == 3


def test_unknown_page_columns_count_as_assumed() -> None:
    view = block()
    view.page_known[:] = False
    assert Scan(answer_of(view, "7.2", False).code[0]) == Scan.LACK_REFERENCED_PAGE
    assert Scan(answer_of(view, "7.2", False, assume=True).code[0]) == Scan.SUCCEED


def test_where_a_lower_order_is_enabled_holes_end_no_scan_of_khugepaged() -> None:
    """All pages are looked at, whatever max_ptes_none and userfaultfd say (7.2, collapse_scan_pmd)."""
    view = young(block(), 500)
    hole(view, range(100))
    strict = Knobs(max_ptes_none=0)
    assert Scan(answer_of(view, "7.2", False, strict).code[0]) == Scan.EXCEED_NONE_PTE
    lower = replace(view, orders=np.array([1 << 9 | 1 << 4], np.uint16))
    passed = answer_of(lower, "7.2", False, strict)
    assert passed.passed[0] and passed.none_or_zero[0] == 100 and passed.stopped[0] == 512
    armed = replace(lower, uffd=np.ones(1, np.bool_))
    assert answer_of(armed, "7.2", False, strict).passed[0]
    madvised = answer_of(armed, "7.2", False, strict, khugepaged=False)
    assert Scan(madvised.code[0]) == Scan.EXCEED_NONE_PTE and madvised.stopped[0] == 0


def test_present_pages_are_those_that_are_mapped_and_not_the_zero_page() -> None:
    view = block()
    hole(view, range(4))
    view.pte[0, 1] = x86.PRESENT | x86.SPECIAL | x86.ACCESSED
    view.pte[0, 2] = x86.swap_pte(np.uint64(7))
    view.pte[0, 3] = x86.mk_pte(np.uint64(99), x86.PROTNONE)
    assert np.flatnonzero(~present_pages(view, 0)).tolist() == [0, 1, 2]


NOTHING, ZERO, SWAPPED, IDLE, USED, BY_GUEST = range(6)


@given(st.lists(st.tuples(st.integers(NOTHING, BY_GUEST), st.integers(1, 200)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_scan_without_limits_counts_every_page_once(runs) -> None:
    """The tracepoint's numbers against a count of what was laid out."""
    kinds = np.resize(np.repeat([kind for kind, _ in runs], [length for _, length in runs]), 512)
    view = young(block(kvm=np.flatnonzero(kinds == BY_GUEST).tolist()), *np.flatnonzero(kinds == USED))
    hole(view, np.flatnonzero(kinds <= SWAPPED))
    view.pte[0, kinds == ZERO] = x86.PRESENT | x86.SPECIAL | x86.ACCESSED
    view.pte[0, kinds == SWAPPED] = x86.swap_pte(np.uint64(9))
    count = [int((kinds == kind).sum()) for kind in range(6)]
    numbers = scan(view, Knobs(max_ptes_none=511, max_ptes_swap=511), PROFILES["6.1"])
    if count[NOTHING] + count[ZERO] == 512 or count[SWAPPED] == 512:
        assert Scan(numbers.code[0]) in (Scan.EXCEED_NONE_PTE, Scan.EXCEED_SWAP_PTE)
        assert numbers.stopped[0] == 511
        return
    assert (numbers.none_or_zero[0], numbers.unmapped[0]) == (count[NOTHING] + count[ZERO], count[SWAPPED])
    assert numbers.referenced[0] == count[USED] + count[BY_GUEST]
    assert numbers.asked[0] == count[IDLE] + count[BY_GUEST] and numbers.stopped[0] == 512
    assert numbers.writable[0] == bool(count[IDLE] + count[USED] + count[BY_GUEST])
    enough = numbers.referenced[0] >= (256 if count[SWAPPED] else 1)
    if numbers.writable[0]:
        assert Scan(numbers.code[0]) == (Scan.SUCCEED if enough else Scan.LACK_REFERENCED_PAGE)
    else:
        assert Scan(numbers.code[0]) == Scan.PAGE_RO, "up to 6.17 one page must be writable"
