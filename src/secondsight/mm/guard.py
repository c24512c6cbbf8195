"""Guards: markers in page tables on which every access fails (MADV_GUARD_INSTALL and MADV_GUARD_REMOVE of mm/madvise.c, since 6.13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secondsight.bits.pte import PSE, TABLE
from secondsight.bits.swap import MARKER_GUARD, MARKER_TYPE, swp_entry
from secondsight.mm.page import HPAGE
from secondsight.mm.unmap import unmap

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm

#: make_pte_marker(PTE_MARKER_GUARD).
GUARD = swp_entry(np.full(1, MARKER_TYPE, np.uint64), np.full(1, MARKER_GUARD, np.uint64))[0]


def guard_install(mm: Mm, start: int, end: int) -> None:
    """madvise_guard_install: pages *start* to *end*, all of one area, become guards.

    Whatever but guards is mapped or swapped out there is zapped first, in one go over the whole range; an area gets its anon_vma.
    """
    vma = mm.vmas.at(start)
    if not vma.anon_vma:
        mm.vmas.set_anon(vma)
    a = mm.arrays
    blocks = np.arange(start, end) // HPAGE
    here = np.where(a.pmd[blocks] == 0, np.uint64(0), a.pte[start:end])
    if bool(((a.pmd[blocks] & PSE) != 0).any()) or bool(((here != 0) & (here != GUARD)).any()):
        unmap(mm, start, end, drops_markers=False)
    tables = np.unique(blocks)
    a.pmd[tables[a.pmd[tables] == 0]] = TABLE
    a.pte[start:end] = GUARD


def guard_remove(mm: Mm, start: int, end: int) -> None:
    """madvise_guard_remove: guards go, everything else stays."""
    pte = mm.arrays.pte[start:end]
    pte[pte == GUARD] = 0
