"""Blocks of a running process as columns, from whatever may be read: procfs alone, or kernel memory.

::

                      procfs                                   kernel memory
    pte, pmd          present, PFN, swapped; no accessed bit    the entries themselves
    PRIMARY           unknown (clear where smaps rules it out)  known
    REFERENCED        KPF_REFERENCED; PG_young not seen         known, PG_young too
    one of the two    where smaps' sums say so of every page    known
    SECONDARY         unknown if any notifier may be there      KVM: known; a notifier that cannot be read: unknown
    references held   unknown                                   known

``procfs_reader.py`` and ``kernel_reader.py`` fill them in, ``view.py`` turns them into the judgement's view. Imports nothing that a
small guest does not have (NumPy).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

from secondsight.bits.pageflags import ZERO_PAGE
from secondsight.bits.pte import pmd_trans_huge
from secondsight.bufferpool import unset
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


class CachePage(IntFlag):
    """What the page cache has at a page of a file, as khugepaged's scan of it asks: nothing (0), or these together.

    SWAPPED: an entry that is no page, of shared memory in swap or of a file's page that reclaim dropped. Of PRESENT ones: HUGE, its
    folio is of 2 MiB; OFF_LRU; HELD, referred to beyond the cache, its mappings and buffer heads; DIRTY, or being written; LOCKED.
    UNREAD: not read."""

    PRESENT = 1
    SWAPPED = 2
    HUGE = 4
    OFF_LRU = 8
    HELD = 16
    DIRTY = 32
    LOCKED = 64
    UNREAD = 128


@dataclass(frozen=True, slots=True)
class Secondary:
    """One notifier's answers: *young*, *known* bool[N, 512]; *why* says why what is not known is not."""

    name: str
    young: Bools
    known: Bools
    why: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """N blocks x 512 pages, as read.

    address, pmd uint64[N]; pte uint64[N, 512], the zero page as frame 0; flags uint32 (``bits.pageflags``); mapcount,
    folio_mapcount, refcount int32; shared bool; folio int64 (head's frame, -1: none); order uint8, of the folio; pte_known bool: the
    accessed bit is real; page_known bool; either bool: the accessed bit, PG_young or PG_referenced is set, which is not known; zap_marks
    uint8: accessed SPTEs over the page; all [N, 512]. *counts_known* False: references beyond the mappings could not be seen.
    gfn int64[N]: guest frame of the block's first page (-1: no VM), slot int32[N]. cached int32[N]: pages of the block
    that are in the page cache, whoever maps them; -1: anonymous memory, or not read. evicted, dirty int32[N]: pages
    that the page cache has an entry in place of, and pages that are not written (cachestat); -1: not read.
    cache uint8[N, 512]: ``CachePage`` of each page of a file, where kernel memory was read.
    sizes int32[N, 11]: pages by the order of their folio (``folio_sizes.py``); of a block that a PMD maps all 512 at order 9. spte_level
    uint8[N]: the level at which KVM maps the block (1: 4 KiB, 2: 2 MiB, 3: 1 GiB; the lowest of several; 0: not mapped, or not read).
    """

    address: U64
    pmd: U64
    pte: U64
    flags: npt.NDArray[np.uint32]
    mapcount: npt.NDArray[np.int32]
    folio_mapcount: npt.NDArray[np.int32]
    refcount: npt.NDArray[np.int32]
    shared: Bools
    folio: npt.NDArray[np.int64]
    order: npt.NDArray[np.uint8]
    pte_known: Bools
    page_known: Bools
    either: Bools
    zap_marks: npt.NDArray[np.uint8]
    gfn: npt.NDArray[np.int64]
    slot: npt.NDArray[np.int32]
    cached: npt.NDArray[np.int32]
    evicted: npt.NDArray[np.int32]
    dirty: npt.NDArray[np.int32]
    cache: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int32]
    spte_level: npt.NDArray[np.uint8]
    counts_known: bool = True
    secondary: tuple[Secondary, ...] = field(default=())

    @property
    def huge(self) -> Bools:
        """Which blocks a PMD maps to a huge page; bool[N].

        The huge zero page is none: it is no memory, and smaps counts it nowhere (fs/proc/task_mmu.c smaps_pmd_entry).
        """
        huge: Bools = pmd_trans_huge(self.pmd) & ((self.flags[:, 0] & ZERO_PAGE) == 0)
        return huge

    @classmethod
    def empty(cls, blocks: U64, **facts: object) -> Columns:
        """Columns for the blocks at *blocks* (uint64[N]), all zero and known; *facts* are the fields that are not arrays."""
        columns = cls.unread(blocks, **facts)
        columns.pte[:], columns.folio[:], columns.flags[:], columns.mapcount[:] = 0, -1, 0, 0
        columns.page_known[:] = columns.pte_known[:] = True
        counts = (np.zeros(columns.pte.shape, np.int32) for _ in range(2))
        return replace(columns, folio_mapcount=next(counts), refcount=next(counts))

    @classmethod
    def unread(cls, blocks: U64, **facts: object) -> Columns:
        """Columns to be read into: *pte*, *folio*, *flags*, *mapcount* and *page_known* hold anything until they are written.

        *folio_mapcount* and *refcount* are *mapcount* itself; the others are zero, and nothing is known.
        """
        count, page = len(blocks), (len(blocks), HPAGE_PMD_NR)
        # The arrays of a number a page lie in one.
        arena = unset(count * HPAGE_PMD_NR * 29)
        taken = 0

        def part(of: type[np.generic]) -> npt.NDArray[Any]:
            nonlocal taken
            start, taken = taken, taken + count * HPAGE_PMD_NR * np.dtype(of).itemsize
            return arena[start:taken].view(of).reshape(page)

        pte, folio, flags, mapcount = part(np.uint64), part(np.int64), part(np.uint32), part(np.int32)
        page_known, shared, pte_known, either, zap_marks = (
            part(np.bool_),
            part(np.bool_),
            part(np.bool_),
            part(np.bool_),
            part(np.uint8),
        )
        shared[:] = pte_known[:] = either[:] = False
        zap_marks[:] = 0
        return cls(
            address=blocks.copy(), pmd=np.zeros(count, np.uint64), pte=pte, flags=flags, mapcount=mapcount,
            folio_mapcount=mapcount, refcount=mapcount, shared=shared, folio=folio, order=np.zeros(page, np.uint8), pte_known=pte_known,
            page_known=page_known, either=either, zap_marks=zap_marks, gfn=np.full(count, -1, np.int64),
            slot=np.full(count, -1, np.int32), cached=np.full(count, -1, np.int32),
            evicted=np.full(count, -1, np.int32), dirty=np.full(count, -1, np.int32), cache=np.full(page, CachePage.UNREAD, np.uint8),
            sizes=np.zeros((count, PMD_ORDER + 2), np.int32), spte_level=np.zeros(count, np.uint8), **facts,  # type: ignore[arg-type]
        )  # fmt: skip

    def chosen(self, rows: npt.NDArray[np.int64]) -> Columns:
        """The blocks *rows*, int64[M], as columns of their own."""
        arrays = {
            each.name: getattr(self, each.name)[rows]
            for each in fields(self)
            if each.name not in ("counts_known", "secondary")
        }
        answers = tuple(replace(a, young=a.young[rows], known=a.known[rows]) for a in self.secondary)
        return replace(self, **arrays, secondary=answers)
