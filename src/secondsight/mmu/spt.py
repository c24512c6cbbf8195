"""KVM's page tables, compiled: faults, the hardware's own accessed bits, ageing, zapping (arch/x86/kvm/mmu).

    guest access --> SPTE present and allows it --> hardware sets A (D)
                 --> access-tracked or MMU-writable: fast_page_fault gives back what was taken
                 --> kvm_faultin_pfn: gup_fast for write, else gup slow --> make_spte --> release the page (mark it accessed)
                     shadow paging, and all before the TDP MMU, then prefetches the aligned group of 8

A table is one root's view of one memslot: ``spte`` a 4 KiB entry for each page, ``smd`` a 2 MiB entry for each block
(with the large bit: a leaf; else 0). TDP has one table a slot; shadow paging one for each way the guest maps the slot.
Bit layouts: ``bits/spte.py``.

In compiled functions *lay* is the format of the SPTEs (``bits.spte.SpteLayout``), *t* a table (:class:`SpteArrays`), *f* the frames
(``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import PSE
from secondsight.bits.spte import SpteLayout
from secondsight.geometry import BLOCK_MASK, PAGE_SHIFT, PMD_ORDER
from secondsight.mm.gup import MISS, NOT_PERMITTED, NOTIFY, gup_fast, gup_slow
from secondsight.mm.lru import mark_page_accessed
from secondsight.mm.page import DIRTY, HUGE_ZERO_PFN, ZERO_FILLED, ZERO_PFN, head_of, put_page
from secondsight.mm.pgtable import GUEST_FAULTS, NOWAIT, pfn_of
from secondsight.native import merged, native

# How the table is filled.
TDP, SHADOW_DIRECT, SHADOW_PAGED = 0, 1, 2
#: PTE_PREFETCH_NUM
PREFETCH = 8


class SpteArrays(NamedTuple):
    """One table: spte uint64[pages], smd uint64[blocks]; *first*: the mm's page that index 0 maps."""

    spte: npt.NDArray[np.uint64]
    smd: npt.NDArray[np.uint64]
    first: int


class GuestTables(NamedTuple):
    """What a guest's accesses go through: the format of its SPTEs (``bits.spte.SpteLayout``), its table, and how that is filled."""

    lay: SpteLayout
    t: SpteArrays
    mode: int


class Resumed(NamedTuple):
    """Where a run of accesses goes on: at index *start*, whose notifiers have run already if *notified*."""

    start: int
    notified: bool
    has_notifiers: bool


@native
def _tracked(lay, spte):  # type: ignore[no-untyped-def]
    type_mask = lay.ad_disabled * np.uint64(3)
    return lay.ad_disabled != 0 and (spte & type_mask) == lay.ad_disabled and (spte & lay.tracked) == 0


@native
def accessed(lay, spte):  # type: ignore[no-untyped-def]
    """is_accessed_spte of a present SPTE."""
    if lay.accessed:
        return (spte & lay.accessed) != 0
    if lay.ad_disabled:
        return not _tracked(lay, spte)
    return True


@native
def touch_spte(lay, spte, write):  # type: ignore[no-untyped-def]
    """What the hardware does to a present SPTE it may use: sets A, and D for a store, where the format has them."""
    if lay.ad_disabled:
        return spte
    spte |= lay.accessed
    if write:
        spte |= lay.dirty
    return spte


@native
def spte_allows(lay, spte, write):  # type: ignore[no-untyped-def]
    """Does a present SPTE let the guest read, or, with *write*, store?"""
    return (spte & lay.readable) != 0 and (not write or (spte & lay.writable) != 0)


@native
def _fast_page_fault(lay, spte, write):  # type: ignore[no-untyped-def]
    """fast_page_fault: the SPTE with its access given back, or 0 where that does not help."""
    new = spte
    if _tracked(lay, spte):
        saved = lay.tracked & ~lay.writable
        kept = (new & ~lay.tracked) & ~(saved << lay.saved_shift)
        new = kept | ((spte >> lay.saved_shift) & saved) | lay.accessed
    if write and (spte & lay.mmu_writable) != 0:
        new |= lay.writable
    if new == spte or not spte_allows(lay, new, write):
        return np.uint64(0)
    return new


@native
def _make_spte(lay, pfn, writable, prefetch, large):  # type: ignore[no-untyped-def]
    """make_spte: prefetched SPTEs are left old (access-tracked without A/D bits)."""
    spte = (
        lay.present
        | lay.readable
        | lay.executable
        | lay.user
        | lay.ad_disabled
        | (np.uint64(pfn) << np.uint64(PAGE_SHIFT))
    )
    if large:
        spte |= lay.large
    if not prefetch:
        spte |= lay.accessed
    if writable:
        spte |= lay.host_writable | lay.mmu_writable | lay.writable | lay.dirty
    return spte


@native
def _is_zero(pfn):  # type: ignore[no-untyped-def]
    return pfn == ZERO_PFN or (pfn & ~BLOCK_MASK) == HUGE_ZERO_PFN


@merged
def _release(f, r, pfn, marks, writable):  # type: ignore[no-untyped-def]
    """kvm_release_page_clean, or _dirty where the page is *writable* (later kernels): mark accessed (not in 2.6.38), then put."""
    if not _is_zero(pfn):
        if writable and r.release_dirties:
            f.flags[head_of(f, pfn)] |= DIRTY
        if marks:
            mark_page_accessed(f, r, pfn)
        put_page(f, pfn)


@native
def _prefetch_run(f, r, lay, m, t, first, last):  # type: ignore[no-untyped-def]
    """direct_pte_prefetch_many: pin entries *first* to *last* at once, as far as gup_fast gets; False where not one could be."""
    pinned = 0
    for j in range(first, last):
        if gup_fast(f, r, m, t.first + j, 1) == MISS:
            break
        pinned += 1
    for j in range(first, first + pinned):
        page = t.first + j
        pmd = m.pmd[page >> PMD_ORDER]
        pfn = pfn_of(pmd) + (page & BLOCK_MASK) if pmd & PSE else pfn_of(m.pte[page])
        t.spte[j] = _make_spte(lay, pfn, True, True, False)
        _release(f, r, pfn, r.prefetch_marks_accessed, True)
    return pinned > 0


@native
def _prefetch_direct(f, r, lay, m, t, index):  # type: ignore[no-untyped-def]
    """__direct_pte_prefetch: the runs of missing entries in the aligned group of 8 around *index*."""
    low = index & ~(PREFETCH - 1)
    high = min(low + PREFETCH, len(t.spte))
    run = -1
    for j in range(low, high + 1):
        if j == high or j == index or (t.spte[j] & lay.present) != 0:
            if j == high and not r.prefetch_ends_group:
                return
            if run >= 0 and not _prefetch_run(f, r, lay, m, t, run, j):
                return
            run = -1
        elif run < 0:
            run = j


@native
def _prefetch_paged(f, r, lay, m, t, index):  # type: ignore[no-untyped-def]
    """FNAME(pte_prefetch): one by one, up to the first that gup_fast cannot write; each is released like a faulted page."""
    low = index & ~(PREFETCH - 1)
    for j in range(low, min(low + PREFETCH, len(t.spte))):
        if j == index or (t.spte[j] & lay.present) != 0:
            continue
        pfn = gup_fast(f, r, m, t.first + j, 1)
        if pfn == MISS:
            return
        t.spte[j] = _make_spte(lay, pfn, True, True, False)
        _release(f, r, pfn, r.release_marks_accessed, True)


@native
def guest_access(f, r, m, guest, pages, write, resumed):  # type: ignore[no-untyped-def]
    """Loads or stores by the guest of *pages* (numbers in the mm) from index *resumed.start* on; answers like ``cpu_access``."""
    lay, t, mode = guest.lay, guest.t, guest.mode
    start, notified, has_notifiers = resumed.start, resumed.notified, resumed.has_notifiers
    for i in range(start, len(pages)):
        page = pages[i]
        index = page - t.first
        block = index >> PMD_ORDER
        big = t.smd[block]
        spte = big if big & lay.present else t.spte[index]
        if spte & lay.present:
            new = np.uint64(0)
            if spte_allows(lay, spte, write):
                new = touch_spte(lay, spte, write)
            elif mode != SHADOW_PAGED:
                new = _fast_page_fault(lay, spte, write)
            if new:
                if big & lay.present:
                    t.smd[block] = new
                    if write:
                        f.flags[pfn_of(new) + (index & BLOCK_MASK)] &= ~ZERO_FILLED
                else:
                    t.spte[index] = new
                    if write:
                        f.flags[pfn_of(new)] &= ~ZERO_FILLED
                continue
        if not (notified and i == start):
            m.n[GUEST_FAULTS] += 1
        pfn = gup_fast(f, r, m, page, 1)
        writable = pfn != MISS
        if not writable:
            # hva_to_pfn: FOLL_NOWAIT first, which here never has to wait.
            m.n[NOWAIT] = 1
            pfn = gup_slow(f, r, m, page, write, notified and i == start, has_notifiers)
            m.n[NOWAIT] = 0
            if pfn == NOTIFY:
                return i
            if pfn == NOT_PERMITTED:
                return -1 - i
            writable = write != 0
            if notified and i == start:
                # Our own invalidation made the fault stale (is_page_fault_stale): it is released and made again.
                _release(f, r, pfn, r.retry_marks_accessed, False)
                pfn = gup_fast(f, r, m, page, 1)
            elif not write:
                again = gup_fast(f, r, m, page, 1)
                if again != MISS:
                    put_page(f, pfn)
                    pfn = again
                    writable = True
        if write:
            f.flags[pfn] &= ~ZERO_FILLED
        pmd = m.pmd[page >> PMD_ORDER]
        aligned = (page & BLOCK_MASK) == (index & BLOCK_MASK) and mode != SHADOW_PAGED
        if pmd & PSE and aligned:
            t.smd[block] = touch_spte(lay, _make_spte(lay, pfn & ~BLOCK_MASK, writable, False, True), write)
        else:
            t.spte[index] = touch_spte(lay, _make_spte(lay, pfn, writable, False, False), write)
            if (
                (mode == SHADOW_DIRECT or (mode == TDP and not r.tdp_mmu))
                and lay.accessed
                and not lay.ad_disabled
            ):
                _prefetch_direct(f, r, lay, m, t, index)
            elif mode == SHADOW_PAGED:
                _prefetch_paged(f, r, lay, m, t, index)
        _release(f, r, pfn, r.release_marks_accessed, writable)
    return len(pages)


@native
def _drop(f, r, lay, spte, marks_always):  # type: ignore[no-untyped-def]
    """What a present SPTE that goes leaves on its page, where the rules carry its bits over: accessed, dirty."""
    pfn = pfn_of(spte)
    if _is_zero(pfn):
        return
    if not r.release_dirties and spte & (lay.writable if lay.ad_disabled else lay.dirty):
        f.flags[head_of(f, pfn)] |= DIRTY
    if r.zap_transfers_accessed and (marks_always or accessed(lay, spte)):
        mark_page_accessed(f, r, pfn)


@native
def zap(f, r, lay, t, page, marks_always):  # type: ignore[no-untyped-def]
    """Drop the 4 KiB SPTE of one page; an accessed one marks the page where the rules carry the bit over."""
    index = page - t.first
    spte = t.spte[index]
    if spte & lay.present:
        t.spte[index] = 0
        _drop(f, r, lay, spte, marks_always)


@native
def zap_large(f, r, lay, t, block, marks_always):  # type: ignore[no-untyped-def]
    """Drop the 2 MiB SPTE of one block of the table."""
    spte = t.smd[block]
    if spte & lay.present:
        t.smd[block] = 0
        _drop(f, r, lay, spte, marks_always)


@native
def zap_range(f, r, lay, tables, start, end, marks_always):  # type: ignore[no-untyped-def]
    """Zap pages *start* to *end* in every table of a slot: page by page all 4 KiB SPTEs (the rmap's order), then large ones."""
    for page in range(start, end):
        for t in tables:
            zap(f, r, lay, t, page, marks_always)
    for t in tables:
        for block in range((start - t.first) >> PMD_ORDER, (end - t.first + BLOCK_MASK) >> PMD_ORDER):
            zap_large(f, r, lay, t, block, marks_always)


@native
def test_range(lay, t, start, end, out):  # type: ignore[no-untyped-def]
    """out[i] |= page ``start + i`` is young in this table (kvm_test_age_gfn, is_accessed_spte)."""
    for page in range(start, end):
        index = page - t.first
        spte = t.smd[index >> PMD_ORDER]
        if not spte & lay.present:
            spte = t.spte[index]
        if spte & lay.present and accessed(lay, spte):
            out[page - start] = True


@native
def age_range(lay, t, start, end, out):  # type: ignore[no-untyped-def]
    """Clear youth as kvm_age_gfn does (A bit, or access tracking) and report it in *out*."""
    for page in range(start, end):
        index = page - t.first
        big = t.smd[index >> PMD_ORDER]
        spte = big if big & lay.present else t.spte[index]
        if not spte & lay.present or not accessed(lay, spte):
            continue
        out[page - start] = True
        if lay.ad_disabled:
            saved = (spte & lay.tracked & ~lay.writable) << lay.saved_shift
            new = (spte | saved) & ~lay.tracked & ~lay.accessed
        else:
            new = spte & ~lay.accessed
        if big & lay.present:
            t.smd[index >> PMD_ORDER] = new
        else:
            t.spte[index] = new


@native
def count_marks(lay, t, start, end, out, marks_always):  # type: ignore[no-untyped-def]
    """out[i] += 1 where zapping page ``start + i`` in this table would mark it accessed; a large SPTE counts at its first page."""
    for page in range(start, end):
        index = page - t.first
        big = t.smd[index >> PMD_ORDER]
        if big & lay.present:
            if (page == start or (index & BLOCK_MASK) == 0) and (marks_always or accessed(lay, big)):
                out[page - start] += 1
            continue
        spte = t.spte[index]
        if spte & lay.present and (marks_always or accessed(lay, spte)):
            out[page - start] += 1
