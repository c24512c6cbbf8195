"""``__collapse_huge_page_isolate``: under the cleared PMD, are the pages of one candidate still as the scan wants them?

::

    each PTE   none or zero? ─ present? ─ uffd? ─ the page's checks ─ lock it, take it off the LRU ─ in use?   the first that fails ends it
    the whole  a writable page? ─ a page in use?

The candidate is (mm, start, order): ``1 << order`` pages of the block from page *offset* on. A large folio is locked and isolated once,
at its first page (compound_pagelist). Checks stand in the kernel's order, each with where the kernel has it; numbers of lines are those of
Debian's 7.3.4. ``checks.ISOLATE_ORDER`` is the same as a table.

In compiled functions *rules* is the checks' (``checks.Checks``), *cc* who collapses, within which limits (``limits.CollapseControl``),
*c* a view's columns (``checks.ViewColumns``), *b* a row of them and *i* a page of its block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import MAPPED, PFN_MASK, RW, UFFD_WP
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.checks import (
    ORDER_2_6_38,
    WRITABLE_EVERY,
    WRITABLE_ONE,
    Checks,
    checks_of,
    expected_ref_count,
    is_lazyfree,
    is_page_known,
    is_referenced,
    is_shared,
    with_known,
)
from secondsight.mm.khugepaged.limits import (
    CollapseControl,
    collapse_control,
    collapse_max_ptes_none,
    collapse_max_ptes_shared,
)
from secondsight.mm.khugepaged.result import ScanNumbers, ScanResult, no_numbers
from secondsight.mm.khugepaged.scan import MANY_BLOCKS, columns_of
from secondsight.mm.page import LOCKED, LRU, SWAPCACHE
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView
from secondsight.native import merged, native

#: Places of the table that remembers which folios are held; twice as many as a block has pages.
_HELD = 2 * HPAGE_PMD_NR


@merged
def _hold(held, b, folio):  # type: ignore[no-untyped-def]
    """Is *folio* held already, from an earlier page of block *b*? From now on it is."""
    at = folio & (_HELD - 1)
    while held[at, 1] == b:
        if held[at, 0] == folio:
            return True
        at = (at + 1) & (_HELD - 1)
    held[at, 0] = folio
    held[at, 1] = b
    return False


@merged
def _take_2_6_38(rules, c, b, i):  # type: ignore[no-untyped-def]
    """Take one page, mm/huge_memory.c __collapse_huge_page_isolate (2.6.38): the count is tested before the lock is tried."""
    # Mapped once and held by nobody else. page_count(page) != 1.
    if c.refcount[b, i] != expected_ref_count(rules, c, b, i):
        return ScanResult.PAGE_COUNT
    # Somebody holds its lock. trylock_page.
    if c.flags[b, i] & LOCKED:
        return ScanResult.PAGE_LOCK
    # It cannot be taken off the LRU. isolate_lru_page.
    if not c.flags[b, i] & LRU:
        return ScanResult.DEL_PAGE_LRU
    return ScanResult.SUCCEED


@merged
def _take(rules, c, b, i, held_already):  # type: ignore[no-untyped-def]
    """Take one folio, mm/khugepaged.c __collapse_huge_page_isolate (6.1 to 7.3)."""
    # Somebody holds its lock; we do, if an earlier PTE maps the same small page (KSM). folio_trylock (7.3 line 783).
    if c.flags[b, i] & LOCKED or held_already:
        return ScanResult.PAGE_LOCK
    # Somebody beside its mappings holds it: a pin, or a per-CPU batch. folio_expected_ref_count (7.3 line 799).
    if c.refcount[b, i] != expected_ref_count(rules, c, b, i):
        return ScanResult.PAGE_COUNT
    # Read-only, in the swap cache, and another entry names it. reuse_swap_page (4.0; gone in 5.18).
    if (
        rules.isolate_reuses_swap_page
        and not c.pte[b, i] & RW
        and c.flags[b, i] & SWAPCACHE
        and c.named[b, i]
    ):
        return ScanResult.SWAP_CACHE_PAGE
    # It cannot be taken off the LRU. folio_isolate_lru (7.3 line 809).
    if not c.flags[b, i] & LRU:
        return ScanResult.DEL_PAGE_LRU
    return ScanResult.SUCCEED


@merged
def collapse_huge_page_isolate(rules, cc, c, at, assume, held, numbers):  # type: ignore[no-untyped-def]
    """Isolate the candidate *at* = (block, first page in it, order) into the block's row of *numbers*.

    What is not known counts as *assume*. *held* int64[2 * 512, 2] is a table to work in; it is valid for one pass over the blocks.
    """
    b, offset, order = at
    max_none = collapse_max_ptes_none(cc, c.uffd[b], order)
    max_shared = collapse_max_ptes_shared(cc, order)
    referenced = none_or_zero = shared = asked = 0
    entries = np.uint64(0)
    result = ScanResult.SUCCEED
    stopped = HPAGE_PMD_NR
    last_large = np.int64(-1)
    for i in range(offset, offset + (1 << order)):
        entry = c.pte[b, i]
        if not entry & MAPPED:
            # Nothing is mapped here. pte_none_or_zero (7.3 line 704).
            if entry == 0:
                none_or_zero += 1
                if none_or_zero > max_none:
                    result = ScanResult.EXCEED_NONE_PTE
                    stopped = i
                    break
                continue
            # Swap-in left it as it was: it came between, or is no swap entry (7.3 line 713).
            result = ScanResult.PTE_NON_PRESENT
            stopped = i
            break
        if entry & PFN_MASK == 0:
            # The zero page is as good as none (7.3 line 704). In 2.6.38 it is a read-only page that is not normal.
            if not rules.zero_page_is_none:
                result = ScanResult.PAGE_RO
                stopped = i
                break
            none_or_zero += 1
            if none_or_zero > max_none:
                result = ScanResult.EXCEED_NONE_PTE
                stopped = i
                break
            continue
        # userfaultfd has write-protected it. pte_uffd_wp (5.7; 7.3 line 717 pte_uffd).
        if entry & UFFD_WP:
            result = ScanResult.PTE_UFFD_WP
            stopped = i
            break
        # 2.6.38 wants every page writable (!pte_write).
        if rules.writable == WRITABLE_EVERY and not entry & RW:
            result = ScanResult.PAGE_RO
            stopped = i
            break
        if is_page_known(c, b, i):
            # Lazily freed and clean: reclaim will have it. folio_test_lazyfree (7.1; 7.3 line 735).
            if is_lazyfree(rules, cc, c, b, i):
                result = ScanResult.PAGE_LAZYFREE
                stopped = i
                break
            large = c.order[b, i] > 0
            if rules.order == ORDER_2_6_38:
                result = _take_2_6_38(rules, c, b, i)
            else:
                # Too many pages that another process maps too. max_ptes_shared (5.8; 7.3 line 748).
                if is_shared(rules, c, b, i):
                    shared += 1
                    if shared > max_shared:
                        result = ScanResult.EXCEED_SHARED_PTE
                        stopped = i
                        break
                # Below the PMD order: its folio is as large already. folio_order(folio) >= order (7.2; 7.3 line 759).
                if order != PMD_ORDER and c.order[b, i] >= order:
                    result = ScanResult.PTE_MAPPED_HUGEPAGE
                    stopped = i
                    break
                # A large folio is taken once: its other pages go straight to the question for use (7.3 line 771).
                folio = c.folio[b, i]
                if not large:
                    result = _take(rules, c, b, i, c.mapcount[b, i] > 1 and _hold(held, b, folio))
                elif folio != last_large:
                    last_large = folio
                    if not _hold(held, b, folio):
                        result = _take(rules, c, b, i, False)
            if result != ScanResult.SUCCEED:
                stopped = i
                break
        # In use? MADV_COLLAPSE does not ask (7.3 line 823).
        if cc.is_khugepaged:
            if is_referenced(rules, c, b, i, assume):
                referenced += 1
            elif rules.asks_secondary:
                # mmu_notifier_test_young: after the invalidation nobody answers yes for the candidate's own pages.
                asked += 1
                if c.secondary[b, i]:
                    referenced += 1
        # Writable ones are noted until 6.17, for the test after the last page.
        entries |= entry
    writable = entries & RW != 0
    if result == ScanResult.SUCCEED:
        # No page may be written: SCAN_PAGE_RO, gone in 6.18.
        if rules.writable == WRITABLE_ONE and not writable:
            result = ScanResult.PAGE_RO
        # No page is in use (7.3 line 828).
        elif cc.is_khugepaged and rules.referenced_needed and referenced == 0:
            result = ScanResult.LACK_REFERENCED_PAGE
    numbers.code[b] = result
    numbers.referenced[b] = referenced
    numbers.none_or_zero[b] = none_or_zero if rules.armed_counts_none or not c.uffd[b] else 0
    numbers.writable[b] = writable
    numbers.stopped[b] = stopped
    numbers.asked[b] = asked


class _PartRequest(NamedTuple):
    """What is asked for: the candidate's first page and order, the blocks it is asked of (bool[N]), and a table to work in."""

    offset: int
    order: int
    chosen: npt.NDArray[np.bool_]
    held: npt.NDArray[np.int64]


@native
def _isolate_blocks(rules, cc, c, asked, assume, numbers):  # type: ignore[no-untyped-def]
    for b in range(len(c.pmd)):
        if asked.chosen[b]:
            collapse_huge_page_isolate(
                rules, cc, c, (b, asked.offset, asked.order), assume, asked.held, numbers
            )


@functools.cache
def _isolate_blocks_of(
    rules: Checks, is_khugepaged: int, assume: bool, every_known: int
) -> Callable[..., None]:
    """``_isolate_blocks`` of whole blocks, compiled for one kernel's rules: what it never asks costs nothing."""

    @native
    def isolate_blocks(cc, c, asked, numbers):  # type: ignore[no-untyped-def]
        who = CollapseControl(is_khugepaged, cc.max_ptes_none, cc.max_ptes_swap, cc.max_ptes_shared)
        known = with_known(c, every_known)
        for b in range(len(c.pmd)):
            if asked.chosen[b]:
                collapse_huge_page_isolate(rules, who, known, (b, 0, PMD_ORDER), assume, asked.held, numbers)

    return isolate_blocks


def isolate(
    view: BlockView,
    limits: Knobs,
    rules: Rules,
    *,
    khugepaged: bool = True,
    assume: bool = False,
    order: int = PMD_ORDER,
    offset: int = 0,
    chosen: npt.NDArray[np.bool_] | None = None,
) -> ScanNumbers:
    """Isolate a candidate of every block of *view*: *order* pages from page *offset* of the block on. Pure.

    *view* is the view after ``zap`` (or the model's own state then). *khugepaged* False: MADV_COLLAPSE. *chosen* bool[N]: the blocks that
    are asked for; the others' rows stay zero.
    """
    numbers = no_numbers(len(view))
    cc = collapse_control(limits, khugepaged=khugepaged)
    if chosen is None:
        chosen = np.ones(len(view), np.bool_)
    asked = _PartRequest(offset, order, chosen, np.full((_HELD, 2), -1, np.int64))
    columns, checks = columns_of(view, assume), checks_of(rules)
    if len(view) >= MANY_BLOCKS and order == PMD_ORDER:
        _isolate_blocks_of(checks, cc.is_khugepaged, assume, columns.every_known)(cc, columns, asked, numbers)
    else:
        _isolate_blocks(checks, cc, columns, asked, assume, numbers)
    return numbers
