"""Which values of a rule no scenario can show, on which kernel and machine, and why.

``unmet``: the kernel has no code that the rule is about, so that it does not count as one of its rules. ``alike``: it has, and what it
answers is the same for both values. ``unseen``: another machine shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from secondsight.mm.rules import Rules

__all__ = ["alike", "unmet", "unseen"]

_SIZES = "the kernel has no hugepages-*kB"
#: Rules that a kernel does not have: when (of its profile), and why.
UNMET: dict[str, tuple[Callable[[Rules], bool], str]] = {
    "has_sizes": (lambda r: not r.has_sizes, _SIZES),
    "mthp_collapse": (lambda r: not r.has_sizes, _SIZES),
    "swapin_large": (lambda r: not r.has_sizes, _SIZES),
    "has_shmem_sizes": (lambda r: not r.has_shmem_sizes, "the kernel has no hugepages-*kB/shmem_enabled"),
    "shmem_any_size": (lambda r: not r.has_shmem_sizes, "the kernel has no hugepages-*kB/shmem_enabled"),
    "shmem_swapin_large": (lambda r: not r.shmem_swaps_whole, "no huge page of shared memory goes to swap in one piece"),
    "has_droppable": (lambda r: not r.has_droppable, "the kernel refuses the mapping, so that there is nothing to answer"),
    "has_userfaultfd": (lambda r: not r.has_userfaultfd, "the kernel has no userfaultfd"),
    "file_collapse": (lambda r: not r.file_collapse, "regular files are followed from 7.2 on"),
    "shmem_huge": (lambda r: not r.shmem_huge, "shared memory is followed from 6.1 on"),
    "putback_batched": (lambda r: r.mlock_batched, "mlock has a batch of its own since 5.18"),
    "wp_counts_references": (lambda r: r.anon_exclusive, "each page remembers whether it is one process's own since 5.19"),
    "wp_reuses_last": (
        lambda r: r.wp_reuses_large or not r.anon_exclusive,
        "asked only where pages remember whose they are and a large folio of the process's own is copied",
    ),
    "wp_reuses_large": (lambda r: not r.anon_exclusive, "asked only where pages remember whose they are (5.19)"),
    "mprotect_keeps_clean_writable": (
        lambda r: not r.mprotect_keeps_exclusive_writable,
        "mprotect makes nothing writable at once",
    ),
    "collapse_of_no_block": (lambda r: r.madv_collapse == "none", "the kernel has no MADV_COLLAPSE"),
    "lazyfree_keeps_pmd": (lambda r: r.reclaim_splits_lazyfree, "reclaim splits a lazily freed huge page first"),
    "mglru_available": (lambda r: not r.mglru_available, "the kernel has no MGLRU"),
    "unmap_batches_lazyfree": (lambda r: r.advice_splits_whole, "reclaim's advice splits what PTEs map of a huge page first"),
    "unmap_batch_ends_at_write": (lambda r: not r.unmap_batches_lazyfree, "reclaim takes each PTE alone"),
    "has_numa_balancing": (lambda r: not r.has_numa_balancing, "NUMA balancing is followed from 6.1 on"),
    "slots_by_gfn": (lambda r: not r.zap_transfers_accessed, "in which order SPTEs go leaves no trace where none marks its page"),
    "mglru_fault_marks": (lambda r: not r.mglru_available, "the kernel has no MGLRU"),
    "mglru_add_clears_referenced": (lambda r: not r.mglru_available, "the kernel has no MGLRU"),
    "mglru_lazyfree_keeps_referenced": (lambda r: not r.mglru_available, "the kernel has no MGLRU"),
    "has_change_pte": (lambda r: r.ksm_invalidates, "ksmd unmaps the page from secondary MMUs first (3.7): nothing is left for change_pte"),
    "swapin_drains": (lambda r: not r.anon_exclusive, "since 5.18: nobody asks, where no page remembers whose it is"),
    "asks_page_young": (
        lambda r: not r.has_droppable and r.has_madv_cold,
        "Debian builds 5.10 and 6.1 without PG_young (CONFIG_PAGE_IDLE_FLAG): folio_test_young is always no",
    ),
    "swapin_writable": (
        lambda r: not r.anon_exclusive,
        "asked only where pages remember whose they are (5.19): reuse_swap_page is asked at a store",
    ),
    "mlock_counts_large": (
        lambda r: r.mlock_by_populate,
        "up to 5.17 follow_page_pte mlocks nothing of a huge page that PTEs map, and splitting its PMD unlocks it (clear_page_mlock)",
    ),
    "numa_fault_maps_folio": (
        lambda r: r.has_numa_balancing and r.numa_counts_references,
        "NUMA balancing passes over what has more than one reference (change_pte_range: page_count), as a folio that several PTEs map",
    ),
}  # fmt: skip
for _name in (
    "advice_enters_late", "file_retract", "pte_mapped_queued", "file_swapin_drains", "file_scan_names_entry", "file_progress",
    "trace_collapse_file", "set_pmd_makes_table", "set_pmd_asks_advice", "shmem_fits_area", "fault_maps_folio", "around_maps_folio",
    "shmem_swaps_whole", "shmem_swapin_large", "fault_maps_dirty", "zap_batches", "zap_pmd_marks",
):  # fmt: skip
    UNMET.setdefault(_name, UNMET["shmem_huge"])

_NO_AD = "only where SPTEs have no accessed bit: ask ept-noad"
_SHADOW = "only KVM's own shadow pages are filled in groups: ask shadow"
#: Rules that a kernel has and that another machine shows: on which ones it does not, and why.
UNSEEN: dict[str, tuple[Callable[[Rules, str], bool], str]] = {
    "spte_era": (lambda r, mmu: mmu != "ept-noad", _NO_AD),
    "test_young_without_ad": (lambda r, mmu: mmu != "ept-noad", _NO_AD),
    "age_without_ad": (lambda r, mmu: mmu != "ept-noad", _NO_AD),
    "prefetch_marks_accessed": (lambda r, mmu: mmu != "shadow" and r.tdp_mmu, _SHADOW),
    "prefetch_ends_group": (lambda r, mmu: mmu != "shadow" and r.tdp_mmu, _SHADOW),
}
#: Rules that a kernel has, and whose other value answers alike: when (of its profile, and that value), and why.
_ALIKE: dict[str, tuple[Callable[[Rules, object], bool], str]] = {
    "spte_era": (
        lambda r, value: "2010" not in (r.spte_era, value),
        "which bit of an SPTE says what; what it says is the same in all, and that is what is compared (bits/spte.py)",
    ),
    "test_young_without_ad": (
        lambda r, value: {r.test_young_without_ad, value} == {"present", "bit"},
        "the software bit is clear exactly where the SPTE is access-tracked (mark_spte_for_access_track, restore_acc_track_spte)",
    ),
    "has_clear_young": (lambda r, value: True, "both age; what the one spares is a TLB's flush, which is no state"),
    "notifier_protection": (lambda r, value: True, "a callback answers the same in either read-side section"),
    "anon_before_shared": (
        lambda r, value: True,
        "an area whose PTEs are scanned is anonymous, and none of VM_SPECIAL (thp_vma_allowable_order): so is every page that it maps",
    ),
    "release_dirties": (
        lambda r, value: not r.fault_maps_dirty,
        "make_spte makes an SPTE that may be written dirty at once, and who asks PG_dirty before 6.16 (reclaim, MADV_FREE, a split) has it "
        "zapped first, which marks the page dirty as well",
    ),
    "swapin_drains": (
        lambda r, value: r.swapin_bypasses_cache and not r.swapin_mlocks,
        "a page comes through the cache only where another entry names it too: its store is do_wp_page's, which drains as well "
        "(wp_can_reuse_anon_folio) where three hold the page; a mlock batch is the fourth on 6.1",
    ),
    "pte_mapped_queued": (
        lambda r, value: r.file_progress == "ptes",
        "a visit to it costs one page since 7.1: the same wake-up comes back for what it noted, unless it ends with that very page",
    ),
}  # fmt: skip


def unmet(rules: Rules, name: str) -> str:
    """Why a kernel of *rules* has no code that the rule *name* is about; "": it has."""
    when, why = UNMET.get(name, (None, ""))
    return why if when is not None and when(rules) else ""


def unseen(rules: Rules, name: str, mmus: Collection[str]) -> str:
    """Why the rule *name*, which kernels of *rules* have, shows on none of the machines *mmus*; "": it should."""
    when, why = UNSEEN.get(name, (None, ""))
    return why if when is not None and all(when(rules, mmu) for mmu in mmus) else ""


def alike(rules: Rules, name: str, value: object) -> str:
    """Why kernels of *rules* answer as they would if the rule *name*, which they have, were *value*; "": they should not."""
    when, why = _ALIKE.get(name, (None, ""))
    return why if when is not None and when(rules, value) else ""
