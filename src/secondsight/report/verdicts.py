"""What can befall a block, in words: every answer of khugepaged with the rule behind it, and what policies and faults do.

The strings are those of include/trace/events/huge_memory.h; the rules are read in mm/khugepaged.c and mm/huge_memory.c.
"""

from __future__ import annotations

from typing import Final

from secondsight.report.schema import VerdictRule

_SCAN = "mm/khugepaged.c hpage_collapse_scan_pmd (7.2: collapse_scan_pmd)"
_ISOLATE = "mm/khugepaged.c __collapse_huge_page_isolate"
_RULES: Final = (
    VerdictRule(
        "succeeded",
        "Both looks passed: the pages were copied into one huge page.",
        "mm/khugepaged.c collapse_huge_page",
        True,
    ),
    VerdictRule(
        "fault_huge",
        "The first touch mapped a huge page.",
        "mm/huge_memory.c do_huge_pmd_anonymous_page",
        True,
    ),
    VerdictRule("policy_huge", "The policy made the block huge.", "mm/khugepaged.c madvise_collapse", True),
    VerdictRule(
        "policy_split",
        "The policy split the huge page; zero-filled pages were given back.",
        "mm/huge_memory.c split_folio",
    ),
    VerdictRule(
        "split",
        "The huge page was split by what the program did (part of it unmapped, swapped, protected).",
        "mm/huge_memory.c __split_huge_pmd",
    ),
    VerdictRule(
        "page_pmd_mapped", "The block is huge already.", "mm/khugepaged.c find_pmd_or_thp_or_none", True
    ),
    VerdictRule(
        "lack_referenced_page",
        "In the scan: no channel called any page young, or pages are swapped out and fewer than 256 were young.",
        _SCAN,
    ),
    VerdictRule(
        "lack_referenced_page@isolate",
        "The scan passed, a huge page was allocated and the block unmapped from the guest; then no page was young any more. Since 6.13 "
        "the zap no longer carries the guest's accessed bit to the page, so a block that only a guest uses fails here until it is touched "
        "again.",
        f"{_ISOLATE}; 66bc627e7fee (6.13)",
    ),
    VerdictRule(
        "exceed_none_pte", "More pages are empty (or map the zero page) than max_ptes_none allows.", _SCAN
    ),
    VerdictRule("exceed_swap_pte", "More pages are swapped out than max_ptes_swap allows.", _SCAN),
    VerdictRule(
        "exceed_shared_pte", "More pages are shared with another process than max_ptes_shared allows.", _SCAN
    ),
    VerdictRule(
        "no_pte_table",
        "Nothing is mapped in the block: there is no page table to scan.",
        "mm/khugepaged.c find_pmd_or_thp_or_none",
    ),
    VerdictRule("pmd_none", "Nothing is mapped in the block.", "mm/khugepaged.c find_pmd_or_thp_or_none"),
    VerdictRule("pmd_null", "No page table reaches the block.", "mm/khugepaged.c find_pmd_or_thp_or_none"),
    VerdictRule("no_writable_page", "No page of the block is writable (a rule up to 6.17).", _SCAN),
    VerdictRule(
        "not_suitable_page_count",
        "A page has more references than its mappings explain: it is pinned, or waits in a per-CPU LRU batch.",
        _SCAN,
    ),
    VerdictRule(
        "not_suitable_page_count@isolate",
        "Between the looks a page gained a reference: the zap activated it, and it waits in a per-CPU LRU batch.",
        f"{_ISOLATE}; mm/swap.c folio_activate",
    ),
    VerdictRule("page_not_in_lru", "A page is not on an LRU list.", _SCAN),
    VerdictRule("page_locked", "A page is locked.", _SCAN),
    VerdictRule("page_not_anon", "A page is not anonymous.", _SCAN),
    VerdictRule("page_lazyfree", "A clean page was freed by MADV_FREE (7.x).", _SCAN),
    VerdictRule("pte_non_present", "A page went away between the looks.", _ISOLATE),
    VerdictRule("pte_uffd_wp", "A page is write-protected through userfaultfd.", _SCAN),
    VerdictRule("vma_check_failed", "The area may not be huge.", "mm/khugepaged.c hugepage_vma_revalidate"),
    VerdictRule(
        "alloc_huge_page_failed", "No huge page could be allocated.", "mm/khugepaged.c alloc_charge_folio"
    ),
    VerdictRule("could_not_delete_page_from_lru", "A page could not be taken off its LRU list.", _ISOLATE),
    VerdictRule(
        "ccgroup_charge_failed",
        "The cgroup's memory limit was reached.",
        "mm/khugepaged.c alloc_charge_folio",
    ),
    VerdictRule("page_null", "A present entry maps no ordinary page.", _SCAN),
    VerdictRule(
        "pte_mapped_hugepage", "Pages of the part tried belong to a folio that is as large already.", _ISOLATE
    ),
    VerdictRule("scan_aborted", "Pages lie on nodes too far apart.", _SCAN),
    VerdictRule("page_compound", "A page is part of a larger one.", "mm/khugepaged.c collapse_file"),
    VerdictRule("no_process_for_page", "The process is exiting.", "mm/khugepaged.c hugepage_vma_revalidate"),
    VerdictRule("vma_null", "The area has gone.", "mm/khugepaged.c hugepage_vma_revalidate"),
    VerdictRule(
        "not_suitable_address_range",
        "The area holds no whole block any more.",
        "mm/khugepaged.c hugepage_vma_revalidate",
    ),
    VerdictRule("truncated", "The file was truncated.", "mm/khugepaged.c collapse_file"),
    VerdictRule("page_has_private", "A page of the file has buffers.", "mm/khugepaged.c collapse_file"),
    VerdictRule("store_failed", "The page cache could not be changed.", "mm/khugepaged.c collapse_file"),
    VerdictRule(
        "copy_poisoned_page",
        "A page has an uncorrectable memory error.",
        "mm/khugepaged.c __collapse_huge_page_copy",
    ),
    VerdictRule("page_filled", "A hole of the file was filled meanwhile.", "mm/khugepaged.c collapse_file"),
    VerdictRule(
        "page_dirty_or_writeback",
        "A page of the file is dirty or being written.",
        "mm/khugepaged.c collapse_file",
    ),
    VerdictRule("failed", "Something else changed between the looks.", "mm/khugepaged.c collapse_huge_page"),
)

VERDICTS: Final = {rule.code: rule for rule in _RULES}


def rule(code: str) -> VerdictRule:
    """The rule behind *code*; ``code@isolate`` falls back to ``code`` where the second look says nothing of its own."""
    found = VERDICTS.get(code) or VERDICTS.get(code.partition("@")[0])
    if found is None:
        return VerdictRule(code, "The kernel's answer, as its tracepoint prints it.", _SCAN)
    if found.code == code:
        return found
    return VerdictRule(code, f"In the second look: {found.meaning}", _ISOLATE, found.good)
