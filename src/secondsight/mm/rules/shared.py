"""Rules of shared memory: mm/shmem.c, the page cache's faults (mm/filemap.c, mm/memory.c), and khugepaged's way through files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secondsight.mm.rules.definition import rule


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)  # methods are made once, by Rules
class SharedRules:
    """What kernels do differently with memory that lies in the page cache of shmem."""

    shmem_huge: bool = rule(
        False,
        "shared memory may be huge, and how khugepaged comes to it is known here; kernels have both since 4.8, and were read from 6.1 on",
        "mm/shmem.c shmem_enabled (5a6e75f8110c, 4.8); mm/khugepaged.c collapse_shmem (f3f0e1d2150b, 4.8)",
        "booted",
    )

    has_shmem_sizes: bool = rule(
        False,
        "hugepages-*kB/shmem_enabled is there, and a fault makes a folio of the largest enabled order that its area and the cache allow",
        "mm/shmem.c shmem_allowable_huge_orders, shmem_suitable_orders (e7a2ab7b3bb5, 6.11)",
        "booted",
    )
    shmem_any_size: bool = rule(
        False,
        "shared memory for which any size is enabled is khugepaged's, which makes it 2 MiB; else 2 MiB must be enabled for it",
        "mm/huge_memory.c __thp_vma_allowable_orders: shmem_allowable_huge_orders without the orders asked about (6.11 to 6.16)",
        "booted",
    )
    file_collapse: bool = rule(
        False,
        "regular files may be huge wherever their file system makes folios of that size, dirty and open for writing or not (a dirty page "
        "waits for its writeback); else only unwritten ones, and only under CONFIG_READ_ONLY_THP_FOR_FS, which is taken to be off",
        "mm/huge_memory.c file_thp_enabled: mapping_pmd_folio_support (7.2; not in 7.1); mm/khugepaged.c collapse_file",
        "booted",
    )

    advice_enters_late: bool = rule(
        False,
        "MADV_HUGEPAGE makes a process known to khugepaged by the area as it then is, if the advice changed it; else always, by the area "
        "before it is cut, and of shared memory by its old advice: the first one does not make it known",
        "mm/madvise.c madvise_update_vma (7.2, and 6.12.113); before hugepage_madvise, and shmem_is_huge asks vma->vm_flags",
        "booted",
    )

    # -- khugepaged ------------------------------------------------------------------------------------------
    file_retract: Literal["target", "all"] = rule(
        "target",
        "whose page tables a collapse takes away: khugepaged everyone's, MADV_COLLAPSE the caller's alone, and the collapse answers what "
        "became of the caller's table / everyone's",
        'mm/khugepaged.c retract_page_tables: target_result; gone in "retract_page_tables() without mmap or vma lock" (6.6)',
        "booted",
    )
    pte_mapped_queued: bool = rule(
        True,
        "a huge page that PTEs map is noted by khugepaged, and its page table goes when the process is next come to; else at once",
        "mm/khugepaged.c khugepaged_add_pte_mapped_thp, khugepaged_collapse_pte_mapped_thps (6.1; gone in 6.6)",
        "booted",
    )
    file_swapin_drains: bool = rule(
        False,
        "the collapse drains the LRU batches after a page came back from swap; else it may be in one, and cannot be isolated",
        'mm/khugepaged.c collapse_file: lru_add_drain ("mm/khugepaged: drain lru after swapping in shmem", 6.4)',
        "booted",
    )
    file_scan_names_entry: bool = rule(
        True,
        "the scan's tracepoint names a page at a swap entry that was one too many",
        "mm/khugepaged.c collapse_scan_file: the entry is taken for a page (6.1 to 7.2); failed_pfn (7.3, and 6.12.117)",
        "booted",
    )
    file_progress: Literal["block", "ptes"] = rule(
        "block",
        "what a block that is huge already costs of pages_to_scan: 512 / 1",
        "mm/khugepaged.c collapse_scan_file: cc->progress (7.1)",
        "booted",
    )
    trace_collapse_file: bool = rule(
        False,
        "the collapse of a file has a tracepoint",
        "include/trace/events/huge_memory.h mm_khugepaged_collapse_file (6.4; in 6.1 collapse_file says that tracepoints are to come)",
        "booted",
    )
    set_pmd_makes_table: bool = rule(
        False,
        "MADV_COLLAPSE maps the huge page where the process has no page table at all yet",
        "mm/khugepaged.c install_huge_pmd, collapse_pte_mapped_thp: SCAN_PMD_NULL as SCAN_PMD_NONE (6.18)",
        "booted",
    )

    # -- faults and unmapping --------------------------------------------------------------------------------
    set_pmd_asks_advice: bool = rule(
        False,
        "MADV_NOHUGEPAGE keeps a huge page of the cache from being mapped by a PMD",
        "mm/memory.c do_set_pmd: vma_thp_disabled (2b0f922323cc, 6.12)",
        "booted",
        compiled=True,
    )
    shmem_fits_area: bool = rule(
        False,
        "a fault makes a huge page only where its area holds all of it",
        "mm/shmem.c shmem_suitable_orders: thp_vma_suitable_orders (e7a2ab7b3bb5, 6.11)",
        "booted",
        compiled=True,
    )
    fault_maps_folio: bool = rule(
        False,
        "a fault that cannot map a large folio by a PMD maps all of its pages that no PTE is in the way of; else one",
        "mm/memory.c finish_fault: nr_pages (43e027e41423, 6.11)",
        "booted",
        compiled=True,
    )
    around_maps_folio: bool = rule(
        False,
        "faulting around maps a large folio whole; else the pages of it in the window of 16",
        "mm/filemap.c filemap_map_folio_range (357b92761d94, 6.18)",
        "booted",
        compiled=True,
    )
    shmem_swaps_whole: bool = rule(
        False,
        "a huge page goes to swap in one piece, as one entry of the cache; else it is split before",
        'mm/shmem.c shmem_writepage (809bc86517cc, 6.12); before mm/vmscan.c shrink_folio_list: "Split shmem folio"',
        "booted",
    )
    shmem_swapin_large: bool = rule(
        False,
        "what went to swap in one piece comes back so; else its entry is split, and a page comes back",
        "mm/shmem.c shmem_swap_alloc_folio (6.16; not in 6.12), shmem_split_large_entry",
        "booted",
        compiled=True,
    )
    fault_maps_dirty: bool = rule(
        False,
        "a writable PTE of a dirty page is dirty from the first, a read fault's too",
        "mm/memory.c set_pte_range: folio_test_dirty (6.16; not in 6.12)",
        "booted",
        compiled=True,
    )
    zap_batches: bool = rule(
        False,
        "unmapping marks a large folio accessed once a run of its PTEs; else once a PTE",
        "mm/memory.c zap_present_folio_ptes (10ebac4f95e7, 6.9)",
        "booted",
        compiled=True,
    )
    zap_pmd_marks: bool = rule(
        False,
        "unmapping a young huge PMD marks its page accessed",
        "mm/huge_memory.c zap_huge_pmd: folio_mark_accessed (6.16; not in 6.12)",
        "booted",
        compiled=True,
    )
