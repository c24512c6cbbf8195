"""What khugepaged's answers mean, in words a person can act on."""

from __future__ import annotations

from secondsight.bits.swap import EntryKind

#: by the string that the tracepoints print (include/trace/events/huge_memory.h), over all kernels
WORDS = {
    "succeeded": "collapsed into one huge page",
    "failed": "something changed while it was looked at; the next pass tries again",
    "pmd_null": "nothing is mapped here",
    "pmd_none": "nothing is mapped here (no page table)",
    "no_pte_table": "nothing is mapped here (no page table)",
    "page_pmd_mapped": "is huge already",
    "exceed_none_pte": "more pages are missing than max_ptes_none allows",
    "exceed_swap_pte": "more pages are swapped out than max_ptes_swap allows",
    "exceed_shared_pte": "more pages are shared (fork, KSM) than max_ptes_shared allows",
    "pte_non_present": "a page went away between the two looks",
    "pte_uffd_wp": "a page is write-protected by userfaultfd",
    "pte_mapped_hugepage": "small mappings of a page that is huge in the page cache",
    "no_writable_page": "no page is writable",
    "page_ro": "no page is writable",
    "lack_referenced_page": "no page was used since the bits were last cleared (or too few, with swapped ones)",
    "page_null": "a page has no struct page to move (device memory)",
    "scan_aborted": "pages lie on nodes too far apart",
    "not_suitable_page_count": "a page is pinned or held (DMA, O_DIRECT, VFIO, vmsplice, or an LRU batch)",
    "page_not_in_lru": "a page is off the LRU lists (just being moved or isolated)",
    "page_locked": "a page is locked (I/O under way)",
    "page_not_anon": "a page is not anonymous",
    "page_lazyfree": "a page was given back with MADV_FREE and not written since",
    "page_compound": "a page is part of a larger one",
    "no_process_for_page": "the process is exiting",
    "vma_null": "the mapping has gone",
    "vma_check_failed": "the mapping may not have huge pages (any more)",
    "not_suitable_address_range": "the mapping holds no whole aligned 2 MiB (any more)",
    "could_not_delete_page_from_lru": "a page could not be taken off the LRU lists",
    "alloc_huge_page_failed": "no huge page could be had: memory is fragmented or short",
    "ccgroup_charge_failed": "the memory cgroup's limit leaves no room for a huge page",
    "truncated": "the file was truncated",
    "page_has_private": "a page of the file has buffers",
    "store_failed": "the page cache could not be changed",
    "copy_poisoned_page": "a page has an uncorrectable memory error",
    "page_filled": "a hole of the file was filled meanwhile",
    "page_dirty_or_writeback": "a page of the file is dirty or being written",
}
NO_ANON_VMA = "nothing was ever written to this mapping (it has no anon_vma): khugepaged skips it"

#: one entry that is not present, by what it is
ENTRIES = {
    EntryKind.GUARD: "guard page",
    EntryKind.POISON: "page poisoned by UFFDIO_POISON",
    EntryKind.HWPOISON: "page with an uncorrectable memory error",
}
#: of pages that are not present, what they are
STATES = {
    EntryKind.SWAP: "swapped out",
    EntryKind.MIGRATION: "being migrated",
    EntryKind.DEVICE: "in device memory",
    EntryKind.HWPOISON: "with an uncorrectable memory error",
    EntryKind.UFFD_WP: "write-protected by userfaultfd",
    EntryKind.POISON: "poisoned by UFFDIO_POISON",
    EntryKind.GUARD: "guard pages (MADV_GUARD_INSTALL), not swap",
    EntryKind.SPECIAL: "an entry of the kernel's own (migration, device or poison)",
}

REFUSAL = (
    "wasted pass: the scan found the block in use, a huge page was allocated and 2 MiB were unmapped from the secondary MMUs, then "
    "isolate found no reference left (since 6.13 the zap no longer carries the guest's accessed bits over); it collapses only if "
    "it is touched again before the next pass; `secondsight collapse` heals it"
)
#: the same, of a pass to come
REFUSAL_AHEAD = (
    "the pass over it is wasted: the scan finds it in use, a huge page is allocated and 2 MiB are unmapped from the secondary MMUs, then "
    "isolate finds no reference left (since 6.13 the zap no longer carries the guest's accessed bits over); it collapses only if it "
    "is touched again before the next pass; `secondsight collapse` heals it"
)
LOST_REFERENCE_AHEAD = (
    "the pass over it is wasted: the scan finds it in use, but unmapping the secondary MMUs moves its pages' references into an LRU "
    "batch, where isolate no longer sees them"
)
LOST_REFERENCE = (
    "wasted pass: the scan found the block in use, but unmapping the secondary MMUs moved its pages' references into an LRU batch, "
    "where isolate no longer sees them"
)


def words(status: str) -> str:
    """The meaning of *status*; the status itself where it is newer than this table."""
    # A mapping's reason is a sentence already: MADV_HUGEPAGE keeps its underscore.
    return WORDS.get(status) or (status if " " in status else status.replace("_", " "))
