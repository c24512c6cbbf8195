"""Rules of mm/khugepaged.c: who is asked, what scan and isolate check and in which order, and the collapse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secondsight.mm.rules.definition import rule


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)  # methods are made once, by Rules
class KhugepagedRules:
    """What khugepaged and MADV_COLLAPSE do differently from kernel to kernel."""

    # -- who is asked whether a page is young ----------------------------------------------------------------
    referenced_needed: bool = rule(
        True,
        "khugepaged collapses only where at least one page was used",
        "mm/khugepaged.c collapse_scan_pmd: SCAN_LACK_REFERENCED_PAGE",
        "booted",
    )
    asks_page_referenced: bool = rule(
        True,
        "PG_referenced counts as use (the REFERENCED channel)",
        "seed patch, mm/huge_memory.c; mm/khugepaged.c folio_test_referenced",
        "booted",
    )
    asks_page_young: bool = rule(
        False,
        "PG_young (idle page tracking's memory of an accessed bit) counts as use",
        "33c3fc71c8cf (4.3); mm/khugepaged.c folio_test_young",
        "booted",
    )
    asks_secondary: bool = rule(
        True,
        "mmu_notifier_test_young counts as use (the SECONDARY channel)",
        "seed patch 8ee53820edfd; mm/khugepaged.c",
        "booted",
    )
    scan_tests_base_address: bool = rule(
        True,
        "the scan asks test_young about the block's first address for each of its 512 pages",
        "seed patch: khugepaged_scan_pmd walks _address, passes address; fixed by 394bfac1c7f7 (6.17, and 6.12.48)",
        "booted",
    )

    # -- the checks of scan and isolate ----------------------------------------------------------------------
    swap_limit: bool = rule(
        False,
        "up to max_ptes_swap swap entries are tolerated and swapped in; else the first one ends the scan",
        "mm/khugepaged.c max_ptes_swap (4.8)",
        "booted",
    )
    shared: Literal["abort", "page", "folio"] = rule(
        "abort",
        "a shared page ends the scan / counts against max_ptes_shared by its own mapcount / by its folio's",
        "mm/khugepaged.c max_ptes_shared (5.8); folio_likely_mapped_shared (6.10), folio_maybe_mapped_shared",
        "booted",
    )
    large_mapped_shared: Literal["page", "first", "mm"] = rule(
        "page",
        "a large folio that PTEs map counts as shared by the page's own mapcount / by its first page's / by the processes that map it",
        "include/linux/mm.h folio_estimated_sharers, folio_likely_mapped_shared (6.10), folio_maybe_mapped_shared (6.15)",
        "booted",
    )
    zero_page_is_none: bool = rule(
        False,
        "the zero page counts against max_ptes_none; else it is a read-only page",
        "mm/khugepaged.c pte_none_or_zero",
        "booted",
    )
    armed_counts_none: bool = rule(
        False,
        "where userfaultfd is armed the empty page that ends a visit is counted; else none_or_zero is 0",
        "mm/khugepaged.c khugepaged_scan_pmd: ++none_or_zero behind userfaultfd_armed before cc->is_khugepaged (6.1)",
        "booted",
    )
    isolate_reuses_swap_page: bool = rule(
        False,
        "isolate refuses a read-only page of the swap cache that another entry names, and takes others out of the cache",
        "mm/khugepaged.c __collapse_huge_page_isolate: reuse_swap_page, SCAN_SWAP_CACHE_PAGE (4.0 to 5.17)",
        "booted",
    )
    writable: Literal["every", "one", "none"] = rule(
        "every",
        "how many mapped PTEs must be writable",
        "mm/khugepaged.c SCAN_PAGE_RO, gone in 6.18",
        "booted",
    )
    anon_before_shared: bool = rule(
        False,
        "PAGE_ANON is tested before the shared limit",
        "mm/khugepaged.c hpage_collapse_scan_pmd (6.12)",
        "source",
    )
    lazyfree_refused: bool = rule(
        False,
        "a clean page freed by MADV_FREE ends scan and isolate with page_lazyfree",
        "mm/khugepaged.c SCAN_PAGE_LAZYFREE (7.x)",
        "booted",
    )
    mthp_collapse: bool = rule(
        False,
        "khugepaged collapses parts of a block too, to any order that its area may have; else whole blocks alone",
        "mm/khugepaged.c mthp_collapse, collapse_possible_orders (7.2)",
        "booted",
    )
    swap_needs_half: bool = rule(
        False,
        "with swap entries, at least 256 pages must be referenced",
        "mm/khugepaged.c: unmapped && referenced < HPAGE_PMD_NR / 2",
        "booted",
    )
    no_table_code: Literal["pmd_null", "pmd_none", "no_pte_table"] = rule(
        "pmd_none",
        "the name of the answer for a block without a page table; pmd_null: for a huge page too",
        "mm/khugepaged.c SCAN_NO_PTE_TABLE (7.x), before SCAN_PMD_NONE / SCAN_PMD_NULL; mm_find_pmd up to 6.0 (507228044236)",
        "booted",
    )
    expected_refcount: Literal["one", "mapcount"] = rule(
        "one",
        "references a page may have: exactly one / its mappings plus the swap cache's",
        "mm/huge_memory.c page_count(page) != 1; mm/khugepaged.c folio_expected_ref_count",
        "booted",
    )
    collapse_says_why: bool = rule(
        True,
        "the tracepoints print why isolate refused; else the scan has succeeded and mm_collapse_huge_page failed",
        "mm/khugepaged.c collapse_huge_page: result = SCAN_FAIL up to 6.0",
        "booted",
    )
    trace_writable: bool = rule(
        False,
        "the tracepoints print writable",
        "include/trace/events/huge_memory.h before 6.18",
        "booted",
    )
    progress: Literal["block", "ptes"] = rule(
        "block",
        "what a visited block costs of pages_to_scan: 512 / the PTEs looked at (1 without a table)",
        "mm/khugepaged.c cc->progress",
        "booted",
    )

    # -- collapse --------------------------------------------------------------------------------------------
    huge_folio_active: bool = rule(
        True,
        "the new huge page goes to the active LRU list",
        "mm/huge_memory.c 2.6.38 page_add_new_anon_rmap; later lru_cache_add_inactive_or_unevictable",
        "booted",
    )
    collapse_of_no_block: bool = rule(
        False,
        "MADV_COLLAPSE of a part of one block succeeds; else EINVAL",
        "mm/khugepaged.c madvise_collapse: hstart >= hend (7.2); before, the count of blocks is -1, which none collapsed is not (7.1.13)",
        "booted",
    )
    madv_collapse: Literal["none", "6.1", "6.12"] = rule(
        "none",
        "MADV_COLLAPSE: absent / EXCEED_NONE_PTE is EINVAL / it is EBUSY",
        "mm/khugepaged.c madvise_collapse_errno: SCAN_EXCEED_NONE_PTE (6.12)",
        "booted",
    )
