"""Advice: whom it registers with khugepaged, and what MADV_FREE leaves of a huge page."""

from __future__ import annotations

import pytest

from secondsight.mm.config import Sizes
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.huge_memory import split_block_pmd
from secondsight.mm.madvise import madvise
from secondsight.mm.page import SWAPBACKED
from support.model import flags, holds, pages, vm


@pytest.mark.parametrize(("rules", "registered"), [("7.3+advice_enters_late=false", True), ("7.3", False)])
def test_advising_again_registers_nobody_since_7_2(rules: str, registered: bool) -> None:
    """The area is advised while it is empty; its first pages are a folio of 256 KiB, whose fault registers nobody."""
    host, mm, _ = vm(rules, 1, sizes=Sizes(kb256="always", kb2048="never"))
    assert madvise(mm, 0, 512, "hugepage") is None
    mm.cpu_access(pages(0, 7), write=True)
    assert mm not in host.khugepaged.slots
    assert madvise(mm, 0, 512, "hugepage") is None
    assert (mm in host.khugepaged.slots) == registered
    assert madvise(mm, 0, 512, "nohugepage") is None and madvise(mm, 0, 512, "hugepage") is None
    assert mm in host.khugepaged.slots


@pytest.mark.parametrize(("rules", "freed"), [("5.10", True), ("6.1", False), ("7.3", True)])
def test_the_last_page_of_a_huge_page_whose_first_is_gone(rules, freed) -> None:
    """After a child's copies one page of it is left: 6.1.192 asks its first page, which nobody maps, and leaves it (seed 20265)."""
    host, mm, _ = vm(rules, 1, thp_enabled="always")
    mm.cpu_access(pages(0, 0), write=True)
    split_block_pmd(mm, 0)
    exit_mm(fork(mm, "c"))
    mm.cpu_access(pages(0, range(511)), write=True)
    madvise(mm, 0, 512, "free")
    assert bool(flags(mm, 511) & SWAPBACKED) is not freed
    holds(host)
