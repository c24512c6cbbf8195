"""Folios of any order: which one a fault maps, and what becomes of it afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits.pte import ACCESSED, DIRTY, PRESENT, RW
from secondsight.errors import UsageError
from secondsight.geometry import ANON_ORDERS, HPAGE_PMD_NR, PMD_ORDER, kb_of_order, order_of_kb
from secondsight.mm import ksm
from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.huge_memory import split_huge
from secondsight.mm.madvise import madvise
from secondsight.mm.mlock import mlock
from secondsight.mm.page import HEAD, LRU, MLOCKED, TAIL, check, folio_nr_pages, folio_order
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vmscan import swap_out
from support.model import holds

PARTS = ANON_ORDERS[:-1]


def machine(*orders: int, how: str = "always", rules: str = "7.2", enabled: str = "madvise", blocks: int = 2):
    sizes = Sizes(**{f"kb{kb_of_order(order)}": how for order in orders})
    host = Host(rules, HostConfig(thp_enabled=enabled, sizes=sizes))
    return host, host.mm("p", blocks)


def write(mm, *pages) -> None:
    mm.cpu_access(np.array(pages, np.int64), write=True)


def order_at(mm, page: int) -> int:
    return int(folio_order(mm.host.frames.arrays, mm.pfn(page))) if mm.pfn(page) > 0 else -1


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


def test_sizes_are_told_apart_from_what_is_none() -> None:
    with pytest.raises(UsageError, match="order 1: huge pages have the orders 2"):
        Sizes().of(1)
    with pytest.raises(UsageError, match=r"6\.1 has no hugepages-\*kB/enabled"):
        Host("6.1", HostConfig(sizes=Sizes(kb64="always")))
    assert [order_of_kb(kb_of_order(order)) for order in ANON_ORDERS] == list(ANON_ORDERS)
    assert order_of_kb(24) == order_of_kb(0) == order_of_kb(2) == -1


@pytest.mark.parametrize("order", [2, 4, 8])
def test_a_folio_goes_whole_through_a_life(order) -> None:
    host, mm = machine(order)
    pages = 1 << order
    write(mm, 0)
    f, head = host.frames.arrays, mm.folio(0)
    child = fork(mm, "child")
    assert f.refcount[head] == 2 * pages
    write(child, 1)
    assert order_at(child, 1) == 0 and order_at(child, 2) == order
    clear_refs(mm)
    assert not (mm.arrays.pte[:pages] & ACCESSED).any()
    host.drain()
    mlock(mm, 0, pages)
    assert not host.frames.arrays.flags[head] & MLOCKED or pages > 1
    holds(host)


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("advice", ["cold", "free", "dontneed"])
def test_advice_on_a_part_splits_and_on_the_whole_does_not(order, advice) -> None:
    pages = 1 << order
    for end in (pages, pages - 1):
        host, mm = machine(order)
        write(mm, *range(pages))
        host.drain()
        madvise(mm, 0, end, advice)
        f = host.frames.arrays
        if advice == "dontneed":
            # The part that is unmapped stays in the folio until it is split.
            assert order_at(mm, end) == (order if end < pages else -1)
        elif end == pages:
            assert order_at(mm, 0) == order and f.flags[mm.folio(0)] & LRU
        else:
            assert [order_at(mm, p) for p in range(pages)] == [0] * pages
        holds(host)


def test_split_huge_pages_takes_every_large_folio_of_the_block() -> None:
    host, mm = machine(4)
    write(mm, 0, 40, 500)
    host.drain()
    assert split_huge(mm, 0)
    f = host.frames.arrays
    assert not (f.flags[: int(f.n[2])] & (HEAD | TAIL)).astype(bool)[1024:].any()
    check(host.frames)
    holds(host)


def test_swapped_out_whole_and_merged_after_a_split() -> None:
    host, mm = machine(4)
    write(mm, 0, 16)
    assert len(swap_out(mm, np.arange(16)).gone) == 16
    assert not (mm.arrays.pte[:16] & PRESENT).any()
    mm.cpu_access(np.array([16, 17]), write=True, value=7)
    host.drain()
    madvise(mm, 0, HPAGE_PMD_NR, "mergeable")
    assert ksm.merge(host) >= 1 and order_at(mm, 16) == order_at(mm, 17) == 0
    holds(host)


@given(
    st.lists(st.integers(0, 2 * HPAGE_PMD_NR - 1), max_size=40),
    st.sets(st.sampled_from(PARTS)),
    st.integers(0, 40),
    st.booleans(),
)
def test_cutting_a_batch_anywhere_changes_nothing(pages, orders, cut, store) -> None:
    ends = []
    for parts in ([pages], [pages[:cut], pages[cut:]]):
        host, mm = machine(*orders)
        mm.cpu_access(np.arange(0, 2 * HPAGE_PMD_NR, 97), write=False)
        for part in parts:
            mm.cpu_access(np.array(part, np.int64), write=store)
        holds(host)
        f = host.frames.arrays
        ends.append((mm.arrays.pte.tolist(), f.flags[: int(f.n[2])].tolist()))
    assert ends[0] == ends[1]
