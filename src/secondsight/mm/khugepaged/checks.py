"""What the kernels' checks of a page differ in: their order (a function for each), and values (a named rule for each).

The tables say in which order a page's checks are made; ``scan`` and ``isolate`` are these tables as code, and the tests hold them
against each other: a page with two faults answers with the one that stands first.

In compiled functions *rules* is the checks' (``checks.Checks``), *cc* who collapses, within which limits (``limits.CollapseControl``),
*c* a view's columns (``checks.ViewColumns``), *b* a row of them and *i* a page of its block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, DIRTY_BITS
from secondsight.bits.swap import (
    MARKER_TYPE,
    MARKER_UFFD_WP,
    OFFSET_MASK,
    OFFSET_SHIFT,
    SWP_UFFD_WP,
    TYPE_SHIFT,
)
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.page import ANON, REFERENCED, SWAPBACKED, SWAPCACHE, YOUNG
from secondsight.mm.rules import Rules
from secondsight.native import merged

#: Orders of checks, named by the first kernel read that has each.
ORDER_2_6_38, ORDER_6_1, ORDER_6_12 = range(3)
#: What a mapped page is tested for by the scan, first to last. PAGE_LAZYFREE (7.1) only where the rule ``lazyfree_refused`` says so.
SCAN_ORDER: dict[int, tuple[str, ...]] = {
    ORDER_2_6_38: ("PAGE_RO", "PAGE_LRU", "PAGE_LOCK", "PAGE_ANON", "PAGE_COUNT"),
    ORDER_6_1: ("PTE_UFFD_WP", "PAGE_LAZYFREE", "EXCEED_SHARED_PTE", "PAGE_LRU", "PAGE_LOCK", "PAGE_ANON", "PAGE_COUNT"),
    ORDER_6_12: ("PTE_UFFD_WP", "PAGE_LAZYFREE", "PAGE_ANON", "EXCEED_SHARED_PTE", "PAGE_LRU", "PAGE_LOCK", "PAGE_COUNT"),
}  # fmt: skip
#: The same for isolate. No anonymity (a BUG_ON there); PG_lru is looked at last, in taking the page off its list. SWAP_CACHE_PAGE (up to
#: 5.17) only where the rule ``isolate_reuses_swap_page`` says so.
ISOLATE_ORDER: dict[int, tuple[str, ...]] = {
    ORDER_2_6_38: ("PAGE_RO", "PAGE_COUNT", "PAGE_LOCK", "DEL_PAGE_LRU"),
    ORDER_6_1: ("PTE_UFFD_WP", "PAGE_LAZYFREE", "EXCEED_SHARED_PTE", "PTE_MAPPED_HUGEPAGE", "PAGE_LOCK", "PAGE_COUNT", "SWAP_CACHE_PAGE",
                "DEL_PAGE_LRU"),
    ORDER_6_12: ("PTE_UFFD_WP", "PAGE_LAZYFREE", "EXCEED_SHARED_PTE", "PTE_MAPPED_HUGEPAGE", "PAGE_LOCK", "PAGE_COUNT", "DEL_PAGE_LRU"),
}  # fmt: skip

WRITABLE_NONE, WRITABLE_ONE, WRITABLE_EVERY = range(3)


class Checks(NamedTuple):
    """The rules that scan and isolate ask, as integers for compiled code; names as in ``Rules``.

    order: one of the ORDERs above; no_pmd, no_table: the codes for an empty PMD and for one that is neither a table nor a huge page.
    """

    order: int
    referenced_needed: int
    asks_page_referenced: int
    asks_page_young: int
    asks_secondary: int
    scan_tests_base_address: int
    swap_limit: int
    shared_by_folio: int
    counts_mappings: int
    zero_page_is_none: int
    armed_counts_none: int
    writable: int
    lazyfree_refused: int
    isolate_reuses_swap_page: int
    swap_needs_half: int
    no_pmd: int
    no_table: int


def check_order(rules: Rules) -> int:
    """The order in which the kernel of *rules* makes its checks."""
    if rules.shared == "abort":
        return ORDER_2_6_38
    return ORDER_6_12 if rules.anon_before_shared else ORDER_6_1


def checks_of(rules: Rules) -> Checks:
    """What compiled code asks of *rules*."""
    merged_codes = rules.no_table_code == "no_pte_table"
    return Checks(
        order=check_order(rules),
        referenced_needed=int(rules.referenced_needed),
        asks_page_referenced=int(rules.asks_page_referenced),
        asks_page_young=int(rules.asks_page_young),
        asks_secondary=int(rules.asks_secondary),
        scan_tests_base_address=int(rules.scan_tests_base_address),
        swap_limit=int(rules.swap_limit),
        shared_by_folio=int(rules.shared == "folio"),
        counts_mappings=int(rules.expected_refcount == "mapcount"),
        zero_page_is_none=int(rules.zero_page_is_none),
        armed_counts_none=int(rules.armed_counts_none),
        writable={"none": WRITABLE_NONE, "one": WRITABLE_ONE, "every": WRITABLE_EVERY}[rules.writable],
        lazyfree_refused=int(rules.lazyfree_refused),
        isolate_reuses_swap_page=int(rules.isolate_reuses_swap_page),
        swap_needs_half=int(rules.swap_needs_half),
        no_pmd=int(ScanResult.NO_PTE_TABLE if merged_codes else ScanResult.PMD_NONE),
        no_table=int(ScanResult.NO_PTE_TABLE if merged_codes else ScanResult.PMD_NULL),
    )


class ViewColumns(NamedTuple):
    """A view's columns (``BlockView``'s, by name), as compiled code takes them; *secondary* is the channel merged over all notifiers.

    *every_known*: all of *pte_known* and *page_known* is true. Compiled in where there are many blocks, it spares the two questions.
    """

    pmd: npt.NDArray[np.uint64]
    pte: npt.NDArray[np.uint64]
    flags: npt.NDArray[np.uint32]
    mapcount: npt.NDArray[np.int32]
    folio_mapcount: npt.NDArray[np.int32]
    refcount: npt.NDArray[np.int32]
    shared: npt.NDArray[np.bool_]
    folio: npt.NDArray[np.int64]
    order: npt.NDArray[np.uint8]
    named: npt.NDArray[np.bool_]
    orders: npt.NDArray[np.uint16]
    uffd: npt.NDArray[np.bool_]
    droppable: npt.NDArray[np.bool_]
    pte_known: npt.NDArray[np.bool_]
    page_known: npt.NDArray[np.bool_]
    secondary: npt.NDArray[np.bool_]
    every_known: int


@merged
def with_known(c, every_known):  # type: ignore[no-untyped-def]
    """*c* with *every_known*, which is a constant where this is compiled."""
    return ViewColumns(
        c.pmd, c.pte, c.flags, c.mapcount, c.folio_mapcount, c.refcount, c.shared, c.folio, c.order, c.named, c.orders, c.uffd,
        c.droppable, c.pte_known, c.page_known, c.secondary, every_known,
    )  # fmt: skip


@merged
def is_page_known(c, b, i):  # type: ignore[no-untyped-def]
    """Could the page's columns be read?"""
    return c.every_known or c.page_known[b, i]


@merged
def is_lazyfree(rules, cc, c, b, i):  # type: ignore[no-untyped-def]
    """Is the page lazily freed and still clean, so that khugepaged leaves it to reclaim?

    folio_test_lazyfree (anonymous without PG_swapbacked) and not pte_dirty, outside VM_DROPPABLE, where it would stay lazily freed.
    """
    if not rules.lazyfree_refused or not cc.is_khugepaged or c.droppable[b]:
        return False
    return c.flags[b, i] & (ANON | SWAPBACKED) == ANON and c.pte[b, i] & DIRTY_BITS == 0


@merged
def is_uffd_wp_entry(entry):  # type: ignore[no-untyped-def]
    """Does an entry that is not present carry userfaultfd's write protection?

    pte_swp_uffd_wp: the bit of a swap entry; pte_marker_uffd_wp: the marker in the place of a page that was never there (5.19; in
    anonymous memory since 6.4).
    """
    if entry & SWP_UFFD_WP:
        return True
    offset = (~entry & OFFSET_MASK) >> OFFSET_SHIFT
    return entry >> TYPE_SHIFT == np.uint64(MARKER_TYPE) and offset & np.uint64(MARKER_UFFD_WP) != 0


@merged
def is_shared(rules, c, b, i):  # type: ignore[no-untyped-def]
    """Does another process map it?

    page_mapcount > 1 (5.8: 71a2c112a0f6, max_ptes_shared); folio_likely_mapped_shared, then folio_maybe_mapped_shared of the whole folio
    (6.10), so that every page of a folio counts of which one is shared.
    """
    return c.shared[b, i] if rules.shared_by_folio else c.mapcount[b, i] > 1


@merged
def expected_ref_count(rules, c, b, i):  # type: ignore[no-untyped-def]
    """folio_expected_ref_count of an anonymous folio: its mappings, and one for each of its pages if it is in the swap cache.

    is_refcount_suitable before 6.18: total_mapcount, and compound_nr if PageSwapCache. Mappings of a secondary MMU hold none. 2.6.38 wants
    one: "cannot use mapcount: can't collapse if there's a gup pin".
    """
    if not rules.counts_mappings:
        return np.int64(1)
    count = np.int64(c.folio_mapcount[b, i])
    if c.flags[b, i] & SWAPCACHE:
        count += 1 << c.order[b, i]
    return count


@merged
def is_referenced(rules, c, b, i, assume):  # type: ignore[no-untyped-def]
    """Is the page in use, before any secondary MMU is asked: 1 yes, 0 no.

    pte_young, folio_test_young, folio_test_referenced (7.3 folio_pte_referenced asks the folio first, which changes no answer). What
    is not known counts as *assume*.
    """
    if (c.pte[b, i] & ACCESSED) != 0 if c.every_known or c.pte_known[b, i] else assume:
        return True
    if not is_page_known(c, b, i):
        return assume
    flags = c.flags[b, i]
    return (rules.asks_page_young and flags & YOUNG != 0) or (
        rules.asks_page_referenced and flags & REFERENCED != 0
    )
