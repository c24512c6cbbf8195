"""Rules of secondary MMUs: mmu notifiers, KVM's SPTEs and faults, get_user_pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secondsight.bits.spte import Era
from secondsight.mm.rules.definition import rule


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)  # methods are made once, by Rules
class SecondaryRules:
    """What notifiers, KVM and gup do differently from kernel to kernel."""

    # -- notifiers and SPTEs ---------------------------------------------------------------------------------
    spte_era: Era = rule(
        "2010",
        "the SPTE formats: 2010, access tracking without an accessed bit (unmarked: no MMU-present bit), a software bit (6.13), "
        "EPT's high bits moved for a second X bit (mbec, 7.2)",
        "arch/x86/kvm/mmu/spte.h; 3835819fb1b3, 7971801b5618; SPTE_TDP_AD_SHIFT 60, SHADOW_ACC_TRACK_SAVED_BITS_SHIFT 52 (7.2)",
        "booted",
    )
    test_young_without_ad: Literal["zero", "present", "bit"] = rule(
        "zero",
        "kvm_test_age without hardware A/D bits: always no / present and not tracked / the software bit",
        "seed patch kvm_test_age_rmapp; arch/x86/kvm/mmu/spte.h is_accessed_spte",
        "booted",
    )
    age_without_ad: Literal["zap", "track"] = rule(
        "zap",
        "kvm_age without hardware A/D bits: unmaps the page / access-tracks the SPTE",
        "arch/x86/kvm/mmu.c kvm_age_rmapp (2.6.38); f160c7b7bb32 (4.11)",
        "booted",
    )
    tdp_mmu: bool = rule(
        False,
        "NPT's and EPT's tables are the TDP MMU's, which prefetches nothing; else shadow pages, filled in groups of eight (with A bits)",
        "arch/x86/kvm/mmu/tdp_mmu.c tdp_mmu_enabled (on by default since 71ba3f3189c7, 5.15); mmu.c direct_pte_prefetch",
        "booted",
        compiled=True,
    )
    prefetch_ends_group: bool = rule(
        False,
        "KVM prefetches the last missing entries of a group of eight too; else only those before an entry that is there",
        "arch/x86/kvm/mmu/mmu.c __direct_pte_prefetch; c6cecc4b9324 (5.16)",
        "booted",
        compiled=True,
    )
    slots_by_gfn: bool = rule(
        False,
        "an address is looked up in the memslots from the highest guest frame down; else as they were made",
        "include/linux/kvm_host.h search_memslots (5.10): slots are sorted from the highest GFN down; trees since a54d806688fe (5.17)",
        "booted",
    )
    zap_transfers_accessed: bool = rule(
        True,
        "zapping an accessed SPTE marks the page accessed",
        "arch/x86/kvm/mmu/mmu.c mmu_spte_clear_track_bits; dropped by 66bc627e7fee (6.13)",
        "booted",
        compiled=True,
    )
    has_change_pte: bool = rule(
        True,
        "KSM tells secondary MMUs of a new page through change_pte instead of unmapping it",
        "include/linux/mmu_notifier.h; removed by 5b5b0b9f4a1e's series (6.10)",
        "source",
    )
    has_clear_young: bool = rule(
        False,
        "ageing without a flush (clear_young) exists; before, clear_flush_young does both",
        "1d7715c676a1 (4.3)",
        "source",
    )
    notifier_protection: Literal["rcu", "srcu"] = rule(
        "rcu",
        "the read-side section callbacks run in",
        "mm/mmu_notifier.c 21a92735f660 (3.7)",
        "source",
    )

    # -- gup and KVM's faults --------------------------------------------------------------------------------
    gup_fast_sets_referenced: bool = rule(
        True,
        "get_user_pages_fast marks each page referenced",
        "seed patch, arch/x86/mm/gup.c; mm/gup.c folio_set_referenced",
        "booted",
        compiled=True,
    )
    direct_io_pins: bool = rule(
        False,
        "direct I/O pins its pages (FOLL_PIN), which copies a page shared by fork even to read it; else it holds a reference",
        "block/bio.c bio_iov_iter_get_pages, iov_iter_extract_pages; a7e689dd1c06 (6.3)",
        "booted",
    )
    release_marks_accessed: bool = rule(
        False,
        "after a fault KVM releases the page through mark_page_accessed",
        "virt/kvm/kvm_main.c kvm_release_page_clean; 2.6.38 does a plain put_page",
        "booted",
        compiled=True,
    )
    release_dirties: bool = rule(
        False,
        "after a fault KVM marks the page dirty if it may be written; else the zap of a dirty SPTE does",
        "virt/kvm/kvm_main.c kvm_release_page_dirty (6.13); arch/x86/kvm/mmu kvm_set_pfn_dirty before",
        "booted",
        compiled=True,
    )
    retry_marks_accessed: bool = rule(
        False,
        "a KVM fault that its own copy-on-write made stale marks the page accessed, and is then made again",
        "arch/x86/kvm/mmu/mmu.c is_page_fault_stale; kvm_release_page_unused since 6.13",
        "booted",
        compiled=True,
    )
    prefetch_marks_accessed: bool = rule(
        False,
        "pages KVM prefetches are marked accessed too (their SPTEs stay old)",
        "arch/x86/kvm/mmu/mmu.c kvm_mmu_prefetch_sptes (6.13)",
        "booted",
        compiled=True,
    )
