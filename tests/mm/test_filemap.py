"""How pages of the cache are mapped: fault-around, by PTE or PMD, and what a store makes of a regular file."""

from __future__ import annotations

from secondsight.bits import pte as x86
from secondsight.mm import page as pg
from secondsight.mm.file_io import file_read, file_write
from secondsight.mm.madvise import madvise
from support.model import holds, pages
from support.regular_files import mapped, mapping


def test_the_last_page_of_a_file_is_not_faulted_around_where_no_table_is() -> None:
    host, memory, a = mapping()
    file_read(host, memory, 511, 512)
    a.cpu_access(pages(0, 500), write=False)
    assert mapped(a) == [500]
    a.cpu_access(pages(0, 499), write=False)
    assert mapped(a) == [499, 500, 511], "with a table there it is"
    holds(host)


def test_a_pair_of_pages_is_counted_page_by_page() -> None:
    host, memory, a = mapping()
    file_write(host, memory, 6, 8)
    a.cpu_access(pages(0, 7), write=False)
    head = int(memory.cache[6])
    f = host.frames.arrays
    assert pg.folio_mapcount(f, head) == 2 and f.refcount[head] == 2 + 1 + 2, "cache, buffer heads, two PTEs"
    madvise(a, 0, 512, "dontneed")
    assert pg.folio_mapcount(f, head) == 0
    holds(host)


def test_a_store_to_a_huge_page_maps_it_anew_writable() -> None:
    host, memory, a = mapping(writable=True)
    madvise(a, 0, 512, "hugepage")
    a.cpu_access(pages(0, 3), write=False)
    assert a.arrays.pmd[0] & x86.PSE and not a.arrays.pmd[0] & x86.RW
    a.cpu_access(pages(0, 3), write=True)
    assert a.arrays.pmd[0] & x86.PSE and a.arrays.pmd[0] & x86.RW
    assert host.frames.arrays.flags[int(memory.cache[0])] & pg.DIRTY
    holds(host)


def test_a_private_mapping_that_is_read_only_denies_stores() -> None:
    host, memory, a = mapping()
    a.cpu_access(pages(0, 3), write=True)
    assert a.denied == 1 and not memory.cache.any() and not memory.open_for_write
    holds(host)
