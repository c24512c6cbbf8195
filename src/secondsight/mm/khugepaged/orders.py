"""``mthp_collapse``: which candidates of a scanned block are tried, one after another, and what each result leads to.

::

    offset 0, order 9 ──▶ enabled? enough pages present? ──▶ attempt ──▶ collapsed, or as large already ──▶ next offset
             ▲                     │ no                           ├──▶ refused, but a part may do ──▶ next lower order
             │                     ▼                              └──▶ anything else ──▶ done
             └──────────── one order down; at the lowest enabled, the next offset, at the largest order its alignment allows

mm/khugepaged.c mthp_collapse (7.2; numbers of lines are those of Debian's 7.3.4). A kernel before it tries order 9 alone, which is this
walk with that order alone. Nothing here knows pages or frames: what an attempt does is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR, MIN_ANON_ORDER, PMD_ORDER
from secondsight.mm.khugepaged.limits import CollapseControl, collapse_max_ptes_none
from secondsight.mm.khugepaged.result import ScanResult

#: Results after which the next candidate begins behind this one (7.3 lines 1537-1541).
NEXT_OFFSET: Final = frozenset({ScanResult.SUCCEED, ScanResult.PTE_MAPPED_HUGEPAGE})
#: Results after which a smaller part of the same range is tried (7.3 lines 1543-1558).
NEXT_ORDER: Final = frozenset({
    ScanResult.ALLOC_HUGE_PAGE_FAIL, ScanResult.LACK_REFERENCED_PAGE, ScanResult.EXCEED_NONE_PTE, ScanResult.EXCEED_SWAP_PTE,
    ScanResult.EXCEED_SHARED_PTE, ScanResult.PAGE_LOCK, ScanResult.PAGE_COUNT, ScanResult.PAGE_NULL, ScanResult.DEL_PAGE_LRU,
    ScanResult.PTE_NON_PRESENT, ScanResult.PTE_UFFD_WP, ScanResult.PAGE_LAZYFREE,
})  # fmt: skip


def max_order_from_offset(offset: int) -> int:
    """The largest order whose folios may begin at page *offset* of a block (7.3 line 1473)."""
    return PMD_ORDER if offset == 0 else min((offset & -offset).bit_length() - 1, PMD_ORDER)


def mthp_collapse(
    present: npt.NDArray[np.bool_],
    unmapped: int,
    cc: CollapseControl,
    enabled: int,
    attempt: Callable[[int, int], ScanResult],
) -> ScanResult:
    """Call *attempt* (offset, order) for each candidate of a block whose scan has passed; the block's final result.

    *present* bool[512]: pages that the scan found occupied; *unmapped*: entries that it counted as not present; *enabled*: the orders
    that are, as bits.
    """
    collapsed = alloc_failed = False
    last_result = ScanResult.FAIL
    offset, order = 0, PMD_ORDER
    while offset < HPAGE_PMD_NR:
        pages = 1 << order
        # Is the order enabled (7.3 line 1513), and is enough of the range present?
        if enabled >> order & 1 and _enough(present, unmapped, cc, offset, order):
            result = attempt(offset, order)
            if result in NEXT_OFFSET:
                collapsed |= result == ScanResult.SUCCEED
                offset += pages
                order = max_order_from_offset(offset)
                continue
            last_result = result
            if result not in NEXT_ORDER:
                break
            alloc_failed |= result == ScanResult.ALLOC_HUGE_PAGE_FAIL
        # Refused, or not tried: one order down, if any below is enabled (7.3 line 1574); else the next offset.
        if order > MIN_ANON_ORDER and enabled & ((1 << order) - 1):
            order -= 1
        else:
            offset += pages
            order = max_order_from_offset(offset)
    if collapsed:
        return ScanResult.SUCCEED
    return ScanResult.ALLOC_HUGE_PAGE_FAIL if alloc_failed else last_result


def _enough(
    present: npt.NDArray[np.bool_], unmapped: int, cc: CollapseControl, offset: int, order: int
) -> bool:
    """Are enough of the candidate's pages occupied (7.3 line 1528)? At order 9 what is in swap counts as present.

    The area is not asked about: where userfaultfd is armed only isolate refuses empty pages.
    """
    # The bitmap of present pages; at order 9 what is in swap counts too (7.3 lines 1517-1526).
    pages = 1 << order
    occupied = int(np.count_nonzero(present[offset : offset + pages]))
    if order == PMD_ORDER:
        occupied += unmapped
    # As many as the limit of this order leaves missing (7.3 line 1528).
    return occupied >= pages - int(collapse_max_ptes_none(cc, False, order))
