"""``collapse_scan_pmd`` (``hpage_collapse_scan_pmd`` until 7.1, ``khugepaged_scan_pmd`` in 2.6.38): may this block be collapsed?

::

    no page table, or huge already ── that is the answer
    each of 512 PTEs   none or zero? ─ in swap? ─ uffd? ─ writable? ─ the page's checks ─ in use?   the first that fails ends the scan
    the whole block    a writable page? ─ enough pages in use?

Checks stand in the kernel's order, each with where the kernel has it; numbers of lines are those of Debian's 7.3.4. What differs in
order between kernels is a function of its own (``checks.SCAN_ORDER``); what differs in a value is a named rule.

In compiled functions *rules* is the checks' (``checks.Checks``), *cc* who collapses, within which limits (``limits.CollapseControl``),
*c* a view's columns (``checks.ViewColumns``), *b* a row of them and *i* a page of its block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import MAPPED, PFN_MASK, PSE, RW, UFFD_WP
from secondsight.geometry import ALL_ANON_ORDERS, HPAGE_PMD_NR, KHUGEPAGED_MAX_PTES_LIMIT, PMD_ORDER
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.checks import (
    ORDER_2_6_38,
    ORDER_6_1,
    WRITABLE_EVERY,
    WRITABLE_ONE,
    Checks,
    ViewColumns,
    checks_of,
    expected_ref_count,
    is_lazyfree,
    is_page_known,
    is_referenced,
    is_shared,
    is_uffd_wp_entry,
    with_known,
)
from secondsight.mm.khugepaged.limits import (
    CollapseControl,
    collapse_control,
    collapse_max_ptes_none,
    collapse_max_ptes_shared,
    collapse_max_ptes_swap,
)
from secondsight.mm.khugepaged.result import ScanNumbers, ScanResult, no_numbers
from secondsight.mm.page import ANON, LOCKED, LRU
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView
from secondsight.native import merged, native

#: From so many blocks on it pays to have the very same function compiled for the rules at hand (and kept on disk).
MANY_BLOCKS = 1024
_LOWER_ORDERS = np.uint16(ALL_ANON_ORDERS & ~(1 << PMD_ORDER))


@merged
def check_pmd_state(rules, pmd):  # type: ignore[no-untyped-def]
    """find_pmd_or_thp_or_none, check_pmd_state (7.3 line 1102): SUCCEED if a page table hangs here.

    NO_PTE_TABLE stands for PMD_NONE and PMD_NULL since 7.x.
    """
    if pmd == 0:
        return rules.no_pmd
    if not pmd & MAPPED:
        return rules.no_table
    if pmd & PSE:
        return ScanResult.PMD_MAPPED
    return ScanResult.SUCCEED


@merged
def _page_2_6_38(rules, c, b, i):  # type: ignore[no-untyped-def]
    """The checks of the posted patch, mm/huge_memory.c khugepaged_scan_pmd (2.6.38)."""
    # On the LRU, not locked, anonymous: three tests in one condition.
    if not c.flags[b, i] & LRU:
        return ScanResult.PAGE_LRU
    if c.flags[b, i] & LOCKED:
        return ScanResult.PAGE_LOCK
    if not c.flags[b, i] & ANON:
        return ScanResult.PAGE_ANON
    # Mapped once and held by nobody else: page_count(page) != 1, "cannot use mapcount: can't collapse if there's a gup pin".
    if c.refcount[b, i] != expected_ref_count(rules, c, b, i):
        return ScanResult.PAGE_COUNT
    return ScanResult.SUCCEED


@merged
def _page_6_1(rules, c, b, i):  # type: ignore[no-untyped-def]
    """What follows the count of shared pages, mm/khugepaged.c hpage_collapse_scan_pmd (6.1)."""
    # Off the LRU: it waits in a batch, or somebody has isolated it. PageLRU.
    if not c.flags[b, i] & LRU:
        return ScanResult.PAGE_LRU
    # Somebody holds its lock. PageLocked.
    if c.flags[b, i] & LOCKED:
        return ScanResult.PAGE_LOCK
    # Only anonymous memory is collapsed here. PageAnon.
    if not c.flags[b, i] & ANON:
        return ScanResult.PAGE_ANON
    # Somebody beside its mappings holds it, as a pin does. is_refcount_suitable.
    if c.refcount[b, i] != expected_ref_count(rules, c, b, i):
        return ScanResult.PAGE_COUNT
    return ScanResult.SUCCEED


@merged
def _page_6_12(rules, c, b, i):  # type: ignore[no-untyped-def]
    """What follows the count of shared pages, mm/khugepaged.c hpage_collapse_scan_pmd (6.12), collapse_scan_pmd (7.3 lines 1749-1770)."""
    # Off the LRU: it waits in a batch, or somebody has isolated it. folio_test_lru (7.3 line 1749).
    if not c.flags[b, i] & LRU:
        return ScanResult.PAGE_LRU
    # Somebody holds its lock. folio_test_locked (7.3 line 1754).
    if c.flags[b, i] & LOCKED:
        return ScanResult.PAGE_LOCK
    # Somebody beside its mappings holds it, as a pin does. folio_expected_ref_count (7.3 line 1767).
    if c.refcount[b, i] != expected_ref_count(rules, c, b, i):
        return ScanResult.PAGE_COUNT
    return ScanResult.SUCCEED


@merged
def collapse_scan_pmd(rules, cc, c, b, assume, numbers):  # type: ignore[no-untyped-def]
    """Scan block *b* of the columns *c* into row *b* of *numbers*; what is not known counts as *assume*."""
    numbers.stopped[b] = HPAGE_PMD_NR
    # Without a page table there is nothing to scan (7.3 line 1623).
    result = check_pmd_state(rules, c.pmd[b])
    if result != ScanResult.SUCCEED:
        numbers.code[b] = result
        return
    # Where a lower order is enabled all pages are looked at, whatever max_ptes_none and userfaultfd say (7.3 line 1639).
    max_none = collapse_max_ptes_none(cc, c.uffd[b], PMD_ORDER)
    if cc.is_khugepaged and c.orders[b] & _LOWER_ORDERS:
        max_none = KHUGEPAGED_MAX_PTES_LIMIT
    max_swap = collapse_max_ptes_swap(cc, PMD_ORDER)
    max_shared = collapse_max_ptes_shared(cc, PMD_ORDER)
    referenced = none_or_zero = unmapped = shared = asked = 0
    entries = np.uint64(0)
    stopped = HPAGE_PMD_NR
    for i in range(HPAGE_PMD_NR):
        entry = c.pte[b, i]
        if not entry & MAPPED:
            # Nothing was ever mapped here. pte_none_or_zero (7.3 line 1655).
            if entry == 0:
                none_or_zero += 1
                if none_or_zero > max_none:
                    result = ScanResult.EXCEED_NONE_PTE
                    stopped = i
                    break
                continue
            # Neither none nor present: swapped out, or another kind of entry. In 2.6.38 the first one ends the scan.
            unmapped += 1
            if not rules.swap_limit:
                result = ScanResult.PTE_NON_PRESENT
                stopped = i
                break
            # Too many of them. max_ptes_swap (4.8; 7.3 line 1665).
            if unmapped > max_swap:
                result = ScanResult.EXCEED_SWAP_PTE
                stopped = i
                break
            # It carries userfaultfd's write protection. pte_swp_uffd_wp_any (7.3 line 1676).
            if is_uffd_wp_entry(entry):
                result = ScanResult.PTE_UFFD_WP
                stopped = i
                break
            continue
        if entry & PFN_MASK == 0:
            # The zero page is as good as none (7.3 line 1655). In 2.6.38 it is a read-only page that is not normal.
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
        # userfaultfd has write-protected it. pte_uffd_wp (5.7; 7.3 line 1682 pte_uffd).
        if entry & UFFD_WP:
            result = ScanResult.PTE_UFFD_WP
            stopped = i
            break
        # Writable ones are noted until 6.17, for the test after the last page; 2.6.38 wants every page writable (!pte_write).
        entries |= entry
        if rules.writable == WRITABLE_EVERY and not entry & RW:
            result = ScanResult.PAGE_RO
            stopped = i
            break
        if is_page_known(c, b, i):
            # Lazily freed and clean: reclaim will have it. folio_test_lazyfree (7.1; 7.3 line 1708).
            if is_lazyfree(rules, cc, c, b, i):
                result = ScanResult.PAGE_LAZYFREE
                stopped = i
                break
            if rules.order == ORDER_2_6_38:
                result = _page_2_6_38(rules, c, b, i)
            else:
                # Only anonymous memory is collapsed here. folio_test_anon; before the shared pages since 6.12 (7.3 line 1714).
                if rules.order != ORDER_6_1 and not c.flags[b, i] & ANON:
                    result = ScanResult.PAGE_ANON
                    stopped = i
                    break
                # Too many pages that another process maps too. max_ptes_shared (5.8; 7.3 line 1725).
                if is_shared(rules, c, b, i):
                    shared += 1
                    if shared > max_shared:
                        result = ScanResult.EXCEED_SHARED_PTE
                        stopped = i
                        break
                result = _page_6_1(rules, c, b, i) if rules.order == ORDER_6_1 else _page_6_12(rules, c, b, i)
            if result != ScanResult.SUCCEED:
                stopped = i
                break
        # In use? MADV_COLLAPSE does not ask (7.3 line 1773).
        if cc.is_khugepaged:
            if is_referenced(rules, c, b, i, assume):
                referenced += 1
            elif rules.asks_secondary:
                # mmu_notifier_test_young, of the page's address; the posted patch passed the block's, fixed by 394bfac1c7f7 (2025).
                asked += 1
                if c.secondary[b, 0 if rules.scan_tests_base_address else i]:
                    referenced += 1
    writable = entries & RW != 0
    if result == ScanResult.SUCCEED:
        # No page may be written: SCAN_PAGE_RO, gone in 6.18.
        if rules.writable == WRITABLE_ONE and not writable:
            result = ScanResult.PAGE_RO
        # No page is in use; or some are in swap, and fewer than half are (4.8; 7.3 line 1777).
        elif (
            cc.is_khugepaged
            and rules.referenced_needed
            and (
                referenced == 0 or (rules.swap_needs_half and unmapped > 0 and referenced < HPAGE_PMD_NR // 2)
            )
        ):
            result = ScanResult.LACK_REFERENCED_PAGE
    numbers.code[b] = result
    numbers.referenced[b] = referenced
    numbers.none_or_zero[b] = none_or_zero if rules.armed_counts_none or not c.uffd[b] else 0
    numbers.unmapped[b] = unmapped
    numbers.writable[b] = writable
    numbers.stopped[b] = stopped
    numbers.asked[b] = asked


@native
def _scan_blocks(rules, cc, c, assume, numbers):  # type: ignore[no-untyped-def]
    for b in range(len(c.pmd)):
        collapse_scan_pmd(rules, cc, c, b, assume, numbers)


@functools.cache
def _scan_blocks_of(rules: Checks, is_khugepaged: int, assume: bool, every_known: int) -> Callable[..., None]:
    """``_scan_blocks``, compiled for one kernel's rules: what it never asks costs nothing."""

    @native
    def scan_blocks(cc, c, numbers):  # type: ignore[no-untyped-def]
        who = CollapseControl(is_khugepaged, cc.max_ptes_none, cc.max_ptes_swap, cc.max_ptes_shared)
        known = with_known(c, every_known)
        for b in range(len(c.pmd)):
            collapse_scan_pmd(rules, who, known, b, assume, numbers)

    return scan_blocks


def columns_of(view: BlockView, assume: bool) -> ViewColumns:
    """*view* as compiled code takes it; what no channel could show counts as *assume*."""
    return ViewColumns(
        view.pmd, view.pte, view.flags, view.mapcount, view.folio_mapcount, view.refcount, view.shared, view.folio, view.order,
        view.named, view.orders, view.uffd, view.droppable, view.pte_known, view.page_known, view.merged(assume),
        int(view.pte_known.all() and view.page_known.all()),
    )  # fmt: skip


def scan(
    view: BlockView, limits: Knobs, rules: Rules, *, khugepaged: bool = True, assume: bool = False
) -> ScanNumbers:
    """Scan every block of *view*. *khugepaged* False: MADV_COLLAPSE, without limits and without the question for use. Pure."""
    numbers = no_numbers(len(view))
    cc = collapse_control(limits, khugepaged=khugepaged)
    columns, checks = columns_of(view, assume), checks_of(rules)
    if len(view) >= MANY_BLOCKS:
        _scan_blocks_of(checks, cc.is_khugepaged, assume, columns.every_known)(cc, columns, numbers)
    else:
        _scan_blocks(checks, cc, columns, assume, numbers)
    return numbers


def present_pages(view: BlockView, row: int) -> npt.NDArray[np.bool_]:
    """The pages of block *row* that a scan which passed found occupied (cc->mthp_present_ptes), bool[512]."""
    entries = view.pte[row]
    return np.asarray(((entries & MAPPED) != 0) & ((entries & PFN_MASK) != 0))
