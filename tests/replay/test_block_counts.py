"""Accesses and walks by block: by the size that a block had when they came."""

import numpy as np

from secondsight.mm.madvise import madvise
from secondsight.replay.block_counts import ACCESS_BITS, find_sizes, none_yet, settle, settle_all
from support.model import pages, vm


def test_what_is_recent_is_counted_by_the_size_of_the_mapping() -> None:
    counts = none_yet(3)
    counts.where[:] = [0, 0b01, 0b11]
    counts.recent[0] = [5 | 2 << ACCESS_BITS, 7 | 3 << ACCESS_BITS, 1 | 1 << ACCESS_BITS]
    counts.recent[1] = [4, 6 | 6 << ACCESS_BITS, 9 | 8 << ACCESS_BITS]
    settle_all(counts, np.arange(3))
    assert counts.accesses.tolist() == [9, 13, 10]
    assert counts.walks.tolist() == [[2, 0, 0], [0, 3, 1], [0, 6, 0], [0, 0, 8]]
    assert not counts.recent.any()


def test_settling_again_counts_nothing_twice() -> None:
    counts = none_yet(1)
    counts.recent[:] = 1 | 1 << ACCESS_BITS
    settle(counts, np.uint64(0))
    settle(counts, np.uint64(0))
    assert counts.accesses.tolist() == [2] and counts.walks.ravel().tolist() == [1, 0, 1, 0]


def test_a_block_of_more_accesses_than_32_bits_of_misses_keeps_them_apart() -> None:
    counts = none_yet(1)
    most = (1 << ACCESS_BITS) - 1
    counts.recent[0, 0] = np.uint64(most << ACCESS_BITS | most)
    settle(counts, np.uint64(0))
    assert counts.accesses[0] == counts.walks[0, 0] == most


def test_who_maps_a_block_by_a_huge_page_is_looked_up_and_what_came_before_is_counted_as_small() -> None:
    _, mm, kvm = vm("6.1", blocks=2)
    # Makes the guest a table, which the collapse leaves empty until its next access.
    kvm.access(pages(0, 0), write=False)
    (table,) = kvm.slots[0].tables.values()
    counts, numbers, first_row = none_yet(8), np.array([5, 6]), 3
    mm.cpu_access(pages(0, 0), write=True)
    find_sizes(counts, kvm.layout, mm.arrays, table, first_row, numbers)
    assert counts.where.tolist() == [0, 0, 0, 0, 0, 3 << 9, 4 << 9, 0]
    counts.recent[:, 5] = 1 | 1 << ACCESS_BITS
    madvise(mm, 0, 512, "hugepage")
    madvise(mm, 0, 512, "collapse")
    find_sizes(counts, kvm.layout, mm.arrays, table, first_row, numbers)
    assert counts.where[5] == 3 << 9 | 0b01
    assert counts.accesses[5] == 2 and counts.walks[:, 5].tolist() == [1, 0, 1, 0]
    kvm.access(pages(0, 0), write=True)
    counts.recent[:, 5] = 1 | 1 << ACCESS_BITS
    find_sizes(counts, kvm.layout, mm.arrays, table, first_row, numbers)
    assert counts.where[5] == 3 << 9 | 0b11
    # The guest's before its own was huge.
    assert counts.walks[:, 5].tolist() == [1, 1, 2, 0]
