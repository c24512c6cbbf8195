"""A block of the page cache becomes one huge page, or is left with what was taken so far unmapped."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.file_io import file_read, file_sync, file_write
from secondsight.mm.host import Host
from secondsight.mm.khugepaged.collapse_file import collapse_file
from secondsight.mm.khugepaged.limits import collapse_control
from secondsight.mm.khugepaged.result import ScanResult as R
from secondsight.mm.madvise import madvise
from secondsight.mm.vmscan import swap_out
from secondsight.mmu.kvm import Kvm
from support.model import holds, pages
from support.regular_files import mapping, orders
from support.shared_blocks import KERNELS, advise, scanned, shared, visits


@pytest.mark.parametrize("rules", KERNELS)
def test_a_collapse_takes_the_cache_and_every_table_and_the_next_fault_maps_the_pmd(rules) -> None:
    host, (a, b) = shared(rules)
    kvm = Kvm(a)
    kvm.slot_add(0, 0, 0, 512)
    kvm.access(pages(0, range(200)), write=True)
    b.cpu_access(pages(0, 3), write=True)
    host.drain()
    advise(a)
    assert visits(host) == [("a", 0, "succeeded", "succeeded")]
    assert not a.arrays.pmd[0] and not b.arrays.pmd[0] and not kvm.sptes(3)
    head = int(a.memory.cache[0])
    assert a.memory.cache.tolist() == list(range(head, head + 512))
    assert host.frames.arrays.refcount[head] == 512 and host.frames.in_use == 512
    assert host.khugepaged.pages_collapsed == 1
    b.cpu_access(pages(0, 400), write=False)
    kvm.access(pages(0, 5), write=False)
    assert a.arrays.pmd[0] & x86.PSE and b.arrays.pmd[0] & x86.PSE and a.folio(0) == head
    assert visits(host) == [
        ("a", 0, "pte_mapped_hugepage", "page_pmd_mapped" if rules == "6.1" else "succeeded")
    ]
    holds(host)


def test_a_failed_collapse_leaves_pages_unmapped_and_back_on_the_lru() -> None:
    # Since 6.4 a page from swap ends no collapse, and on one CPU nothing else does.
    host, (a, _) = shared("6.1")
    a.cpu_access(pages(0, range(100)), write=True)
    host.drain()
    swap_out(a, pages(0, 60))
    visit = scanned(host, a)
    assert visit.result == R.DEL_PAGE_LRU and visit.collapse is not None and visit.collapse.ended_at == 60
    assert a.pfn(59) == -1 and a.pfn(61) > 0, "those before it are unmapped, those behind it were not come to"
    host.drain()
    assert scanned(host, a).result == R.SUCCEED, "it is in memory now"
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_an_empty_block(rules) -> None:
    host, (a,) = shared(rules, "a")
    assert scanned(host, a).result == R.EXCEED_NONE_PTE
    visit = scanned(host, a, khugepaged=False)
    assert visit.result == R.TRUNCATED and visit.collapse is not None and visit.collapse.ended_at == 0
    assert madvise(a, 0, 512, "collapse") == "EINVAL"


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


@pytest.mark.parametrize("rules", KERNELS)
def test_what_is_absent_takes_room_in_the_huge_page_and_what_is_swapped_is_read(rules) -> None:
    host, (a,) = shared(rules, "a", max_ptes_swap=64)
    a.cpu_access(pages(0, range(8)), write=True)
    host.drain()
    swap_out(a, pages(0, 3))
    assert host.frames.in_use == 7 and a.memory.cache[3] < 0
    done = collapse_file(a, 0, collapse_control(host.config.knobs, khugepaged=True))
    if rules == "6.1":
        # What comes from swap waits in a batch, which nothing drains before 6.4.
        assert done == (R.DEL_PAGE_LRU, 3)
        assert host.frames.in_use == 8 and a.memory.cache[3] > 0
    else:
        assert done == (R.SUCCEED, 512) and host.frames.in_use == 512
        head = int(a.memory.cache[0])
        assert a.memory.cache.tolist() == list(range(head, head + 512))
    host.drain()
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_page_that_is_held_is_seen_once_it_is_unmapped(rules) -> None:
    """The scan is not asked here: a pin that came after it ends the collapse at its page."""
    host, (a, b) = shared(rules)
    for mm in (a, b):
        mm.cpu_access(pages(0, range(40)), write=True)
    host.drain()
    a.pin(pages(0, 25), "dma")
    done = collapse_file(a, 0, collapse_control(host.config.knobs, khugepaged=True))
    assert done == (R.PAGE_COUNT, 25)
    for mm in (a, b):
        assert [mm.pfn(page) > 0 for page in (0, 24, 25, 26)] == [False, False, False, True]
    assert host.frames.in_use == 40, "every page is still in the cache"
    host.drain()
    holds(host)
    a.unpin("dma")
    assert scanned(host, a).result == R.SUCCEED


def test_a_block_of_the_cache_is_taken_from_where_the_process_maps_it() -> None:
    """The process maps the memory from its second block on: the index that is named is the cache's."""
    host = Host("7.3", HostConfig(shmem_enabled="advise"))
    memory = host.shared_memory("ram", 2)
    a = host.shared_mm("a", 1, memory, block=1)
    a.cpu_access(pages(0, range(30)), write=True)
    host.drain()
    a.pin(pages(0, 7), "dma")
    cc = collapse_control(host.config.knobs, khugepaged=True)
    assert collapse_file(a, 0, cc) == (R.PAGE_COUNT, 512 + 7)
    a.unpin("dma")
    host.drain()
    assert collapse_file(a, 0, cc) == (R.SUCCEED, 1024)
    assert not memory.cache[:512].any() and (np.diff(memory.cache[512:]) == 1).all()
    holds(host)
