"""What a fault reads of a regular file: its page alone, or by force the blocks of an area that is to be huge."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pte as x86
from secondsight.mm import page as pg
from secondsight.mm.file_io import file_read
from secondsight.mm.madvise import madvise
from support.model import holds, pages
from support.regular_files import mapped, mapping, orders


def test_a_fault_reads_one_page_and_maps_what_is_there_round_it() -> None:
    host, memory, a = mapping()
    file_read(host, memory, 0, 4)
    a.cpu_access(pages(0, 9), write=False)
    assert mapped(a) == [0, 1, 2, 3, 9] and not a.arrays.pte[1] & x86.RW
    assert orders(host, memory) == [0] * 5
    a.cpu_access(pages(0, 20), write=False)
    assert mapped(a) == [0, 1, 2, 3, 9, 20] and orders(host, memory) == [0] * 6, "read alone"
    holds(host)


def test_advice_reads_two_blocks_huge_or_what_is_missing_of_them() -> None:
    host, memory, a = mapping(2)
    madvise(a, 0, 1024, "hugepage")
    a.cpu_access(pages(0, 5), write=False)
    assert orders(host, memory) == [9, 9]
    assert a.arrays.pmd[0] & x86.PSE and not a.arrays.pmd[1]
    # The second block ends the file: no fault-around there, the slow path maps the PMD.
    a.cpu_access(pages(1, 5), write=False)
    assert a.arrays.pmd[1] & x86.PSE
    holds(host)
    host, memory, a = mapping(2)
    file_read(host, memory, 600, 601)
    madvise(a, 0, 1024, "hugepage")
    a.cpu_access(pages(0, 5), write=False)
    assert orders(host, memory) == [9] + [0] * 512
    holds(host)


def test_the_window_begins_at_the_block_of_the_fault_and_ends_with_the_file() -> None:
    host, memory, a = mapping(2)
    madvise(a, 0, 1024, "hugepage")
    a.cpu_access(pages(1, 5), write=False)
    assert not memory.cache[:512].any() and host.frames.in_use == 512
    head = int(memory.cache[512])
    assert memory.cache[512:].tolist() == list(range(head, head + 512))
    holds(host)


def test_without_advice_nothing_is_read_ahead() -> None:
    host, memory, a = mapping(2)
    a.cpu_access(np.array([5, 700]), write=False)
    assert np.flatnonzero(memory.cache).tolist() == [5, 700] and host.frames.in_use == 2
    f = host.frames.arrays
    assert f.flags[int(memory.cache[5])] & pg.UPTODATE and not f.flags[int(memory.cache[5])] & pg.DIRTY
    holds(host)


def test_a_block_that_holds_a_page_comes_as_small_pages_round_it() -> None:
    host, memory, a = mapping(1)
    file_read(host, memory, 100, 101)
    there = int(memory.cache[100])
    madvise(a, 0, 512, "hugepage")
    a.cpu_access(pages(0, 5), write=False)
    assert memory.cache.all() and int(memory.cache[100]) == there, "what was there stays"
    assert orders(host, memory) == [0] * 512 and not a.arrays.pmd[0] & x86.PSE
    holds(host)
