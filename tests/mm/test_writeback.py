"""Writeback makes a file's folios clean, and read-only wherever they are mapped, so that the next store is seen."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pte as x86
from secondsight.mm import page as pg
from secondsight.mm.file_io import file_read, file_sync, file_write
from secondsight.mm.writeback import write_and_wait
from secondsight.mmu.kvm import Kvm
from support.model import holds, pages
from support.regular_files import mapping


def test_a_store_makes_the_page_dirty_and_writeback_takes_the_right_again() -> None:
    host, memory, a = mapping(writable=True)
    a.cpu_access(pages(0, 3), write=False)
    pfn = int(memory.cache[3])
    f = host.frames.arrays
    assert not a.arrays.pte[3] & x86.RW and not f.flags[pfn] & pg.DIRTY
    a.cpu_access(pages(0, 3), write=True)
    assert a.arrays.pte[3] & x86.RW and f.flags[pfn] & pg.DIRTY and f.flags[pfn] & pg.PRIVATE
    file_sync(host, memory)
    assert a.arrays.pte[3] & x86.PRESENT and not a.arrays.pte[3] & (x86.RW | x86.DIRTY)
    assert not f.flags[pfn] & pg.DIRTY and f.flags[pfn] & pg.PRIVATE, "its buffer heads stay"
    holds(host)


def test_writeback_takes_a_folio_from_the_guest_whole_and_its_next_store_makes_it_dirty_again() -> None:
    host, memory, a = mapping(writable=True)
    file_write(host, memory, 0, 4)
    kvm = Kvm(a)
    kvm.slot_add(0, 0, 0, a.npages)
    kvm.access(pages(0, 1, 2, 40), write=True)
    host.drain()
    young = [each[2] for each in a.notifiers.test_young(0, 64, np.ones(64, np.bool_))]
    assert np.flatnonzero(young[0]).tolist() == [1, 2, 40]
    file_sync(host, memory)
    young = [each[2] for each in a.notifiers.test_young(0, 64, np.ones(64, np.bool_))]
    assert not young[0].any(), "nothing of the folio, nor of page 40, is the guest's any more"
    assert not a.arrays.pte[1] & x86.RW and a.arrays.pte[0] & x86.PRESENT
    kvm.access(pages(0, 1), write=False)
    assert not host.frames.arrays.flags[int(memory.cache[0])] & pg.DIRTY, "read again, mapped read-only"
    kvm.access(pages(0, 1), write=True)
    assert host.frames.arrays.flags[int(memory.cache[0])] & pg.DIRTY and a.arrays.pte[1] & x86.RW
    holds(host)


def test_a_folio_that_a_range_touches_is_written_whole_and_its_neighbours_are_not() -> None:
    host, memory, _ = mapping()
    file_write(host, memory, 0, 8)  # one folio of eight pages
    file_write(host, memory, 20, 22)
    host.drain()
    f = host.frames.arrays

    def dirty():
        return [
            index for index in (0, 7, 20, 21) if f.flags[pg.head_of(f, int(memory.cache[index]))] & pg.DIRTY
        ]

    assert dirty() == [0, 7, 20, 21]
    write_and_wait(host, memory, 8, 20)
    assert dirty() == [0, 7, 20, 21], "what lies between holds nothing"
    write_and_wait(host, memory, 7, 8)
    assert dirty() == [20, 21]
    write_and_wait(host, memory, 0, 512)
    assert dirty() == []
    holds(host)


def test_the_lru_batches_are_drained_only_where_something_was_written() -> None:
    host, memory, _ = mapping()
    file_read(host, memory, 0, 4)
    write_and_wait(host, memory, 0, 512)
    f = host.frames.arrays
    assert f.n[pg.N_ADD] == 4, "all is clean: what was read waits in the batch"
    file_write(host, memory, 3, 4)
    write_and_wait(host, memory, 0, 512)
    assert f.n[pg.N_ADD] == 0
    holds(host)


def test_a_mapping_that_may_not_be_written_to_is_left_as_it_is() -> None:
    host, memory, a = mapping()
    file_write(host, memory, 0, 2)
    a.cpu_access(pages(0, 0), write=False)
    invalidated = []
    a.notifiers.invalidate_range = lambda *pages_: invalidated.append(pages_)
    entry = int(a.arrays.pte[0])
    write_and_wait(host, memory, 0, 512)
    assert int(a.arrays.pte[0]) == entry and not invalidated
