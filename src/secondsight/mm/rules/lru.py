"""Rules of mm/swap.c, mm/mlock.c and MGLRU: which pages are marked, active, or wait in a batch."""

from __future__ import annotations

from dataclasses import dataclass

from secondsight.mm.rules.definition import rule


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)  # methods are made once, by Rules
class LruRules:
    """What the LRU lists do differently from kernel to kernel."""

    # -- LRU -------------------------------------------------------------------------------------------------
    lru_batch: int = rule(
        14,
        "pages a per-CPU LRU batch holds (each with a reference) before it drains",
        "include/linux/pagevec.h PAGEVEC_SIZE: 14, 15 (4.14), 31 (6.12)",
        "booted",
        compiled=True,
    )
    activate_batched: bool = rule(
        False,
        "activation waits in a per-CPU batch; else it is done at once",
        "mm/swap.c folio_activate; eb709b0d062e (2.6.39)",
        "booted",
        compiled=True,
    )
    mlock_batched: bool = rule(
        False,
        "mlock and munlock of a page wait in a per-CPU batch (with a reference); else they are done at once",
        "mm/mlock.c mlock_folio_batch; 2fbb0c10d1e8 (5.18)",
        "booted",
        compiled=True,
    )
    mlock_by_populate: bool = rule(
        True,
        "mlock takes each page once it is faulted in and touched (FOLL_MLOCK); else what is there already is taken first",
        "mm/gup.c follow_page_pte, follow_trans_huge_pmd; b67bf49ce7aa (5.18)",
        "booted",
    )
    putback_batched: bool = rule(
        False,
        "what mlock and munlock put back on the LRU waits in lru_add's batch (with a reference); else it is there at once",
        "mm/vmscan.c putback_lru_page: lru_cache_add; 9c4e6b1a7027 (4.16), asked no more since mlock has a batch of its own (5.18)",
        "booted",
        compiled=True,
    )
    mlock_counts_large: bool = rule(
        False,
        "mlock takes a huge page that PTEs map in full; unmapping one such PTE in a locked area munlocks it; else PTEs count for neither",
        "mm/mlock.c allow_mlock_munlock, mm/internal.h munlock_vma_folio; 1acbc3f93614 (6.7)",
        "booted",
        compiled=True,
    )
    split_pmd_munlocks: bool = rule(
        False,
        "a huge page whose PMD is split in a locked area is munlocked; else its 512 PTEs mlock it first",
        "mm/huge_memory.c __split_huge_pmd_locked; mm/rmap.c __folio_add_anon_rmap: folio_nr_pages(folio) == nr_pages (6.18)",
        "booted",
        compiled=True,
    )
    swapin_mlocks: bool = rule(
        False,
        "a page swapped in to a locked area is mlocked at once; else only when reclaim or mlock meets it",
        "mm/memory.c do_swap_page: page_add_anon_rmap; of what is new folio_add_new_anon_rmap since 6.11",
        "booted",
        compiled=True,
    )
    mark_needs_lru: bool = rule(
        True,
        "mark_page_accessed activates only pages already on the LRU",
        "mm/swap.c mark_page_accessed (2.6.38)",
        "booted",
        compiled=True,
    )
    new_anon_active: bool = rule(
        True,
        "a new anonymous page starts on the active list",
        "mm/rmap.c page_add_new_anon_rmap (2.6.38); b518154e59aa (5.9)",
        "booted",
        compiled=True,
    )
    mglru_fault_marks: bool = rule(
        False,
        "with MGLRU a page faulted in starts with PG_referenced",
        "mm/swap.c folio_add_lru: lru_gen_in_fault, folio_mark_accessed (7.2; not in 7.1)",
        "booted",
        compiled=True,
    )
    mglru_add_clears_referenced: bool = rule(
        False,
        "an active page (one faulted in, or put back from a young generation) that reaches MGLRU's lists loses PG_referenced",
        "include/linux/mm_inline.h lru_gen_add_folio; 4d5d14a01e2c (6.13, and 6.12.114), gone in 6.14",
        "booted",
        compiled=True,
    )
    mglru_lazyfree_keeps_referenced: bool = rule(
        False,
        "with MGLRU a lazily freed page keeps PG_referenced: it is off its generation's list when the reference is to be cleared",
        "mm/swap.c lru_lazyfree: lru_gen_clear_refs after lruvec_del_folio (6.14)",
        "booted",
        compiled=True,
    )
    mglru_available: bool = rule(
        False,
        "the kernel has MGLRU",
        "ac35a4902374 (6.1)",
        "booted",
    )
