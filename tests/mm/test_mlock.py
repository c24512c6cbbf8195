"""mlock2(MLOCK_ONFAULT): what is there is locked, the rest when it comes, and nothing is populated."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.mm import mlock, mprotect
from secondsight.mm.host import Host
from secondsight.mm.mm_struct import Mm
from secondsight.mm.page import MLOCKED
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
