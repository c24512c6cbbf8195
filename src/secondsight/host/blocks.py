"""How the 2 MiB blocks of some mappings are filled, exactly, without reading a page's word.

::

    PAGEMAP_SCAN ─▶ regions (start, end, categories) ─▶ counts a block: populated, zero page, swapped, guard markers; huge or not
                    one system call for thousands of regions

What the counts settle needs no more reading: more pages missing than max_ptes_none is "no" whatever the other 511 are. Before Linux 6.7,
which has no PAGEMAP_SCAN, how blocks are filled is read from pagemap's words, 8 bytes a page.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from secondsight.bits import pagemap as pm
from secondsight.errors import MissingDependency
from secondsight.geometry import BLOCK_MASK, HPAGE_PMD_NR, PAGE_SHIFT, PMD_ORDER, PMD_SHIFT, PMD_SIZE
from secondsight.live.read.procfs import U64, Pagemap

I64 = npt.NDArray[np.int64]

#: words of pagemap read at a time where there is no PAGEMAP_SCAN: 1 GiB of addresses
_WORDS = 1 << 18


@dataclass(frozen=True, slots=True)
class Fill:
    """N blocks that hold anything. address uint64[N], rising; populated (a page that is not the zero page), zero, swapped int64[N], pages;
    huge bool[N]: a PMD maps it as a whole."""

    address: U64
    populated: I64
    zero: I64
    swapped: I64
    huge: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.address)

    def __getitem__(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> Fill:
        return Fill(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def missing(self) -> I64:
        """Pages that max_ptes_none counts: nothing there, or the zero page."""
        return HPAGE_PMD_NR - self.populated - self.swapped

    @classmethod
    def join(cls, parts: list[Fill]) -> Fill:
        """The blocks of *parts* one after the other."""
        if not parts:
            nothing = np.zeros(0, np.int64)
            return cls(np.zeros(0, np.uint64), nothing, nothing, nothing, np.zeros(0, np.bool_))
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def fill_of(pagemap: Pagemap, start: int, end: int) -> Fill:
    """How the blocks wholly in [start, end) are filled.

    :raises TargetGone: the process exited or called exec.
    """
    start, end = (start + PMD_SIZE - 1) & -PMD_SIZE, end & -PMD_SIZE
    if start >= end:
        return Fill.join([])
    kinds = pm.SCAN_PRESENT | pm.SCAN_SWAPPED
    try:
        regions = pagemap.scan(start, end, kinds, kinds | pm.SCAN_HUGE | pm.SCAN_PFNZERO)
    except MissingDependency:
        return _by_words(pagemap, start, end)
    return _by_regions(regions)


def _by_regions(regions: npt.NDArray[np.void]) -> Fill:
    """*regions* (start, end, categories), rising, as blocks."""
    first = regions["start"] >> np.uint64(PAGE_SHIFT)
    last = regions["end"] >> np.uint64(PAGE_SHIFT)
    kind = regions["categories"]
    low, high = (
        (first >> np.uint64(PMD_ORDER)).astype(np.int64),
        ((last - 1) >> np.uint64(PMD_ORDER)).astype(np.int64),
    )
    spans = high - low + 1
    if int(spans.sum()) != len(regions):
        # A region over several blocks is one in each.
        which = np.repeat(np.arange(len(regions)), spans)
        block = low[which] + np.arange(len(which)) - np.repeat(np.cumsum(spans) - spans, spans)
        first, last, kind = first[which].astype(np.int64), last[which].astype(np.int64), kind[which]
        pages = np.minimum(last, block + 1 << PMD_ORDER) - np.maximum(first, block << PMD_ORDER)
    else:
        block, pages = low, (last - first).astype(np.int64)
    # Regions rise, so a block's stand together.
    starts = (
        np.flatnonzero(np.concatenate(([True], block[1:] != block[:-1])))
        if len(block)
        else np.zeros(0, np.int64)
    )

    def of(wanted: int, mask: int) -> I64:
        chosen = np.where((kind & np.uint64(mask)) == np.uint64(wanted), pages, 0)
        return np.add.reduceat(chosen, starts) if len(starts) else np.zeros(0, np.int64)

    there = pm.SCAN_PRESENT
    return Fill(
        block[starts].astype(np.uint64) << np.uint64(PMD_SHIFT),
        of(there, there | pm.SCAN_PFNZERO),
        of(there | pm.SCAN_PFNZERO, there | pm.SCAN_PFNZERO),
        of(pm.SCAN_SWAPPED, pm.SCAN_SWAPPED),
        of(there | pm.SCAN_HUGE, there | pm.SCAN_HUGE) == HPAGE_PMD_NR,
    )


def _by_words(pagemap: Pagemap, start: int, end: int) -> Fill:
    """From pagemap's words: which pages are the zero page stays untold (they count as populated), huge is what lies in one row of
    frames."""
    parts = []
    for at in range(start, end, _WORDS << PAGE_SHIFT):
        pages = min(_WORDS, (end - at) >> PAGE_SHIFT)
        words = pagemap.read(at, pages).reshape(-1, HPAGE_PMD_NR)
        present, swapped = (words & pm.PRESENT) != 0, (words & pm.SWAPPED) != 0
        populated, gone = present.sum(axis=1), swapped.sum(axis=1)
        rows = np.flatnonzero(populated + gone)
        frames = words[rows] & pm.PFN_MASK
        row = (frames == frames[:, :1] + np.arange(HPAGE_PMD_NR, dtype=np.uint64)).all(axis=1)
        huge = row & (frames[:, 0] & np.uint64(BLOCK_MASK) == 0) & (frames[:, 0] != 0)
        address = np.uint64(at) + rows.astype(np.uint64) * np.uint64(PMD_SIZE)
        parts.append(Fill(address, populated[rows], np.zeros(len(rows), np.int64), gone[rows], huge))
    return Fill.join(parts)
