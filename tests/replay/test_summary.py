"""Blocks summed up, each sum against a state laid out by hand."""

import numpy as np

from secondsight.bits import pte as x86
from secondsight.mm.config import HostConfig
from secondsight.mm.fork import fork
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.page import REFERENCED
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vmscan import swap_out
from secondsight.replay.summary import frames, huge_frames, secondary, summarise, zero_filled
from support.model import pages, vm


def laid_out():
    """Four blocks: huge with one page written; small with swap, a zero page and old pages; the huge zero page; nothing."""
    host = Host("6.12", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 4)
    mm.cpu_access(pages(0, 9), write=True)
    madvise(mm, 512, 1024, "nohugepage")
    mm.cpu_access(pages(1, range(20)), write=True)
    mm.cpu_access(pages(1, 30), write=False)
    mm.cpu_access(pages(2, 0), write=False)
    host.drain()
    swap_out(mm, pages(1, range(4)))
    clear_refs(mm)
    mm.cpu_access(pages(1, 5, 6), write=False)
    host.frames.arrays.flags[mm.pfn(512 + 7)] |= REFERENCED
    return mm


def test_each_column_counts_its_pages():
    mm = laid_out()
    sums = summarise(mm)
    assert sums.huge.tolist() == [1, 0, 1, 0]
    assert sums.populated.tolist() == [512, 16, 0, 0], "neither zero page is the process's memory"
    assert sums.zero_filled.tolist() == [511, 0, 0, 0]
    assert sums.swapped.tolist() == [0, 4, 0, 0] and not sums.shared.any()
    assert sums.primary.tolist() == [0, 2, 0, 0] and sums.referenced.tolist() == [0, 1, 0, 0]
    assert sums.young.tolist() == [0, 3, 0, 0] and not sums.secondary.any()


def test_what_the_secondary_mmus_say_is_counted_beside_and_together():
    host, mm, kvm = vm("6.1", 1)
    kvm.access(pages(0, range(10)), write=True)
    host.drain()
    clear_refs(mm)
    mm.cpu_access(pages(0, 9, 20), write=True)
    young = secondary(mm)
    assert np.flatnonzero(young).tolist() == list(range(10))
    sums = summarise(mm, young)
    assert (sums.secondary[0], sums.primary[0], sums.young[0]) == (10, 2, 11)
    assert summarise(mm).secondary[0] == 0, "nobody was asked"


def test_a_forks_memory_is_shared_until_it_is_copied():
    mm = laid_out()
    child = fork(mm, "c")
    child.cpu_access(pages(1, range(10, 15)), write=True)
    assert summarise(mm).shared.tolist()[:2] == [512, 16 - 5]
    assert summarise(child).shared.tolist()[:2] == [512, 16 - 5]


def test_frames_are_those_behind_pages_of_its_own():
    mm = laid_out()
    behind = frames(mm)
    expected = [mm.pfn(page) if 0 <= page < 512 or 516 <= page < 532 else -1 for page in range(4 * 512)]
    assert behind.tolist() == expected
    assert huge_frames(mm).tolist() == [mm.pfn(0), -1, -1, -1]


def test_zero_filled_pages_of_huge_blocks_alone():
    mm = laid_out()
    assert zero_filled(mm, np.array([0, 1, 2])).tolist() == [511, 0, 0]
    mm.cpu_access(pages(0, range(100)), write=True)
    assert zero_filled(mm, np.array([1, 0])).tolist() == [0, 412]
    assert mm.arrays.pmd[0] & x86.PSE
