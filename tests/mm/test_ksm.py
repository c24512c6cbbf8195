"""KSM: equal pages become one read-only page, and secondary MMUs follow."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm import ksm
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mempolicy import change_prot_numa
from secondsight.mm.mprotect import mprotect
from secondsight.mm.mremap import there_and_back
from secondsight.mm.page import KSM
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.userfaultfd import register
from support.model import KERNELS, flags, holds, pages, vm


def merged(rules: str):
    host, mm, kvm = vm(rules, 1)
    mm.cpu_access(pages(0, 1, 2, 3), write=True, value=7)
    mm.cpu_access(pages(0, 4), write=True, value=8)
    mm.cpu_access(pages(0, 5), write=True)
    host.drain()
    kvm.access(pages(0, 1, 2, 4), write=False)
    host.drain()
    madvise(mm, 0, 512, "mergeable")
    assert ksm.merge(host) == 2
    return host, mm, kvm


@pytest.mark.parametrize("rules", KERNELS)
def test_equal_pages_become_one(rules) -> None:
    host, mm, _ = merged(rules)
    kept = mm.pfn(1)
    assert mm.pfn(2) == mm.pfn(3) == kept and mm.pfn(4) != kept
    assert flags(mm, 1) & KSM and not flags(mm, 4) & KSM
    assert host.frames.arrays.mapcount[kept] == host.frames.arrays.refcount[kept] == 3
    assert not mm.arrays.pte[1] & x86.RW
    holds(host)
    assert ksm.merge(host) == 0, "nothing is left to do"


@pytest.mark.parametrize("rules", KERNELS)
def test_an_entry_that_changes_over_is_young_and_unprotected_whatever_it_was(rules) -> None:
    """replace_page makes it anew from the area's protection; the page that stays keeps its entry (booted: 5.10, 6.1, 7.3)."""
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, 1, 2, 3), write=True, value=7)
    host.drain()
    mm.arrays.pte[1:4] |= x86.UFFD_WP
    clear_refs(mm)
    madvise(mm, 0, 512, "mergeable")
    ksm.merge(host)
    entries = mm.arrays.pte[1:4]
    assert ((entries & x86.ACCESSED) != 0).tolist() == [True, False, True]
    assert ((entries & x86.UFFD_WP) != 0).tolist() == [False, True, False]
    assert not (entries & (x86.RW | x86.DIRTY)).any()
    holds(host)


@pytest.mark.parametrize(
    ("rules", "follows"), [("2.6.38", True), ("6.1", False), ("6.12", False), ("7.2", False)]
)
def test_secondary_entries_change_over_or_go(rules, follows) -> None:
    """Without the invalidation around it (before 3.7) change_pte moved the SPTE to the new page, read-only and old."""
    _, mm, kvm = merged(rules)
    sptes = kvm.sptes(2)
    assert bool(sptes) == follows
    if follows:
        (_, _, entry) = sptes[0]
        assert int((entry & x86.PFN_MASK) >> np.uint64(12)) == mm.pfn(1)
        assert not entry & kvm.layout.writable and not entry & kvm.layout.accessed
    assert kvm.sptes(4), "a page that was not merged stays mapped"


@pytest.mark.parametrize("rules", KERNELS)
def test_a_write_breaks_the_merge(rules) -> None:
    host, mm, _ = merged(rules)
    mm.cpu_access(pages(0, 2), write=True)
    assert mm.pfn(2) != mm.pfn(1) and mm.arrays.pte[2] & x86.RW and not flags(mm, 2) & KSM
    holds(host)
    madvise(mm, 0, 512, "unmergeable")
    assert mm.pfn(1) != mm.pfn(3)
    holds(host)


@pytest.mark.parametrize(("rules", "dirty"), [("5.10", True), ("6.1", True), ("6.12", False), ("7.3", False)])
@pytest.mark.parametrize("prot", ["none", "r", "rw"])
def test_ksm_pages_are_broken_whatever_their_area_permits(rules, dirty, prot) -> None:
    """break_ksm: handle_mm_fault does not ask the area, and the copy's entry is what that permits. 6.1's follow_page finds nothing behind
    a PROT_NONE entry (`*-npt-unmerged`)."""
    host, mm, kvm = merged(rules)
    kept = mm.pfn(1)
    kvm.access(pages(0, 2), write=False)
    mprotect(mm, 0, 512, prot)
    madvise(mm, 0, 512, "unmergeable")
    holds(host)
    assert mm.denied == 0
    if (rules, prot) == ("6.1", "none"):
        assert mm.pfn(1) == mm.pfn(2) == mm.pfn(3) == kept and flags(mm, 2) & KSM
        return
    assert len({mm.pfn(1), mm.pfn(2), mm.pfn(3), kept}) == 4
    assert not kvm.sptes(2), "the copy is told to secondary MMUs"
    for page in (1, 2, 3):
        entry = mm.arrays.pte[page]
        assert bool(entry & x86.PRESENT) == (prot != "none") and bool(entry & x86.PROTNONE) == (
            prot == "none"
        )
        assert bool(entry & x86.DIRTY) == dirty and bool(entry & x86.RW) == (dirty and prot == "rw")
        assert entry & x86.ACCESSED and not flags(mm, page) & KSM
    mprotect(mm, 0, 512, "rw")
    mm.cpu_access(pages(0, 1, 2, 3), write=True, value=9)
    holds(host)


@pytest.mark.parametrize("rules", ["5.10", "6.12"])
def test_mremap_breaks_what_may_not_be_accessed(rules) -> None:
    host, mm, _ = merged(rules)
    mprotect(mm, 0, 512, "none")
    assert there_and_back(mm, 1, 4) is None
    assert len({mm.pfn(1), mm.pfn(2), mm.pfn(3)}) == 3 and not flags(mm, 2) & KSM
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_what_is_broken_keeps_its_content_and_is_merged_again(rules) -> None:
    host, mm, _ = merged(rules)
    madvise(mm, 0, 512, "unmergeable")
    assert mm.pfn(1) != mm.pfn(3)
    madvise(mm, 0, 512, "mergeable")
    ksm.merge(host)
    assert mm.pfn(1) == mm.pfn(2) == mm.pfn(3) and flags(mm, 1) & KSM
    holds(host)


@pytest.mark.parametrize(
    ("rules", "broken"), [("5.10", False), ("6.1", False), ("6.12", True), ("7.3", True)]
)
def test_what_userfaultfd_protects_is_broken_only_without_a_write_fault(rules, broken) -> None:
    """handle_userfault refuses a write fault that may not wait; FAULT_FLAG_UNSHARE does not ask it, and keeps the protection."""
    host, mm, kvm = vm(rules, 1)
    mm.cpu_access(pages(0, 1, 2, 3), write=True, value=7)
    host.drain()
    assert register(mm, 2, 3, "wp") is None
    madvise(mm, 0, 512, "mergeable")
    ksm.merge(host)
    kvm.access(pages(0, 2), write=False)
    assert flags(mm, 2) & KSM and mm.arrays.pte[2] & x86.UFFD_WP
    madvise(mm, 0, 512, "unmergeable")
    assert bool(flags(mm, 2) & KSM) != broken and mm.arrays.pte[2] & x86.UFFD_WP
    assert bool(kvm.sptes(2)) != broken, "a copy alone is told to secondary MMUs"
    assert not flags(mm, 1) & KSM and not mm.arrays.pte[1] & x86.UFFD_WP
    holds(host)


@pytest.mark.parametrize(("rules", "found"), [("5.10", True), ("6.1", False), ("6.12", True)])
def test_a_page_that_waits_behind_a_prot_none_entry_is_found_or_not(rules, found) -> None:
    """get_mergeable_page: 6.1 does not find it, so that its equals wait for ever. ksmd's own walk does, and merges it with a KSM page."""
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, 1, 2, 3), write=True, value=7)
    mm.cpu_access(pages(0, 11, 12, 13), write=True, value=8)
    host.drain()
    mprotect(mm, 1, 2, "none")
    mprotect(mm, 12, 13, "none")
    madvise(mm, 0, 512, "mergeable")
    ksm.merge(host)
    assert (mm.pfn(1) == mm.pfn(2) == mm.pfn(3)) == found
    assert mm.pfn(11) == mm.pfn(12) == mm.pfn(13) and mm.arrays.pte[12] & x86.PROTNONE
    holds(host)


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_an_entry_that_changes_over_is_no_longer_numa_balancings(rules) -> None:
    """replace_page: mk_pte of the area's protection; the page that stays keeps its entry (booted: 6.12, 7.3)."""
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, 1, 2, 3), write=True, value=7)
    host.drain()
    change_prot_numa(mm)
    madvise(mm, 0, 512, "mergeable")
    ksm.merge(host)
    assert mm.pfn(1) == mm.pfn(2) == mm.pfn(3)
    entries = mm.arrays.pte[1:4]
    assert ((entries & x86.PRESENT) != 0).tolist() == [True, False, True]
    assert ((entries & x86.PROTNONE) != 0).tolist() == [False, True, False]
    holds(host)


@pytest.mark.parametrize("rules", ["5.10", "6.1", "7.3"])
def test_two_pages_of_one_huge_page_only_split_it(rules) -> None:
    """cmp_and_merge_page: the third of a kind finds the first, and is the one that stays (booted: 5.10)."""
    host, mm, _ = vm(rules, 1)
    madvise(mm, 0, 512, "hugepage")
    mm.cpu_access(np.arange(512), write=True)
    mm.cpu_access(pages(0, 7, 8, 300), write=True, value=7)
    third = mm.pfn(300)
    madvise(mm, 0, 512, "mergeable")
    ksm.merge(host, {mm.name: {7, 8, 300}})
    assert mm.pfn(7) == mm.pfn(8) == mm.pfn(300) == third and flags(mm, 300) & KSM
    holds(host)


def test_only_mergeable_areas_are_merged() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1, 2, 3), write=True, value=7)
    host.drain()
    assert ksm.merge(host) == 0, "no area is mergeable"
    madvise(mm, 0, 3, "mergeable")
    assert ksm.merge(host, {}) == 0, "a kernel was seen to have missed them"
    assert ksm.merge(host, {"p": {1, 2}}) == 1
    assert mm.pfn(1) == mm.pfn(2) != mm.pfn(3)
    holds(host)


@pytest.mark.parametrize(("rules", "writable"), [("6.1", True), ("6.12", False)])
def test_what_meets_only_a_pinned_page_is_broken_again(rules, writable) -> None:
    host = Host(rules)
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1, 2), write=True, value=7)
    host.drain()
    mm.pin(pages(0, 1), "pipe")
    madvise(mm, 0, 512, "mergeable")
    before = mm.pfn(2)
    assert ksm.merge(host, {}) == 0
    assert mm.pfn(2) not in (before, mm.pfn(1)) and not flags(mm, 2) & KSM
    assert bool(mm.arrays.pte[2] & x86.RW) == writable
    holds(host)


@pytest.mark.parametrize("mmu", ["npt", "shadow"])
def test_a_page_that_its_unmapping_activates_is_merged_a_scan_later(mmu) -> None:
    host, mm, kvm = vm("6.1", 1, mmu=mmu)
    mm.cpu_access(pages(0), write=True)
    host.drain()
    clear_refs(mm)
    kvm.access(pages(0), write=False)
    mm.cpu_access(pages(0, 14, 148), write=True, value=7)
    host.drain()
    first = mm.pfn(148)
    madvise(mm, 0, 512, "mergeable")
    ksm.merge(host)
    host.drain()
    assert mm.pfn(14) == mm.pfn(148) and flags(mm, 14) & KSM
    # With shadow paging both were prefetched, so referenced and inactive: the zap activates them, and what was kept first was broken.
    assert (mm.pfn(148) == first) == (mmu == "npt")
    holds(host)


def test_a_pinned_page_is_not_merged() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1, 2), write=True, value=7)
    host.drain()
    mm.pin(pages(0, 1), "io")
    madvise(mm, 0, 512, "mergeable")
    assert ksm.merge(host) == 0


def test_a_guests_store_gives_a_page_a_content_of_its_own() -> None:
    host, mm, kvm = vm("6.1", 1)
    mm.cpu_access(pages(0, 1, 2), write=True, value=7)
    host.drain()
    kvm.access(pages(0, 2), write=True)
    host.drain()
    madvise(mm, 0, 512, "mergeable")
    assert ksm.merge(host) == 0


def test_a_denied_store_leaves_the_content() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1), write=True, value=7)
    mm.cpu_access(pages(0, 2), write=True, value=8)
    host.drain()
    mprotect(mm, 0, 512, "r")
    mm.cpu_access(pages(0, 2), write=True, value=7)
    assert mm.denied == 1
    madvise(mm, 0, 512, "mergeable")
    assert ksm.merge(host) == 0
