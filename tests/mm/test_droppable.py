"""Droppable areas (MAP_DROPPABLE, 6.11): never swap-backed, dropped dirty or not, empty in a child, locked by nobody."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.errors import UsageError
from secondsight.mm import fork, madvise, mlock, vmscan
from secondsight.mm.host import Host
from secondsight.mm.mm_struct import Mm
from secondsight.mm.page import MLOCKED, SWAPBACKED
from secondsight.mm.vma import VmFlags


def _mm(rules: str = "7.3", *, droppable: bool = True) -> Mm:
    mm = Host(rules).mm("p", 1, droppable=droppable)
    mm.cpu_access(np.arange(64), write=True)
    mm.host.drain()
    return mm


def test_an_older_kernel_has_none():
    with pytest.raises(UsageError, match=r"6\.1 has no MAP_DROPPABLE"):
        Host("6.1").mm("p", 1, droppable=True)


@pytest.mark.parametrize("droppable", [False, True])
def test_new_pages_are_swap_backed_unless_droppable(droppable: bool):
    mm = _mm(droppable=droppable)
    assert bool(mm.host.frames.arrays.flags[mm.pfn(3)] & SWAPBACKED) != droppable


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_reclaim_drops_dirty_pages_and_swaps_none(rules: str):
    mm = _mm(rules)
    out = vmscan.swap_out(mm, np.arange(32))
    assert out.gone.tolist() == list(range(32))
    assert not mm.arrays.pte[:32].any() and mm.arrays.pte[32:64].all() and not mm.host.swap.any()


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_what_somebody_holds_stays_and_stays_droppable(rules: str):
    mm = _mm(rules)
    mm.pin(np.array([5]), "held")
    assert 5 not in vmscan.swap_out(mm, np.arange(32)).gone
    assert not mm.host.frames.arrays.flags[mm.pfn(5)] & SWAPBACKED


def test_a_child_finds_it_empty_and_the_parent_keeps_its_own():
    mm = _mm()
    before = mm.arrays.pte.copy()
    child = fork.fork(mm, "child")
    assert not child.arrays.pte.any() and np.array_equal(mm.arrays.pte, before)
    child.cpu_access(np.arange(4), write=True)
    assert not mm.host.frames.arrays.flags[child.pfn(0)] & SWAPBACKED


def test_nobody_locks_or_merges_it():
    mm = _mm()
    assert mlock.mlock(mm, 0, 512) is None
    assert not mm.vmas.areas[0].flags & VmFlags.LOCKED
    assert mm.arrays.pte[:512].all(), "populated all the same"
    assert not mm.host.frames.arrays.flags[mm.pfn(3)] & MLOCKED
    madvise.madvise(mm, 0, 512, "mergeable")
    assert not mm.vmas.areas[0].flags & VmFlags.MERGEABLE


def test_a_collapsed_block_is_droppable_still():
    mm = _mm()
    mm.cpu_access(np.arange(512), write=True)
    madvise.madvise(mm, 0, 512, "hugepage")
    mm.host.khugepaged.full_scan()
    assert mm.host.khugepaged.pages_collapsed == 1, "lazily freed pages are refused, droppable ones are not"
    assert not mm.host.frames.arrays.flags[mm.folio(0)] & SWAPBACKED
