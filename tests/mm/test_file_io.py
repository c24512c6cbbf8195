"""Regular files: what reading, writing and faulting bring into the page cache, what writeback and fadvise make of it, and every count."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.errors import UsageError
from secondsight.mm import page as pg
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.file_io import calls, file_drop, file_read, file_sync, file_write
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mmu.kvm import Kvm
from support.model import holds, pages


def mapping(blocks: int = 1, *, writable: bool = False, **config: object):
    """A host with one process that maps all of one file."""
    host = Host("7.3", HostConfig(**config))
    memory = host.regular_file("data", blocks)
    return host, memory, host.shared_mm("a", blocks, memory, writable=writable)


def orders(host, memory) -> list[int]:
    """The order of each folio in the cache, in order of index."""
    f, out, index = host.frames.arrays, [], 0
    while index < len(memory.cache):
        pfn = int(memory.cache[index])
        if pfn:
            out.append(int(pg.folio_order(f, pfn)))
        index += 1 << out[-1] if pfn else 1
    return out


def mapped(mm) -> list[int]:
    return np.flatnonzero((mm.arrays.pte & x86.PRESENT) != 0).tolist()


def test_a_kernel_that_collapses_no_file_and_one_that_is_too_long_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^6\.12: regular files are modelled from 7\.2 on.*READ_ONLY_THP"):
        Host("6.12").regular_file("data", 1)
    with pytest.raises(UsageError, match="at most two"):
        Host("7.3").regular_file("data", 3)


def test_a_call_ends_where_a_block_does() -> None:
    assert list(calls(500, 1100)) == [(500, 512), (512, 1024), (1024, 1100)]


def test_a_fault_reads_one_page_and_maps_what_is_there_round_it() -> None:
    host, memory, a = mapping()
    file_read(host, memory, 0, 4)
    a.cpu_access(pages(0, 9), write=False)
    assert mapped(a) == [0, 1, 2, 3, 9] and not a.arrays.pte[1] & x86.RW
    assert orders(host, memory) == [0] * 5
    a.cpu_access(pages(0, 20), write=False)
    assert mapped(a) == [0, 1, 2, 3, 9, 20] and orders(host, memory) == [0] * 6, "read alone"
    holds(host)


def test_the_last_page_of_a_file_is_not_faulted_around_where_no_table_is() -> None:
    host, memory, a = mapping()
    file_read(host, memory, 511, 512)
    a.cpu_access(pages(0, 500), write=False)
    assert mapped(a) == [500]
    a.cpu_access(pages(0, 499), write=False)
    assert mapped(a) == [499, 500, 511], "with a table there it is"
    holds(host)


def test_advice_reads_two_blocks_huge_or_what_is_missing_of_them() -> None:
    host, memory, a = mapping(2)
    madvise(a, 0, 1024, "hugepage")
    a.cpu_access(pages(0, 5), write=False)
    assert orders(host, memory) == [9, 9]
    assert a.arrays.pmd[0] & x86.PSE and not a.arrays.pmd[1]
    # The second block ends the file: no fault-around there, the slow path maps the PMD.
    a.cpu_access(pages(1, 5), write=False)
    assert a.arrays.pmd[1] & x86.PSE
    holds(host)
    host, memory, a = mapping(2)
    file_read(host, memory, 600, 601)
    madvise(a, 0, 1024, "hugepage")
    a.cpu_access(pages(0, 5), write=False)
    assert orders(host, memory) == [9] + [0] * 512
    holds(host)


def test_written_folios_are_as_large_as_alignment_and_what_is_there_allow() -> None:
    host, memory, _ = mapping()
    file_write(host, memory, 3, 12)
    # 3, then 4 to 7, then 8 to 11.
    assert orders(host, memory) == [0, 2, 2]
    host, memory, _ = mapping()
    file_read(host, memory, 5, 6)
    file_write(host, memory, 0, 8)
    # Four fit before what is there; page 4; page 5 was there; two pages as one.
    assert orders(host, memory) == [2, 0, 0, 1]
    holds(host)
    host, memory, _ = mapping()
    file_write(host, memory, 0, 512)
    assert orders(host, memory) == [9]
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


def test_a_store_makes_the_page_dirty_and_writeback_takes_the_right_again() -> None:
    host, memory, a = mapping(writable=True)
    a.cpu_access(pages(0, 3), write=False)
    pfn = int(memory.cache[3])
    f = host.frames.arrays
    assert not a.arrays.pte[3] & x86.RW and not f.flags[pfn] & pg.DIRTY
    a.cpu_access(pages(0, 3), write=True)
    assert a.arrays.pte[3] & x86.RW and f.flags[pfn] & pg.DIRTY and f.flags[pfn] & pg.PRIVATE
    file_sync(host, memory)
    assert a.arrays.pte[3] & x86.PRESENT and not a.arrays.pte[3] & (x86.RW | x86.DIRTY)
    assert not f.flags[pfn] & pg.DIRTY and f.flags[pfn] & pg.PRIVATE, "its buffer heads stay"
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


@pytest.mark.parametrize("mglru", [False, True])
def test_drop_takes_what_nobody_uses_and_is_wholly_inside(mglru) -> None:
    host, memory, a = mapping(mglru=mglru)
    file_write(host, memory, 0, 8)
    file_read(host, memory, 8, 12)
    host.drain()
    a.cpu_access(pages(0, 9), write=False)
    madvise(a, 0, 8, "dontneed")
    file_drop(host, memory, 2, 12)
    # The large folio is cut by the range; 8 to 11 are mapped.
    assert orders(host, memory) == [3, 0, 0, 0, 0]
    f = host.frames.arrays
    assert not f.flags[int(memory.cache[0])] & pg.DIRTY, "what the range touches was written"
    assert bool(f.flags[int(memory.cache[9])] & pg.REFERENCED) == (not mglru)
    madvise(a, 0, 512, "dontneed")
    file_drop(host, memory, 0, 512)
    assert not memory.cache.any()
    holds(host)


def test_khugepaged_writes_what_nobody_may_write_to_and_comes_again() -> None:
    for writable in (False, True):
        host, memory, a = mapping(writable=writable)
        file_write(host, memory, 0, 300)
        host.drain()
        madvise(a, 0, 512, "hugepage")
        results = []
        host.khugepaged.on_file_visit = lambda visit, to=results: to.append(str(visit.scan.result))
        host.khugepaged.full_scan()
        host.khugepaged.full_scan()
        assert results == ["page_dirty_or_writeback", "page_dirty_or_writeback" if writable else "succeeded"]
        file_sync(host, memory)
        host.khugepaged.full_scan()
        assert orders(host, memory) == [9]
        holds(host)


def test_max_ptes_none_is_asked_and_what_is_missing_is_read() -> None:
    host, memory, a = mapping(knobs=Knobs(max_ptes_none=8))
    file_read(host, memory, 0, 503)
    host.drain()
    madvise(a, 0, 512, "hugepage")
    host.khugepaged.full_scan()
    assert len(orders(host, memory)) == 503
    file_read(host, memory, 503, 504)
    host.drain()
    host.khugepaged.full_scan()
    assert orders(host, memory) == [9]
    holds(host)


def test_madv_collapse_writes_and_tries_again_and_maps_at_once() -> None:
    host, memory, a = mapping(writable=True)
    a.cpu_access(pages(0, range(40)), write=True)
    host.drain()
    assert madvise(a, 0, 512, "collapse") is None
    assert orders(host, memory) == [9] and a.arrays.pmd[0] & x86.PSE
    assert not a.arrays.pmd[0] & (x86.RW | x86.DIRTY)
    holds(host)


def test_a_page_that_is_held_ends_the_scan_and_its_buffer_heads_do_not() -> None:
    host, memory, a = mapping()
    file_write(host, memory, 0, 16)
    file_sync(host, memory)
    host.drain()
    assert madvise(a, 0, 512, "collapse") is None, "buffer heads are let go of"
    host, memory, a = mapping()
    file_read(host, memory, 0, 16)
    a.pin(pages(0, 3), "p")
    host.drain()
    assert madvise(a, 0, 512, "collapse") == "EAGAIN"
    holds(host)


def test_writeback_takes_a_folio_from_the_guest_whole_and_its_next_store_makes_it_dirty_again() -> None:
    host, memory, a = mapping(writable=True)
    file_write(host, memory, 0, 4)
    kvm = Kvm(a)
    kvm.slot_add(0, 0, 0, a.npages)
    kvm.access(pages(0, 1, 2, 40), write=True)
    host.drain()
    young = [each[2] for each in a.notifiers.test_young(0, 64, np.ones(64, np.bool_))]
    assert np.flatnonzero(young[0]).tolist() == [1, 2, 40]
    file_sync(host, memory)
    young = [each[2] for each in a.notifiers.test_young(0, 64, np.ones(64, np.bool_))]
    assert not young[0].any(), "nothing of the folio, nor of page 40, is the guest's any more"
    assert not a.arrays.pte[1] & x86.RW and a.arrays.pte[0] & x86.PRESENT
    kvm.access(pages(0, 1), write=False)
    assert not host.frames.arrays.flags[int(memory.cache[0])] & pg.DIRTY, "read again, mapped read-only"
    kvm.access(pages(0, 1), write=True)
    assert host.frames.arrays.flags[int(memory.cache[0])] & pg.DIRTY and a.arrays.pte[1] & x86.RW
    holds(host)
