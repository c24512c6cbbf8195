"""Swap slots and the swap cache: what comes back at once, what stays cached, and that nothing is ever miscounted."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import Sizes
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.lru import mark_page_accessed
from secondsight.mm.madvise import madvise
from secondsight.mm.mlock import mlock
from secondsight.mm.mprotect import mprotect
from secondsight.mm.page import ACTIVE, EXCLUSIVE, REFERENCED, SWAPCACHE, folio_order
from secondsight.mm.swap import CACHED, COUNT
from secondsight.mm.vmscan import swap_out
from support.model import flags, holds, pages, vm

KERNELS = ["6.1", "6.12", "7.2", "7.3"]


def order(mm, page: int) -> int:
    return int(folio_order(mm.host.frames.arrays, mm.pfn(page)))


def swapped(rules: str, slots: list[int], *, first: int = 0):
    """A process whose pages from *first* on are in the swap *slots*, with 64 KiB on."""
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, range(first, first + len(slots))), write=True)
    host.configure(host.config.__class__(sizes=Sizes(kb64="always")))
    host.drain()
    took = np.arange(first, first + len(slots))
    swap_out(mm, took, took, np.array(slots, np.int64))
    return host, mm


@pytest.mark.parametrize("rules", ["6.12", "7.2", "7.3"])
@pytest.mark.parametrize(
    ("slots", "comes"),
    [
        (list(range(32, 48)), 4),
        (list(range(33, 49)), 0),  # not as aligned as the pages
        ([*range(32, 47), 90], 0),  # no row
    ],
)
def test_a_large_folio_comes_back_where_its_slots_are_an_aligned_row(rules, slots, comes) -> None:
    host, mm = swapped(rules, slots)
    mm.cpu_access(pages(0, 5), write=False)
    assert order(mm, 5) == comes
    there = [p for p in range(16) if mm.pfn(p) >= 0]
    assert there == (list(range(16)) if comes else [5])
    assert all(mm.arrays.pte[p] & x86.RW for p in there)
    holds(host)


@pytest.mark.parametrize("rules", ["6.12", "7.2", "7.3"])
def test_a_lazily_freed_page_that_went_has_no_slot_and_the_others_keep_theirs(rules) -> None:
    """6.12.118: MADV_FREE's page beside pages whose slots are a row, but not an aligned one."""
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, range(17)), write=True)
    host.configure(host.config.__class__(sizes=Sizes(kb64="always")))
    host.drain()
    assert madvise(mm, 16, 17, "free") is None
    took = np.arange(17)
    gone = swap_out(mm, took, took, np.array([*range(33, 49), -1], np.int64)).gone
    assert sorted(gone.tolist()) == took.tolist() and not mm.arrays.pte[16]
    mm.cpu_access(pages(0, 5), write=False)
    assert order(mm, 5) == 0


def test_before_612_pages_come_back_one_by_one() -> None:
    host, mm, _ = vm("6.1", 1)
    mm.cpu_access(pages(0, range(16)), write=True)
    host.drain()
    swap_out(mm, np.arange(16))
    mm.cpu_access(pages(0, 5), write=False)
    assert [p for p in range(16) if mm.pfn(p) >= 0] == [5]
    holds(host)


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_an_area_that_ends_inside_the_folio_has_its_pages_back_one_by_one(rules) -> None:
    host, mm = swapped(rules, list(range(32, 48)))
    madvise(mm, 8, 512, "mergeable")
    mm.cpu_access(pages(0, 5), write=False)
    assert order(mm, 5) == 0
    holds(host)


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_slots_of_which_some_were_all_zeroes_come_back_one_by_one(rules) -> None:
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, range(16)), write=True)
    mm.cpu_access(pages(0, 3), write=True, value=0)
    host.configure(host.config.__class__(sizes=Sizes(kb64="always")))
    host.drain()
    swap_out(mm, np.arange(16), np.arange(16), np.arange(32, 48))
    mm.cpu_access(pages(0, 5), write=False)
    assert order(mm, 5) == 0
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_page_that_is_held_gets_a_swap_entry_and_stays_in_the_swap_cache(rules) -> None:
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, range(4)), write=True)
    mm.pin(pages(0, 1), "p")
    host.drain()
    held = mm.pins["p"][0]
    assert swap_out(mm, np.arange(4)).gone.tolist() == [0, 1, 2, 3]
    assert mm.pfn(1) == -1 and host.frames.arrays.flags[held] & SWAPCACHE
    holds(host)
    mm.cpu_access(pages(0, 1), write=False)
    assert mm.pfn(1) == held, "its next fault finds it in the cache"
    # Since 7.x a page leaves the cache of a synchronous device as soon as no entry names its slot.
    assert bool(flags(mm, 1) & SWAPCACHE) == (rules in ("6.1", "6.12"))
    holds(host)
    mm.unpin("p")
    madvise(mm, 0, 512, "dontneed")
    assert not host.slots[COUNT].any() and not host.slots[CACHED].any()
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_page_pinned_for_dma_stays_mapped(rules) -> None:
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, range(2)), write=True)
    mm.pin(pages(0, 1), "p", write=True, longterm=True)
    host.drain()
    assert swap_out(mm, np.arange(2)).gone.tolist() == [0]
    assert mm.pfn(1) >= 0
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_slot_that_parent_and_child_name_is_read_through_the_cache(rules) -> None:
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, range(8)), write=True)
    host.drain()
    swap_out(mm, np.arange(8))
    child = fork(mm, "c")
    mm.cpu_access(pages(0, 2, 3), write=False)
    assert all(flags(mm, p) & SWAPCACHE and not mm.arrays.pte[p] & x86.RW for p in (2, 3))
    child.cpu_access(pages(0, 2), write=False)
    assert child.pfn(2) == mm.pfn(2), "both map the cached page"
    holds(host)
    child.cpu_access(pages(0, 3), write=True)
    assert child.pfn(3) != mm.pfn(3) and child.arrays.pte[3] & x86.RW
    holds(host)
    exit_mm(child)
    holds(host)
    mm.cpu_access(pages(0, 2, 3), write=True)
    assert not any(flags(mm, p) & SWAPCACHE for p in (2, 3)), (
        "the sole owner takes it out and writes in place"
    )
    holds(host)
    exit_mm(mm)
    assert host.frames.in_use == 0 and not host.slots[:2].any()


@pytest.mark.parametrize("rules", ["7.2", "7.3"])
def test_a_large_folio_in_the_cache_is_mapped_whole_by_the_next_who_reads_it(rules) -> None:
    host, mm = swapped(rules, list(range(32, 48)))
    child = fork(mm, "c")
    mm.cpu_access(pages(0, 5), write=False)
    assert order(mm, 5) == 4 and flags(mm, 5) & SWAPCACHE
    holds(host)
    child.cpu_access(pages(0, 9), write=False)
    assert [child.pfn(p) for p in range(16)] == [mm.pfn(p) for p in range(16)]
    assert not flags(mm, 5) & (SWAPCACHE | EXCLUSIVE), "nobody names its slots any more"
    holds(host)
    exit_mm(child)
    mm.cpu_access(pages(0, 5), write=True)
    holds(host)
    exit_mm(mm)
    assert host.frames.in_use == 0 and not host.slots[:2].any()


@pytest.mark.parametrize("rules", ["7.2", "7.3"])
def test_a_large_folio_in_the_cache_is_mapped_by_one_page_where_areas_part_it(rules) -> None:
    """do_swap_page: folio_start below vm_start, or folio_end behind vm_end. 7.0.13 on shadow, seed 62007."""
    host, mm = swapped(rules, list(range(32, 48)))
    child = fork(mm, "c")
    child.cpu_access(pages(0, 5), write=False)
    mprotect(mm, 12, 13, "r")
    mm.cpu_access(pages(0, 9), write=False)
    assert [p for p in range(16) if mm.pfn(p) >= 0] == [9] and mm.pfn(9) == child.pfn(9)
    holds(host)


@pytest.mark.parametrize("rules", ["7.2", "7.3"])
@pytest.mark.parametrize(("marks", "much"), [(4, False), (5, True)])
def test_what_was_much_used_comes_back_unmarked_under_mglru(rules, marks, much) -> None:
    """lru_gen_inc_refs: PG_referenced, a count of three, then PG_workingset. The shadow keeps that, and folio_add_lru activates it."""
    host, mm, _ = vm(rules, 1, mglru=True)
    mm.cpu_access(pages(0, 3), write=True)
    host.drain()
    # The fault has marked it once.
    for _ in range(marks - 1):
        mark_page_accessed(host.frames.arrays, host.r, mm.pfn(3))
    swap_out(mm, np.array([3]))
    mm.cpu_access(pages(0, 3), write=False)
    host.drain()
    assert bool(flags(mm, 3) & REFERENCED) != much and not flags(mm, 3) & ACTIVE
    holds(host)


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_a_dma_reads_a_copy_of_what_is_read_in_from_a_shared_slot(rules) -> None:
    """gup_must_unshare: a page that the child's entry names too is copied before it is pinned."""
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, range(4)), write=True)
    host.drain()
    swap_out(mm, np.arange(4))
    child = fork(mm, "c")
    mm.direct_io(pages(0, 2), write=False)
    host.drain()
    assert not flags(mm, 2) & SWAPCACHE and host.frames.arrays.flags[mm.pfn(2)] & EXCLUSIVE
    holds(host)
    exit_mm(child)
    holds(host)


@pytest.mark.parametrize("rules", ["7.2", "7.3"])
def test_a_large_folio_leaves_the_swap_cache_at_the_first_store_when_nobody_else_names_it(rules) -> None:
    """__wp_can_reuse_large_anon_folio frees its slots and reuses it (7.3.4, seed 9052); while a child names them it copies."""
    host, mm = swapped(rules, list(range(32, 48)))
    child = fork(mm, "c")
    mm.cpu_access(pages(0, 0), write=False)
    before = mm.folio(0)
    assert order(mm, 0) == 4 and flags(mm, 0) & SWAPCACHE
    mm.cpu_access(pages(0, 1), write=True)
    assert mm.folio(1) != before
    exit_mm(child)
    mm.cpu_access(pages(0, 2), write=True)
    assert mm.folio(2) == before and not flags(mm, 2) & SWAPCACHE
    holds(host)


@pytest.mark.parametrize(("rules", "marked"), [("6.12", True), ("7.3", False)])
def test_a_guests_store_to_a_slot_that_a_child_names_makes_its_own_fault_stale(rules, marked) -> None:
    """The copy tells the notifiers though no MMU maps the page; KVM lets it go and faults again (6.12.118, seed 20266)."""
    host, mm, kvm = vm(rules, 1)
    mm.cpu_access(pages(0, 5), write=True)
    host.drain()
    swap_out(mm, np.array([5]), np.array([5]), np.array([40], np.int64))
    fork(mm, "c")
    kvm.access(pages(0, 5), write=True)
    assert bool(flags(mm, 5) & REFERENCED) is marked
    holds(host)


@pytest.mark.parametrize("rules", ["6.1", "6.12", "7.3"])
def test_what_another_has_read_in_is_mlocked_at_once_when_a_locked_area_maps_it(rules) -> None:
    """mlock populates by stores: the child's page is mapped, mlocked and copied, and is no longer active (7.3.4, seed 20262)."""
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, 5), write=True)
    host.drain()
    swap_out(mm, np.array([5]), np.array([5]), np.array([40], np.int64))
    child = fork(mm, "c")
    child.cpu_access(pages(0, 5), write=False)
    host.drain()
    assert flags(child, 5) & ACTIVE
    mlock(mm, 5, 6)
    host.drain()
    assert mm.pfn(5) != child.pfn(5) and not flags(child, 5) & ACTIVE
    holds(host)
