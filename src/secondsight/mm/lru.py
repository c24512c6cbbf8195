"""The LRU as far as it decides about youth: mark_page_accessed, and the per-CPU batches that hold references.

    mark_page_accessed (no MGLRU)          unreferenced            -> referenced
                                           referenced, inactive    -> active, unreferenced (through a batch)
                                           referenced, active      -> no change

    folio_add_lru --> [lru_add batch: one reference each] --full or drain--> on the LRU (PG_lru)
    activation    --> [lru_activate batch: one reference each] --full or drain--> PG_active
    mlock, munlock -> [mlock batch: one reference each] --full or drain--> unevictable, or no longer

A page in a batch has one reference more than its mappings explain: khugepaged then answers ``not_suitable_page_count``.
Source: mm/swap.c of 6.1, 6.12 and 7.2; mm/swap.c of 2.6.38, where activation is immediate.

In compiled functions *f* is the frames (``page.FrameArrays``) and *r* the rules and the host's set-up (``compiled.R``).
"""

from __future__ import annotations

import numpy as np

from secondsight.mm.page import (
    ACTIVE,
    BATCH_ACTIVATE,
    BATCH_ADD,
    BATCH_MLOCK,
    HEAD,
    IDLE,
    LRU,
    LRU_REFS,
    LRU_REFS_SHIFT,
    MLOCKED,
    N_ACTIVATE,
    N_ADD,
    N_MLOCK,
    REFERENCED,
    TAIL,
    UNEVICTABLE,
    WORKINGSET,
    head_of,
    put_page,
)
from secondsight.native import merged, native

# What waits in the mlock batch, in the low bits of its entries.
_MUNLOCK, _NEW, _MLOCK = 0, 1, 2


@native
def mlock_page(f, pfn):  # type: ignore[no-untyped-def]
    """mlock_vma_page, its batch drained: the folio at *pfn* is mapped in a locked area; on the LRU it moves to the unevictable list."""
    f.flags[pfn] |= MLOCKED
    if f.flags[pfn] & LRU:
        if len(f.mlocks):
            f.mlocks[pfn] = f.mlocks[pfn] + 1 if f.flags[pfn] & UNEVICTABLE else 1
        f.flags[pfn] = (f.flags[pfn] & ~ACTIVE) | UNEVICTABLE


@native
def munlock_page(f, pfn):  # type: ignore[no-untyped-def]
    """munlock_vma_page, its batch drained (__munlock_folio): the last of what is counted takes the page off the unevictable list.

    KSM alone maps a small page in more than one locked area. What a large folio counts is not kept: the first ends it.
    """
    counts = len(f.mlocks) > 0 and not f.flags[pfn] & HEAD
    if counts and f.flags[pfn] & (LRU | UNEVICTABLE) == LRU | UNEVICTABLE:
        f.mlocks[pfn] = max(f.mlocks[pfn] - 1, 0)
        if f.mlocks[pfn]:
            return
    f.flags[pfn] &= ~MLOCKED
    if f.flags[pfn] & LRU:
        f.flags[pfn] &= ~UNEVICTABLE


@native
def _drain_add(f, r):  # type: ignore[no-untyped-def]
    """lru_add: the batch's pages reach the LRU. MGLRU keeps no PG_active on its lists (lru_gen_add_folio)."""
    count = f.n[N_ADD]
    f.n[N_ADD] = 0
    for i in range(count):
        pfn = np.int64(f.batch[BATCH_ADD, i])
        if f.flags[pfn] & MLOCKED:
            f.flags[pfn] = (f.flags[pfn] & ~ACTIVE) | UNEVICTABLE | LRU
            # Not one: "that leaves __mlock_folio in doubt whether another actor has already counted the mlock" (lru_add).
            if len(f.mlocks):
                f.mlocks[pfn] = 0
        else:
            f.flags[pfn] = (f.flags[pfn] & ~UNEVICTABLE) | LRU
            if r.mglru:
                if r.mglru_add_clears_referenced and f.flags[pfn] & ACTIVE:
                    f.flags[pfn] &= ~REFERENCED
                f.flags[pfn] &= ~ACTIVE
        put_page(f, pfn)


@native
def _drain_activate(f, r):  # type: ignore[no-untyped-def]
    """lru_activate: what waited becomes active, unless it already is or cannot be."""
    count = f.n[N_ACTIVATE]
    f.n[N_ACTIVATE] = 0
    for i in range(count):
        pfn = np.int64(f.batch[BATCH_ACTIVATE, i])
        if (f.flags[pfn] & LRU) and not f.flags[pfn] & (ACTIVE | UNEVICTABLE):
            f.flags[pfn] |= ACTIVE
        put_page(f, pfn)


@native
def _drain_mlock(f):  # type: ignore[no-untyped-def]
    """mlock_folio_batch: new pages reach the unevictable list; pages that left their locked area leave it too, inactive."""
    count = f.n[N_MLOCK]
    f.n[N_MLOCK] = 0
    for i in range(count):
        pfn = np.int64(f.batch[BATCH_MLOCK, i] >> 2)
        what = f.batch[BATCH_MLOCK, i] & 3
        if what == _NEW:
            f.flags[pfn] |= LRU
            if f.flags[pfn] & MLOCKED:
                f.flags[pfn] |= UNEVICTABLE
                if len(f.mlocks):
                    f.mlocks[pfn] = 1
        elif what == _MLOCK:
            if f.flags[pfn] & MLOCKED:
                mlock_page(f, pfn)
        else:
            munlock_page(f, pfn)
        put_page(f, pfn)


@native
def _mlock_add(f, r, pfn, what):  # type: ignore[no-untyped-def]
    f.refcount[pfn] += 1
    f.batch[BATCH_MLOCK, f.n[N_MLOCK]] = pfn * 4 + what
    f.n[N_MLOCK] += 1
    if f.n[N_MLOCK] >= r.lru_batch or f.flags[pfn] & HEAD or not r.mlock_batched:
        _drain_mlock(f)


@native
def _put_back(f, r, pfn, locked):  # type: ignore[no-untyped-def]
    """mlock_vma_page, munlock_vma_page up to 5.17: isolate_lru_page and putback_lru_page of a page that becomes *locked*, or no longer."""
    f.flags[pfn] = f.flags[pfn] | MLOCKED if locked else f.flags[pfn] & ~MLOCKED
    if f.flags[pfn] & LRU:
        if r.putback_batched:
            f.flags[pfn] &= ~LRU
            folio_add_lru(f, r, pfn, False)
        elif locked:
            f.flags[pfn] = (f.flags[pfn] & ~ACTIVE) | UNEVICTABLE
        else:
            f.flags[pfn] &= ~UNEVICTABLE


@native
def mlock_populated(f, r, pfn):  # type: ignore[no-untyped-def]
    """FOLL_MLOCK (up to 5.17): mlock_vma_page of what populate has met."""
    if not f.flags[pfn] & MLOCKED:
        _put_back(f, r, pfn, True)


@native
def mlock_new_folio(f, r, pfn):  # type: ignore[no-untyped-def]
    """A new page of a locked area, not on the LRU yet: through the mlock batch, with a reference, to the unevictable list.

    lru_cache_add_inactive_or_unevictable, before there was one: through the batch of all new pages.
    """
    f.flags[pfn] |= MLOCKED
    if r.putback_batched and not r.mlock_batched:
        folio_add_lru(f, r, pfn, False)
        return
    _mlock_add(f, r, pfn, _NEW)


@native
def munlock_folio(f, r, pfn):  # type: ignore[no-untyped-def]
    """munlock_vma_page: a PTE in a locked area is unmapped (page_remove_rmap); through the mlock batch, with a reference."""
    if not r.mlock_batched:
        # Only who makes a copy in its place, or KSM, looks (PageMlocked).
        if f.flags[pfn] & MLOCKED and not f.flags[pfn] & (HEAD | TAIL):
            _put_back(f, r, pfn, False)
    elif r.mlock_counts_large or not f.flags[pfn] & (HEAD | TAIL):
        _mlock_add(f, r, head_of(f, pfn), _MUNLOCK)


@native
def munlock_huge(f, r, head):  # type: ignore[no-untyped-def]
    """The same for a huge PMD, unmapped or split, since unmapping munlocks (5.18, as the batch); a large folio drains the batch."""
    if r.mlock_batched:
        _mlock_add(f, r, head, _MUNLOCK)


@native
def clear_page_mlock(f, r, head):  # type: ignore[no-untyped-def]
    """clear_page_mlock up to 5.17: a huge page whose PMD is split, in whatever area, is locked no longer."""
    if f.flags[head] & MLOCKED:
        _put_back(f, r, head, False)


@native
def mlock_folio(f, r, pfn):  # type: ignore[no-untyped-def]
    """mlock_vma_page: a page that exists is mapped in a locked area; through the mlock batch, with a reference."""
    f.flags[pfn] |= MLOCKED
    _mlock_add(f, r, pfn, _MLOCK)


@native
def lru_add_drain(f, r):  # type: ignore[no-untyped-def]
    """lru_add_drain: first lru_add, then the activations, at the end mlock's batch."""
    _drain_add(f, r)
    _drain_activate(f, r)
    _drain_mlock(f)


@merged
def marked_first(r, flags):  # type: ignore[no-untyped-def]
    """The flags of a folio that was not referenced, after folio_mark_accessed. Nothing else of it changes, and no other folio."""
    if r.mglru:
        # lru_gen_inc_refs returns before PG_idle is cleared.
        return flags if flags & UNEVICTABLE else (flags & ~LRU_REFS) | REFERENCED
    return (flags | REFERENCED) & ~IDLE


@merged
def mark_page_accessed(f, r, pfn):  # type: ignore[no-untyped-def]
    """folio_mark_accessed on the folio of *pfn*."""
    page = head_of(f, pfn)
    flags = f.flags[page]
    if not flags & REFERENCED:
        f.flags[page] = marked_first(r, flags)
        return
    if r.mglru:
        # lru_gen_inc_refs: referenced first, then a count of three, then PG_workingset.
        if not flags & UNEVICTABLE:
            if flags & LRU_REFS == LRU_REFS:
                f.flags[page] = flags | WORKINGSET
            else:
                f.flags[page] = flags + (np.uint32(1) << LRU_REFS_SHIFT)
        return
    if flags & UNEVICTABLE:
        pass
    elif not flags & ACTIVE:
        if r.mark_needs_lru:
            if flags & LRU:
                f.flags[page] = (flags | ACTIVE) & ~REFERENCED
        else:
            if flags & LRU:
                _activate(f, r, page)
            else:
                # __lru_cache_activate_folio: only a page found in the local lru_add batch.
                for i in range(f.n[N_ADD]):
                    if f.batch[BATCH_ADD, i] == page:
                        f.flags[page] |= ACTIVE
                        break
            f.flags[page] &= ~REFERENCED
    f.flags[page] &= ~IDLE


@native
def _activate(f, r, page):  # type: ignore[no-untyped-def]
    """folio_activate: into the batch with a reference; a full batch, or a huge folio, drains it."""
    if not r.activate_batched:
        f.flags[page] |= ACTIVE
        return
    f.refcount[page] += 1
    f.batch[BATCH_ACTIVATE, f.n[N_ACTIVATE]] = page
    f.n[N_ACTIVATE] += 1
    if f.n[N_ACTIVATE] >= r.lru_batch or f.flags[page] & HEAD:
        _drain_activate(f, r)


@native
def folio_add_lru(f, r, page, in_fault):  # type: ignore[no-untyped-def]
    """folio_add_lru of a head or small page; *in_fault*: under handle_mm_fault (lru_gen_in_fault)."""
    if r.mglru and in_fault and not f.flags[page] & UNEVICTABLE:
        if r.mglru_fault_marks:
            # What comes back and was much used when it went (PG_workingset) is activated, all else marked.
            if f.flags[page] & WORKINGSET:
                f.flags[page] |= ACTIVE
            elif not f.flags[page] & REFERENCED:
                f.flags[page] = (f.flags[page] & ~LRU_REFS) | REFERENCED
        else:
            f.flags[page] |= ACTIVE
    f.refcount[page] += 1
    f.batch[BATCH_ADD, f.n[N_ADD]] = page
    f.n[N_ADD] += 1
    if f.n[N_ADD] >= r.lru_batch or f.flags[page] & HEAD:
        _drain_add(f, r)


@native
def activate_locked(f, r, head):  # type: ignore[no-untyped-def]
    """What reclaim does not take goes back active (mm/vmscan.c shrink_folio_list). MGLRU keeps no PG_active on its lists."""
    if not r.mglru:
        f.flags[head] |= ACTIVE
    elif r.mglru_add_clears_referenced:
        f.flags[head] &= ~REFERENCED
