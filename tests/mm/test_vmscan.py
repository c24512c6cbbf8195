"""MADV_PAGEOUT: what goes, what stays, and what lazily freed memory becomes."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.fork import fork
from secondsight.mm.huge_memory import split_block_pmd
from secondsight.mm.madvise import madvise
from secondsight.mm.mlock import mlock
from secondsight.mm.page import ACTIVE, SWAPBACKED
from secondsight.mm.vmscan import can_swap, swap_out
from support.model import KERNELS, flags, holds, pages, vm


@pytest.mark.parametrize("rules", KERNELS)
def test_reclaim_takes_what_it_may(rules) -> None:
    host, mm, _ = vm(rules, 1)
    mm.cpu_access(pages(0, range(6)), write=True)
    mm.cpu_access(pages(0, 6), write=False)
    host.drain()
    mm.pin(pages(0, 1), "io")
    mlock(mm, 2, 3)
    fork(mm, "c")
    mm.cpu_access(pages(0, 4, 5), write=True)
    host.drain()
    assert [p for p in range(8) if can_swap(mm, p)] == [4, 5]
    assert not len(swap_out(mm, np.arange(8)).gone), "the call ends at the locked area"
    assert swap_out(mm, np.array([0, 1, 3, 4, 5, 6, 7])).gone.tolist() == [4, 5]
    assert x86.is_swap_pte(mm.arrays.pte[4]) and mm.pfn(4) == -1
    holds(host)


def test_a_recorded_choice_of_reclaim_is_obeyed() -> None:
    host, mm, _ = vm("6.1", 1)
    mm.cpu_access(pages(0, range(6)), write=True)
    host.drain()
    assert swap_out(mm, np.arange(6), took=np.array([2, 4])).gone.tolist() == [2, 4]
    assert mm.pfn(3) >= 0
    holds(host)


def huge(rules: str, *, split: bool):
    """A VM's process with one huge page, mapped by PTEs where *split*."""
    host, mm, kvm = vm(rules, 1)
    madvise(mm, 0, 512, "hugepage")
    mm.cpu_access(pages(0, 7), write=True)
    if split:
        split_block_pmd(mm, 0)
    host.drain()
    return host, mm, kvm


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("rules", ["6.12", "7.2"])
def test_a_huge_page_goes_to_swap_whole_and_no_zero_page_comes_in_its_place(rules, split) -> None:
    host, mm, _ = huge(rules, split=split)
    assert swap_out(mm, np.arange(512), took=np.arange(512)).gone.tolist() == list(range(512))
    assert x86.is_swap_pte(mm.arrays.pte[:512]).all()
    holds(host)


@pytest.mark.parametrize("split", [False, True])
def test_a_huge_page_that_reclaim_left_stays_whole(split) -> None:
    host, mm, _ = huge("7.2", split=split)
    assert not len(swap_out(mm, np.arange(512), took=np.arange(0)).gone)
    assert mm.folio(511) == mm.folio(0)
    holds(host)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("rules", "kept"), [("6.1", "table"), ("6.12", "table"), ("7.2", "pmd")])
def test_a_lazily_freed_huge_page_goes_unless_it_was_stored_to(rules, kept, stored) -> None:
    host, mm, _ = huge(rules, split=False)
    madvise(mm, 0, 512, "free")
    if stored:
        mm.cpu_access(pages(0, 3), write=True)
    gone = swap_out(mm, np.arange(512)).gone
    assert len(gone) == (0 if stored else 512)
    if stored:
        assert flags(mm, 0) & SWAPBACKED and flags(mm, 0) & ACTIVE
    assert bool(mm.arrays.pmd[0] & x86.PSE) == (stored and kept == "pmd")
    assert bool(mm.arrays.pmd[0]) == (stored or kept == "table")
    holds(host)


@pytest.mark.parametrize(("rules", "gone"), [("6.12", [0, 1, 2]), ("7.2", [])])
def test_ptes_of_a_lazily_freed_huge_page_are_taken_up_to_a_dirty_one_or_together(rules, gone) -> None:
    host, mm, _ = huge(rules, split=True)
    madvise(mm, 0, 512, "free")
    mm.cpu_access(pages(0, 3), write=True)
    assert swap_out(mm, np.arange(512)).gone.tolist() == gone
    assert bool(mm.arrays.pte[9] & x86.DIRTY) == (rules == "7.2"), (
        "the bits of those taken together are shared"
    )
    holds(host)


def test_unmapping_tells_that_a_guest_could_have_stored() -> None:
    host, mm, kvm = vm("7.2", 1)
    mm.cpu_access(pages(0, 1, 2), write=True)
    host.drain()
    madvise(mm, 0, 512, "free")
    kvm.access(pages(0, 1), write=False)
    assert swap_out(mm, np.array([1, 2])).gone.tolist() == [2]
    assert flags(mm, 1) & SWAPBACKED and not kvm.sptes(1)
    holds(host)


@pytest.mark.parametrize("rules", ["6.1", "6.12", "7.3"])
def test_a_lazily_freed_huge_page_that_is_pinned_stays(rules) -> None:
    """7.3.4 splits its PMD and takes nothing (seed 20261)."""
    host, mm, _ = huge(rules, split=False)
    mm.pin(pages(0, range(3)), "dma", write=False)
    madvise(mm, 0, 512, "free")
    out = swap_out(mm, np.arange(512))
    assert not len(out.gone) and all(mm.pfn(page) >= 0 for page in (0, 5, 511))
    holds(host)
