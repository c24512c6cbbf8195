"""KSM at the depth the seed needs (mm/ksm.c): equal pages of mergeable areas become one read-only page.

    a scan            drain the LRU batches; then page by page:
      stable tree     has its content a KSM page? merge into that
      unstable tree   else, met an equal one in this scan? the newer becomes the KSM page, the older is merged into it
    merge one page    write_protect_page: the notifiers unmap it; a page that somebody else holds stays as it is
                      replace_page: the mapping changes over to the KSM page: change_pte (set_pte_at_notify)
    break             a fault: of a KSM page whose first partner could not be merged (break_cow), and of all (unmerge)

The unmapping carries a secondary MMU's accessed bit to the page (up to 6.12), and if that activates it, it waits in the activation
batch, which holds a reference: the page cannot be merged before the next scan. Until then others become KSM pages and are broken again.

Contents are the ``value`` a store filled the page with; only pages so filled, or zero-filled, can be equal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from secondsight.bits.pte import DIRTY, MAPPED, PRESENT, PSE, RW, UFFD_WP
from secondsight.mm.huge_memory import is_large, split_folio
from secondsight.mm.lru import mark_page_accessed, mlock_page, munlock_folio
from secondsight.mm.memory import wp_page_copy
from secondsight.mm.page import (
    ANON,
    EXCLUSIVE,
    HPAGE,
    KSM,
    SWAPCACHE,
    ZERO_FILLED,
    ZERO_PFN,
    head_of,
    put_page,
)
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.pgtable import PAGE_NONE, PFN_SHIFT, PROT
from secondsight.mm.vma import VmFlags

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm, MmHost


#: For each space, page numbers.
Took = Mapping[str, Collection[int]]

#: Scans that ksmd makes, more than settle everything: the first only takes checksums, in the second all but the oldest page of a kind
#: may have to wait for a drain, in the third the oldest.
_SCANS = 6


def merge(host: MmHost, took: Took | None = None) -> int:
    """Let ksmd make some scans; returns how many mappings changed over to another page.

    *took*: for each space the pages that a kernel was seen to have merged: 6.1 was seen to miss some, by its text those whose way through
    the unstable tree, which is sorted by content, meets a page that it does not follow (``_follows``). Without it all equal pages are
    merged.
    """
    host.drain()
    items = _mergeable(host, took)
    stable: dict[int, int] = {}
    changed = 0
    for _ in range(1, _SCANS):
        host.drain()
        unstable: dict[int, tuple[Mm, int]] = {}
        for mm, page in items:
            value = _content(mm, page)
            if value is None:
                continue
            pfn = mm.pfn(page)
            if _flags(host, pfn) & KSM:
                stable.setdefault(value, pfn)
            elif value in stable:
                changed += _merge_into(mm, page, stable[value])
            elif value not in unstable:
                unstable[value] = (mm, page)
            else:
                other_mm, other = unstable[value]
                if not _follows(other_mm, other):
                    continue  # get_mergeable_page
                # Don't substitute a ksm page for a forked page (unstable_tree_search_insert).
                if pfn == other_mm.pfn(other):
                    continue
                if mm.folio(page) == other_mm.folio(other):
                    # Both are of one large folio, to which ksmd has a reference for each: it is split, and nothing merged (5.10 to 7.3).
                    split_folio(mm, page)
                    continue
                if not _becomes_ksm(mm, page):
                    continue
                kept = mm.pfn(page)
                if _merge_into(other_mm, other, kept):
                    stable[value] = kept
                    del unstable[value]
                    changed += 1
                else:
                    _break(mm, page)
    return changed


def _mergeable(host: MmHost, took: Took | None) -> list[tuple[Mm, int]]:
    """The pages of MADV_MERGEABLE areas that can be equal to others, in ksmd's order; with *took*, of those kinds that were merged, or
    cannot be for somebody holds one (ksmd tries all the same)."""
    kinds: dict[int, list[tuple[Mm, int]]] = {}
    for mm in host.mms.values():
        for vma in mm.vmas.areas:
            for page in range(vma.start, vma.end) if vma.flags & VmFlags.MERGEABLE else ():
                value = _content(mm, page)
                if value is not None:
                    kinds.setdefault(value, []).append((mm, page))
    tried = [
        pages
        for pages in kinds.values()
        if took is None or any(page in took.get(mm.name, ()) or _held(mm, page) for mm, page in pages)
    ]
    order = {mm.name: at for at, mm in enumerate(host.mms.values())}
    return sorted(
        (each for pages in tried for each in pages), key=lambda each: (order[each[0].name], each[1])
    )


def _held(mm: Mm, page: int) -> bool:
    """Has the page a reference besides its mappings' and the swap cache's?"""
    f, pfn = mm.host.frames.arrays, mm.pfn(page)
    if mm.arrays.pmd[page // HPAGE] & PSE or is_large(mm, page):
        return False
    return bool(f.refcount[pfn] != f.mapcount[pfn] + (1 if f.flags[pfn] & SWAPCACHE else 0))


def _content(mm: Mm, page: int) -> int | None:
    """What an anonymous page is filled with; None where it is not known to equal any other."""
    pfn = mm.pfn(page)
    if pfn <= ZERO_PFN or not _flags(mm.host, pfn) & ANON:
        return None
    zero = mm.host.frames.arrays.flags[pfn] & ZERO_FILLED
    return mm.host.content.get(pfn, 0 if zero else None)


def _flags(host: MmHost, pfn: int) -> int:
    f = host.frames.arrays
    return int(f.flags[head_of(f, pfn)])


def _becomes_ksm(mm: Mm, page: int) -> bool:
    """try_to_merge_one_page without a KSM page: the page becomes one in place."""
    if not _write_protect(mm, page):
        return False
    f, pfn = mm.host.frames.arrays, mm.pfn(page)
    f.flags[pfn] = (f.flags[pfn] | KSM | PAGE_DIRTY) & ~EXCLUSIVE
    mark_page_accessed(f, mm.host.r, pfn)
    return True


def _merge_into(mm: Mm, page: int, keep: int) -> bool:
    """try_to_merge_one_page: the mapping changes over to the KSM page *keep*; False where the page cannot be had alone."""
    if not _write_protect(mm, page):
        return False
    host = mm.host
    f = host.frames.reserve(0, 0, 64)
    old = mm.pfn(page)
    if host.rules.ksm_invalidates:
        mm.notifiers.invalidate_range(page, page + 1)
    # mk_pte of the area's protection, which has the accessed bit, whoever used the page last (replace_page, 5.10 to 7.3); NUMA balancing
    # has to come by again.
    accessible = mm.vmas.at(page).flags & (VmFlags.READ | VmFlags.WRITE)
    entry = (PROT if accessible else PAGE_NONE) | (np.uint64(keep) << PFN_SHIFT)
    if host.rules.has_change_pte:
        mm.notifiers.change_pte(page, entry)
    mm.arrays.pte[page] = entry
    f.mapcount[keep] += 1
    f.refcount[keep] += 1
    if mm.vmas.at(page).flags & VmFlags.LOCKED:
        munlock_folio(f, host.r, old)
        mlock_page(f, keep)
    f.mapcount[old] -= 1
    put_page(f, old)
    return True


def _break(mm: Mm, page: int) -> None:
    """break_ksm: the mapping gets a copy of the KSM page, whatever its area permits (handle_mm_fault does not ask): by a write fault or,
    later, by one that only makes it the process's own."""
    host, entry = mm.host, mm.arrays.pte[page]
    unshares = host.rules.ksm_break_unshares
    if not (unshares or _follows(mm, page)):
        return
    if entry & UFFD_WP and not unshares:
        return  # handle_userfault: without FAULT_FLAG_ALLOW_RETRY nobody waits for the handler (VM_FAULT_SIGBUS)
    value = _content(mm, page)
    f = host.frames.reserve(1, 0, 64)
    mm.notifiers.invalidate_range(page, page + 1)
    wp_page_copy(f, host.r, mm.arrays, page, unshares)
    if value is not None:
        host.content[mm.pfn(page)] = value


def _follows(mm: Mm, page: int) -> bool:
    """follow_page: is what *page* maps found, though its area or NUMA balancing made the entry PROT_NONE (gup_can_follow_protnone)? ksmd
    itself walks the page tables."""
    pmd = mm.arrays.pmd[page // HPAGE]
    return mm.host.rules.ksm_follows_protnone or bool((pmd if pmd & PSE else mm.arrays.pte[page]) & PRESENT)


def _write_protect(mm: Mm, page: int) -> bool:
    """write_protect_page, of a huge page after its split: the notifiers unmap it, then it becomes clean and read-only if none but its
    mappings holds it; False where somebody does."""
    if (mm.arrays.pmd[page // HPAGE] & PSE or is_large(mm, page)) and not split_folio(mm, page):
        return False
    pfn = mm.pfn(page)
    if pfn <= ZERO_PFN:  # the split mapped the zero page in its place
        return False
    host, f = mm.host, mm.host.frames.arrays
    if host.rules.ksm_invalidates:
        mm.notifiers.invalidate_range(page, page + 1)
    entry = mm.arrays.pte[page]
    if entry & (RW | DIRTY) or (host.r.anon_exclusive and f.flags[pfn] & EXCLUSIVE):
        if _held(mm, page):
            return False
        f.flags[pfn] &= ~EXCLUSIVE
        entry &= ~(RW | DIRTY)
        if host.rules.has_change_pte:
            mm.notifiers.change_pte(page, entry)
        mm.arrays.pte[page] = entry
    return True


def unmerge(mm: Mm, start: int, end: int) -> None:
    """unmerge_ksm_pages: break every KSM page in pages *start* to *end*."""
    f = mm.host.frames.arrays
    pages = [
        p
        for p in range(start, min(end, mm.blocks * HPAGE))
        if mm.arrays.pte[p] & MAPPED and mm.pfn(p) > ZERO_PFN and f.flags[mm.pfn(p)] & KSM
    ]
    for page in pages:
        _break(mm, page)
