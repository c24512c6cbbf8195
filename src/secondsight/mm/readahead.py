"""Reading a regular file into the page cache (mm/readahead.c), as a fault in an area that is to be huge forces it; else a page at a time.

::

    read_folio         one page, where it is asked for: nobody reads ahead (the device's read_ahead_kb is 0)
    forced_readahead   VM_HUGEPAGE: the block of the fault and the next, up to the file's end, each as one huge folio
                         a block that has some page already ends that: all else that is missing comes as small pages

In compiled functions *f* is the frames (``page.FrameArrays``) and *r* the rules and the host's set-up (``compiled.R``).
"""

from __future__ import annotations

from secondsight.geometry import PMD_ORDER
from secondsight.mm.lru import folio_add_lru
from secondsight.mm.page import HPAGE, UPTODATE, alloc_folio, alloc_page
from secondsight.native import native


@native
def add_folio(f, r, cache, index, order, in_fault):  # type: ignore[no-untyped-def]
    """filemap_add_folio of a new folio of *order* at *index*, up to date and clean, held by the cache alone; its head."""
    head = alloc_folio(f, order) if order else alloc_page(f)
    f.flags[head] |= UPTODATE
    f.refcount[head] = 1 << order
    for i in range(1 << order):
        cache[index + i] = head + i
    folio_add_lru(f, r, head, in_fault)
    return head


@native
def read_folio(f, r, cache, index, in_fault):  # type: ignore[no-untyped-def]
    """The page at *index*, which the cache has not, alone."""
    add_folio(f, r, cache, index, 0, in_fault)


@native
def is_empty(cache, first, pages):  # type: ignore[no-untyped-def]
    """Has the cache none of the *pages* pages from *first* on?"""
    here = 0
    for index in range(first, first + pages):
        here += cache[index] != 0
    return here == 0


@native
def forced_readahead(f, r, cache, index):  # type: ignore[no-untyped-def]
    """page_cache_ra_order of two folios of the PMD's order from the block of *index* on, which is absent.

    A file is whole blocks long. The window ends where the file does, so that no page is marked for the next readahead: files of more
    than two blocks are not known here.
    """
    at = (index >> PMD_ORDER) << PMD_ORDER
    end = min(at + 2 * HPAGE, len(cache))
    while at < end and is_empty(cache, at, HPAGE):
        add_folio(f, r, cache, at, PMD_ORDER, True)
        at += HPAGE
    # do_page_cache_ra
    for i in range(at, end):
        if cache[i] == 0:
            read_folio(f, r, cache, i, True)
