"""Before isolate every swapped page of the block comes back: in the model's own state, and in a view of it."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as x86
from secondsight.mm.host import Host
from secondsight.mm.khugepaged.swapin import first_not_present, swap_in, swap_in_block
from secondsight.mm.madvise import madvise
from secondsight.mm.view import empty
from secondsight.mm.vmscan import swap_out
from support.blocks_by_hand import block, hole, young
from support.model import holds


def swapped(rules="6.12", pages=(3, 5, 700)):
    """A process of two blocks of small pages, of which *pages* are out in swap."""
    host = Host(rules)
    mm = host.mm("p", 2)
    madvise(mm, 0, 1024, "nohugepage")
    mm.cpu_access(np.arange(1024), write=True)
    host.drain()
    swap_out(mm, np.array(pages))
    assert [page for page in range(1024) if mm.pfn(page) < 0] == list(pages)
    return host, mm


@pytest.mark.parametrize("rules", ["6.1", "6.12", "7.2"])
def test_a_blocks_pages_come_back_and_no_others(rules) -> None:
    host, mm = swapped(rules)
    f = host.frames.reserve(4, 0, 64)
    assert swap_in_block(f, host.r, mm.arrays, 0) == 2
    assert [page for page in range(1024) if mm.pfn(page) < 0] == [700]
    assert (mm.arrays.pte[[3, 5]] & x86.ACCESSED != 0).all(), "a fault leaves it young"
    assert swap_in_block(host.frames.reserve(4, 0, 64), host.r, mm.arrays, 0) == 0
    holds(host)


def test_what_is_no_swap_entry_fails_after_those_before_it() -> None:
    host, mm = swapped("7.2")
    madvise(mm, 4, 5, "guard_install")
    assert swap_in_block(host.frames.reserve(4, 0, 64), host.r, mm.arrays, 0) == -1 - 1, "page 3 came back"
    assert mm.pfn(3) > 0 and mm.pfn(5) < 0
    holds(host)


def test_the_first_entry_that_is_not_present() -> None:
    host, mm = swapped()
    madvise(mm, 1, 2, "dontneed")  # a hole is none, and no such entry
    for first, end, page in ((0, 512, 3), (4, 512, 5), (6, 512, -1), (0, 3, -1), (512, 1024, 700)):
        assert first_not_present(mm.arrays, first, end) == page
    holds(host)


def test_a_view_after_swap_in() -> None:
    """A swapped page is present, young and this process's alone, whatever was known of it; all else is as before."""
    view = young(block(kvm=[9]), 1)
    hole(view, range(3, 6))
    view.folio[0, 3:6] = -1
    view.pte[0, 4] = x86.swap_pte(np.uint64(8))
    view.page_known[0, 4] = view.pte_known[0, 4] = False
    before = {name: getattr(view, name).copy() for name in empty(1)}
    after = swap_in(view)
    for name, old in before.items():
        assert np.array_equal(getattr(view, name), old), "the view itself stays"
        changed = np.flatnonzero((getattr(after, name) != old).reshape(-1)).tolist()
        assert changed in ([], [4]), name
    assert x86.pte_present(after.pte[0, 4]) and after.pte[0, 4] & x86.ACCESSED and after.pte[0, 4] & x86.DIRTY
    assert not x86.is_swap_pte(after.pte[0]).any()
    assert (after.mapcount[0, 4], after.folio_mapcount[0, 4], after.refcount[0, 4]) == (1, 1, 1)
    assert after.flags[0, 4] == kpf.ANON | kpf.LRU | kpf.SWAPBACKED and after.folio[0, 4] == -1
    assert after.page_known[0, 4] and after.pte_known[0, 4] and after.secondary is view.secondary


def test_of_several_blocks_only_the_chosen_ones_are_swapped_in() -> None:
    view = block()[np.array([0, 0, 0])]
    view.pte[:, 2] = x86.swap_pte(np.uint64(1))
    after = swap_in(view, np.array([True, False, True]))
    assert x86.is_swap_pte(after.pte[:, 2]).tolist() == [False, True, False]
    assert swap_in(view, np.zeros(3, np.bool_)) is view and swap_in(block()).pte[0, 2] == block().pte[0, 2]
