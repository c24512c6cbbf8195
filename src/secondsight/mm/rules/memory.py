"""Rules of faults, splits, advice, fork, KSM and mprotect: what page tables hold afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from secondsight.mm.rules.definition import rule


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)  # methods are made once, by Rules
class MemoryRules:
    """What mm/memory.c, mm/huge_memory.c and the system calls around them do differently from kernel to kernel."""

    # -- page tables -----------------------------------------------------------------------------------------
    has_sizes: bool = rule(
        False,
        "hugepages-*kB/enabled is there, and a fault may map a folio of any enabled order",
        "mm/memory.c alloc_anon_folio; 19eaf44954df, 3485b88390b0 (6.8)",
        "booted",
    )
    swapin_writable: bool = rule(
        False,
        "a read fault on a swapped-out exclusive page maps it writable",
        "mm/memory.c do_swap_page (6.10)",
        "booted",
        compiled=True,
    )
    swapin_bypasses_cache: bool = rule(
        True,
        "a page comes back from a synchronous swap device outside the swap cache, and is its process's own; else as its entry says",
        "mm/memory.c do_swap_page: SWP_SYNCHRONOUS_IO, folio_ref_count; not from 7.0 on",
        "booted",
        compiled=True,
    )
    swapin_drains: bool = rule(
        True,
        "a store that brings a page of the swap cache back drains the LRU's batches, if the page waits in one",
        'mm/memory.c do_swap_page: "Try removing the extra reference from the local LRU caches" (c145e0b47c77, 5.18); not in 7.3.4',
        "booted",
        compiled=True,
    )
    has_userfaultfd: bool = rule(
        False,
        "userfaultfd(2) is known, write protection of anonymous memory included; else ENOSYS",
        "fs/userfaultfd.c (4.3); 63b2d4174c4a (5.7: UFFDIO_WRITEPROTECT)",
        "booted",
    )
    uffd_wp_many_areas: bool = rule(
        False,
        "UFFDIO_WRITEPROTECT takes a range of several areas; else ENOENT, and nothing is protected",
        'mm/userfaultfd.c mwriteprotect_range: find_dst_vma, then for_each_vma_range ("mm/userfaultfd: support WP on multiple VMAs", 6.4)',
        "booted",
    )
    has_droppable: bool = rule(
        False,
        "MAP_DROPPABLE is known: pages that are never swap-backed, that reclaim drops dirty or not, and that a child does not get",
        "mm/mmap.c do_mmap, mm/rmap.c folio_add_new_anon_rmap; 9651fcedf7b9 (6.11)",
        "booted",
    )
    has_guard: bool = rule(
        False,
        "MADV_GUARD_INSTALL and MADV_GUARD_REMOVE are known; else EINVAL",
        "mm/madvise.c madvise_guard_install; 662df3e5c376 (6.13)",
        "booted",
    )
    swapin_large: bool = rule(
        False,
        "pages come back from swap as one large folio where a size is on and their slots are a row; else page by page",
        "mm/memory.c alloc_swap_folio (242d12c98174, 6.12); thp_swapin_suitable_orders, swapin_sync (7.2)",
        "booted",
        compiled=True,
    )
    free_asks_first_page: bool = rule(
        False,
        "MADV_FREE leaves a large folio alone, and what follows it, unless its first page is mapped once, by whomever",
        "mm/madvise.c madvise_free_pte_range: folio_estimated_sharers(folio) != 1 (6.1.192); page_mapcount(page) != 1 in 5.10",
        "booted",
    )
    lazyfree_held_stays: bool = rule(
        False,
        "reclaim leaves a clean lazily freed page that somebody holds lazily freed; else it becomes swap-backed again",
        "mm/rmap.c try_to_unmap_one: ref_count != 1 + map_count (6.16; not in 6.12)",
        "booted",
    )
    huge_zero_wp_allocates: bool = rule(
        False,
        "a write to the huge zero page maps a huge page; else the PMD is split into zero PTEs",
        "mm/huge_memory.c do_huge_pmd_wp_page: do_huge_zero_wp_pmd (after 6.12)",
        "booted",
        compiled=True,
    )
    pageout_asks_references: bool = rule(
        True,
        "MADV_PAGEOUT makes PTEs old and lets reclaim ask folio_referenced; else references are ignored",
        "mm/madvise.c, mm/vmscan.c reclaim_folio_list (6.10)",
        "booted",
    )
    reclaim_splits_lazyfree: bool = rule(
        False,
        "reclaim splits a lazily freed huge page into small ones first, and takes or leaves each of them; else it is unmapped as it is",
        'mm/vmscan.c shrink_page_list: PageTransHuge, "Split file THP" (5.10); shrink_folio_list: folio_test_swapbacked (6.1)',
        "booted",
    )
    lazyfree_keeps_pmd: bool = rule(
        False,
        "reclaim of a lazily freed huge PMD takes it whole, with its table, or leaves it huge; else it is split first",
        "mm/rmap.c try_to_unmap_one: unmap_huge_pmd_locked; 2f9b43d617e2 (6.15); called no more in 7.3",
        "booted",
    )
    unmap_batches_lazyfree: bool = rule(
        False,
        "reclaim takes the PTEs of a lazily freed large folio together; one dirty PTE keeps all, and makes all young and dirty",
        "mm/rmap.c folio_unmap_pte_batch; 354dffd29575 (6.15)",
        "booted",
    )
    unmap_batch_ends_at_write: bool = rule(
        False,
        "such a batch ends where PTEs differ in the write bit; else all that it puts back become as writable as its first",
        "mm/rmap.c folio_unmap_pte_batch: FPB_RESPECT_WRITE (6.19.14; neither 6.17 nor 6.18.15)",
        "booted",
    )
    advice_splits_whole: bool = rule(
        True,
        "MADV_COLD, _FREE and _PAGEOUT split a PTE-mapped huge page even where they cover all of it",
        "mm/madvise.c PageTransCompound (before 6.9: folio_pte_batch)",
        "booted",
    )
    split_maps_zero_page: bool = rule(
        False,
        "splitting a huge page maps the zero page in place of its zero-filled subpages",
        "mm/huge_memory.c RMP_USE_SHARED_ZEROPAGE, TTU_USE_SHARED_ZEROPAGE (6.12)",
        "booted",
    )
    splits_by_process: bool = rule(
        False,
        "debugfs' split_huge_pages splits one process's huge pages; else all of the machine's, and a process's number is EINVAL",
        "mm/huge_memory.c split_huge_pages_write; fa6c02315f74 (5.13)",
        "booted",
    )
    migration_keeps_bits: bool = rule(
        True,
        "the pages of a huge page that is split into small ones come back as young and dirty as their entries were; else old and clean",
        "mm/migrate.c remove_migration_pte: pte_mkold; is_migration_entry_young, 2e3468778dbe (6.1)",
        "booted",
    )
    split_pmd_keeps_dirty: bool = rule(
        True,
        "the PTEs that take a huge PMD's place are as dirty as it was; else clean",
        "mm/huge_memory.c __split_huge_pmd_locked: no pte_mkdirty before 6.3 (sparc64)",
        "booted",
        compiled=True,
    )
    area_cut_invalidates: bool = rule(
        False,
        "an area cut inside a block that it holds whole unmaps the block from secondary MMUs, huge PMD or not",
        "mm/huge_memory.c split_huge_pmd_address calls __split_huge_pmd, whose notifiers run before it looks",
        "booted",
    )
    split_tells_block: bool = rule(
        True,
        "splitting a folio of PMD size tells notifiers of the whole block at each area that the walk visits; else of its place in the area",
        "mm/rmap.c try_to_migrate_one, TTU_SPLIT_HUGE_PMD: split_huge_pmd_address; 60fbb14396d5 (6.16)",
        "booted",
    )
    refault_activates: bool = rule(
        False,
        "a page swapped in soon after it was swapped out starts active (no MGLRU)",
        "mm/workingset.c workingset_refault; for anonymous pages since aae466b0052e (5.9)",
        "booted",
        compiled=True,
    )
    anon_exclusive: bool = rule(
        False,
        "each page remembers whether it is one process's own; else who writes to it asks how many entries and references it has",
        "mm/rmap.c PageAnonExclusive; 6c287605fd56 (5.19)",
        "booted",
        compiled=True,
    )
    wp_counts_references: bool = rule(
        False,
        "where no page remembers, a write is made in place if the page has one reference (no batch's); else if it has one entry",
        "mm/memory.c do_wp_page: page_count(page) != 1; 09854ba94c6a (5.9); before, reuse_swap_page",
        "booted",
        compiled=True,
    )
    wp_reuses_large: bool = rule(
        False,
        "a write to a huge page that PTEs map, all of them this process's, is made in place; else its page is copied",
        "mm/memory.c __wp_can_reuse_large_anon_folio; 1da190f4d0a6 (6.15)",
        "booted",
        compiled=True,
    )
    wp_reuses_last: bool = rule(
        True,
        "a write to the last page of a huge page that is still mapped is made in place; else it is copied",
        "mm/memory.c do_wp_page: page_count (6.1); wp_can_reuse_anon_folio: folio_test_large (6.12)",
        "booted",
        compiled=True,
    )
    longterm_pins_touch: bool = rule(
        False,
        "a long-term pin for writing goes by gup-fast and marks the page; else by pin_user_pages, which touches nothing",
        "io_uring/rsrc.c io_pin_pages: pin_user_pages_fast (after 6.1)",
        "booted",
    )
    fork_copies_pinned: bool = rule(
        False,
        "fork gives the child a copy of a page pinned for DMA (FOLL_PIN) and leaves the parent's as it is; else both share it",
        "mm/memory.c copy_present_page, folio_needs_cow_for_dma; 70e806e4e645 (5.9)",
        "booted",
    )
    touch_pmd_always: bool = rule(
        True,
        "get_user_pages makes a huge PMD it follows young and dirty, reading or writing; else writing only",
        "mm/huge_memory.c follow_trans_huge_pmd: set_pmd_at (2.6.38); touch_pmd, pmdp_set_access_flags (a8f97366452e, 4.15)",
        "booted",
        compiled=True,
    )
    dontneed_frees_tables: bool = rule(
        False,
        "MADV_DONTNEED of a whole block frees its page table",
        "mm/pt_reclaim.c CONFIG_PT_RECLAIM (6.14)",
        "booted",
    )
    ksm_invalidates: bool = rule(
        False,
        "KSM unmaps a page from secondary MMUs before it replaces it; else change_pte alone tells them",
        "mm/ksm.c replace_page, mmu_notifier_invalidate_range_start (3.7)",
        "booted",
    )
    ksm_break_unshares: bool = rule(
        False,
        "a KSM page is broken by a fault that leaves the copy clean and read-only (FAULT_FLAG_UNSHARE); else by a write fault",
        "mm/ksm.c break_ksm; d7c0e68dab98 (6.2)",
        "booted",
    )
    ksm_follows_protnone: bool = rule(
        True,
        "behind a PROT_NONE entry a KSM page is broken, and a page that waits for an equal one found; else neither",
        "mm/ksm.c break_ksm, get_mergeable_page; mm/gup.c follow_page_pte; 474098edac26 (6.1), d7c0e68dab98 (6.2), d74943a2f3cd (6.6)",
        "booted",
    )
    merge_unfaulted: bool = rule(
        False,
        "an area with anonymous pages merges with a neighbour that has none yet; else only the other way round",
        "mm/vma.c is_mergeable_anon_vma; 879bca0a2c4f (6.16)",
        "booted",
    )
    mremap_moves_many: bool = rule(
        False,
        "one mremap moves all areas of its range; else EFAULT where there is more than one",
        "mm/mremap.c remap_move; d23cb648e365 (6.17), before: vma_to_resize",
        "booted",
    )
    mprotect_batches: bool = rule(
        False,
        "mprotect makes PTEs of one large folio with equal rights all young if one was, all dirty if one was",
        "mm/mprotect.c mprotect_folio_pte_batch, modify_prot_start_ptes; cac1db8c3aad (6.17)",
        "booted",
        compiled=True,
    )
    mprotect_keeps_huge_writable: bool = rule(
        False,
        "the same for a huge PMD; else it becomes writable at the next write",
        "mm/huge_memory.c change_huge_pmd, can_change_pmd_writable; 6a56ccbcf6c6 (6.2)",
        "booted",
        compiled=True,
    )
    mprotect_keeps_exclusive_writable: bool = rule(
        False,
        "mprotect(PROT_WRITE) makes PTEs of exclusive pages writable at once",
        "64fe24a3e05e (5.19), mm/mprotect.c can_change_pte_writable",
        "booted",
        compiled=True,
    )
    clear_refs_ages_huge_zero: bool = rule(
        True,
        "clear_refs makes a PMD that maps the huge zero page old too; else it is no normal page and is passed over",
        "fs/proc/task_mmu.c clear_refs_pte_range: pmd_folio; vm_normal_folio_pmd (7.3)",
        "booted",
        compiled=True,
    )
    mprotect_keeps_clean_writable: bool = rule(
        False,
        "the same for clean pages; else dirty ones only",
        "mm/mprotect.c can_change_pte_writable: pte_dirty (up to 6.1)",
        "booted",
        compiled=True,
    )
    has_numa_balancing: bool = rule(
        False,
        "NUMA balancing makes entries PROT_NONE, to see at the next fault who uses them; known here from 6.1 on",
        "kernel/sched/fair.c task_numa_work, mm/mempolicy.c change_prot_numa; 4b10e7d562c9 (3.8)",
        "booted",
    )
    numa_counts_references: bool = rule(
        True,
        "NUMA balancing leaves alone what anybody else holds a reference to; else what is mapped by others or pinned for DMA",
        "mm/mprotect.c change_pte_range: page_count(page) != 1 (6.1); folio_maybe_dma_pinned, folio_likely_mapped_shared (6.12)",
        "booted",
        compiled=True,
    )
    numa_asks_huge: bool = rule(
        False,
        "it asks so of huge PMDs too; else it leaves out the huge zero page alone",
        "mm/huge_memory.c change_huge_pmd, mm/mempolicy.c folio_can_map_prot_numa (6.19)",
        "booted",
        compiled=True,
    )
    numa_keeps_write: bool = rule(
        True,
        "an entry that NUMA balancing makes PROT_NONE stays writable; else the fault finds out anew whether it may be",
        "mm/mprotect.c change_pte_range: pte_mk_savedwrite; 6a56ccbcf6c6 (6.2): do_numa_page, can_change_pte_writable",
        "booted",
        compiled=True,
    )
    numa_fault_maps_folio: bool = rule(
        False,
        "a NUMA hinting fault makes all entries of a large folio present again; else the one that was used",
        "mm/memory.c numa_rebuild_large_mapping; d2136d749d76 (6.10)",
        "booted",
        compiled=True,
    )
    gup_follows_protnone: bool = rule(
        False,
        "get_user_pages takes a page through an entry that NUMA balancing made PROT_NONE, KVM's excepted; else it faults",
        "include/linux/mm.h gup_can_follow_protnone, FOLL_HONOR_NUMA_FAULT; d74943a2f3cd (6.6)",
        "booted",
        compiled=True,
    )
    pmd_modify_drops_dirty: bool = rule(
        False,
        "mprotect leaves a writable huge PMD clean; else as dirty as it was",
        "arch/x86/include/asm/pgtable.h pmd_modify: _HPAGE_CHG_MASK & ~_PAGE_DIRTY (6.6); f7491d7c81db (7.3-rc, and 6.12.111)",
        "booted",
        compiled=True,
    )
    cow_copies_huge: bool = rule(
        True,
        "a write to a huge page that another process maps too copies all of it; else its PMD is split and one page copied",
        "mm/huge_memory.c do_huge_pmd_wp_page; 3917c80280c9 (5.8)",
        "booted",
        compiled=True,
    )
    has_huge_zero_page: bool = rule(
        False,
        "a read of an untouched block maps the huge zero page; else a huge page of its own, writable and dirty",
        "mm/huge_memory.c do_huge_pmd_anonymous_page; 4a6c1297268c, 80371957f09d (3.8)",
        "booted",
    )
    has_madv_free: bool = rule(
        False,
        "MADV_FREE is known; else EINVAL",
        "mm/madvise.c madvise_behavior_valid; 854e9ed09ded (4.5)",
        "booted",
    )
    has_madv_cold: bool = rule(
        False,
        "MADV_COLD is known; else EINVAL",
        "mm/madvise.c madvise_behavior_valid; 9c276cc65a58 (5.4)",
        "booted",
    )
