"""madvise(2) (mm/madvise.c).

hugepage, nohugepage    the area's advice; hugepage may register the mm with khugepaged
dontneed                notifiers, then the PTEs go; a huge PMD cut in part is split first
free                    notifiers, then each PTE clean and old, each page lazily freed (through a batch)
cold                    PTE old, page unreferenced and inactive; no notifier is told or asked
mergeable               the area's advice for KSM; unmergeable breaks what was merged
guard_install           (6.13) every page a marker, on which every access fails; what was there goes first; guard_remove takes them away
collapse                MADV_COLLAPSE: khugepaged.py

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from secondsight.bits.pageflags import DIRTY as PAGE_DIRTY
from secondsight.bits.pte import ACCESSED, DIRTY, MAPPED, PSE
from secondsight.errors import UsageError
from secondsight.geometry import BLOCK_MASK, PMD_ORDER
from secondsight.mm.guard import guard_install, guard_remove
from secondsight.mm.huge_memory import is_large, split_folio
from secondsight.mm.internal import USE_AND_WRITE, folio_pte_batch, maybe_mapped_shared
from secondsight.mm.lru import lru_add_drain
from secondsight.mm.page import (
    ACTIVE,
    ANON,
    HEAD,
    HPAGE,
    HUGE_ZERO_PFN,
    LRU,
    REFERENCED,
    SWAPBACKED,
    SWAPCACHE,
    UNEVICTABLE,
    YOUNG,
    ZERO_PFN,
    folio_mapcount,
    folio_nr_pages,
    head_of,
)
from secondsight.mm.pgtable import DROPPABLE, pfn_of
from secondsight.mm.swap import folio_free_swap, free_swap_entry, is_swap
from secondsight.mm.unmap import unmap
from secondsight.mm.vma import VmArea, VmFlags
from secondsight.native import allocating, native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm

Advice = Literal[
    "hugepage", "nohugepage", "dontneed", "free", "cold", "mergeable", "unmergeable", "guard_install", "guard_remove", "collapse",
]  # fmt: skip


@native
def _lazily_freed(f, r, pfn):  # type: ignore[no-untyped-def]
    """lru_lazyfree."""
    f.flags[pfn] &= ~(ACTIVE | SWAPBACKED)
    if not r.mglru_lazyfree_keeps_referenced:
        f.flags[pfn] &= ~REFERENCED


@allocating
def _lazyfree(f, r, m, start, end):  # type: ignore[no-untyped-def]
    """madvise_free_pte_range: swap entries go; young or dirty PTEs become clean and old; eligible pages lose PG_swapbacked.

    Lazily freed pages wait in a batch of their own; a drain empties it before the activations.
    """
    batch = np.empty(32, np.int64)
    waiting = 0
    for page in range(start, end):
        block = page >> PMD_ORDER
        pmd = m.pmd[block]
        if pmd & PSE:
            if (page & BLOCK_MASK) == 0:
                head = pfn_of(pmd)
                m.pmd[block] = pmd & ~(ACCESSED | DIRTY)
                f.flags[head] &= ~PAGE_DIRTY
                flags = f.flags[head]
                if flags & LRU and flags & SWAPBACKED and not flags & (SWAPCACHE | UNEVICTABLE):
                    _lazily_freed(f, r, head)
            continue
        entry = m.pte[page] if pmd else np.uint64(0)
        if entry == 0:
            continue
        if not entry & MAPPED:
            if is_swap(entry):
                free_swap_entry(f, m, entry)
                m.pte[page] = 0
            continue
        pfn = pfn_of(entry)
        if pfn == ZERO_PFN:
            continue
        pfn = head_of(f, pfn)
        if f.flags[pfn] & (SWAPCACHE | PAGE_DIRTY):
            # A shared page is left alone where it is dirty or in the swap cache.
            if folio_mapcount(f, pfn) != folio_nr_pages(f, pfn):
                continue
            if f.flags[pfn] & SWAPCACHE:
                folio_free_swap(f, m, pfn)
                if f.flags[pfn] & SWAPCACHE:
                    continue
            f.flags[pfn] &= ~PAGE_DIRTY
        m.pte[page] = entry & ~(ACCESSED | DIRTY)
        flags = f.flags[pfn]
        if flags & LRU and flags & ANON and flags & SWAPBACKED and not flags & (SWAPCACHE | UNEVICTABLE):
            batch[waiting] = pfn
            waiting += 1
            f.refcount[pfn] += 1
            if waiting == r.lru_batch:
                _lazyfree_drain(f, r, batch, waiting)
                waiting = 0
    _lazyfree_drain(f, r, batch, waiting)


@allocating
def _lazyfree_drain(f, r, batch, waiting):  # type: ignore[no-untyped-def]
    for i in range(waiting):
        pfn = batch[i]
        _lazily_freed(f, r, pfn)
        f.refcount[pfn] -= 1


@native
def _cold(f, r, m, start, end):  # type: ignore[no-untyped-def]
    """madvise_cold_or_pageout_pte_range: only pages mapped once and on the LRU."""
    for page in range(start, end):
        block = page >> PMD_ORDER
        pmd = m.pmd[block]
        if pmd & PSE:
            head = pfn_of(pmd)
            if (page & BLOCK_MASK) or head == HUGE_ZERO_PFN or f.refcount[head + 1] != 1:
                continue
            m.pmd[block] = pmd & ~ACCESSED
            _deactivate(f, r, head)
            continue
        entry = m.pte[page] if pmd else np.uint64(0)
        if not entry & MAPPED or pfn_of(entry) == ZERO_PFN:
            continue
        pfn = pfn_of(entry)
        head = head_of(f, pfn)
        if (
            not f.flags[head] & LRU
            or f.mapcount[pfn] != 1
            or (f.flags[head] & HEAD and f.refcount[head + 2] != folio_nr_pages(f, head))
        ):
            continue
        m.pte[page] = entry & ~ACCESSED
        _deactivate(f, r, head)


@native
def _deactivate(f, r, pfn):  # type: ignore[no-untyped-def]
    f.flags[pfn] &= ~(REFERENCED | YOUNG)
    if not f.flags[pfn] & UNEVICTABLE:
        f.flags[pfn] &= ~ACTIVE


def _maybe_shared(mm: Mm, page: int, *, free: bool) -> bool:
    """Is the large folio behind *page* taken to be another process's too? Before 6.8 its page's mapcount says, then folio_mapped_shared's
    guess from the first page's, since 6.15 who maps it (folio_maybe_mapped_shared). MADV_*FREE* may ask otherwise."""
    f, head, rules = mm.host.frames.arrays, mm.folio(page), mm.host.rules
    entire = int(f.refcount[head + 1])
    if free and rules.free_asks_first_page:
        return bool(f.mapcount[head] + entire != 1)
    if rules.large_mapped_shared == "page":
        return bool(f.mapcount[mm.pfn(page)] + entire > 1)
    return bool(maybe_mapped_shared(f, mm.arrays, page, rules.large_mapped_shared == "mm"))


def ranges_without_large(mm: Mm, start: int, end: int, *, free: bool = False) -> list[tuple[int, int]]:
    """What madvise_cold_or_pageout_pte_range and madvise_free_pte_range make of huge pages on their way over pages *start* to *end*.

    A huge page covered in part is split, one that cannot be (pinned, shared) is left alone; how far the walk then goes on in its block
    depends on the rules. Returns the ranges left to treat, huge pages in them being covered whole.
    """
    out: list[tuple[int, int]] = []
    for block in range(start // HPAGE, -(-end // HPAGE)):
        low, high = max(start, block * HPAGE), min(end, (block + 1) * HPAGE)
        if mm.arrays.pmd[block] & PSE:
            head = mm.folio(low)
            f = mm.host.frames.arrays
            if head == HUGE_ZERO_PFN or f.refcount[head + 1] + f.refcount[head + 2] != 1:
                continue
            if high - low == HPAGE or split_folio(mm, low):
                out.append((low, high))
            continue
        page = low
        while page < high:
            if not is_large(mm, page):
                page += 1
                continue
            head = mm.folio(page)
            whole = int(folio_nr_pages(mm.host.frames.arrays, head))
            batch = int(folio_pte_batch(mm.host.frames.arrays, mm.arrays, page, high, USE_AND_WRITE)[0])
            if batch == whole and not mm.host.rules.advice_splits_whole:
                page += batch
                continue
            if not _maybe_shared(mm, page, free=free) and split_folio(mm, page):
                continue
            # Left whole: earlier kernels end the walk of this block here, later ones step over what is mapped of it.
            if mm.host.rules.advice_splits_whole:
                break
            if low < page:
                out.append((low, page))
            page = low = page + batch
        if low < page:
            out.append((low, page))
    return out


def madvise(mm: Mm, start: int, end: int, advice: Advice) -> str | None:
    """Advise pages *start* to *end* (exclusive), area by area; returns the errno's name where the call fails, else None.

    :raises UsageError: the range is empty or outside the space, or the advice unknown.
    """
    mm.check_range(start, end)
    if advice not in _ADVICE and advice != "collapse":
        raise UsageError(f"no advice is called {advice!r}; there are {', '.join(_ADVICE)}, collapse")
    rules = mm.host.rules
    if advice == "free" and not rules.has_madv_free or advice == "cold" and not rules.has_madv_cold:
        return "EINVAL"
    if advice in ("guard_install", "guard_remove") and not rules.has_guard:
        return "EINVAL"
    if mm.memory is not None and advice == "free":
        # madvise_free_single_vma: anonymous memory alone.
        return "EINVAL"
    for vma, low, high in mm.vmas.within(start, end):
        if vma.flags & VmFlags.LOCKED and advice in ("dontneed", "free", "cold", "guard_install"):
            return "EINVAL"
        if advice == "collapse":
            errno = mm.host.khugepaged.madvise_collapse(mm, vma, low, high)
            if errno:
                return errno
            continue
        _ADVICE[advice](mm, low, high)
        if advice == "hugepage":
            _enter_advised(mm, vma, low)
    return None


def _enter_advised(mm: Mm, before: VmArea, page: int) -> None:
    """khugepaged_enter_vma of MADV_HUGEPAGE: the area as it was *before*, uncut, and for shmem with its old advice; later as it is now, at
    *page*, if the advice changed it (madvise_update_vma returns where the flags are the same)."""
    if not mm.host.rules.advice_enters_late:
        mm.host.khugepaged.enter_vma(
            mm, before if before.shared else replace(before, flags=_huge(before.flags))
        )
    elif _huge(before.flags) != before.flags:
        mm.host.khugepaged.enter_vma(mm, mm.vmas.at(page))


def _huge(flags: VmFlags) -> VmFlags:
    return (flags | VmFlags.HUGEPAGE) & ~VmFlags.NOHUGEPAGE


def _dontneed(mm: Mm, start: int, end: int) -> None:
    unmap(mm, start, end, drops_markers=False)
    if mm.host.rules.dontneed_frees_tables:
        for block in range(-(-start // HPAGE), end // HPAGE):
            # A guard stays, and with it the table (zap_pte_range: any_skipped).
            if not mm.arrays.pte[block * HPAGE : (block + 1) * HPAGE].any():
                mm.arrays.pmd[block] = 0


def _free(mm: Mm, start: int, end: int) -> None:
    """madvise_free_single_vma."""
    host = mm.host
    f = host.frames.reserve(0, 0, 2048)
    lru_add_drain(f, host.r)
    mm.notifiers.invalidate_range(start, end)
    for low, high in ranges_without_large(mm, start, end, free=True):
        _lazyfree(host.frames.arrays, host.r, mm.arrays, low, high)


def _make_cold(mm: Mm, start: int, end: int) -> None:
    """madvise_cold."""
    mm.host.drain()
    for low, high in ranges_without_large(mm, start, end):
        _cold(mm.host.frames.arrays, mm.host.r, mm.arrays, low, high)


def _mergeable(mm: Mm, start: int, end: int) -> None:
    if mm.arrays.n[DROPPABLE]:
        return  # vma_ksm_compatible
    mm.change_areas(start, end, lambda flags: flags | VmFlags.MERGEABLE)


def _unmergeable(mm: Mm, start: int, end: int) -> None:
    from secondsight.mm.ksm import unmerge

    mm.change_areas(start, end, lambda flags: flags & ~VmFlags.MERGEABLE)
    unmerge(mm, start, end)


_ADVICE: dict[str, Callable[[Mm, int, int], None]] = {
    "hugepage": lambda mm, start, end: mm.change_areas(start, end, _huge),
    "nohugepage": lambda mm, start, end: mm.change_areas(
        start, end, lambda flags: (flags | VmFlags.NOHUGEPAGE) & ~VmFlags.HUGEPAGE
    ),
    "dontneed": _dontneed,
    "free": _free,
    "cold": _make_cold,
    "guard_install": guard_install,
    "guard_remove": guard_remove,
    "mergeable": _mergeable,
    "unmergeable": _unmergeable,
}
