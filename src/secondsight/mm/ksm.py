"""KSM at the depth the seed needs (mm/ksm.c): equal pages of mergeable areas become one read-only page.

    write_protect_page   each mapping read-only; the notifiers are told
    replace_page         the second and further mappings change over to the first page: change_pte (set_pte_at_notify)
    unmerge              a write fault on each (break_ksm)

Contents are the ``value`` a store filled the page with; only pages so filled can be equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import DIRTY, MAPPED, PFN_MASK, PSE, RW
from secondsight.mm.huge_memory import is_large, split_huge
from secondsight.mm.lru import mark_page_accessed, munlock_folio
from secondsight.mm.page import (
    ANON,
    EXCLUSIVE,
    HEAD,
    HPAGE,
    KSM,
    TAIL,
    ZERO_FILLED,
    ZERO_PFN,
    head_of,
    mlock_page,
    put_page,
)
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.vma import Vm

if TYPE_CHECKING:
    from secondsight.mm.host import Host
    from secondsight.mm.mm_struct import Mm


def merge(host: Host, took: dict[str, npt.NDArray[np.int64]] | None = None) -> int:
    """Merge every pair of equal pages in MADV_MERGEABLE areas; returns how many mappings changed over.

    *took*: for each space the pages a kernel was seen to have merged; without it all equal pages are.
    """
    groups: dict[int, list[tuple[Mm, int]]] = {}
    f = host.frames.arrays
    for mm in host.mms.values():
        allowed = None if took is None else set(took.get(mm.name, np.zeros(0, np.int64)).tolist())
        for vma in mm.vmas.areas:
            if not vma.flags & Vm.MERGEABLE:
                continue
            for page in range(vma.start, vma.end):
                if allowed is not None and page not in allowed:
                    continue
                pfn = mm.pfn(page)
                if pfn <= ZERO_PFN or not f.flags[head_of(f, pfn)] & ANON:
                    continue
                value = host.content.get(pfn, 0 if f.flags[pfn] & ZERO_FILLED else None)
                if value is None:
                    continue
                small = not f.flags[pfn] & (HEAD | TAIL)
                if small and not f.flags[pfn] & KSM and f.refcount[pfn] != f.mapcount[pfn]:
                    continue
                groups.setdefault(value, []).append((mm, page))
    changed = 0
    for members in groups.values():
        if len(members) > 1:
            changed += _merge_group(host, members)
    return changed


def _merge_group(host: Host, members: list[tuple[Mm, int]]) -> int:
    # try_to_merge_one_page splits a huge page first; one that cannot be split is left out.
    members = [(mm, page) for mm, page in members if _small(mm, page) and mm.pfn(page) > ZERO_PFN]
    if len(members) < 2:
        return 0
    f = host.frames.reserve(0, 0, len(members) + 64)
    # ksmd finds the first page of a kind again in its unstable tree when it meets the second: that one becomes the KSM page
    # (try_to_merge_two_pages); once there is one, the others are merged into it.
    kept_mm, kept_page = next(((mm, page) for mm, page in members if f.flags[mm.pfn(page)] & KSM), members[1])
    keep = kept_mm.pfn(kept_page)
    changed = 0
    for mm, page in members:
        _write_protect(mm, page)
    if not f.flags[keep] & KSM:
        # The first page of a kind becomes the KSM page in place (try_to_merge_one_page without kpage).
        f.flags[keep] = (f.flags[keep] | KSM | PAGE_DIRTY) & ~EXCLUSIVE
        mark_page_accessed(f, host.r, keep)
    for mm, page in members:
        old = mm.pfn(page)
        if old == keep:
            continue
        if host.rules.ksm_invalidates:
            mm.notifiers.invalidate_range(page, page + 1)
        entry = (mm.arrays.pte[page] & ~PFN_MASK & ~DIRTY) | (np.uint64(keep) << np.uint64(12))
        if host.rules.has_change_pte:
            mm.notifiers.change_pte(page, entry)
        mm.arrays.pte[page] = entry
        f.mapcount[keep] += 1
        f.refcount[keep] += 1
        if mm.vmas.at(page).flags & Vm.LOCKED:
            munlock_folio(f, host.r, old)
            mlock_page(f, keep)
        f.mapcount[old] -= 1
        put_page(f, old)
        changed += 1
    return changed


def _small(mm: Mm, page: int) -> bool:
    """Is *page* mapped by a small page, if need be after a split?"""
    if mm.arrays.pmd[page >> 9] & PSE or is_large(mm, page):
        return split_huge(mm, page // HPAGE)
    return True


def _write_protect(mm: Mm, page: int) -> None:
    """write_protect_page: clean and read-only; the notifiers drop or protect theirs."""
    entry = mm.arrays.pte[page] & ~(RW | DIRTY)
    if mm.arrays.pte[page] & (RW | DIRTY):
        if mm.host.rules.ksm_invalidates:
            mm.notifiers.invalidate_range(page, page + 1)
        if mm.host.rules.has_change_pte:
            mm.notifiers.change_pte(page, entry)
        mm.arrays.pte[page] = entry


def unmerge(mm: Mm, start: int, end: int) -> None:
    """unmerge_ksm_pages: break every KSM page in pages *start* to *end* by a write fault."""
    f = mm.host.frames.arrays
    pages = [
        p
        for p in range(start, min(end, mm.blocks * HPAGE))
        if mm.arrays.pte[p] & MAPPED and mm.pfn(p) > ZERO_PFN and f.flags[mm.pfn(p)] & KSM
    ]
    if pages:
        mm.cpu_access(np.array(pages, dtype=np.int64), write=True)
