"""mprotect changes who may access and nothing of what was seen: accessed, dirty and frame stay, and writing comes back where it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pte as x86
from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.mlock import mlock
from secondsight.mm.mprotect import mprotect
from secondsight.mm.profiles import PROFILES
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vmscan import swap_out
from support.model import KERNELS, holds, pages, vm

ALLOWED = {"none": "", "r": "r", "rw": "rw"}


def filled(rules: str, count: int = 8, **config):
    """A process whose first *count* pages are written."""
    host = Host(rules, HostConfig(**config))
    mm = host.mm("p", 1)
    mm.cpu_access(np.arange(count), write=True)
    host.drain()
    return host, mm


@pytest.mark.parametrize("rules", KERNELS)
def test_an_entry_keeps_its_frame_its_use_and_its_dirt(rules) -> None:
    host, mm = filled(rules)
    clear_refs(mm)
    mm.cpu_access(pages(0, 1), write=False)
    before = mm.arrays.pte[:8].copy()
    mprotect(mm, 0, 8, "none")
    after = mm.arrays.pte[:8]
    kept = x86.PFN_MASK | x86.ACCESSED | x86.DIRTY
    assert np.array_equal(after & kept, before & kept)
    assert np.flatnonzero(after & x86.ACCESSED).tolist() == [1]
    assert (after & x86.PROTNONE != 0).all() and not (after & (x86.PRESENT | x86.RW | x86.USER)).any()
    mprotect(mm, 0, 8, "r")
    assert (mm.arrays.pte[:8] & (x86.PRESENT | x86.USER) == x86.PRESENT | x86.USER).all()
    assert not (mm.arrays.pte[:8] & (x86.RW | x86.PROTNONE)).any()
    holds(host)


@given(
    rules=st.sampled_from(KERNELS),
    edits=st.lists(st.tuples(st.integers(0, 15), st.integers(1, 16), st.sampled_from(["none", "r", "rw"])), max_size=6),
    mapped=st.sets(st.integers(0, 15)),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_an_access_is_denied_exactly_where_the_last_protection_denies_it(rules, edits, mapped) -> None:
    """Against the protection of each page written down as it is given."""
    host = Host(rules)
    mm = host.mm("p", 1)
    mm.cpu_access(np.array(sorted(mapped), dtype=np.int64), write=True)
    may = ["rw"] * 16
    for start, length, prot in edits:
        end = min(16, start + length)
        mprotect(mm, start, end, prot)
        may[start:end] = [ALLOWED[prot]] * (end - start)
    holds(host)
    for page in range(16):
        for write in (False, True):
            before = mm.denied
            mm.cpu_access(np.array([page]), write=write)
            assert mm.denied - before == (("w" if write else "r") not in may[page]), (page, write)
    holds(host)


@pytest.mark.parametrize("name", ["6.1", "6.12", "7.2"])
def test_a_page_of_ones_own_may_be_written_at_once_and_a_shared_one_by_a_fault(name) -> None:
    """can_change_pte_writable (6.0): an exclusive page needs no fault to be writable again."""
    assert PROFILES[name].mprotect_keeps_exclusive_writable
    host, mm = filled(name)
    child = fork(mm, "c")
    mm.cpu_access(pages(0, 0, 1), write=True)  # its own copies
    mprotect(mm, 0, 8, "r")
    mprotect(mm, 0, 8, "rw")
    assert np.flatnonzero(mm.arrays.pte[:8] & x86.RW).tolist() == [0, 1]
    mm.cpu_access(pages(0, 2), write=True)
    assert mm.pfn(2) != child.pfn(2)
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_the_zero_page_is_nobodys_to_write(rules) -> None:
    host = Host(rules)
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 3), write=False)
    mprotect(mm, 0, 8, "r")
    mprotect(mm, 0, 8, "rw")
    assert mm.arrays.pte[3] & x86.PRESENT and not mm.arrays.pte[3] & x86.RW
    holds(host)


@pytest.mark.parametrize("rules", KERNELS)
def test_a_huge_page_is_protected_by_its_pmd(rules) -> None:
    host = Host(rules, HostConfig(thp_enabled="always"))
    mm = host.mm("p", 2)
    for block in range(2):
        mm.cpu_access(pages(block, 0), write=True)
    mprotect(mm, 0, 512, "none")
    first, second = mm.arrays.pmd
    assert first & x86.PSE and first & x86.PROTNONE and not first & (x86.RW | x86.PRESENT)
    assert second & x86.RW and second & x86.PSE, "the next block's is as before"
    mprotect(mm, 512, 520, "r")
    assert not mm.arrays.pmd[1] & x86.PSE, "a part: the PMD is split"
    holds(host)


def test_ptes_of_one_large_folio_share_what_was_seen_where_they_go_as_a_batch() -> None:
    """mprotect's folio_pte_batch (6.17): the accessed bit of one is every one's."""
    seen = {}
    for name in ("6.16", "7.2"):
        host = Host(name, HostConfig(sizes=Sizes(kb64="always")))
        mm = host.mm("p", 1)
        mm.cpu_access(pages(0, 0), write=True)
        clear_refs(mm)
        mm.cpu_access(pages(0, 3), write=False)
        mprotect(mm, 0, 16, "r")
        seen[name] = np.flatnonzero(mm.arrays.pte[:16] & x86.ACCESSED).tolist()
        holds(host)
    assert seen == {"6.16": [3], "7.2": list(range(16))}


@pytest.mark.parametrize("rules", KERNELS)
def test_the_guests_entries_go_only_where_something_changes(rules) -> None:
    host, mm, kvm = vm(rules, 2)
    kvm.access(pages(0, 0, 511), write=True)
    kvm.access(pages(1, 0), write=True)
    host.drain()
    mprotect(mm, 0, 512, "rw")
    assert all(kvm.sptes(page) for page in (0, 511, 512)), "so protected already"
    mprotect(mm, 0, 512, "r")
    assert [bool(kvm.sptes(page)) for page in (0, 511, 512)] == [False, False, True]
    holds(host)


def test_what_is_in_swap_is_left_and_comes_back_under_the_new_protection() -> None:
    host, mm = filled("6.12")
    swap_out(mm, pages(0, 2))
    entry = int(mm.arrays.pte[2])
    mprotect(mm, 0, 8, "r")
    assert int(mm.arrays.pte[2]) == entry
    mm.cpu_access(pages(0, 2), write=False)
    assert mm.arrays.pte[2] & x86.PRESENT and not mm.arrays.pte[2] & x86.RW
    holds(host)


def test_a_locked_area_that_becomes_writable_is_copied_at_once() -> None:
    host, mm = filled("6.12")
    assert mlock(mm, 0, 8) is None
    mprotect(mm, 0, 8, "r")
    child = fork(mm, "c")
    assert mm.pfn(3) == child.pfn(3)
    mprotect(mm, 0, 8, "rw")
    assert all(mm.pfn(page) != child.pfn(page) for page in range(8)), "rather than at the store"
    holds(host)


def test_a_range_outside_is_refused() -> None:
    _, mm = filled("6.1")
    for start, end in ((0, 0), (5, 4), (0, 513), (-1, 3)):
        with pytest.raises(UsageError, match=f"pages {start} to {end} are no range"):
            mprotect(mm, start, end, "r")
