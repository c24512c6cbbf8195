"""Folios of any order: which one a fault maps, and what becomes of it afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits.pte import ACCESSED, PRESENT
from secondsight.errors import UsageError
from secondsight.geometry import ANON_ORDERS, HPAGE_PMD_NR, kb_of_order, order_of_kb
from secondsight.mm import ksm
from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.huge_memory import split_huge
from secondsight.mm.madvise import madvise
from secondsight.mm.mlock import mlock
from secondsight.mm.page import HEAD, LRU, MLOCKED, TAIL, check
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vmscan import swap_out
from support.large_folios import machine, order_at, write
from support.model import holds

PARTS = ANON_ORDERS[:-1]


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
