"""The page cache of shared memory, as faults and unmapping see it (mm/filemap.c, mm/memory.c do_fault, mm/shmem.c).

::

    the cache, an entry a page      0 absent    > 0 the page's pfn, of a folio that the cache holds one reference a page to
                                    < 0 in swap: -1 - 2 * order - (1 if it was much used when it went, PG_workingset)

    read fault   map what the cache has in the window of 16 pages round the fault (do_fault_around); nothing there: as a write
    write fault  the cache's page, or one from swap, or a new one: small, or huge where shmem's switch says so and the block is empty
    either way   a huge page is mapped by a PMD where there is no page table yet and the area holds it all; else by PTEs

A PTE of shared memory is as writable as its area from the first; nothing is copied, and no zero page is mapped. Unmapping a young
entry marks its page accessed, which anonymous memory's unmapping does not.

A regular file's PTE is read-only until somebody writes: the page becomes dirty then, and gets buffer heads (page_mkwrite). A page that
the cache has not is read alone, or, where the area is advised to be huge, with its block and the next (``readahead``).

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

import numpy as np

from secondsight.bits.pte import ACCESSED, DIRTY, MAPPED, PSE, RW, TABLE
from secondsight.geometry import PMD_ORDER
from secondsight.mm import page as pg
from secondsight.mm.internal import USE, folio_pte_batch
from secondsight.mm.lru import folio_add_lru, mark_page_accessed
from secondsight.mm.page import (
    HEAD,
    HPAGE,
    PRIVATE,
    REFERENCED,
    SWAPBACKED,
    UPTODATE,
    WORKINGSET,
    alloc_folio,
    alloc_page,
    folio_nr_pages,
    head_of,
    is_huge,
    map_pmd,
    map_pte,
    put_page,
    unmap_pmd,
    unmap_pte,
)
from secondsight.mm.pgtable import (
    FAULTS,
    FILE_FIRST,
    HUGE_FAULTS,
    NOWAIT,
    PFN_SHIFT,
    PROT,
    V_ADVISED,
    V_MIXED,
    V_NEVER_HUGE,
    V_START,
    V_WRITE,
    pfn_of,
    vma_bits,
)
from secondsight.mm.readahead import forced_readahead, is_empty, read_folio
from secondsight.native import inlined, native

ABSENT = 0
#: fault_around_bytes, in pages.
AROUND = 16
NEW_SHMEM = SWAPBACKED | UPTODATE


@native
def _prot(m, bits, write):  # type: ignore[no-untyped-def]
    """The bits of a new entry: vm_page_prot, which lets nobody write to a regular file unseen (vma_wants_writenotify)."""
    return PROT | RW if bits & V_WRITE and (write or not len(m.file)) else PROT


@native
def page_mkwrite(f, m, head):  # type: ignore[no-untyped-def]
    """ext4_page_mkwrite, fault_dirty_shared_page: the folio at *head* is dirty; a regular file's has buffer heads from now on."""
    f.flags[head] |= pg.DIRTY
    if len(m.file):
        make_private(f, head)


@native
def make_private(f, head):  # type: ignore[no-untyped-def]
    """create_empty_buffers: folio_attach_private, if they are not there yet."""
    if not f.flags[head] & PRIVATE:
        f.flags[head] |= PRIVATE
        f.refcount[head] += 1


@native
def add_large(f, r, cache, first, order, in_fault):  # type: ignore[no-untyped-def]
    """A new folio of *order* for the empty range of *cache* that starts at index *first*; returns its head, held by the cache alone."""
    head = alloc_folio(f, order)
    f.flags[head] |= NEW_SHMEM if in_fault else NEW_SHMEM | pg.DIRTY
    f.refcount[head] = 1 << order
    for i in range(1 << order):
        cache[first + i] = head + i
    folio_add_lru(f, r, head, in_fault)
    return head


@inlined
def swap_entry(order, much_used):  # type: ignore[no-untyped-def]
    """The cache's entry for each page of a folio of *order* that went to swap."""
    return -1 - 2 * order - much_used


@inlined
def swap_order(entry):  # type: ignore[no-untyped-def]
    """xas_get_order of a swap entry."""
    return (-1 - entry) >> 1


@native
def swap_in_shared(f, r, cache, index, in_fault):  # type: ignore[no-untyped-def]
    """shmem_swapin_folio of the entry at *index*: its folio, on its way to the LRU, held by the cache alone; returns the page's pfn.

    What went as one comes back as one, or else (6.12) its entry falls into small ones first (shmem_split_large_entry).
    """
    order = swap_order(cache[index])
    much_used = (-1 - cache[index]) & 1
    first = (index >> order) << order
    if order and not r.shmem_swapin_large:
        for i in range(first, first + (1 << order)):
            cache[i] = swap_entry(0, much_used)
        order, first = 0, index
    pfn = np.int64(alloc_folio(f, order) if order else alloc_page(f))
    f.flags[pfn] |= NEW_SHMEM | pg.DIRTY
    f.refcount[pfn] = 1 << order
    if r.refault_activates and not r.mglru:
        # workingset_refault: a reclaimed page's shadow is always recent here.
        f.flags[pfn] |= pg.ACTIVE
    if r.mglru and much_used:
        f.flags[pfn] |= WORKINGSET
    for i in range(1 << order):
        cache[first + i] = pfn + i
    folio_add_lru(f, r, pfn, in_fault)
    return pfn + index - first


@native
def _suitable_order(r, m, page, orders):  # type: ignore[no-untyped-def]
    """shmem_suitable_orders: the largest of *orders* (a mask) whose folio round *page* fits into the area and is all absent; 0: none."""
    for order in range(PMD_ORDER, 0, -1):
        if not orders >> order & 1:
            continue
        first = (page >> order) << order
        inside = True
        if r.shmem_fits_area and m.vma[page >> PMD_ORDER] & V_MIXED:
            for at in range(first + 1, first + (1 << order)):
                inside = inside and not m.vma_page[at] & V_START
        if inside and is_empty(m.cache, first, 1 << order):
            return np.int64(order)
    return np.int64(0)


@native
def _shmem_get(f, r, m, page):  # type: ignore[no-untyped-def]
    """shmem_get_folio_gfp (SGP_CACHE) of a fault at *page*: its pfn, held by the cache alone."""
    entry = m.cache[page]
    if entry > 0:
        return entry
    if entry != ABSENT:
        return swap_in_shared(f, r, m.cache, page, True)
    bits = vma_bits(m, page)
    orders = r.shmem_advised if bits & V_ADVISED else r.shmem_plain
    order = np.int64(0) if bits & V_NEVER_HUGE else _suitable_order(r, m, page, orders)
    if order:
        m.n[HUGE_FAULTS] += order == PMD_ORDER
        first = (page >> order) << order
        return add_large(f, r, m.cache, first, order, True) + page - first
    pfn = alloc_page(f)
    f.flags[pfn] = NEW_SHMEM
    m.cache[page] = pfn
    folio_add_lru(f, r, pfn, True)
    return pfn


@native
def _filemap_get(f, r, m, page):  # type: ignore[no-untyped-def]
    """filemap_fault at *page* of a regular file that the cache has not: read alone, or by force (do_sync_mmap_readahead; nobody reads
    ahead here else). True: by force, and the fault begins anew, as one does that may let go of the mmap lock (maybe_unlock_mmap_for_io)."""
    index = m.n[FILE_FIRST] + page
    if vma_bits(m, page) & V_ADVISED:
        forced_readahead(f, r, m.file, index)
        return m.n[NOWAIT] == 0
    read_folio(f, r, m.file, index, True)
    return False


@native
def set_pmd(f, r, m, block, head, write):  # type: ignore[no-untyped-def]
    """do_set_pmd: map the huge folio at *head* by a PMD, where there is no page table and the area allows it; False: it does not."""
    bits = m.vma[block]
    if m.pmd[block] != 0 or bits & V_MIXED or (r.set_pmd_asks_advice and bits & V_NEVER_HUGE):
        return False
    map_pmd(f, head)
    m.pmd[block] = (np.uint64(head) << PFN_SHIFT) | _prot(m, bits, write) | PSE
    if write:
        m.pmd[block] |= DIRTY
    return True


@native
def _set_ptes(f, r, m, first, end, pfn, prot):  # type: ignore[no-untyped-def]
    """set_pte_range where no entry is: the pages *first* to *end* map the frames from *pfn* on."""
    if r.fault_maps_dirty and prot & RW and f.flags[head_of(f, pfn)] & pg.DIRTY:
        prot |= DIRTY
    for page in range(first, end):
        if m.pte[page] == 0:
            map_pte(f, pfn + page - first)
            m.pte[page] = (np.uint64(pfn + page - first) << PFN_SHIFT) | prot


@native
def _fault_around(f, r, m, page):  # type: ignore[no-untyped-def]
    """do_fault_around, filemap_map_pages: map the present pages of the window; is *page* mapped now?

    The window does not leave the area, nor the block; it is 16 pages from where it begins, be that the area's begin. Swapped and absent
    pages are passed over.
    """
    block = page >> PMD_ORDER
    first = page & ~(AROUND - 1)
    if m.vma[block] & V_MIXED:
        for at in range(page, first, -1):
            if m.vma_page[at] & V_START:
                first = at
                break
    last = min(first + AROUND, (block + 1) * HPAGE) - 1
    if m.vma[block] & V_MIXED:
        for at in range(page + 1, last + 1):
            if m.vma_page[at] & V_START:
                last = at - 1
                break
    prot = _prot(m, vma_bits(m, page), False)
    at = first
    # filemap_map_pages counts a regular file's last page as beyond its end.
    end = len(m.file) - m.n[FILE_FIRST] if len(m.file) else np.int64(-1)
    while at <= last:
        pfn = m.cache[at]
        if pfn <= 0:
            at += 1
            continue
        head = head_of(f, pfn)
        start = at - (pfn - head)
        is_last = start + folio_nr_pages(f, head) == end
        if m.pmd[block] == 0:
            if is_last:
                return False
            if is_huge(f, head) and set_pmd(f, r, m, block, head, 0):
                return True
            m.pmd[block] = TABLE
        if f.flags[head] & HEAD and r.around_maps_folio and not m.vma[block] & V_MIXED and not is_last:
            _set_ptes(f, r, m, start, start + folio_nr_pages(f, head), head, prot)
            at = start + folio_nr_pages(f, head)
        else:
            _set_ptes(f, r, m, at, at + 1, pfn, prot)
            at += 1
    return m.pmd[block] != 0 and m.pte[page] != 0


@native
def shared_fault(f, r, m, page, write):  # type: ignore[no-untyped-def]
    """do_fault of a shared mapping, at *page*, where nothing is mapped: do_read_fault, or (*write*) do_shared_fault."""
    m.n[FAULTS] += 1
    if not write and _fault_around(f, r, m, page):
        return
    if len(m.file):
        if (
            m.cache[page] == ABSENT
            and _filemap_get(f, r, m, page)
            and not write
            and _fault_around(f, r, m, page)
        ):
            return
        pfn = np.int64(m.cache[page])
    else:
        pfn = np.int64(_shmem_get(f, r, m, page))
    block = page >> PMD_ORDER
    head = np.int64(head_of(f, pfn))
    if write:
        page_mkwrite(f, m, head)
    if m.pmd[block] == 0:
        if is_huge(f, head) and set_pmd(f, r, m, block, head, write):
            return
        m.pmd[block] = TABLE
    prot = _prot(m, vma_bits(m, page), write)
    if write:
        prot |= DIRTY
    if f.flags[head] & HEAD and r.fault_maps_folio and not m.vma[block] & V_MIXED:
        # finish_fault: all of the folio, unless an entry is there already; then the page alone.
        start = page - (pfn - head)
        free = True
        for at in range(start, start + folio_nr_pages(f, head)):
            free = free and m.pte[at] == 0
        if free:
            _set_ptes(f, r, m, start, start + folio_nr_pages(f, head), head, prot)
            return
    _set_ptes(f, r, m, page, page + 1, pfn, prot)


@native
def zap_shared(f, r, m, start, end):  # type: ignore[no-untyped-def]
    """zap_pte_range, zap_huge_pmd of a shared mapping's pages *start* to *end*; a huge PMD lies wholly inside. Page tables stay."""
    page = start
    while page < end:
        block = page >> PMD_ORDER
        pmd = m.pmd[block]
        if pmd & PSE:
            head = pfn_of(pmd)
            if pmd & DIRTY:
                f.flags[head] |= pg.DIRTY
            if r.zap_pmd_marks and pmd & ACCESSED:
                mark_page_accessed(f, r, head)
            m.pmd[block] = 0
            unmap_pmd(f, head)
            page = (block + 1) * HPAGE
            continue
        entry = m.pte[page] if pmd else np.uint64(0)
        if not entry & MAPPED:
            page += 1
            continue
        pfn = pfn_of(entry)
        count, used = 1, entry
        if r.zap_batches:
            count, used = folio_pte_batch(f, m, page, end, USE)
        if used & DIRTY:
            f.flags[head_of(f, pfn)] |= pg.DIRTY
        if used & ACCESSED:
            mark_page_accessed(f, r, pfn)
        for i in range(count):
            m.pte[page + i] = 0
            unmap_pte(f, pfn + i)
        page += count


@native
def split_shared_pmd(f, m, block):  # type: ignore[no-untyped-def]
    """__split_huge_pmd_locked of a file's page: it is unmapped, for the next fault to map again as it finds fit."""
    head = pfn_of(m.pmd[block])
    if m.pmd[block] & DIRTY:
        f.flags[head] |= pg.DIRTY
    if m.pmd[block] & ACCESSED:
        f.flags[head] |= REFERENCED
    m.pmd[block] = 0
    unmap_pmd(f, head)


@native
def drop_cache(f, cache):  # type: ignore[no-untyped-def]
    """shmem_evict_inode: the cache lets go of every page."""
    for index in range(len(cache)):
        if cache[index] > 0:
            put_page(f, cache[index])
        cache[index] = ABSENT
