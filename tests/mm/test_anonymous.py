"""New anonymous pages: the zero pages for a read, for a write the largest folio that is switched on and fits."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.bits.pte import ACCESSED, DIRTY, PRESENT, RW
from secondsight.geometry import ANON_ORDERS, HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.page import (
    ANON,
    EXCLUSIVE,
    HEAD,
    HUGE_ZERO_PFN,
    SWAPBACKED,
    ZERO_PFN,
    folio_nr_pages,
)
from support.large_folios import machine, order_at, write
from support.model import balance, flags, holds, pages

PARTS = ANON_ORDERS[:-1]


def test_a_read_maps_the_zero_page_and_a_write_a_page_of_ones_own() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(np.array([3]), write=False)
    assert mm.pfn(3) == ZERO_PFN and mm.arrays.pte[3] & x86.SPECIAL and not mm.arrays.pte[3] & x86.RW
    mm.cpu_access(np.array([3]), write=True)
    entry = mm.arrays.pte[3]
    assert mm.pfn(3) > 512 and entry & x86.RW and entry & x86.DIRTY and entry & x86.ACCESSED
    assert flags(mm, 3) & ANON and flags(mm, 3) & SWAPBACKED and flags(mm, 3) & EXCLUSIVE
    assert mm.pfn(4) == -1 and mm.folio(4) == -1
    balance(host)


def test_huge_faults() -> None:
    host = Host("6.1", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 3)
    mm.cpu_access(pages(0, 9), write=True)
    assert mm.arrays.pmd[0] & x86.PSE and mm.arrays.pmd[0] & x86.RW
    mm.cpu_access(pages(1, 9), write=False)
    assert mm.folio(512) == HUGE_ZERO_PFN
    balance(host)


@pytest.mark.parametrize("order", PARTS)
def test_a_store_maps_the_enabled_order_round_it(order) -> None:
    host, mm = machine(order)
    write(mm, 300)
    pages, first = 1 << order, 300 >> order << order
    f = host.frames.arrays
    head = mm.folio(300)
    assert f.flags[head] & HEAD and head % pages == 0 and folio_nr_pages(f, head) == pages
    assert [mm.pfn(p) for p in range(first, first + pages)] == list(range(head, head + pages))
    entries = mm.arrays.pte[first : first + pages]
    assert ((entries & (PRESENT | RW | ACCESSED | DIRTY)) == (PRESENT | RW | ACCESSED | DIRTY)).all()
    assert int((mm.arrays.pte != 0).sum()) == pages
    assert f.refcount[head] == pages and host.frames.in_use == pages
    holds(host)


def test_a_read_maps_the_zero_page_alone() -> None:
    host, mm = machine(*PARTS)
    mm.cpu_access(np.array([5]), write=False)
    assert int((mm.arrays.pte != 0).sum()) == 1
    # The zero page's PTE is not none: what holds it is not empty, and page 4's own order 2 neither.
    write(mm, 4)
    assert order_at(mm, 4) == 0
    write(mm, 8)
    assert order_at(mm, 8) == 3
    holds(host)


def test_the_largest_that_is_empty_and_in_the_area() -> None:
    host, mm = machine(*PARTS)
    write(mm, 0)
    assert order_at(mm, 0) == PMD_ORDER - 1
    write(mm, HPAGE_PMD_NR - 1)
    assert order_at(mm, HPAGE_PMD_NR - 1) == PMD_ORDER - 1
    # An area that is cut at page 8 of the next block: nothing reaches across the cut.
    madvise(mm, HPAGE_PMD_NR + 8, 2 * HPAGE_PMD_NR, "hugepage")
    write(mm, HPAGE_PMD_NR + 9)
    assert order_at(mm, HPAGE_PMD_NR + 9) == 3
    write(mm, HPAGE_PMD_NR + 1)
    assert order_at(mm, HPAGE_PMD_NR + 1) == 3
    holds(host)


@pytest.mark.parametrize(
    ("how", "enabled", "advice", "large"),
    [
        ("never", "always", None, False),
        ("madvise", "always", None, False),
        ("madvise", "never", "hugepage", True),
        ("inherit", "always", None, True),
        ("inherit", "madvise", None, False),
        ("inherit", "madvise", "hugepage", True),
        ("inherit", "never", "hugepage", False),
        ("always", "never", None, True),
        ("always", "always", "nohugepage", False),
    ],
)
def test_each_switch_as_the_kernel_reads_it(how, enabled, advice, large) -> None:
    host = Host("7.2", HostConfig(thp_enabled=enabled, sizes=Sizes(kb64=how, kb2048="never")))
    mm = host.mm("p", 1)
    if advice:
        madvise(mm, 0, HPAGE_PMD_NR, advice)
    write(mm, 20)
    assert order_at(mm, 20) == (4 if large else 0)
