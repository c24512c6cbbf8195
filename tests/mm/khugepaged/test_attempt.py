"""collapse_huge_page below the PMD order: what a part of a block becomes, and what a refused part leaves behind."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from secondsight.bits.pte import ACCESSED, DIRTY, PROTNONE, RW
from secondsight.geometry import ANON_ORDERS, HPAGE_PMD_NR, kb_of_order
from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.khugepaged.attempt import collapse_huge_page
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.khugepaged.scan import scan
from secondsight.mm.madvise import madvise
from secondsight.mm.mprotect import mprotect
from secondsight.mm.observe import of_model
from secondsight.mm.page import HEAD, LRU, REFERENCED, SWAPCACHE, check, folio_order
from secondsight.mm.profiles import PROFILES
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vmscan import swap_out
from secondsight.mmu.kvm import Kvm

WITH_PARTS = ("7.2",)


def sizes(*orders: int) -> Sizes:
    """The PMD order, and *orders*, switched on by what the global switch says."""
    return Sizes(**{f"kb{kb_of_order(order)}": "inherit" for order in orders})


def small_block(rules: str, *orders: int, **config) -> tuple:
    """A host, and an mm with one block of 512 small pages that the CPU wrote and khugepaged knows."""
    host = Host(rules, HostConfig(thp_enabled="never", **config))
    mm = host.mm("mm", 1)
    mm.cpu_access(np.arange(HPAGE_PMD_NR), write=True)
    host.drain()
    host.configure(HostConfig(thp_enabled="always", sizes=sizes(*orders), **config))
    host.khugepaged.enter_vma(mm, mm.vmas.areas[0])
    return host, mm


def visit(host) -> object:
    seen = []
    host.khugepaged.on_visit = seen.append
    host.khugepaged.full_scan()
    host.khugepaged.on_visit = None
    (one,) = seen
    check(host.frames)
    return one


def orders_of(host, mm) -> list[int]:
    """The order of each page's folio; -1 where none is mapped."""
    f = host.frames.arrays
    return [int(folio_order(f, mm.pfn(page))) if mm.pfn(page) >= 0 else -1 for page in range(mm.npages)]


@pytest.mark.parametrize("order", ANON_ORDERS[:-1])
@pytest.mark.parametrize("rules", WITH_PARTS)
def test_a_part_becomes_one_folio_and_its_neighbours_stay(rules, order) -> None:
    host, mm = small_block(rules, order)
    offset, pages = 1 << order, 1 << order
    before = [mm.pfn(page) for page in range(HPAGE_PMD_NR)]
    in_use = host.frames.in_use
    attempt = collapse_huge_page(mm, 0, khugepaged=True, unmapped=0, order=order, offset=offset)
    assert attempt.status == ScanResult.SUCCEED and host.frames.in_use == in_use
    inside = range(offset, offset + pages)
    got = orders_of(host, mm)
    assert all(got[page] == (order if page in inside else 0) for page in range(HPAGE_PMD_NR))
    assert all(mm.pfn(page) == before[page] for page in range(HPAGE_PMD_NR) if page not in inside)
    head = mm.pfn(offset)
    assert [mm.pfn(page) for page in inside] == list(range(head, head + pages))
    f = host.frames.arrays
    assert (
        f.refcount[head] == pages
        and f.flags[head] & (HEAD | LRU) == HEAD | LRU
        and not f.flags[head] & REFERENCED
    )
    pte = mm.arrays.pte[offset : offset + pages]
    assert bool(((pte & (ACCESSED | DIRTY | RW)) == ACCESSED | DIRTY | RW).all())
    check(host.frames)


@pytest.mark.parametrize("rules", WITH_PARTS)
def test_what_is_read_only_or_inaccessible_is_mapped_so(rules) -> None:
    _, mm = small_block(rules, 4)
    mprotect(mm, 0, HPAGE_PMD_NR, "none")
    assert (
        collapse_huge_page(mm, 0, khugepaged=True, unmapped=0, order=4, offset=32).status
        == ScanResult.SUCCEED
    )
    pte = mm.arrays.pte[32:48]
    assert bool(((pte & PROTNONE) != 0).all()) and not (pte & (RW | DIRTY)).any()


@pytest.mark.parametrize("rules", WITH_PARTS)
def test_only_the_candidate_is_invalidated(rules) -> None:
    host, mm = small_block(rules, 4)
    kvm = Kvm(mm)
    kvm.slot_add(0, 0, 0, HPAGE_PMD_NR)
    kvm.access(np.arange(HPAGE_PMD_NR), write=True)
    host.drain()
    collapse_huge_page(mm, 0, khugepaged=True, unmapped=0, order=4, offset=16)
    young = np.zeros(HPAGE_PMD_NR, np.bool_)
    for _, _, yes in mm.notifiers.test_young(0, HPAGE_PMD_NR, np.ones(HPAGE_PMD_NR, np.bool_)):
        young |= yes
    assert young.sum() == HPAGE_PMD_NR - 16 and not young[16:32].any()


@pytest.mark.parametrize(("orders", "attempts"), [((), 1), ((4,), 33), (ANON_ORDERS[:-1], 255)])
@pytest.mark.parametrize("mglru", [False, True])
@pytest.mark.parametrize("rules", WITH_PARTS)
def test_a_block_that_only_the_guest_uses_is_refused_in_every_part(rules, mglru, orders, attempts) -> None:
    """As booted kernels answer: 1, 33, 255 begun and refused collapses in one pass; what the first leave in the LRU batch others meet."""
    host, mm = small_block(rules, *orders, mglru=mglru)
    kvm = Kvm(mm)
    kvm.slot_add(0, 0, 0, HPAGE_PMD_NR)
    kvm.access(np.arange(HPAGE_PMD_NR), write=True)
    host.drain()
    clear_refs(mm)
    host.frames.arrays.flags[[mm.pfn(page) for page in range(HPAGE_PMD_NR)]] &= ~REFERENCED
    kvm.access(np.arange(HPAGE_PMD_NR), write=True)
    host.drain()
    one = visit(host)
    results = Counter(str(attempt.status) for attempt in one.attempts)
    assert len(one.attempts) == attempts, results
    assert set(results) <= {"lack_referenced_page", "not_suitable_page_count"}
    assert results["lack_referenced_page"] > 0 and (attempts == 1 or results["not_suitable_page_count"] > 0)
    assert str(one.status) == str(one.attempts[-1].status)
    assert set(orders_of(host, mm)) == {0} and host.khugepaged.wasted == 1


@pytest.mark.parametrize("rules", WITH_PARTS)
def test_with_the_pmd_order_off_parts_alone_are_tried(rules) -> None:
    host, mm = small_block(rules, 6)
    host.configure(HostConfig(thp_enabled="always", sizes=Sizes(kb256="always", kb2048="never")))
    one = visit(host)
    assert [(a.order, a.offset) for a in one.attempts] == [(6, at) for at in range(0, 512, 64)]
    assert one.status == ScanResult.SUCCEED and set(orders_of(host, mm)) == {6}
    assert host.khugepaged.pages_collapsed == 1
    # A second pass finds folios as large as it could make: no candidate is left, and the result says no more than that.
    again = visit(host)
    assert {str(a.status) for a in again.attempts} == {"pte_mapped_hugepage"}
    assert str(again.status) == "failed"


@pytest.mark.parametrize("rules", WITH_PARTS)
def test_an_entry_in_swap_ends_a_part_before_anything_is_invalidated(rules) -> None:
    host, mm = small_block(rules, 4)
    host.configure(HostConfig(thp_enabled="always", sizes=Sizes(kb64="always", kb2048="never")))
    swap_out(mm, np.array([5]))
    mm.cpu_access(np.setdiff1d(np.arange(HPAGE_PMD_NR), [5]), write=True)
    host.drain()
    one = visit(host)
    # The part has a hole in the bitmap of present pages, which max_ptes_none 511 tolerates.
    assert str(one.attempts[0].status) == "exceed_swap_pte"
    assert one.attempts[0].swapped_in == 0 and one.attempts[0].isolate is None
    assert {str(a.status) for a in one.attempts[1:]} == {"succeeded"}
    assert orders_of(host, mm)[5] == -1


@pytest.mark.parametrize(("none", "tried"), [(511, 32), (0, 31), (300, 31)])
@pytest.mark.parametrize("rules", WITH_PARTS)
def test_a_hole_in_a_part_is_tolerated_only_with_the_largest_limit(rules, none, tried) -> None:
    host, mm = small_block(rules, 4)
    host.configure(
        HostConfig(
            thp_enabled="always", sizes=Sizes(kb64="always", kb2048="never"), knobs=Knobs(max_ptes_none=none)
        )
    )
    madvise(mm, 3, 4, "dontneed")
    one = visit(host)
    assert len(one.attempts) == tried
    assert orders_of(host, mm)[3] == (4 if none == 511 else -1)


@pytest.mark.parametrize("rules", WITH_PARTS)
def test_a_shared_page_is_not_tolerated_below_the_pmd_order(rules) -> None:
    host, mm = small_block(rules, 4)
    host.configure(HostConfig(thp_enabled="always", sizes=Sizes(kb64="always", kb2048="never")))
    child = fork(mm, "child")
    child.cpu_access(np.arange(16, HPAGE_PMD_NR), write=True)
    mm.cpu_access(np.arange(16, HPAGE_PMD_NR), write=True)
    host.drain()
    seen = []
    host.khugepaged.on_visit = seen.append
    host.khugepaged.full_scan()
    mine = next(v for v in seen if v.mm is mm)
    assert str(mine.attempts[0].status) == "exceed_shared_pte"
    assert {str(a.status) for a in mine.attempts[1:]} == {"succeeded"}


@pytest.mark.parametrize("rules", ["6.12", "7.2"])
def test_a_large_folio_in_the_swap_cache_has_a_reference_for_each_of_its_pages(rules) -> None:
    host, mm = small_block("7.2", 4)
    assert (
        collapse_huge_page(mm, 0, khugepaged=True, unmapped=0, order=4, offset=0).status == ScanResult.SUCCEED
    )
    f, head = host.frames.arrays, mm.pfn(0)
    f.flags[head] |= SWAPCACHE
    for references, status in (
        (16, ScanResult.SUCCEED),
        (1, ScanResult.PAGE_COUNT),
        (512, ScanResult.PAGE_COUNT),
    ):
        f.refcount[head] += references
        scanned = scan(of_model(mm, [0]), host.config.knobs, PROFILES[rules])
        assert ScanResult(int(scanned.code[0])) == status, references
        f.refcount[head] -= references
    f.flags[head] &= ~SWAPCACHE


@pytest.mark.parametrize("rules", ["6.12", "6.18"])
def test_kernels_before_it_try_the_whole_block_alone(rules) -> None:
    host, _ = small_block(rules, 4, 2)
    one = visit(host)
    assert [(a.order, a.offset) for a in one.attempts] == [(9, 0)] and one.status == ScanResult.SUCCEED


@pytest.mark.parametrize("rules", WITH_PARTS)
def test_madv_collapse_makes_whole_blocks_alone(rules) -> None:
    host, mm = small_block(rules, 4)
    host.configure(HostConfig(thp_enabled="always", sizes=Sizes(kb64="always", kb2048="never")))
    assert madvise(mm, 0, HPAGE_PMD_NR, "collapse") is None
    assert set(orders_of(host, mm)) == {9}
