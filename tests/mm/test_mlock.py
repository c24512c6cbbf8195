"""mlock2(MLOCK_ONFAULT): what is there is locked, the rest when it comes, and nothing is populated; what KSM made one is counted."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm import ksm, mlock, mprotect
from secondsight.mm.host import Host
from secondsight.mm.khugepaged.attempt import release_pte_folio
from secondsight.mm.mm_struct import Mm
from secondsight.mm.page import MLOCKED, UNEVICTABLE
from secondsight.mm.vma import LOCKED_MASK, VmFlags


def _mm(rules: str) -> Mm:
    mm = Host(rules).mm("p", 1)
    mm.cpu_access(np.arange(8), write=True)
    mm.host.drain()
    return mm


def _locked(mm: Mm, page: int) -> bool:
    return bool(mm.host.frames.arrays.flags[mm.pfn(page)] & MLOCKED)


@pytest.mark.parametrize("rules", ["6.1", "7.3"])
def test_what_is_there_is_locked_the_rest_when_it_comes(rules: str):
    mm = _mm(rules)
    assert mlock.mlock(mm, 0, 16, onfault=True) is None
    assert _locked(mm, 3) and not mm.arrays.pte[8:16].any()
    mm.cpu_access(np.array([9]), write=True)
    assert _locked(mm, 9)


def test_mlock_after_it_populates_and_keeps_what_is_locked():
    mm = _mm("7.3")
    mlock.mlock(mm, 0, 16, onfault=True)
    mlock.mlock(mm, 0, 16)
    assert mm.vmas.at(0).flags & LOCKED_MASK == VmFlags.LOCKED
    assert mm.arrays.pte[8:16].all() and all(_locked(mm, page) for page in range(16))


def test_no_populating_where_it_becomes_writable_again_nor_where_nobody_may_read():
    mm = _mm("7.3")
    mprotect.mprotect(mm, 0, 16, "none")
    assert mlock.mlock(mm, 0, 16, onfault=True) is None, "mlock says ENOMEM there"
    mprotect.mprotect(mm, 0, 16, "rw")
    assert not mm.arrays.pte[8:16].any()
    mlock.munlock(mm, 0, 16)
    mm.host.drain()
    assert not mm.vmas.at(0).flags & LOCKED_MASK and not _locked(mm, 3)


@pytest.mark.parametrize("rules", ["6.1", "7.3"])
def test_of_a_page_that_ksm_made_one_each_locked_entry_counts(rules: str) -> None:
    """mlock_count (mm/mlock.c __munlock_folio, 5.18): booted by ``examples/answers/7.3-npt-mlocks.json.zst``."""
    mm = _mm(rules)
    for page in range(4):
        mm.host.content[mm.pfn(page)] = 7
    mm.change_areas(0, HPAGE_PMD_NR, lambda flags: flags | VmFlags.MERGEABLE)
    assert ksm.merge(mm.host) == 3
    mlock.mlock(mm, 0, 4, onfault=True)
    shared = mm.pfn(0)
    for left in (3, 2, 1):
        # A store breaks one entry off, which is munlocked.
        assert mm.pfn(left) == shared
        mm.cpu_access(np.array([left]), write=True)
        mm.host.drain()
        assert _locked(mm, left) and mm.pfn(left) != shared
        assert mm.host.frames.arrays.flags[shared] & (MLOCKED | UNEVICTABLE) == MLOCKED | UNEVICTABLE


def test_what_was_put_back_counts_from_none() -> None:
    """mm/swap.c lru_add sets mlock_count to 0: the first of two munlocks ends it."""
    mm = _mm("7.3")
    for page in range(2):
        mm.host.content[mm.pfn(page)] = 7
    mm.change_areas(0, HPAGE_PMD_NR, lambda flags: flags | VmFlags.MERGEABLE)
    assert ksm.merge(mm.host) == 1
    mlock.mlock(mm, 0, 2, onfault=True)
    f, shared = mm.host.frames.arrays, mm.pfn(0)
    release_pte_folio(f, mm.host.r, shared)
    mm.host.drain()
    assert f.flags[shared] & UNEVICTABLE
    mlock.munlock(mm, 0, 1)
    assert not f.flags[shared] & (UNEVICTABLE | MLOCKED) and mm.pfn(1) == shared
