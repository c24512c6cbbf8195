"""clear_refs takes the primary bits and the page's own marks, and asks no secondary MMU."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mprotect import mprotect
from secondsight.mm.page import HUGE_ZERO_PFN, REFERENCED, YOUNG, ZERO_PFN
from secondsight.mm.task_mmu import clear_refs
from support.model import ALL, KERNELS, flags, holds, pages, vm


@pytest.mark.parametrize("rules", KERNELS)
def test_small_pages_begin_old_and_their_marks_go(rules) -> None:
    host = Host(rules)
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, range(8)), write=True)
    host.drain()
    f = host.frames.arrays
    f.flags[mm.pfn(2)] |= REFERENCED
    f.flags[mm.pfn(3)] |= YOUNG
    mprotect(mm, 4, 5, "none")
    before = mm.arrays.pte.copy()
    clear_refs(mm)
    assert np.array_equal(mm.arrays.pte, before & ~x86.ACCESSED), "PROT_NONE's too, and nothing else"
    assert not any(flags(mm, page) & (REFERENCED | YOUNG) for page in range(8))
    holds(host)


def test_what_the_guest_used_stays_young_there() -> None:
    host, mm, kvm = vm("6.1", 1)
    kvm.access(pages(0, 3, 4), write=False)
    host.drain()
    clear_refs(mm)
    young = [each[2] for each in mm.notifiers.test_young(0, 512, np.ones(512, np.bool_))]
    assert np.flatnonzero(young[0]).tolist() == [3, 4]


def test_the_zero_page_is_no_normal_page() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 3), write=False)
    clear_refs(mm)
    assert mm.pfn(3) == ZERO_PFN and mm.arrays.pte[3] & x86.ACCESSED


@pytest.mark.parametrize("rules", ALL)
def test_a_huge_page_and_the_huge_zero_page(rules) -> None:
    """The huge zero page's PMD is aged up to the kernel that calls it special (6.18)."""
    host = Host(rules, HostConfig(thp_enabled="always"))
    mm = host.mm("p", 2)
    mm.cpu_access(pages(0, 3), write=True)
    mm.cpu_access(pages(1, 3), write=False)
    host.frames.arrays.flags[mm.folio(0)] |= REFERENCED
    clear_refs(mm)
    assert not mm.arrays.pmd[0] & x86.ACCESSED and not flags(mm, 0) & REFERENCED
    if mm.folio(512) == HUGE_ZERO_PFN:
        assert bool(mm.arrays.pmd[1] & x86.ACCESSED) != host.rules.clear_refs_ages_huge_zero
    holds(host)


def test_another_process_that_maps_the_page_keeps_its_bit_and_loses_the_pages_mark() -> None:
    host = Host("6.12")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 3), write=True)
    host.drain()
    child = fork(mm, "c")
    child.cpu_access(pages(0, 3), write=False)
    host.frames.arrays.flags[mm.pfn(3)] |= REFERENCED
    clear_refs(mm)
    assert child.arrays.pte[3] & x86.ACCESSED and not mm.arrays.pte[3] & x86.ACCESSED
    assert not flags(child, 3) & REFERENCED


def test_ptes_of_a_large_folio_clear_the_mark_of_its_head_be_that_mapped_or_not() -> None:
    host = Host("6.12", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 0), write=True)
    madvise(mm, 0, 1, "dontneed")
    head = mm.folio(7)
    host.frames.arrays.flags[head] |= REFERENCED
    clear_refs(mm)
    assert mm.pfn(0) == -1 and not host.frames.arrays.flags[head] & REFERENCED
    assert not (mm.arrays.pte & x86.ACCESSED).any()
    holds(host)
