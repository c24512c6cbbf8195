"""What changed between kernels, as data: one field for each difference that a scenario can observe.

``Rules`` is frozen; ``PRESETS`` holds a value for each kernel; ``rules.but(zap_transfers_accessed=True)`` is a what-if. Every field
says what it means, where the kernel states it, and what the claim rests on:

    booted     a lab scenario asked a booted kernel and it agreed (docs/fidelity.md)
    source     read in the kernel's text; no kernel here can show it
    deduced    concluded from the text, not confirmed

Nothing outside this module compares version numbers.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from secondsight.bits.spte import Era
from secondsight.errors import UsageError

Evidence = Literal["booted", "source", "deduced"]


def _rule(default: Any, doc: str, cite: str, evidence: Evidence = "source") -> Any:
    """A field of Rules: its value in 7.2, what it means, the kernel text that says so, and the evidence."""
    return field(default=default, metadata={"doc": doc, "cite": cite, "evidence": evidence})


@dataclass(frozen=True, slots=True)
class Rules:
    """One kernel's rules. Defaults are the newest kernel's (7.2); presets state what differs from it."""

    name: str = "7.2"

    # -- who is asked whether a page is young -------------------------------------------------------------
    referenced_needed: bool = _rule(
        True,
        "khugepaged collapses only where at least one page was used",
        "mm/khugepaged.c collapse_scan_pmd: SCAN_LACK_REFERENCED_PAGE",
        "booted",
    )
    asks_page_referenced: bool = _rule(
        True,
        "PG_referenced counts as use (the REFERENCED channel)",
        "seed patch, mm/huge_memory.c; mm/khugepaged.c folio_test_referenced",
        "booted",
    )
    asks_page_young: bool = _rule(
        True,
        "PG_young (idle page tracking's memory of an accessed bit) counts as use",
        "33c3fc71c8cf (4.3); mm/khugepaged.c folio_test_young",
        "booted",
    )
    asks_secondary: bool = _rule(
        True,
        "mmu_notifier_test_young counts as use (the SECONDARY channel)",
        "seed patch 8ee53820edfd; mm/khugepaged.c",
        "booted",
    )
    scan_tests_base_address: bool = _rule(
        False,
        "the scan asks test_young about the block's first address for each of its 512 pages",
        "seed patch: khugepaged_scan_pmd walks _address, passes address; fixed by 394bfac1c7f7",
        "source",
    )

    # -- the checks of scan and isolate -------------------------------------------------------------------
    swap_limit: bool = _rule(
        True,
        "up to max_ptes_swap swap entries are tolerated and swapped in; else the first one ends the scan",
        "mm/khugepaged.c max_ptes_swap (4.8)",
        "booted",
    )
    shared: Literal["abort", "page", "folio"] = _rule(
        "folio",
        "a shared page ends the scan / counts against max_ptes_shared by its own mapcount / by its folio's",
        "mm/khugepaged.c max_ptes_shared (5.8); folio_likely_mapped_shared (6.10), folio_maybe_mapped_shared",
        "booted",
    )
    has_sizes: bool = _rule(
        True,
        "hugepages-*kB/enabled is there, and a fault may map a folio of any enabled order",
        "mm/memory.c alloc_anon_folio; 19eaf44954df, 3485b88390b0 (6.8)",
        "booted",
    )
    large_mapped_shared: Literal["page", "first", "mm"] = _rule(
        "mm",
        "a large folio that PTEs map counts as shared by the page's own mapcount / by its first page's / by the processes that map it",
        "include/linux/mm.h folio_estimated_sharers, folio_likely_mapped_shared (6.10), folio_maybe_mapped_shared (6.15)",
    )
    zero_page_is_none: bool = _rule(
        True,
        "the zero page counts against max_ptes_none; else it is a read-only page",
        "mm/khugepaged.c pte_none_or_zero",
        "booted",
    )
    writable: Literal["every", "one", "none"] = _rule(
        "none",
        "how many mapped PTEs must be writable",
        "mm/khugepaged.c SCAN_PAGE_RO, gone in 6.18",
        "booted",
    )
    anon_before_shared: bool = _rule(
        True,
        "PAGE_ANON is tested before the shared limit",
        "mm/khugepaged.c hpage_collapse_scan_pmd (6.12)",
        "source",
    )
    lazyfree_refused: bool = _rule(
        True,
        "a clean page freed by MADV_FREE ends scan and isolate with page_lazyfree",
        "mm/khugepaged.c SCAN_PAGE_LAZYFREE (7.x)",
        "booted",
    )
    swap_needs_half: bool = _rule(
        True,
        "with swap entries, at least 256 pages must be referenced",
        "mm/khugepaged.c: unmapped && referenced < HPAGE_PMD_NR / 2",
        "booted",
    )
    no_table_code: Literal["pmd_none", "no_pte_table"] = _rule(
        "no_pte_table",
        "the name of the answer for a block without a page table",
        "mm/khugepaged.c SCAN_NO_PTE_TABLE (7.x), before SCAN_PMD_NONE / SCAN_PMD_NULL",
        "booted",
    )
    expected_refcount: Literal["one", "mapcount"] = _rule(
        "mapcount",
        "references a page may have: exactly one / its mappings plus the swap cache's",
        "mm/huge_memory.c page_count(page) != 1; mm/khugepaged.c folio_expected_ref_count",
        "booted",
    )
    trace_writable: bool = _rule(
        False,
        "the tracepoints print writable",
        "include/trace/events/huge_memory.h before 6.18",
        "booted",
    )
    progress: Literal["block", "ptes"] = _rule(
        "ptes",
        "what a visited block costs of pages_to_scan: 512 / the PTEs looked at (1 without a table)",
        "mm/khugepaged.c cc->progress",
        "booted",
    )

    # -- collapse ----------------------------------------------------------------------------------------
    huge_folio_active: bool = _rule(
        False,
        "the new huge page goes to the active LRU list",
        "mm/huge_memory.c 2.6.38 page_add_new_anon_rmap; later lru_cache_add_inactive_or_unevictable",
        "source",
    )
    madv_collapse: Literal["none", "6.1", "6.18"] = _rule(
        "6.18",
        "MADV_COLLAPSE: absent / EXCEED_NONE_PTE is EINVAL / it is EBUSY",
        "mm/khugepaged.c madvise_collapse_errno",
        "booted",
    )

    # -- secondary MMUs -----------------------------------------------------------------------------------
    spte_era: Era = _rule(
        "soft",
        "the SPTE formats: 2010, access tracking without an accessed bit, or a software bit (6.13)",
        "arch/x86/kvm/mmu/spte.h; 3835819fb1b3, 7971801b5618",
        "booted",
    )
    test_young_without_ad: Literal["zero", "present", "bit"] = _rule(
        "bit",
        "kvm_test_age without hardware A/D bits: always no / present and not tracked / the software bit",
        "seed patch kvm_test_age_rmapp; arch/x86/kvm/mmu/spte.h is_accessed_spte",
        "booted",
    )
    age_without_ad: Literal["zap", "track"] = _rule(
        "track",
        "kvm_age without hardware A/D bits: unmaps the page / access-tracks the SPTE",
        "arch/x86/kvm/mmu.c kvm_age_rmapp (2.6.38); f160c7b7bb32 (4.11)",
        "source",
    )
    zap_transfers_accessed: bool = _rule(
        False,
        "zapping an accessed SPTE marks the page accessed",
        "arch/x86/kvm/mmu/mmu.c mmu_spte_clear_track_bits; dropped by 66bc627e7fee (6.13)",
        "booted",
    )
    has_change_pte: bool = _rule(
        False,
        "KSM tells secondary MMUs of a new page through change_pte instead of unmapping it",
        "include/linux/mmu_notifier.h; removed by 5b5b0b9f4a1e's series (6.10)",
        "source",
    )
    has_clear_young: bool = _rule(
        True,
        "ageing without a flush (clear_young) exists; before, clear_flush_young does both",
        "1d7715c676a1 (4.3)",
        "source",
    )
    notifier_protection: Literal["rcu", "srcu"] = _rule(
        "srcu",
        "the read-side section callbacks run in",
        "mm/mmu_notifier.c 21a92735f660 (3.7)",
        "source",
    )

    # -- gup and KVM's faults ------------------------------------------------------------------------------
    gup_fast_sets_referenced: bool = _rule(
        True,
        "get_user_pages_fast marks each page referenced",
        "seed patch, arch/x86/mm/gup.c; mm/gup.c folio_set_referenced",
        "booted",
    )
    direct_io_pins: bool = _rule(
        True,
        "direct I/O pins its pages (FOLL_PIN), which copies a page shared by fork even to read it; else it holds a reference",
        "block/bio.c bio_iov_iter_get_pages, iov_iter_extract_pages; a7e689dd1c06 (6.3)",
        "booted",
    )
    release_marks_accessed: bool = _rule(
        True,
        "after a fault KVM releases the page through mark_page_accessed",
        "virt/kvm/kvm_main.c kvm_release_page_clean; 2.6.38 does a plain put_page",
        "booted",
    )
    release_dirties: bool = _rule(
        True,
        "after a fault KVM marks the page dirty if it may be written; else the zap of a dirty SPTE does",
        "virt/kvm/kvm_main.c kvm_release_page_dirty (6.13); arch/x86/kvm/mmu kvm_set_pfn_dirty before",
        "booted",
    )
    retry_marks_accessed: bool = _rule(
        False,
        "a KVM fault that its own copy-on-write made stale marks the page accessed, and is then made again",
        "arch/x86/kvm/mmu/mmu.c is_page_fault_stale; kvm_release_page_unused since 6.13",
        "booted",
    )
    prefetch_marks_accessed: bool = _rule(
        True,
        "pages KVM prefetches are marked accessed too (their SPTEs stay old)",
        "arch/x86/kvm/mmu/mmu.c kvm_mmu_prefetch_sptes (6.13)",
        "booted",
    )

    # -- LRU -----------------------------------------------------------------------------------------------
    lru_batch: int = _rule(
        31,
        "pages a per-CPU LRU batch holds (each with a reference) before it drains",
        "include/linux/pagevec.h PAGEVEC_SIZE: 14, 15 (4.14), 31 (6.12)",
        "booted",
    )
    activate_batched: bool = _rule(
        True,
        "activation waits in a per-CPU batch; else it is done at once",
        "mm/swap.c folio_activate; eb709b0d062e (2.6.39)",
        "booted",
    )
    mlock_batched: bool = _rule(
        True,
        "mlock and munlock of a page wait in a per-CPU batch (with a reference); else they are done at once",
        "mm/mlock.c mlock_folio_batch; 2fbb0c10d1e8 (5.18)",
        "booted",
    )
    mlock_counts_large: bool = _rule(
        True,
        "mlock takes a huge page that PTEs map in full; unmapping one such PTE in a locked area munlocks it; else PTEs count for neither",
        "mm/mlock.c allow_mlock_munlock, mm/internal.h munlock_vma_folio; 1acbc3f93614 (6.7)",
        "booted",
    )
    split_pmd_munlocks: bool = _rule(
        False,
        "a huge page whose PMD is split in a locked area is munlocked; else its 512 PTEs mlock it first",
        "mm/huge_memory.c __split_huge_pmd_locked; mm/rmap.c __folio_add_anon_rmap: folio_nr_pages(folio) == nr_pages (6.18)",
        "booted",
    )
    swapin_mlocks: bool = _rule(
        False,
        "a page swapped in to a locked area is mlocked at once; else only when reclaim or mlock meets it",
        "mm/memory.c do_swap_page: page_add_anon_rmap; folio_add_new_anon_rmap since 6.11",
        "booted",
    )
    mark_needs_lru: bool = _rule(
        False,
        "mark_page_accessed activates only pages already on the LRU",
        "mm/swap.c mark_page_accessed (2.6.38)",
        "source",
    )
    new_anon_active: bool = _rule(
        False,
        "a new anonymous page starts on the active list",
        "mm/rmap.c page_add_new_anon_rmap (2.6.38); b518154e59aa (5.9)",
        "source",
    )
    mglru_fault_marks: bool = _rule(
        True,
        "with MGLRU a page faulted in starts with PG_referenced",
        "mm/swap.c folio_add_lru: lru_gen_in_fault, folio_mark_accessed (6.14)",
        "booted",
    )
    mglru_add_clears_referenced: bool = _rule(
        False,
        "an active page (one faulted in, or put back from a young generation) that reaches MGLRU's lists loses PG_referenced",
        "include/linux/mm_inline.h lru_gen_add_folio; 4d5d14a01e2c (6.13, and 6.12.117), gone in 6.14",
        "booted",
    )
    mglru_lazyfree_keeps_referenced: bool = _rule(
        True,
        "with MGLRU a lazily freed page keeps PG_referenced: it is off its generation's list when the reference is to be cleared",
        "mm/swap.c lru_lazyfree: lru_gen_clear_refs after lruvec_del_folio (6.14)",
        "booted",
    )
    mglru_available: bool = _rule(
        True,
        "the kernel has MGLRU",
        "ac35a4902374 (6.1)",
        "source",
    )

    # -- faults ----------------------------------------------------------------------------------------------
    swapin_writable: bool = _rule(
        True,
        "a read fault on a swapped-out exclusive page maps it writable",
        "mm/memory.c do_swap_page (6.10)",
        "booted",
    )
    swapin_bypasses_cache: bool = _rule(
        False,
        "a page comes back from a synchronous swap device outside the swap cache, and is its process's own; else as its entry says",
        "mm/memory.c do_swap_page: SWP_SYNCHRONOUS_IO, folio_ref_count; not in 7.2",
        "booted",
    )
    huge_zero_wp_allocates: bool = _rule(
        True,
        "a write to the huge zero page maps a huge page; else the PMD is split into zero PTEs",
        "mm/huge_memory.c do_huge_pmd_wp_page: do_huge_zero_wp_pmd (after 6.12)",
        "booted",
    )
    pageout_asks_references: bool = _rule(
        False,
        "MADV_PAGEOUT makes PTEs old and lets reclaim ask folio_referenced; else references are ignored",
        "mm/madvise.c, mm/vmscan.c reclaim_folio_list (6.10)",
        "booted",
    )
    lazyfree_keeps_pmd: bool = _rule(
        True,
        "reclaim of a lazily freed huge PMD takes it whole, with its table, or leaves it huge; else it is split first",
        "mm/rmap.c try_to_unmap_one: unmap_huge_pmd_locked; 2f9b43d617e2 (6.15)",
        "booted",
    )
    unmap_batches_lazyfree: bool = _rule(
        True,
        "reclaim takes the PTEs of a lazily freed large folio together; one dirty PTE keeps all, and makes all young and dirty",
        "mm/rmap.c folio_unmap_pte_batch; 354dffd29575 (6.15)",
        "booted",
    )
    advice_splits_whole: bool = _rule(
        False,
        "MADV_COLD, _FREE and _PAGEOUT split a PTE-mapped huge page even where they cover all of it",
        "mm/madvise.c PageTransCompound (before 6.9: folio_pte_batch)",
        "booted",
    )
    split_maps_zero_page: bool = _rule(
        True,
        "splitting a huge page maps the zero page in place of its zero-filled subpages",
        "mm/huge_memory.c RMP_USE_SHARED_ZEROPAGE, TTU_USE_SHARED_ZEROPAGE (6.12)",
        "booted",
    )
    split_pmd_keeps_dirty: bool = _rule(
        True,
        "the PTEs that take a huge PMD's place are as dirty as it was; else clean",
        "mm/huge_memory.c __split_huge_pmd_locked: no pte_mkdirty before 6.3 (sparc64)",
        "booted",
    )
    area_cut_invalidates: bool = _rule(
        True,
        "an area cut inside a block that it holds whole unmaps the block from secondary MMUs, huge PMD or not",
        "mm/huge_memory.c split_huge_pmd_address calls __split_huge_pmd, whose notifiers run before it looks",
        "booted",
    )
    refault_activates: bool = _rule(
        True,
        "a page swapped in soon after it was swapped out starts active (no MGLRU)",
        "mm/workingset.c workingset_refault; for anonymous pages since aae466b0052e (5.9)",
        "booted",
    )
    wp_reuses_large: bool = _rule(
        True,
        "a write to a huge page that PTEs map, all of them this process's, is made in place; else its page is copied",
        "mm/memory.c __wp_can_reuse_large_anon_folio; 1da190f4d0a6 (6.15)",
        "booted",
    )
    wp_reuses_last: bool = _rule(
        False,
        "a write to the last page of a huge page that is still mapped is made in place; else it is copied",
        "mm/memory.c do_wp_page: page_count (6.1); wp_can_reuse_anon_folio: folio_test_large (6.12)",
        "booted",
    )
    longterm_pins_touch: bool = _rule(
        True,
        "a long-term pin for writing goes by gup-fast and marks the page; else by pin_user_pages, which touches nothing",
        "io_uring/rsrc.c io_pin_pages: pin_user_pages_fast (after 6.1)",
        "booted",
    )
    fork_copies_pinned: bool = _rule(
        True,
        "fork gives the child a copy of a page pinned for DMA (FOLL_PIN) and leaves the parent's as it is; else both share it",
        "mm/memory.c copy_present_page, folio_needs_cow_for_dma; 70e806e4e645 (5.9)",
        "booted",
    )
    touch_pmd_always: bool = _rule(
        False,
        "get_user_pages makes a huge PMD it follows young and dirty, reading or writing; else writing only",
        "mm/huge_memory.c follow_trans_huge_pmd: set_pmd_at (2.6.38); touch_pmd, pmdp_set_access_flags (a8f97366452e, 4.15)",
        "booted",
    )
    dontneed_frees_tables: bool = _rule(
        True,
        "MADV_DONTNEED of a whole block frees its page table",
        "mm/pt_reclaim.c CONFIG_PT_RECLAIM (6.14)",
        "booted",
    )
    ksm_invalidates: bool = _rule(
        True,
        "KSM unmaps a page from secondary MMUs before it replaces it; else change_pte alone tells them",
        "mm/ksm.c replace_page, mmu_notifier_invalidate_range_start (3.7)",
        "source",
    )
    ksm_break_unshares: bool = _rule(
        True,
        "a KSM page is broken by a fault that leaves the copy clean and read-only (FAULT_FLAG_UNSHARE); else by a write fault",
        "mm/ksm.c break_ksm; d7c0e68dab98 (6.2)",
        "booted",
    )
    merge_unfaulted: bool = _rule(
        True,
        "an area with anonymous pages merges with a neighbour that has none yet; else only the other way round",
        "mm/vma.c is_mergeable_anon_vma; 879bca0a2c4f (6.16)",
        "booted",
    )
    mprotect_batches: bool = _rule(
        True,
        "mprotect makes PTEs of one large folio with equal rights all young if one was, all dirty if one was",
        "mm/mprotect.c mprotect_folio_pte_batch, modify_prot_start_ptes; cac1db8c3aad (6.17)",
        "booted",
    )
    mprotect_keeps_huge_writable: bool = _rule(
        True,
        "the same for a huge PMD; else it becomes writable at the next write",
        "mm/huge_memory.c change_huge_pmd, can_change_pmd_writable; 6a56ccbcf6c6 (6.2)",
        "booted",
    )
    mprotect_keeps_exclusive_writable: bool = _rule(
        True,
        "mprotect(PROT_WRITE) makes PTEs of exclusive pages writable at once",
        "64fe24a3e05e (5.19), mm/mprotect.c can_change_pte_writable",
        "booted",
    )
    mprotect_keeps_clean_writable: bool = _rule(
        True,
        "the same for clean pages; else dirty ones only",
        "mm/mprotect.c can_change_pte_writable: pte_dirty (up to 6.1)",
        "booted",
    )

    def __post_init__(self) -> None:
        """Refuse a value no rule can have."""
        if self.lru_batch not in (14, 15, 31):
            raise UsageError(f"lru_batch={self.lru_batch}: kernels have 14, 15 or 31")

    def but(self, **changes: Any) -> Rules:
        """These rules with *changes*: a what-if. The name says what was changed.

        :raises UsageError: an unknown field, or a value of the wrong type.
        """
        known = {f.name: f for f in dataclasses.fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise UsageError(f"no rule is called {name!r}; `secondsight rules` lists them")
            current = getattr(self, name)
            if type(value) is not type(current):
                raise UsageError(f"rule {name}={value!r}: takes a {type(current).__name__}, like {current!r}")
        if "name" not in changes:
            told = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in changes.items())
            changes["name"] = f"{self.name}+{told}" if told else self.name
        return dataclasses.replace(self, **changes)


_SINCE_6_18 = Rules(
    name="6.18",
    no_table_code="pmd_none",
    lazyfree_refused=False,
    progress="block",
    swapin_bypasses_cache=True,
)
_6_12 = _SINCE_6_18.but(
    name="6.12",
    writable="one",
    trace_writable=True,
    spte_era="tracked",
    test_young_without_ad="present",
    zap_transfers_accessed=True,
    prefetch_marks_accessed=False,
    retry_marks_accessed=True,
    release_dirties=False,
    mglru_fault_marks=False,
    madv_collapse="6.1",
    dontneed_frees_tables=False,
    split_pmd_munlocks=True,
    mglru_add_clears_referenced=True,
    mglru_lazyfree_keeps_referenced=False,
    wp_reuses_large=False,
    merge_unfaulted=False,
    large_mapped_shared="first",
    mprotect_batches=False,
    huge_zero_wp_allocates=False,
    lazyfree_keeps_pmd=False,
    unmap_batches_lazyfree=False,
)
_6_1 = _6_12.but(
    name="6.1",
    shared="page",
    has_sizes=False,
    large_mapped_shared="page",
    mprotect_keeps_huge_writable=False,
    longterm_pins_touch=False,
    wp_reuses_last=True,
    mprotect_keeps_clean_writable=False,
    mlock_counts_large=False,
    anon_before_shared=False,
    mglru_add_clears_referenced=False,
    lru_batch=15,
    has_change_pte=True,
    swapin_writable=False,
    swapin_mlocks=True,
    ksm_break_unshares=False,
    pageout_asks_references=True,
    advice_splits_whole=True,
    split_maps_zero_page=False,
    split_pmd_keeps_dirty=False,
    direct_io_pins=False,
)
_2_6_38 = _6_1.but(
    name="2.6.38",
    scan_tests_base_address=True,
    asks_page_young=False,
    swap_limit=False,
    shared="abort",
    zero_page_is_none=False,
    writable="every",
    swap_needs_half=False,
    expected_refcount="one",
    trace_writable=False,
    huge_folio_active=True,
    madv_collapse="none",
    spte_era="2010",
    test_young_without_ad="zero",
    age_without_ad="zap",
    has_clear_young=False,
    notifier_protection="rcu",
    release_marks_accessed=False,
    retry_marks_accessed=False,
    split_pmd_keeps_dirty=True,
    area_cut_invalidates=False,
    refault_activates=False,
    touch_pmd_always=True,
    lru_batch=14,
    activate_batched=False,
    mlock_batched=False,
    split_pmd_munlocks=False,
    mark_needs_lru=True,
    new_anon_active=True,
    mglru_available=False,
    ksm_invalidates=False,
    mprotect_keeps_exclusive_writable=False,
    fork_copies_pinned=False,
)
_THP_BASE = _2_6_38.but(
    name="thp-base",
    asks_page_referenced=False,
    asks_secondary=False,
    gup_fast_sets_referenced=False,
    scan_tests_base_address=False,
)

#: Every preset by name, oldest idea first.
PRESETS: dict[str, Rules] = {
    "no-heuristic": _2_6_38.but(name="no-heuristic", referenced_needed=False, scan_tests_base_address=False),
    "thp-base": _THP_BASE,
    "2.6.38": _2_6_38,
    "2.6.38-fixed": _2_6_38.but(name="2.6.38-fixed", scan_tests_base_address=False),
    "6.1": _6_1,
    "6.12": _6_12,
    "6.18": _SINCE_6_18,
    "7.2": Rules(),
}

ABOUT: dict[str, str] = {
    "no-heuristic": "the alternative the patch's author names: collapse without asking for a reference",
    "thp-base": "the THP series before this patch: only the primary accessed bit is asked",
    "2.6.38": "the patch as posted and merged, asking test_young about the block's base address",
    "2.6.38-fixed": "the patch with the base-address bug mended",
    "6.1": "Debian 12's kernel, with the 2025 stable fix",
    "6.12": "Debian 13's kernel, with the 2025 stable fix",
    "6.18": "after the zap stopped carrying the accessed bit (6.13) and lockless ageing (6.15)",
    "7.2": "Debian sid's kernel",
}


def preset(name: str) -> Rules:
    """The rules called *name*: a preset, or ``preset+field=value,field=value``.

    :raises UsageError: an unknown preset, field or value.
    """
    base, _, changes = name.partition("+")
    if base not in PRESETS:
        raise UsageError(f"no rules preset is called {base!r}; there are {', '.join(PRESETS)}")
    rules = PRESETS[base]
    parsed: dict[str, Any] = {}
    for item in filter(None, changes.split(",")):
        key, eq, text = item.partition("=")
        if not eq or not hasattr(rules, key):
            raise UsageError(f"{item!r} changes no rule of {base}; write {base}+zap_transfers_accessed=true")
        parsed[key] = _value(getattr(rules, key), key, text)
    return rules.but(**parsed) if parsed else rules


def _value(like: Any, key: str, text: str) -> Any:
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise UsageError(f"rule {key} takes true or false, not {text!r}")
        return text.lower() == "true"
    if isinstance(like, int):
        if not text.isdigit():
            raise UsageError(f"rule {key} takes a number, not {text!r}")
        return int(text)
    choices = _choices(key)
    if choices and text not in choices:
        raise UsageError(f"rule {key} takes one of {', '.join(choices)}, not {text!r}")
    return text


def _choices(key: str) -> tuple[str, ...]:
    """The words a rule of several kinds takes, in use by the presets."""
    return tuple(sorted({str(getattr(r, key)) for r in PRESETS.values()}))


def info(name: str) -> dict[str, str]:
    """*doc*, *cite* and *evidence* of the rule called *name*."""
    for f in dataclasses.fields(Rules):
        if f.name == name and f.metadata:
            return dict(f.metadata)
    raise UsageError(f"no rule is called {name!r}; `secondsight rules` lists them")


def rule_names() -> list[str]:
    """The names of every rule, in the order of the table above."""
    return [f.name for f in dataclasses.fields(Rules) if f.metadata]


def for_kernel(release: str) -> Rules:
    """The preset for a kernel that calls itself *release* (``6.1.0-56-amd64``): its own, or that of the nearest older one.

    :raises UsageError: *release* starts with no version.
    """
    found = re.match(r"(\d+)\.(\d+)", release)
    if not found:
        raise UsageError(f"{release!r} is no kernel release; name a rules preset instead")
    wanted = (int(found[1]), int(found[2]))
    known = {tuple(map(int, name.split(".")[:2])): name for name in ("2.6.38", "6.1", "6.12", "6.18", "7.2")}
    return PRESETS[known[max(v for v in known if v <= max(wanted, min(known)))]]
