"""Accesses and walks of each block behind a TLB (``tlb_path.py``), and what its fast path must know of a block.

    an access on the fast path        recent[guest, block] += 1 + (miss << 32)            one counter, one cache line
    before a block's size changes     recent ──▶ accesses, and walks to pages of the size that it had

What would be four look-ups of four arrays (the row, the size, the accesses, the walks) is two, which takes a tenth of the time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import PSE
from secondsight.geometry import PMD_ORDER
from secondsight.native import inlined, native

#: Bits of a recent count that are accesses; above them are misses. Both are taken out at least once a batch.
ACCESS_BITS = 32


class BlockCounts(NamedTuple):
    """By block of slots (``layout.py``): where uint32[blocks], its row << 9, with bit 0 set if the CPU maps it by a huge page and bit 1
    if the guests do; recent uint64[2, blocks], by the CPU and by guests, not yet in: accesses int64[blocks]; walks int64[4, blocks],
    the CPU's to small and to huge pages, the guests' likewise.
    """

    where: npt.NDArray[np.uint32]
    recent: npt.NDArray[np.uint64]
    accesses: npt.NDArray[np.int64]
    walks: npt.NDArray[np.int64]


def none_yet(blocks: int) -> BlockCounts:
    """Counts of *blocks* blocks: nothing."""
    return BlockCounts(
        np.zeros(blocks, np.uint32),
        np.zeros((2, blocks), np.uint64),
        np.zeros(blocks, np.int64),
        np.zeros((4, blocks), np.int64),
    )


@inlined
def large(lay, m, t, block, guest):  # type: ignore[no-untyped-def]
    """Is *block* of the space mapped by a huge page of the host, for the guest or for the CPU?"""
    return (t.smd[block] & lay.present) != 0 if guest else (m.pmd[block] & PSE) != 0


@native
def settle(counts, number):  # type: ignore[no-untyped-def]
    """What is recent of block *number* (uint64) is counted, by the sizes that it was mapped by."""
    for guest in range(np.uint64(2)):
        recent = counts.recent[guest, number]
        size = (np.uint64(counts.where[number]) >> guest) & np.uint64(1)
        counts.accesses[number] += np.int64(recent & np.uint64((1 << ACCESS_BITS) - 1))
        counts.walks[np.uint64(2) * guest + size, number] += np.int64(recent >> np.uint64(ACCESS_BITS))
        counts.recent[guest, number] = np.uint64(0)


@native
def settle_all(counts, numbers):  # type: ignore[no-untyped-def]
    """:func:`settle` for the blocks *numbers* (int64)."""
    for number in numbers:
        settle(counts, np.uint64(number))


@native
def find_size(counts, lay, m, t, block, row, number):  # type: ignore[no-untyped-def]
    """How *block* of the space, in row *row* and number *number* of the slots (all uint64), is mapped now; settled first if otherwise."""
    now = np.uint32(row << np.uint64(PMD_ORDER))
    now |= np.uint32(large(lay, m, t, block, False)) | np.uint32(large(lay, m, t, block, True)) << np.uint32(
        1
    )
    if now != counts.where[number]:
        settle(counts, number)
        counts.where[number] = now


@native
def find_sizes(counts, lay, m, t, first_row, numbers):  # type: ignore[no-untyped-def]
    """:func:`find_size` of every block of a space, whose rows from *first_row* on have *numbers* (int64) in the slots."""
    for block in range(np.uint64(len(numbers))):
        find_size(counts, lay, m, t, block, np.uint64(first_row) + block, np.uint64(numbers[block]))
