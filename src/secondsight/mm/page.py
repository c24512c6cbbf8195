"""Page frames: the columns of ``struct page``, their allocation, and the references that keep them.

    pfn   flags (KPF layout)   refcount   mapcount        a large folio of 4 to 512 pages:
    ----  -------------------  ---------  --------        head    its flags, refcount; mapcount of subpage 0
    0     the zero page        1          0               head+1  refcount column holds the PMD mappings (entire_mapcount)
    512.. the huge zero page                              head+2  refcount column holds the sum of all PTE mappings
    1024.. everything else                                tail    COMPOUND_TAIL | THP; mapcount of that subpage

Twelve bytes a page. The head and the tails of a large folio carry its order in the flag bits ``ORDER`` (7 to 10: slab, writeback,
reclaim and buddy, which no page here ever is); it starts at a pfn that is a multiple of its pages, so its head is found by a mask.
Anonymous memory has no folio of order 1 (THP_ORDERS_ALL_ANON); a file's has no head+2, and its pages' counts are added. ``mapcount``
counts mappings from zero (the kernel's ``_mapcount`` counts from -1). A page whose refcount falls to zero is
freed at once and its pfn used again. The kernel's own assertions (VM_BUG_ON_PAGE in include/linux/mm.h) are
:func:`check` here.

In compiled functions *f* is the frames (:class:`FrameArrays`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.native import allocating, inlined, native

ZERO_PFN = 0
HPAGE = HPAGE_PMD_NR
HUGE_ZERO_PFN = HPAGE
FIRST_PFN = 2 * HPAGE

# Indices into FrameArrays.n
N_ADD, N_ACTIVATE, NEXT, N_FREE, N_MLOCK, ALLOCATED, FREED, N_LARGE = range(8)
#: N_LARGE + order: how many free folios of that order there are.
COUNTERS = N_LARGE + PMD_ORDER + 2
#: Has there ever been a folio of an order between 0 and the PMD's?
PARTED = N_LARGE + PMD_ORDER + 1
N_HFREE = N_LARGE + PMD_ORDER
BATCH_ADD, BATCH_ACTIVATE, BATCH_MLOCK = 0, 1, 2
#: The largest folio_batch of any kernel here (FOLIO_BATCH_SIZE, 31).
BATCH_MAX = 32

LOCKED, REFERENCED, LRU, ACTIVE = kpf.LOCKED, kpf.REFERENCED, kpf.LRU, kpf.ACTIVE
ANON, SWAPCACHE, SWAPBACKED, KSM = kpf.ANON, kpf.SWAPCACHE, kpf.SWAPBACKED, kpf.KSM
HEAD, TAIL, THP = kpf.COMPOUND_HEAD, kpf.COMPOUND_TAIL, kpf.THP
UNEVICTABLE, MLOCKED, IDLE, YOUNG = kpf.UNEVICTABLE, kpf.MLOCKED, kpf.IDLE, kpf.YOUNG
ZERO_PAGE, ZERO_FILLED, UPTODATE, MMAP = kpf.ZERO_PAGE, kpf.ZERO_FILLED, kpf.UPTODATE, kpf.MMAP
EXCLUSIVE, DIRTY = kpf.EXCLUSIVE, kpf.DIRTY
#: Where a large folio's order stands in the flags of its head and tails.
ORDER_SHIFT = np.uint32(7)
ORDER = np.uint32(15) << ORDER_SHIFT
_PMD_ORDER_BITS = np.uint32(PMD_ORDER) << ORDER_SHIFT
#: How often MGLRU has seen the folio marked beyond PG_referenced, and PG_workingset: in the bits of poison, no page and page table,
#: which no page here ever is.
LRU_REFS_SHIFT = np.uint32(19)
LRU_REFS = np.uint32(3) << LRU_REFS_SHIFT
WORKINGSET = kpf.PGTABLE
#: The folio has buffer heads, which hold a reference (PG_private): in the bit of hugetlb, which no page here ever is.
PRIVATE = kpf.HUGE
#: What a frame's flags hold that /proc/kpageflags does not.
OWN_BITS = ORDER | LRU_REFS | WORKINGSET | PRIVATE
NEW_ANON = ANON | SWAPBACKED | UPTODATE | MMAP | EXCLUSIVE


class FrameArrays(NamedTuple):
    """The columns, as compiled code takes them.

    flags uint32[cap]; refcount, mapcount int32[cap]; free int32[...] the stack of free small pages; large int32[orders, ...] for each
    order the stack of the free folios' heads; batch int32[3, BATCH_MAX] the per-CPU ``lru_add``, ``lru_activate`` and
    ``mlock`` batches (the last: pfn * 4 + what is to be done); n int64[COUNTERS] the counters above; mlocks int32[cap] what a small page on
    the unevictable list counts (``mlock_count``, 5.18), or empty as long as nothing was mlocked.
    """

    flags: npt.NDArray[np.uint32]
    refcount: npt.NDArray[np.int32]
    mapcount: npt.NDArray[np.int32]
    free: npt.NDArray[np.int32]
    large: npt.NDArray[np.int32]
    batch: npt.NDArray[np.int32]
    n: npt.NDArray[np.int64]
    mlocks: npt.NDArray[np.int32]


@inlined
def folio_order(f, pfn):  # type: ignore[no-untyped-def]
    """folio_order of the folio that *pfn*, a head, a tail or a small page, belongs to."""
    return np.int64((f.flags[pfn] & ORDER) >> ORDER_SHIFT)


@inlined
def folio_nr_pages(f, pfn):  # type: ignore[no-untyped-def]
    """folio_nr_pages of the folio that *pfn* belongs to."""
    return np.int64(1) << np.int64((f.flags[pfn] & ORDER) >> ORDER_SHIFT)


@inlined
def head_of(f, pfn):  # type: ignore[no-untyped-def]
    """compound_head: the pfn that holds the folio's flags and refcount."""
    if f.flags[pfn] & TAIL:
        return (pfn >> np.int64((f.flags[pfn] & ORDER) >> ORDER_SHIFT)) << np.int64(
            (f.flags[pfn] & ORDER) >> ORDER_SHIFT
        )
    return pfn


@inlined
def is_huge(f, head):  # type: ignore[no-untyped-def]
    """folio_test_pmd_mappable: is the folio at *head* one that a PMD can map?"""
    return (f.flags[head] & ORDER) == np.uint32(PMD_ORDER) << ORDER_SHIFT


def heads_of(flags: npt.NDArray[np.uint32], pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """compound_head of many *pfns* int64[n], whose own flags are *flags* uint32[n]."""
    order = np.where((flags & TAIL) != 0, (flags & ORDER) >> ORDER_SHIFT, 0).astype(np.int64)
    return np.asarray((pfns >> order) << order)


@native
def alloc_page(f):  # type: ignore[no-untyped-def]
    """A free small frame, refcount 1, no flags. The caller has reserved room (:meth:`Frames.reserve`)."""
    if f.n[N_FREE] > 0:
        f.n[N_FREE] -= 1
        pfn = np.int64(f.free[f.n[N_FREE]])
    else:
        pfn = f.n[NEXT]
        f.n[NEXT] += 1
    f.flags[pfn] = 0
    f.refcount[pfn] = 1
    f.mapcount[pfn] = 0
    f.n[ALLOCATED] += 1
    return pfn


@native
def alloc_folio(f, order):  # type: ignore[no-untyped-def]
    """A free folio of *order*, 1 or more (its head's pfn): flags of head and tails set, refcount 1, unmapped."""
    pages = np.int64(1) << order
    at = N_LARGE + order
    if f.n[at] > 0:
        f.n[at] -= 1
        head = np.int64(f.large[order, f.n[at]])
    else:
        head = (f.n[NEXT] + pages - 1) & ~(pages - 1)
        for pfn in range(f.n[NEXT], head):
            f.free[f.n[N_FREE]] = pfn
            f.n[N_FREE] += 1
        f.n[NEXT] = head + pages
    bits = np.uint32(order) << ORDER_SHIFT
    for pfn in range(head, head + pages):
        f.flags[pfn] = TAIL | THP | bits
        f.refcount[pfn] = 0
        f.mapcount[pfn] = 0
    f.flags[head] = HEAD | THP | bits
    f.refcount[head] = 1
    f.n[ALLOCATED] += pages
    if order < PMD_ORDER:
        f.n[PARTED] = 1
    return head


@native
def alloc_huge(f):  # type: ignore[no-untyped-def]
    """A free folio that a PMD can map."""
    return alloc_folio(f, PMD_ORDER)


@native
def put_page(f, pfn):  # type: ignore[no-untyped-def]
    """folio_put: drop one reference; the last one frees the folio."""
    head = head_of(f, pfn)
    f.refcount[head] -= 1
    if f.refcount[head] == 0:
        if f.flags[head] & HEAD:
            order = folio_order(f, head)
            pages = np.int64(1) << order
            f.large[order, f.n[N_LARGE + order]] = head
            f.n[N_LARGE + order] += 1
            for i in range(head, head + pages):
                f.flags[i] = 0
                f.refcount[i] = 0
            f.n[FREED] += pages
        else:
            f.flags[head] = 0
            f.free[f.n[N_FREE]] = head
            f.n[N_FREE] += 1
            f.n[FREED] += 1


@native
def folio_mapcount(f, head):  # type: ignore[no-untyped-def]
    """Every mapping of the folio, PMD mappings and PTE mappings of all its pages (total_mapcount)."""
    if f.flags[head] & HEAD:
        if folio_order(f, head) == 1:
            return np.int64(f.mapcount[head]) + np.int64(f.mapcount[head + 1])
        return np.int64(f.refcount[head + 1]) + np.int64(f.refcount[head + 2])
    return np.int64(f.mapcount[head])


@native
def map_pte(f, pfn):  # type: ignore[no-untyped-def]
    """One more PTE maps *pfn*: mapcount and reference."""
    head = head_of(f, pfn)
    f.mapcount[pfn] += 1
    f.refcount[head] += 1
    if f.flags[head] & HEAD and folio_order(f, head) > 1:
        f.refcount[head + 2] += 1


@native
def unmap_pte(f, pfn):  # type: ignore[no-untyped-def]
    """A PTE no longer maps *pfn* (page_remove_rmap and put_page)."""
    head = head_of(f, pfn)
    f.mapcount[pfn] -= 1
    if f.flags[head] & HEAD and folio_order(f, head) > 1:
        f.refcount[head + 2] -= 1
    put_page(f, pfn)


@native
def map_pmd(f, head):  # type: ignore[no-untyped-def]
    """A PMD maps the whole folio."""
    f.refcount[head + 1] += 1
    f.refcount[head] += 1


@native
def unmap_pmd(f, head):  # type: ignore[no-untyped-def]
    """A PMD no longer maps the folio."""
    f.refcount[head + 1] -= 1
    put_page(f, head)


@allocating
def _merge_free(f):  # type: ignore[no-untyped-def]
    """Aligned groups of 512 free small pages move to the stack of free huge folios, which has room for them."""
    group = np.zeros((len(f.flags) >> PMD_ORDER) + 1, np.int32)
    for i in range(f.n[N_FREE]):
        group[f.free[i] >> PMD_ORDER] += 1
    kept = 0
    for i in range(f.n[N_FREE]):
        pfn = f.free[i]
        if group[pfn >> PMD_ORDER] < HPAGE:
            f.free[kept] = pfn
            kept += 1
    f.n[N_FREE] = kept
    for g in range(len(group)):
        if group[g] == HPAGE:
            f.large[PMD_ORDER, f.n[N_HFREE]] = g << PMD_ORDER
            f.n[N_HFREE] += 1


class Frames:
    """All page frames of a host. ``arrays`` is replaced when it grows: take it anew after :meth:`reserve`."""

    def __init__(self, capacity: int = 4096) -> None:
        """*capacity*: frames to begin with; it grows by doubling."""
        capacity = max(capacity, FIRST_PFN + HPAGE)
        self._apart = 0
        self.arrays = FrameArrays(
            flags=np.zeros(capacity, np.uint32),
            refcount=np.zeros(capacity, np.int32),
            mapcount=np.zeros(capacity, np.int32),
            free=np.zeros(4 * HPAGE, np.int32),
            large=np.zeros((PMD_ORDER + 1, 16), np.int32),
            batch=np.zeros((3, BATCH_MAX), np.int32),
            n=np.zeros(COUNTERS, np.int64),
            mlocks=np.zeros(0, np.int32),
        )
        a = self.arrays
        a.n[NEXT] = FIRST_PFN
        a.flags[ZERO_PFN] = ZERO_PAGE | ZERO_FILLED
        a.refcount[ZERO_PFN] = 1
        a.flags[HUGE_ZERO_PFN : HUGE_ZERO_PFN + HPAGE] = (
            ZERO_PAGE | ZERO_FILLED | THP | TAIL | _PMD_ORDER_BITS
        )
        a.flags[HUGE_ZERO_PFN] = ZERO_PAGE | ZERO_FILLED | THP | HEAD | _PMD_ORDER_BITS
        a.refcount[HUGE_ZERO_PFN] = 1

    def reserve(self, small: int, huge: int = 0, frees: int = 0, parts: int = 0) -> FrameArrays:
        """Make room for *small* pages and *huge* folios to be allocated, *parts* more pages in large folios of any order below the
        PMD's, and *frees* more to be freed; returns the arrays."""
        a = self.arrays
        if huge > int(a.n[N_HFREE]) and int(a.n[N_FREE]) - self._apart >= max(8 * HPAGE, len(a.flags) // 16):
            a = self._merge()
        fresh_small = max(0, small - int(a.n[N_FREE]))
        fresh_huge = max(0, huge - int(a.n[N_HFREE]))
        # A folio begins at a multiple of its size: what is left out before it is less than itself.
        need = int(a.n[NEXT]) + fresh_small + (fresh_huge + 1) * HPAGE + 2 * parts
        if need > len(a.flags):
            # By half while that is little, then by an eighth: the frames are a third of what a page costs.
            size = max(need, len(a.flags) + len(a.flags) // (2 if len(a.flags) < 1 << 20 else 8))
            a = a._replace(
                flags=_grown(a.flags, size),
                refcount=_grown(a.refcount, size),
                mapcount=_grown(a.mapcount, size),
                mlocks=_grown(a.mlocks, size) if len(a.mlocks) else a.mlocks,
            )
        stack = int(a.n[N_FREE]) + (fresh_huge + 1) * HPAGE + parts + frees
        if stack > len(a.free):
            a = a._replace(free=_grown(a.free, max(stack, 2 * len(a.free))))
        self.arrays = self._room_for_heads(a, frees // HPAGE, frees // 4 if self._parted(a, parts) else 0)
        return self.arrays

    def count_mlocks(self) -> None:
        """From now on what is mlocked is counted: nothing was yet."""
        if not len(self.arrays.mlocks):
            self.arrays = self.arrays._replace(mlocks=np.zeros(len(self.arrays.flags), np.int32))

    @staticmethod
    def _parted(a: FrameArrays, parts: int) -> bool:
        """Are there folios of orders between a page and the PMD, or will there be?"""
        return parts > 0 or a.n[PARTED] > 0

    @staticmethod
    def _room_for_heads(a: FrameArrays, huge: int, parts: int) -> FrameArrays:
        """*a* whose stacks of free folios take *huge* more huge ones and *parts* more of any other order."""
        most = max(int(a.n[N_HFREE]) + huge, int(a.n[N_LARGE:N_HFREE].max()) + parts) + 16
        if most <= a.large.shape[1]:
            return a
        grown = np.zeros((a.large.shape[0], max(most, 2 * a.large.shape[1])), np.int32)
        grown[:, : a.large.shape[1]] = a.large
        return a._replace(large=grown)

    def _merge(self) -> FrameArrays:
        """Free small pages become free huge folios where they lie together, as the buddy allocator's do: collapsing frees them so."""
        a = self._room_for_heads(self.arrays, int(self.arrays.n[N_FREE]) // HPAGE, 0)
        _merge_free(a)
        # Asked again when enough others are free.
        self._apart = int(a.n[N_FREE])
        return a

    def take(self, other: Frames) -> None:
        """Become what *other* is, frame by frame."""
        self.arrays = FrameArrays._make(column.copy() for column in other.arrays)
        self._apart = other._apart

    @property
    def in_use(self) -> int:
        """Pages allocated and not freed (small pages, and those of large folios)."""
        return int(self.arrays.n[ALLOCATED] - self.arrays.n[FREED])


def _grown(array: npt.NDArray, size: int) -> npt.NDArray:  # type: ignore[type-arg]
    """*array* with zeros behind it, *size* long."""
    out = np.zeros(size, array.dtype)
    out[: len(array)] = array
    return out


def check(frames: Frames) -> None:
    """The kernel's own assertions about every frame.

    :raises AssertionError: one does not hold; it names the pfn and the rule.
    """
    a = frames.arrays
    top = int(a.n[NEXT])
    flags, ref, mapc = a.flags[:top], a.refcount[:top], a.mapcount[:top]
    heads = (flags & HEAD) != 0
    tails = (flags & TAIL) != 0
    plain = ~heads & ~tails
    order = ((flags & ORDER) >> ORDER_SHIFT).astype(np.int64)
    rules = {
        "refcount below zero": plain & (ref < 0),
        "mapcount below zero": mapc < 0,
        "mapped with too few references": plain & (flags != 0) & (ref < mapc) & ((flags & ZERO_PAGE) == 0),
        "active and unevictable (VM_BUG_ON_FOLIO in folio_add_lru)": (flags & (ACTIVE | UNEVICTABLE))
        == (ACTIVE | UNEVICTABLE),
        "head not aligned": heads & ((np.arange(top) & ((1 << order) - 1)) != 0),
        "large without an order": (heads | tails) & (order < 1),
        "small with an order": plain & (order != 0),
        "both head and tail": heads & tails,
        "KSM page not anonymous": ((flags & KSM) != 0) & ((flags & ANON) == 0),
        "free but on the LRU": plain & (ref == 0) & ((flags & LRU) != 0),
    }
    for rule, broken in rules.items():
        at = np.flatnonzero(broken)
        if len(at):
            raise AssertionError(
                f"pfn {at[0]}: {rule} (flags {flags[at[0]]:#x}, refcount {ref[at[0]]}, mapcount {mapc[at[0]]})"
            )
