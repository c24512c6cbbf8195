"""Shared memory: what faults map, what unmapping leaves, what goes to swap, and that every count holds."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.errors import UsageError
from secondsight.mm import page as pg
from secondsight.mm.config import HostConfig, ShmemSizes
from secondsight.mm.filemap import swap_order
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.host import Host
from secondsight.mm.huge_memory import split_huge
from secondsight.mm.madvise import madvise
from secondsight.mm.page import folio_order
from secondsight.mm.vmscan import swap_out
from secondsight.mmu.kvm import Kvm
from support.model import holds, pages

KERNELS = ("6.1", "6.12", "6.16", "7.3")


def two(rules: str, blocks: int = 1, **config: object) -> tuple[Host, object, object]:
    """Two processes that map one memfd."""
    host = Host(rules, HostConfig(**config))
    memory = host.shared_memory("ram", blocks)
    return host, host.shared_mm("a", blocks, memory), host.shared_mm("b", blocks, memory)


def mapped(mm: object) -> list[int]:
    """The pages that PTEs of *mm* map."""
    return np.flatnonzero((mm.arrays.pte & x86.PRESENT) != 0).tolist()


@pytest.mark.parametrize("rules", KERNELS)
def test_two_processes_map_one_page_and_write_it_without_copying(rules) -> None:
    host, a, b = two(rules)
    a.cpu_access(pages(0, 5), write=True)
    b.cpu_access(pages(0, 5), write=True)
    pfn = a.pfn(5)
    assert pfn == b.pfn(5) > 0 and host.frames.arrays.mapcount[pfn] == 2
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_read_maps_what_is_there_round_it_and_a_write_one_page(rules) -> None:
    host, a, b = two(rules)
    a.cpu_access(pages(0, range(8), 20), write=True)
    assert mapped(a) == [*range(8), 20]
    b.cpu_access(pages(0, 3), write=False)
    assert mapped(b) == [*range(8)]
    # Nothing in the cache there: a page of its own, and no zero page.
    b.cpu_access(pages(0, 40), write=False)
    assert 40 in mapped(b) and b.pfn(40) != pg.ZERO_PFN and b.arrays.pte[40] & x86.RW
    holds(host)


def test_the_window_is_sixteen_pages_from_the_begin_of_an_area_that_is_cut() -> None:
    host, a, b = two("6.12")
    a.cpu_access(pages(0), write=True)
    madvise(b, 100, 200, "hugepage")
    b.cpu_access(pages(0, 105), write=False)
    assert mapped(b) == [*range(100, 116)]
    b.cpu_access(pages(0, 198), write=False)
    assert [p for p in mapped(b) if p > 116] == [*range(192, 200)]
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_shmem_enabled_makes_a_fault_huge_in_an_empty_block_alone(rules) -> None:
    host, a, b = two(rules, 2, shmem_enabled="always")
    a.cpu_access(pages(0, 7), write=True)
    assert a.arrays.pmd[0] & x86.PSE and host.frames.arrays.refcount[a.folio(0)] == 512 + 1
    b.cpu_access(pages(0, 9), write=False)
    assert b.arrays.pmd[0] & x86.PSE and a.folio(0) == b.folio(0)
    madvise(b, 512, 1024, "nohugepage")
    b.cpu_access(pages(1, 0), write=True)
    a.cpu_access(pages(1, 1), write=True)
    assert not a.arrays.pmd[1] & x86.PSE, "a small page is in the way"
    holds(host)


def test_advice_keeps_the_pmd_away_since_6_12() -> None:
    for rules, huge in (("6.1", True), ("6.12", False), ("7.3", False)):
        host, a, b = two(rules, shmem_enabled="always")
        a.cpu_access(pages(0, 0), write=True)
        madvise(b, 0, 512, "nohugepage")
        b.cpu_access(pages(0, 100), write=True)
        assert bool(b.arrays.pmd[0] & x86.PSE) == huge
        # finish_fault maps the whole folio by PTEs since 6.11.
        assert huge or len(mapped(b)) == 512
        holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_unmapping_marks_young_pages_and_keeps_them_in_the_cache(rules) -> None:
    host, a, _ = two(rules)
    a.cpu_access(pages(0, 1, 2), write=True)
    pfn = a.pfn(1)
    host.drain()
    host.frames.arrays.flags[pfn] &= ~pg.REFERENCED
    madvise(a, 0, 512, "dontneed")
    assert a.pfn(1) == -1 and a.memory.cache[1] == pfn
    assert host.frames.arrays.flags[pfn] & pg.REFERENCED
    a.cpu_access(pages(0, 1), write=False)
    assert a.pfn(1) == pfn
    holds(host)


def test_a_young_huge_pmd_marks_its_page_since_6_16() -> None:
    for rules, marks in (("6.12", False), ("6.16", True)):
        host, a, _ = two(rules, shmem_enabled="always")
        a.cpu_access(pages(0, 0), write=True)
        head = a.folio(0)
        madvise(a, 0, 512, "dontneed")
        assert bool(host.frames.arrays.flags[head] & pg.REFERENCED) == marks
        holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_what_goes_to_swap_is_an_entry_of_the_cache_and_comes_back(rules) -> None:
    host, a, b = two(rules)
    a.cpu_access(pages(0, range(10)), write=True)
    b.cpu_access(pages(0, 4), write=True)
    a.cpu_access(pages(0, 100), write=False)
    out = swap_out(a, pages(0))
    assert out.gone.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 100], "the page that b maps too stays"
    assert a.memory.cache[3] < 0 and a.memory.cache[100] == 0, "nobody had stored to page 100: it was dropped"
    b.cpu_access(pages(0, 3), write=False)
    assert a.memory.cache[3] > 0 and b.pfn(3) == a.memory.cache[3]
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_what_somebody_holds_is_unmapped_and_stays_active_if_it_is_pinned_for_dma(rules) -> None:
    host, a, _ = two(rules)
    a.cpu_access(pages(0, range(4)), write=True)
    a.pin(pages(0, 1), "read")
    a.pin(pages(0, 2), "dma", write=True, longterm=True)
    assert swap_out(a, pages(0)).gone.tolist() == [0, 1, 2, 3]
    cache = a.memory.cache
    assert cache[0] < 0 and cache[3] < 0 and cache[1] > 0 and cache[2] > 0
    flags = host.frames.arrays.flags
    assert not flags[int(cache[1])] & pg.ACTIVE and flags[int(cache[2])] & pg.ACTIVE
    holds(host)


def test_a_huge_page_goes_to_swap_whole_since_6_12_and_comes_back_whole_since_6_16() -> None:
    for rules, order, back in (("6.1", 0, 0), ("6.12", 9, 0), ("6.16", 9, 9), ("7.3", 9, 9)):
        host, a, _ = two(rules, shmem_enabled="always")
        a.cpu_access(pages(0), write=True)
        swap_out(a, pages(0))
        assert not a.arrays.pmd[0] and (a.memory.cache < 0).all()
        assert int(swap_order(int(a.memory.cache[0]))) == order
        a.cpu_access(pages(0, 17), write=True)
        assert int(pg.folio_order(host.frames.arrays, a.pfn(17))) == back
        assert int((a.memory.cache > 0).sum()) == 1 << back
        holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_child_maps_the_memory_from_an_empty_table_and_a_memfd_outlives_its_processes(rules) -> None:
    host, a, b = two(rules, shmem_enabled="always")
    kvm = Kvm(a)
    kvm.slot_add(0, 0, 0, 512)
    kvm.access(pages(0, 3), write=True)
    child = fork(a, "c")
    assert not child.arrays.pmd.any()
    child.cpu_access(pages(0, 9), write=True)
    assert child.folio(9) == a.folio(3)
    for mm in (a, b, child):
        exit_mm(mm)
    memory = host.memories["ram"]
    assert (memory.cache > 0).all() and not memory.mappings
    holds(host)


def test_anonymous_shared_memory_goes_with_its_last_process() -> None:
    host = Host("7.3", HostConfig())
    a = host.shared_mm("a", 1, host.shared_memory("", 1))
    a.cpu_access(pages(0, range(30)), write=True)
    child = fork(a, "c")
    exit_mm(a)
    child.cpu_access(pages(0, 5), write=False)
    assert host.frames.in_use == 30
    exit_mm(child)
    host.drain()
    assert host.frames.in_use == 0


@pytest.mark.parametrize("rules", KERNELS)
def test_a_split_unmaps_the_folio_everywhere(rules) -> None:
    host, a, b = two(rules, shmem_enabled="always")
    a.cpu_access(pages(0, 0), write=True)
    b.cpu_access(pages(0, 0), write=False)
    assert split_huge(a, 0)
    assert not a.arrays.pmd[0] and not b.arrays.pmd[0] and (a.memory.cache > 0).all()
    assert not host.frames.arrays.flags[int(a.memory.cache[9])] & (pg.HEAD | pg.TAIL)
    holds(host)
    a.pin(pages(0, 3), "held")
    b.cpu_access(pages(0), write=False)
    holds(host)


def test_what_cannot_be_is_one_line() -> None:
    host = Host("6.1", HostConfig())
    memory = host.shared_memory("ram", 1)
    with pytest.raises(UsageError, match="has 1 blocks, not 3"):
        host.shared_mm("a", 2, memory, 1)
    with pytest.raises(UsageError, match="already"):
        host.shared_memory("ram", 1)
    with pytest.raises(
        UsageError, match=r"2\.6\.38: shared memory that may be huge is modelled from 6\.1 on"
    ):
        Host("2.6.38", HostConfig(shmem_enabled="advise"))


def test_a_fault_makes_the_largest_size_that_area_and_cache_allow() -> None:
    for rules in ("6.12", "7.3"):
        host, a, b = two(rules, shmem_sizes=ShmemSizes(kb64="always", kb256="advise"))
        a.cpu_access(pages(0, 20), write=True)
        assert mapped(a) == [*range(16, 32)] and host.frames.arrays.refcount[a.folio(20)] == 32
        madvise(b, 0, 512, "hugepage")
        # 256 KiB round page 40 have the small folio in them: 64 KiB. The next 256 KiB are free.
        b.cpu_access(pages(0, 40, 70), write=True)
        assert (
            folio_order(host.frames.arrays, b.folio(40)) == 4
            and folio_order(host.frames.arrays, b.folio(70)) == 6
        )
        # An area that ends at page 200 has no room for 192 to 207.
        madvise(a, 200, 512, "nohugepage")
        a.cpu_access(pages(0, 199, 210), write=True)
        assert (
            not host.frames.arrays.flags[a.pfn(199)] & pg.HEAD
            and folio_order(host.frames.arrays, a.folio(199)) == 0
        )
        assert folio_order(host.frames.arrays, a.folio(210)) == 0, "advice against it"
        host.drain()
        holds(host)


def test_folios_of_any_size_become_one() -> None:
    host, a, _ = two("7.3", shmem_enabled="advise", shmem_sizes=ShmemSizes(kb64="always"))
    a.cpu_access(pages(0, 20, 300), write=True)
    host.drain()
    madvise(a, 0, 512, "hugepage")
    results = []
    host.khugepaged.on_file_visit = lambda visit: results.append((str(visit.scan.result), visit.scan.present))
    host.khugepaged.full_scan()
    assert results == [("succeeded", 32)]
    assert (a.memory.cache > 0).all() and not mapped(a)
    holds(host)


def test_any_size_makes_shared_memory_khugepageds_up_to_6_16() -> None:
    for rules, known in (("6.12", True), ("6.16", True), ("6.17", False), ("7.3", False)):
        host, a, _ = two(rules, shmem_sizes=ShmemSizes(kb64="always"))
        assert (a in host.khugepaged.slots) == known


def test_sizes_are_refused_where_sysfs_refuses_them_or_has_none() -> None:
    with pytest.raises(UsageError, match='shmem_enabled="force" wants'):
        HostConfig(shmem_enabled="force", shmem_sizes=ShmemSizes(kb64="inherit"))
    with pytest.raises(UsageError, match=r"6\.1 has no hugepages-\*kB/shmem_enabled"):
        Host("6.1", HostConfig(shmem_sizes=ShmemSizes(kb64="always")))


@pytest.mark.parametrize(
    ("whole", "advised", "orders"),
    [
        ("deny", True, 0), ("never", False, 1 << 5), ("never", True, 1 << 5 | 1 << 6), ("advise", False, 1 << 5),
        ("advise", True, 1 << 5 | 1 << 6 | 1 << 4 | 1 << 9), ("always", False, 1 << 5 | 1 << 4 | 1 << 9),
    ],
)  # fmt: skip
def test_the_switch_of_each_size(whole, advised, orders) -> None:
    sizes = ShmemSizes(kb64="inherit", kb128="within_size", kb256="advise")
    assert HostConfig(shmem_enabled=whole, shmem_sizes=sizes).shmem_orders(advised=advised) == orders
