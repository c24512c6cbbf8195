"""A device without young bits goes on working, in the variant the patch promises and in the one the driver has."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.fork import exit_mm
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.page import REFERENCED
from secondsight.mm.profiles import PROFILES
from secondsight.mm.task_mmu import clear_refs
from secondsight.mmu.gru import GruContext
from support.model import flags, holds, pages


def device(variant: str, rules: str = "6.1"):
    host = Host(rules)
    mm = host.mm("p", 1)
    madvise(mm, 0, 512, "nohugepage")
    gru = GruContext(mm, variant)
    mm.cpu_access(pages(0), write=True)
    host.drain()
    clear_refs(mm)
    return host, mm, gru


@pytest.mark.parametrize("rules", ["thp-base", "2.6.38", "6.1"])
@pytest.mark.parametrize("variant", ["contract", "driver"])
def test_a_fill_marks_the_page_only_through_gup(variant, rules) -> None:
    host, mm, gru = device(variant, rules)
    gru.access(pages(0, 3), write=True)
    marked = variant == "contract" and PROFILES[rules].gup_fast_sets_referenced
    assert gru.tlb == {3: True} and bool(flags(mm, 3) & REFERENCED) == marked
    assert not mm.arrays.pte[3] & x86.ACCESSED
    holds(host)


@pytest.mark.parametrize("variant", ["contract", "driver"])
def test_it_is_never_asked_and_never_young(variant) -> None:
    _, mm, gru = device(variant)
    gru.access(pages(0, 3), write=True)
    ((name, asked, young),) = mm.notifiers.test_young(0, 8, np.ones(8, np.bool_))
    assert name == "gru" and not asked.any() and not young.any()


def test_clear_flush_young_drops_what_it_cannot_age() -> None:
    _, mm, gru = device("contract")
    gru.access(pages(0, 3, 5), write=False)
    assert np.flatnonzero(mm.notifiers.clear_flush_young(0, 5)).tolist() == [3]
    assert gru.tlb == {5: False}
    _, mm, gru = device("driver")
    gru.access(pages(0, 3), write=False)
    assert not mm.notifiers.clear_flush_young(0, 5).any() and gru.tlb == {3: False}


@pytest.mark.parametrize("variant", ["contract", "driver"])
def test_missing_pages_are_faulted_in_and_invalidated_ones_forgotten(variant) -> None:
    host, mm, gru = device(variant)
    madvise(mm, 3, 4, "dontneed")
    gru.access(pages(0, 3), write=True)
    assert mm.pfn(3) > 512 and gru.tlb == {3: True}
    gru.access(pages(0, 4), write=False)
    gru.access(pages(0, 4), write=True)
    assert gru.tlb[4]
    madvise(mm, 0, 512, "hugepage")
    host.drain()
    host.khugepaged.full_scan()
    assert mm.arrays.pmd[0] & x86.PSE and not gru.tlb
    gru.access(pages(0, 4), write=True)
    holds(host)
    exit_mm(mm)
    assert not gru.tlb


@pytest.mark.parametrize(
    ("variant", "status"), [("contract", "succeeded"), ("driver", "lack_referenced_page")]
)
def test_a_block_only_the_device_uses(variant, status) -> None:
    host, mm, gru = device(variant)
    gru.access(pages(0, 3), write=True)
    madvise(mm, 0, 512, "hugepage")
    seen = []
    host.khugepaged.on_visit = lambda v: seen.append(str(v.status))
    host.khugepaged.full_scan()
    assert seen == [status]
