"""``__collapse_huge_page_swapin``: before isolate every swapped page of the block comes back.

On the model's own state (:func:`swap_in_block`), and on a view (:func:`swap_in`). Below the PMD order nothing is swapped in: the first
entry that is not present ends the attempt (mm/khugepaged.c __collapse_huge_page_swapin, 7.3 line 1203).

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, DIRTY, MAPPED, PFN_MASK, PRESENT, USER
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm import swap
from secondsight.mm.lru import lru_add_drain
from secondsight.mm.page import ANON, LRU, SWAPBACKED
from secondsight.mm.view import BlockView
from secondsight.native import native


@native
def swap_in_block(f, r, m, block):  # type: ignore[no-untyped-def]
    """Every swapped page of the block comes back: how many faults that took, none of them the process's; ``-1 - n`` where one failed
    after *n*.

    A large folio that comes back takes one for all of its pages. A marker that is an error, or a poisoned page, fails (7.3 line 1228).
    """
    count = 0
    for page in range(block * HPAGE_PMD_NR, (block + 1) * HPAGE_PMD_NR):
        entry = m.pte[page]
        if entry != 0 and not entry & MAPPED:
            if not swap.swap_in(f, r, m, page, False, False):
                return -1 - count
            count += 1
    if count:
        lru_add_drain(f, r)
    return count


@native
def first_not_present(m, first, end):  # type: ignore[no-untyped-def]
    """The first of the pages *first* to *end* whose entry is neither none nor present; -1 if there is none."""
    for page in range(first, end):
        if m.pte[page] != 0 and not m.pte[page] & MAPPED:
            return page
    return -1


def swap_in(view: BlockView, chosen: npt.NDArray[np.bool_] | None = None) -> BlockView:
    """The view after the swap-in of its blocks (of those *chosen*, bool[N]): each swapped page is present, young as a fault leaves it, and
    this process's alone. Pure.

    The page's frame is not known yet: its number is the highest there is, and no folio has it.
    """
    rows = np.arange(len(view)) if chosen is None else np.flatnonzero(chosen)
    swapped = (view.pte[rows] != 0) & (view.pte[rows] & MAPPED == 0)
    if not swapped.any():
        return view
    block, page = np.nonzero(swapped)
    values: dict[str, Any] = {
        "pte": PRESENT | USER | ACCESSED | DIRTY | PFN_MASK, "flags": ANON | LRU | SWAPBACKED, "mapcount": 1, "folio_mapcount": 1,
        "refcount": 1, "shared": False, "folio": -1, "order": 0, "pte_known": True, "page_known": True,
    }  # fmt: skip
    changed = {name: getattr(view, name).copy() for name in values}
    for name, value in values.items():
        changed[name][rows[block], page] = value
    return replace(view, **changed)
