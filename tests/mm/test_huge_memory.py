"""Collapse's effects, what a failed one leaves, and the splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pte as x86
from secondsight.errors import UsageError
from secondsight.mm import pgtable
from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.huge_memory import split_block_pmd, split_folio, split_huge
from secondsight.mm.khugepaged.attempt import collapse_huge_page
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.madvise import madvise
from secondsight.mm.mprotect import mprotect
from secondsight.mm.page import ACTIVE, ANON, HEAD, HUGE_ZERO_PFN, LRU, REFERENCED, TAIL, ZERO_FILLED
from secondsight.mm.task_mmu import clear_refs
from support.model import KERNELS, flags, holds, pages, vm


def filled(rules: str, wanted: np.ndarray, **config: object):
    host = Host(rules, HostConfig(**config))
    mm = host.mm("p", 1)
    mm.cpu_access(wanted, write=True)
    host.drain()
    madvise(mm, 0, 512, "hugepage")
    return host, mm


@pytest.mark.parametrize("rules", KERNELS)
def test_a_new_huge_page_is_young_dirty_and_unreferenced(rules) -> None:
    host, mm = filled(rules, pages(0))
    f = host.frames.arrays
    for page in range(0, 512, 2):
        f.flags[mm.pfn(page)] |= REFERENCED | ACTIVE
    mm.arrays.pte[:511] &= ~(x86.ACCESSED | x86.DIRTY)
    mm.notifiers.calls.clear()
    look = collapse_huge_page(mm, 0, khugepaged=True, unmapped=0).isolate
    assert look.passed[0]
    pmd = mm.arrays.pmd[0]
    assert pmd & x86.PSE and pmd & x86.ACCESSED and pmd & x86.DIRTY and pmd & x86.RW
    head = mm.folio(0)
    f = host.frames.arrays
    assert f.flags[head] & HEAD and (f.flags[head + 1 : head + 512] & TAIL).all()
    assert not f.flags[head] & REFERENCED
    host.drain()
    assert bool(flags(mm, 0) & ACTIVE) == host.rules.huge_folio_active and flags(mm, 0) & LRU
    assert not mm.arrays.pte.any(), "the page table is empty"
    holds(host)


@given(st.sets(st.integers(0, 511), min_size=1), st.sampled_from(["6.1", "6.12", "6.18", "7.2"]))
@settings(max_examples=25, deadline=None)
def test_collapse_keeps_what_was_populated_and_adds_only_zeroes(populated, rules) -> None:
    host, mm = filled(rules, np.array(sorted(populated)))
    before = host.frames.in_use
    look = collapse_huge_page(mm, 0, khugepaged=True, unmapped=0).isolate
    assert look.passed[0] and look.none_or_zero[0] == 512 - len(populated)
    head = mm.folio(0)
    zero = host.frames.arrays.flags[head : head + 512] & ZERO_FILLED != 0
    assert set(np.flatnonzero(~zero).tolist()) == populated
    assert host.frames.in_use == before - len(populated) + 512
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_failed_collapse_gives_everything_back_but_the_secondary_entries(rules) -> None:
    host, mm, kvm = vm(rules, 1)
    mm.cpu_access(pages(0), write=True)
    kvm.access(pages(0), write=True)
    host.drain()
    mm.pin(pages(0, 400), "io")
    before = mm.arrays.pte.copy()
    look = collapse_huge_page(mm, 0, khugepaged=True, unmapped=0).isolate
    assert Scan(look.code[0]) == Scan.PAGE_COUNT and look.stopped[0] == 400
    assert np.array_equal(mm.arrays.pte, before) and not kvm.sptes(0)
    host.drain()
    assert all(flags(mm, p) & LRU for p in range(512))
    holds(host)


def test_the_caller_asks_about_limits_again_in_isolate() -> None:
    host, mm = filled("6.1", pages(0, range(500)), knobs=Knobs(max_ptes_none=11))
    look = collapse_huge_page(mm, 0, khugepaged=True, unmapped=0).isolate
    assert Scan(look.code[0]) == Scan.EXCEED_NONE_PTE
    # What isolate had taken off the LRU waits in a batch.
    host.drain()
    look = collapse_huge_page(mm, 0, khugepaged=False, unmapped=0).isolate
    assert look.passed[0]
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_split_pmd_keeps_the_folio_whole_and_every_bit(rules) -> None:
    host = Host(rules, HostConfig(thp_enabled="always"))
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 0), write=True)
    host.drain()
    clear_refs(mm)
    head = mm.folio(0)
    split_block_pmd(mm, 0)
    assert not mm.arrays.pmd[0] & x86.PSE
    assert [mm.pfn(p) for p in (0, 1, 511)] == [head, head + 1, head + 511]
    assert not (mm.arrays.pte & x86.ACCESSED).any() and (mm.arrays.pte & x86.RW).all()
    assert host.frames.arrays.flags[head] & HEAD and mm.folio(511) == head
    holds(host)
    split_block_pmd(mm, 0)
    holds(host)


@pytest.mark.parametrize("referenced", [True, False])
def test_the_tails_of_a_split_folio_inherit_referenced(referenced) -> None:
    host = Host("6.1", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 0), write=True)
    host.drain()
    clear_refs(mm)
    if referenced:
        mm.pin(pages(0, 5), "io")
        mm.unpin("io")
    assert split_huge(mm, 0)
    for page in (0, 5, 511):
        got = flags(mm, page)
        assert bool(got & REFERENCED) == referenced
        assert got & ANON and got & LRU and not got & (HEAD | TAIL)
    holds(host)


def test_a_pinned_or_missing_folio_is_not_split() -> None:
    host = Host("6.1", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 2)
    assert not split_huge(mm, 0)
    mm.cpu_access(pages(0, 0), write=True)
    mm.pin(pages(0, 5), "io")
    assert not split_huge(mm, 0) and mm.arrays.pmd[0] & x86.PSE
    mm.cpu_access(pages(1, 0), write=False)
    assert not split_huge(mm, 1), "the huge zero page is nobody's to split"
    assert mm.arrays.pmd[1] & x86.PSE
    with pytest.raises(UsageError, match="block 2 lies outside"):
        split_huge(mm, 2)
    holds(host)


def test_a_folio_shared_by_fork_splits_in_both() -> None:
    host = Host("6.1", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0), write=True)
    child = fork(mm, "c")
    assert child.folio(0) == mm.folio(0)
    assert split_huge(mm, 0)
    assert child.pfn(7) == mm.pfn(7) and not flags(child, 7) & (HEAD | TAIL)
    holds(host)


def test_a_pte_mapped_huge_page_can_be_collapsed_again() -> None:
    host = Host("6.12", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0), write=True)
    host.drain()
    split_block_pmd(mm, 0)
    seen = []
    host.khugepaged.on_visit = lambda v: seen.append(str(v.status))
    host.khugepaged.full_scan()
    assert seen == ["succeeded"] and mm.arrays.pmd[0] & x86.PSE
    holds(host)


@pytest.mark.parametrize("advice", ["mergeable", "nohugepage"])
def test_an_area_cut_inside_a_huge_page_splits_its_pmd(advice) -> None:
    host = Host("6.1", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 2)
    mm.cpu_access(pages(0), write=True)
    mm.cpu_access(pages(1), write=True)
    madvise(mm, 7, 1024, advice)
    assert not mm.arrays.pmd[0] & x86.PSE and mm.arrays.pmd[1] & x86.PSE
    child = fork(mm, "c")
    assert child.pfn(0) == mm.pfn(0)
    holds(host)
    split_huge(mm, 1)
    mm.cpu_access(pages(0, 0), write=True)
    holds(host)


@pytest.mark.parametrize("advice", ["mergeable", "nohugepage"])
def test_an_area_so_advised_already_is_not_cut(advice) -> None:
    """madvise_update_vma: new_flags == vma->vm_flags; of other advice the same range is cut, and the PMD split."""
    host = Host("6.1", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 2)
    mm.cpu_access(pages(0), write=True)
    mm.cpu_access(pages(1), write=True)
    madvise(mm, 512, 1024, advice)
    areas = [(vma.start, vma.end) for vma in mm.vmas.areas]
    madvise(mm, 600, 700, advice)
    assert [(vma.start, vma.end) for vma in mm.vmas.areas] == areas and mm.arrays.pmd[1] & x86.PSE
    madvise(mm, 600, 700, "hugepage")
    assert [(vma.start, vma.end) for vma in mm.vmas.areas] != areas and not mm.arrays.pmd[1] & x86.PSE
    holds(host)


def test_a_split_tells_the_guest_s_use_of_the_whole_folio() -> None:
    host, mm, kvm = vm("6.12", 1)
    madvise(mm, 0, 512, "hugepage")
    mm.cpu_access(pages(0), write=True)
    split_block_pmd(mm, 0)
    host.drain()
    kvm.access(pages(0, 5), write=False)
    assert split_huge(mm, 0)
    assert flags(mm, 5) & REFERENCED and flags(mm, 300) & REFERENCED, (
        "its zap marked the head, and tails inherit"
    )
    holds(host)


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_the_pages_of_a_split_folio_are_dirty_where_an_entry_was(rules) -> None:
    """try_to_migrate: so MADV_FREE passes over them where they are shared (7.3.4, seed 7311)."""
    host = Host(rules, HostConfig(thp_enabled="never", sizes=Sizes(kb16="always")))
    mm = host.mm("m", 1)
    mm.cpu_access(np.arange(8), write=True, value=1)
    assert split_folio(mm, 0)
    fork(mm, "child")
    madvise(mm, 0, 8, "free")
    dirty = [bool(mm.arrays.pte[page] & np.uint64(x86.DIRTY)) for page in range(8)]
    # The second folio stayed whole, and was never dirty itself.
    assert dirty == [True] * 4 + [False] * 4


@pytest.mark.parametrize("rules", KERNELS)
def test_the_huge_zero_page_splits_into_what_the_area_permits(rules) -> None:
    host = Host(rules, HostConfig())
    mm = host.mm("p", 1)
    madvise(mm, 0, 512, "hugepage")
    mm.cpu_access(pages(0, 7), write=False)
    if pgtable.pfn_of(mm.arrays.pmd[0]) != HUGE_ZERO_PFN:
        return  # before 3.8 there is none
    mprotect(mm, 0, 512, "none")
    split_block_pmd(mm, 0)
    assert (mm.arrays.pte & x86.PROTNONE).all() and not (mm.arrays.pte & x86.PRESENT).any()
    mprotect(mm, 0, 512, "rw")
    assert (mm.arrays.pte & x86.PRESENT).all() and not (mm.arrays.pte & x86.PROTNONE).any()
    holds(host)
