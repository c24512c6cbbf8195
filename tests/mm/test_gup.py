"""gup: references, PG_referenced on heads, what the fast path leaves to the slow one."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mlock import mlock
from secondsight.mm.mprotect import mprotect
from secondsight.mm.page import ACTIVE, REFERENCED, ZERO_FILLED
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.userfaultfd import register
from support.model import ALL, balance, flags, holds, pages


def prepared(rules: str = "6.1", huge: bool = False):
    host = Host(rules, HostConfig(thp_enabled="always" if huge else "madvise"))
    mm = host.mm("p", 2)
    mm.cpu_access(pages(0), write=True)
    host.drain()
    clear_refs(mm)
    return host, mm


@pytest.mark.parametrize("rules", ALL)
def test_the_fast_path_marks_referenced_where_the_patch_is_in(rules) -> None:
    host, mm = prepared(rules)
    active = flags(mm, 5) & ACTIVE
    mm.pin(pages(0, 5), "io")
    # mm/gup.c follow_page_pte and gup_pte_range mark the page in every kernel but the one before the patch.
    assert bool(flags(mm, 5) & REFERENCED) == (rules != "thp-base")
    assert flags(mm, 5) & ACTIVE == active
    assert not mm.arrays.pte[5] & x86.ACCESSED, "gup-fast sets no accessed bit"
    assert host.frames.arrays.refcount[mm.pfn(5)] == 2
    mm.unpin("io")
    assert host.frames.arrays.refcount[mm.pfn(5)] == 1
    balance(host)


def test_many_subpages_of_a_huge_page_mark_and_hold_its_head() -> None:
    host, mm = prepared(huge=True)
    head = mm.folio(0)
    assert mm.arrays.pmd[0] & x86.PSE
    mm.pin(pages(0, range(100, 140)), "io", write=True)
    f = host.frames.arrays
    assert f.flags[head] & REFERENCED
    assert not (f.flags[head + 1 : head + 512] & REFERENCED).any()
    assert f.refcount[head] == 1 + 40
    assert mm.pfn(139) == head + 139
    balance(host)
    mm.unpin("io")
    assert f.refcount[head] == 1


def test_a_missing_page_is_faulted_in_and_touched_by_the_slow_path() -> None:
    host, mm = prepared()
    mm.pin(pages(1, 3), "io", write=True)
    assert mm.arrays.pte[515] & x86.ACCESSED and mm.arrays.pte[515] & x86.DIRTY
    assert flags(mm, 515) & REFERENCED
    balance(host)


def test_the_zero_page_is_never_counted() -> None:
    host, mm = prepared()
    mm.pin(pages(1, 3), "io")
    assert mm.pfn(515) == 0 and host.frames.arrays.refcount[0] == 1
    mm.unpin("io")
    assert host.frames.arrays.refcount[0] == 1


def test_a_write_pin_breaks_sharing_first() -> None:
    host, mm = prepared()
    child = fork(mm, "child")
    mm.pin(pages(0, 5), "io", write=True)
    assert mm.pfn(5) != child.pfn(5) and mm.arrays.pte[5] & x86.RW
    mm.pin(pages(0, 6), "io")
    assert mm.pfn(6) == child.pfn(6)
    balance(host)


@pytest.mark.parametrize("rules", ["6.1", "7.3"])
def test_a_copy_for_a_reading_pin_is_clean_and_as_protected_as_the_page_was(rules) -> None:
    """wp_page_copy with FAULT_FLAG_UNSHARE keeps userfaultfd's write protection."""
    host, mm = prepared(rules)
    fork(mm, "c")
    assert register(mm, 3, 4, "wp") is None
    shared = mm.pfn(3)
    mm.pin(pages(0, 3, 4), "io", unshare=True)
    for page, protected in ((3, True), (4, False)):
        entry = mm.arrays.pte[page]
        assert mm.pfn(page) != shared and not entry & (x86.DIRTY | x86.RW)
        assert bool(entry & x86.UFFD_WP) == protected
    balance(host)


def test_a_pinned_page_outlives_its_mapping() -> None:
    host, mm = prepared()
    mm.pin(pages(0, 5), "io")
    pfn = mm.pfn(5)
    used = host.frames.in_use
    madvise(mm, 5, 6, "dontneed")
    f = host.frames.arrays
    assert f.refcount[pfn] == 1 and f.mapcount[pfn] == 0 and host.frames.in_use == used
    balance(host)
    mm.unpin("io")
    assert host.frames.in_use == used - 1


def test_what_the_area_forbids_gup_forbids() -> None:
    _, mm = prepared()
    mprotect(mm, 0, 512, "r")
    mm.pin(pages(0, 5), "io")
    mm.pin(pages(0, 5, 6), "io", write=True)
    assert mm.denied == 2 and mm.pins["io"] == [mm.pfn(5)], "denied pages are left out, the others are made"
    mprotect(mm, 0, 512, "none")
    mm.pin(pages(0, 7), "io")
    assert mm.denied == 3


def test_unpinning_what_was_not_pinned_is_refused() -> None:
    _, mm = prepared()
    with pytest.raises(UsageError, match="no pins called 'io'"):
        mm.unpin("io")


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_one_call_or_many_is_the_same(cut) -> None:
    wanted = np.array([1, 1, 600, 5, 600, 601, 2, 512])
    both = []
    for parts in ([wanted], np.array_split(wanted, cut)):
        host, mm = prepared()
        for part in parts:
            mm.pin(part, "io", write=True)
        balance(host)
        both.append((mm.arrays.pte.copy(), host.frames.arrays.flags[:4000].copy(), list(mm.pins["io"])))
    assert np.array_equal(both[0][0], both[1][0]) and np.array_equal(both[0][1], both[1][1])
    assert both[0][2] == both[1][2]


@pytest.mark.parametrize(("rules", "marks"), [("6.12", True), ("6.1", False)])
def test_the_fast_part_of_a_long_term_pin_ends_at_the_first_page_it_misses(rules, marks) -> None:
    host = Host(rules)
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 2, 9), write=True)
    host.drain()
    for _ in range(2):
        mm.pin(pages(0, 1, 2, 9), "dma", write=True, longterm=True)
        host.drain()
        mm.unpin("dma")
        if _ == 0:
            madvise(mm, 1, 2, "dontneed")
    # Page 1 was not there: 2, in the same run, was touched both times, and so activated; 9 is a run of its own, and only marked.
    assert bool(flags(mm, 2) & ACTIVE) == marks and not flags(mm, 9) & ACTIVE
    assert bool(flags(mm, 9) & REFERENCED) == marks
    holds(host)


def test_what_gup_makes_is_zero_filled_until_something_is_stored() -> None:
    host = Host("6.12")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1), write=False)
    mm.pin(pages(0, 1, 2), "dma", write=True, longterm=True)
    mlock(mm, 3, 5)
    host.drain()
    assert all(flags(mm, page) & ZERO_FILLED for page in (1, 2, 3, 4))
    mm.cpu_access(pages(0, 2, 4), write=True)
    assert [bool(flags(mm, page) & ZERO_FILLED) for page in (1, 2, 3, 4)] == [True, False, True, False]
