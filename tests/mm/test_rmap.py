"""Ageing and reclaim: which bits go where, and who is asked."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.fork import fork
from secondsight.mm.madvise import madvise
from secondsight.mm.mlock import mlock, munlock
from secondsight.mm.page import ACTIVE, IDLE, LRU, MLOCKED, REFERENCED, UNEVICTABLE, YOUNG
from secondsight.mm.rmap import age, mappings
from secondsight.mm.task_mmu import clear_refs
from support.model import KERNELS, flags, holds, pages, vm


@pytest.mark.parametrize("by", ["cpu", "guest", "nobody"])
@pytest.mark.parametrize("mmu", ["npt", "ept", "ept-noad"])
def test_page_idle_moves_every_accessed_bit_to_pg_young(by, mmu) -> None:
    host, mm, kvm = vm("6.1", 1, mmu=mmu)
    mm.cpu_access(pages(0, 1), write=True)
    host.drain()
    if by == "guest":
        kvm.access(pages(0, 1), write=True)
    clear_refs(mm)
    if by == "cpu":
        mm.cpu_access(pages(0, 1), write=False)
    host.drain()
    age(mm, np.array([1]))
    assert not mm.arrays.pte[1] & x86.ACCESSED
    assert not mm.notifiers.test_young(1, 2, np.ones(1, np.bool_))[0][2].any()
    assert bool(flags(mm, 1) & YOUNG) == (by != "nobody") and flags(mm, 1) & IDLE
    assert bool(kvm.sptes(1)) == (by == "guest"), "ageing unmaps nothing"


def test_2_6_38_without_young_bits_ages_by_unmapping() -> None:
    host, mm, kvm = vm("2.6.38", 1, mmu="ept")
    kvm.access(pages(0, 1), write=True)
    host.drain()
    clear_refs(mm)
    assert mm.notifiers.clear_flush_young(1, 2).tolist() == [True]
    assert not kvm.sptes(1)
    assert mm.notifiers.clear_flush_young(1, 2).tolist() == [False]
    assert flags(mm, 1) & REFERENCED, "each zap marks the page accessed"


@pytest.mark.parametrize("mmu", ["npt", "shadow", "ept", "ept-noad"])
@pytest.mark.parametrize("rules", ["6.1", "6.12", "7.2"])
def test_an_aged_guest_page_is_young_again_at_its_next_touch_without_a_fault_on_the_page(rules, mmu) -> None:
    host, mm, kvm = vm(rules, 1, mmu=mmu)
    kvm.access(pages(0, 1), write=True)
    host.drain()
    clear_refs(mm)
    assert mm.notifiers.clear_young(1, 2)[0] and not mm.notifiers.clear_young(1, 2)[0]
    before = flags(mm, 1)
    kvm.access(pages(0, 1), write=True)
    assert mm.notifiers.test_young(1, 2, np.ones(1, np.bool_))[0][2][0]
    assert flags(mm, 1) == before and not mm.arrays.pte[1] & x86.ACCESSED


def test_clear_refs_asks_no_notifier() -> None:
    host, mm, kvm = vm("6.1", 1)
    kvm.access(pages(0, 1), write=True)
    host.drain()
    mm.notifiers.calls.clear()
    clear_refs(mm)
    assert mm.notifiers.calls == {} and not flags(mm, 1) & (REFERENCED | YOUNG)
    assert mm.notifiers.test_young(1, 2, np.ones(1, np.bool_))[0][2][0], "young in its SPTE still"


def test_every_mapping_of_a_page_is_found() -> None:
    host, mm, _ = vm("6.1", 1)
    mm.cpu_access(pages(0, 1), write=True)
    host.drain()
    child = fork(mm, "c")
    assert mappings(host, mm.pfn(1)) == [(mm, 1), (child, 1)]


@pytest.mark.parametrize("rules", KERNELS)
def test_mlock_keeps_pages_off_the_evictable_lists_until_munlock(rules) -> None:
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, 1), write=True)
    host.drain()
    mlock(mm, 0, 4)
    for page in range(4):
        got = flags(mm, page)
        assert got & UNEVICTABLE and got & MLOCKED and got & LRU and not got & ACTIVE
        assert mm.pfn(page) > 512, "what was not there was faulted in for writing"
    munlock(mm, 0, 4)
    host.drain()
    assert not any(flags(mm, p) & (UNEVICTABLE | MLOCKED) for p in range(4))
    holds(host)


@pytest.mark.parametrize("advice", ["cold", "free", "dontneed"])
def test_advice_that_ages(advice) -> None:
    host, mm, kvm = vm("6.1", 1)
    kvm.access(pages(0, 1), write=True)
    host.drain()
    assert madvise(mm, 0, 512, advice) is None
    host.drain()
    if advice == "dontneed":
        assert mm.pfn(1) == -1
    else:
        assert not mm.arrays.pte[1] & x86.ACCESSED and not flags(mm, 1) & ACTIVE
    # Cold tells nobody; the others must, since the guest could go on writing.
    assert bool(kvm.sptes(1)) == (advice == "cold")
    holds(host)


def test_locked_areas_refuse_dontneed_and_cold() -> None:
    _, mm, _ = vm("6.1", 1)
    mlock(mm, 0, 4)
    assert madvise(mm, 0, 512, "dontneed") == madvise(mm, 0, 512, "cold") == "EINVAL"
