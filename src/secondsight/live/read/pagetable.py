"""The primary page table, read from kernel memory a table at a time.

::

    63      48 47    39 38    30 29    21 20    12 11       0        (five levels: 56..48 index one more table)
    sign       PGD/P4D  PUD      PMD      PTE      offset
                        512 GiB  1 GiB    2 MiB    4 KiB             what one entry covers
                        leaf?    leaf?    leaf?

A block's 512 PTEs are the one table below its PMD entry. Tables can be freed and reused while they are read, so a
block counts only if its PMD entry, found again from the top after the read, is what it was before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits import pte as bits
from secondsight.geometry import HPAGE_PMD_NR, LEVEL_BITS, PAGE_SHIFT, PMD_SHIFT, PMD_SIZE, PTRS_PER_PTE
from secondsight.live.read.kmem import KernelMemory, Torn

U64 = npt.NDArray[np.uint64]
#: of an entry in its table
_INDEX = PTRS_PER_PTE - 1
_ATTEMPTS = 3


class Entries(NamedTuple):
    """Entries of N blocks: *pmd* uint64[N], *pte* uint64[N, 512] (0 where there is no table), *known* bool[N]; ``bits.pte.upright``."""

    pmd: U64
    pte: U64
    known: npt.NDArray[np.bool_]


class PageTable:
    """The page table of one ``struct mm_struct``."""

    def __init__(self, kernel: KernelMemory, pgd: int) -> None:
        """*pgd*: kernel virtual address of the top table (``mm->pgd``)."""
        self._kernel = kernel
        self._pgd = pgd

    def _pmd_table(self, gigabyte: int) -> U64 | None:
        """The PMD table that covers 1 GiB from address *gigabyte*; a huge PUD as 512 equal leaves; None if absent."""
        table = self._kernel.words(self._pgd, PTRS_PER_PTE)
        for level in range(self._kernel.page_table_levels, 2, -1):
            entry = table[gigabyte >> (PAGE_SHIFT + LEVEL_BITS * (level - 1)) & _INDEX]
            if not entry & bits.PRESENT:
                return None
            if level == 3 and entry & bits.PSE:
                return np.full(PTRS_PER_PTE, entry, np.uint64)
            table = self._kernel.table(int(entry & self._kernel.pfn_mask))
        return table

    def _pmds(self, blocks: U64) -> U64:
        """PMD entry of each block (uint64[N], ascending reads fastest); 0 where no table reaches it."""
        pmds = np.zeros(len(blocks), np.uint64)
        gigabytes, which = np.unique(blocks >> np.uint64(30), return_inverse=True)
        for index, gigabyte in enumerate(gigabytes.tolist()):
            table = self._pmd_table(gigabyte << 30)
            if table is not None:
                mine = which == index
                pmds[mine] = table[
                    (blocks[mine] >> np.uint64(PMD_SHIFT) & np.uint64(_INDEX)).astype(np.int64)
                ]
        return pmds

    def mapped_blocks(self, start: int, end: int) -> U64:
        """Addresses of the 2 MiB blocks wholly in [start, end) whose PMD entry is not none; uint64[N].

        What cannot be read now (:class:`Torn`) counts as mapped: reading it again will tell.
        """
        first, last = start + PMD_SIZE - 1 >> PMD_SHIFT, end >> PMD_SHIFT
        addresses = [np.empty(0, np.uint64)]
        for gigabyte in range(first >> LEVEL_BITS, (last + _INDEX) >> LEVEL_BITS):
            low, high = max(first, gigabyte << LEVEL_BITS), min(last, gigabyte + 1 << LEVEL_BITS)
            numbers = np.arange(low, high, dtype=np.uint64)
            try:
                table = self._pmd_table(gigabyte << 30)
            except Torn:
                addresses.append(numbers << np.uint64(PMD_SHIFT))
                continue
            if table is not None:
                addresses.append(
                    numbers[table[low & _INDEX : (low & _INDEX) + len(numbers)] != 0] << np.uint64(PMD_SHIFT)
                )
        return np.concatenate(addresses)

    def read_blocks(self, blocks: U64) -> Entries:
        """PMD entry and PTEs of the blocks at *blocks* (uint64[N]).

        A block whose tables kept changing is not *known* after three attempts; nothing is raised.
        """
        count = len(blocks)
        pmd, pte = np.zeros(count, np.uint64), np.zeros((count, HPAGE_PMD_NR), np.uint64)
        known = np.zeros(count, np.bool_)
        left = np.arange(count)
        for _ in range(_ATTEMPTS):
            if not len(left):
                break
            wanted = blocks[left]
            try:
                before = self._pmds(wanted)
            except Torn:
                continue
            whole = np.ones(len(left), np.bool_)
            rows = np.zeros((len(left), HPAGE_PMD_NR), np.uint64)
            tables = bits.pte_present(before) & ~bits.pmd_trans_huge(before)
            for row in np.flatnonzero(tables).tolist():
                try:
                    rows[row] = self._kernel.table(int(before[row] & self._kernel.pfn_mask))
                except Torn:
                    whole[row] = False
            try:
                # Accessed and dirty of a table's entry move as the hardware walks; the rest must have stayed.
                changing = bits.ACCESSED | bits.DIRTY
                whole &= ((self._pmds(wanted) ^ before) & ~changing) == 0
            except Torn:
                continue
            done = left[whole]
            pmd[done], pte[done], known[done] = bits.upright(before[whole]), bits.upright(rows[whole]), True
            left = left[~whole]
        return Entries(pmd, pte, known)
