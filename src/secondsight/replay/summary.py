"""Blocks summed up: what a policy's Look, the picture and the metrics need of each, without building a view of every page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, PFN_MASK, PRESENT, PSE
from secondsight.mm.mm_struct import Mm
from secondsight.mm.page import (
    HPAGE,
    HUGE_ZERO_PFN,
    REFERENCED,
    YOUNG,
    ZERO_FILLED,
    ZERO_PFN,
    folio_mapcount,
    head_of,
)
from secondsight.mm.pgtable import PFN_SHIFT, pfn_of
from secondsight.native import native
from secondsight.replay.configuration import ReplayedSpace

Ints = npt.NDArray[np.int64]


class BlockSummary(NamedTuple):
    """Columns of one value a block, int64: huge 0/1, and pages that are populated, zero-filled (of the populated), swapped out, shared, and
    young by each channel (*young*: by any of them)."""

    huge: Ints
    populated: Ints
    zero_filled: Ints
    swapped: Ints
    shared: Ints
    primary: Ints
    referenced: Ints
    secondary: Ints
    young: Ints


@native
def _summarise(f, m, young, out):  # type: ignore[no-untyped-def]
    asked = len(young) > 0
    for block in range(len(m.pmd)):
        pmd = m.pmd[block]
        if not pmd & PRESENT:
            continue
        first = block * HPAGE
        if pmd & PSE:
            head = pfn_of(pmd)
            out.huge[block] = 1
            if head == HUGE_ZERO_PFN:
                continue
            old = (pmd & ACCESSED) == 0
            marked = (f.flags[head] & (REFERENCED | YOUNG)) != 0
            out.populated[block] = HPAGE
            out.primary[block] = 0 if old else HPAGE
            out.referenced[block] = HPAGE if marked else 0
            if folio_mapcount(f, head) > 1:
                out.shared[block] = HPAGE
            for i in range(HPAGE):
                if f.flags[head + i] & ZERO_FILLED:
                    out.zero_filled[block] += 1
                other = asked and young[first + i]
                if other:
                    out.secondary[block] += 1
                if other or marked or not old:
                    out.young[block] += 1
            continue
        for i in range(HPAGE):
            entry = m.pte[first + i]
            if entry == 0:
                continue
            if not entry & np.uint64(257):
                out.swapped[block] += 1
                continue
            pfn = pfn_of(entry)
            if pfn == ZERO_PFN:
                continue
            head = head_of(f, pfn)
            out.populated[block] += 1
            if f.flags[pfn] & ZERO_FILLED:
                out.zero_filled[block] += 1
            if folio_mapcount(f, head) > 1:
                out.shared[block] += 1
            primary = (entry & ACCESSED) != 0
            marked = (f.flags[head] & (REFERENCED | YOUNG)) != 0
            other = asked and young[first + i]
            if primary:
                out.primary[block] += 1
            if marked:
                out.referenced[block] += 1
            if other:
                out.secondary[block] += 1
            if primary or marked or other:
                out.young[block] += 1


def summarise(mm: Mm, young: npt.NDArray[np.bool_] | None = None) -> BlockSummary:
    """Every block of *mm*; *young* bool[npages]: what the secondary MMUs say of each page (None: nobody is asked)."""
    out = BlockSummary(*(np.zeros(mm.blocks, np.int64) for _ in BlockSummary._fields))
    _summarise(mm.host.frames.arrays, mm.arrays, np.zeros(0, np.bool_) if young is None else young, out)
    return out


def secondary(mm: Mm) -> npt.NDArray[np.bool_]:
    """What the notifiers' ``test_young`` would say of each page, bool[npages]; looked at from outside, so no call is counted."""
    ask = np.ones(mm.npages, np.bool_)
    young = np.zeros(mm.npages, np.bool_)
    if mm.notifiers:
        for notifier in mm.notifiers.list:
            test = getattr(notifier, "test_young", None)
            if test is not None:
                young |= test(0, mm.npages, ask)
    return young


@native
def _frames(m, out):  # type: ignore[no-untyped-def]
    for block in range(len(m.pmd)):
        pmd = m.pmd[block]
        if not pmd & PRESENT:
            continue
        for page in range(block * HPAGE, block * HPAGE + HPAGE):
            if pmd & PSE:
                out[page] = pfn_of(pmd) + page % HPAGE if pfn_of(pmd) != HUGE_ZERO_PFN else -1
            elif m.pte[page] & np.uint64(257) and pfn_of(m.pte[page]) != ZERO_PFN:
                out[page] = pfn_of(m.pte[page])


def huge_frames(mm: Mm) -> Ints:
    """The first frame of the huge page that each block of *mm* is mapped by, int64[blocks]; -1: none, or the huge zero page."""
    heads = ((mm.arrays.pmd & PFN_MASK) >> PFN_SHIFT).astype(np.int64)
    return np.where((mm.arrays.pmd & PSE != 0) & (heads != HUGE_ZERO_PFN), heads, -1)


def frames(mm: Mm) -> Ints:
    """The frame behind each page of *mm*, int64[npages]; -1 where there is none of its own (nothing, swap, a zero page)."""
    out = np.full(mm.npages, -1, np.int64)
    _frames(mm.arrays, out)
    return out


def pages_young(spaces: Iterable[ReplayedSpace], rows: int) -> dict[str, npt.NDArray[np.int16]]:
    """Pages of each of *rows* blocks that each channel calls young, int16[rows]; -1: unknown."""
    kept = {name: np.full(rows, -1, np.int16) for name in ("primary", "referenced", "secondary")}
    for space in spaces:
        known = space.kvm is None or bool(space.mm.notifiers)
        columns = summarise(space.mm, secondary(space.mm) if space.kvm else None)._asdict()
        for name, column in kept.items():
            if name != "secondary" or known:
                column[space.rows] = columns[name]
    return kept


@native
def _zero_filled(f, m, rows, out):  # type: ignore[no-untyped-def]
    for j in range(len(rows)):
        pmd = m.pmd[rows[j]]
        if pmd & PSE and pfn_of(pmd) != HUGE_ZERO_PFN:
            head = pfn_of(pmd)
            for i in range(HPAGE):
                if f.flags[head + i] & ZERO_FILLED:
                    out[j] += 1


def zero_filled(mm: Mm, rows: Ints) -> Ints:
    """Pages of the huge blocks among *rows* that nobody has written since they were made; 0 for small blocks."""
    out = np.zeros(len(rows), np.int64)
    _zero_filled(mm.host.frames.arrays, mm.arrays, rows, out)
    return out
