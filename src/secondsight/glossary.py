"""What can befall a block: every answer of khugepaged with the rule behind it, and what policies and faults do; the words of mm that
outputs use, each in one sentence.

The codes are the strings that the tracepoints print (include/trace/events/huge_memory.h), over all kernels; the rules are read in
mm/khugepaged.c and mm/huge_memory.c. Reports name the rule (``report/verdicts.py``), live commands what it means for whoever runs the
program (``live/judge/reasons.py``).
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Term(NamedTuple):
    """What *code* means: *words* for who runs the program, empty where only a replay meets it; *meaning*: the rule, empty where only a
    running kernel answers so; *cite*: where the kernel says so; *good*: the block is huge then."""

    code: str
    words: str
    meaning: str
    cite: str = ""
    good: bool = False


SCAN: Final = "mm/khugepaged.c hpage_collapse_scan_pmd (7.2: collapse_scan_pmd)"
ISOLATE: Final = "mm/khugepaged.c __collapse_huge_page_isolate"

_TERMS: Final = (
    Term(
        "succeeded",
        "collapsed into one huge page",
        "Scan and isolate passed: the pages were copied into one huge page.",
        "mm/khugepaged.c collapse_huge_page",
        True,
    ),
    Term(
        "fault_huge",
        "",
        "The first touch mapped a huge page.",
        "mm/huge_memory.c do_huge_pmd_anonymous_page",
        True,
    ),
    Term("policy_huge", "", "The policy made the block huge.", "mm/khugepaged.c madvise_collapse", True),
    Term(
        "policy_split",
        "",
        "The policy split the huge page; zero-filled pages were given back.",
        "mm/huge_memory.c split_folio",
    ),
    Term(
        "split",
        "",
        "The huge page was split by what the program did (part of it unmapped, swapped, protected).",
        "mm/huge_memory.c __split_huge_pmd",
    ),
    Term(
        "page_pmd_mapped",
        "is huge already",
        "The block is huge already.",
        "mm/khugepaged.c find_pmd_or_thp_or_none",
        True,
    ),
    Term(
        "lack_referenced_page",
        "no page was used since the bits were last cleared (or too few, with swapped ones)",
        "In the scan: no channel saw any page in use, or pages are swapped out and fewer than 256 were in use.",
        SCAN,
    ),
    Term(
        "lack_referenced_page@isolate",
        "",
        "The scan passed, a huge page was allocated and the block unmapped from the guest; then no page was seen in use any more. "
        "Since 6.13 "
        "the zap no longer carries the guest's accessed bit to the page, so a block that only a guest uses fails here until it is touched "
        "again.",
        f"{ISOLATE}; 66bc627e7fee (6.13)",
    ),
    Term(
        "exceed_none_pte",
        "more pages are missing than max_ptes_none allows",
        "More pages are empty (or map the zero page) than max_ptes_none allows.",
        SCAN,
    ),
    Term(
        "exceed_swap_pte",
        "more pages are swapped out than max_ptes_swap allows",
        "More pages are swapped out than max_ptes_swap allows.",
        SCAN,
    ),
    Term(
        "exceed_shared_pte",
        "more pages are shared (fork, KSM) than max_ptes_shared allows",
        "More pages are shared with another process than max_ptes_shared allows.",
        SCAN,
    ),
    Term(
        "no_pte_table",
        "nothing is mapped here (no page table)",
        "Nothing is mapped in the block: there is no page table to scan.",
        "mm/khugepaged.c find_pmd_or_thp_or_none",
    ),
    Term(
        "pmd_none",
        "nothing is mapped here (no page table)",
        "Nothing is mapped in the block.",
        "mm/khugepaged.c find_pmd_or_thp_or_none",
    ),
    Term(
        "pmd_null",
        "nothing is mapped here",
        "No page table reaches the block.",
        "mm/khugepaged.c find_pmd_or_thp_or_none",
    ),
    Term(
        "no_writable_page",
        "no page is writable",
        "No page of the block is writable (a rule up to 6.17).",
        SCAN,
    ),
    Term(
        "not_suitable_page_count",
        "a page is pinned or held (DMA, O_DIRECT, VFIO, vmsplice, or an LRU batch)",
        "A page has more references than its mappings explain: it is pinned, or waits in a per-CPU LRU batch.",
        SCAN,
    ),
    Term(
        "not_suitable_page_count@isolate",
        "",
        "Between scan and isolate a page gained a reference: the zap activated it, and it waits in a per-CPU LRU batch.",
        f"{ISOLATE}; mm/swap.c folio_activate",
    ),
    Term(
        "page_not_in_lru",
        "a page is off the LRU lists (just being moved or isolated)",
        "A page is not on an LRU list.",
        SCAN,
    ),
    Term("page_locked", "a page is locked (I/O under way)", "A page is locked.", SCAN),
    Term("page_not_anon", "a page is not anonymous", "A page is not anonymous.", SCAN),
    Term(
        "page_lazyfree",
        "a page was given back with MADV_FREE and not written since",
        "A clean page was freed by MADV_FREE (7.x).",
        SCAN,
    ),
    Term(
        "page_swap_cache",
        "a page that is in the swap cache too is named by another process's entry",
        "A read-only page is in the swap cache, and another entry names it (a rule up to 5.17).",
        ISOLATE,
    ),
    Term(
        "pte_non_present",
        "a page went away between scan and isolate",
        "A page went away between scan and isolate.",
        ISOLATE,
    ),
    Term(
        "pte_uffd_wp",
        "a page is write-protected by userfaultfd",
        "A page is write-protected through userfaultfd.",
        SCAN,
    ),
    Term(
        "vma_check_failed",
        "the mapping may not have huge pages (any more)",
        "The area may not be huge.",
        "mm/khugepaged.c hugepage_vma_revalidate",
    ),
    Term(
        "alloc_huge_page_failed",
        "no huge page could be had: memory is fragmented or short",
        "No huge page could be allocated.",
        "mm/khugepaged.c alloc_charge_folio",
    ),
    Term(
        "could_not_delete_page_from_lru",
        "a page could not be taken off the LRU lists",
        "A page could not be taken off its LRU list.",
        ISOLATE,
    ),
    Term(
        "ccgroup_charge_failed",
        "the memory cgroup's limit leaves no room for a huge page",
        "The cgroup's memory limit was reached.",
        "mm/khugepaged.c alloc_charge_folio",
    ),
    Term(
        "page_null",
        "a page has no struct page to move (device memory)",
        "A present entry maps no ordinary page.",
        SCAN,
    ),
    Term(
        "pte_mapped_hugepage",
        "small mappings of a page that is huge in the page cache",
        "Pages of the part tried belong to a folio that is as large already.",
        ISOLATE,
    ),
    Term("scan_aborted", "pages lie on nodes too far apart", "Pages lie on nodes too far apart.", SCAN),
    Term(
        "page_compound",
        "a page is part of a larger one",
        "A page is part of a larger one.",
        "mm/khugepaged.c collapse_file",
    ),
    Term(
        "no_process_for_page",
        "the process is exiting",
        "The process is exiting.",
        "mm/khugepaged.c hugepage_vma_revalidate",
    ),
    Term("vma_null", "the mapping has gone", "The area has gone.", "mm/khugepaged.c hugepage_vma_revalidate"),
    Term(
        "not_suitable_address_range",
        "the mapping holds no whole aligned 2 MiB (any more)",
        "The area holds no whole block any more.",
        "mm/khugepaged.c hugepage_vma_revalidate",
    ),
    Term("truncated", "the file was truncated", "The file was truncated.", "mm/khugepaged.c collapse_file"),
    Term(
        "page_has_private",
        "a page of the file has buffers",
        "A page of the file has buffers.",
        "mm/khugepaged.c collapse_file",
    ),
    Term(
        "store_failed",
        "the page cache could not be changed",
        "The page cache could not be changed.",
        "mm/khugepaged.c collapse_file",
    ),
    Term(
        "copy_poisoned_page",
        "a page has an uncorrectable memory error",
        "A page has an uncorrectable memory error.",
        "mm/khugepaged.c __collapse_huge_page_copy",
    ),
    Term(
        "page_filled",
        "a hole of the file was filled meanwhile",
        "A hole of the file was filled meanwhile.",
        "mm/khugepaged.c collapse_file",
    ),
    Term(
        "page_dirty_or_writeback",
        "a page of the file is dirty or being written",
        "A page of the file is dirty or being written.",
        "mm/khugepaged.c collapse_file",
    ),
    Term(
        "failed",
        "something changed while it was looked at; the next pass tries again",
        "Something else changed between scan and isolate.",
        "mm/khugepaged.c collapse_huge_page",
    ),
    Term("page_ro", "no page is writable", "", ""),
)

TERMS: Final = {term.code: term for term in _TERMS}

#: Words of mm, in an order in which one explains the next.
WORDS: Final = {
    "channel": "A place where use shows: the process's page table, the page's referenced flag, a secondary MMU.",
    "accessed bit": "Set by the CPU in the page-table entry through which a page is used, until somebody clears it.",
    "scan": "khugepaged's first check of a block: may its pages be collapsed, and was one of them used?",
    "zap": "After the scan the block is taken out of all page tables by which guests and devices reach it.",
    "isolate": "khugepaged's second check, after the zap and before the pages are copied.",
    "secondary MMU": "A further page table over a process's memory: a guest's (KVM) or a device's.",
    "MMU notifier": "How Linux tells secondary MMUs what becomes of memory, and asks them whether they used it.",
}

#: What each method of an MMU notifier is called for (include/linux/mmu_notifier.h).
NOTIFIER_METHODS: Final = {
    "test_young": "Asks a secondary MMU whether it used a page since the accessed bit was cleared; changes nothing.",
    "clear_young": "Asks the same and clears the accessed bit; the TLB may keep the page.",
    "clear_flush_young": "Asks the same and clears the accessed bit, in the TLB too.",
    "change_pte": "Tells secondary MMUs to map another page in a page's place.",
    "invalidate_page": "Tells secondary MMUs to drop one page (kernels before 4.14).",
    "invalidate_range_start": "Tells secondary MMUs to drop a range, which is about to change; what is used again faults in.",
    "invalidate_range_end": "Tells secondary MMUs that the range has changed and may be mapped again.",
    "release": "Tells secondary MMUs that the process ends.",
}
