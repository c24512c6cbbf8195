"""mremap there and back: entries stay as they were, secondary MMUs forget them, huge pages are split where they are cut."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits.pte import PSE
from secondsight.mm import madvise, mremap
from secondsight.mm.host import Host
from secondsight.mm.mm_struct import Mm
from secondsight.mmu.kvm import Kvm


def _mm(rules: str = "7.3", blocks: int = 1) -> Mm:
    mm = Host(rules).mm("p", blocks)
    mm.cpu_access(np.arange(64), write=True)
    mm.host.drain()
    return mm


def test_entries_stay_and_secondary_mmus_forget_what_moved():
    mm = _mm()
    kvm = Kvm(mm)
    kvm.slot_add(0, 0, 0, mm.npages)
    kvm.access(np.arange(32), write=True)
    before = mm.arrays.pte.copy()
    assert mremap.there_and_back(mm, 8, 16) is None
    assert np.array_equal(mm.arrays.pte, before)
    assert not kvm.sptes(9)
    assert len(mm.vmas.areas) == 1, "it meets its neighbours again"


def test_a_whole_huge_page_moves_whole_and_a_part_of_one_splits_it():
    mm = _mm(blocks=2)
    madvise.madvise(mm, 0, 1024, "hugepage")
    mm.cpu_access(np.array([600]), write=True)
    assert mm.arrays.pmd[1] & PSE
    mremap.there_and_back(mm, 512, 1024)
    assert mm.arrays.pmd[1] & PSE
    mremap.there_and_back(mm, 600, 610)
    assert not mm.arrays.pmd[1] & PSE and mm.pfn(601) == mm.pfn(600) + 1


@pytest.mark.parametrize(("rules", "errno"), [("6.16", "EFAULT"), ("6.17", None)])
def test_several_areas_move_since_6_17(rules: str, errno: str | None):
    mm = _mm(rules)
    madvise.madvise(mm, 0, 8, "nohugepage")
    assert mremap.there_and_back(mm, 4, 12) == errno
    assert [(a.start, a.end) for a in mm.vmas.areas] == [(0, 8), (8, 512)]


def test_areas_that_parted_before_they_had_pages_become_one_again():
    """Pages 0 to 7 get an anon_vma while their flags differ; with equal flags a move makes the two areas one only if that may be."""
    mm = _mm()
    madvise.madvise(mm, 0, 8, "nohugepage")
    madvise.madvise(mm, 0, 8, "hugepage")
    madvise.madvise(mm, 8, 512, "hugepage")
    assert len(mm.vmas.areas) == 1
    mremap.there_and_back(mm, 0, 512)
    assert len(mm.vmas.areas) == 1
