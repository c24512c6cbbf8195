"""NUMA balancing's scan and the fault that undoes it: which entries, with what bits, and what secondary MMUs lose."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits.pageflags import REFERENCED
from secondsight.bits.pte import ACCESSED, DIRTY, PRESENT, PROTNONE, PSE, RW, pte_present
from secondsight.errors import UsageError
from secondsight.mm import fork, huge_memory, madvise, mprotect, task_mmu
from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.host import Host
from secondsight.mm.mempolicy import change_prot_numa
from secondsight.mm.mm_struct import Mm
from secondsight.mmu.kvm import Kvm
from support.model import holds


def _mm(rules: str = "7.3", pages: int = 64) -> Mm:
    mm = Host(rules).mm("p", 1)
    mm.cpu_access(np.arange(pages), write=True)
    mm.host.drain()
    return mm


def _marked(mm: Mm) -> list[int]:
    pte = mm.arrays.pte
    return [int(p) for p in np.flatnonzero((pte & PROTNONE != 0) & (pte & PRESENT == 0))]


def _one(page: int) -> np.ndarray:
    return np.array([page], np.int64)


@pytest.mark.parametrize(("rules", "writable"), [("6.1", True), ("6.12", False), ("7.3", False)])
def test_a_marked_entry_keeps_its_bits_and_its_write_permission_up_to_6_1(rules, writable):
    mm = _mm(rules)
    before = mm.arrays.pte.copy()
    change_prot_numa(mm)
    assert _marked(mm) == list(range(64))
    after = mm.arrays.pte
    assert bool(pte_present(after[:64]).all())
    for bit in (ACCESSED, DIRTY):
        assert np.array_equal(after & bit, before & bit)
    assert bool((after[:64] & RW).all()) == writable == bool((after[:64] & RW).any())
    holds(mm.host)


@pytest.mark.parametrize("rules", ["6.1", "7.3"])
@pytest.mark.parametrize("write", [False, True])
def test_the_next_access_takes_one_entry_back_writable_where_its_page_is_the_processs_own(rules, write):
    mm = _mm(rules)
    task_mmu.clear_refs(mm)
    change_prot_numa(mm)
    mm.cpu_access(_one(5), write=write)
    assert _marked(mm) == [p for p in range(64) if p != 5]
    assert mm.arrays.pte[5] & PRESENT and mm.arrays.pte[5] & RW and mm.arrays.pte[5] & ACCESSED
    holds(mm.host)


@pytest.mark.parametrize(("rules", "kept"), [("6.1", True), ("6.12", True), ("6.18", False), ("7.3", False)])
def test_what_only_the_guests_mmu_knew_is_lost_since_6_13(rules, kept):
    mm = _mm(rules)
    kvm = Kvm(mm)
    kvm.slot_add(0, 0, 0, mm.npages)
    kvm.access(np.arange(16), write=False)
    mm.host.drain()
    task_mmu.clear_refs(mm)
    assert bool(mm.notifiers.test_young(3, 4, np.ones(1, np.bool_))[0][2][0])
    change_prot_numa(mm)
    assert not kvm.sptes(3)
    flags = mm.host.frames.arrays.flags[[mm.pfn(p) for p in range(16)]]
    assert bool((flags & REFERENCED).all()) == kept == bool((flags & REFERENCED).any())
    kvm.access(_one(3), write=False)
    assert len(kvm.sptes(3)) == 1 and mm.arrays.pte[3] & PRESENT, "KVM asks for the hinting fault"
    holds(mm.host)


def test_zero_pages_shared_pages_and_what_is_inaccessible_stay_as_they_are():
    mm = _mm()
    mm.cpu_access(_one(100), write=False)  # the zero page
    mprotect.mprotect(mm, 8, 16, "none")
    child = fork.fork(mm, "c")
    child.cpu_access(np.arange(32, 64), write=True)
    before = mm.arrays.pte.copy()
    change_prot_numa(mm)
    assert [p for p in range(512) if mm.arrays.pte[p] != before[p]] == list(range(32, 64))
    mprotect.mprotect(mm, 8, 16, "rw")
    holds(mm.host)


@pytest.mark.parametrize(("rules", "marked"), [("6.1", False), ("7.3", True)])
def test_who_holds_a_page_without_a_dma_pin_keeps_6_1_from_it(rules, marked):
    mm = _mm(rules)
    mm.pin(_one(7), "held", write=False)
    change_prot_numa(mm)
    assert (7 in _marked(mm)) == marked and 6 in _marked(mm)


def test_a_page_that_is_pinned_for_dma_stays_as_it_is():
    mm = _mm()
    mm.pin(_one(7), "held", write=True, longterm=True)
    change_prot_numa(mm)
    assert _marked(mm) == [p for p in range(64) if p != 7]


@pytest.mark.parametrize(("rules", "follows"), [("6.1", False), ("7.3", True)])
def test_since_6_6_gup_takes_a_page_without_the_hinting_fault(rules, follows):
    mm = _mm(rules)
    change_prot_numa(mm)
    mm.pin(_one(7), "held", write=False)
    assert (7 in _marked(mm)) == follows
    mm.pin(_one(9), "too", write=True)
    assert 9 not in _marked(mm), "to write, the entry must be writable first"


def test_a_huge_pmd_is_marked_whole_and_its_split_forgets_the_mark():
    for split in (False, True):
        mm = Host("7.3").mm("p", 1)
        madvise.madvise(mm, 0, 512, "hugepage")
        mm.cpu_access(_one(0), write=True)
        change_prot_numa(mm)
        assert mm.arrays.pmd[0] & PSE and not mm.arrays.pmd[0] & PRESENT
        if split:
            huge_memory.split_block_pmd(mm, 0)
            assert _marked(mm) == [] and not (mm.arrays.pte & RW).any()
        else:
            mm.cpu_access(_one(9), write=True)
            assert mm.arrays.pmd[0] & PRESENT and mm.arrays.pmd[0] & RW
        holds(mm.host)


def test_a_fault_makes_the_rest_of_a_large_folio_present_within_its_area():
    sizes = Sizes(kb64="always")
    mm = Host("7.3", HostConfig(sizes=sizes)).mm("p", 1)
    mm.cpu_access(np.array([3, 20]), write=True)  # two folios of 16 pages
    mprotect.mprotect(mm, 8, 9, "r")
    change_prot_numa(mm)
    assert _marked(mm) == list(range(32))
    mm.cpu_access(_one(3), write=False)
    assert _marked(mm) == list(range(8, 32)), "what lies behind the edge of the area stays"
    mm.cpu_access(_one(20), write=False)
    assert _marked(mm) == list(range(8, 16))
    holds(mm.host)


def test_a_kernel_without_it_and_shared_memory_are_told():
    with pytest.raises(UsageError, match="no NUMA balancing"):
        change_prot_numa(Host("2.6.38").mm("p", 1))
    host = Host("7.3")
    memory = host.shared_memory("ram", 1)
    with pytest.raises(UsageError, match="shared memory"):
        change_prot_numa(host.shared_mm("p", 1, memory, 0))
