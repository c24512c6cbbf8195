"""Unmapping takes entries, references and swap slots away, tells the notifiers, and leaves page tables and markers."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig
from secondsight.mm.guard import GUARD
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mlock import mlock
from secondsight.mm.page import MLOCKED, ZERO_PFN
from secondsight.mm.unmap import split_edges, unmap
from secondsight.mm.vmscan import swap_out
from support.model import KERNELS, flags, holds, pages, vm


@pytest.mark.parametrize("rules", KERNELS)
def test_what_is_mapped_and_what_is_in_swap_go_and_the_rest_stays(rules) -> None:
    host = Host(rules)
    mm = host.mm("p", 2)
    mm.cpu_access(np.arange(1024), write=True)
    madvise(mm, 20, 21, "dontneed")
    mm.cpu_access(pages(0, 20), write=False)  # the zero page
    host.drain()
    swap_out(mm, pages(0, range(10, 14)))
    assert mm.pfn(20) == ZERO_PFN and host.swap.sum() == 4
    unmap(mm, 12, 1000)
    assert not mm.arrays.pte[12:1000].any() and mm.arrays.pmd.all(), "page tables stay"
    assert [x86.is_swap_pte(mm.arrays.pte[page]) for page in (10, 11)] == [True, True]
    assert host.swap.sum() == 2 and host.frames.in_use == 10 + 24
    holds(host)


@pytest.mark.parametrize("drops", [False, True])
def test_markers_go_only_where_the_area_goes(drops) -> None:
    host = Host("7.2")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0), write=True)
    madvise(mm, 8, 10, "guard_install")
    unmap(mm, 0, 512, drops_markers=drops)
    assert [page for page in range(512) if mm.arrays.pte[page]] == ([] if drops else [8, 9])
    assert drops or (mm.arrays.pte[8:10] == GUARD).all()
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_huge_page_that_is_cut_is_split_and_one_that_is_covered_goes_whole(rules) -> None:
    host = Host(rules, HostConfig(thp_enabled="always"))
    mm = host.mm("p", 3)
    for block in range(3):
        mm.cpu_access(pages(block, 0), write=True)
    host.drain()
    assert host.frames.in_use == 3 * 512
    unmap(mm, 100, 1024)
    assert not mm.arrays.pmd[0] & x86.PSE and mm.arrays.pmd[1] == 0 and mm.arrays.pmd[2] & x86.PSE
    assert [page for page in range(1024) if mm.pfn(page) >= 0] == list(range(100))
    # Its other pages live in the folio still, which is mapped in part.
    assert host.frames.in_use == 2 * 512
    holds(host)


def test_only_edges_inside_a_block_split_it() -> None:
    host = Host("6.12", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 3)
    for block in range(3):
        mm.cpu_access(pages(block, 0), write=True)
    split_edges(mm, 512, 1024)
    split_edges(mm, 0, 1536)
    assert (mm.arrays.pmd & x86.PSE != 0).all()
    split_edges(mm, 512, 1100)
    assert (mm.arrays.pmd & x86.PSE != 0).tolist() == [True, True, False]


@pytest.mark.parametrize("rules", ["2.6.38", "6.12", "7.2"])
def test_notifiers_are_told_of_the_range_before_it_is_unmapped(rules) -> None:
    host, mm, kvm = vm(rules, 1)
    kvm.access(pages(0, range(64)), write=True)
    host.drain()
    mapped_then = []
    real = mm.notifiers.invalidate_range

    def watching(start, end, *rest):
        mapped_then.append((start, end, mm.pfn(30) >= 0))
        return real(start, end, *rest)

    mm.notifiers.invalidate_range = watching
    unmap(mm, 16, 48)
    assert mapped_then == [(16, 48, True)]
    assert [page for page in (15, 16, 47, 48) if kvm.sptes(page)] == [15, 48]
    holds(host)


@pytest.mark.parametrize("rules", ["6.1", "7.2"])
def test_a_locked_page_that_somebody_holds_is_locked_no_longer(rules) -> None:
    host = Host(rules)
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 5), write=True)
    assert mlock(mm, 0, 8) is None
    host.drain()
    pfn = mm.pfn(5)
    assert flags(mm, 5) & MLOCKED
    mm.pin(pages(0, 5), "held")
    unmap(mm, 5, 6)
    host.drain()
    assert not host.frames.arrays.flags[pfn] & MLOCKED and host.frames.arrays.refcount[pfn] == 1
    holds(host)


def test_shared_memory_leaves_the_page_tables_and_stays_in_the_cache() -> None:
    host = Host("6.12")
    memory = host.shared_memory("ram", 1)
    a, b = host.shared_mm("a", 1, memory), host.shared_mm("b", 1, memory)
    for mm in (a, b):
        mm.cpu_access(pages(0, range(8)), write=True)
    host.drain()
    unmap(a, 2, 512)
    assert [page for page in range(8) if a.pfn(page) >= 0] == [0, 1]
    assert [page for page in range(8) if b.pfn(page) >= 0] == list(range(8))
    assert (memory.cache[:8] > 0).all() and host.frames.in_use == 8
    holds(host)
