"""read(2), write(2), fsync(2) and posix_fadvise(POSIX_FADV_DONTNEED) of a regular file (mm/filemap.c, mm/fadvise.c, mm/truncate.c).

::

    read     each folio is marked accessed once a call; a page that the cache has not is read alone (nobody reads ahead here)
    write    the folios that are there become dirty; between them new ones, each as large as what is left and its index allow
    fsync    all of the file is clean
    drop     what is dirty is written; then each folio that lies wholly inside goes, if nobody maps or holds it

One call is no longer than a block: a folio of two would be larger than a PMD can map. A file opened for a call is closed after it, so
that a call never knows what the one before read.
"""

from __future__ import annotations

from collections.abc import Iterator

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.filemap import ABSENT, make_private
from secondsight.mm.lru import lru_add_drain, mark_page_accessed
from secondsight.mm.page import (
    ACTIVE,
    DIRTY,
    IDLE,
    LRU,
    LRU_REFS,
    PRIVATE,
    REFERENCED,
    UNEVICTABLE,
    folio_mapcount,
    folio_nr_pages,
    head_of,
    put_page,
)
from secondsight.mm.protocols import HostLike, SharedMemoryLike
from secondsight.mm.readahead import add_folio, is_empty, read_folio
from secondsight.mm.writeback import write_and_wait

__all__ = ["calls", "file_drop", "file_read", "file_sync", "file_write"]


def calls(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Pages *start* to *end* as they are read or written: cut where a block ends."""
    while start < end:
        stop = min(end, (start // HPAGE_PMD_NR + 1) * HPAGE_PMD_NR)
        yield start, stop
        start = stop


def file_read(host: HostLike, memory: SharedMemoryLike, start: int, end: int) -> None:
    """filemap_read of the pages at *start* to *end*."""
    f = host.frames.reserve(end - start, 0, 1024)
    at = start
    while at < end:
        if memory.cache[at] == ABSENT:
            read_folio(f, host.r, memory.cache, at, False)
        head, first, pages = _folio(host, memory, at)
        mark_page_accessed(f, host.r, head)
        at = first + pages


def file_write(host: HostLike, memory: SharedMemoryLike, start: int, end: int) -> None:
    """generic_perform_write over the pages at *start* to *end*, whole pages."""
    f = host.frames.reserve(end - start, 1, 1024, 2 * HPAGE_PMD_NR)
    at = start
    while at < end:
        if memory.cache[at] == ABSENT:
            # __filemap_get_folio: fgf_set_order; "If we're not aligned, allocate a smaller folio".
            order = (end - at).bit_length() - 1
            if at & ((1 << order) - 1):
                order = (at & -at).bit_length() - 1
            while not is_empty(memory.cache, at, 1 << order):
                order -= 1
            add_folio(f, host.r, memory.cache, at, order, False)
        head, first, pages = _folio(host, memory, at)
        make_private(f, head)
        f.flags[head] = (f.flags[head] | DIRTY) & ~IDLE
        at = first + pages


def file_sync(host: HostLike, memory: SharedMemoryLike) -> None:
    """fsync."""
    write_and_wait(host, memory, 0, len(memory.cache))


def file_drop(host: HostLike, memory: SharedMemoryLike, start: int, end: int) -> None:
    """POSIX_FADV_DONTNEED of the pages at *start* to *end*: mapping_try_invalidate."""
    write_and_wait(host, memory, start, end)
    f = host.frames.reserve(0, 0, 1024 + end - start)
    lru_add_drain(f, host.r)
    at = start
    while at < end:
        if memory.cache[at] == ABSENT:
            at += 1
            continue
        head, first, pages = _folio(host, memory, at)
        at = first + pages
        # find_lock_entries leaves out what does not lie wholly inside.
        if first < start or at > end:
            continue
        private = int(bool(f.flags[head] & PRIVATE))
        if int(f.refcount[head]) > pages + private:
            _deactivate_file_folio(host, head)
            continue
        f.flags[head] &= ~PRIVATE
        memory.cache[first:at] = ABSENT
        for _ in range(pages + private):
            put_page(f, head)


def _folio(host: HostLike, memory: SharedMemoryLike, index: int) -> tuple[int, int, int]:
    """The folio that the cache has at *index*: its head, its first index, its pages."""
    f, pfn = host.frames.arrays, int(memory.cache[index])
    head = int(head_of(f, pfn))
    return head, index - (pfn - head), int(folio_nr_pages(f, head))


def _deactivate_file_folio(host: HostLike, head: int) -> None:
    """deactivate_file_folio of what is in use: with MGLRU its marks go (lru_gen_clear_refs), else it goes inactive, if nobody maps it."""
    f = host.frames.arrays
    if f.flags[head] & UNEVICTABLE:
        return
    if host.r.mglru:
        f.flags[head] &= ~(REFERENCED | LRU_REFS)
    elif f.flags[head] & LRU and not folio_mapcount(f, head):
        f.flags[head] &= ~(ACTIVE | REFERENCED)
